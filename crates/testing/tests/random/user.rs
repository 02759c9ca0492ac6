//! What users do, and what they want in the end.

use crate::common::{deployment, selector, template};
use crate::{World, daemons, limits, stateful, timed};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::Kind;
use krate_api::Status;
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::{Deployment, ReplicaSet};
use krate_api::types::batch::v1::Job;
use krate_api::types::core::v1::{Namespace, Pod, PodTemplateSpec, Service, ServicePort};
use krate_client::PatchKind;
use std::collections::{BTreeMap, BTreeSet};

/// Names of one kind that a scenario uses.
const NAMES: u64 = 3;

/// What is wanted of a Deployment or a set.
#[derive(Clone, Debug)]
pub struct Wish {
    pub replicas: i32,
    pub image: String,
}

/// What the user wants to be there, by `namespace/name`; nothing else is.
#[derive(Default)]
pub struct User {
    pub deployments: BTreeMap<String, Wish>,
    pub sets: BTreeMap<String, Wish>,
    /// With the completions.
    pub jobs: BTreeMap<String, i32>,
    pub services: BTreeSet<String>,
    pub namespaces: BTreeSet<String>,
    pub stateful: BTreeMap<String, stateful::Wish>,
    /// With the image.
    pub daemons: BTreeMap<String, String>,
    /// With whether it is suspended.
    pub timed: BTreeMap<String, bool>,
    pub budgets: BTreeSet<String>,
    /// What is wanted in the namespace with a quota.
    pub maps: BTreeSet<String>,
    pub crowd: i32,
    made: u32,
}

impl User {
    /// One thing that a user does. What the API refuses is not wanted.
    pub async fn step(&mut self, world: &mut World) {
        let done = match world.rng.below(if world.wide { 32 } else { 16 }) {
            0..=2 => self.create_deployment(world).await,
            3..=6 => self.change_deployment(world).await,
            7 => self.delete_deployment(world).await,
            8 => self.create_set(world).await,
            9 => self.change_set(world).await,
            10 | 11 => self.create_job(world).await,
            12 => self.delete_job(world).await,
            13 => self.toggle_service(world).await,
            14 => self.toggle_namespace(world).await,
            16..=20 => stateful::step(self, world).await,
            21..=24 => daemons::step(self, world).await,
            25 | 26 => timed::step(self, world).await,
            27..=31 => limits::step(self, world).await,
            _ => disturb_a_pod(world).await,
        };
        match done {
            Ok(Some(what)) => world.note(format!("user: {what}")),
            Ok(None) => {}
            Err(status) => world.note(format!("user: refused: {}", status.message())),
        }
    }

    fn namespace(&self, world: &World) -> String {
        let all: Vec<&String> = self.namespaces.iter().collect();
        match all.get(usize::try_from(world.rng.below(6)).unwrap_or(0)) {
            Some(name) => (*name).clone(),
            None => "default".to_owned(),
        }
    }

    async fn create_deployment(&mut self, world: &World) -> Result<Option<String>, Status> {
        let namespace = self.namespace(world);
        let name = format!("web-{}", world.rng.below(NAMES));
        let key = format!("{namespace}/{name}");
        let mut object = deployment(&name, i32::try_from(world.rng.below(6)).unwrap_or(1));
        object.metadata.namespace = Some(namespace);
        let spec = object.spec.get_or_insert_default();
        spec.template = lively(world, &name);
        spec.min_ready_seconds = Some(i32::try_from(world.rng.below(2) * 5).unwrap_or(0));
        let strategy = spec.strategy.get_or_insert_default();
        if world.rng.below(5) == 0 {
            strategy.type_ = Some("Recreate".to_owned());
        } else {
            strategy.type_ = Some("RollingUpdate".to_owned());
            let rolling = strategy.rolling_update.get_or_insert_default();
            let (surge, unavailable) =
                [(1, 0), (0, 1), (2, 1), (1, 1)][usize::try_from(world.rng.below(4)).unwrap_or(0)];
            rolling.max_surge = Some(IntOrString::Int(surge));
            rolling.max_unavailable = Some(IntOrString::Int(unavailable));
        }
        let wish = Wish { replicas: spec.replicas.unwrap_or(0), image: format!("{name}:1") };
        let what = format!("create deployment {key} {wish:?}");
        world.cluster.of::<Deployment>().create(object).await?;
        self.deployments.insert(key, wish);
        Ok(Some(what))
    }

    async fn change_deployment(&mut self, world: &World) -> Result<Option<String>, Status> {
        let Some((key, wish)) = pick_mut(world, &mut self.deployments) else { return Ok(None) };
        let mut new = wish.clone();
        let (namespace, name) = split(&key);
        let patch = if world.rng.below(2) == 0 {
            new.replicas = i32::try_from(world.rng.below(7)).unwrap_or(0);
            format!(r#"{{"spec":{{"replicas":{}}}}}"#, new.replicas)
        } else {
            new.image = format!("{name}:{}", 1 + world.rng.below(4));
            image_patch(&new.image)
        };
        world.cluster.of::<Deployment>().patch(namespace, name, PatchKind::StrategicMerge, patch).await?;
        *wish = new;
        Ok(Some(format!("change deployment {key} {wish:?}")))
    }

    async fn delete_deployment(&mut self, world: &World) -> Result<Option<String>, Status> {
        let Some((key, _)) = pick_mut(world, &mut self.deployments) else { return Ok(None) };
        delete::<Deployment>(world, &key).await?;
        self.deployments.remove(&key);
        Ok(Some(format!("delete deployment {key}")))
    }

    async fn create_set(&mut self, world: &World) -> Result<Option<String>, Status> {
        let name = format!("set-{}", world.rng.below(NAMES));
        let mut object = ReplicaSet::default();
        object.metadata.name = Some(name.clone());
        object.metadata.namespace = Some("default".to_owned());
        let spec = object.spec.get_or_insert_default();
        spec.replicas = Some(i32::try_from(world.rng.below(4)).unwrap_or(1));
        spec.selector = selector(&name);
        spec.template = Some(lively(world, &name));
        let wish = Wish { replicas: spec.replicas.unwrap_or(0), image: format!("{name}:1") };
        world.cluster.of::<ReplicaSet>().create(object).await?;
        let what = format!("create replica set {name} {wish:?}");
        self.sets.insert(format!("default/{name}"), wish);
        Ok(Some(what))
    }

    async fn change_set(&mut self, world: &World) -> Result<Option<String>, Status> {
        let Some((key, wish)) = pick_mut(world, &mut self.sets) else { return Ok(None) };
        if world.rng.below(3) == 0 {
            delete::<ReplicaSet>(world, &key).await?;
            self.sets.remove(&key);
            return Ok(Some(format!("delete replica set {key}")));
        }
        let replicas = i32::try_from(world.rng.below(5)).unwrap_or(0);
        let patch = format!(r#"{{"spec":{{"replicas":{replicas}}}}}"#);
        let (namespace, name) = split(&key);
        world.cluster.of::<ReplicaSet>().patch(namespace, name, PatchKind::Merge, patch).await?;
        wish.replicas = replicas;
        Ok(Some(format!("scale replica set {key} to {replicas}")))
    }

    async fn create_job(&mut self, world: &World) -> Result<Option<String>, Status> {
        self.made += 1;
        let name = format!("job-{}", self.made);
        let mut job = Job::default();
        job.metadata.name = Some(name.clone());
        job.metadata.namespace = Some("default".to_owned());
        let spec = job.spec.get_or_insert_default();
        let completions = i32::try_from(1 + world.rng.below(4)).unwrap_or(1);
        spec.completions = Some(completions);
        spec.parallelism = i32::try_from(1 + world.rng.below(3)).ok();
        spec.backoff_limit = Some(100);
        if world.rng.below(3) == 0 {
            spec.completion_mode = Some("Indexed".to_owned());
        }
        spec.template = lively(world, &name);
        let exit = (1 + world.rng.below(40)).to_string();
        let meta = spec.template.metadata.get_or_insert_default();
        meta.annotations.get_or_insert_default().insert("exit".to_owned(), exit);
        let pod = spec.template.spec.get_or_insert_default();
        let policy = if world.rng.below(2) == 0 { "Never" } else { "OnFailure" };
        // A run that failed once fails again with the same name: only another pod can succeed.
        pod.restart_policy = Some(if policy == "OnFailure" { "Never" } else { policy }.to_owned());
        world.cluster.of::<Job>().create(job).await?;
        self.jobs.insert(format!("default/{name}"), completions);
        Ok(Some(format!("create job {name} of {completions}")))
    }

    async fn delete_job(&mut self, world: &World) -> Result<Option<String>, Status> {
        let Some((key, _)) = pick_mut(world, &mut self.jobs) else { return Ok(None) };
        delete::<Job>(world, &key).await?;
        self.jobs.remove(&key);
        Ok(Some(format!("delete job {key}")))
    }

    async fn toggle_service(&mut self, world: &World) -> Result<Option<String>, Status> {
        let app = if world.wide && world.rng.below(2) == 0 { "db" } else { "web" };
        let name = format!("{app}-{}", world.rng.below(NAMES));
        let key = format!("default/{name}");
        if self.services.contains(&key) {
            world.cluster.of::<Service>().delete("default", &name, DeleteOptions::default()).await?;
            self.services.remove(&key);
            return Ok(Some(format!("delete service {name}")));
        }
        let mut service = Service::default();
        service.metadata.name = Some(name.clone());
        service.metadata.namespace = Some("default".to_owned());
        let spec = service.spec.get_or_insert_default();
        spec.selector = Some([("app".to_owned(), name.clone())].into());
        spec.cluster_ip = (app == "db").then(|| "None".to_owned());
        spec.ports = Some(vec![ServicePort { port: 80, ..ServicePort::default() }]);
        world.cluster.of::<Service>().create(service).await?;
        self.services.insert(key);
        Ok(Some(format!("create service {name}")))
    }

    async fn toggle_namespace(&mut self, world: &World) -> Result<Option<String>, Status> {
        let name = format!("team-{}", world.rng.below(2));
        if self.namespaces.contains(&name) {
            world.cluster.of::<Namespace>().delete("", &name, DeleteOptions::default()).await?;
            self.namespaces.remove(&name);
            let inside = format!("{name}/");
            self.deployments.retain(|key, _| !key.starts_with(&inside));
            return Ok(Some(format!("delete namespace {name}")));
        }
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        world.cluster.of::<Namespace>().create(namespace).await?;
        self.namespaces.insert(name.clone());
        Ok(Some(format!("create namespace {name}")))
    }
}

/// A pod is deleted, exits or becomes unready for a while.
async fn disturb_a_pod(world: &World) -> Result<Option<String>, Status> {
    let pods = world.cluster.of::<Pod>().list("default", Default::default()).await?.items;
    let Some(pod) = pods.get(usize::try_from(world.rng.below(pods.len() as u64)).unwrap_or(0)) else {
        return Ok(None);
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    Ok(Some(match world.rng.below(3) {
        0 if stateful::is_left_alone(&name) => return Ok(None),
        0 => {
            world.cluster.of::<Pod>().delete("default", &name, DeleteOptions::default()).await?;
            format!("delete pod {name}")
        }
        1 => {
            world.cluster.exit("default", &name, 1).await?;
            format!("pod {name} exits")
        }
        _ => {
            world.cluster.set_ready("default", &name, false).await?;
            format!("pod {name} is not ready")
        }
    }))
}

/// A template whose pods take some time to start and to stop, and ask for something.
pub fn lively(world: &World, app: &str) -> PodTemplateSpec {
    let mut template = template(app);
    let notes = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    notes.insert("start".to_owned(), world.rng.below(8).to_string());
    notes.insert("stop".to_owned(), world.rng.below(8).to_string());
    if let Some(container) = template.spec.as_mut().and_then(|s| s.containers.first_mut()) {
        let requests = [("cpu".to_owned(), Quantity("100m".to_owned()))].into();
        container.resources.get_or_insert_default().requests = Some(requests);
    }
    template
}

pub async fn delete<K: Kind>(world: &World, key: &str) -> Result<(), Status> {
    let policy = if world.rng.below(2) == 0 { "Foreground" } else { "Background" };
    let options = DeleteOptions { propagation_policy: Some(policy.to_owned()), ..DeleteOptions::default() };
    let (namespace, name) = split(key);
    match world.cluster.of::<K>().delete(namespace, name, options).await {
        Err(status) if status.is_not_found() => Ok(()),
        done => done,
    }
}

pub fn image_patch(image: &str) -> String {
    format!(r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"main","image":"{image}"}}]}}}}}}}}"#)
}

pub fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

pub fn pick_mut<'a, V>(world: &World, all: &'a mut BTreeMap<String, V>) -> Option<(String, &'a mut V)> {
    if all.is_empty() {
        return None;
    }
    let at = usize::try_from(world.rng.below(all.len() as u64)).unwrap_or(0);
    all.iter_mut().nth(at).map(|(key, value)| (key.clone(), value))
}
