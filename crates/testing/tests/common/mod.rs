//! What the scenarios share: a cluster in virtual time, and small builders.
#![allow(dead_code)]

use krate_api::Kind;
use krate_api::meta::LabelSelector;
use krate_api::types::apps::v1::Deployment;
use krate_api::types::core::v1::{Container, Event, Pod, PodSpec, PodTemplateSpec};
use krate_testing::{ControlPlane, HollowNode};
use std::sync::Arc;

/// A cluster with so many hollow nodes, `node-1` and on.
pub async fn cluster(nodes: u32) -> (ControlPlane, Vec<HollowNode>) {
    let cluster = ControlPlane::in_virtual_time(7).await.unwrap();
    let mut made = vec![];
    for number in 1..=nodes {
        made.push(cluster.hollow_node(&format!("node-{number}")).await.unwrap());
    }
    (cluster, made)
}

pub fn spec(image: &str) -> PodSpec {
    let container =
        Container { name: "main".to_owned(), image: Some(image.to_owned()), ..Container::default() };
    PodSpec { containers: vec![container], ..PodSpec::default() }
}

pub fn template(app: &str) -> PodTemplateSpec {
    let mut template = PodTemplateSpec::default();
    template.metadata.get_or_insert_default().labels = Some([("app".to_owned(), app.to_owned())].into());
    template.spec = Some(spec(&format!("{app}:1")));
    template
}

pub fn selector(app: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([("app".to_owned(), app.to_owned())].into()), ..Default::default() }
}

pub fn pod(name: &str) -> Pod {
    let mut pod = Pod { spec: Some(spec(&format!("{name}:1"))), ..Pod::default() };
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.namespace = Some("default".to_owned());
    pod
}

pub fn deployment(name: &str, replicas: i32) -> Deployment {
    let mut object = Deployment::default();
    object.metadata.name = Some(name.to_owned());
    object.metadata.namespace = Some("default".to_owned());
    let spec = object.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.selector = selector(name);
    spec.template = template(name);
    object
}

/// The pods that are not on their way out.
pub fn living(pods: &[Arc<Pod>]) -> Vec<&Pod> {
    pods.iter().map(AsRef::as_ref).filter(|p| p.metadata.deletion_timestamp.is_none()).collect()
}

pub fn pod_condition<'a>(pod: &'a Pod, name: &str) -> Option<&'a krate_api::types::core::v1::PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == name)
}

pub fn is_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

pub async fn names<K: Kind>(cluster: &ControlPlane, namespace: &str) -> Vec<String> {
    let list = cluster.of::<K>().list(namespace, Default::default()).await.unwrap();
    list.items.iter().map(|o| o.meta().name.clone().unwrap_or_default()).collect()
}

/// All events as `kind/name reason: message`.
pub async fn events(cluster: &ControlPlane) -> Vec<String> {
    let list = cluster.of::<Event>().list("", Default::default()).await.unwrap();
    let text = |e: &Arc<Event>| {
        let part = |p: &Option<String>| p.clone().unwrap_or_default();
        let about = &e.involved_object;
        format!("{}/{} {}: {}", part(&about.kind), part(&about.name), part(&e.reason), part(&e.message))
    };
    list.items.iter().map(text).collect()
}
