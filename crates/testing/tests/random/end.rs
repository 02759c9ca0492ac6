//! The end to which a scenario must come: what the user wants, all of it, and nothing else.

use crate::common::is_ready;
use crate::user::{User, Wish};
use crate::{World, daemons, limits, stateful, timed};
use krate_api::Kind;
use krate_api::meta::ObjectMeta;
use krate_api::types::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use krate_api::types::batch::v1::{CronJob, Job};
use krate_api::types::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota,
    Service, ServiceAccount,
};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_api::types::policy::v1::PodDisruptionBudget;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

const BUILTIN: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const REVISION: &str = "deployment.kubernetes.io/revision";

/// All that there is, read from the API in one go.
pub struct Scene {
    pub pods: Vec<Arc<Pod>>,
    pub sets: Vec<Arc<ReplicaSet>>,
    deployments: Vec<Arc<Deployment>>,
    pub jobs: Vec<Arc<Job>>,
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
    endpoints: Vec<Arc<Endpoints>>,
    pub nodes: Vec<Arc<Node>>,
    pub stateful: Vec<Arc<StatefulSet>>,
    pub daemons: Vec<Arc<DaemonSet>>,
    pub timed: Vec<Arc<CronJob>>,
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    pub quotas: Vec<Arc<ResourceQuota>>,
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    volumes: Vec<Arc<PersistentVolume>>,
    namespaces: Vec<Arc<Namespace>>,
}

async fn all<K: Kind>(world: &World) -> Vec<Arc<K>> {
    world.cluster.of::<K>().list("", Default::default()).await.unwrap().items
}

pub fn key(meta: &ObjectMeta) -> String {
    let name = meta.name.clone().unwrap_or_default();
    meta.namespace.as_ref().map_or(name.clone(), |namespace| format!("{namespace}/{name}"))
}

impl Scene {
    async fn of(world: &World) -> Self {
        Self {
            pods: all(world).await,
            sets: all(world).await,
            deployments: all(world).await,
            jobs: all(world).await,
            services: all(world).await,
            slices: all(world).await,
            endpoints: all(world).await,
            nodes: all(world).await,
            stateful: all(world).await,
            daemons: all(world).await,
            timed: all(world).await,
            budgets: all(world).await,
            quotas: all(world).await,
            claims: all(world).await,
            volumes: all(world).await,
            namespaces: all(world).await,
        }
    }

    /// Every object that controllers make or change.
    fn metas(&self) -> Vec<(&'static str, &ObjectMeta)> {
        fn of<K: Kind>(list: &[Arc<K>]) -> Vec<(&'static str, &ObjectMeta)> {
            list.iter().map(|object| (K::PLURAL, object.meta())).collect()
        }
        let mut metas = of(&self.pods);
        metas.extend(of(&self.sets));
        metas.extend(of(&self.deployments));
        metas.extend(of(&self.jobs));
        metas.extend(of(&self.services));
        metas.extend(of(&self.slices));
        metas.extend(of(&self.endpoints));
        metas.extend(of(&self.namespaces));
        metas.extend(of(&self.stateful));
        metas.extend(of(&self.daemons));
        metas.extend(of(&self.timed));
        metas.extend(of(&self.budgets));
        metas.extend(of(&self.quotas));
        metas.extend(of(&self.claims));
        metas.extend(of(&self.volumes));
        metas
    }

    pub fn owned(&self, uid: &str) -> Vec<&Arc<Pod>> {
        let mine = |meta: &ObjectMeta| meta.owner_references.iter().flatten().any(|o| o.uid == uid);
        self.pods.iter().filter(|p| mine(&p.metadata)).collect()
    }
}

/// Whether the end has come; what is missing, if not.
pub async fn reached(world: &World, user: &User) -> Result<(), String> {
    let scene = Scene::of(world).await;
    let keys = |metas: Vec<&ObjectMeta>| metas.into_iter().map(key).collect::<BTreeSet<_>>();
    let wanted: BTreeSet<String> = user.deployments.keys().cloned().collect();
    same("deployments", &keys(scene.deployments.iter().map(|d| &d.metadata).collect()), &wanted)?;
    same(
        "jobs",
        &keys(scene.jobs.iter().filter(|j| !timed::is_timed(j)).map(|d| &d.metadata).collect()),
        &user.jobs.keys().cloned().collect(),
    )?;
    let mut services = user.services.clone();
    services.insert("default/kubernetes".to_owned());
    same("services", &keys(scene.services.iter().map(|d| &d.metadata).collect()), &services)?;
    let mut namespaces = user.namespaces.clone();
    namespaces.extend(BUILTIN.map(str::to_owned));
    if world.wide {
        namespaces.insert(limits::TIGHT.to_owned());
        wide(&scene, user)?;
    }
    same("namespaces", &keys(scene.namespaces.iter().map(|d| &d.metadata).collect()), &namespaces)?;
    nodes(&scene)?;
    for (name, wish) in &user.deployments {
        deployment(&scene, name, wish).map_err(|why| format!("deployment {name}: {why}"))?;
    }
    let tight = |meta: &ObjectMeta| meta.namespace.as_deref() == Some(limits::TIGHT);
    for set in scene.sets.iter().filter(|s| !tight(&s.metadata)) {
        replica_set(&scene, set, user).map_err(|why| format!("set {}: {why}", key(&set.metadata)))?;
    }
    for name in user.sets.keys() {
        find(&scene.sets, name)?;
    }
    for (name, completions) in &user.jobs {
        job(&scene, name, *completions).map_err(|why| format!("job {name}: {why}"))?;
    }
    for service in &scene.services {
        endpoints(&scene, service).map_err(|why| format!("service {}: {why}", key(&service.metadata)))?;
    }
    owners(&scene)?;
    for namespace in &namespaces {
        let account = world.cluster.of::<ServiceAccount>().get_opt(namespace, "default").await.unwrap();
        let ca = world.cluster.of::<ConfigMap>().get_opt(namespace, "kube-root-ca.crt").await.unwrap();
        if account.is_none() || ca.is_none() {
            return Err(format!("namespace {namespace} lacks its account or certificate"));
        }
    }
    Ok(())
}

/// The same of the kinds that only wide scenarios have.
fn wide(scene: &Scene, user: &User) -> Result<(), String> {
    fn there<K: Kind, W>(list: &[Arc<K>], wanted: &BTreeMap<String, W>) -> Result<(), String> {
        let found = list.iter().map(|o| key(o.meta())).collect();
        same(K::PLURAL, &found, &wanted.keys().cloned().collect())
    }
    there(&scene.stateful, &user.stateful)?;
    there(&scene.daemons, &user.daemons)?;
    there(&scene.timed, &user.timed)?;
    same("budgets", &scene.budgets.iter().map(|b| key(&b.metadata)).collect(), &user.budgets)?;
    for (name, wish) in &user.stateful {
        stateful::end(scene, name, wish).map_err(|why| format!("stateful set {name}: {why}"))?;
    }
    stateful::nothing_is_left(scene, user)?;
    for (name, image) in &user.daemons {
        daemons::end(scene, name, image).map_err(|why| format!("daemon set {name}: {why}"))?;
    }
    for name in user.timed.keys() {
        timed::end(scene, name).map_err(|why| format!("cron job {name}: {why}"))?;
    }
    limits::end(scene, user)
}

fn same(what: &str, found: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?} instead of {wanted:?}")) }
}

pub fn find<'a, K: Kind>(list: &'a [Arc<K>], name: &str) -> Result<&'a Arc<K>, String> {
    list.iter().find(|o| key(o.meta()) == name).ok_or_else(|| format!("{name} is missing"))
}

fn nodes(scene: &Scene) -> Result<(), String> {
    let mut ranges = BTreeSet::new();
    for node in &scene.nodes {
        let spec = node.spec.clone().unwrap_or_default();
        if let Some(taints) = spec.taints.filter(|t| !t.is_empty()) {
            return Err(format!("{} has {taints:?}", key(&node.metadata)));
        }
        let range = spec.pod_cidr.unwrap_or_default();
        if range.is_empty() || !ranges.insert(range.clone()) {
            return Err(format!("{} has the range {range:?}", key(&node.metadata)));
        }
    }
    Ok(())
}

fn deployment(scene: &Scene, name: &str, wish: &Wish) -> Result<(), String> {
    let object = find(&scene.deployments, name)?;
    let status = object.status.clone().unwrap_or_default();
    let n = wish.replicas;
    let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
    if counts.iter().any(|count| count.unwrap_or(0) != n) || status.unavailable_replicas.unwrap_or(0) != 0 {
        return Err(format!("{counts:?} of {n}"));
    }
    if status.observed_generation != object.metadata.generation {
        return Err("its generation was not observed".to_owned());
    }
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let mine = |s: &&Arc<ReplicaSet>| s.metadata.owner_references.iter().flatten().any(|o| o.uid == uid);
    let sets: Vec<_> = scene.sets.iter().filter(mine).collect();
    let revision = |meta: &ObjectMeta| -> u64 {
        meta.annotations.as_ref().and_then(|a| a.get(REVISION)?.parse().ok()).unwrap_or(0)
    };
    let newest = sets.iter().max_by_key(|s| revision(&s.metadata)).ok_or("it has no set")?;
    let image = newest
        .spec
        .as_ref()
        .and_then(|s| s.template.as_ref()?.spec.as_ref()?.containers.first()?.image.clone());
    if image.as_deref() != Some(wish.image.as_str()) {
        return Err(format!("its newest set has {image:?} instead of {}", wish.image));
    }
    if revision(&newest.metadata) != revision(&object.metadata) {
        return Err("its revision is not the one of its newest set".to_owned());
    }
    let conditions = status.conditions.unwrap_or_default();
    for (type_, reason) in
        [("Available", "MinimumReplicasAvailable"), ("Progressing", "NewReplicaSetAvailable")]
    {
        let good = |c: &&krate_api::types::apps::v1::DeploymentCondition| {
            c.type_ == type_ && c.status == "True" && c.reason.as_deref() == Some(reason)
        };
        if !conditions.iter().any(|c| good(&c)) {
            return Err(format!("conditions {conditions:?}"));
        }
    }
    let busy = sets.iter().filter(|s| s.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0) > 0).count();
    if busy > 1 { Err(format!("{busy} sets have replicas")) } else { Ok(()) }
}

fn replica_set(scene: &Scene, set: &ReplicaSet, user: &User) -> Result<(), String> {
    let owned = set.metadata.owner_references.as_ref().is_some_and(|o| !o.is_empty());
    let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    if !owned {
        let wish = user.sets.get(&key(&set.metadata)).ok_or("nobody wants it")?;
        if wanted != wish.replicas {
            return Err(format!("{wanted} replicas, {} are wanted", wish.replicas));
        }
    }
    let status = set.status.clone().unwrap_or_default();
    let counts =
        (status.replicas, status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    let pods = scene.owned(set.metadata.uid.as_deref().unwrap_or_default());
    let ready = pods.iter().filter(|p| is_ready(p)).count();
    let n = usize::try_from(wanted).unwrap_or(0);
    if counts != (wanted, wanted, wanted) || pods.len() != n || ready != n {
        return Err(format!("{counts:?} and {ready} ready of {} pods, {wanted} are wanted", pods.len()));
    }
    Ok(())
}

fn job(scene: &Scene, name: &str, completions: i32) -> Result<(), String> {
    let job = find(&scene.jobs, name)?;
    let status = job.status.clone().unwrap_or_default();
    let complete = status.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True");
    if !complete || status.succeeded != Some(completions) || status.active.unwrap_or(0) != 0 {
        return Err(format!("{status:?}"));
    }
    let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
    if uncounted.succeeded.is_some_and(|u| !u.is_empty()) || uncounted.failed.is_some_and(|u| !u.is_empty()) {
        return Err("pods are not counted yet".to_owned());
    }
    for pod in scene.owned(job.metadata.uid.as_deref().unwrap_or_default()) {
        if pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()) {
            return Err(format!("{} keeps its finalizers", key(&pod.metadata)));
        }
    }
    Ok(())
}

/// The endpoints of a Service are exactly its ready pods.
fn endpoints(scene: &Scene, service: &Service) -> Result<(), String> {
    let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.clone()) else { return Ok(()) };
    let (namespace, name) = (service.metadata.namespace.clone(), service.metadata.name.clone());
    let selected = |pod: &&Arc<Pod>| {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        pod.metadata.namespace == namespace && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
    };
    let ip = |pod: &Arc<Pod>| pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap_or_default();
    let ready: BTreeSet<String> =
        scene.pods.iter().filter(selected).filter(|p| is_ready(p)).map(ip).collect();
    let of_service = |s: &&Arc<EndpointSlice>| {
        let labels = s.metadata.labels.clone().unwrap_or_default();
        s.metadata.namespace == namespace && labels.get("kubernetes.io/service-name") == name.as_ref()
    };
    let mut told = vec![];
    for slice in scene.slices.iter().filter(of_service) {
        for endpoint in slice.endpoints.iter().flatten() {
            if endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(true)) {
                return Err(format!("an endpoint that is not ready: {endpoint:?}"));
            }
            told.extend(endpoint.addresses.clone());
        }
    }
    if told.len() != ready.len() || told.iter().cloned().collect::<BTreeSet<_>>() != ready {
        return Err(format!("slices have {told:?}, ready are {ready:?}"));
    }
    let old = find(&scene.endpoints, &key(&service.metadata))?;
    let addresses = old.subsets.iter().flatten().flat_map(|s| s.addresses.iter().flatten());
    let old: BTreeSet<String> = addresses.map(|a| a.ip.clone()).collect();
    if old == ready { Ok(()) } else { Err(format!("endpoints have {old:?}, ready are {ready:?}")) }
}

/// Nothing is without its living owner, nothing is on its way out, nobody is without an owner but what the user
/// made.
fn owners(scene: &Scene) -> Result<(), String> {
    let metas = scene.metas();
    let uids: BTreeSet<&str> = metas.iter().filter_map(|(_, meta)| meta.uid.as_deref()).collect();
    for (kind, meta) in &metas {
        if meta.deletion_timestamp.is_some() {
            return Err(format!("{kind} {} is still going: {:?}", key(meta), meta.finalizers));
        }
        for owner in meta.owner_references.iter().flatten().filter(|o| o.kind != "Node") {
            if !uids.contains(owner.uid.as_str()) {
                return Err(format!("{kind} {} outlived {} {}", key(meta), owner.kind, owner.name));
            }
        }
        let stray = matches!(*kind, "pods" | "endpointslices")
            && meta.owner_references.as_ref().is_none_or(Vec::is_empty);
        if stray && !meta.name.as_deref().is_some_and(|n| n.starts_with("kubernetes")) {
            return Err(format!("{kind} {} belongs to nobody", key(meta)));
        }
    }
    Ok(())
}

/// The version of everything that must rest once the end has come.
pub async fn quiet(world: &World) -> BTreeMap<String, String> {
    let scene = Scene::of(world).await;
    let entry = |(kind, meta): (&'static str, &ObjectMeta)| {
        (format!("{kind} {}", key(meta)), meta.resource_version.clone().unwrap_or_default())
    };
    scene.metas().into_iter().map(entry).collect()
}

/// A number that differs when anything that is left differs: names, uids, versions.
pub async fn fingerprint(world: &World) -> u64 {
    let scene = Scene::of(world).await;
    let mut hasher = DefaultHasher::new();
    for (kind, meta) in scene.metas() {
        (kind, key(meta), &meta.uid, &meta.resource_version).hash(&mut hasher);
    }
    hasher.finish()
}
