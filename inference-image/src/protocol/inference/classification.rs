//! Triton's classification extension: instead of an output, its largest values as strings `VALUE:INDEX` or
//! `VALUE:INDEX:LABEL`
//! (<https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md>).

use crate::tensor::{Element, Tensor};
use crate::with_element_type;
use bytes::Bytes;
use half::{bf16, f16};
use std::cmp::Ordering;

/// A value of an output.
trait Score: Element {
    /// Orders NaN after all numbers.
    fn order(&self, other: &Self) -> Ordering;

    /// As C++'s `std::to_string`, which Triton uses, writes it.
    fn text(&self) -> String;
}

macro_rules! floats {
    ($($type:ty),*) => {$(
        impl Score for $type {
            fn order(&self, other: &Self) -> Ordering {
                let numbers = self.partial_cmp(other);
                numbers.unwrap_or_else(|| other.is_nan().cmp(&self.is_nan()))
            }

            fn text(&self) -> String {
                format!("{:.6}", f64::from(*self))
            }
        }
    )*};
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Score for $type {
            fn order(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }

            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

floats!(f16, bf16, f32, f64);
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Score for bool {
    fn order(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }

    fn text(&self) -> String {
        u8::from(*self).to_string()
    }
}

/// The `count` largest values, best first: of each row if the first dimension is a batch, else of all values.
///
/// # Errors
/// If the output holds strings.
pub(crate) fn top<'a>(
    tensor: &Tensor,
    count: usize,
    batched: bool,
    label: impl Fn(usize) -> Option<&'a str>,
) -> Result<Tensor, String> {
    let rows = if batched { tensor.shape().first() } else { None };
    let rows = rows.map_or(1, |&rows| usize::try_from(rows).unwrap_or(1));
    let row = tensor.len().checked_div(rows).unwrap_or(0);
    let count = count.min(row);
    let strings = with_element_type!(tensor.datatype(), T => {
        let values = tensor.elements::<T>().unwrap_or_default();
        let rows = values.chunks(row.max(1));
        rows.flat_map(|row| largest(row, count, &label)).collect()
    }, BYTES => return Err("classes can be made only from numbers".to_owned()));
    let shape = [batched.then_some(rows), Some(count)].into_iter().flatten();
    let shape = shape.map(|length| i64::try_from(length).unwrap_or(i64::MAX));
    Tensor::from_strings(shape.collect(), strings).map_err(|problem| problem.to_string())
}

fn largest<'a, T: Score>(
    values: &[T],
    count: usize,
    label: &impl Fn(usize) -> Option<&'a str>,
) -> Vec<Bytes> {
    let mut ranking: Vec<usize> = (0..values.len()).collect();
    let best_first = |a: &usize, b: &usize| values[*b].order(&values[*a]).then(a.cmp(b));
    if count < ranking.len() {
        ranking.select_nth_unstable_by(count, best_first);
        ranking.truncate(count);
    }
    ranking.sort_unstable_by(best_first);
    let text = |index: usize| {
        let value = values[index].text();
        match label(index) {
            Some(label) => format!("{value}:{index}:{label}"),
            None => format!("{value}:{index}"),
        }
    };
    ranking.into_iter().map(|index| text(index).into()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(tensor: &Tensor) -> Vec<&str> {
        let strings = tensor.strings().unwrap().iter();
        strings.map(|text| std::str::from_utf8(text).unwrap()).collect()
    }

    #[test]
    fn the_largest_come_first_row_by_row() {
        let scores = Tensor::from_vec(vec![2, 3], vec![0.25_f32, 2.0, -1.0, f32::NAN, 7.5, 9.0]).unwrap();
        let labels = ["cat", "dog"];
        let rows = top(&scores, 2, true, |index| labels.get(index).copied()).unwrap();
        assert_eq!(rows.shape(), [2, 2]);
        assert_eq!(
            text(&rows),
            ["2.000000:1:dog", "0.250000:0:cat", "9.000000:2", "7.500000:1:dog"]
        );
        let all = top(&scores, 9, false, |_| None).unwrap();
        assert_eq!(all.shape(), [6]);
        assert_eq!(text(&all)[..2], ["9.000000:5", "7.500000:4"]);
        assert_eq!(text(&all)[5], "NaN:3");
    }

    #[test]
    fn integers_are_written_as_such_and_strings_refused() {
        let votes = Tensor::from_vec(vec![1, 3], vec![u64::MAX, 3, u64::MAX]).unwrap();
        let best = top(&votes, 2, true, |_| None).unwrap();
        assert_eq!(text(&best), ["18446744073709551615:0", "18446744073709551615:2"]);
        let strings = Tensor::from_strings(vec![1], vec!["a".into()]).unwrap();
        assert!(top(&strings, 1, true, |_| None).is_err());
    }
}
