//! Static pods: manifests in a folder of the node, run without the API. The folder is watched (inotify).
//!
//! A pod's identity is made from its file's content and the node, so that a changed file is another pod.

use crate::file_watch::FileWatch;
use crate::spec::{self, hash};
use crate::workers::Workers;
use krate_api::types::core::v1::{Pod, Toleration};
use krate_api::{Kind as _, behaviour};
use krate_base::Clock;
use nix::sys::inotify::AddWatchFlags;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The static pods that there are now, by `namespace/name`; clones share them.
#[derive(Clone, Default)]
pub struct Statics(Arc<Mutex<BTreeMap<String, Arc<Pod>>>>);

impl Statics {
    pub fn get(&self, key: &str) -> Option<Arc<Pod>> {
        self.0.lock().get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.0.lock().values().cloned().collect()
    }
}

/// Follows the folder.
pub struct Source {
    pub folder: PathBuf,
    pub node: String,
    pub clock: Clock,
    pub statics: Statics,
    pub workers: Workers,
    /// Called with the keys of pods that came, changed or went.
    pub changed: Box<dyn Fn(&str) + Send + Sync>,
}

impl Source {
    pub async fn run(&self) -> std::io::Result<()> {
        tokio::fs::create_dir_all(&self.folder).await?;
        let mut watch = FileWatch::new()?;
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CREATE;
        watch.add(&self.folder, flags)?;
        loop {
            self.read();
            watch.changed().await?;
        }
    }

    /// Makes the pods those of the folder. A file that cannot be read leaves its pod as it was.
    fn read(&self) {
        let mut found = BTreeMap::new();
        for path in files(&self.folder) {
            match read(&path, &self.node, &self.clock) {
                Ok(pod) => {
                    found.insert(
                        krate_api::object::key(spec::namespace(&pod), spec::name(&pod)),
                        Arc::new(pod),
                    );
                }
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "the static pod's file cannot be read");
                    let kept = self
                        .statics
                        .list()
                        .into_iter()
                        .find(|pod| from(pod) == Some(&*path.to_string_lossy()));
                    found.extend(
                        kept.map(|pod| {
                            (krate_api::object::key(spec::namespace(&pod), spec::name(&pod)), pod)
                        }),
                    );
                }
            }
        }
        let before = std::mem::replace(&mut *self.statics.0.lock(), found.clone());
        let uid =
            |map: &BTreeMap<String, Arc<Pod>>, key: &str| map.get(key).map(|pod| spec::uid(pod).to_owned());
        for (key, old) in &before {
            if uid(&found, key).as_deref() != Some(spec::uid(old)) {
                self.workers.gone(spec::uid(old));
                (self.changed)(key);
            }
        }
        for (key, pod) in &found {
            if uid(&before, key).as_deref() != Some(spec::uid(pod)) {
                self.workers.update(pod);
                (self.changed)(key);
            }
        }
    }
}

/// Which file a pod is from; the API does not see it.
pub const FILE_ANNOTATION: &str = "krate.dev/static-file";

fn from(pod: &Pod) -> Option<&str> {
    spec::annotation(pod, FILE_ANNOTATION)
}

/// The manifests of a folder, by name; hidden files are somebody's temporary ones.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let visible = |path: &PathBuf| path.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.'));
    let mut out: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.is_file() && visible(p)).collect();
    out.sort();
    out
}

fn read(path: &Path, node: &str, clock: &Clock) -> Result<Pod, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let mut pod = parse(&text, node)?;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(spec::SEEN_ANNOTATION.to_owned(), clock.now().to_string());
    annotations.insert(FILE_ANNOTATION.to_owned(), path.to_string_lossy().into_owned());
    Ok(pod)
}

/// The pod of a manifest (YAML or JSON) on a node.
fn parse(text: &str, node: &str) -> Result<Pod, String> {
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err("it holds something else than a Pod of v1".to_owned());
    }
    let mut pod = Pod::from_value(value).map_err(|e| e.to_string())?;
    let name = spec::name(&pod);
    if name.is_empty() {
        return Err("the pod has no name".to_owned());
    }
    let name = format!("{name}-{}", node.to_lowercase());
    let uid = hash::content_hash(&[node.as_bytes(), text.as_bytes()]);
    pod.metadata.name = Some(name);
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    pod.metadata.uid = Some(uid.clone());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(spec::SOURCE_ANNOTATION.to_owned(), "file".to_owned());
    annotations.insert(spec::HASH_ANNOTATION.to_owned(), uid);
    behaviour::of("", "pods").default(&mut pod);
    pod.status = None;
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    // Nothing evicts it but its file.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Default::default()
    });
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: c, image: nginx:1}\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_the_node() {
        let pod = parse(TEXT, "N1").unwrap();
        assert_eq!((spec::name(&pod), spec::namespace(&pod)), ("web-n1", "default"));
        assert!(spec::is_static(&pod) && !spec::is_mirror(&pod));
        assert_eq!(spec::spec(&pod).restart_policy.as_deref(), Some("Always"), "it is defaulted");
        let other = parse(&TEXT.replace("nginx:1", "nginx:2"), "N1").unwrap();
        assert_ne!(spec::uid(&pod), spec::uid(&other));
        assert!(parse("kind: Service\napiVersion: v1\n", "N1").is_err());
    }
}
