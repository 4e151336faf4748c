//! Because: why a service has the size that it has, in words that follow "3 servers: ".

use super::policy::Target;
use jiff::SignedDuration;
use std::fmt;

/// The rule that decided a size.
#[derive(Clone, Debug, PartialEq)]
pub enum Because {
    /// The load asks for it.
    Load {
        /// Servers that would have exactly the target.
        servers: f64,
        /// The target.
        target: Target,
    },
    /// The load asks for the present size, or nearly.
    Steady {
        /// Servers that would have exactly the target.
        servers: f64,
        /// The target.
        target: Target,
    },
    /// A larger size was asked for within this time.
    Delay(SignedDuration),
    /// The load was far more than the ready servers should have within this time, so the size does not shrink.
    Panic(SignedDuration),
    /// More servers are asked for than are added at once, in percent of those that are ready.
    UpRate(i32),
    /// Fewer servers are asked for, but more would go than are removed at once, in percent of the present size.
    DownRate(i32),
    /// Reports of servers are missing, so the size does not shrink.
    Missing {
        /// Ready servers whose load is not known.
        missing: i32,
        /// All ready servers.
        ready: i32,
    },
    /// No server is ready, so the size stays.
    Unready,
    /// So many servers find no node, so the size does not grow.
    Pending(i32),
    /// The minimum of the spec.
    Minimum(i32),
    /// The maximum of the spec.
    Maximum(i32),
    /// The minimum of this schedule.
    Floor(String),
    /// The service is at zero.
    Zero,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load { servers, target } => write!(f, "load of {servers:.1} servers at {target}"),
            Self::Steady { servers, target } => {
                write!(
                    f,
                    "load of {servers:.1} servers at {target}, which fits the present size"
                )
            }
            Self::Delay(within) => {
                write!(f, "more were needed within the last {} s", within.as_secs())
            }
            Self::Panic(within) => {
                let seconds = within.as_secs();
                write!(
                    f,
                    "none are removed within {seconds} s of a load that is too much for the ready servers"
                )
            }
            Self::UpRate(percent) => {
                write!(
                    f,
                    "more are needed, but at most {percent} % of the ready servers are added at once"
                )
            }
            Self::DownRate(percent) => {
                write!(f, "fewer are needed, but at most {percent} % are removed at once")
            }
            Self::Missing { missing, ready } => {
                write!(
                    f,
                    "none are removed while the load of {missing} of {ready} ready servers is not known"
                )
            }
            Self::Unready => f.write_str("no server is ready, so the load is not known"),
            Self::Pending(1) => f.write_str("none are added while 1 server finds no node with room for it"),
            Self::Pending(servers) => {
                write!(
                    f,
                    "none are added while {servers} servers find no node with room for them"
                )
            }
            Self::Minimum(servers) => write!(f, "the minimum of {servers}"),
            Self::Maximum(servers) => write!(f, "the maximum of {servers}, although more are asked for"),
            Self::Floor(schedule) => write!(f, "the minimum of the schedule {schedule}"),
            Self::Zero => f.write_str("the service is at zero"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This is what `kubectl describe` shows.
    #[test]
    fn every_reason_reads_as_part_of_a_sentence() {
        let target = Target::Utilization(0.7);
        let servers = 1.94;
        let table = [
            (
                Because::Load { servers, target },
                "load of 1.9 servers at 70 % utilization",
            ),
            (
                Because::Steady {
                    servers,
                    target: Target::Concurrency(8.0),
                },
                "load of 1.9 servers at 8 requests in flight each, which fits the present size",
            ),
            (
                Because::Delay(SignedDuration::from_mins(1)),
                "more were needed within the last 60 s",
            ),
            (
                Because::Panic(SignedDuration::from_secs(30)),
                "none are removed within 30 s of a load that is too much for the ready servers",
            ),
            (
                Because::UpRate(300),
                "more are needed, but at most 300 % of the ready servers are added at once",
            ),
            (
                Because::DownRate(50),
                "fewer are needed, but at most 50 % are removed at once",
            ),
            (
                Because::Missing { missing: 1, ready: 3 },
                "none are removed while the load of 1 of 3 ready servers is not known",
            ),
            (Because::Unready, "no server is ready, so the load is not known"),
            (
                Because::Pending(1),
                "none are added while 1 server finds no node with room for it",
            ),
            (
                Because::Pending(2),
                "none are added while 2 servers find no node with room for them",
            ),
            (Because::Minimum(2), "the minimum of 2"),
            (
                Because::Maximum(8),
                "the maximum of 8, although more are asked for",
            ),
            (
                Because::Floor("0 8 * * 1-5 (Etc/UTC)".into()),
                "the minimum of the schedule 0 8 * * 1-5 (Etc/UTC)",
            ),
            (Because::Zero, "the service is at zero"),
        ];
        for (because, words) in table {
            assert_eq!(because.to_string(), words);
        }
    }
}
