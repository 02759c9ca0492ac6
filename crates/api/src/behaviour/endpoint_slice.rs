//! EndpointSlices.

use super::fill::{self, items_mut, value};
use super::{Behaviour, Typed, names};
use crate::meta::ObjectMeta;
use crate::types::discovery::v1::EndpointSlice;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<EndpointSlice> {
        default,
        prepare_create,
        prepare_update,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(slice: &mut EndpointSlice) {
    for port in items_mut(&mut slice.ports) {
        value(&mut port.name, String::new());
        value(&mut port.protocol, "TCP".to_owned());
    }
}

fn prepare_create(slice: &mut EndpointSlice) {
    slice.metadata.generation = Some(1);
}

/// Everything but the metadata counts, and of that the labels.
fn prepare_update(new: &mut EndpointSlice, old: &EndpointSlice) {
    let body = |slice: &EndpointSlice| {
        let labels = slice.metadata.labels.clone();
        EndpointSlice { metadata: ObjectMeta { labels, ..Default::default() }, ..slice.clone() }
    };
    let changed = !fill::same(&body(new), &body(old));
    fill::generation(&mut new.metadata, &old.metadata, changed);
}
