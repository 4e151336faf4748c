//! What is recorded about a request while it is served, for the access log and traces. Code records what it learns,
//! without knowing whether anyone reads it: without a reader, recording costs next to nothing.

use crate::metrics::Outcome;
use crate::scheduling::Timing;
use std::cell::RefCell;
use std::sync::Arc;

/// What is known when the request has been answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestLog {
    /// The model that was requested.
    pub model: Option<Arc<str>>,
    /// How the request ended.
    pub outcome: Option<Outcome>,
    /// Where its time went.
    pub timing: Option<Timing>,
}

tokio::task_local! {
    static LOG: RefCell<RequestLog>;
}

/// Records something, if the request that this task serves has a reader.
pub(crate) fn record(write: impl FnOnce(&mut RequestLog)) {
    let _ = LOG.try_with(|log| write(&mut log.borrow_mut()));
}

/// Returns the result of `work`, and what was recorded in the meantime.
pub(crate) async fn recorded<T>(work: impl Future<Output = T>) -> (T, RequestLog) {
    let both = async {
        let result = work.await;
        (result, LOG.with(RefCell::take))
    };
    LOG.scope(RefCell::default(), both).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notes_are_of_one_request_and_nobody_needs_to_read_them() {
        record(|log| log.outcome = Some(Outcome::Ok));
        let request = |outcome| {
            recorded(async move {
                tokio::task::yield_now().await;
                record(|log| log.outcome = Some(outcome));
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
