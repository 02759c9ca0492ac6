//! What every cluster begins with: namespaces, roles, priority classes, the `kubernetes` Service.
//!
//! Everything goes through the same handlers as any request, as the server's own identity. Idempotent.

mod flow_control;
mod keep;
pub(crate) mod rbac;

pub(crate) use keep::keep;

use crate::pipeline::perform;
use crate::server::Inner;
use crate::user::UserInfo;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use krate_api::meta::{Condition, Time};
use krate_api::types::core::v1::{Endpoints, Namespace, Service};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_api::types::networking::v1::ServiceCIDR;
use krate_api::types::scheduling::v1::PriorityClass;
use krate_api::{Kind, Status};
use krate_client::{Body, Request, Verb};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Objects written at once; they share the store's commits.
const AT_ONCE: usize = 64;

type Step<'a> = BoxFuture<'a, Result<(), Status>>;

/// Writes what is missing.
pub(crate) async fn run(server: &Inner) -> Result<(), Status> {
    all(NAMESPACES.iter().map(|name| ensure(server, namespace(name)).boxed()).collect()).await?;
    let defaults = rbac::defaults();
    let mut steps: Vec<Step<'_>> = Vec::new();
    for role in &defaults.cluster_roles {
        steps.push(rbac::reconcile_cluster_role(server, role).boxed());
    }
    for role in &defaults.roles {
        steps.push(rbac::reconcile_role(server, role).boxed());
    }
    for binding in &defaults.cluster_bindings {
        steps.push(rbac::reconcile_cluster_binding(server, binding).boxed());
    }
    for binding in &defaults.bindings {
        steps.push(rbac::reconcile_binding(server, binding).boxed());
    }
    for class in priority_classes() {
        steps.push(ensure(server, class).boxed());
    }
    for level in flow_control::levels() {
        steps.push(ensure(server, level).boxed());
    }
    for schema in flow_control::schemas() {
        steps.push(ensure(server, schema).boxed());
    }
    steps.push(kubernetes_service(server).boxed());
    steps.push(service_cidr(server).boxed());
    all(steps).await
}

async fn all(steps: Vec<Step<'_>>) -> Result<(), Status> {
    stream::iter(steps).buffer_unordered(AT_ONCE).try_collect().await
}

fn namespace(name: &str) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    namespace
}

fn of<K: Kind>(value: Value) -> Result<K, Status> {
    K::from_value(value).map_err(Status::internal)
}

fn priority_classes() -> Vec<PriorityClass> {
    let class = |name: &str, value: i32, description: &str| {
        let mut class = PriorityClass {
            value: Some(value),
            description: Some(description.to_owned()),
            ..Default::default()
        };
        class.metadata.name = Some(name.to_owned());
        class
    };
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if \
             necessary.",
        ),
    ]
}

/// The ranges of Service addresses as an object, which is ready from the start.
async fn service_cidr(server: &Inner) -> Result<(), Status> {
    const NAME: &str = "kubernetes";
    let cidrs: Vec<&str> = server.services.cidrs.iter().map(|c| c.text()).collect();
    ensure(server, of::<ServiceCIDR>(json!({"metadata": {"name": NAME}, "spec": {"cidrs": cidrs}}))?).await?;
    let Some(present) = server.read::<ServiceCIDR>("", NAME).await? else { return Ok(()) };
    let has_conditions =
        present.status.as_ref().and_then(|s| s.conditions.as_ref()).is_some_and(|c| !c.is_empty());
    if has_conditions || present.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let mut ready = (*present).clone();
    ready.status.get_or_insert_default().conditions = Some(vec![Condition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: String::new(),
        message: "Kubernetes default Service CIDR is ready".to_owned(),
        last_transition_time: Time(server.clock.now_seconds()),
        observed_generation: None,
    }]);
    let mut request = Request::of::<ServiceCIDR>(Verb::Update, "", NAME);
    request.subresource = "status".to_owned();
    request.body = Some(Body::Object(Box::new(ready)));
    perform(server, &Arc::new(UserInfo::apiserver()), request).await.map(drop)
}

/// The Service by which pods reach the API, with the endpoints that this server advertises.
async fn kubernetes_service(server: &Inner) -> Result<(), Status> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service: Service = of(json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": server.services.first_address(),
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": server.port}],
        },
    }))?;
    ensure(server, service).await?;
    if server.advertise.is_empty() {
        return Ok(());
    }
    let addresses: Vec<String> = server.advertise.iter().map(IpAddr::to_string).collect();
    let skip = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let endpoints: Endpoints = of(json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": skip},
        "subsets": [{
            "addresses": ips,
            "ports": [{"name": "https", "port": server.port, "protocol": "TCP"}],
        }],
    }))?;
    put(server, endpoints, |have, want| {
        let same = have.subsets == want.subsets;
        have.subsets = want.subsets;
        same
    })
    .await?;
    let family = if server.advertise[0].is_ipv6() { "IPv6" } else { "IPv4" };
    let slice: EndpointSlice = of(json!({
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family,
        "endpoints": addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
            .collect::<Vec<_>>(),
        "ports": [{"name": "https", "port": server.port, "protocol": "TCP"}],
    }))?;
    put(server, slice, |have, want| {
        let same = have.endpoints == want.endpoints && have.ports == want.ports;
        (have.endpoints, have.ports) = (want.endpoints, want.ports);
        same
    })
    .await
}

/// Creates the object, or changes the one that is there unless `merge` says that it is the same.
async fn put<K: Kind>(
    server: &Inner,
    wanted: K,
    merge: impl FnOnce(&mut K, K) -> bool,
) -> Result<(), Status> {
    let meta = wanted.meta();
    let (namespace, name) =
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let Some(have) = server.read::<K>(&namespace, &name).await? else { return ensure(server, wanted).await };
    let mut have = (*have).clone();
    if merge(&mut have, wanted) { Ok(()) } else { replace(server, have).await }
}

/// Creates the object unless one of its name exists.
pub(crate) async fn ensure<K: Kind>(server: &Inner, object: K) -> Result<(), Status> {
    let meta = object.meta();
    let namespace = meta.namespace.clone().unwrap_or_default();
    if server.read::<K>(&namespace, meta.name.as_deref().unwrap_or("")).await?.is_some() {
        return Ok(());
    }
    let mut request = Request::of::<K>(Verb::Create, &namespace, "");
    request.body = Some(Body::Object(Box::new(object)));
    match perform(server, &Arc::new(UserInfo::apiserver()), request).await {
        Ok(_) => Ok(()),
        Err(status) if status.is_already_exists() => Ok(()),
        Err(status) => Err(status),
    }
}

/// Writes an object that was read before.
pub(crate) async fn replace<K: Kind>(server: &Inner, object: K) -> Result<(), Status> {
    let meta = object.meta();
    let (namespace, name) =
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let mut request = Request::of::<K>(Verb::Update, &namespace, &name);
    request.body = Some(Body::Object(Box::new(object)));
    match perform(server, &Arc::new(UserInfo::apiserver()), request).await {
        Ok(_) => Ok(()),
        // Another server of the cluster was faster.
        Err(status) if status.is_conflict() => Ok(()),
        Err(status) => Err(status),
    }
}
