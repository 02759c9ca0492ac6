//! What pods use, asked of the runtime and of the disk.

use super::rank::Usage;
use crate::observed::{CONTAINER_NAME, POD_UID};
use crate::paths::Paths;
use crate::spec;
use krate_api::types::core::v1::{Pod, Volume};
use krate_runtime::cri::{ContainerStatsFilter, Runtime};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What every pod uses, by uid. `disk` asks for volumes and logs too, which means walking through them.
pub async fn of_pods(
    runtime: &dyn Runtime,
    paths: &Paths,
    pods: &[Arc<Pod>],
    disk: bool,
) -> BTreeMap<String, Usage> {
    let mut all: BTreeMap<String, Usage> = BTreeMap::new();
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    for stats in runtime.list_container_stats(&ContainerStatsFilter::default()).await.unwrap_or_default() {
        let (Some(uid), Some(name)) = (stats.labels.get(POD_UID), stats.labels.get(CONTAINER_NAME)) else {
            continue;
        };
        let usage = all.entry(uid.clone()).or_default();
        let (memory, written) =
            (signed(stats.memory.working_set_bytes), signed(stats.writable_layer.used_bytes));
        usage.memory += memory;
        usage.disk += written;
        usage.inodes += signed(stats.writable_layer.inodes_used);
        usage.pids += signed(stats.process.process_count);
        usage.containers.insert(name.clone(), (memory, written));
    }
    for pod in pods.iter().filter(|_| disk) {
        let usage = all.entry(spec::uid(pod).to_owned()).or_default();
        let logs = logs(paths, pod);
        let folders: Vec<PathBuf> = empty_dirs(paths, pod).into_iter().map(|(_, path)| path).collect();
        let walk = move || {
            let tree = |path: &PathBuf| krate_runtime::usage::tree(path);
            let logs: BTreeMap<String, (u64, u64)> =
                logs.iter().map(|(name, path)| (name.clone(), tree(path))).collect();
            (logs, folders.iter().map(tree).collect::<Vec<_>>())
        };
        let (logs, folders) = tokio::task::spawn_blocking(walk).await.unwrap_or_default();
        for (name, (bytes, files)) in logs {
            usage.disk += signed(bytes);
            usage.inodes += signed(files);
            usage.containers.entry(name).or_default().1 += signed(bytes);
        }
        for (bytes, files) in folders {
            usage.disk += signed(bytes);
            usage.inodes += signed(files);
        }
    }
    all
}

/// The folders of the containers' logs.
fn logs(paths: &Paths, pod: &Pod) -> Vec<(String, PathBuf)> {
    let folder = paths.logs(spec::namespace(pod), spec::name(pod), spec::uid(pod));
    let all = spec::init_containers(pod).iter().chain(spec::containers(pod));
    all.map(|c| (c.name.clone(), folder.join(&c.name))).collect()
}

/// The pod's emptyDir volumes on the disk.
pub fn empty_dirs<'a>(paths: &Paths, pod: &'a Pod) -> Vec<(&'a Volume, PathBuf)> {
    let volumes = spec::spec(pod).volumes.iter().flatten();
    let on_disk = volumes
        .filter(|v| v.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref().unwrap_or_default().is_empty()));
    on_disk.map(|v| (v, paths.volume(spec::uid(pod), crate::volumes::empty_dir::PLUGIN, &v.name))).collect()
}
