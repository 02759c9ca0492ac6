//! The node authorizer: a kubelet may read what the pods bound to its node refer to, and write about its
//! own node.
//!
//! Pure: an index of references, told of pods as they are bound and removed.

use super::{Attributes, Decision};
use krate_api::types::core::v1::{PersistentVolumeClaim, Pod, PodSpec, Volume};
use krate_api::volumes::{FOLDER_NODE, node_label};
use std::collections::{HashMap, HashSet};

/// Something in a namespace that a pod refers to: `secrets`, `configmaps`, `persistentvolumeclaims`,
/// `serviceaccounts`, and its name.
type Reference = (&'static str, String);

struct Bound {
    node: String,
    namespace: String,
    references: Vec<Reference>,
}

/// Which node's pods refer to what.
#[derive(Default)]
pub(crate) struct Graph {
    pods: HashMap<String, Bound>,
    /// node, namespace, resource, name → how many pods.
    counts: HashMap<(String, String, &'static str, String), usize>,
    /// volume name → claims (namespace, name) bound to it.
    claims: HashMap<String, (String, String)>,
}

impl Graph {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the pod is known on this node, so that its references need not be read again.
    pub fn knows(&self, key: &str, node: &str) -> bool {
        self.pods.get(key).is_some_and(|b| b.node == node)
    }

    pub fn put_pod(&mut self, key: &str, pod: &Pod) {
        self.remove_pod(key);
        let Some(spec) = &pod.spec else { return };
        let Some(node) = spec.node_name.clone().filter(|n| !n.is_empty()) else { return };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let bound = Bound { references: references(spec, pod), node, namespace };
        for (resource, name) in &bound.references {
            let key = (bound.node.clone(), bound.namespace.clone(), *resource, name.clone());
            *self.counts.entry(key).or_default() += 1;
        }
        self.pods.insert(key.to_owned(), bound);
    }

    pub fn remove_pod(&mut self, key: &str) {
        let Some(bound) = self.pods.remove(key) else { return };
        for (resource, name) in bound.references {
            let key = (bound.node.clone(), bound.namespace.clone(), resource, name);
            if let Some(count) = self.counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&key);
                }
            }
        }
    }

    pub fn put_claim(&mut self, claim: &PersistentVolumeClaim) {
        let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
        if !volume.is_empty() {
            let meta = &claim.metadata;
            let id = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
            self.claims.insert(volume, id);
        }
    }

    fn refers(&self, node: &str, namespace: &str, resource: &str, name: &str) -> bool {
        let kind = KINDS.iter().find(|k| **k == resource);
        kind.is_some_and(|kind| {
            self.counts.contains_key(&(node.to_owned(), namespace.to_owned(), *kind, name.to_owned()))
        })
    }

    fn has_volume(&self, node: &str, volume: &str) -> bool {
        self.claims
            .get(volume)
            .is_some_and(|(namespace, claim)| self.refers(node, namespace, "persistentvolumeclaims", claim))
    }

    /// What a kubelet may do beyond (and, for what is listed here, instead of) what RBAC gives.
    pub fn decide(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.path.is_some() {
            return Decision::NoOpinion(String::new());
        }
        let allow = || Decision::Allow(String::new());
        let no = |why: String| Decision::NoOpinion(why);
        let unrelated = || no(format!("no relationship found between node '{node}' and this object"));
        match (a.group, a.resource) {
            ("", "secrets" | "configmaps") => {
                if !matches!(a.verb, "get" | "list" | "watch") || !a.subresource.is_empty() {
                    return no(format!(
                        "can only read resources of this type, verb {} is not allowed",
                        a.verb
                    ));
                }
                if a.name.is_empty() {
                    return no("can only read individual resources of this type".to_owned());
                }
                if self.refers(node, a.namespace, a.resource, a.name) { allow() } else { unrelated() }
            }
            ("", "persistentvolumeclaims") => match (a.verb, a.subresource) {
                ("get", "") | ("update" | "patch", "status")
                    if self.refers(node, a.namespace, a.resource, a.name) =>
                {
                    allow()
                }
                _ => unrelated(),
            },
            ("", "persistentvolumes") if a.verb == "get" => {
                if self.has_volume(node, a.name) {
                    allow()
                } else {
                    unrelated()
                }
            }
            // Beyond the original: a node follows the volumes that are folders of its own, and removes these.
            ("", "persistentvolumes") if is_of_folders(node, a) => allow(),
            ("", "serviceaccounts") => {
                match (a.verb, a.subresource) {
                    ("create", "token") | ("get", "") => {
                        if self.refers(node, a.namespace, a.resource, a.name) { allow() } else { unrelated() }
                    }
                    _ => no("can only get service accounts and create their tokens".to_owned()),
                }
            }
            ("", "pods") => self.decide_pod(node, a),
            ("", "nodes") if matches!(a.verb, "get" | "list" | "watch") => {
                let own = a.name == node;
                if own {
                    allow()
                } else {
                    no(format!("node '{node}' cannot read '{}', only its own Node object", a.name))
                }
            }
            ("coordination.k8s.io", "leases") => {
                if a.namespace != "kube-node-lease" {
                    no("can only access leases in the \"kube-node-lease\" system namespace".to_owned())
                } else if a.verb == "create" || a.name == node {
                    if matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
                        allow()
                    } else {
                        no(String::new())
                    }
                } else {
                    no("can only access node lease with the same name as the requesting node".to_owned())
                }
            }
            ("storage.k8s.io", "csinodes") => {
                let verb = matches!(a.verb, "get" | "create" | "update" | "patch" | "delete");
                let own = a.verb == "create" || a.name == node;
                if verb && own {
                    allow()
                } else {
                    no("can only access CSINode with the same name as the requesting node".to_owned())
                }
            }
            _ => own_rules(a),
        }
    }

    fn decide_pod(&self, node: &str, a: &Attributes<'_>) -> Decision {
        let no = |why: String| Decision::NoOpinion(why);
        let of_node = |key: &str| self.pods.get(key).is_some_and(|b| b.node == node);
        let key = krate_api::object::key(a.namespace, a.name);
        match (a.verb, a.subresource) {
            ("get", "") if of_node(&key) => Decision::Allow(String::new()),
            ("list" | "watch", "") => {
                let wanted = format!("spec.nodeName={node}");
                let mine = a.field_selector.split(',').any(|term| term.replace("==", "=") == wanted);
                if mine || (!a.name.is_empty() && of_node(&key)) {
                    Decision::Allow(String::new())
                } else {
                    no(format!("can only list/watch pods with spec.nodeName field selector '{node}'"))
                }
            }
            ("get", "") => no(format!("no relationship found between node '{node}' and this object")),
            _ => own_rules(a),
        }
    }
}

/// Whether a request is about the volumes that are folders of the node. What it may change of them, admission
/// decides.
fn is_of_folders(node: &str, a: &Attributes<'_>) -> bool {
    match (a.verb, a.subresource) {
        ("list" | "watch", "") => {
            let wanted = format!("{FOLDER_NODE}={}", node_label(node));
            a.label_selector.split(',').any(|term| term == wanted)
        }
        ("update", "") => true,
        _ => false,
    }
}

const KINDS: [&str; 4] = ["secrets", "configmaps", "persistentvolumeclaims", "serviceaccounts"];

/// Whether a request of a kubelet is decided by what its pods refer to.
pub(super) fn hangs_on_pods(a: &Attributes<'_>) -> bool {
    a.group.is_empty() && (KINDS.contains(&a.resource) || a.resource == "persistentvolumes")
}

/// What every kubelet may do, whatever its pods are: the role `system:node`.
fn own_rules(a: &Attributes<'_>) -> Decision {
    let rules = crate::bootstrap::rbac::node_rules();
    if rules.iter().any(|rule| super::rbac::allows(rule, a)) {
        Decision::Allow(String::new())
    } else {
        Decision::NoOpinion(String::new())
    }
}

/// Everything in its namespace that a pod refers to.
fn references(spec: &PodSpec, pod: &Pod) -> Vec<Reference> {
    let mut found: HashSet<Reference> = HashSet::new();
    let mut add = |resource: &'static str, name: &str| {
        if !name.is_empty() {
            found.insert((resource, name.to_owned()));
        }
    };
    add("serviceaccounts", spec.service_account_name.as_deref().unwrap_or(""));
    for secret in spec.image_pull_secrets.iter().flatten() {
        add("secrets", &secret.name);
    }
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    for (env_from, env) in containers
        .map(|c| (&c.env_from, &c.env))
        .chain(spec.ephemeral_containers.iter().flatten().map(|c| (&c.env_from, &c.env)))
    {
        for source in env_from.iter().flatten() {
            add("configmaps", source.config_map_ref.as_ref().map_or("", |r| &r.name));
            add("secrets", source.secret_ref.as_ref().map_or("", |r| &r.name));
        }
        for source in env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            add("configmaps", source.config_map_key_ref.as_ref().map_or("", |r| &r.name));
            add("secrets", source.secret_key_ref.as_ref().map_or("", |r| &r.name));
        }
    }
    let pod_name = pod.metadata.name.as_deref().unwrap_or("");
    for volume in spec.volumes.iter().flatten() {
        volume_references(volume, pod_name, &mut add);
    }
    found.into_iter().collect()
}

fn volume_references(volume: &Volume, pod: &str, add: &mut dyn FnMut(&'static str, &str)) {
    add("configmaps", volume.config_map.as_ref().map_or("", |v| &v.name));
    add("secrets", volume.secret.as_ref().and_then(|v| v.secret_name.as_deref()).unwrap_or(""));
    add("persistentvolumeclaims", volume.persistent_volume_claim.as_ref().map_or("", |v| &v.claim_name));
    if volume.ephemeral.is_some() {
        add("persistentvolumeclaims", &format!("{pod}-{}", volume.name));
    }
    let csi = volume.csi.as_ref().and_then(|v| v.node_publish_secret_ref.as_ref());
    add("secrets", csi.map_or("", |r| &r.name));
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        add("configmaps", source.config_map.as_ref().map_or("", |v| &v.name));
        add("secrets", source.secret.as_ref().map_or("", |v| &v.name));
    }
}
