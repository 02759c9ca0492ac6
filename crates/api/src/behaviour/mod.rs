//! What a resource does beyond being stored: defaults, validation, and what create, update and a status
//! write may change. One small file per kind that has any; the rest are [`plain`].
//!
//! Everything here is pure: what needs the store or another object (addresses of services, admission) is
//! the API server's.

pub mod check;
pub mod diff;
pub mod fill;
pub mod internal;
pub mod meta;
pub mod names;
pub mod pod_spec;
pub mod resources;
pub mod selector;
pub mod workload;

mod address;
mod address_warnings;
mod certificate_signing_request;
mod conditions;
mod config_map;
mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod flow_control;
mod go_json;
mod horizontal_pod_autoscaler;
mod ingress;
mod ingress_class;
mod job;
mod lease;
mod limit_range;
pub mod namespace;
mod network_policy;
mod node;
mod pem;
mod persistent_volume;
mod persistent_volume_claim;
pub mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod runtime_class;
mod secret;
pub mod service;
mod service_account;
mod stateful_set;
mod storage;

use crate::field::Errors;
use crate::object::{Kind, Object};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// The strategy of one resource. The object's kind is that of the row; implementations get there by
/// [`Typed`] and never see another.
pub trait Behaviour: Send + Sync {
    /// Fills in what the version's defaulting fills in. Idempotent. Runs on every decoded body and again
    /// after mutating admission.
    fn default(&self, object: &mut dyn Object);

    /// Before a create: drop what a user may not set (status), set generation 1 where the kind has one.
    fn prepare_create(&self, object: &mut dyn Object);

    /// Before an update of the main resource: keep the old status, raise the generation when the spec
    /// changed.
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object);

    /// Before an update of `subresource` (`status`, and for pods `resize`, `ephemeralcontainers`): keep
    /// everything that it may not change.
    fn prepare_subresource(&self, subresource: &str, new: &mut dyn Object, old: &dyn Object);

    /// The faults of a new object, other than those of its metadata.
    fn validate(&self, object: &dyn Object) -> Errors;

    /// The faults of a change, other than those of its metadata. `subresource` is empty for the main one.
    fn validate_update(&self, subresource: &str, new: &dyn Object, old: &dyn Object) -> Errors;

    /// Warnings for the client (`Warning:` headers), such as of deprecated fields.
    fn warnings(&self, object: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;

    /// Values of the selectable fields besides `metadata.name` and `metadata.namespace`.
    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)>;

    /// Whether the name of a new object is valid: the faults of `metadata.name`, as messages.
    fn check_name(&self, name: &str, prefix: bool) -> Vec<String>;
}

/// A [`Behaviour`] made of functions over the typed kind. Fields left at their default do nothing.
pub struct Typed<K: Kind> {
    pub default: fn(&mut K),
    pub prepare_create: fn(&mut K),
    pub prepare_update: fn(&mut K, &K),
    pub prepare_subresource: fn(&str, &mut K, &K),
    pub validate: fn(&K) -> Errors,
    pub validate_update: fn(&str, &K, &K) -> Errors,
    pub warnings: fn(&K, Option<&K>) -> Vec<String>,
    pub fields: fn(&K) -> Vec<(&'static str, String)>,
    pub check_name: fn(&str, bool) -> Vec<String>,
    pub kind: PhantomData<K>,
}

impl<K: Kind> Default for Typed<K> {
    fn default() -> Self {
        Self {
            default: |_| {},
            prepare_create: |_| {},
            prepare_update: |_, _| {},
            prepare_subresource: |_, _, _| {},
            validate: |_| vec![],
            validate_update: |_, _, _| vec![],
            warnings: |_, _| vec![],
            fields: |_| vec![],
            check_name: |_, _| vec![],
            kind: PhantomData,
        }
    }
}

fn typed<K: Kind>(object: &dyn Object) -> &K {
    (object.as_any() as &dyn Any).downcast_ref().expect("the catalogue pairs a behaviour with its own kind")
}

fn typed_mut<K: Kind>(object: &mut dyn Object) -> &mut K {
    object.as_any_mut().downcast_mut().expect("the catalogue pairs a behaviour with its own kind")
}

impl<K: Kind> Behaviour for Typed<K> {
    fn default(&self, object: &mut dyn Object) {
        (self.default)(typed_mut(object));
    }
    fn prepare_create(&self, object: &mut dyn Object) {
        (self.prepare_create)(typed_mut(object));
    }
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object) {
        (self.prepare_update)(typed_mut(new), typed(old));
    }
    fn prepare_subresource(&self, subresource: &str, new: &mut dyn Object, old: &dyn Object) {
        (self.prepare_subresource)(subresource, typed_mut(new), typed(old));
    }
    fn validate(&self, object: &dyn Object) -> Errors {
        let mut errors = meta::standard_finalizers(object.meta());
        errors.extend((self.validate)(typed(object)));
        errors
    }
    fn validate_update(&self, subresource: &str, new: &dyn Object, old: &dyn Object) -> Errors {
        let mut errors = meta::standard_finalizers(new.meta());
        errors.extend((self.validate_update)(subresource, typed(new), typed(old)));
        errors
    }
    fn warnings(&self, object: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        (self.warnings)(typed(object), old.map(|o| typed(o)))
    }
    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        (self.fields)(typed(object))
    }
    fn check_name(&self, name: &str, prefix: bool) -> Vec<String> {
        (self.check_name)(name, prefix)
    }
}

/// A behaviour that only stores.
struct Plain;

impl Behaviour for Plain {
    fn default(&self, _: &mut dyn Object) {}
    fn prepare_create(&self, _: &mut dyn Object) {}
    fn prepare_update(&self, _: &mut dyn Object, _: &dyn Object) {}
    fn prepare_subresource(&self, _: &str, _: &mut dyn Object, _: &dyn Object) {}
    fn validate(&self, _: &dyn Object) -> Errors {
        vec![]
    }
    fn validate_update(&self, _: &str, _: &dyn Object, _: &dyn Object) -> Errors {
        vec![]
    }
    fn warnings(&self, _: &dyn Object, _: Option<&dyn Object>) -> Vec<String> {
        vec![]
    }
    fn fields(&self, _: &dyn Object) -> Vec<(&'static str, String)> {
        vec![]
    }
    fn check_name(&self, _: &str, _: bool) -> Vec<String> {
        vec![]
    }
}

/// The behaviour of kinds that have none.
#[must_use]
pub fn plain() -> Arc<dyn Behaviour> {
    Arc::new(Plain)
}

/// The behaviour of `autoscaling/v1`, whose plural is that of the newer version.
#[must_use]
pub fn old_autoscaler() -> Arc<dyn Behaviour> {
    horizontal_pod_autoscaler::old_behaviour()
}

/// The behaviour of a built-in resource, as the catalogue's rows ask for it.
#[must_use]
pub fn of(group: &str, plural: &str) -> Arc<dyn Behaviour> {
    match (group, plural) {
        ("", "configmaps") => config_map::behaviour(),
        ("", "endpoints") => endpoints::behaviour(),
        ("", "events") => event::behaviour(),
        ("", "limitranges") => limit_range::behaviour(),
        ("", "namespaces") => namespace::behaviour(),
        ("", "nodes") => node::behaviour(),
        ("", "persistentvolumes") => persistent_volume::behaviour(),
        ("", "persistentvolumeclaims") => persistent_volume_claim::behaviour(),
        ("", "pods") => pod::behaviour(),
        ("", "podtemplates") => pod_template::behaviour(),
        ("", "replicationcontrollers") => replication_controller::behaviour(),
        ("", "resourcequotas") => resource_quota::behaviour(),
        ("", "secrets") => secret::behaviour(),
        ("", "services") => service::behaviour(),
        ("", "serviceaccounts") => service_account::behaviour(),
        ("apps", "controllerrevisions") => controller_revision::behaviour(),
        ("apps", "daemonsets") => daemon_set::behaviour(),
        ("apps", "deployments") => deployment::behaviour(),
        ("apps", "replicasets") => replica_set::behaviour(),
        ("apps", "statefulsets") => stateful_set::behaviour(),
        ("autoscaling", "horizontalpodautoscalers") => horizontal_pod_autoscaler::behaviour(),
        ("batch", "cronjobs") => cron_job::behaviour(),
        ("batch", "jobs") => job::behaviour(),
        ("certificates.k8s.io", "certificatesigningrequests") => certificate_signing_request::behaviour(),
        ("coordination.k8s.io", "leases") => lease::behaviour(),
        ("discovery.k8s.io", "endpointslices") => endpoint_slice::behaviour(),
        ("events.k8s.io", "events") => event::new_behaviour(),
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => flow_control::flow_schema(),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => flow_control::priority_level(),
        ("networking.k8s.io", "ingressclasses") => ingress_class::behaviour(),
        ("networking.k8s.io", "ingresses") => ingress::behaviour(),
        ("networking.k8s.io", "ipaddresses") => address::ip_address(),
        ("networking.k8s.io", "networkpolicies") => network_policy::behaviour(),
        ("networking.k8s.io", "servicecidrs") => address::service_cidr(),
        ("node.k8s.io", "runtimeclasses") => runtime_class::behaviour(),
        ("policy", "poddisruptionbudgets") => pod_disruption_budget::behaviour(),
        ("rbac.authorization.k8s.io", "clusterrolebindings") => rbac::cluster_role_binding(),
        ("rbac.authorization.k8s.io", "clusterroles") => rbac::cluster_role(),
        ("rbac.authorization.k8s.io", "rolebindings") => rbac::role_binding(),
        ("rbac.authorization.k8s.io", "roles") => rbac::role(),
        ("scheduling.k8s.io", "priorityclasses") => priority_class::behaviour(),
        ("storage.k8s.io", "csidrivers") => storage::csi_driver(),
        ("storage.k8s.io", "csinodes") => storage::csi_node(),
        ("storage.k8s.io", "csistoragecapacities") => storage::csi_storage_capacity(),
        ("storage.k8s.io", "storageclasses") => storage::storage_class(),
        ("storage.k8s.io", "volumeattachments") => storage::volume_attachment(),
        ("storage.k8s.io", "volumeattributesclasses") => storage::volume_attributes_class(),
        _ => plain(),
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
