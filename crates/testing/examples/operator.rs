//! An operator, and how its author tests it: with the real API server, controllers and scheduler in the test's own
//! process, nodes that run nothing, and an hour that passes in a moment.
//!
//! The operator keeps a Deployment for every ConfigMap labelled `site`, says in an annotation how many of its pods
//! are there, and ends a site when its `hours` are over. `cargo run -p krate-testing --example operator` tells the
//! story; `cargo test -p krate-testing --example operator` holds it.

use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::Deployment;
use krate_api::types::core::v1::{ConfigMap, Pod};
use krate_api::types::rbac::v1::{ClusterRole, ClusterRoleBinding};
use krate_api::{Kind, Status, object};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Supervisor};
use krate_client::{Api, Informer, Informers, Outcome, PatchKind, Queue, Transport, controller};
use krate_testing::ControlPlane;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const LABEL: &str = "example.com/site";
const AVAILABLE: &str = "example.com/available";
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What the operator works with: caches to read, clients to write, and the clock that it is given.
struct Operator {
    sites: Informer<ConfigMap>,
    deployments: Informer<Deployment>,
    site_api: Api<ConfigMap>,
    deployment_api: Api<Deployment>,
    clock: Clock,
}

/// Runs until the supervisor stops. In a program of its own, the transport is `krate_client::remote::Remote`.
async fn run(transport: Arc<dyn Transport>, clock: Clock, rng: Rng, supervisor: Supervisor) {
    let informers = Informers::new(transport.clone(), rng, Metrics::default(), supervisor.clone());
    let operator = Operator {
        sites: informers.of(),
        deployments: informers.of(),
        site_api: Api::new(transport.clone()).managed_by("site-operator"),
        deployment_api: Api::new(transport).managed_by("site-operator"),
        clock,
    };
    let queue: Queue = Queue::new("sites", &Metrics::default());
    wake(&operator.sites, &queue);
    // A Deployment has the name of its site.
    wake(&operator.deployments, &queue);
    operator.sites.synced().await;
    operator.deployments.synced().await;
    controller::run(queue, 2, supervisor.shutdown(), |key: String| operator.reconcile(key)).await;
}

fn wake<K: Kind>(informer: &Informer<K>, queue: &Queue) {
    let queue = queue.clone();
    informer.subscribe(move |old, new| {
        if let Some(object) = new.or(old) {
            let meta = object.meta();
            let [namespace, name] = [&meta.namespace, &meta.name].map(|n| n.clone().unwrap_or_default());
            queue.add(format!("{namespace}/{name}"));
        }
    });
}

impl Operator {
    /// Makes one site what it should be, whatever it was that changed.
    async fn reconcile(&self, key: String) -> Result<Outcome, Status> {
        let is_site =
            |map: &Arc<ConfigMap>| map.metadata.labels.iter().flatten().any(|(label, _)| label == LABEL);
        // The Deployment of a site that is gone goes with it: the garbage collector sees to that.
        let Some(site) = self.sites.get(&key).filter(is_site) else { return Ok(Outcome::Done) };
        let (namespace, name) = object::split_key(&key);
        let left = self.left(&site);
        if left.is_some_and(|left| left.is_zero()) {
            self.site_api.delete(namespace, name, DeleteOptions::default()).await?;
            return Ok(Outcome::Done);
        }
        let have = self.deployments.get(&key);
        match &have {
            None => drop(self.deployment_api.create(wanted(&site)).await?),
            Some(have) if !fits(have, &site) => {
                let spec = wanted(&site).to_value()["spec"].clone();
                let patch = json!({ "spec": spec }).to_string();
                self.deployment_api.patch(namespace, name, PatchKind::StrategicMerge, patch).await?;
            }
            Some(_) => {}
        }
        let available = have.and_then(|d| d.status.as_ref()?.available_replicas).unwrap_or(0).to_string();
        if annotation(&site, AVAILABLE) != Some(&available) {
            let patch = json!({"metadata": {"annotations": {AVAILABLE: available}}}).to_string();
            self.site_api.patch(namespace, name, PatchKind::Merge, patch).await?;
        }
        Ok(left.map_or(Outcome::Done, Outcome::After))
    }

    /// How long the site is still wanted; `None` for ever.
    fn left(&self, site: &ConfigMap) -> Option<Duration> {
        let hours = data(site, "hours")?.parse().ok()?;
        let born = site.metadata.creation_timestamp.as_ref()?.0;
        let age = Duration::try_from(self.clock.now().duration_since(born)).unwrap_or_default();
        Some((HOUR * hours).saturating_sub(age))
    }
}

fn data<'a>(site: &'a ConfigMap, key: &str) -> Option<&'a str> {
    site.data.as_ref()?.get(key).map(String::as_str)
}

fn annotation<'a>(site: &'a ConfigMap, key: &str) -> Option<&'a String> {
    site.metadata.annotations.as_ref()?.get(key)
}

fn image(site: &ConfigMap) -> &str {
    data(site, "image").unwrap_or("nginx:1")
}

fn replicas(site: &ConfigMap) -> i32 {
    data(site, "replicas").and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn wanted(site: &ConfigMap) -> Deployment {
    let meta = &site.metadata;
    let labels = json!({"example.com/of-site": meta.name});
    let value = json!({
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": meta.name, "uid": meta.uid, "controller": true}
            ],
        },
        "spec": {
            "replicas": replicas(site),
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": image(site)}]},
            },
        },
    });
    Deployment::from_value(value).expect("it is written above")
}

fn fits(have: &Deployment, site: &ConfigMap) -> bool {
    let Some(spec) = &have.spec else { return false };
    let containers = spec.template.spec.iter().flat_map(|s| &s.containers);
    spec.replicas == Some(replicas(site)) && containers.map(|c| c.image.as_deref()).eq([Some(image(site))])
}

/// Gives the operator the rights that it needs, and no others.
async fn allow(cluster: &ControlPlane) -> Result<(), Box<dyn std::error::Error>> {
    let name = json!({"name": "site-operator"});
    let role = json!({"metadata": name, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch", "patch", "delete"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list", "watch", "create", "patch"]},
    ]});
    let binding = json!({
        "metadata": name,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "site-operator"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "site-operator"}],
    });
    cluster.of::<ClusterRole>().create(ClusterRole::from_value(role)?).await?;
    cluster.of::<ClusterRoleBinding>().create(ClusterRoleBinding::from_value(binding)?).await?;
    Ok(())
}

/// The author's test: what a user does, what goes wrong, and what has to hold.
async fn story() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = ControlPlane::in_virtual_time(7).await?;
    let nodes = [cluster.hollow_node("node-1").await?, cluster.hollow_node("node-2").await?];
    allow(&cluster).await?;
    let rights = cluster.component("site-operator", &["system:authenticated"]);
    let (clock, rng, supervisor) = (cluster.clock.clone(), cluster.rng.clone(), cluster.supervisor.clone());
    cluster.supervisor.spawn(run(rights, clock, rng, supervisor));
    let has = |count: &'static str| {
        move |site: Option<&ConfigMap>| {
            site.is_some_and(|site| annotation(site, AVAILABLE).is_some_and(|available| available == count))
        }
    };

    let shop = json!({
        "metadata": {"name": "shop", "namespace": "default", "labels": {LABEL: "true"}},
        "data": {"image": "shop:1", "replicas": "3", "hours": "1"},
    });
    cluster.of::<ConfigMap>().create(ConfigMap::from_value(shop)?).await?;
    cluster.until("default", "shop", has("3")).await;
    println!("the site is up, and says so");

    let newer = json!({"data": {"image": "shop:2"}}).to_string();
    cluster.of::<ConfigMap>().patch("default", "shop", PatchKind::Merge, newer).await?;
    let all_new = |pods: &Informer<Pod>| {
        let images = pods.list().into_iter().flat_map(|p| p.spec.clone()).flat_map(|s| s.containers);
        let images: Vec<_> = images.filter_map(|c| c.image).collect();
        images.len() == 3 && images.iter().all(|image| image == "shop:2")
    };
    cluster.until_all(all_new).await;
    println!("it was rolled to the new image");

    nodes[0].vanish().await;
    cluster.until("default", "shop", |site: Option<&ConfigMap>| !has("3")(site)).await;
    cluster.until("default", "shop", has("3")).await;
    println!("a node was lost, and its pods came up on the other");

    cluster.pass(HOUR.as_secs()).await;
    cluster.until("default", "shop", |site: Option<&ConfigMap>| site.is_none()).await;
    cluster.until("default", "shop", |deployment: Option<&Deployment>| deployment.is_none()).await;
    println!("an hour later the site is gone, and what it owned");
    cluster.stop().await;
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    story().await
}

#[tokio::test(start_paused = true)]
async fn a_site_lives_for_its_hours() {
    story().await.unwrap();
}
