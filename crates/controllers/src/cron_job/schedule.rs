//! When a CronJob is due, and when to look again. Pure.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use krate_api::cron::{self, CronError, Schedule};
use krate_api::types::batch::v1::CronJob;

/// Missed starts beyond this number are told as a sign of a wrong clock or a missing deadline.
const MANY: i64 = 100;

/// A CronJob's times at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The last time that came and has not been served.
    pub last: Option<Timestamp>,
    /// More starts were missed than is plausible.
    pub too_many: bool,
    /// The first time after now.
    pub next: Option<Timestamp>,
}

/// Why there are no times.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Zone(CronError),
    #[error("{0}")]
    Schedule(CronError),
    #[error("time difference between two schedules is less than 1 second")]
    Never,
}

/// The zone in which the schedule's times are meant.
pub fn zone(cron: &CronJob) -> Result<TimeZone, Fault> {
    cron::zone(cron.spec.time_zone.as_deref().unwrap_or("")).map_err(Fault::Zone)
}

/// What is due of a CronJob at `now`.
pub fn due(cron: &CronJob, now: Timestamp) -> Result<Due, Fault> {
    let zone = zone(cron)?;
    let schedule = Schedule::parse(&cron.spec.schedule).map_err(Fault::Schedule)?;
    let next = |after: Timestamp| schedule.next(after, &zone);
    let served = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref());
    let created = cron.metadata.creation_timestamp.as_ref();
    let mut since = served.or(created).map_or(now, |t| t.0);
    if let Some(deadline) = cron.spec.starting_deadline_seconds {
        let earliest = now.checked_sub(SignedDuration::from_secs(deadline)).unwrap_or(Timestamp::MIN);
        since = since.max(earliest);
    }
    let first = next(since).ok_or(Fault::Never)?;
    if now < first {
        return Ok(Due { next: Some(first), ..Due::default() });
    }
    let second = next(first).ok_or(Fault::Never)?;
    if now < second {
        return Ok(Due { last: Some(first), too_many: false, next: Some(second) });
    }
    // How many there were is guessed from the first gap; where the last one is, is computed from there, for
    // there may be very many. It goes back as far as needed if the gaps differ.
    let gap = second.as_second() - first.as_second();
    if gap < 1 {
        return Err(Fault::Never);
    }
    let missed = (now.as_second() - first.as_second()) / gap + 1;
    let mut last = last_before(&next, first, gap * (missed - 2), now);
    if last.is_none() {
        last = last_before(&next, first, 0, now);
    }
    let last = last.unwrap_or(second);
    Ok(Due { last: Some(last), too_many: missed > MANY, next: next(last) })
}

fn last_before(
    next: &impl Fn(Timestamp) -> Option<Timestamp>,
    first: Timestamp,
    skip: i64,
    now: Timestamp,
) -> Option<Timestamp> {
    let from = first.checked_add(SignedDuration::from_secs(skip)).ok()?;
    std::iter::successors(next(from), |at| next(*at)).take_while(|at| *at <= now).last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::meta::Time;
    use krate_api::types::batch::v1::CronJobStatus;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(schedule: &str, created: &str) -> CronJob {
        let mut cron = CronJob::default();
        cron.spec.schedule = schedule.to_owned();
        cron.metadata.creation_timestamp = Some(Time(at(created)));
        cron
    }

    fn last(cron: &CronJob, now: &str) -> Option<String> {
        due(cron, at(now)).unwrap().last.map(|t| t.to_string())
    }

    #[test]
    fn the_first_time_comes_after_its_creation() {
        let cron = cron("0 * * * *", "2027-01-15T10:20:00Z");
        let now = due(&cron, at("2027-01-15T10:59:59Z")).unwrap();
        assert_eq!((now.last, now.next), (None, Some(at("2027-01-15T11:00:00Z"))));
        assert_eq!(last(&cron, "2027-01-15T11:00:00Z").unwrap(), "2027-01-15T11:00:00Z");
    }

    #[test]
    fn of_many_missed_times_the_last_counts() {
        let mut cron = cron("* * * * *", "2027-01-15T10:00:00Z");
        cron.status = Some(CronJobStatus {
            last_schedule_time: Some(Time(at("2027-01-15T10:05:00Z"))),
            ..CronJobStatus::default()
        });
        let now = due(&cron, at("2027-01-15T12:30:30Z")).unwrap();
        assert_eq!((now.last, now.too_many), (Some(at("2027-01-15T12:30:00Z")), true));
        assert_eq!(now.next, Some(at("2027-01-15T12:31:00Z")));
        cron.spec.starting_deadline_seconds = Some(200);
        assert!(!due(&cron, at("2027-01-15T12:30:30Z")).unwrap().too_many, "the deadline bounds them");
    }

    #[test]
    fn uneven_gaps_are_walked() {
        let cron = cron("30 6-16/4 * * 1-5", "2027-01-15T00:00:00Z");
        // A Friday; the weekend has none.
        assert_eq!(last(&cron, "2027-01-17T12:00:00Z").unwrap(), "2027-01-15T14:30:00Z");
        assert_eq!(last(&cron, "2027-01-18T06:31:00Z").unwrap(), "2027-01-18T06:30:00Z");
    }

    #[test]
    fn a_time_zone_has_its_own_midnight() {
        let mut cron = cron("0 0 * * *", "2027-01-15T12:00:00Z");
        cron.spec.time_zone = Some("America/New_York".to_owned());
        assert_eq!(due(&cron, at("2027-01-15T13:00:00Z")).unwrap().next, Some(at("2027-01-16T05:00:00Z")));
        cron.spec.time_zone = Some("Nowhere/Town".to_owned());
        assert!(matches!(due(&cron, at("2027-01-15T13:00:00Z")), Err(Fault::Zone(_))));
    }

    #[test]
    fn what_never_comes_is_a_fault() {
        let cron = cron("59 23 31 2 *", "2027-01-15T12:00:00Z");
        assert!(matches!(due(&cron, at("2027-02-15T13:00:00Z")), Err(Fault::Never)));
    }
}
