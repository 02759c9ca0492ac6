//! StatefulSets.

use super::check::Check;
use super::fill::{self, items, items_mut, str_of, text, value};
use super::pod_spec::{self, defaults};
use super::workload::{self, counts};
use super::{Behaviour, Typed, internal, names, persistent_volume_claim, selector};
use crate::field::{Error, ErrorType, Errors, Path};
use crate::types::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use crate::types::core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<StatefulSet> {
        default,
        prepare_create,
        prepare_update,
        validate,
        validate_update,
        warnings,
        // The name begins those of pods, and is a label of them.
        check_name: names::label_name,
        ..workload::shell()
    })
}

fn default(set: &mut StatefulSet) {
    let spec = set.spec.get_or_insert_default();
    text(&mut spec.pod_management_policy, "OrderedReady");
    let strategy = spec.update_strategy.get_or_insert_default();
    if fill::is_empty(&strategy.type_) {
        strategy.type_ = Some("RollingUpdate".to_owned());
        strategy.rolling_update.get_or_insert_default();
    }
    if strategy.type_.as_deref() == Some("RollingUpdate")
        && let Some(rolling) = &mut strategy.rolling_update
    {
        value(&mut rolling.partition, 0);
    }
    let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    text(&mut retention.when_deleted, "Retain");
    text(&mut retention.when_scaled, "Retain");
    value(&mut spec.replicas, 1);
    value(&mut spec.revision_history_limit, 10);
    defaults::template(&mut spec.template);
    for claim in items_mut(&mut spec.volume_claim_templates) {
        persistent_volume_claim::default(claim);
    }
    set.status.get_or_insert_default();
}

fn prepare_create(set: &mut StatefulSet) {
    workload::prepare_create(set);
    drop_max_unavailable(set);
}

fn prepare_update(new: &mut StatefulSet, old: &StatefulSet) {
    if max_unavailable(old).is_none() {
        drop_max_unavailable(new);
    }
    workload::prepare_update(new, old);
}

fn max_unavailable(set: &StatefulSet) -> Option<&IntOrString> {
    set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()?.max_unavailable.as_ref()
}

/// `maxUnavailable` belongs to a feature (`MaxUnavailableStatefulSet`) that is off in this version: the field is
/// dropped, unless it is there from before.
fn drop_max_unavailable(set: &mut StatefulSet) {
    let strategy = set.spec.as_mut().and_then(|s| s.update_strategy.as_mut());
    if let Some(rolling) = strategy.and_then(|s| s.rolling_update.as_mut()) {
        rolling.max_unavailable = None;
    }
}

fn warnings(set: &StatefulSet, old: Option<&StatefulSet>) -> Vec<String> {
    let mut list = workload::warnings(set, old);
    let Some(spec) = &set.spec else { return list };
    for (i, claim) in items(&spec.volume_claim_templates).iter().enumerate() {
        let path = Path::new("spec").child("volumeClaimTemplates").index(i).child("Spec");
        list.extend(claim.spec.iter().flat_map(|spec| persistent_volume_claim::spec_warnings(&path, spec)));
    }
    if spec.revision_history_limit.is_some_and(|limit| limit < 0) {
        let text = "a negative value retains all historical revisions; a value >= 0 is recommended";
        list.push(format!("spec.revisionHistoryLimit: {text}"));
    }
    list
}

fn validate(set: &StatefulSet) -> Errors {
    validate_set(set, None)
}

/// The faults of a set. What is looked at in new sets only since a late version is let pass in one that was there
/// before: the name of the service, the claims (which stay as they are), and a template that was not valid.
fn validate_set(set: &StatefulSet, old: Option<&StatefulSet>) -> Errors {
    let mut errors = Errors::new();
    let default = StatefulSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    let policy = str_of(&spec.pod_management_policy);
    if errors.required(&path.child("podManagementPolicy"), policy)
        && !matches!(policy, "OrderedReady" | "Parallel")
    {
        let text = "must be 'OrderedReady' or 'Parallel'";
        errors.invalid(&path.child("podManagementPolicy"), policy, text);
    }
    if let Some(strategy) = &spec.update_strategy {
        validate_strategy(&mut errors, &path.child("updateStrategy"), strategy);
    }
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for (field, value) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
            errors.one_of(&path.child(field), str_of(value), &["Retain", "Delete"]);
        }
    }
    for (i, claim) in items(&spec.volume_claim_templates).iter().enumerate().filter(|_| old.is_none()) {
        let path = path.child("volumeClaimTemplates").index(i).child("spec");
        let claim = claim.spec.clone().unwrap_or_default();
        persistent_volume_claim::validate_spec(&mut errors, &path, &claim);
    }
    counts(
        &mut errors,
        &path,
        &[
            ("replicas", spec.replicas.map(i64::from)),
            ("minReadySeconds", spec.min_ready_seconds.map(i64::from)),
            ("ordinals.start", spec.ordinals.as_ref().and_then(|o| o.start).map(i64::from)),
        ],
    );
    if old.is_none() && !fill::is_empty(&spec.service_name) {
        let name = str_of(&spec.service_name);
        errors.faults(&path.child("serviceName"), name, names::dns1123_label(name));
    }
    let wanted = path.child("selector");
    let template = path.child("template");
    if let Some(wanted) = selector::validate_workload(&mut errors, &wanted, &spec.selector, "statefulset") {
        selector::matches_template(&mut errors, &template, &wanted, workload::labels(&spec.template));
        let mut before = Errors::new();
        if let Some(old) = old.and_then(|old| old.spec.as_ref()) {
            pod_spec::template(&mut before, &template, &with_claims(old));
        }
        if before.is_empty() {
            pod_spec::template(&mut errors, &template, &with_claims(spec));
        }
    }
    workload::runs_for_ever(&mut errors, &template, &spec.template, "StatefulSet");
    errors
}

/// The template with the volumes that the claims will be.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let volumes = template.spec.get_or_insert_default().volumes.get_or_insert_default();
    for claim in items(&spec.volume_claim_templates) {
        let name = claim.metadata.name.clone().unwrap_or_default();
        volumes.retain(|v| v.name != name);
        volumes.push(Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                read_only: None,
            }),
            name,
            ..Default::default()
        });
    }
    template
}

fn validate_strategy(errors: &mut Errors, path: &Path, strategy: &StatefulSetUpdateStrategy) {
    let rolling = path.child("rollingUpdate");
    match (str_of(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.push(Error::required(path, "")),
        ("OnDelete", Some(update)) => {
            let error = Error::invalid(&rolling, "", "only allowed for updateStrategy 'RollingUpdate'");
            errors.push(error.showing(internal::show(update, workload::ROLLING_ORDERED)));
        }
        ("RollingUpdate", Some(update)) => {
            errors.not_negative(&rolling.child("partition"), update.partition.map(i64::from));
            if let Some(value) = &update.max_unavailable {
                let path = rolling.child("maxUnavailable");
                workload::int_or_percent(errors, &path, value);
                if workload::is_zero(Some(value)) {
                    errors.invalid(&path, value, "cannot be 0");
                }
                workload::at_most_100_percent(errors, &path, value);
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        (other, update) => {
            let form = workload::ROLLING_ORDERED;
            let mut error = workload::unknown_strategy(path, other, update, form, &[]);
            error.kind = ErrorType::Invalid;
            errors.push(error.with_detail("must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

fn validate_update(subresource: &str, new: &StatefulSet, old: &StatefulSet) -> Errors {
    if subresource == "status" {
        return validate_status(new, old);
    }
    let mut errors = validate_set(new, Some(old));
    let (Some(wanted), Some(was)) = (&new.spec, &old.spec) else { return errors };
    let was = was.clone();
    let rest = StatefulSetSpec {
        replicas: was.replicas,
        template: was.template.clone(),
        update_strategy: was.update_strategy.clone(),
        min_ready_seconds: was.min_ready_seconds,
        ordinals: was.ordinals.clone(),
        revision_history_limit: was.revision_history_limit,
        persistent_volume_claim_retention_policy: was.persistent_volume_claim_retention_policy.clone(),
        ..wanted.clone()
    };
    if !fill::same(&rest, &was) {
        errors.forbidden(
            &Path::new("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
             'minReadySeconds' are forbidden",
        );
    }
    errors
}

fn validate_status(new: &StatefulSet, old: &StatefulSet) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status");
    let (status, was) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let parts = [
        ("readyReplicas", status.ready_replicas),
        ("currentReplicas", status.current_replicas),
        ("updatedReplicas", status.updated_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    let [ready, current, updated, available] = parts.map(|(field, value)| (field, value.map(i64::from)));
    counts(
        &mut errors,
        &path,
        &[
            ("replicas", Some(status.replicas.into())),
            ready,
            current,
            updated,
            available,
            ("observedGeneration", status.observed_generation),
            ("collisionCount", status.collision_count.map(i64::from)),
        ],
    );
    workload::within_replicas(&mut errors, &path, status.replicas, &parts, "status.readyReplicas");
    workload::collisions(&mut errors, &path, status.collision_count, was.collision_count);
    errors
}
