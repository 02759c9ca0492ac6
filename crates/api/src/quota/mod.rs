//! What objects use of a namespace's quota: which names of a quota concern a resource, how much of each an
//! object uses, and whether a quota's scopes hold it. Admission charges by it and the controller counts.

mod pod;
mod scope;
#[cfg(test)]
mod tests;

pub use scope::holds;

use crate::object::Object;
use crate::quantity::{Format, Quantity};
use crate::types::core::v1::{PersistentVolumeClaim, Pod, Service};
use jiff::Timestamp;
use std::any::Any;
use std::collections::BTreeMap;

/// Amounts by the names that quotas have for them.
pub type Usage = BTreeMap<String, Quantity>;

const CLASS: &str = ".storageclass.storage.k8s.io/";
/// Resources that are also counted by their bare names.
const BARE: [&str; 5] =
    ["configmaps", "replicationcontrollers", "resourcequotas", "secrets", "persistentvolumeclaims"];

/// How the objects of one resource are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluator {
    kind: Kind,
    plural: String,
    /// `count/pods`, `count/deployments.apps`.
    count: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pods,
    Services,
    Claims,
    Other,
}

/// An amount of whole things.
fn things(number: usize) -> Quantity {
    Quantity::new(i64::try_from(number).unwrap_or(i64::MAX), Format::DecimalSI)
}

fn cast<K: 'static>(object: &dyn Object) -> Option<&K> {
    (object.as_any() as &dyn Any).downcast_ref()
}

impl Evaluator {
    /// The evaluator of a namespaced resource.
    #[must_use]
    pub fn of(group: &str, plural: &str) -> Self {
        let kind = match (group, plural) {
            ("", "pods") => Kind::Pods,
            ("", "services") => Kind::Services,
            ("", "persistentvolumeclaims") => Kind::Claims,
            _ => Kind::Other,
        };
        let bare = if group.is_empty() { plural } else { "" };
        let count = format!("count/{}", crate::status::qualified(group, plural));
        Self { kind, plural: bare.to_owned(), count }
    }

    /// Whether a change of an object is charged (its creation always is).
    #[must_use]
    pub fn charges_updates(&self, subresource: &str) -> bool {
        match self.kind {
            Kind::Pods => subresource == "resize",
            Kind::Services | Kind::Claims => subresource.is_empty(),
            Kind::Other => false,
        }
    }

    /// Whether a name of a quota is about this resource.
    #[must_use]
    pub fn concerns(&self, name: &str) -> bool {
        name == self.count
            || match self.kind {
                Kind::Pods => pod::concerns(name),
                Kind::Services => {
                    matches!(name, "services" | "services.nodeports" | "services.loadbalancers")
                }
                Kind::Claims => {
                    matches!(name, "persistentvolumeclaims" | "requests.storage")
                        || name.split_once(CLASS).is_some_and(|(_, what)| {
                            matches!(what, "requests.storage" | "persistentvolumeclaims")
                        })
                }
                Kind::Other => BARE.contains(&name) && name == self.plural,
            }
    }

    /// What an object uses now.
    #[must_use]
    pub fn usage(&self, object: &dyn Object, now: Timestamp) -> Usage {
        let mut usage = Usage::from([(self.count.clone(), things(1))]);
        if let Some(pod) = cast::<Pod>(object) {
            pod::usage(pod, now, &mut usage);
        } else if let Some(service) = cast::<Service>(object) {
            of_service(service, &mut usage);
        } else if let Some(claim) = cast::<PersistentVolumeClaim>(object) {
            of_claim(claim, &mut usage);
        } else if BARE.contains(&self.plural.as_str()) {
            usage.insert(self.plural.clone(), things(1));
        }
        usage
    }

    /// Which of the limited names an object must say something about and does not, as the original tells it.
    #[must_use]
    pub fn missing(&self, limited: &[String], object: &dyn Object) -> Option<String> {
        cast::<Pod>(object).and_then(|pod| pod::missing(limited, pod))
    }
}

fn of_service(service: &Service, usage: &mut Usage) {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let kind = spec.and_then(|s| s.type_.as_deref()).unwrap_or_default();
    let (mut node_ports, mut balancers) = (0, 0);
    match kind {
        "NodePort" => node_ports = ports.len(),
        "LoadBalancer" => {
            balancers = 1;
            let all = spec.and_then(|s| s.allocate_load_balancer_node_ports) != Some(false);
            let given = |p: &&crate::types::core::v1::ServicePort| all || p.node_port.unwrap_or(0) != 0;
            node_ports = ports.iter().filter(given).count();
        }
        _ => {}
    }
    usage.insert("services".to_owned(), things(1));
    usage.insert("services.nodeports".to_owned(), things(node_ports));
    usage.insert("services.loadbalancers".to_owned(), things(balancers));
}

fn of_claim(claim: &PersistentVolumeClaim, usage: &mut Usage) {
    const BETA: &str = "volume.beta.kubernetes.io/storage-class";
    let annotated = claim.metadata.annotations.as_ref().and_then(|a| a.get(BETA));
    let spec = claim.spec.as_ref();
    let class = annotated.or(spec.and_then(|s| s.storage_class_name.as_ref())).filter(|c| !c.is_empty());
    let mut add = |what: &str, amount: Quantity| {
        usage.insert(what.to_owned(), amount);
        if let Some(class) = class {
            usage.insert(format!("{class}{CLASS}{what}"), amount);
        }
    };
    add("persistentvolumeclaims", things(1));
    let requests = spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let allocated = claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref());
    let amount = |list: Option<&BTreeMap<String, _>>| list?.get("storage").and_then(|t| Quantity::of(t).ok());
    if let Some(asked) = amount(requests) {
        add("requests.storage", asked.max(amount(allocated).unwrap_or_default()));
    }
}
