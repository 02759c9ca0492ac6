//! The pods of a Job as they are made. Pure.

use super::plan::{FINALIZER, NewPod};
use crate::pods::{COMPLETION_INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES};
use crate::{meta, pod_template};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};
use krate_api::types::batch::v1::Job;
use krate_api::types::core::v1::{Pod, PodSpec};

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Length of the part of a generated name that is not chance.
const PREFIX: usize = 58;

#[must_use]
pub fn pod(job: &Job, new: NewPod) -> Pod {
    let owner = meta::controller_reference(job);
    let namespace = meta::namespace(&job.metadata);
    let template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut pod = pod_template::pod(&template, namespace, owner);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = new.index else { return pod };
    let name = meta::name(&job.metadata);
    pod.metadata.generate_name = Some(prefix(name, index));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
    if let Some((counted, ignored)) = new.failures {
        annotations.insert(INDEX_FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(COMPLETION_INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    tell_index(spec);
    pod
}

/// The name's beginning: that of the Job, cut so that the index is never lost.
fn prefix(job: &str, index: u32) -> String {
    let end = format!("-{index}-");
    let room = PREFIX.saturating_sub(end.len());
    let kept = if job.len() + end.len() > PREFIX { job.get(..room).unwrap_or(job) } else { job };
    format!("{kept}{end}")
}

/// Every container finds its index in its environment, unless the user set the variable.
fn tell_index(spec: &mut PodSpec) {
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|e| e.name == INDEX_VARIABLE) {
            continue;
        }
        let field_path = format!("metadata.labels['{COMPLETION_INDEX}']");
        env.push(EnvVar {
            name: INDEX_VARIABLE.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector { api_version: None, field_path }),
                ..EnvVarSource::default()
            }),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_before_the_index() {
        assert_eq!(prefix("shard", 3), "shard-3-");
        let long = prefix(&"x".repeat(63), 12345);
        assert_eq!((long.len(), long.ends_with("x-12345-")), (PREFIX, true));
    }
}
