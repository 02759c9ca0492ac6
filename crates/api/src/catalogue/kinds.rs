//! The Rust types that are kinds, each with its serde code instantiated here and nowhere else.

use crate::absent;
use crate::encode::{self, Encoded};
use crate::meta::ObjectMeta;
use crate::object::{DecodeError, Kind, Object};
use crate::schema::{self, Type};
use crate::types;
use std::any::Any;
use std::sync::LazyLock;

/// The place of a kind in the schema table.
fn table_type<K: Kind>() -> Option<&'static Type> {
    schema::of_kind(K::GROUP, K::VERSION, K::KIND)
}

/// Makes types of `k8s-openapi` into [`Kind`]s: `path::Type => "plural", namespaced?;`
macro_rules! kinds {
    ($($ty:ty => $plural:literal, $namespaced:literal;)*) => {$(
        impl Object for $ty {
            fn api_version(&self) -> &str {
                <Self as k8s_openapi::Resource>::API_VERSION
            }
            fn kind(&self) -> &str {
                <Self as k8s_openapi::Resource>::KIND
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
            fn encoded(&self) -> Encoded {
                static TYPE: LazyLock<Option<&'static Type>> = LazyLock::new(table_type::<$ty>);
                // Serializing these types to memory cannot fail: all keys are strings.
                encode::encode(self, *TYPE).unwrap_or_default()
            }
            fn boxed_clone(&self) -> Box<dyn Object> {
                Box::new(self.clone())
            }
            fn equals(&self, other: &dyn Object) -> bool {
                other.as_any().downcast_ref::<Self>().is_some_and(|other| self == other)
            }
            fn as_any(&self) -> &dyn Any {
                self
            }
            fn as_any_mut(&mut self) -> &mut dyn Any {
                self
            }
            fn into_any(self: Box<Self>) -> Box<dyn Any> {
                self
            }
        }

        impl Kind for $ty {
            const GROUP: &'static str = <Self as k8s_openapi::Resource>::GROUP;
            const VERSION: &'static str = <Self as k8s_openapi::Resource>::VERSION;
            const KIND: &'static str = <Self as k8s_openapi::Resource>::KIND;
            const PLURAL: &'static str = $plural;
            const NAMESPACED: bool = $namespaced;

            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let error = match serde_json::from_slice(bytes) {
                    Ok(object) => return Ok(object),
                    Err(error) => error,
                };
                let filled = table_type::<Self>().and_then(|ty| absent::filled(ty, bytes)).ok_or(error)?;
                Ok(serde_json::from_slice(&filled)?)
            }
            fn from_value(value: serde_json::Value) -> Result<Self, DecodeError> {
                Self::decode(&serde_json::to_vec(&value)?)
            }
            fn to_value(&self) -> serde_json::Value {
                serde_json::from_slice(&self.encode()).unwrap_or_default()
            }
        }
    )*};
}

kinds! {
    types::core::v1::Binding => "bindings", true;
    types::core::v1::ComponentStatus => "componentstatuses", false;
    types::core::v1::ConfigMap => "configmaps", true;
    types::core::v1::Endpoints => "endpoints", true;
    types::core::v1::Event => "events", true;
    types::core::v1::LimitRange => "limitranges", true;
    types::core::v1::Namespace => "namespaces", false;
    types::core::v1::Node => "nodes", false;
    types::core::v1::PersistentVolume => "persistentvolumes", false;
    types::core::v1::PersistentVolumeClaim => "persistentvolumeclaims", true;
    types::core::v1::Pod => "pods", true;
    types::core::v1::PodTemplate => "podtemplates", true;
    types::core::v1::ReplicationController => "replicationcontrollers", true;
    types::core::v1::ResourceQuota => "resourcequotas", true;
    types::core::v1::Secret => "secrets", true;
    types::core::v1::Service => "services", true;
    types::core::v1::ServiceAccount => "serviceaccounts", true;
    types::apps::v1::ControllerRevision => "controllerrevisions", true;
    types::apps::v1::DaemonSet => "daemonsets", true;
    types::apps::v1::Deployment => "deployments", true;
    types::apps::v1::ReplicaSet => "replicasets", true;
    types::apps::v1::StatefulSet => "statefulsets", true;
    types::authentication::v1::SelfSubjectReview => "selfsubjectreviews", false;
    types::authentication::v1::TokenRequest => "", true;
    types::authentication::v1::TokenReview => "tokenreviews", false;
    types::authorization::v1::LocalSubjectAccessReview => "localsubjectaccessreviews", true;
    types::authorization::v1::SelfSubjectAccessReview => "selfsubjectaccessreviews", false;
    types::authorization::v1::SelfSubjectRulesReview => "selfsubjectrulesreviews", false;
    types::authorization::v1::SubjectAccessReview => "subjectaccessreviews", false;
    types::autoscaling::v1::Scale => "", true;
    types::autoscaling::v1::HorizontalPodAutoscaler => "horizontalpodautoscalers", true;
    types::autoscaling::v2::HorizontalPodAutoscaler => "horizontalpodautoscalers", true;
    types::batch::v1::CronJob => "cronjobs", true;
    types::batch::v1::Job => "jobs", true;
    types::coordination::v1::Lease => "leases", true;
    types::discovery::v1::EndpointSlice => "endpointslices", true;
    types::events::v1::Event => "events", true;
    types::flowcontrol::v1::FlowSchema => "flowschemas", false;
    types::flowcontrol::v1::PriorityLevelConfiguration => "prioritylevelconfigurations", false;
    types::networking::v1::IPAddress => "ipaddresses", false;
    types::networking::v1::Ingress => "ingresses", true;
    types::networking::v1::IngressClass => "ingressclasses", false;
    types::networking::v1::NetworkPolicy => "networkpolicies", true;
    types::networking::v1::ServiceCIDR => "servicecidrs", false;
    types::node::v1::RuntimeClass => "runtimeclasses", false;
    types::policy::v1::Eviction => "", true;
    types::policy::v1::PodDisruptionBudget => "poddisruptionbudgets", true;
    types::rbac::v1::ClusterRole => "clusterroles", false;
    types::rbac::v1::ClusterRoleBinding => "clusterrolebindings", false;
    types::rbac::v1::Role => "roles", true;
    types::rbac::v1::RoleBinding => "rolebindings", true;
    types::scheduling::v1::PriorityClass => "priorityclasses", false;
    types::storage::v1::CSIDriver => "csidrivers", false;
    types::storage::v1::CSINode => "csinodes", false;
    types::storage::v1::CSIStorageCapacity => "csistoragecapacities", true;
    types::storage::v1::StorageClass => "storageclasses", false;
    types::storage::v1::VolumeAttachment => "volumeattachments", false;
    types::storage::v1::VolumeAttributesClass => "volumeattributesclasses", false;
    types::certificates::v1::CertificateSigningRequest => "certificatesigningrequests", false;
}
