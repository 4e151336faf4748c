//! Operators that join tensors, cut them, or take parts of them.

use super::operator::{Facts, Operator};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{self, Size};

pub(super) fn concat(operator: &Operator<'_>) -> Facts {
    let first = operator.shape(0)?;
    let axis = size::axis(operator.int("axis").ok_or(Problem::Shape)?, first.len())?;
    let count = operator.inputs.len();
    let mut shape = first.to_vec();
    for input in 1..count {
        let other = operator.shape(input)?;
        if other.len() != first.len() || size::rows(other) != size::rows(first) {
            return Err(Problem::Meets);
        }
        for (place, (size, &other)) in shape.iter_mut().zip(other).enumerate() {
            *size = match (*size, other) {
                (Size::Rows, _) if place == axis => return Err(Problem::Along),
                (Size::Fixed(a), Size::Fixed(b)) if place == axis => Size::Fixed(a.saturating_add(b)),
                _ if place == axis => operator.fresh(),
                (Size::Other(_), fixed @ Size::Fixed(_)) => fixed,
                (same, _) => same,
            };
        }
    }
    let ints = if first.len() == 1 && size::rows(first).is_none() {
        let parts: Result<Vec<_>, _> = (0..count).map(|input| operator.elements(input)).collect();
        parts.ok().map(|parts| parts.concat())
    } else {
        None
    };
    let counts = operator.inputs.iter().flatten().any(|input| input.counts());
    if ints.is_none() && counts {
        return Err(Problem::Counts);
    }
    Ok(vec![Fact {
        ints: ints.filter(|ints| ints.len() <= 64),
        floats: fractions(operator, first.len()),
        ..Fact::shaped(shape)
    }])
}

/// The elements of lists of floating-point numbers.
fn fractions(operator: &Operator<'_>, rank: usize) -> Option<Vec<f32>> {
    let parts = operator.inputs.iter().map(|input| (*input)?.floats.as_ref());
    let all = parts
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .flatten()
        .copied()
        .collect();
    (rank == 1).then_some(all)
}

pub(super) fn gather(operator: &Operator<'_>) -> Facts {
    let (data, indices) = (operator.input(0)?, operator.input(1)?);
    if indices.counts() {
        return Err(Problem::Counts);
    }
    let (shape, places) = (operator.shape(0)?, operator.shape(1)?);
    let axis = size::axis(operator.int("axis").unwrap_or(0), shape.len())?;
    if shape[axis] == Size::Rows {
        return Err(Problem::Along);
    }
    let result = [&shape[..axis], places, &shape[axis + 1..]].concat();
    let ints = data.ints.as_ref().map(|ints| {
        let places = operator.fixed(1)?.ok_or(Problem::Shape)?;
        let place = |place| Ok(ints[size::axis(place, ints.len())?]);
        places.into_iter().map(place).collect::<Result<Vec<_>, Problem>>()
    });
    let ints = match ints.transpose() {
        Err(problem) if data.counts() => return Err(problem),
        ints => ints.ok().flatten(),
    };
    Ok(vec![Fact {
        ints,
        ..Fact::shaped(result)
    }])
}

pub(super) fn pad(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let shape = operator.shape(0)?;
    let pads = match operator.ints("pads") {
        Some(pads) => pads.to_vec(),
        None => operator.fixed(1)?.ok_or(Problem::Shape)?,
    };
    let all = || (0..i64::try_from(shape.len()).unwrap_or(0)).collect();
    let axes: Vec<i64> = operator.fixed(3)?.unwrap_or_else(all);
    if pads.len() != 2 * axes.len() {
        return Err(Problem::Shape);
    }
    let mut padded = shape.to_vec();
    for (index, &named) in axes.iter().enumerate() {
        let (size, more) = (
            &mut padded[size::axis(named, shape.len())?],
            [pads[index], pads[index + axes.len()]],
        );
        *size = match *size {
            same if more == [0, 0] => same,
            Size::Rows => return Err(Problem::Along),
            Size::Fixed(size) => Size::Fixed(size.saturating_add(more[0]).saturating_add(more[1])),
            Size::Other(_) => operator.fresh(),
        };
    }
    Ok(vec![Fact::shaped(padded)])
}

/// What is cut out of one dimension; unknown numbers are `None`.
struct Cut {
    axis: usize,
    start: Option<i64>,
    end: Option<i64>,
    step: Option<i64>,
}

impl Cut {
    /// What is left of a dimension.
    fn size(&self, of: Size, operator: &Operator<'_>) -> Result<Size, Problem> {
        // Exporters write the largest number of 32 or 64 bits for "to the end".
        let to_end = self.end.is_some_and(|end| end >= i64::from(i32::MAX));
        let is_whole = self.start == Some(0) && to_end && self.step == Some(1);
        match (of, self.start, self.end, self.step) {
            (same, ..) if is_whole => Ok(same),
            (Size::Rows, ..) => Err(Problem::Along),
            (Size::Fixed(size), Some(start), Some(end), Some(step @ 1..)) => {
                let place = |place: i64| {
                    if place < 0 {
                        place.saturating_add(size)
                    } else {
                        place
                    }
                    .clamp(0, size)
                };
                let length = (place(end) - place(start)).max(0);
                Ok(Size::Fixed(length / step + i64::from(length % step > 0)))
            }
            _ => Ok(operator.fresh()),
        }
    }

    /// What is left of a list.
    fn ints(&self, of: &[Size]) -> Option<Vec<Size>> {
        let size = i64::try_from(of.len()).ok()?;
        let place = |place: i64| {
            let place = if place < 0 {
                place.saturating_add(size)
            } else {
                place
            };
            usize::try_from(place.clamp(0, size)).ok()
        };
        let (start, end) = (place(self.start?)?, place(self.end?)?);
        let step = usize::try_from(self.step?).ok().filter(|&step| step > 0)?;
        let cut = of.get(start..end.max(start))?;
        Some(cut.iter().step_by(step).copied().collect())
    }
}

pub(super) fn slice(operator: &Operator<'_>) -> Facts {
    let input = operator.input(0)?;
    let mut shape = operator.shape(0)?.to_vec();
    let cuts = cuts(operator, shape.len())?;
    for cut in &cuts {
        shape[cut.axis] = cut.size(shape[cut.axis], operator)?;
    }
    let ints = match (&input.ints, &cuts[..]) {
        (Some(ints), [cut]) => cut.ints(ints),
        _ => None,
    };
    if ints.is_none() && input.counts() {
        return Err(Problem::Counts);
    }
    Ok(vec![Fact {
        ints,
        ..Fact::shaped(shape)
    }])
}

fn cuts(operator: &Operator<'_>, rank: usize) -> Result<Vec<Cut>, Problem> {
    let numbers = |name: &str, input: usize| match operator.ints(name) {
        Some(ints) => Ok(ints.iter().map(|&int| Some(int)).collect()),
        None => places(operator, input),
    };
    let (starts, ends): (Vec<_>, Vec<_>) = (numbers("starts", 1)?, numbers("ends", 2)?);
    let first = || (0..i64::try_from(starts.len()).unwrap_or(0)).map(Some).collect();
    let has = |name: &str, input: usize| operator.ints(name).is_some() || operator.given(input).is_some();
    let axes: Vec<Option<i64>> = if has("axes", 3) {
        numbers("axes", 3)?
    } else {
        first()
    };
    let steps = if operator.given(4).is_some() {
        places(operator, 4)?
    } else {
        vec![Some(1); starts.len()]
    };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(Problem::Shape);
    }
    let cut = |index: usize| {
        Ok(Cut {
            axis: size::axis(axes[index].ok_or(Problem::Shape)?, rank)?,
            start: starts[index],
            end: ends[index],
            step: steps[index],
        })
    };
    (0..starts.len()).map(cut).collect()
}

/// Numbers from an input, where they are known.
fn places(operator: &Operator<'_>, input: usize) -> Result<Vec<Option<i64>>, Problem> {
    let numbers = operator.elements(input)?.into_iter().map(|number| match number {
        Size::Fixed(number) => Ok(Some(number)),
        Size::Other(_) => Ok(None),
        Size::Rows => Err(Problem::Counts),
    });
    numbers.collect()
}

pub(super) fn split(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let shape = operator.shape(0)?;
    let axis = size::axis(operator.int("axis").unwrap_or(0), shape.len())?;
    let count = operator.node.outputs.len();
    let parts: Vec<Size> = match (operator.ints("split"), operator.given(1), shape[axis]) {
        (_, _, Size::Rows) => return Err(Problem::Along),
        (Some(parts), ..) => parts.iter().map(|&part| Size::Fixed(part)).collect(),
        (None, Some(_), _) => operator.elements(1)?,
        (None, None, whole) => equal(operator, whole, count),
    };
    if parts.len() != count {
        return Err(Problem::Shape);
    }
    let fact = |part| {
        let mut shape = shape.to_vec();
        shape[axis] = part;
        Fact::shaped(shape)
    };
    Ok(parts.into_iter().map(fact).collect())
}

/// This many parts of the same size.
fn equal(operator: &Operator<'_>, whole: Size, count: usize) -> Vec<Size> {
    let parts = i64::try_from(count).unwrap_or(i64::MAX).max(1);
    let part = |_| match whole {
        Size::Fixed(whole) if whole % parts == 0 => Size::Fixed(whole / parts),
        _ => operator.fresh(),
    };
    (0..count).map(part).collect()
}
