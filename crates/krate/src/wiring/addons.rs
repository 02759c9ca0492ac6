//! The objects that a cluster of ours holds beside those of every API server: the Service by which pods find
//! DNS, the default storage class, and the right of a node's network to read what DNS answers from.

use crate::ui::{Explain, Outcome};
use krate_api::Status;
use krate_api::meta::ObjectMeta;
use krate_api::types::core::v1::{ConfigMap, Service, ServicePort, ServiceSpec};
use krate_api::types::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use krate_api::types::storage::v1::StorageClass;
use krate_api::volumes::{CLASS_DEFAULT, FOLDER_PROVISIONER};
use krate_client::{Api, Transport};
use std::net::IpAddr;
use std::sync::Arc;

/// The user of a node's service proxy and DNS.
pub const NETWORK_USER: &str = "system:kube-proxy";
const ROLE: &str = "krate:node-dns";
/// What nodes may be given certificates for beside their kubelet's.
const NODE_CERTIFICATES: &str = "krate:node-certificates";
/// What the approver of such requests needs beside its bootstrap role.
const NODE_APPROVER: &str = "krate:node-certificate-approver";
const DNS_PORT: i32 = 53;
/// Remembers what is made for a cluster once and then left to its owner.
const MADE_ONCE: &str = "krate-made-once";

/// Creates what is missing. Idempotent; what is there already is left as its owner wants it.
pub async fn install(admin: Arc<dyn Transport>, dns: IpAddr) -> Outcome<()> {
    let next = "See the log above.";
    let reads = rule("", &["namespaces".to_owned(), "pods".to_owned()], &["list", "watch"], &[]);
    let role = ClusterRole { metadata: named(ROLE), rules: Some(vec![reads]), ..Default::default() };
    present(Api::new(admin.clone()).create(role).await).explain("the role of DNS cannot be made", next)?;
    let bound = binding(ROLE, ROLE, subject("User", NETWORK_USER));
    present(Api::new(admin.clone()).create(bound).await).explain("the role of DNS cannot be bound", next)?;
    present(Api::new(admin.clone()).create(service(dns)).await)
        .explain("the Service of DNS cannot be made", next)?;
    default_class(admin).await.explain("the default storage class cannot be made", next)
}

/// The class of claims that name none. It waits for the first pod: then nothing is made for claims that nobody
/// uses, and the volume is made where the pod can be.
///
/// It is made once, in a cluster that has no class of ours yet: who deletes it or takes its mark away has it so.
async fn default_class(admin: Arc<dyn Transport>) -> Result<(), Status> {
    let flags: Api<ConfigMap> = Api::new(admin.clone());
    if flags.get_opt("kube-system", MADE_ONCE).await?.is_some() {
        return Ok(());
    }
    let class = StorageClass {
        metadata: ObjectMeta {
            annotations: Some([(CLASS_DEFAULT.to_owned(), "true".to_owned())].into()),
            ..named("standard")
        },
        provisioner: FOLDER_PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        allow_volume_expansion: Some(true),
        ..Default::default()
    };
    present(Api::new(admin).create(class).await)?;
    let done = ConfigMap {
        metadata: ObjectMeta { namespace: Some("kube-system".to_owned()), ..named(MADE_ONCE) },
        data: Some([("storageclass".to_owned(), "standard".to_owned())].into()),
        ..Default::default()
    };
    present(flags.create(done).await)
}

/// The rights of those who join with a token, and of the controllers that answer them.
pub async fn install_join(admin: Arc<dyn Transport>, joiners: &str) -> Outcome<()> {
    let next = "See the log above.";
    let group = |name: &str| subject("Group", name);
    let certificates = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";
    let bindings = [
        ("krate:node-bootstrap", "system:node-bootstrapper", group(joiners)),
        ("krate:node-autoapprove", certificates, group(joiners)),
        (NODE_CERTIFICATES, NODE_CERTIFICATES, group("system:nodes")),
        (NODE_APPROVER, NODE_APPROVER, account("certificate-controller")),
    ];
    let requests = "certificatesigningrequests";
    let virtual_ones = [format!("{requests}/selfnodeserving"), format!("{requests}/nodenetwork")];
    let signers = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client"];
    let rules = [
        (NODE_CERTIFICATES, rule("certificates.k8s.io", &virtual_ones, &["create"], &[])),
        (NODE_APPROVER, rule("certificates.k8s.io", &["signers".to_owned()], &["approve"], &signers)),
    ];
    for (name, rule) in rules {
        let role = ClusterRole { metadata: named(name), rules: Some(vec![rule]), ..Default::default() };
        present(Api::new(admin.clone()).create(role).await)
            .explain("a role for nodes cannot be made", next)?;
    }
    for (name, role, subject) in bindings {
        present(Api::new(admin.clone()).create(binding(name, role, subject)).await)
            .explain("a role for nodes cannot be bound", next)?;
    }
    Ok(())
}

fn rule(group: &str, resources: &[String], verbs: &[&str], names: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources.to_vec()),
        resource_names: Some(owned(names)).filter(|names| !names.is_empty()),
        verbs: owned(verbs),
        ..Default::default()
    }
}

fn subject(kind: &str, name: &str) -> Subject {
    Subject {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
    }
}

fn account(name: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some("kube-system".to_owned()),
        api_group: None,
    }
}

fn binding(name: &str, role: &str, subject: Subject) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: named(name),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(vec![subject]),
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}

/// Every node answers at this address itself, so the Service selects nothing.
fn service(dns: IpAddr) -> Service {
    let labels = [
        ("k8s-app", "kube-dns"),
        ("kubernetes.io/cluster-service", "true"),
        ("kubernetes.io/name", "CoreDNS"),
    ];
    let port = |name: &str, protocol: &str| ServicePort {
        name: Some(name.to_owned()),
        port: DNS_PORT,
        protocol: Some(protocol.to_owned()),
        ..Default::default()
    };
    Service {
        metadata: ObjectMeta {
            namespace: Some("kube-system".to_owned()),
            labels: Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
            ..named("kube-dns")
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some(dns.to_string()),
            ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
            ..Default::default()
        }),
        status: None,
    }
}

/// What exists is what was wanted.
pub fn present<T>(created: Result<T, Status>) -> Result<(), Status> {
    match created {
        Err(status) if !status.is_already_exists() && !taken(&status) => Err(status),
        _ => Ok(()),
    }
}

/// A Service that exists also holds its address, and that is found first.
fn taken(status: &Status) -> bool {
    status.message().contains("provided IP is already allocated")
}
