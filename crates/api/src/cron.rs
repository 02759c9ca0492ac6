//! Cron schedules, in the form that CronJobs take: five fields, `@daily` and the like, `@every 1h30m`, and an
//! optional `CRON_TZ=` in front.
//!
//! A day matches when both of its fields match or, if neither begins with a star, when one of them does.
//! Wall-clock times that a change of the clocks skips do not happen; those that it repeats happen twice.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// How far ahead a next time is looked for, in years.
const YEARS: i16 = 5;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Why a text is not a schedule, in the original's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

/// Times that come again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    times: Times,
    zone: Option<TimeZone>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Times {
    /// A fixed time apart, in whole seconds.
    Every(SignedDuration),
    Fields(Box<Fields>),
}

/// Numbers that match, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

/// The numbers and names of one field.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOUR: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAY: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTH: Bounds = Bounds { min: 1, max: 12, names: &MONTHS };
const WEEKDAY: Bounds = Bounds { min: 0, max: 6, names: &DAYS };

fn fail<T>(text: String) -> Result<T, CronError> {
    Err(CronError(text))
}

impl Schedule {
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return fail("empty spec string".to_owned());
        }
        let zoned = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="));
        let (zone, rest) = match zoned {
            None => (None, text),
            Some(rest) => {
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                (Some(zone(name).map_err(|e| CronError(format!("provided bad location {name}: {e}")))?), rest)
            }
        };
        let rest = rest.trim();
        let times = if rest.starts_with('@') { descriptor(rest)? } else { fields(rest)? };
        Ok(Self { times, zone })
    }

    /// The first time after `after`, with wall-clock times in `zone` unless the schedule names its own. None if
    /// there is none in five years (`0 0 31 2 *`).
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.times {
            Times::Every(gap) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*gap).ok()
            }
            Times::Fields(fields) => fields.next(after, self.zone.as_ref().unwrap_or(zone)),
        }
    }
}

/// A time zone of the IANA database by its name.
pub fn zone(name: &str) -> Result<TimeZone, CronError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/');
    if matches!(name, "" | "UTC") {
        return Ok(TimeZone::UTC);
    }
    let known = name.chars().all(plain).then(|| TimeZone::get(name).ok()).flatten();
    known.ok_or_else(|| CronError(format!("unknown time zone {name}")))
}

fn descriptor(text: &str) -> Result<Times, CronError> {
    let spec = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(gap) = text.strip_prefix("@every ") else {
                return fail(format!("unrecognized descriptor: {text}"));
            };
            let gap =
                duration(gap).map_err(|e| CronError(format!("failed to parse duration {text}: {e}")))?;
            return Ok(Times::Every(SignedDuration::from_secs(gap.as_secs().max(1))));
        }
    };
    fields(spec)
}

/// A duration as Go writes it: `1h30m`, `1.5s`.
pub fn duration(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut nanos: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        nanos += number * scale;
        rest = &rest[unit..];
    }
    if nanos > i64::MAX as f64 {
        return Err(wrong());
    }
    let nanos = nanos as i64;
    Ok(SignedDuration::from_nanos(if negative { -nanos } else { nanos }))
}

fn fields(text: &str) -> Result<Times, CronError> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts.as_slice() else {
        return fail(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    };
    let (minutes, _) = field(minute, &MINUTE)?;
    let (hours, _) = field(hour, &HOUR)?;
    let (days, any_day) = field(day, &DAY)?;
    let (months, _) = field(month, &MONTH)?;
    let (weekdays, any_weekday) = field(weekday, &WEEKDAY)?;
    Ok(Times::Fields(Box::new(Fields { minutes, hours, days, months, weekdays, any_day, any_weekday })))
}

/// The bits of a field, and whether it is a star.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), CronError> {
    let mut bits = 0;
    let mut star = false;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (more, any) = range(part, bounds)?;
        bits |= more;
        star |= any;
    }
    Ok((bits, star))
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), CronError> {
    let (span, step) = match text.split('/').collect::<Vec<_>>().as_slice() {
        [span] => (*span, None),
        [span, step] => (*span, Some(number(step)?)),
        _ => return fail(format!("too many slashes: {text}")),
    };
    let ends: Vec<&str> = span.split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let (low, high) = match ends.as_slice() {
        _ if star => (bounds.min, bounds.max),
        [one] => {
            let low = number_or_name(one, bounds.names)?;
            (low, if step.is_some() { bounds.max } else { low })
        }
        [low, high] => (number_or_name(low, bounds.names)?, number_or_name(high, bounds.names)?),
        _ => return fail(format!("too many hyphens: {text}")),
    };
    let (min, max) = (bounds.min, bounds.max);
    if low < min {
        return fail(format!("beginning of range ({low}) below minimum ({min}): {text}"));
    }
    if high > max {
        return fail(format!("end of range ({high}) above maximum ({max}): {text}"));
    }
    if low > high {
        return fail(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    let step = step.unwrap_or(1);
    if step == 0 {
        return fail(format!("step of range should be a positive number: {text}"));
    }
    let bits = (low..=high).step_by(step as usize).fold(0, |bits, n| bits | 1 << n);
    Ok((bits, star && step == 1))
}

fn number_or_name(text: &str, names: &[&str]) -> Result<u32, CronError> {
    // Months count from one, weekdays from zero.
    let first = u32::from(names.len() == MONTHS.len());
    match names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(i) => Ok(i as u32 + first),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, CronError> {
    match text.parse::<i64>() {
        Ok(n) if n < 0 => fail(format!("negative number ({n}) not allowed: {text}")),
        Ok(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
        Err(_) => {
            fail(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = Timestamp::from_second(after.as_second().checked_add(1)?).ok()?.to_zoned(zone.clone());
        let last = start.year().checked_add(YEARS)?;
        let mut date = start.date();
        let mut from = start;
        while date.year() <= last {
            if self.months & (1 << date.month()) == 0 {
                date = date.last_of_month().tomorrow().ok()?;
            } else if !self.matches_day(date) {
                date = date.tomorrow().ok()?;
            } else if let Some(found) = self.within(&from, date) {
                return Some(found);
            } else {
                date = date.tomorrow().ok()?;
            }
            if date != from.date() {
                from = date.to_zoned(zone.clone()).ok()?;
            }
        }
        None
    }

    fn matches_day(&self, date: jiff::civil::Date) -> bool {
        let day = self.days & (1 << date.day()) != 0;
        let weekday = self.weekdays & (1 << date.weekday().to_sunday_zero_offset()) != 0;
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }

    /// The first matching minute of `date`, not before `from`.
    fn within(&self, from: &Zoned, date: jiff::civil::Date) -> Option<Timestamp> {
        let mut now = from.clone();
        while now.date() == date {
            let gap = if self.hours & (1 << now.hour()) == 0 {
                3600 - i64::from(now.minute()) * 60 - i64::from(now.second())
            } else if now.second() != 0 || self.minutes & (1 << now.minute()) == 0 {
                60 - i64::from(now.second())
            } else {
                return Some(now.timestamp());
            };
            now = now.checked_add(gap.seconds()).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(schedule: &str, after: &str) -> String {
        let after: Timestamp = after.parse().expect("a time");
        let schedule = Schedule::parse(schedule).expect("a schedule");
        schedule.next(after, &TimeZone::UTC).map_or("never".to_owned(), |t| t.to_string())
    }

    #[test]
    fn next_times() {
        for (schedule, after, want) in [
            ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("*/15 * * * *", "2026-01-01T00:14:59.5Z", "2026-01-01T00:15:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 31 2 *", "2026-01-01T00:00:00Z", "never"),
            ("30 9 * * mon-fri", "2026-01-02T09:30:00Z", "2026-01-05T09:30:00Z"),
            // Either day, when both are given.
            ("0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 */2 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("@monthly", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"),
            ("@every 90m", "2026-01-01T00:00:00.7Z", "2026-01-01T01:30:00Z"),
            ("5/20 1,2 * DEC ?", "2026-01-01T00:00:00Z", "2026-12-01T01:05:00Z"),
        ] {
            assert_eq!(next(schedule, after), want, "{schedule}");
        }
    }

    #[test]
    fn clocks_change() {
        // Half an hour after midnight UTC the clocks go from 1:59 to 3:00.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        let schedule = Schedule::parse("30 2 * * *").expect("a schedule");
        let after: Timestamp = "2026-03-28T12:00:00Z".parse().expect("a time");
        let first = schedule.next(after, &zone).expect("a time");
        assert_eq!(first.to_string(), "2026-03-30T00:30:00Z", "half past two does not happen on the 29th");
        let after: Timestamp = "2026-10-24T12:00:00Z".parse().expect("a time");
        let first = schedule.next(after, &zone).expect("a time");
        let second = schedule.next(first, &zone).expect("a time");
        assert_eq!(
            (first.to_string().as_str(), second.to_string().as_str()),
            ("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z")
        );
    }

    #[test]
    fn faults_are_told_as_the_original_tells_them() {
        for (schedule, want) in [
            ("", "empty spec string"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 5-2", "beginning of range (5) beyond end of range (2): 5-2"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("CRON_TZ=Mars/Base * * * * *", "provided bad location Mars/Base: unknown time zone Mars/Base"),
        ] {
            assert_eq!(
                Schedule::parse(schedule).map_err(|e| e.to_string()),
                Err(want.to_owned()),
                "{schedule}"
            );
        }
    }

    #[test]
    fn zones_have_names() {
        assert!(zone("UTC").is_ok());
        assert!(zone("Asia/Tokyo").is_ok());
        assert_eq!(
            zone("Mars/Base").map_err(|e| e.to_string()),
            Err("unknown time zone Mars/Base".to_owned())
        );
        let schedule = Schedule::parse("CRON_TZ=Asia/Tokyo 0 9 * * *").expect("a schedule");
        let after: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let next = schedule.next(after, &TimeZone::UTC).expect("a time");
        assert_eq!(next.to_string(), "2026-01-02T00:00:00Z");
    }

    proptest! {
        #[test]
        fn the_next_time_is_later_and_matches(
            minute in 0u8..60, hour in 0u8..24, day in 1u8..29, at in 0i64..4_000_000_000,
        ) {
            let schedule = Schedule::parse(&format!("{minute} {hour} {day} * *")).expect("a schedule");
            let after = Timestamp::from_second(at).expect("a time");
            let next = schedule.next(after, &TimeZone::UTC).expect("every month has that day");
            prop_assert!(next > after);
            let wall = next.to_zoned(TimeZone::UTC);
            prop_assert_eq!((wall.minute() as u8, wall.hour() as u8, wall.day() as u8), (minute, hour, day));
            prop_assert_eq!(schedule.next(next - SignedDuration::from_secs(1), &TimeZone::UTC), Some(next));
        }

        #[test]
        fn nothing_makes_the_parser_panic(text in "[-*/,0-9a-z@= ]{0,30}") {
            let _ = Schedule::parse(&text);
        }
    }
}
