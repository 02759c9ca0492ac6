//! Who a pod of a StatefulSet is: its ordinal, name, labels, host name and volumes, which outlive it. Pure.

use crate::history::REVISION_HASH;
use crate::pods::{PodView, VolumeView};
use crate::{meta, pod_template};
use krate_api::types::apps::v1::StatefulSet;
use krate_api::types::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use std::ops::Range;

/// The label that holds a pod's name, for Services of one pod.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label that holds a pod's ordinal.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinals that a set's pods are to have.
#[must_use]
pub fn ordinals(set: &StatefulSet) -> Range<i32> {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|s| s.ordinals.as_ref()?.start).unwrap_or(0);
    start..start.saturating_add(spec.and_then(|s| s.replicas).unwrap_or(1))
}

/// The ordinal of a pod by its name; none when it is not named like one of the set's.
#[must_use]
pub fn ordinal(set: &StatefulSet, pod: &str) -> Option<i32> {
    let (parent, number) = pod.rsplit_once('-')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (digits && parent == meta::name(&set.metadata)).then(|| number.parse().ok())?
}

#[must_use]
pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", meta::name(&set.metadata))
}

/// The claims of one ordinal, as they are made: one per template.
pub fn claims(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = PersistentVolumeClaim> {
    let templates = set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
    templates.map(move |template| {
        let mut claim = template.clone();
        let labels = set.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
        claim.metadata.name = Some(format!("{}-{}", meta::name(&template.metadata), pod_name(set, ordinal)));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        claim.metadata.labels.get_or_insert_default().extend(labels);
        claim
    })
}

/// Whether a claim of this name may be one of the set's.
#[must_use]
pub fn may_be_claim(set: &StatefulSet, claim: &str) -> bool {
    let mut templates = set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
    templates.any(|template| {
        let rest = claim.strip_prefix(meta::name(&template.metadata)).and_then(|r| r.strip_prefix('-'));
        rest.is_some_and(|pod| ordinal(set, pod).is_some())
    })
}

/// The labels by which a pod says who it is.
#[must_use]
pub fn labels(set: &StatefulSet, ordinal: i32) -> [(&'static str, String); 2] {
    [(POD_NAME, pod_name(set, ordinal)), (POD_INDEX, ordinal.to_string())]
}

/// Whether a pod says rightly who it is.
#[must_use]
pub fn matches(set: &StatefulSet, ordinal: i32, pod: &PodView) -> bool {
    labels(set, ordinal).iter().all(|(key, value)| pod.label(key) == Some(value))
}

/// Whether a pod has the claims of its ordinal for volumes. One that was made by hand and adopted may not.
#[must_use]
pub fn storage_matches(set: &StatefulSet, ordinal: i32, pod: &PodView) -> bool {
    let templates = set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
    templates.zip(claims(set, ordinal)).all(|(template, claim)| {
        let is = |v: &&VolumeView| v.name == meta::name(&template.metadata);
        let volume = pod.spec.volumes.iter().find(is);
        let source = volume.and_then(|v| v.persistent_volume_claim.as_ref());
        source.is_some_and(|source| source.claim_name == meta::name(&claim.metadata))
    })
}

/// The pod of an ordinal, of a revision's template.
#[must_use]
pub fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let owner = meta::controller_reference(set);
    let mut pod = pod_template::pod(template, meta::namespace(&set.metadata), owner);
    let name = pod_name(set, ordinal);
    let all = pod.metadata.labels.get_or_insert_default();
    all.extend(labels(set, ordinal).map(|(key, value)| (key.to_owned(), value)));
    all.insert(REVISION_HASH.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|s| s.service_name.clone()).filter(|s| !s.is_empty());
    mount_claims(set, ordinal, spec.volumes.get_or_insert_default());
    pod.metadata.name = Some(name);
    pod
}

/// The claims take the place of the template's volumes of the same name.
pub fn mount_claims(set: &StatefulSet, ordinal: i32, volumes: &mut Vec<Volume>) {
    let templates = set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
    let names: Vec<String> = templates.map(|t| meta::name(&t.metadata).to_owned()).collect();
    volumes.retain(|v| !names.contains(&v.name));
    let all = names.into_iter().zip(claims(set, ordinal)).map(|(name, claim)| Volume {
        name,
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: meta::name(&claim.metadata).to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    });
    let with_template = all.chain(std::mem::take(volumes)).collect();
    *volumes = with_template;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::ClaimSourceView;
    use crate::stateful_set::testing::{set, with_claim};

    #[test]
    fn ordinals_are_read_of_names_of_the_set_only() {
        let set = set("web", 3);
        for (name, wanted) in [
            ("web-0", Some(0)),
            ("web-12", Some(12)),
            ("web-", None),
            ("web-a", None),
            ("web", None),
            ("my-web-0", None),
            ("web-1-2", None),
            ("web--1", None),
            ("web-99999999999", None),
        ] {
            assert_eq!(ordinal(&set, name), wanted, "{name}");
        }
    }

    #[test]
    fn a_pod_has_its_name_and_its_claims() {
        let mut set = with_claim(set("web", 3), "data");
        set.spec.as_mut().unwrap().service_name = Some("svc".to_owned());
        let template = set.spec.as_ref().unwrap().template.clone();
        let pod = pod(&set, &template, "web-abc", 2);
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert_eq!((labels[POD_NAME].as_str(), labels[POD_INDEX].as_str()), ("web-2", "2"));
        assert_eq!(labels[REVISION_HASH], "web-abc");
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-2"), Some("svc")));
        let claim = spec.volumes.as_ref().unwrap()[0].persistent_volume_claim.as_ref().unwrap();
        assert_eq!(claim.claim_name, "data-web-2");
        let mut view = PodView::default();
        assert!(!storage_matches(&set, 2, &view));
        view.spec.volumes.push(VolumeView { name: "data".to_owned(), ..VolumeView::default() });
        assert!(!storage_matches(&set, 2, &view));
        let source = ClaimSourceView { claim_name: "data-web-2".to_owned() };
        view.spec.volumes[0].persistent_volume_claim = Some(source);
        assert!(storage_matches(&set, 2, &view) && !storage_matches(&set, 1, &view));
        assert!(may_be_claim(&set, "data-web-7") && !may_be_claim(&set, "data-webs-7"));
        let claim = claims(&set, 2).next().unwrap();
        assert_eq!(claim.metadata.labels.unwrap()["app"], "web");
    }
}
