//! The rows of the built-in resources: facts only, one expression per resource.

use super::{Codec, Conversion, Resource, Subresource, Verb, autoscaling, events};
use crate::behaviour;
use crate::object::Kind;
use crate::types;
use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

const ALL: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];
/// What a subresource that shows a part of the object allows.
const PART: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
/// Streams: `get` for WebSocket, `create` for SPDY.
const STREAM: &[Verb] = &[Verb::Create, Verb::Get];
const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];

/// Discovery's `storageVersionHash` of a stored kind.
fn storage_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

/// A row of kind `K` with every verb, no subresource, and the behaviour of its group and plural.
fn row<K: Kind>(singular: &str) -> Resource {
    Resource {
        group: K::GROUP.to_owned(),
        version: K::VERSION.to_owned(),
        plural: K::PLURAL.to_owned(),
        singular: singular.to_owned(),
        kind: K::KIND.to_owned(),
        short_names: vec![],
        categories: vec![],
        namespaced: K::NAMESPACED,
        verbs: ALL.to_vec(),
        subresources: vec![],
        storage_hash: storage_hash(K::GROUP, K::VERSION, K::KIND),
        space: crate::status::qualified(K::GROUP, K::PLURAL),
        codec: Codec {
            decode: Arc::new(|bytes| Ok(Box::new(K::decode(bytes)?))),
            empty: Arc::new(|| Box::new(K::default())),
            held: Arc::new(|shared| Ok(shared.typed::<K>()?)),
        },
        conversion: None,
        selectable: vec![],
        behaviour: behaviour::of(K::GROUP, K::PLURAL),
    }
}

/// A row of a kind that is answered and never stored.
fn review<K: Kind>(singular: &str) -> Resource {
    let mut row = row::<K>(singular).only(&[Verb::Create]);
    row.storage_hash = String::new();
    row
}

impl Resource {
    fn short(mut self, names: &[&str]) -> Self {
        self.short_names = names.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    /// Part of `kubectl get all`.
    fn in_all(mut self) -> Self {
        self.categories.push("all".to_owned());
        self
    }

    fn only(mut self, verbs: &[Verb]) -> Self {
        self.verbs = verbs.to_vec();
        self
    }

    /// A subresource whose kind is of another group and version.
    fn foreign(mut self, name: &str, group: &str, version: &str, kind: &str, verbs: &[Verb]) -> Self {
        self.subresources.push(Subresource {
            name: name.to_owned(),
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            verbs: verbs.to_vec(),
        });
        self
    }

    /// A subresource of a kind of the resource's own group and version.
    fn sub(self, name: &str, kind: &str, verbs: &[Verb]) -> Self {
        let (group, version) = (self.group.clone(), self.version.clone());
        self.foreign(name, &group, &version, kind, verbs)
    }

    /// A subresource of the resource's own kind.
    fn part(self, name: &str, verbs: &[Verb]) -> Self {
        let kind = self.kind.clone();
        self.sub(name, &kind, verbs)
    }

    fn status(self) -> Self {
        self.part("status", PART)
    }

    fn scale(self) -> Self {
        self.foreign("scale", "autoscaling", "v1", "Scale", PART)
    }

    /// Field labels that select, each under its own name in the view.
    fn selects(self, labels: &[&str]) -> Self {
        let pairs: Vec<(&str, &str)> = labels.iter().map(|l| (*l, *l)).collect();
        self.selects_as(&pairs)
    }

    /// Field labels that select, each with its name in the view.
    fn selects_as(mut self, pairs: &[(&str, &str)]) -> Self {
        self.selectable.extend(pairs.iter().map(|(l, n)| ((*l).to_owned(), (*n).to_owned())));
        self
    }
}

pub(super) fn builtin() -> Vec<Resource> {
    let mut rows = core();
    rows.extend(workloads());
    rows.extend(access());
    rows.extend(network());
    rows.extend(storage());
    rows
}

fn core() -> Vec<Resource> {
    use types::core::v1 as core;
    vec![
        review::<core::Binding>("binding"),
        review::<core::ComponentStatus>("componentstatus").only(&[Verb::Get, Verb::List]).short(&["cs"]),
        row::<core::ConfigMap>("configmap").short(&["cm"]),
        row::<core::Endpoints>("endpoints").short(&["ep"]),
        row::<core::Event>("event").short(&["ev"]).selects(&[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]),
        row::<core::LimitRange>("limitrange").short(&["limits"]),
        row::<core::Namespace>("namespace")
            .short(&["ns"])
            .only(&[
                Verb::Create,
                Verb::Delete,
                Verb::Get,
                Verb::List,
                Verb::Patch,
                Verb::Update,
                Verb::Watch,
            ])
            .part("finalize", &[Verb::Update])
            .status()
            .selects(&["status.phase"]),
        row::<core::Node>("node")
            .short(&["no"])
            .sub("proxy", "NodeProxyOptions", PROXY)
            .status()
            .selects(&["spec.unschedulable"]),
        row::<core::PersistentVolume>("persistentvolume").short(&["pv"]).status(),
        row::<core::PersistentVolumeClaim>("persistentvolumeclaim").short(&["pvc"]).status(),
        pod(),
        row::<core::PodTemplate>("podtemplate"),
        row::<core::ReplicationController>("replicationcontroller")
            .short(&["rc"])
            .in_all()
            .scale()
            .status()
            .selects(&["status.replicas"]),
        row::<core::ResourceQuota>("resourcequota").short(&["quota"]).status(),
        row::<core::Secret>("secret").selects(&["type"]),
        row::<core::Service>("service")
            .short(&["svc"])
            .in_all()
            .sub("proxy", "ServiceProxyOptions", PROXY)
            .status()
            .selects(&["spec.clusterIP", "spec.type"]),
        row::<core::ServiceAccount>("serviceaccount").short(&["sa"]).foreign(
            "token",
            "authentication.k8s.io",
            "v1",
            "TokenRequest",
            &[Verb::Create],
        ),
    ]
}

fn pod() -> Resource {
    row::<types::core::v1::Pod>("pod")
        .short(&["po"])
        .in_all()
        .sub("attach", "PodAttachOptions", STREAM)
        .sub("binding", "Binding", &[Verb::Create])
        .part("ephemeralcontainers", PART)
        .foreign("eviction", "policy", "v1", "Eviction", &[Verb::Create])
        .sub("exec", "PodExecOptions", STREAM)
        .part("log", &[Verb::Get])
        .sub("portforward", "PodPortForwardOptions", STREAM)
        .sub("proxy", "PodProxyOptions", PROXY)
        .part("resize", PART)
        .status()
        .selects(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ])
        .selects_as(&[("spec.host", "spec.nodeName")])
}

fn workloads() -> Vec<Resource> {
    use types::{apps::v1 as apps, batch::v1 as batch};
    vec![
        row::<apps::ControllerRevision>("controllerrevision"),
        row::<apps::DaemonSet>("daemonset").short(&["ds"]).in_all().status(),
        row::<apps::Deployment>("deployment").short(&["deploy"]).in_all().scale().status(),
        row::<apps::ReplicaSet>("replicaset").short(&["rs"]).in_all().scale().status(),
        row::<apps::StatefulSet>("statefulset").short(&["sts"]).in_all().scale().status(),
        old_autoscaler(),
        row::<types::autoscaling::v2::HorizontalPodAutoscaler>("horizontalpodautoscaler")
            .short(&["hpa"])
            .in_all()
            .status(),
        row::<batch::CronJob>("cronjob").short(&["cj"]).in_all().status(),
        row::<batch::Job>("job").in_all().status().selects(&["status.successful"]),
        row::<types::coordination::v1::Lease>("lease"),
        row::<types::node::v1::RuntimeClass>("runtimeclass"),
        row::<types::policy::v1::PodDisruptionBudget>("poddisruptionbudget").short(&["pdb"]).status(),
        row::<types::scheduling::v1::PriorityClass>("priorityclass").short(&["pc"]),
        events(),
    ]
}

/// The same autoscalers as `autoscaling/v2` has, in the older shape.
fn old_autoscaler() -> Resource {
    let stored = row::<types::autoscaling::v2::HorizontalPodAutoscaler>("horizontalpodautoscaler");
    let mut row = row::<types::autoscaling::v1::HorizontalPodAutoscaler>("horizontalpodautoscaler")
        .short(&["hpa"])
        .in_all()
        .status();
    row.storage_hash = stored.storage_hash;
    row.behaviour = behaviour::old_autoscaler();
    row.conversion =
        Some(Conversion { to_stored: autoscaling::to_stored, from_stored: autoscaling::from_stored });
    row
}

/// The same events as the core group's, in the newer shape.
fn events() -> Resource {
    let stored = row::<types::core::v1::Event>("event");
    let mut row = row::<types::events::v1::Event>("event").short(&["ev"]).selects_as(&[
        ("reason", "reason"),
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
        ("type", "type"),
    ]);
    row.storage_hash = stored.storage_hash;
    row.space = stored.space;
    row.conversion = Some(Conversion { to_stored: events::to_stored, from_stored: events::from_stored });
    row
}

fn access() -> Vec<Resource> {
    use types::{authentication::v1 as authentication, authorization::v1 as authorization};
    use types::{flowcontrol::v1 as flowcontrol, rbac::v1 as rbac};
    vec![
        review::<authentication::SelfSubjectReview>("selfsubjectreview"),
        review::<authentication::TokenReview>("tokenreview"),
        review::<authorization::LocalSubjectAccessReview>("localsubjectaccessreview"),
        review::<authorization::SelfSubjectAccessReview>("selfsubjectaccessreview"),
        review::<authorization::SelfSubjectRulesReview>("selfsubjectrulesreview"),
        review::<authorization::SubjectAccessReview>("subjectaccessreview"),
        row::<types::certificates::v1::CertificateSigningRequest>("certificatesigningrequest")
            .short(&["csr"])
            .part("approval", PART)
            .status()
            .selects(&["spec.signerName"]),
        row::<flowcontrol::FlowSchema>("flowschema").status(),
        row::<flowcontrol::PriorityLevelConfiguration>("prioritylevelconfiguration").status(),
        row::<rbac::ClusterRole>("clusterrole"),
        row::<rbac::ClusterRoleBinding>("clusterrolebinding"),
        row::<rbac::Role>("role"),
        row::<rbac::RoleBinding>("rolebinding"),
    ]
}

fn network() -> Vec<Resource> {
    use types::networking::v1 as networking;
    vec![
        row::<types::discovery::v1::EndpointSlice>("endpointslice"),
        row::<networking::Ingress>("ingress").short(&["ing"]).status(),
        row::<networking::IngressClass>("ingressclass"),
        row::<networking::IPAddress>("ipaddress").short(&["ip"]),
        row::<networking::NetworkPolicy>("networkpolicy").short(&["netpol"]),
        row::<networking::ServiceCIDR>("servicecidr").status(),
    ]
}

fn storage() -> Vec<Resource> {
    use types::storage::v1 as storage;
    vec![
        row::<storage::CSIDriver>("csidriver"),
        row::<storage::CSINode>("csinode"),
        row::<storage::CSIStorageCapacity>("csistoragecapacity"),
        row::<storage::StorageClass>("storageclass").short(&["sc"]),
        row::<storage::VolumeAttachment>("volumeattachment").status(),
        row::<storage::VolumeAttributesClass>("volumeattributesclass").short(&["vac"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;

    #[test]
    fn storage_hashes_are_those_of_the_original() {
        assert_eq!(storage_hash("", "v1", "Pod"), "xPOwRZ+Yhw8=");
        assert_eq!(storage_hash("apps", "v1", "Deployment"), "8aSe+NMegvE=");
        let catalogue = Catalogue::builtin();
        let hash = |g: &str, v: &str, p: &str| catalogue.get(g, v, p).unwrap().storage_hash.clone();
        assert_eq!(hash("events.k8s.io", "v1", "events"), "r2yiGXH7wu8=");
        assert_eq!(hash("autoscaling", "v2", "horizontalpodautoscalers"), "qwQve8ut294=");
        assert_eq!(hash("authorization.k8s.io", "v1", "subjectaccessreviews"), "");
    }

    #[test]
    fn every_row_is_found_by_its_kind_and_named_once() {
        let catalogue = Catalogue::builtin();
        for row in catalogue.iter() {
            assert_eq!(
                catalogue.by_kind(&row.api_version(), &row.kind).map(|r| r.plural.as_str()),
                Some(row.plural.as_str())
            );
            assert_eq!((row.codec.empty)().kind(), row.kind);
        }
        assert_eq!(catalogue.iter().count(), builtin().len());
    }

    #[test]
    fn subresources_name_their_kinds() {
        let catalogue = Catalogue::builtin();
        let pods = catalogue.get("", "v1", "pods").unwrap();
        let eviction = pods.subresource("eviction").unwrap();
        assert_eq!(
            (eviction.group.as_str(), eviction.version.as_str(), eviction.kind.as_str()),
            ("policy", "v1", "Eviction")
        );
        assert_eq!(pods.subresource("exec").unwrap().verbs, [Verb::Create, Verb::Get]);
        assert!(!catalogue.get("", "v1", "namespaces").unwrap().allows(Verb::DeleteCollection));
    }
}
