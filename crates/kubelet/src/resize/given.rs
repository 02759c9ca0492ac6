//! What running containers were given, and the steps that bring it to what is allocated.

use super::{resizable, same, same_amount, with_resources};
use crate::observed::{Observed, PodRuntime};
use crate::spec;
use crate::status::containers::RUNTIME_NAME;
use crate::sync::plan::{Cause, Stop};
use krate_api::types::core::v1::{Container, Pod, PodStatus, ResourceRequirements};
use std::collections::BTreeMap;

/// The resources that containers were made or changed with, by container id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    containers: BTreeMap<String, ResourceRequirements>,
    /// The pod's own, once they differ from what is allocated.
    pub pod: Option<ResourceRequirements>,
}

/// What has to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    /// Containers that want a restart for the change.
    pub restart: Vec<Stop>,
    /// Containers to change as they run, those that give something back first.
    pub change: Vec<(String, Container)>,
}

impl Given {
    /// What the published status says of containers that may still run.
    pub fn published(status: &PodStatus) -> Self {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let one = |s: &krate_api::types::core::v1::ContainerStatus| {
            let id = s.container_id.as_deref()?.strip_prefix(RUNTIME_NAME)?.strip_prefix("://")?;
            Some((id.to_owned(), s.resources.clone()?))
        };
        Self { containers: all.filter_map(one).collect(), pod: status.resources.clone() }
    }

    pub fn of(&self, id: &str) -> Option<&ResourceRequirements> {
        self.containers.get(id)
    }

    /// Notes what a container has now.
    pub fn note(&mut self, id: &str, resources: Option<&ResourceRequirements>) {
        self.containers.insert(id.to_owned(), resources.cloned().unwrap_or_default());
    }

    /// Forgets the containers that are gone, and takes in those that it did not know: they were made with
    /// what is allocated.
    pub fn keep_up(&mut self, pod: &Pod, runtime: &PodRuntime) {
        self.containers.retain(|id, _| runtime.containers.iter().any(|c| c.id() == id));
        for (container, observed) in running_of(pod, runtime) {
            if self.of(observed.id()).is_none() {
                self.note(observed.id(), container.resources.as_ref());
            }
        }
        if self.pod.is_none() {
            self.pod.clone_from(&spec::spec(pod).resources);
        }
    }

    /// Whether everything that runs has what is allocated.
    pub fn is_settled(&self, pod: &Pod, runtime: &PodRuntime) -> bool {
        let own = spec::spec(pod).resources.as_ref();
        let mut all = running_of(pod, runtime);
        all.all(|(c, o)| self.of(o.id()).is_none_or(|g| same(Some(g), c.resources.as_ref())))
            && (own.is_none() || self.pod.is_none() || same(self.pod.as_ref(), own))
    }

    /// The pod as its containers have it now.
    pub fn as_given(&self, pod: &Pod, runtime: &PodRuntime) -> Pod {
        let own = self.pod.clone().or_else(|| spec::spec(pod).resources.clone());
        with_resources(pod, own, |name| runtime.latest(name).and_then(|o| self.of(o.id()).cloned()))
    }

    pub fn steps(&self, pod: &Pod, runtime: &PodRuntime) -> Steps {
        let mut steps = Steps::default();
        let mut grow = Vec::new();
        for (container, observed) in running_of(pod, runtime) {
            let wanted = container.resources.as_ref();
            let Some(has) = self.of(observed.id()).filter(|has| !same(Some(has), wanted)) else { continue };
            if wants_restart(container, has) {
                steps.restart.push(Stop {
                    id: observed.id().to_owned(),
                    name: container.name.clone(),
                    cause: Cause::Changed,
                    message: format!("Container {} resize requires restart", container.name),
                    again: true,
                });
            } else if grows(has, wanted) {
                grow.push((observed.id().to_owned(), container.clone()));
            } else {
                steps.change.push((observed.id().to_owned(), container.clone()));
            }
        }
        steps.change.extend(grow);
        steps
    }
}

fn running_of<'a>(
    pod: &'a Pod,
    runtime: &'a PodRuntime,
) -> impl Iterator<Item = (&'a Container, &'a Observed)> {
    resizable(pod).filter_map(|c| Some((c, runtime.latest(&c.name).filter(|o| o.is_running())?)))
}

fn wants_restart(container: &Container, has: &ResourceRequirements) -> bool {
    let restarts = |name: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|p| p.resource_name == name && p.restart_policy == "RestartContainer")
    };
    let wanted = container.resources.as_ref();
    super::RESIZABLE.iter().any(|name| !same_amount(Some(has), wanted, name) && restarts(name))
}

/// Whether the container gets more of anything.
fn grows(has: &ResourceRequirements, wanted: Option<&ResourceRequirements>) -> bool {
    let limit = |r: Option<&_>, name: &str| {
        spec::resources::limit(r, name).map_or(i64::MAX, |q| spec::resources::amount(name, q))
    };
    super::RESIZABLE.iter().any(|name| limit(wanted, name) > limit(Some(has), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::build::*;
    use crate::spec::build;
    use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use krate_api::types::core::v1::ContainerResizePolicy;

    fn limits(cpu: &str, memory: &str) -> ResourceRequirements {
        let q = |text: &str| Quantity(text.into());
        ResourceRequirements {
            limits: Some([("cpu".to_owned(), q(cpu)), ("memory".to_owned(), q(memory))].into()),
            ..Default::default()
        }
    }

    fn pod(of: &[(&str, &str, &str)]) -> Pod {
        build::edit(build::pod("p"), |s| {
            let one = |(name, cpu, memory): &(&str, &str, &str)| Container {
                resources: Some(limits(cpu, memory)),
                resize_policy: Some(vec![ContainerResizePolicy {
                    resource_name: "memory".into(),
                    restart_policy: "RestartContainer".into(),
                }]),
                ..build::container(name)
            };
            s.containers = of.iter().map(one).collect();
        })
    }

    #[test]
    fn what_shrinks_goes_first_and_memory_wants_a_restart() {
        let runtime = pod_runtime(vec![running("a", 0), running("b", 0), running("c", 0)]);
        let mut given = Given::default();
        given.keep_up(&pod(&[("a", "1", "1Gi"), ("b", "1", "1Gi"), ("c", "1", "1Gi")]), &runtime);
        let wanted = pod(&[("a", "2", "1Gi"), ("b", "500m", "1024Mi"), ("c", "1", "2Gi")]);
        assert!(!given.is_settled(&wanted, &runtime));
        let steps = given.steps(&wanted, &runtime);
        assert_eq!(steps.change.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["b-0", "a-0"]);
        assert_eq!(
            steps.restart.iter().map(|s| s.message.as_str()).collect::<Vec<_>>(),
            ["Container c resize requires restart"]
        );
        for (id, container) in steps.change {
            given.note(&id, container.resources.as_ref());
        }
        let after = pod_runtime(vec![running("a", 0), running("b", 0), running("c", 1)]);
        given.keep_up(&wanted, &after);
        assert!(given.is_settled(&wanted, &after));
    }
}
