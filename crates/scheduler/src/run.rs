//! The scheduler as a running component: informers in, decisions out.
//!
//! The loop never waits for the API: binding, status and events are tasks beside it, a bounded number at
//! once ([`IN_FLIGHT`]). It sleeps when there is nothing to try, until something happens or a pause ends.

use crate::budgets::Budget;
use crate::engine::{Decision, Engine};
use crate::framework::Plugin;
use crate::inbox::{Failure, Inbox, Mail};
use crate::plugins;
use crate::profile::{ConfigError, Profile, ProfileConfig};
use crate::queue::{StorageKind, Waiting};
use crate::report::{self, Reporter};
use crate::storage::{Kept, Storage};
use crate::tally::{Owner, Selects};
use crate::view::{NodeView, PodView};
use krate_api::types::apps::v1::{ReplicaSet, StatefulSet};
use krate_api::types::core::v1::{Namespace, Node, Pod, ReplicationController, Service};
use krate_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim};
use krate_api::types::policy::v1::PodDisruptionBudget;
use krate_api::types::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use krate_api::{Object, Status};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Supervisor};
use krate_client::{Api, Informers, Recorder, Source, Transport};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

/// Most API calls at once.
const IN_FLIGHT: usize = 512;
/// After so many decisions the loop lets other tasks run.
const TURN: usize = 16;

const SECONDS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];
const ATTEMPTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0];

/// What a scheduler needs.
#[derive(Clone)]
pub struct Config {
    pub transport: Arc<dyn Transport>,
    pub clock: Clock,
    pub rng: Rng,
    /// None is the default profile.
    pub profiles: Vec<ProfileConfig>,
    pub metrics: Metrics,
}

/// Why a scheduler cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Pods that a plugin asked to wait before they are bound; see [`crate::framework::Permission::Wait`].
#[derive(Clone, Default)]
pub struct Permits(Arc<Mutex<HashMap<Arc<str>, oneshot::Sender<bool>>>>);

impl Permits {
    /// Lets a waiting pod be bound, or refuses it. False if it does not wait.
    pub fn answer(&self, uid: &str, allow: bool) -> bool {
        self.0.lock().remove(uid).is_some_and(|waiting| waiting.send(allow).is_ok())
    }

    async fn wait(&self, uid: &Arc<str>, patience: Duration) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.0.lock().insert(uid.clone(), answer);
        let outcome = tokio::time::timeout(patience, answered).await;
        self.0.lock().remove(uid);
        match outcome {
            Ok(Ok(true)) => Ok(()),
            Ok(_) => Err("rejected while waiting on permit".to_owned()),
            Err(_) => Err("timed out while waiting on permit".to_owned()),
        }
    }
}

/// The scheduler.
pub struct Scheduler {
    config: Config,
    permits: Permits,
}

impl Scheduler {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, permits: Permits::default() }
    }

    /// For plugins and their surroundings: who waits for permission.
    #[must_use]
    pub fn permits(&self) -> Permits {
        self.permits.clone()
    }

    /// Schedules until shutdown.
    pub async fn run(&self, shutdown: Shutdown) -> Result<(), Error> {
        let storage = Storage::default();
        storage.write_through(&self.config.transport);
        let mut configs = self.config.profiles.clone();
        if configs.is_empty() {
            configs.push(ProfileConfig::default());
        }
        configs.iter_mut().for_each(|config| config.settings.storage = storage.clone());
        let profiles = Profile::all(&configs)?;
        let supervisor = Supervisor::new(shutdown.child_token());
        let desk = Arc::new(self.desk(&profiles, &supervisor));
        let engine = Engine::new(profiles, self.config.rng.clone());
        let work = async {
            self.listen(&desk, &storage, &supervisor).await;
            drive(&desk, engine).await;
        };
        shutdown.run_until_cancelled(work).await;
        supervisor.stop().await;
        Ok(())
    }

    fn desk(&self, profiles: &BTreeMap<String, Arc<Profile>>, supervisor: &Supervisor) -> Desk {
        let Config { transport, clock, rng, metrics, .. } = &self.config;
        let recorder = |name: &String| {
            let recorder = Recorder::start(transport.clone(), name, "", clock, rng, metrics, supervisor);
            (name.clone(), recorder)
        };
        Desk {
            inbox: Arc::default(),
            binder: plugins::binder(transport.clone()),
            reporter: Reporter { api: Api::<Pod>::new(transport.clone()), clock: clock.clone() },
            recorders: profiles.keys().map(recorder).collect(),
            permits: self.permits.clone(),
            room: Arc::new(Semaphore::new(IN_FLIGHT)),
            supervisor: supervisor.clone(),
            metrics: metrics.clone(),
        }
    }

    /// Starts the informers; returns when the first state of the cluster is in the inbox.
    async fn listen(&self, desk: &Desk, storage: &Storage, supervisor: &Supervisor) {
        let Config { transport, rng, metrics, .. } = &self.config;
        let informers = Informers::new(transport.clone(), rng.clone(), metrics.clone(), supervisor.clone());
        let living = "status.phase!=Succeeded,status.phase!=Failed";
        let pods = informers.get::<PodView>(Source::of::<Pod>().fields(living));
        let nodes = informers.get::<NodeView>(Source::of::<Node>());
        let namespaces = informers.of::<Namespace>();
        let budgets = informers.get::<Budget>(Source::of::<PodDisruptionBudget>());
        let inbox = &desk.inbox;
        let to = inbox.clone();
        nodes.subscribe(move |old, new| to.node(old, new));
        let to = inbox.clone();
        pods.subscribe(move |old, new| to.pod(old, new));
        let to = inbox.clone();
        budgets.subscribe(move |old, new| {
            if let Some(any) = new.or(old) {
                to.budget(any.key(), new);
            }
        });
        let to = inbox.clone();
        namespaces.subscribe(move |old, new| {
            let labels = |namespace: &Arc<Namespace>| namespace.meta().labels.clone().unwrap_or_default();
            let (before, after) = (old.map(labels), new.map(labels));
            let name = new.or(old).and_then(|any| any.meta().name.clone()).unwrap_or_default();
            if old.is_none() || before != after {
                to.namespace(&name, after);
            }
        });
        let owners = async {
            tokio::join!(
                follow::<Service>(&informers, inbox),
                follow::<ReplicationController>(&informers, inbox),
                follow::<ReplicaSet>(&informers, inbox),
                follow::<StatefulSet>(&informers, inbox),
            )
        };
        let storage = async {
            tokio::join!(
                keep::<PersistentVolumeClaim>(&informers, storage, inbox, StorageKind::Claim),
                keep::<PersistentVolume>(&informers, storage, inbox, StorageKind::Volume),
                keep::<StorageClass>(&informers, storage, inbox, StorageKind::Class),
                keep::<CSINode>(&informers, storage, inbox, StorageKind::CsiNode),
                keep::<CSIDriver>(&informers, storage, inbox, StorageKind::CsiDriver),
                keep::<CSIStorageCapacity>(&informers, storage, inbox, StorageKind::CsiCapacity),
            )
        };
        tokio::join!(nodes.synced(), pods.synced(), namespaces.synced(), budgets.synced(), owners, storage);
    }
}

/// Follows what selects pods; returns when the first state is in the inbox.
async fn follow<K: Selects>(informers: &Informers, inbox: &Arc<Inbox>) {
    let owners = informers.get::<Owner<K>>(Source::of::<K>());
    let to = inbox.clone();
    owners.subscribe(move |old, new| {
        let Some(any) = new.or(old) else { return };
        let selector = |owner: &Arc<Owner<K>>| owner.selector.clone();
        if old.is_none() || new.is_none() || old.and_then(selector) != new.and_then(selector) {
            to.owner((K::KIND, any.namespace.clone(), any.name.clone()), new.and_then(selector));
        }
    });
    owners.synced().await;
}

/// Keeps the objects of a kind where plugins see them; returns when the first of them are there.
async fn keep<K: Kept>(informers: &Informers, storage: &Storage, inbox: &Arc<Inbox>, kind: StorageKind) {
    let objects = informers.of::<K>();
    let (storage, inbox) = (storage.clone(), inbox.clone());
    objects.subscribe(move |old, new| {
        let Some(meta) = new.or(old).map(|any| any.meta()) else { return };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = krate_api::object::key(&text(&meta.namespace), &text(&meta.name));
        storage.set(&key, new.cloned());
        inbox.storage(kind, &key);
    });
    objects.synced().await;
}

/// Everything that carries decisions out.
struct Desk {
    inbox: Arc<Inbox>,
    binder: Arc<dyn Plugin>,
    reporter: Reporter,
    recorders: BTreeMap<String, Recorder>,
    permits: Permits,
    room: Arc<Semaphore>,
    supervisor: Supervisor,
    metrics: Metrics,
}

async fn drive(desk: &Arc<Desk>, mut engine: Engine) {
    let mut turn = 0;
    loop {
        let now = Instant::now();
        desk.read(&mut engine, now);
        let (decision, next) = engine.step(now);
        let Some(decision) = decision else {
            desk.count_pending(&mut engine);
            tokio::select! {
                biased;
                () = desk.inbox.changed() => {}
                () = until(next) => {}
            }
            continue;
        };
        desk.carry_out(decision, now.elapsed());
        turn += 1;
        if turn % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Desk {
    /// Lets the engine know what has happened.
    fn read(self: &Arc<Self>, engine: &mut Engine, now: Instant) {
        let Mail { nodes, namespaces, budgets, owners, storage, pods, failures } = self.inbox.take();
        for (name, (_, labels)) in namespaces {
            engine.namespace(&name, labels, now);
        }
        for (key, (_, budget)) in budgets {
            engine.budget(key, budget);
        }
        for ((kind, namespace, name), (_, selector)) in owners {
            engine.cluster.table.selectors.set(kind, &namespace, &name, selector);
        }
        for (_, (old, new)) in nodes {
            engine.node(old, new, now);
        }
        for ((kind, key), _) in storage {
            engine.storage(kind, key, now);
        }
        for failure in failures {
            engine.failed(failure.waiting, &failure.node, now);
        }
        for (_, (old, new)) in pods {
            if let Some(gated) = engine.pod(old, new, now) {
                self.spawn(move |desk| async move { desk.reporter.gated(&gated.pod).await });
            }
        }
    }

    fn carry_out(self: &Arc<Self>, decision: Decision, took: Duration) {
        match decision {
            Decision::Bind { waiting, node, patience } => {
                self.count("scheduled", &waiting.pod, took);
                let slow = !waiting.pod.claims.is_empty();
                let bind = move |desk: Arc<Self>| async move { desk.bind(waiting, node, patience).await };
                // Volumes may take minutes; who waits for them keeps nobody else from being bound.
                if slow { self.spawn_beside(bind) } else { self.spawn(bind) }
            }
            Decision::Refuse { pod, message, room, clear_nomination } => {
                self.count("unschedulable", &pod, took);
                if let Some(recorder) = self.recorders.get(&pod.scheduler) {
                    report::failed_scheduling(recorder, &pod, &message);
                }
                let nominate = room.nominate.clone().or(clear_nomination.then(|| "".into()));
                if let Some(node) = &room.nominate {
                    self.make_room(&pod, node, room.victims);
                }
                self.spawn(move |desk| async move {
                    desk.reporter.refused(&pod, &message, nominate.as_deref()).await;
                });
            }
            Decision::Skip(pod) => {
                if let Some(recorder) = self.recorders.get(&pod.scheduler) {
                    let message = format!("skip schedule deleting pod: {}", pod.key());
                    report::failed_scheduling(recorder, &pod, &message);
                }
            }
        }
    }

    fn make_room(self: &Arc<Self>, pod: &Arc<PodView>, node: &Arc<str>, victims: Vec<Arc<PodView>>) {
        let labels = vec![];
        let help = "Number of selected preemption victims";
        self.metrics.observe(
            "scheduler_preemption_victims",
            help,
            &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
            labels,
            victims.len() as f64,
        );
        for victim in victims.into_iter().filter(|victim| !victim.deleting) {
            let (pod, node) = (pod.clone(), node.clone());
            self.spawn(move |desk| async move {
                match desk.reporter.evict(&victim, &pod, &pod.scheduler).await {
                    Ok(()) => {
                        if let Some(recorder) = desk.recorders.get(&pod.scheduler) {
                            report::preempted(recorder, &victim, &pod, &node);
                        }
                    }
                    Err(status) => tracing::warn!(victim = %victim.key(), %status, "cannot preempt a pod"),
                }
            });
        }
    }

    async fn bind(&self, waiting: Waiting, node: Arc<str>, patience: Option<Duration>) {
        let pod = waiting.pod.clone();
        match self.try_bind(&waiting, &node, patience).await {
            Ok(()) => {
                waiting.profile.plugins.iter().for_each(|(plugin, _)| plugin.post_bind(&pod, &node));
                if let Some(recorder) = self.recorders.get(&pod.scheduler) {
                    report::scheduled(recorder, &pod, &node);
                }
                self.count_scheduled(&waiting);
            }
            Err(message) => {
                tracing::debug!(pod = %pod.key(), %node, message, "cannot bind a pod");
                self.inbox.failed(Failure { waiting, node });
                if let Some(recorder) = self.recorders.get(&pod.scheduler) {
                    report::failed_scheduling(recorder, &pod, &message);
                }
                self.reporter.failed(&pod, &message).await;
            }
        }
    }

    async fn try_bind(
        &self,
        waiting: &Waiting,
        node: &Arc<str>,
        patience: Option<Duration>,
    ) -> Result<(), String> {
        let (pod, plugins) = (&waiting.pod, &waiting.profile.plugins);
        if let Some(patience) = patience {
            self.permits.wait(&pod.uid, patience).await?;
        }
        for (plugin, _) in plugins {
            let failed = |status: Status| format!("running PreBind plugin {:?}: {status}", plugin.name());
            plugin.pre_bind(pod, node).await.map_err(failed)?;
        }
        let binders = plugins.iter().map(|(plugin, _)| plugin).chain([&self.binder]);
        for binder in binders {
            if let Some(outcome) = binder.bind(pod, node).await {
                let name = binder.name();
                return outcome
                    .map_err(|status| format!("binding rejected: running Bind plugin {name:?}: {status}"));
            }
        }
        Err("binding rejected: no plugin binds".to_owned())
    }

    /// Runs a task beside the loop, when there is room for it.
    fn spawn<F, Fut>(self: &Arc<Self>, task: F)
    where
        F: FnOnce(Arc<Self>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let desk = self.clone();
        self.supervisor.spawn(async move {
            // the semaphore is never closed
            let _room = desk.room.clone().acquire_owned().await;
            task(desk).await;
        });
    }

    /// Runs a task at once; at most one for each pod that waits.
    fn spawn_beside<F, Fut>(self: &Arc<Self>, task: F)
    where
        F: FnOnce(Arc<Self>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let desk = self.clone();
        self.supervisor.spawn(async move { task(desk).await });
    }

    fn count(&self, result: &str, pod: &PodView, took: Duration) {
        let labels = || vec![("profile", pod.scheduler.clone()), ("result", result.to_owned())];
        let help = "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be \
                    scheduled, while 'error' means an internal scheduler problem.";
        self.metrics.add("scheduler_schedule_attempts_total", help, labels(), 1.0);
        let help = "Scheduling attempt latency in seconds (scheduling algorithm + binding)";
        let name = "scheduler_scheduling_attempt_duration_seconds";
        self.metrics.observe(name, help, SECONDS, labels(), took.as_secs_f64());
    }

    fn count_scheduled(&self, waiting: &Waiting) {
        let help = "Number of attempts to successfully schedule a pod.";
        let attempts = f64::from(waiting.attempts);
        self.metrics.observe("scheduler_pod_scheduling_attempts", help, ATTEMPTS, vec![], attempts);
    }

    fn count_pending(&self, engine: &mut Engine) {
        let help = "Number of pending pods, by the queue type.";
        for (place, count) in engine.pending() {
            let labels = vec![("queue", place.label().to_owned())];
            self.metrics.set("scheduler_pending_pods", help, labels, count as f64);
        }
        let mut arrivals: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for (event, place) in engine.queue.arrivals() {
            *arrivals.entry((event, place.label())).or_default() += 1.0;
        }
        let help = "Number of pods added to scheduling queues by event and queue type.";
        for ((event, queue), count) in arrivals {
            let labels = vec![("event", event.to_owned()), ("queue", queue.to_owned())];
            self.metrics.add("scheduler_queue_incoming_pods_total", help, labels, count);
        }
    }
}

#[cfg(test)]
mod tests;
