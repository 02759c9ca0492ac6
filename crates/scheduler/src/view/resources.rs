//! Amounts of resources as plain numbers, and what a pod asks for.
//!
//! The rules are those of the original's resource helper: containers add up, init containers overlap,
//! restartable ones (sidecars) add to what starts after them, pod-level requests override, overhead comes
//! on top, and a pod that is being resized counts as the larger of what it asks for and what it has.

use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use krate_api::quantity::Quantity;
use krate_api::types::core::v1::{Container, ContainerStatus, PodSpec, PodStatus, ResourceRequirements};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What scoring assumes that a container without a CPU request uses, in millicores.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// What scoring assumes that a container without a memory request uses, in bytes.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// A resource that is neither CPU, memory nor ephemeral storage: `nvidia.com/gpu`, `hugepages-2Mi`.
pub type Scalar = (Arc<str>, i64);

/// Amounts of resources. CPU is in millicores, the others in their unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    pub cpu: i64,
    pub memory: i64,
    pub storage: i64,
    /// How many pods (of a node: fit on it).
    pub pods: i64,
    /// By name, sorted.
    pub scalars: Vec<Scalar>,
}

type List = BTreeMap<String, Text>;

impl Resources {
    /// Amounts as the API writes them. What is not a quantity counts as nothing: the server admits none.
    #[must_use]
    pub fn of(list: Option<&List>) -> Self {
        let mut out = Self::default();
        for (name, text) in list.into_iter().flatten() {
            let Ok(quantity) = Quantity::of(text) else { continue };
            let amount = if name == "cpu" { quantity.millis() } else { quantity.value() };
            out.set(name, amount);
        }
        out
    }

    #[must_use]
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.storage,
            "pods" => self.pods,
            other => self.scalar(other),
        }
    }

    #[must_use]
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.iter().find(|(key, _)| &**key == name).map_or(0, |(_, amount)| *amount)
    }

    pub fn set(&mut self, name: &str, amount: i64) {
        match name {
            "cpu" => self.cpu = amount,
            "memory" => self.memory = amount,
            "ephemeral-storage" => self.storage = amount,
            "pods" => self.pods = amount,
            other => match self.scalars.binary_search_by(|(key, _)| (**key).cmp(other)) {
                Ok(at) => self.scalars[at].1 = amount,
                Err(at) => self.scalars.insert(at, (other.into(), amount)),
            },
        }
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.cpu = with(self.cpu, other.cpu);
        self.memory = with(self.memory, other.memory);
        self.storage = with(self.storage, other.storage);
        for (name, amount) in &other.scalars {
            match self.scalars.binary_search_by(|(key, _)| key.cmp(name)) {
                Ok(at) => self.scalars[at].1 = with(self.scalars[at].1, *amount),
                Err(at) => self.scalars.insert(at, (name.clone(), with(0, *amount))),
            }
        }
    }

    /// Adds everything but `pods`.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes away everything but `pods`.
    pub fn sub(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// The larger of each.
    pub fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.cpu == 0 && self.memory == 0 && self.storage == 0 && self.scalars.iter().all(|(_, n)| *n == 0)
    }
}

fn requests(requirements: Option<&ResourceRequirements>) -> Resources {
    Resources::of(requirements.and_then(|r| r.requests.as_ref()))
}

/// Names of resources that can be asked for by the whole pod.
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// What a pod asks for, for fitting.
#[must_use]
pub fn pod_requests(spec: &PodSpec, status: Option<&PodStatus>) -> Resources {
    let wanted = |container: &Container, statuses: Option<&Vec<ContainerStatus>>| {
        let mut wanted = requests(container.resources.as_ref());
        let status = statuses.into_iter().flatten().find(|s| s.name == container.name);
        if let Some(status) = status {
            // what is being taken away is free only when it has been taken away
            wanted.max(&requests(status.resources.as_ref()));
            wanted.max(&Resources::of(status.allocated_resources.as_ref()));
        }
        wanted
    };
    let running = status.and_then(|s| s.container_statuses.as_ref());
    let starting = status.and_then(|s| s.init_container_statuses.as_ref());
    let mut total = aggregate(
        spec,
        |container| wanted(container, running),
        |container| {
            let is_sidecar = container.restart_policy.as_deref() == Some("Always");
            wanted(container, starting.filter(|_| is_sidecar))
        },
    );
    override_pod_level(spec, &mut total);
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

/// CPU and memory that a pod is taken to use when nodes are scored: what it asks for, and a default for
/// each container that does not say.
#[must_use]
pub fn pod_usage(spec: &PodSpec) -> [i64; 2] {
    let at_pod = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let says = |container: &Container, name: &str| {
        let own = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        own.is_some_and(|list| list.contains_key(name)) || at_pod.is_some_and(|list| list.contains_key(name))
    };
    let assumed = |container: &Container| {
        let mut wanted = requests(container.resources.as_ref());
        if !says(container, "cpu") {
            wanted.cpu = DEFAULT_MILLI_CPU;
        }
        if !says(container, "memory") {
            wanted.memory = DEFAULT_MEMORY;
        }
        wanted
    };
    let mut total = aggregate(spec, assumed, assumed);
    override_pod_level(spec, &mut total);
    total.add(&Resources::of(spec.overhead.as_ref()));
    [total.cpu, total.memory]
}

fn override_pod_level(spec: &PodSpec, total: &mut Resources) {
    let list = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    for (name, text) in list.into_iter().flatten().filter(|(name, _)| is_pod_level(name)) {
        if let Ok(quantity) = Quantity::of(text) {
            total.set(name, if name == "cpu" { quantity.millis() } else { quantity.value() });
        }
    }
}

fn aggregate(
    spec: &PodSpec,
    container: impl Fn(&Container) -> Resources,
    init: impl Fn(&Container) -> Resources,
) -> Resources {
    let mut total = Resources::default();
    for one in &spec.containers {
        total.add(&container(one));
    }
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for one in spec.init_containers.iter().flatten() {
        let mut wanted = init(one);
        if one.restart_policy.as_deref() == Some("Always") {
            total.add(&wanted);
            sidecars.add(&wanted);
            wanted = sidecars.clone();
        } else {
            wanted.add(&sidecars);
        }
        starting.max(&wanted);
    }
    total.max(&starting);
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpec {
        let pod = serde_json::json!({"spec": json});
        <krate_api::types::core::v1::Pod as krate_api::Kind>::from_value(pod).unwrap().spec.unwrap()
    }

    fn asks(cpu: &str) -> serde_json::Value {
        serde_json::json!({"requests": {"cpu": cpu}})
    }

    #[test]
    fn init_containers_overlap_and_sidecars_stay() {
        let spec = spec(serde_json::json!({
            "containers": [{"name": "a", "resources": asks("100m")}, {"name": "b", "resources": asks("200m")}],
            "initContainers": [
                {"name": "i", "resources": asks("500m")},
                {"name": "s", "restartPolicy": "Always", "resources": asks("50m")},
                {"name": "j", "resources": asks("400m")},
            ],
        }));
        assert_eq!(pod_requests(&spec, None).cpu, 500);
        let without =
            PodSpec { init_containers: spec.init_containers.clone().map(|mut i| i.split_off(1)), ..spec };
        assert_eq!(pod_requests(&without, None).cpu, 450);
    }

    #[test]
    fn the_pods_own_requests_win_and_overhead_comes_on_top() {
        let spec = spec(serde_json::json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "example.com/x": "2"}}}],
            "resources": {"requests": {"cpu": "2", "memory": "1Gi"}},
            "overhead": {"cpu": "250m"},
        }));
        let total = pod_requests(&spec, None);
        assert_eq!((total.cpu, total.memory, total.get("example.com/x")), (2250, 1 << 30, 2));
        assert_eq!(pod_usage(&spec), [2250, 1 << 30]);
    }

    #[test]
    fn a_container_that_does_not_say_is_assumed_to_use_something() {
        let spec = spec(serde_json::json!({"containers": [
            {"name": "a"},
            {"name": "b", "resources": {"requests": {"cpu": "0", "memory": "1Mi"}}},
        ]}));
        assert!(pod_requests(&spec, None).cpu == 0);
        assert_eq!(pod_usage(&spec), [DEFAULT_MILLI_CPU, DEFAULT_MEMORY + (1 << 20)]);
    }

    #[test]
    fn a_pod_that_shrinks_still_holds_what_it_had() {
        let spec = spec(serde_json::json!({"containers": [{"name": "a", "resources": asks("1")}]}));
        let status = serde_json::json!({"status": {"containerStatuses": [{
            "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "2"},
        }]}});
        let pod = <krate_api::types::core::v1::Pod as krate_api::Kind>::from_value(status).unwrap();
        assert_eq!(pod_requests(&spec, pod.status.as_ref()).cpu, 2000);
    }
}
