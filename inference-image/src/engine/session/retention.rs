//! What a session keeps of the memory of its runs, and when it is freed. ONNX Runtime frees nothing that a run has used:
//! the next one of the same sizes finds it ready. Runs of many sizes add up, to several times what the largest needs, in
//! each session.
//!
//! So where the model leaves sizes open, and the sessions keep much, a run frees what it has used at its end, unless its
//! inputs have the sizes of the last run's. What that misses is freed when the model is idle: outputs that were still to be
//! sent, runs that were repeated, and sizes that followed from values. Runs of one size, and batches of a few rows, never
//! free anything.
//!
//! Pure: [`super::memory`] has the memory.

use crate::engine::interface::{Port, Signature};
use crate::tensor::{Tensor, element_count};

/// So much may be kept in any case, in bytes.
const LITTLE: u64 = 16 << 20;

/// What was run, and how much may be kept of it.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// The model leaves sizes of inputs open, besides the number of rows.
    has_any_size: bool,
    /// The model leaves sizes of outputs open, besides the number of rows.
    has_any_output: bool,
    /// For each input, how many rows are usual; `None` if their number is fixed.
    usual_rows: Vec<Option<i64>>,
    /// Bytes that usual runs keep, once that is known.
    usual: Option<u64>,
    /// Shapes of the inputs of the last unusual run.
    last: Vec<Vec<i64>>,
    /// Something may be kept that the next run does not need.
    is_held: bool,
}

impl Retention {
    /// Of a model of which runs of so many rows are usual.
    pub(super) fn new(signature: &Signature, rows: u32) -> Self {
        let usual = |port: &Port| has_rows(port).then_some(i64::from(rows));
        let usual_rows: Vec<_> = signature.inputs.iter().map(usual).collect();
        let is_batch = usual_rows.iter().any(Option::is_some);
        let varies = |port: &Port| has_any_size(port) || has_rows(port) && !is_batch;
        Self {
            has_any_size: signature.inputs.iter().any(has_any_size),
            has_any_output: signature.outputs.iter().any(varies),
            usual_rows,
            ..Self::default()
        }
    }

    /// Whether the model leaves sizes open.
    pub(super) const fn varies(&self) -> bool {
        self.has_any_size || self.has_any_output
    }

    /// A run of these inputs begins. Whether its sizes are neither usual nor those of the run before.
    pub(super) fn begin(&mut self, inputs: &[Tensor]) -> bool {
        if !self.has_any_size && !self.has_many_rows(inputs) {
            return false;
        }
        self.is_held = true;
        let shapes = || inputs.iter().map(Tensor::shape);
        if self.last.iter().map(Vec::as_slice).eq(shapes()) {
            return false;
        }
        self.last = shapes().map(<[i64]>::to_vec).collect();
        true
    }

    fn has_many_rows(&self, inputs: &[Tensor]) -> bool {
        let is_many = |input: &Tensor, most| input.shape().first().is_some_and(|&rows| rows > most);
        let mut inputs = inputs.iter().zip(&self.usual_rows);
        inputs.any(|(input, most)| most.is_some_and(|most| is_many(input, most)))
    }

    /// A run has made these outputs.
    pub(super) fn end(&mut self, outputs: &[Tensor]) {
        if self.has_any_output {
            self.is_held |= outputs.iter().map(bytes).sum::<u64>() > LITTLE;
        }
    }

    /// Whether no run has ended yet.
    pub(super) const fn is_first(&self) -> bool {
        self.usual.is_none()
    }

    /// The first run, which is the warm-up with one row, keeps so many bytes.
    pub(super) fn warmed_up(&mut self, bytes: u64) {
        let rows = self.usual_rows.iter().flatten().max().copied().unwrap_or(1);
        // Where any size is taken, none is usual.
        let rows = if self.has_any_size { 0 } else { rows.unsigned_abs() };
        self.usual = Some(bytes.saturating_mul(rows).saturating_add(LITTLE));
    }

    /// Whether the next run may not need what is kept.
    pub(super) const fn is_held(&self) -> bool {
        self.is_held
    }

    /// Whether so many bytes are more than usual runs keep.
    pub(super) fn is_much(&self, bytes: u64) -> bool {
        self.usual.is_some_and(|usual| bytes > usual)
    }

    /// What is held will be freed.
    pub(super) const fn let_go(&mut self) {
        self.is_held = false;
    }
}

fn has_rows(port: &Port) -> bool {
    port.shape.first().is_some_and(|&size| size < 0)
}

fn has_any_size(port: &Port) -> bool {
    port.any_rank || port.shape.iter().skip(1).any(|&size| size < 0)
}

fn bytes(tensor: &Tensor) -> u64 {
    let count = element_count(tensor.shape()).unwrap_or(0);
    let size = tensor.datatype().size().unwrap_or(1);
    count.saturating_mul(size) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tensor::DataType;

    fn port(shape: &[i64]) -> Port {
        Port::new("x", DataType::Fp32, shape)
    }

    fn retention(input: &[i64], output: &[i64]) -> Retention {
        let signature = Signature::new(vec![port(input)], vec![port(output)], 17);
        Retention::new(&signature, 8)
    }

    fn tensors(shape: &[i64]) -> [Tensor; 1] {
        [Tensor::zeros(DataType::Fp32, shape.to_vec()).unwrap()]
    }

    /// The speed of models for images of one size must not depend on it.
    #[test]
    fn runs_of_one_size_and_a_few_rows_free_nothing() {
        for input in [&[-1, 3][..], &[4, 3], &[9, 3], &[]] {
            let mut retention = retention(input, &[-1, 2]);
            retention.warmed_up(1 << 20);
            for rows in [1, 8, 2, 1] {
                let shape: Vec<i64> = input
                    .iter()
                    .map(|&size| if size < 0 { rows } else { size })
                    .collect();
                assert!(!retention.begin(&tensors(&shape)), "{input:?}");
                retention.end(&tensors(&[rows, 2]));
            }
            assert!(!retention.is_held() && !retention.is_much(16 << 20), "{input:?}");
        }
    }

    #[test]
    fn a_run_of_another_size_is_told_from_a_repeated_one_and_both_are_held() {
        let mut any = retention(&[-1, -1], &[-1, 2]);
        assert!(any.varies() && !any.is_held());
        for (columns, is_other) in [(5, true), (5, false), (5, false), (6, true), (5, true)] {
            assert_eq!(any.begin(&tensors(&[1, columns])), is_other, "{columns}");
            assert!(any.is_held());
        }
        any.let_go();
        assert!(!any.is_held());
        any.begin(&tensors(&[1, 5]));
        assert!(any.is_held());
        any.warmed_up(1 << 30);
        assert!(any.is_much(17 << 20));
    }

    #[test]
    fn many_rows_are_unusual() {
        let mut batches = retention(&[-1, 2], &[-1, 2]);
        for (rows, is_other) in [(8, false), (9, true), (8, false), (9, false), (10, true)] {
            assert_eq!(batches.begin(&tensors(&[rows, 2])), is_other, "{rows}");
        }
        assert!(batches.is_held() && !batches.varies());
    }

    /// Such as the tensor that a list of sizes asks for: it is in memory until it has been sent.
    #[test]
    fn large_outputs_are_held_if_nothing_says_their_size() {
        let large = || tensors(&[1, (4 << 20) + 1]);
        for (output, is_held) in [(&[1, -1][..], true), (&[-1, 1], true), (&[1, 4 << 20], false)] {
            let mut retention = retention(&[1], output);
            assert!(!retention.begin(&tensors(&[1])));
            retention.end(&large());
            assert_eq!(retention.is_held(), is_held, "{output:?}");
        }
        let mut batch = retention(&[-1], &[-1, 1]);
        batch.end(&large());
        assert!(!batch.is_held());
    }

    /// Sizes may follow from values within the graph, where no shape shows them.
    #[test]
    fn more_than_the_warm_up_and_its_rows_need_is_much() {
        let mut batches = retention(&[-1, 2], &[-1, 2]);
        assert!(batches.is_first() && !batches.is_much(u64::MAX));
        batches.warmed_up(10 << 20);
        assert!(!batches.is_first() && !batches.is_much(96 << 20) && batches.is_much(97 << 20));
        let mut fixed = retention(&[4, 2], &[4, 2]);
        fixed.warmed_up(10 << 20);
        assert!(!fixed.is_much(26 << 20) && fixed.is_much(27 << 20));
    }
}
