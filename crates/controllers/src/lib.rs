//! The controllers: each brings one kind of object to the state that its spec asks for.
//!
//! All have one shape: informers, keys into a queue, `reconcile(key)`: read the caches, plan with a pure
//! function, carry the plan out. They run under one leader election, each with the identity of its own
//! service account, and know neither the API server nor the store. None polls; none writes what is already
//! so: what a controller writes wakes it again, and must then lead to no further write.

mod accounts;
mod certificates;
mod claim;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoints;
mod env;
mod garbage;
mod hash;
mod history;
mod job;
mod load_balancer;
mod meta;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod nodes;
mod owners;
mod patience;
mod pod_control;
mod pod_gc;
mod pod_template;
mod pods;
mod portion;
mod quota;
mod ranking;
mod replicas;
mod role_aggregation;
mod service_cidrs;
mod slow_start;
mod stateful_set;
mod taint_eviction;
#[cfg(test)]
mod tests;
mod volume;
#[cfg(test)]
mod world;

pub use certificates::{Certify, Order};
pub use env::{Cluster, Context, Env, MANAGER, Resources, SecretToken, SignToken};
pub use volume::provisioner::{RemoveFolder, Storage};

use krate_base::Supervisor;
use krate_client::{Elector, election};
use std::convert::Infallible;

/// The lease that the controllers of a cluster compete for.
const LEASE_NAMESPACE: &str = "kube-system";
const LEASE_NAME: &str = "kube-controller-manager";

/// Starts one controller.
type Start = fn(&Env);

/// Every controller by its name in upstream's `--controllers`.
const CONTROLLERS: &[(&str, Start)] = &[
    ("certificatesigningrequest-approving-controller", certificates::approve::start),
    ("certificatesigningrequest-signing-controller", certificates::sign::start),
    ("certificatesigningrequest-cleaner-controller", certificates::clean::start),
    ("replicaset-controller", replicas::start_replica_sets),
    ("deployment-controller", deployment::start),
    ("endpointslice-controller", endpoints::slices::start),
    ("endpoints-controller", endpoints::legacy::start),
    ("endpointslice-mirroring-controller", endpoints::mirror::start),
    ("service-lb-controller", load_balancer::start),
    ("service-cidr-controller", service_cidrs::start),
    ("namespace-controller", namespace::start),
    ("serviceaccount-controller", accounts::start_service_accounts),
    ("root-ca-certificate-publisher-controller", accounts::start_root_ca),
    ("serviceaccount-token-controller", accounts::start_tokens),
    ("resourcequota-controller", quota::start),
    ("clusterrole-aggregation-controller", role_aggregation::start),
    ("garbage-collector-controller", garbage::start),
    ("node-lifecycle-controller", node_lifecycle::start),
    ("taint-eviction-controller", taint_eviction::start),
    ("node-ipam-controller", node_ipam::start),
    ("pod-garbage-collector-controller", pod_gc::start),
    ("job-controller", job::start),
    ("ttl-after-finished-controller", job::ttl::start),
    ("cronjob-controller", cron_job::start),
    ("disruption-controller", disruption::start),
    ("replicationcontroller-controller", replicas::start_replication_controllers),
    ("daemonset-controller", daemon_set::start),
    ("statefulset-controller", stateful_set::start),
    ("persistentvolume-binder-controller", volume::binder::start),
    ("persistentvolumeclaim-protection-controller", volume::protection::start_claims),
    ("persistentvolume-protection-controller", volume::protection::start_volumes),
    ("ephemeral-volume-controller", volume::ephemeral::start),
    ("persistentvolume-expander-controller", volume::expansion::start),
    ("krate-folder-provisioner", volume::provisioner::start),
];

/// Starts all controllers under the context's supervisor: at once, or whenever this process leads.
pub fn start(context: &Context) {
    let context = context.clone();
    let supervisor = context.supervisor.clone();
    supervisor.component("controllers", move |shutdown| {
        let context = context.clone();
        async move {
            let start = |part: &Supervisor| start_all(&context, part);
            if !context.elect {
                election::term(&context.supervisor, shutdown, &start).await;
                return Ok::<(), Infallible>(());
            }
            let elector = Elector::new(
                (context.transports)(env::MANAGER),
                LEASE_NAMESPACE,
                LEASE_NAME,
                &context.identity,
                &context.clock,
                &context.rng,
            );
            elector.supervise(&context.supervisor, shutdown, start).await;
            Ok(())
        }
    });
}

/// Starts every controller afresh, with caches of its own.
fn start_all(context: &Context, supervisor: &Supervisor) {
    let env = Env::new(context, supervisor.clone());
    for (name, start) in CONTROLLERS {
        tracing::debug!(controller = name, "starting");
        start(&env);
    }
}
