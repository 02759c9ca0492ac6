//! Events exist in two shapes, `v1` (stored) and `events.k8s.io/v1`; this is the way between them.
//!
//! Nothing is lost either way: the fields that only the older shape has are the `deprecated*` ones of the
//! newer.

use crate::object::{DecodeError, Kind as _, Object};
use crate::types::{core::v1 as core, events::v1 as events};
use std::any::Any;

/// An event of either shape as the one that is stored.
pub(super) fn to_stored(object: &dyn Object) -> Box<dyn Object> {
    match (object.as_any() as &dyn Any).downcast_ref::<events::Event>() {
        Some(event) => Box::new(to_core(event.clone())),
        None => object.boxed_clone(),
    }
}

/// Stored bytes as the newer shape.
pub(super) fn from_stored(bytes: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
    Ok(Box::new(from_core(core::Event::decode(bytes)?)))
}

/// The core shape of an event.
#[must_use]
pub fn to_core(event: events::Event) -> core::Event {
    core::Event {
        action: event.action,
        count: event.deprecated_count,
        event_time: event.event_time,
        first_timestamp: event.deprecated_first_timestamp,
        involved_object: event.regarding.unwrap_or_default(),
        last_timestamp: event.deprecated_last_timestamp,
        message: event.note,
        metadata: event.metadata,
        reason: event.reason,
        related: event.related,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|s| core::EventSeries {
            count: Some(s.count),
            last_observed_time: Some(s.last_observed_time),
        }),
        source: event.deprecated_source,
        type_: event.type_,
    }
}

/// The `events.k8s.io` shape of an event.
#[must_use]
pub fn from_core(event: core::Event) -> events::Event {
    events::Event {
        action: event.action,
        deprecated_count: event.count,
        deprecated_first_timestamp: event.first_timestamp,
        deprecated_last_timestamp: event.last_timestamp,
        deprecated_source: event.source,
        event_time: event.event_time,
        metadata: event.metadata,
        note: event.message,
        reason: event.reason,
        regarding: Some(event.involved_object),
        related: event.related,
        reporting_controller: event.reporting_component,
        reporting_instance: event.reporting_instance,
        // A series without a time is one of a broken writer; the newer shape has no place for it.
        series: event.series.and_then(|s| {
            Some(events::EventSeries {
                count: s.count.unwrap_or(0),
                last_observed_time: s.last_observed_time?,
            })
        }),
        type_: event.type_,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_both_ways() {
        let json = br#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"a","namespace":"b"},
            "involvedObject":{"kind":"Pod","name":"p"},"message":"m","reason":"r","type":"Normal","count":3,
            "source":{"component":"kubelet","host":"n"},"firstTimestamp":"2026-01-01T00:00:00Z",
            "series":{"count":2,"lastObservedTime":"2026-01-01T00:00:00.000000Z"}}"#;
        let old = core::Event::decode(json).unwrap();
        let new = from_core(old.clone());
        assert_eq!(new.note.as_deref(), Some("m"));
        assert_eq!(new.regarding.as_ref().and_then(|r| r.name.as_deref()), Some("p"));
        assert_eq!(to_core(new), old);
    }
}
