//! What is noted of a request while it is served, for the access log and for traces. Whoever learns something
//! writes it down here, and need not know whether anybody reads it: without a reader a note costs next to
//! nothing.

use crate::metrics::Outcome;
use crate::scheduling::Timing;
use std::cell::RefCell;
use std::sync::Arc;

/// What is known at the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    /// The model that was asked.
    pub model: Option<Arc<str>>,
    /// How the request for it ended.
    pub outcome: Option<Outcome>,
    /// Where the time of its run went.
    pub timing: Option<Timing>,
}

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

/// Writes something down, if the request that this task serves has a reader.
pub(crate) fn note(write: impl FnOnce(&mut Notes)) {
    let _ = NOTES.try_with(|notes| write(&mut notes.borrow_mut()));
}

/// Gives what `work` gives, and what was noted meanwhile.
pub(crate) async fn noted<T>(work: impl Future<Output = T>) -> (T, Notes) {
    let both = async {
        let result = work.await;
        (result, NOTES.with(RefCell::take))
    };
    NOTES.scope(RefCell::default(), both).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notes_are_of_one_request_and_nobody_needs_to_read_them() {
        note(|notes| notes.outcome = Some(Outcome::Ok));
        let request = |outcome| {
            noted(async move {
                tokio::task::yield_now().await;
                note(|notes| notes.outcome = Some(outcome));
                7
            })
        };
        let ((one, first), (two, second)) = tokio::join!(request(Outcome::Ok), request(Outcome::Failed));
        assert_eq!((one, two), (7, 7));
        assert_eq!(
            (first.outcome, second.outcome),
            (Some(Outcome::Ok), Some(Outcome::Failed))
        );
    }
}
