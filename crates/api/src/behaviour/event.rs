//! Events, in their two versions.

use super::check::{self, Check};
use super::fill::{is_empty, str_of};
use super::{Behaviour, Typed, internal, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{Event, ObjectReference};
use crate::types::events::v1::Event as NewEvent;
use std::sync::Arc;

/// `v1` events.
pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Event> {
        fields,
        validate,
        validate_update: |_, new, _| validate(new),
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

/// `events.k8s.io/v1` events.
pub fn new_behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<NewEvent> {
        fields: new_fields,
        validate: validate_new,
        validate_update: validate_new_update,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn text(field: &Option<String>) -> String {
    str_of(field).to_owned()
}

fn fields(event: &Event) -> Vec<(&'static str, String)> {
    let about = &event.involved_object;
    let component = event.source.as_ref().map(|s| text(&s.component)).unwrap_or_default();
    let source = if component.is_empty() { text(&event.reporting_component) } else { component };
    vec![
        ("involvedObject.kind", text(&about.kind)),
        ("involvedObject.namespace", text(&about.namespace)),
        ("involvedObject.name", text(&about.name)),
        ("involvedObject.uid", text(&about.uid)),
        ("involvedObject.apiVersion", text(&about.api_version)),
        ("involvedObject.resourceVersion", text(&about.resource_version)),
        ("involvedObject.fieldPath", text(&about.field_path)),
        ("reason", text(&event.reason)),
        ("reportingComponent", text(&event.reporting_component)),
        ("source", source),
        ("type", text(&event.type_)),
    ]
}

fn new_fields(event: &NewEvent) -> Vec<(&'static str, String)> {
    let about = event.regarding.clone().unwrap_or_default();
    let ObjectReference { kind, namespace, name, uid, api_version, resource_version, field_path } = about;
    let or = Option::unwrap_or_default;
    vec![
        ("regarding.kind", or(kind)),
        ("regarding.namespace", or(namespace)),
        ("regarding.name", or(name)),
        ("regarding.uid", or(uid)),
        ("regarding.apiVersion", or(api_version)),
        ("regarding.resourceVersion", or(resource_version)),
        ("regarding.fieldPath", or(field_path)),
        ("reason", text(&event.reason)),
        ("reportingController", text(&event.reporting_controller)),
        ("type", text(&event.type_)),
    ]
}

/// Length of an event's words, in bytes.
const WORD: usize = 128;
/// Length of an event's text, in bytes.
const NOTE: usize = 1024;

/// What both versions hold, under the names of the old one.
struct Facts<'a> {
    namespace: &'a str,
    about: &'a str,
    timed: bool,
    /// What the version calls the next field.
    controller_field: &'a str,
    controller: &'a str,
    instance: &'a str,
    action: &'a str,
    reason: &'a str,
    message: &'a str,
}

fn validate(event: &Event) -> Errors {
    common(&Facts {
        namespace: str_of(&event.metadata.namespace),
        about: str_of(&event.involved_object.namespace),
        timed: event.event_time.is_some(),
        controller_field: "reportingComponent",
        controller: str_of(&event.reporting_component),
        instance: str_of(&event.reporting_instance),
        action: str_of(&event.action),
        reason: str_of(&event.reason),
        message: str_of(&event.message),
    })
}

fn common(event: &Facts<'_>) -> Errors {
    let mut errors = Errors::new();
    let at = Path::new("involvedObject").child("namespace");
    let (own, about) = (event.namespace, event.about);
    let agrees = match (about.is_empty(), event.timed) {
        (true, false) => matches!(own, "" | "default"),
        (true, true) => matches!(own, "default" | "kube-system"),
        (false, false) => own == about,
        (false, true) => true,
    };
    if !agrees {
        errors.invalid(&at, about, "does not match event.namespace");
    }
    if event.timed {
        words(&mut errors, event);
    }
    errors.faults(&Path::new("namespace"), own, names::dns1123_subdomain(own));
    errors
}

/// What an event in the new style has to say.
fn words(errors: &mut Errors, event: &Facts<'_>) {
    let controller = Path::new(event.controller_field);
    errors.required(&controller, event.controller);
    errors.faults(&controller, event.controller, names::qualified_name(event.controller));
    for (field, word) in
        [("reportingInstance", event.instance), ("action", event.action), ("reason", event.reason)]
    {
        let path = Path::new(field);
        errors.required(&path, word);
        if word.len() > WORD {
            errors.invalid(&path, "", &format!("can have at most {WORD} characters"));
        }
    }
    if event.message.len() > NOTE {
        errors.invalid(&Path::new("message"), "", &format!("can have at most {NOTE} characters"));
    }
}

fn new_facts(event: &NewEvent) -> Facts<'_> {
    Facts {
        namespace: str_of(&event.metadata.namespace),
        about: event.regarding.as_ref().map_or("", |r| str_of(&r.namespace)),
        timed: event.event_time.is_some(),
        controller_field: "reportingController",
        controller: str_of(&event.reporting_controller),
        instance: str_of(&event.reporting_instance),
        action: str_of(&event.action),
        reason: str_of(&event.reason),
        message: str_of(&event.note),
    }
}

fn validate_new(event: &NewEvent) -> Errors {
    let mut errors = common(&new_facts(event));
    series(&mut errors, event);
    if event.event_time.is_none() {
        errors.push(Error::required(&Path::new("eventTime"), ""));
    }
    let kind = str_of(&event.type_);
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid(&Path::new("type"), "", &format!("has invalid value: {kind}"));
    }
    let source = event.deprecated_source.as_ref();
    for (field, set) in [
        ("firstTimestamp", event.deprecated_first_timestamp.is_some()),
        ("lastTimestamp", event.deprecated_last_timestamp.is_some()),
        ("count", event.deprecated_count.unwrap_or(0) != 0),
        ("source", source.is_some_and(|s| !is_empty(&s.component) || !is_empty(&s.host))),
    ] {
        if set {
            errors.invalid(&Path::new(field), "", "needs to be unset");
        }
    }
    errors
}

fn series(errors: &mut Errors, event: &NewEvent) {
    if event.series.as_ref().is_some_and(|s| s.count < 2) {
        errors.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
}

fn validate_new_update(_: &str, new: &NewEvent, old: &NewEvent) -> Errors {
    let mut errors = common(&new_facts(new));
    if new.series != old.series {
        series(&mut errors, new);
    }
    let (about, was) = (new.regarding.clone().unwrap_or_default(), old.regarding.clone().unwrap_or_default());
    check::kept(&mut errors, &Path::new("involvedObject"), &about, &was, internal::OBJECT_REFERENCE);
    errors.unchanged(&Path::new("reason"), &str_of(&new.reason), &str_of(&old.reason));
    errors.unchanged(&Path::new("message"), &str_of(&new.note), &str_of(&old.note));
    let source = |event: &NewEvent| event.deprecated_source.clone().unwrap_or_default();
    let form = internal::EVENT_SOURCE;
    check::kept(&mut errors, &Path::new("source"), &source(new), &source(old), form);
    let first = Path::new("firstTimestamp");
    errors.unchanged(&first, &new.deprecated_first_timestamp, &old.deprecated_first_timestamp);
    let last = Path::new("lastTimestamp");
    errors.unchanged(&last, &new.deprecated_last_timestamp, &old.deprecated_last_timestamp);
    let count = |event: &NewEvent| event.deprecated_count.unwrap_or(0);
    errors.unchanged(&Path::new("count"), &count(new), &count(old));
    errors.unchanged(&Path::new("type"), &str_of(&new.type_), &str_of(&old.type_));
    errors.unchanged(&Path::new("eventTime"), &new.event_time, &old.event_time);
    errors.unchanged(&Path::new("action"), &str_of(&new.action), &str_of(&old.action));
    let form = internal::OBJECT_REFERENCE;
    check::kept(&mut errors, &Path::new("related"), &new.related, &old.related, form);
    let controller = Path::new("reportingController");
    errors.unchanged(&controller, &str_of(&new.reporting_controller), &str_of(&old.reporting_controller));
    let instance = Path::new("reportingInstance");
    errors.unchanged(&instance, &str_of(&new.reporting_instance), &str_of(&old.reporting_instance));
    errors
}
