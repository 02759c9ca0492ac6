//! What the tests of DaemonSets are made of.

use crate::nodes::NodeView;
use crate::world::{self, named, selector, template};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::types::apps::v1::DaemonSet;
use krate_api::types::core::v1::{Node, Taint};

/// A DaemonSet in `default` as the API would have defaulted it.
pub fn set(name: &str) -> DaemonSet {
    let mut set = DaemonSet::default();
    named(&mut set, name);
    set.metadata.uid = Some("set".to_owned());
    let spec = set.spec.get_or_insert_default();
    spec.selector = selector(name);
    spec.template = template(name, "nginx:1");
    spec.revision_history_limit = Some(10);
    let strategy = spec.update_strategy.get_or_insert_default();
    strategy.type_ = Some("RollingUpdate".to_owned());
    let rolling = strategy.rolling_update.get_or_insert_default();
    rolling.max_unavailable = Some(IntOrString::Int(1));
    rolling.max_surge = Some(IntOrString::Int(0));
    set
}

/// The same set, allowed to surge by so many nodes.
pub fn surging(mut set: DaemonSet, nodes: i32) -> DaemonSet {
    let strategy = set.spec.get_or_insert_default().update_strategy.get_or_insert_default();
    let rolling = strategy.rolling_update.get_or_insert_default();
    rolling.max_unavailable = Some(IntOrString::Int(0));
    rolling.max_surge = Some(IntOrString::Int(nodes));
    set
}

pub fn node(name: &str) -> NodeView {
    let mut node = NodeView::default();
    node.metadata.name = name.to_owned();
    node
}

pub fn taint(mut node: NodeView, key: &str, effect: &str) -> NodeView {
    let taint = Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() };
    node.spec.taints.push(taint);
    node
}

/// A node for the in-memory API.
pub fn object(name: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node
}

/// Changes the set's image on the API.
pub async fn set_image(w: &world::World, name: &str, image: &str) {
    let change = |set: &mut DaemonSet| {
        set.spec.get_or_insert_default().template = template(name, image);
        true
    };
    w.api::<DaemonSet>().modify("default", name, change).await.unwrap();
}
