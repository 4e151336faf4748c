//! Schedules: floors for known hours. Pure, but for the database of time zones, of which the binary contains a copy.
//!
//! A schedule is active at `now` if one of its starts lies in (now − for, now]. The starts are the times of a cron
//! expression, with the five fields of a Kubernetes CronJob, on the clock of its time zone. Where that clock jumps:
//!
//! - A start that the clock skips happens when it jumps. A CronJob does not run then, but a floor that is missing on
//!   one day of the year would be an outage.
//! - A start that the clock shows twice happens twice.
//!
//! The parser only ever searches on a clock that never jumps, UTC: on others cronexpr 1.7 searches for ever where a
//! clock is set back by half an hour, as on Lord Howe Island.

use cronexpr::{Crontab, parse_crontab};
use jiff::{
    SignedDuration, Timestamp,
    tz::{Offset, TimeZone},
};

/// The longest time that a schedule may be active.
pub const LONGEST_FLOOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The time zone of a schedule that names none.
const DEFAULT_ZONE: &str = "Etc/UTC";
/// The search for a start looks four years ahead, and must not reach the first or last time that a timestamp can have.
const SEARCH: SignedDuration = SignedDuration::from_hours(5 * 366 * 24);

/// At least so many servers from each start on, for some time.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The starts on a clock that never jumps.
    starts: Crontab,
    zone: TimeZone,
    replicas: i32,
    duration: SignedDuration,
    text: String,
}

/// The least number of servers that schedules ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// So many servers.
    pub replicas: i32,
    /// The cron expression and the time zone of the schedule, for messages.
    pub schedule: String,
}

impl Schedule {
    /// Parses one schedule: `replicas` servers for `duration` from each time of `cron` on the clock of `zone`, which is
    /// `Etc/UTC` if it is not given.
    ///
    /// # Errors
    /// What is wrong, and an example.
    pub fn parse(
        cron: &str,
        zone: Option<&str>,
        replicas: i32,
        duration: SignedDuration,
    ) -> Result<Self, String> {
        let zone_name = zone.unwrap_or(DEFAULT_ZONE);
        let zone = TimeZone::get(zone_name).map_err(|_| {
            format!(
                "time zone \"{zone_name}\" is not known; write the name of one in the IANA database, such as Europe/Berlin"
            )
        })?;
        if !duration.is_positive() || duration > LONGEST_FLOOR {
            return Err(
                "a schedule must be active for more than 0 s and at most 7 days, for example 10h".to_owned(),
            );
        }
        let cron = fields(cron)?;
        let starts = crontab(&cron)?;
        if starts.find_next(Timestamp::UNIX_EPOCH).is_err() {
            return Err(refused(&cron, "no such day exists within four years"));
        }
        Ok(Self {
            starts,
            zone,
            replicas,
            duration,
            text: format!("{cron} ({zone_name})"),
        })
    }

    /// The first start whose time is not over at `now`.
    fn first_start(&self, now: Timestamp) -> Option<Timestamp> {
        self.next_start(now.checked_sub(self.duration).ok()?)
    }

    fn is_active(&self, now: Timestamp) -> bool {
        self.first_start(now).is_some_and(|start| start <= now)
    }

    /// When it may next become active or inactive.
    fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let start = self.first_start(now)?;
        if start > now {
            Some(start)
        } else {
            start.checked_add(self.duration).ok()
        }
    }

    /// The first start after a time. The clock runs steadily from one jump to the next.
    fn next_start(&self, after: Timestamp) -> Option<Timestamp> {
        after.checked_sub(SEARCH).and(after.checked_add(SEARCH)).ok()?;
        let mut offset = self.zone.to_offset(after);
        let mut start = self.starts_after(after + ahead(offset))? - ahead(offset);
        for jump in self.zone.following(after) {
            let at = jump.timestamp();
            if start < at {
                break;
            }
            let (from, to) = (at + ahead(offset), at + ahead(jump.offset()));
            offset = jump.offset();
            let next = self.starts_after(from.min(to) - SignedDuration::from_secs(1))?;
            start = at.max(next - ahead(offset));
        }
        Some(start)
    }

    /// The same on a clock that never jumps.
    fn starts_after(&self, shown: Timestamp) -> Option<Timestamp> {
        Some(self.starts.find_next(shown).ok()?.timestamp())
    }
}

/// By how much a clock with this offset is ahead of UTC.
fn ahead(offset: Offset) -> SignedDuration {
    SignedDuration::from_secs(offset.seconds().into())
}

/// The floor of the active schedules: the largest.
#[must_use]
pub fn floor_at(schedules: &[Schedule], now: Timestamp) -> Option<Floor> {
    let active = schedules.iter().filter(|schedule| schedule.is_active(now));
    let largest = active.max_by_key(|schedule| schedule.replicas)?;
    Some(Floor {
        replicas: largest.replicas,
        schedule: largest.text.clone(),
    })
}

/// When the floor may next change.
#[must_use]
pub fn next_change(schedules: &[Schedule], now: Timestamp) -> Option<Timestamp> {
    schedules
        .iter()
        .filter_map(|schedule| schedule.next_change(now))
        .min()
}

/// The expression with single spaces, if it has the five standard fields. The parser knows more: days such as `L` and
/// `15W`, and a sixth field for the time zone.
fn fields(cron: &str) -> Result<String, String> {
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let joined = fields.join(" ");
    if fields.len() != 5 {
        let reason = "it must have the five fields minute, hour, day of month, month and day of week";
        return Err(refused(&joined, reason));
    }
    let is_standard = |part: &str| {
        let is_name = part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_alphabetic());
        part == "*" || is_name || part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut parts = fields.iter().flat_map(|field| field.split([',', '-', '/']));
    match parts.find(|part| !is_standard(part)) {
        Some(part) => Err(refused(
            &joined,
            &format!("\"{part}\" is not a number, a name or *"),
        )),
        None => Ok(joined),
    }
}

fn crontab(cron: &str) -> Result<Crontab, String> {
    parse_crontab(&format!("{cron} UTC")).map_err(|error| {
        // The parser draws an arrow below the place, on a line of its own.
        let message = error.to_string();
        let reason = message.rsplit("^ ").next().unwrap_or_default();
        refused(cron, reason)
    })
}

fn refused(cron: &str, reason: &str) -> String {
    format!(
        "cron \"{cron}\" is refused: {reason}; write for example \"0 8 * * 1-5\" for 8:00 from Monday to Friday"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hours(hours: i64) -> SignedDuration {
        SignedDuration::from_hours(hours)
    }

    fn berlin(cron: &str, replicas: i32, duration: SignedDuration) -> Schedule {
        Schedule::parse(cron, Some("Europe/Berlin"), replicas, duration).unwrap()
    }

    /// A time. Berlin's clock jumps from 2:00 to 3:00 on 29 March 2026, and from 3:00 to 2:00 on 25 October, both at
    /// 1:00 UTC.
    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn replicas(schedules: &[Schedule], time: &str) -> Option<i32> {
        floor_at(schedules, at(time)).map(|floor| floor.replicas)
    }

    /// The times after `from` at which the floor changes, and what it is then.
    fn changes(schedules: &[Schedule], from: &str, until: &str) -> Vec<(String, Option<i32>)> {
        let (mut changes, mut now) = (Vec::new(), at(from));
        let mut before = floor_at(schedules, now);
        while let Some(next) = next_change(schedules, now).filter(|next| *next < at(until)) {
            assert!(next > now, "{next} is not after {now}");
            let floor = floor_at(schedules, next);
            if floor != before {
                let replicas = floor.as_ref().map(|floor| floor.replicas);
                changes.push((next.to_string(), replicas));
            }
            (before, now) = (floor, next);
        }
        changes
    }

    fn assert_changes(schedules: &[Schedule], from: &str, until: &str, expected: &[(&str, Option<i32>)]) {
        let expected: Vec<(String, Option<i32>)> = expected
            .iter()
            .map(|(time, floor)| ((*time).to_owned(), *floor))
            .collect();
        assert_eq!(changes(schedules, from, until), expected);
    }

    #[test]
    fn a_floor_begins_at_the_start_and_ends_exactly_when_its_time_is_over() {
        let working_hours = [berlin("0 8 * * 1-5", 5, hours(10))];
        let table = [
            ("2026-01-05T07:59:59.999+01:00", None),
            ("2026-01-05T08:00+01:00", Some(5)),
            ("2026-01-05T17:59:59.999+01:00", Some(5)),
            ("2026-01-05T18:00+01:00", None),
            ("2026-01-10T12:00+01:00", None),
        ];
        for (time, expected) in table {
            assert_eq!(replicas(&working_hours, time), expected, "{time}");
        }
        let floor = floor_at(&working_hours, at("2026-01-05T08:00+01:00")).unwrap();
        assert_eq!(floor.schedule, "0 8 * * 1-5 (Europe/Berlin)");
        assert_eq!(floor_at(&[], at("2026-01-05T08:00Z")), None);
        assert_eq!(next_change(&[], at("2026-01-05T08:00Z")), None);
    }

    #[test]
    fn the_default_zone_is_utc() {
        let schedule = Schedule::parse(" 0  8 * * * ", None, 2, hours(1)).unwrap();
        assert_eq!(
            replicas(std::slice::from_ref(&schedule), "2026-07-01T08:30Z"),
            Some(2)
        );
        assert_eq!(schedule.text, "0 8 * * * (Etc/UTC)");
    }

    /// 8:00 is an hour earlier in summer: a floor that does not follow would be late on the first Monday.
    #[test]
    fn a_floor_follows_the_clock_of_its_zone() {
        let daily = [berlin("0 8 * * *", 5, hours(1))];
        let expected = [
            ("2026-03-28T07:00:00Z", Some(5)),
            ("2026-03-28T08:00:00Z", None),
            ("2026-03-29T06:00:00Z", Some(5)),
            ("2026-03-29T07:00:00Z", None),
        ];
        assert_changes(&daily, "2026-03-28T00:00Z", "2026-03-30T00:00Z", &expected);
        let expected = [
            ("2026-10-24T06:00:00Z", Some(5)),
            ("2026-10-24T07:00:00Z", None),
            ("2026-10-25T07:00:00Z", Some(5)),
            ("2026-10-25T08:00:00Z", None),
        ];
        assert_changes(&daily, "2026-10-24T00:00Z", "2026-10-26T00:00Z", &expected);
    }

    /// In the night in which the clock skips 2:30, the floor begins at 3:00 (1:00 UTC).
    #[test]
    fn a_start_that_the_clock_skips_happens_when_it_jumps() {
        let nightly = [berlin("30 2 * * *", 5, hours(1))];
        let expected = [
            ("2026-03-28T01:30:00Z", Some(5)),
            ("2026-03-28T02:30:00Z", None),
            ("2026-03-29T01:00:00Z", Some(5)),
            ("2026-03-29T02:00:00Z", None),
            ("2026-03-30T00:30:00Z", Some(5)),
            ("2026-03-30T01:30:00Z", None),
        ];
        assert_changes(&nightly, "2026-03-28T00:00Z", "2026-03-31T00:00Z", &expected);
        let minutes = SignedDuration::from_mins;
        for (cron, first) in [
            ("59 1 * * *", "00:59"),
            ("0 2 * * *", "01:00"),
            ("59 2 * * *", "01:00"),
            ("0 3 * * *", "01:00"),
            ("1 3 * * *", "01:01"),
        ] {
            let changes = changes(
                &[berlin(cron, 5, minutes(1))],
                "2026-03-29T00:00Z",
                "2026-03-29T12:00Z",
            );
            assert_eq!(changes.len(), 2, "{cron}: {changes:?}");
            assert_eq!(changes[0], (format!("2026-03-29T{first}:00Z"), Some(5)), "{cron}");
        }
        let yearly = [berlin("30 2 29 3 *", 5, hours(1))];
        assert_eq!(
            next_change(&yearly, at("2025-12-01T00:00Z")),
            Some(at("2026-03-29T01:00Z"))
        );
    }

    #[test]
    fn a_start_that_the_clock_shows_twice_happens_twice() {
        let nightly = [berlin("30 2 * * *", 5, SignedDuration::from_mins(20))];
        let expected = [
            ("2026-10-25T00:30:00Z", Some(5)),
            ("2026-10-25T00:50:00Z", None),
            ("2026-10-25T01:30:00Z", Some(5)),
            ("2026-10-25T01:50:00Z", None),
            ("2026-10-26T01:30:00Z", Some(5)),
            ("2026-10-26T01:50:00Z", None),
        ];
        assert_changes(&nightly, "2026-10-25T00:00Z", "2026-10-27T00:00Z", &expected);
        let joined = [berlin("30 2 * * *", 5, hours(1))];
        let expected = [("2026-10-25T00:30:00Z", Some(5)), ("2026-10-25T02:30:00Z", None)];
        assert_changes(&joined, "2026-10-25T00:00Z", "2026-10-26T00:00Z", &expected);
    }

    /// Lord Howe Island's clock jumps by half an hour, and Samoa's skipped 30 December 2011.
    #[test]
    fn clocks_that_jump_otherwise_are_followed() {
        let howe = Schedule::parse("15 2 * * *", Some("Australia/Lord_Howe"), 5, hours(1)).unwrap();
        let expected = [("2026-10-03T15:30:00Z", Some(5)), ("2026-10-03T16:30:00Z", None)];
        let howe = [howe];
        assert_changes(&howe, "2026-10-03T12:00Z", "2026-10-04T12:00Z", &expected);
        let expected = [("2026-04-04T15:45:00Z", Some(5)), ("2026-04-04T16:45:00Z", None)];
        assert_changes(&howe, "2026-04-04T12:00Z", "2026-04-05T12:00Z", &expected);
        let samoa = Schedule::parse("0 12 * * *", Some("Pacific/Apia"), 5, hours(1)).unwrap();
        let expected = [
            ("2011-12-29T22:00:00Z", Some(5)),
            ("2011-12-29T23:00:00Z", None),
            ("2011-12-30T10:00:00Z", Some(5)),
            ("2011-12-30T11:00:00Z", None),
            ("2011-12-30T22:00:00Z", Some(5)),
            ("2011-12-30T23:00:00Z", None),
        ];
        assert_changes(&[samoa], "2011-12-29T12:00Z", "2011-12-31T12:00Z", &expected);
    }

    #[test]
    fn a_leap_day_comes_every_four_years() {
        let leap = [Schedule::parse("0 0 29 2 *", None, 5, hours(24)).unwrap()];
        let expected = [
            ("2028-02-29T00:00:00Z", Some(5)),
            ("2028-03-01T00:00:00Z", None),
            ("2032-02-29T00:00:00Z", Some(5)),
            ("2032-03-01T00:00:00Z", None),
        ];
        assert_changes(&leap, "2026-01-01T00:00Z", "2033-01-01T00:00Z", &expected);
    }

    #[test]
    fn the_largest_of_overlapping_floors_counts() {
        let schedules = [
            berlin("0 8 * * *", 3, hours(10)),
            berlin("0 12 * * *", 5, hours(2)),
            berlin("0 13 * * *", 2, hours(12)),
        ];
        let expected = [
            ("2026-01-05T00:00:00Z", None),
            ("2026-01-05T07:00:00Z", Some(3)),
            ("2026-01-05T11:00:00Z", Some(5)),
            ("2026-01-05T13:00:00Z", Some(3)),
            ("2026-01-05T17:00:00Z", Some(2)),
        ];
        assert_changes(&schedules, "2026-01-04T23:00Z", "2026-01-05T23:00Z", &expected);
    }

    #[test]
    fn a_schedule_that_lasts_longer_than_its_period_is_always_active() {
        let always = [
            berlin("0 * * * *", 5, hours(2)),
            berlin("* * * * *", 2, LONGEST_FLOOR),
        ];
        assert_changes(&always, "2026-03-28T00:00Z", "2026-03-30T00:00Z", &[]);
        assert_eq!(replicas(&always, "2026-03-29T01:30Z"), Some(5));
    }

    /// The user reads this in the status of the service.
    #[test]
    fn what_is_wrong_is_said() {
        let hour = hours(1);
        let five = "it must have the five fields minute, hour, day of month, month and day of week";
        let table = [
            ("0 8 * *", None, hour, five),
            ("0 0 8 * * *", None, hour, five),
            ("0 8 * * * UTC", None, hour, five),
            ("@daily", None, hour, five),
            ("", None, hour, five),
            (
                "every day at eight or",
                None,
                hour,
                "\"every\" is not a number, a name or *",
            ),
            ("0 8 L * *", None, hour, "\"L\" is not a number"),
            ("0 8 15W * *", None, hour, "\"15W\" is not a number"),
            ("0 8 * * 5#2", None, hour, "\"5#2\" is not a number"),
            ("0 8 ? * *", None, hour, "\"?\" is not a number"),
            ("60 8 * * *", None, hour, "must be in range 0..=59; found 60"),
            ("0 8 * * mox", None, hour, "malformed expression"),
            (
                "0 8-6 * * *",
                None,
                hour,
                "range must be in ascending order; found 8-6",
            ),
            ("0 8, * * *", None, hour, "malformed expression"),
            ("*/0 8 * * *", None, hour, "0"),
            ("0 8 30 2 *", None, hour, "no such day exists"),
            (
                "0 8 * * *",
                Some("Berlin"),
                hour,
                "time zone \"Berlin\" is not known; write the name of one",
            ),
            ("0 8 * * *", Some(""), hour, "time zone \"\" is not known"),
            (
                "0 8 * * *",
                Some("Local"),
                hour,
                "time zone \"Local\" is not known",
            ),
            (
                "0 8 * * *",
                Some("+02:00"),
                hour,
                "time zone \"+02:00\" is not known",
            ),
            (
                "0 8 * * *",
                None,
                SignedDuration::ZERO,
                "more than 0 s and at most 7 days",
            ),
            ("0 8 * * *", None, -hour, "more than 0 s and at most 7 days"),
            (
                "0 8 * * *",
                None,
                LONGEST_FLOOR + SignedDuration::from_nanos(1),
                "more than 0 s and at most 7 days",
            ),
        ];
        for (cron, zone, duration, words) in table {
            let message = Schedule::parse(cron, zone, 1, duration).unwrap_err();
            assert!(message.contains(words), "{cron}: {message}");
            assert!(!message.contains('\n'), "{cron}: {message}");
        }
        assert!(Schedule::parse("*/5,7 0-6/2 1,15 JAN-mar,12 Mon-Fri", None, 1, LONGEST_FLOOR).is_ok());
    }

    /// A clock that was never set, or set far too high, must not end the operator.
    #[test]
    fn no_time_is_too_far() {
        let schedules = [
            berlin("30 2 29 2 *", 5, LONGEST_FLOOR),
            berlin("* * * * *", 5, LONGEST_FLOOR),
        ];
        for now in [Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH] {
            let _ = (floor_at(&schedules, now), next_change(&schedules, now));
        }
        let year = SignedDuration::from_hours(24 * 365);
        for years in 1..8 {
            let (early, late) = (Timestamp::MIN + year * years, Timestamp::MAX - year * years);
            for now in [early, late] {
                let _ = (floor_at(&schedules, now), next_change(&schedules, now));
            }
        }
    }

    /// The image has no files with time zones.
    #[test]
    fn the_binary_contains_the_time_zones() {
        let database = jiff::tz::TimeZoneDatabase::bundled();
        assert!(database.get("Europe/Berlin").is_ok());
        assert!(database.get("Etc/UTC").is_ok());
    }
}
