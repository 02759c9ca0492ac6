//! The words that cells are made of.

use crate::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use crate::labels::Selector;
use crate::meta::{LabelSelector, MicroTime, ObjectMeta, Time};
use crate::types::core::v1::{Container, PodTemplateSpec};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";
pub(super) const UNSET: &str = "<unset>";

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A duration of so many seconds with at most two units: `5m10s`, `3h`, `8d`, `2y20d`.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let pair = |big: i64, unit: &str, small: i64, part: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{part}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => pair(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => pair(s / HOUR, "h", s / MINUTE % 60, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => pair(s / DAY, "d", s / HOUR % 24, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => pair(s / YEAR, "y", s / DAY % 365, "d"),
        s => format!("{}y", s / YEAR),
    }
}

/// Time since `then`.
pub(super) fn since(then: Timestamp, now: Timestamp) -> String {
    human_duration(now.duration_since(then).as_secs())
}

pub(super) fn since_time(then: Option<&Time>, now: Timestamp) -> String {
    then.map_or_else(|| UNKNOWN.to_owned(), |t| since(t.0, now))
}

pub(super) fn since_micro(then: Option<&MicroTime>, now: Timestamp) -> String {
    then.map_or_else(|| UNKNOWN.to_owned(), |t| since(t.0, now))
}

pub(super) fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn name(meta: &ObjectMeta) -> Value {
    json!(meta.name.as_deref().unwrap_or(""))
}

pub(super) fn age(meta: &ObjectMeta, now: Timestamp) -> Value {
    json!(since_time(meta.creation_timestamp.as_ref(), now))
}

/// The text, empty if there is none.
pub(super) fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

/// The text, or `other` if it is empty.
pub(super) fn text_or<'a>(value: Option<&'a String>, other: &'a str) -> &'a str {
    value.filter(|v| !v.is_empty()).map_or(other, String::as_str)
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// `k=v,k=v`, or `<none>`.
pub(super) fn labels(map: Option<&BTreeMap<String, String>>) -> String {
    or_none(map.into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","))
}

/// A label selector, or `<none>` if it has no conditions.
pub(super) fn selector(selector: Option<&LabelSelector>) -> String {
    match Selector::of(selector) {
        Ok(selector) => or_none(selector.to_string()),
        Err(_) => "<error>".to_owned(),
    }
}

/// Names and images of the containers of a template.
pub(super) fn containers(template: Option<&PodTemplateSpec>) -> [Value; 2] {
    let containers = template.and_then(|t| t.spec.as_ref()).map_or(&[][..], |s| &s.containers);
    let join = |f: fn(&Container) -> &str| json!(containers.iter().map(f).collect::<Vec<_>>().join(","));
    [join(|c| &c.name), join(|c| text(c.image.as_ref()))]
}

pub(super) fn int_or_string(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(i) => i.to_string(),
        IntOrString::String(s) => s.clone(),
    }
}

/// The first items, and how many more there are.
pub(super) fn some_of(items: impl IntoIterator<Item = String>, shown: usize, separator: &str) -> String {
    let items: Vec<String> = items.into_iter().collect();
    let head = items[..items.len().min(shown)].join(separator);
    if items.len() > shown { format!("{head} + {} more...", items.len() - shown) } else { head }
}

pub(super) fn or_unset(text: String) -> String {
    if text.is_empty() { UNSET.to_owned() } else { text }
}

pub(super) fn quantity(map: Option<&BTreeMap<String, crate::quantity::Text>>, name: &str) -> String {
    map.and_then(|m| m.get(name)).map_or_else(String::new, |q| q.0.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_the_original_writes_them() {
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (301, "5m1s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 61, "3h1m"),
            (8 * HOUR + 61, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 3 * HOUR, "2d3h"),
            (8 * DAY + 5 * HOUR, "8d"),
            (729 * DAY, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + 20 * DAY, "2y20d"),
            (9 * YEAR + 20 * DAY, "9y"),
        ] {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let list = |n: usize| (0..n).map(|i| i.to_string());
        assert_eq!(some_of(list(3), 3, ","), "0,1,2");
        assert_eq!(some_of(list(5), 3, ","), "0,1,2 + 2 more...");
    }
}
