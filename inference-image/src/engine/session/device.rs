//! Tells a lost device from inputs that a model cannot run: both are errors of a run, and providers give them no codes
//! to go by. A device that fails on inputs that it has run before is lost.

use crate::engine::interface::EngineError;
use crate::process::loss::DeviceLoss;
use crate::tensor::Tensor;

/// What a session knows of its device.
pub(super) struct Device {
    loss: DeviceLoss,
    /// The inputs of the first run that succeeded.
    proven: Option<Vec<Tensor>>,
}

impl Device {
    pub(super) const fn new(loss: DeviceLoss) -> Self {
        Self { loss, proven: None }
    }

    /// # Errors
    /// When the device is already lost.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        match self.loss.words() {
            Some(words) => Err(EngineError::Lost(words.to_owned())),
            None => Ok(()),
        }
    }

    /// A run has succeeded.
    pub(super) fn worked(&mut self, inputs: &[Tensor]) {
        self.proven.get_or_insert_with(|| inputs.to_vec());
    }

    /// A run has failed. `run` is given inputs that have succeeded before; if they fail now, the device is lost.
    pub(super) fn failed(
        &self,
        error: EngineError,
        run: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>, EngineError>,
    ) -> EngineError {
        let again = self.proven.as_ref().map(|inputs| run(inputs));
        let Some(Err(again)) = again else {
            return error;
        };
        let words = again.reason();
        self.loss.report(&words);
        EngineError::Lost(words)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn failed(words: &str) -> EngineError {
        EngineError::Failed(words.to_owned())
    }

    /// Otherwise one client with bad inputs would end the server again and again.
    #[test]
    fn a_device_is_lost_only_if_it_fails_on_inputs_that_it_has_run() {
        let row = vec![Tensor::from_vec(vec![1], vec![1_f32]).unwrap()];
        let loss = DeviceLoss::default();
        let mut device = Device::new(loss.clone());
        // Nothing has succeeded yet.
        assert_eq!(device.failed(failed("bad"), |_| unreachable!()), failed("bad"));
        device.worked(&row);
        assert_eq!(
            device.failed(failed("bad"), |again| Ok(again.to_vec())),
            failed("bad")
        );
        assert_eq!((loss.words(), device.check()), (None, Ok(())));
        let lost = EngineError::Lost("gone".to_owned());
        assert_eq!(device.failed(failed("bad"), |_| Err(failed("gone"))), lost);
        assert_eq!((loss.words(), device.check()), (Some("gone"), Err(lost)));
    }
}
