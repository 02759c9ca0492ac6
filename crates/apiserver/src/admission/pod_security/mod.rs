//! PodSecurity: what the labels of a namespace ask of its pods is enforced, or warned of (KEP-2579).
//!
//! Enforced of pods alone; what makes pods is warned about. A namespace that begins to ask for more says which of its
//! pods would not be let in.

mod checks;
mod policy;
#[cfg(test)]
mod tests;

use super::{Attributes, Operation, Plugin, cast};
use crate::server::Inner;
use async_trait::async_trait;
use checks::Finding;
use krate_api::meta::ObjectMeta;
use krate_api::types::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use krate_api::types::batch::v1::{CronJob, Job};
use krate_api::types::core::v1::{
    Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController,
};
use krate_api::{Object, Status};
use policy::{Level, Policy, Rule};
use std::collections::BTreeMap;

pub(super) struct PodSecurity;

/// Most pods of a namespace that are looked at when its labels change.
const MOST_PODS: usize = 3000;

#[async_trait]
impl Plugin for PodSecurity {
    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(object) = object.filter(|_| matches!(at.operation, Operation::Create | Operation::Update))
        else {
            return Ok(());
        };
        if let Some(namespace) = cast::<Namespace>(object) {
            return if at.call.subresource.is_empty() {
                of_namespace(server, at, namespace).await
            } else {
                Ok(())
            };
        }
        if let Some(pod) = cast::<Pod>(object) {
            return of_pod(server, at, pod).await;
        }
        match template(object).filter(|_| at.call.subresource.is_empty()) {
            Some(template) => of_template(server, at, template).await,
            None => Ok(()),
        }
    }
}

async fn of_policy(server: &Inner, namespace: &str) -> Result<Policy, Status> {
    let namespace = server.read::<Namespace>("", namespace).await?;
    Ok(policy::read(namespace.as_ref().and_then(|n| n.metadata.labels.as_ref())).0)
}

fn against(rule: Rule, meta: &ObjectMeta, spec: &PodSpec) -> Vec<Finding> {
    if rule.level == Level::Privileged { vec![] } else { checks::find(rule.level, rule.version, meta, spec) }
}

fn told(found: &[Finding]) -> String {
    let list: Vec<String> = found.iter().map(|f| format!("{} ({})", f.reason, f.detail)).collect();
    list.join(", ")
}

async fn of_pod(server: &Inner, at: &Attributes<'_>, pod: &Pod) -> Result<(), Status> {
    let adds_containers = at.call.subresource == "ephemeralcontainers";
    if !at.call.subresource.is_empty() && !adds_containers {
        return Ok(());
    }
    if let Some(old) = at.old.and_then(cast::<Pod>)
        && !is_significant(old, pod)
    {
        return Ok(());
    }
    let policy = of_policy(server, &at.call.namespace).await?;
    let Some(spec) = &pod.spec else { return Ok(()) };
    let found = against(policy.enforce, &pod.metadata, spec);
    if !found.is_empty() {
        return Err(at.forbidden(&format!("violates PodSecurity \"{}\": {}", policy.enforce, told(&found))));
    }
    if policy.warn != policy.enforce {
        warn(at, policy.warn, &pod.metadata, spec);
    }
    Ok(())
}

fn warn(at: &Attributes<'_>, rule: Rule, meta: &ObjectMeta, spec: &PodSpec) {
    let found = against(rule, meta, spec);
    if !found.is_empty() {
        at.call.warn(format!("would violate PodSecurity \"{rule}\": {}", told(&found)));
    }
}

/// Whether a change of a pod may change what the checks find. Of what can change only these are looked at by any.
fn is_significant(old: &Pod, new: &Pod) -> bool {
    let profiles = |pod: &Pod| -> BTreeMap<String, String> {
        let all = pod.metadata.annotations.clone().unwrap_or_default();
        all.into_iter()
            .filter(|(key, _)| key.contains("apparmor.security") || key.contains("seccomp.security"))
            .collect()
    };
    let plain = |pod: &Pod| {
        let mut spec = pod.spec.clone().unwrap_or_default();
        let own = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        own.for_each(|container| {
            container.image = None;
            container.resources = None;
        });
        spec.tolerations = None;
        spec.active_deadline_seconds = None;
        spec.node_name = None;
        spec.node_selector = None;
        spec.affinity = None;
        spec.scheduling_gates = None;
        spec.termination_grace_period_seconds = None;
        spec
    };
    profiles(old) != profiles(new) || plain(old) != plain(new)
}

/// The template of what makes pods.
fn template(object: &dyn Object) -> Option<&PodTemplateSpec> {
    if let Some(o) = cast::<Deployment>(object) {
        return o.spec.as_ref().map(|s| &s.template);
    }
    if let Some(o) = cast::<ReplicaSet>(object) {
        return o.spec.as_ref()?.template.as_ref();
    }
    if let Some(o) = cast::<ReplicationController>(object) {
        return o.spec.as_ref()?.template.as_ref();
    }
    if let Some(o) = cast::<StatefulSet>(object) {
        return o.spec.as_ref().map(|s| &s.template);
    }
    if let Some(o) = cast::<DaemonSet>(object) {
        return o.spec.as_ref().map(|s| &s.template);
    }
    if let Some(o) = cast::<Job>(object) {
        return o.spec.as_ref().map(|s| &s.template);
    }
    if let Some(o) = cast::<CronJob>(object) {
        return o.spec.job_template.spec.as_ref().map(|s| &s.template);
    }
    cast::<PodTemplate>(object)?.template.as_ref()
}

async fn of_template(server: &Inner, at: &Attributes<'_>, template: &PodTemplateSpec) -> Result<(), Status> {
    let Some(spec) = &template.spec else { return Ok(()) };
    let policy = of_policy(server, &at.call.namespace).await?;
    let meta = template.metadata.clone().unwrap_or_default();
    warn(at, policy.warn, &meta, spec);
    Ok(())
}

async fn of_namespace(server: &Inner, at: &Attributes<'_>, namespace: &Namespace) -> Result<(), Status> {
    let (new, faults) = policy::read(namespace.metadata.labels.as_ref());
    let old = at.old.and_then(cast::<Namespace>).map(|old| policy::read(old.metadata.labels.as_ref()));
    let known: Vec<String> = old.iter().flat_map(|(_, faults)| faults).map(ToString::to_string).collect();
    if faults.iter().any(|fault| !known.contains(&fault.to_string())) {
        return Err(at.call.invalid(&at.name, &faults));
    }
    let Some((old, _)) = old else { return Ok(()) };
    let same = new.enforce == old.enforce || new.enforce.level == Level::Privileged;
    let easier = new.enforce.version == old.enforce.version && new.enforce.level < old.enforce.level;
    if same || easier {
        return Ok(());
    }
    let pods = server.read_all::<Pod>(&at.name).await?;
    let pods = pods.iter().take(MOST_PODS).filter_map(|p| p.typed::<Pod>().ok());
    let mut groups: Vec<(String, String, usize)> = Vec::new();
    for pod in pods {
        let Some(spec) = &pod.spec else { continue };
        let reasons: Vec<String> =
            against(new.enforce, &pod.metadata, spec).into_iter().map(|f| f.reason).collect();
        if reasons.is_empty() {
            continue;
        }
        let reasons = reasons.join(", ");
        match groups.iter_mut().find(|(known, _, _)| *known == reasons) {
            Some((_, _, count)) => *count += 1,
            None => groups.push((reasons, pod.metadata.name.clone().unwrap_or_default(), 1)),
        }
    }
    for text in existing(&at.name, new.enforce, groups) {
        at.call.warn(text);
    }
    Ok(())
}

/// What is said of pods that are there: reasons, the first pod that has them, and how many have.
fn existing(namespace: &str, rule: Rule, mut groups: Vec<(String, String, usize)>) -> Vec<String> {
    if groups.is_empty() {
        return vec![];
    }
    groups.sort_by(|a, b| a.1.cmp(&b.1));
    let head = format!(
        "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{rule}\""
    );
    let lines = groups.into_iter().map(|(reasons, pod, count)| match count {
        1 => format!("{pod}: {reasons}"),
        2 => format!("{pod} (and 1 other pod): {reasons}"),
        more => format!("{pod} (and {} other pods): {reasons}", more - 1),
    });
    std::iter::once(head).chain(lines).collect()
}
