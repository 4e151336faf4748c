//! What the device does. Pure.

use std::time::Duration;

/// See the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    All,
    Part,
    None,
    FailFirstRun,
    FailAfter(u64),
    FailAt(u64),
    Slow,
}

impl Mode {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |prefix: &str| text.strip_prefix(prefix)?.parse().ok();
        Some(match text {
            "all" => Self::All,
            "part" => Self::Part,
            "none" => Self::None,
            "fail-first-run" => Self::FailFirstRun,
            "slow" => Self::Slow,
            _ => number("fail-after-")
                .map(Self::FailAfter)
                .or_else(|| number("fail-at-").map(Self::FailAt))?,
        })
    }

    /// Whether it fails in this run: the number of runs that its session, and the process, have begun.
    pub(crate) const fn fails(self, of_session: u64, of_process: u64) -> bool {
        match self {
            Self::FailFirstRun => of_session == 1,
            Self::FailAfter(runs) => of_process > runs,
            Self::FailAt(run) => of_process == run,
            Self::All | Self::Part | Self::None | Self::Slow => false,
        }
    }

    /// How long a run takes.
    pub(crate) const fn delay(self) -> Duration {
        match self {
            Self::Slow => Duration::from_millis(200),
            _ => Duration::ZERO,
        }
    }
}
