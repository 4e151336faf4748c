//! Cause: why servers are not ready, as a reason and a message for a condition. Data only.

use crate::reason::Reason;

/// Why servers are not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// The condition's reason.
    pub reason: Reason,
    /// What happened and what to do.
    pub message: String,
    /// Whether only a change by somebody can help.
    pub stalled: bool,
}

impl Cause {
    /// Only a change can help.
    pub(super) fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            stalled: true,
        }
    }

    /// May resolve itself: a node may be added, quota may be freed.
    pub(super) fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            stalled: false,
        }
    }
}

/// A message without the pod's name, which differs with each pod, and short enough for an event.
pub(super) fn brief(message: &str) -> String {
    const MAX: usize = 600;
    let message = message.trim();
    let message = match (
        message.starts_with("pods \""),
        message.split_once("\" is forbidden: "),
    ) {
        (true, Some((_, rest))) => rest,
        _ => message,
    };
    match message.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
