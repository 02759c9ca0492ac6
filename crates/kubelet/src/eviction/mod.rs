//! Eviction: pods leave a node that runs out of memory, disk or process ids, and those that pass their own
//! limits of ephemeral storage.
//!
//! Thresholds ([`threshold`]), the order of pods ([`rank`]) and limits ([`local`]) are pure. The manager is
//! run by the kubelet's housekeeping (every ten seconds, as the original) and, for memory, at once when the
//! kernel says that processes wait for it ([`stall`]). One pod goes at a time.

pub mod local;
pub mod rank;
pub mod stall;
pub mod threshold;
pub mod usage;

pub use threshold::{Config, Pressure};

use crate::context::Context;
use crate::events;
use crate::image::garbage::Collector;
use crate::node::Facts;
use crate::spec;
use crate::status::Verdict;
use crate::workers::Workers;
use krate_api::types::core::v1::Pod;
use krate_base::Timestamp;
use krate_runtime::cri::{ContainerFilter, ContainerState};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use threshold::{Outcome, Reading, Readings, Signal, Threshold, Tracker};
use tokio::sync::watch;

pub const EVICTED: &str = "Evicted";
/// How long an evicted pod may take to be gone before the next one goes.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Manager {
    pub config: Config,
    pub context: Arc<Context>,
    pub workers: Workers,
    pub pressures: watch::Sender<BTreeSet<Pressure>>,
    /// A folder on the images' file system, once the runtime has said it.
    pub image_folder: Option<PathBuf>,
    tracker: Tracker,
    /// The pod that was told to go last, and when.
    going: Option<(String, Timestamp)>,
}

impl Manager {
    pub fn new(
        config: Config,
        context: Arc<Context>,
        workers: Workers,
        pressures: watch::Sender<BTreeSet<Pressure>>,
    ) -> Self {
        let (tracker, going) = Default::default();
        Self { config, context, workers, pressures, image_folder: None, tracker, going }
    }

    /// Looks at the node and acts once; when to look again although nothing may happen.
    pub async fn look(&mut self, images: Option<&mut Collector>) -> Option<Timestamp> {
        let outcome = self.observe();
        let pressures = outcome.pressures.clone();
        self.pressures.send_if_modified(|known| {
            let changed = *known != pressures;
            *known = pressures;
            changed
        });
        if self.enforce_limits().await || outcome.act.is_empty() || self.is_going().await {
            return outcome.again;
        }
        let mut act = outcome.act.clone();
        if let Some(images) = images.filter(|_| act.iter().any(|t| t.signal.pressure() == Pressure::Disk)) {
            let freed = images.remove_all_unused(self.context.clock.now()).await;
            tracing::info!(?freed, "the node is short of disk: unused images were removed");
            let now = self.readings();
            act.retain(|t| threshold::is_met(t, &now));
        }
        if let Some(threshold) = act.first() {
            self.evict_one(threshold).await;
        }
        outcome.again
    }

    fn observe(&mut self) -> Outcome {
        if self.config.thresholds.is_empty() {
            return Outcome::default();
        }
        let readings = self.readings();
        self.tracker.observe(&self.config, &readings, self.context.clock.now())
    }

    fn readings(&self) -> Readings {
        let facts = Facts::read(&self.context.paths.root);
        let reading = |available: u64, capacity: u64| Reading {
            available: i64::try_from(available).unwrap_or(i64::MAX),
            capacity: i64::try_from(capacity).unwrap_or(i64::MAX),
        };
        let mut all = Readings::from([
            (Signal::MemoryAvailable, reading(facts.memory_available, facts.memory_bytes)),
            (Signal::NodeFsAvailable, reading(facts.disk_available, facts.disk_bytes)),
            (Signal::PidAvailable, reading(facts.pids_max.saturating_sub(facts.pids_used), facts.pids_max)),
        ]);
        // Some file systems count no inodes.
        if facts.inodes > 0 {
            all.insert(Signal::NodeFsInodesFree, reading(facts.inodes_available, facts.inodes));
        }
        if let Some(fs) = self.image_folder.as_ref().and_then(|path| nix::sys::statvfs::statvfs(path).ok()) {
            let size = fs.fragment_size();
            all.insert(Signal::ImageFsAvailable, reading(fs.blocks_available() * size, fs.blocks() * size));
            if fs.files() > 0 {
                all.insert(Signal::ImageFsInodesFree, reading(fs.files_available(), fs.files()));
            }
        }
        all
    }

    /// Evicts the pods that passed a limit of their own; whether there were any.
    async fn enforce_limits(&self) -> bool {
        let limited: Vec<Arc<Pod>> =
            self.workers.living().into_iter().filter(|p| local::is_limited(p)).collect();
        if limited.is_empty() {
            return false;
        }
        let usage = usage::of_pods(&*self.context.runtime, &self.context.paths, &limited, true).await;
        let mut any = false;
        for pod in &limited {
            let volumes = self.volumes(pod).await;
            let own = usage.get(spec::uid(pod)).cloned().unwrap_or_default();
            if let Some(message) = local::passed(pod, &own, &volumes) {
                any |= self.evict(pod, message, 0);
            }
        }
        any
    }

    async fn volumes(&self, pod: &Pod) -> BTreeMap<String, i64> {
        let folders: Vec<(String, PathBuf)> = usage::empty_dirs(&self.context.paths, pod)
            .into_iter()
            .map(|(volume, path)| (volume.name.clone(), path))
            .collect();
        let walk = move || {
            let bytes =
                |path: &PathBuf| i64::try_from(krate_runtime::usage::tree(path).0).unwrap_or(i64::MAX);
            folders.iter().map(|(name, path)| (name.clone(), bytes(path))).collect()
        };
        tokio::task::spawn_blocking(walk).await.unwrap_or_default()
    }

    async fn evict_one(&mut self, threshold: &Threshold) {
        let pods = self.workers.living();
        let disk = threshold.signal.pressure() == Pressure::Disk;
        let usage = usage::of_pods(&*self.context.runtime, &self.context.paths, &pods, disk).await;
        let mut ranked: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        rank::rank(threshold.signal, &mut ranked, &usage);
        let reading = self.readings().get(&threshold.signal).copied().unwrap_or_default();
        for pod in ranked {
            let own = usage.get(spec::uid(pod)).cloned().unwrap_or_default();
            let message = rank::message(threshold, reading, pod, &own);
            let grace = match threshold.grace {
                Some(_) => self.config.max_pod_grace.min(spec::grace_seconds(pod)),
                None => 0,
            };
            if self.evict(pod, message, grace) {
                self.going = Some((spec::uid(pod).to_owned(), self.context.clock.now()));
                return;
            }
        }
        tracing::error!(signal = ?threshold.signal, "the node is short of a resource and no pod can be evicted");
    }

    /// Tells a pod to go; false if it is one that stays.
    fn evict(&self, pod: &Pod, message: String, grace: i64) -> bool {
        if rank::is_critical(pod) {
            return false;
        }
        tracing::warn!(pod = %spec::describe(pod), message, "evicting");
        self.context.recorder.warning(&events::about(pod), EVICTED, message.clone());
        let verdict =
            Verdict { reason: EVICTED.to_owned(), message, evicted: Some(grace), ..Verdict::default() };
        self.workers.evict(spec::uid(pod), verdict);
        true
    }

    /// Whether the pod that was told to go last still runs, and may.
    async fn is_going(&mut self) -> bool {
        let Some((uid, since)) = &self.going else { return false };
        let late = crate::sync::backoff::plus(*since, PATIENCE) <= self.context.clock.now();
        let filter = ContainerFilter {
            state: Some(ContainerState::Running),
            label_selector: [(crate::observed::POD_UID.to_owned(), uid.clone())].into(),
            ..Default::default()
        };
        let running = self.context.runtime.list_containers(&filter).await.is_ok_and(|all| !all.is_empty());
        if late || !running {
            self.going = None;
        }
        self.going.is_some()
    }
}
