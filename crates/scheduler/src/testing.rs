//! Builders of pods and nodes for this crate's tests.

use crate::view::{NodeView, PodView};
use krate_api::Kind;
use krate_api::types::core::v1::{Node, Pod};
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Clone)]
pub struct PodBuilder(pub Value);

/// A pod in namespace `default` with one container.
pub fn pod(name: &str) -> PodBuilder {
    PodBuilder(json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {}},
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{"name": "main", "image": "app:1", "resources": {"requests": {}}, "ports": []}],
            "tolerations": [],
        },
        "status": {"phase": "Pending"},
    }))
}

impl PodBuilder {
    fn set(mut self, pointer: &str, key: &str, value: impl Into<Value>) -> Self {
        self.0.pointer_mut(pointer).unwrap()[key] = value.into();
        self
    }

    fn push(mut self, pointer: &str, value: Value) -> Self {
        self.0.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
        self
    }

    pub fn ask(self, resource: &str, amount: &str) -> Self {
        self.set("/spec/containers/0/resources/requests", resource, amount)
    }
    pub fn cpu(self, millis: i64) -> Self {
        self.ask("cpu", &format!("{millis}m"))
    }
    pub fn memory(self, bytes: i64) -> Self {
        self.ask("memory", &bytes.to_string())
    }
    pub fn scalar(self, name: &str, amount: i64) -> Self {
        self.ask(name, &amount.to_string())
    }
    pub fn image(self, image: &str) -> Self {
        self.set("/spec/containers/0", "image", image)
    }
    pub fn host_port(self, port: i32) -> Self {
        self.push("/spec/containers/0/ports", json!({"containerPort": port, "hostPort": port}))
    }
    pub fn label(self, key: &str, value: &str) -> Self {
        self.set("/metadata/labels", key, value)
    }
    pub fn on(self, node: &str) -> Self {
        self.set("/spec", "nodeName", node)
    }
    pub fn spec(self, key: &str, value: Value) -> Self {
        self.set("/spec", key, value)
    }
    pub fn status(self, key: &str, value: impl Into<Value>) -> Self {
        self.set("/status", key, value)
    }
    pub fn priority(self, priority: i32) -> Self {
        self.set("/spec", "priority", priority)
    }
    pub fn gate(self, name: &str) -> Self {
        self.set("/spec", "schedulingGates", json!([{"name": name}]))
    }
    pub fn select(self, key: &str, value: &str) -> Self {
        self.set("/spec", "nodeSelector", json!({key: value}))
    }
    pub fn tolerate(self, key: &str) -> Self {
        self.push("/spec/tolerations", json!({"key": key, "operator": "Exists"}))
    }
    pub fn build(self) -> Pod {
        Pod::from_value(self.0).unwrap()
    }
    pub fn view(self) -> Arc<PodView> {
        Arc::new(PodView::new(&self.build()))
    }
}

#[derive(Clone)]
pub struct NodeBuilder(pub Value);

/// A node with 4 CPUs, 8 GiB and room for 110 pods.
pub fn node(name: &str) -> NodeBuilder {
    NodeBuilder(json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": []},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "images": []},
    }))
}

impl NodeBuilder {
    fn set(mut self, pointer: &str, key: &str, value: impl Into<Value>) -> Self {
        self.0.pointer_mut(pointer).unwrap()[key] = value.into();
        self
    }

    fn push(mut self, pointer: &str, value: Value) -> Self {
        self.0.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
        self
    }

    pub fn has(self, resource: &str, amount: &str) -> Self {
        self.set("/status/allocatable", resource, amount)
    }
    pub fn cpu(self, millis: i64) -> Self {
        self.has("cpu", &format!("{millis}m"))
    }
    pub fn memory(self, bytes: i64) -> Self {
        self.has("memory", &bytes.to_string())
    }
    pub fn pods(self, count: i64) -> Self {
        self.has("pods", &count.to_string())
    }
    pub fn label(self, key: &str, value: &str) -> Self {
        self.set("/metadata/labels", key, value)
    }
    pub fn unschedulable(self) -> Self {
        self.set("/spec", "unschedulable", true)
    }
    pub fn taint(self, key: &str, value: &str, effect: &str) -> Self {
        self.push("/spec/taints", json!({"key": key, "value": value, "effect": effect}))
    }
    pub fn image(self, name: &str, size: i64) -> Self {
        self.push("/status/images", json!({"names": [name], "sizeBytes": size}))
    }
    pub fn build(self) -> Node {
        Node::from_value(self.0).unwrap()
    }
    pub fn view(self) -> Arc<NodeView> {
        Arc::new(NodeView::new(&self.build()))
    }
}
