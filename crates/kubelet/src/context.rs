//! What every pod's worker shares with the others.

use crate::dns::ClusterDns;
use crate::env::fields::Facts;
use crate::eviction::Pressure;
use crate::image::Puller;
use crate::paths::Paths;
use crate::publish::Publisher;
use crate::references::References;
use crate::volumes::Volumes;
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::types::core::v1::Service;
use krate_api::types::node::v1::RuntimeClass;
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Supervisor};
use krate_client::Api;
use krate_client::informer::Informer;
use krate_client::recorder::Recorder;
use krate_runtime::cri::Runtime;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

pub struct Context {
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    pub paths: Paths,
    pub cluster_dns: ClusterDns,
    /// The node's control group, in which those of the pods are made.
    pub cgroup_parent: String,
    /// The node's own resolver configuration and hosts file.
    pub resolv_conf: PathBuf,
    pub hosts_file: PathBuf,
    pub runtime: Arc<dyn Runtime>,
    pub puller: Arc<Puller>,
    pub recorder: Recorder,
    pub references: References,
    pub volumes: Volumes,
    pub services: Informer<Service>,
    pub runtime_classes: Api<RuntimeClass>,
    pub publisher: Publisher,
    /// What the node gives to its pods, and the bytes of its memory.
    pub allocatable: BTreeMap<String, Quantity>,
    pub memory: i64,
    /// What the node runs out of.
    pub pressures: watch::Receiver<BTreeSet<Pressure>>,
    pub clock: Clock,
    pub rng: Rng,
    pub metrics: Metrics,
    pub supervisor: Supervisor,
}

impl Context {
    /// What is known of a pod beside its specification.
    pub fn facts(&self, pod_ips: Vec<String>) -> Facts {
        Facts {
            node_name: self.node_name.clone(),
            node_ips: self.node_ips.clone(),
            pod_ips,
            allocatable: self.allocatable.clone(),
        }
    }

    pub fn seccomp_root(&self) -> String {
        self.paths.root.join("seccomp").to_string_lossy().into_owned()
    }
}
