//! Events, in their two versions.

use super::fill::str_of;
use super::{Behaviour, Typed, names};
use crate::types::core::v1::{Event, ObjectReference};
use crate::types::events::v1::Event as NewEvent;
use std::sync::Arc;

/// `v1` events.
pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Event> { fields, check_name: names::subdomain_name, ..Default::default() })
}

/// `events.k8s.io/v1` events.
pub fn new_behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<NewEvent> {
        fields: new_fields,
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
