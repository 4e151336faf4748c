//! Size: how many servers a spec asks for, at this time. Pure.

use crate::{
    crd::{Autoscaling, ModelServiceSpec, ScaleSchedule, ScaleTarget},
    reason::Problem,
    revision::thousandths,
    scaling::{Down, Floor, Policy, Schedule, Target, Up, floor_at, next_change},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use modelservice_contract::Limits;

/// How many servers a service has.
#[derive(Clone, Debug, PartialEq)]
pub enum Size {
    /// Always this many.
    Fixed(i32),
    /// As many as the load asks for.
    Autoscaled(Box<Range>),
}

/// How many servers an autoscaled service may have now.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Minimum, by the spec and its schedules.
    pub min: i32,
    /// Maximum.
    pub max: i32,
    /// The schedule that determines the minimum, if one does.
    pub floor: Option<Floor>,
    /// When a schedule begins or ends next.
    pub changes_at: Option<Timestamp>,
    /// What decides within the range.
    pub by: By,
}

/// What decides the size of an autoscaled service.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// The operator, from what the servers report about their load.
    Load(Policy),
    /// A HorizontalPodAutoscaler.
    Cpu {
        /// Average CPU use, in percent of the request.
        utilization: i32,
        /// How fast.
        behavior: Option<HorizontalPodAutoscalerBehavior>,
    },
}

impl Size {
    /// Whether the size is zero.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        matches!(self, Self::Fixed(0))
    }

    /// The nearest number of servers that is allowed.
    #[must_use]
    pub fn within(&self, servers: i32) -> i32 {
        match self {
            Self::Fixed(replicas) => *replicas,
            Self::Autoscaled(range) => servers.min(range.max).max(range.min),
        }
    }

    /// How the operator itself decides the size, if it does.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        match self {
            Self::Autoscaled(range) => match &range.by {
                By::Load(policy) => Some(policy),
                By::Cpu { .. } => None,
            },
            Self::Fixed(_) => None,
        }
    }
}

/// The size that a spec asks for.
///
/// # Errors
/// [`Problem::InvalidSpec`].
pub(super) fn size(spec: &ModelServiceSpec, now: Timestamp) -> Result<Size, Problem> {
    let result = match (spec.replicas, &spec.autoscaling) {
        (replicas, None) => Ok(Size::Fixed(replicas.unwrap_or(1))),
        (Some(replicas), Some(autoscaling)) if autoscaling.target.external.is_some() => {
            Ok(Size::Fixed(replicas))
        }
        (Some(_), Some(_)) => Err("set either spec.replicas or spec.autoscaling, not both".to_owned()),
        (None, Some(autoscaling)) => {
            range(autoscaling, spec, now).map(|range| Size::Autoscaled(Box::new(range)))
        }
    };
    result.map_err(Problem::InvalidSpec)
}

fn range(autoscaling: &Autoscaling, spec: &ModelServiceSpec, now: Timestamp) -> Result<Range, String> {
    let minimum = autoscaling.min_replicas.unwrap_or(1);
    let max = autoscaling
        .max_replicas
        .ok_or("spec.autoscaling.maxReplicas is required")?;
    let by = by(autoscaling, spec, minimum, max)?;
    let schedules = schedules(&autoscaling.schedules)?;
    let floor = floor_at(&schedules, now).filter(|floor| floor.replicas > minimum);
    let min = floor.as_ref().map_or(minimum, |floor| floor.replicas).min(max);
    Ok(Range {
        min,
        max,
        floor,
        changes_at: next_change(&schedules, now),
        by,
    })
}

fn by(autoscaling: &Autoscaling, spec: &ModelServiceSpec, min: i32, max: i32) -> Result<By, String> {
    let target = match &autoscaling.target {
        ScaleTarget {
            utilization: Some(percent),
            concurrency: None,
            cpu_utilization: None,
            external: None,
        } => Target::Utilization(f64::from(*percent) / 100.0),
        ScaleTarget {
            utilization: None,
            concurrency: Some(requests),
            cpu_utilization: None,
            external: None,
        } => Target::Concurrency(concurrency(*requests, spec)?),
        ScaleTarget {
            utilization: None,
            concurrency: None,
            cpu_utilization: Some(utilization),
            external: None,
        } => {
            return Ok(By::Cpu {
                utilization: *utilization,
                behavior: autoscaling.behavior.clone(),
            });
        }
        ScaleTarget {
            external: Some(_), ..
        } => return Err("spec.autoscaling.target.external needs spec.replicas".to_owned()),
        _ => {
            return Err(
                "set exactly one of utilization, concurrency, cpuUtilization and external in \
                 spec.autoscaling.target"
                    .to_owned(),
            );
        }
    };
    let (up, down) = (&autoscaling.scale_up, &autoscaling.scale_down);
    let seconds = |seconds: i32| SignedDuration::from_secs(seconds.into());
    Ok(By::Load(Policy {
        min,
        max,
        target,
        up: Up {
            window: seconds(up.window_seconds),
            max_percent: up.max_percent,
            tolerance: f64::from(up.tolerance_percent) / 100.0,
        },
        down: Down {
            window: seconds(down.window_seconds),
            delay: seconds(down.delay_seconds),
            max_percent: down.max_percent,
            tolerance: f64::from(down.tolerance_percent) / 100.0,
        },
    }))
}

/// Requests in flight per server, if a server can have so many: it refuses what neither runs nor may wait.
fn concurrency(requests: i32, spec: &ModelServiceSpec) -> Result<f64, String> {
    let queue = spec.server.queue_length.map_or_else(
        || Limits::default().queue_length as u64,
        |length| u64::from(length.unsigned_abs()),
    );
    let limit = spec.resources.limits.get("cpu");
    let runners = limit.and_then(|limit| u64::try_from((thousandths(&limit.0)? + 999) / 1000).ok());
    if let Some(runners) = runners
        && u64::from(requests.unsigned_abs()) > runners + queue
    {
        return Err(format!(
            "spec.autoscaling.target.concurrency is {requests}, but a server refuses requests beyond {} \
             ({runners} that run, from spec.resources.limits.cpu, and {queue} that wait, from \
             spec.server.queueLength), so the target would never be reached: lower it or allow more to wait",
            runners + queue
        ));
    }
    Ok(f64::from(requests))
}

fn schedules(schedules: &[ScaleSchedule]) -> Result<Vec<Schedule>, String> {
    let parse = |(at, schedule): (usize, &ScaleSchedule)| {
        let ScaleSchedule {
            cron,
            time_zone,
            min_replicas,
            duration,
        } = schedule;
        duration
            .parse()
            .map_err(|_| format!("for \"{duration}\" is not a time such as 10h or 90m"))
            .and_then(|duration| Schedule::parse(cron, Some(time_zone), *min_replicas, duration))
            .map_err(|problem| format!("spec.autoscaling.schedules[{at}]: {problem}"))
    };
    schedules.iter().enumerate().map(parse).collect()
}
