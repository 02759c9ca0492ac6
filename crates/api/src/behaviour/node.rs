//! Nodes.

use super::fill;
use super::{Behaviour, Typed, names};
use crate::types::core::v1::Node;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Node> {
        default,
        prepare_update,
        prepare_subresource,
        fields,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(node: &mut Node) {
    node.spec.get_or_insert_default();
    let status = node.status.get_or_insert_default();
    fill::resources(&mut status.capacity);
    fill::resources(&mut status.allocatable);
    if status.allocatable.is_none() {
        status.allocatable.clone_from(&status.capacity);
    }
}

fn prepare_update(new: &mut Node, old: &Node) {
    new.status.clone_from(&old.status);
}

fn prepare_subresource(_: &str, new: &mut Node, old: &Node) {
    new.spec.clone_from(&old.spec);
}

fn fields(node: &Node) -> Vec<(&'static str, String)> {
    let off = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    vec![("spec.unschedulable", off.to_string())]
}
