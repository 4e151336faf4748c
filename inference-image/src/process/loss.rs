//! A device that is lost while the server runs.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// Whether the device is lost, and a way to wait for that. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DeviceLoss(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    words: OnceLock<String>,
    told: Notify,
}

impl DeviceLoss {
    /// The device is lost, in the provider's words; the first ones count.
    pub fn report(&self, words: &str) {
        self.0.words.get_or_init(|| words.to_owned());
        self.0.told.notify_waiters();
    }

    /// The provider's words, if the device is lost.
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        self.0.words.get().map(String::as_str)
    }

    /// Waits until the device is lost.
    pub async fn happened(&self) -> &str {
        loop {
            let mut told = pin!(self.0.told.notified());
            // Registered before the check, so that a report in between is not missed.
            told.as_mut().enable();
            if let Some(words) = self.words() {
                return words;
            }
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loss_is_told_to_those_who_wait_and_to_those_who_come_later() {
        let loss = DeviceLoss::default();
        let waiting = tokio::spawn({
            let loss = loss.clone();
            async move { loss.happened().await.to_owned() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        loss.report("gone");
        loss.report("still gone");
        assert_eq!(waiting.await.ok().as_deref(), Some("gone"));
        assert_eq!(loss.happened().await, "gone");
    }
}
