//! The cluster's own volumes: folders, made for claims of classes whose provisioner is `krate.io/folder`.
//!
//! A volume is a `local` one, so that no driver is needed and the pod's group gets its rights. Where all nodes
//! share the folder ([`Storage::shared`]) every node sees the volume; elsewhere it belongs to the node that the
//! scheduler chose. The node makes the folder when the first pod comes, and removes it when its volume is deleted;
//! nothing is written here but objects, and what is removed of shared storage is removed through [`RemoveFolder`].
//! A node that is deleted takes its folders with it. Sizes are kept as they are asked for and not enforced.

use super::{finalizer, has_finalizer};
use crate::env::{Env, synced};
use crate::meta;
use crate::nodes::{self, NodeView};
use futures::future::BoxFuture;
use krate_api::Status;
use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::meta::ObjectMeta;
use krate_api::types::core::v1::{
    LocalVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use krate_api::types::storage::v1::StorageClass;
use krate_api::volumes::{
    FOLDER_NODE, FOLDER_PROVISIONER as PROVISIONER, PROVISIONED_BY, PROVISIONER as ASKED, PROVISIONER_BETA,
    PROVISIONER_FINALIZER, SELECTED_NODE, class_of_claim, is_folder_of, node_label, volume_mode,
    waits_for_consumer,
};
use krate_client::api::delete_uid;
use krate_client::recorder::reference;
use krate_client::{Api, Informer, Outcome, Queue, Recorder};
use std::path::PathBuf;
use std::sync::Arc;

const ACCOUNT: &str = "persistent-volume-binder";
const HOSTNAME: &str = "kubernetes.io/hostname";
const WORKERS: usize = 4;

/// Removes a folder with everything in it. One that is not there is removed already.
pub type RemoveFolder = Arc<dyn Fn(PathBuf) -> BoxFuture<'static, std::io::Result<()>> + Send + Sync>;

/// Where the cluster's own volumes are.
#[derive(Clone)]
pub struct Storage {
    /// The folder of all volumes, the same path on every node.
    pub folder: PathBuf,
    /// Whether all nodes see the same files there.
    pub shared: bool,
    /// Removes folders of shared storage; on a node's own storage the node does that.
    pub remove: RemoveFolder,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Claim(String),
    Volume(String),
}

struct Controller {
    storage: Storage,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<NodeView>,
    volume_api: Api<PersistentVolume>,
    recorder: Recorder,
}

pub fn start(env: &Env) {
    let Some(storage) = env.storage.clone() else { return };
    let claims = env.informers.of::<PersistentVolumeClaim>();
    let volumes = env.informers.of::<PersistentVolume>();
    let classes = env.informers.of::<StorageClass>();
    let nodes = nodes::informer(&env.informers);
    let controller = Arc::new(Controller {
        storage,
        claims: claims.clone(),
        volumes: volumes.clone(),
        classes: classes.clone(),
        nodes: nodes.clone(),
        volume_api: env.api(ACCOUNT),
        recorder: env.recorder(ACCOUNT, PROVISIONER),
    });
    let queue: Queue<Key> = env.queue("folders");
    let q = queue.clone();
    claims.subscribe(move |_, new| {
        if let Some(claim) = new.filter(|c| asks_us(c)) {
            q.add(Key::Claim(meta::key(&claim.metadata)));
        }
    });
    let q = queue.clone();
    volumes.subscribe(move |_, new| {
        if let Some(volume) = new.filter(|v| is_ours(v)) {
            q.add(Key::Volume(meta::name(&volume.metadata).to_owned()));
        }
    });
    let (q, c) = (queue.clone(), controller.clone());
    classes.subscribe(move |_, new| {
        if new.is_some() {
            let claims = c.claims.list();
            claims.iter().filter(|c| asks_us(c)).for_each(|c| q.add(Key::Claim(meta::key(&c.metadata))));
        }
    });
    let (q, v) = (queue.clone(), volumes.clone());
    nodes.subscribe(move |old, new| {
        if let (Some(node), None) = (old, new) {
            let all = v.list();
            let its = all.iter().filter(|v| is_folder_of(v, node.name()));
            its.for_each(|v| q.add(Key::Volume(meta::name(&v.metadata).to_owned())));
        }
    });
    env.run(&queue, WORKERS, synced!(claims, volumes, classes, nodes), move |key: Key| {
        let controller = controller.clone();
        async move {
            match key {
                Key::Claim(key) => controller.provide(&key).await?,
                Key::Volume(name) => controller.keep(&name).await?,
            }
            Ok::<_, Status>(Outcome::Done)
        }
    });
}

/// Whether a claim waits for a volume of ours.
fn asks_us(claim: &PersistentVolumeClaim) -> bool {
    let asked = [ASKED, PROVISIONER_BETA].iter().find_map(|key| meta::annotation(&claim.metadata, key));
    let unnamed = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default().is_empty();
    asked == Some(PROVISIONER) && unnamed && claim.metadata.deletion_timestamp.is_none()
}

pub(super) fn is_ours(volume: &PersistentVolume) -> bool {
    meta::annotation(&volume.metadata, PROVISIONED_BY) == Some(PROVISIONER)
}

impl Controller {
    /// Makes the volume of a claim.
    async fn provide(&self, key: &str) -> Result<(), Status> {
        let Some(claim) = self.claims.get(key).filter(|c| asks_us(c)) else { return Ok(()) };
        let class = class_of_claim(&claim).unwrap_or_default();
        let Some(class) = self.classes.get(class).filter(|c| c.provisioner == PROVISIONER) else {
            return Ok(());
        };
        let node = meta::annotation(&claim.metadata, SELECTED_NODE);
        let name = format!("pvc-{}", meta::uid(&claim.metadata));
        if (waits_for_consumer(&class) && node.is_none()) || self.volumes.get(&name).is_some() {
            return Ok(());
        }
        let about = reference(&*claim);
        let text = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.recorder.normal(&about, "Provisioning", text);
        let made = match self.place(&claim, node) {
            Ok(affinity) => volume(&self.storage, &class, &claim, name.clone(), affinity, node),
            Err(why) => {
                let class = meta::name(&class.metadata);
                let text = format!("failed to provision volume with StorageClass \"{class}\": {why}");
                self.recorder.warning(&about, "ProvisioningFailed", text);
                return Ok(());
            }
        };
        match self.volume_api.create(made).await {
            Err(status) if status.is_already_exists() => Ok(()),
            Err(status) => Err(status),
            Ok(_) => {
                let text = format!("Successfully provisioned volume {name}");
                self.recorder.normal(&about, "ProvisioningSucceeded", text);
                Ok(())
            }
        }
    }

    /// Which nodes see the claim's volume, or why it cannot be.
    fn place(
        &self,
        claim: &PersistentVolumeClaim,
        node: Option<&str>,
    ) -> Result<NodeSelectorRequirement, String> {
        let no = |why: &str| Err(why.to_owned());
        let spec = claim.spec.clone().unwrap_or_default();
        if volume_mode(spec.volume_mode.as_ref()) == "Block" {
            return no("block volumes are not supported by folders");
        }
        if spec.selector.is_some() {
            return no("claim Selector is not supported");
        }
        if spec.data_source_ref.is_some() || spec.data_source.is_some() {
            return no("data sources are not supported by folders");
        }
        let anywhere =
            NodeSelectorRequirement { key: HOSTNAME.to_owned(), operator: "Exists".to_owned(), values: None };
        if self.storage.shared {
            return Ok(anywhere);
        }
        let many = |mode: &String| mode.ends_with("Many");
        if spec.access_modes.iter().flatten().any(many) {
            return no("a folder of one node cannot be mounted by many");
        }
        let Some(node) = node else { return no("no node is selected for a volume of one node") };
        let Some(node) = self.nodes.get(node) else { return no(&format!("node {node} does not exist")) };
        let Some(host) = node.metadata.labels.get(HOSTNAME).cloned() else {
            return no("the selected node has no hostname");
        };
        Ok(NodeSelectorRequirement { operator: "In".to_owned(), values: Some(vec![host]), ..anywhere })
    }

    /// Takes care of a volume that was made here: its finalizer, and in the end its folder.
    async fn keep(&self, name: &str) -> Result<(), Status> {
        let Some(volume) = self.volumes.get(name).filter(|v| is_ours(v)) else { return Ok(()) };
        let spec = volume.spec.clone().unwrap_or_default();
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let deleting = volume.metadata.deletion_timestamp.is_some();
        let delete = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
        if !delete || !deleting && phase != "Released" {
            if has_finalizer(&*volume, PROVISIONER_FINALIZER) != delete && (!deleting || !delete) {
                self.finalize(&volume, delete).await?;
            }
            return Ok(());
        }
        if phase == "Bound" || !deleting && phase != "Released" {
            return Ok(());
        }
        if self.storage.shared
            && let Some(folder) = self.folder(&spec)
            && let Err(error) = (self.storage.remove)(folder.clone()).await
        {
            let text = format!("removing {}: {error}", folder.display());
            self.recorder.warning(&reference(&*volume), "VolumeFailedDelete", text.clone());
            return Err(Status::internal(text));
        }
        if !deleting {
            let gone = |status: Status| if status.is_not_found() { Ok(()) } else { Err(status) };
            self.volume_api.delete("", name, delete_uid(meta::uid(&volume.metadata))).await.or_else(gone)?;
        }
        // On its own storage, the node says by the finalizer that the folder is gone.
        if self.storage.shared || self.is_lost(&volume) {
            self.finalize(&volume, false).await
        } else {
            Ok(())
        }
    }

    /// Whether the volume's folder went with its node.
    fn is_lost(&self, volume: &PersistentVolume) -> bool {
        let placed = volume.metadata.labels.as_ref().is_some_and(|l| l.contains_key(FOLDER_NODE));
        placed && !self.nodes.list().iter().any(|node| is_folder_of(volume, node.name()))
    }

    async fn finalize(&self, volume: &PersistentVolume, wanted: bool) -> Result<(), Status> {
        let name = meta::name(&volume.metadata);
        let change = |v: &mut PersistentVolume| finalizer(v, PROVISIONER_FINALIZER, wanted);
        match self.volume_api.modify("", name, change).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    /// The folder of a volume. Only one directly below ours is ever removed, whatever the object says.
    fn folder(&self, spec: &PersistentVolumeSpec) -> Option<PathBuf> {
        let path = PathBuf::from(&spec.local.as_ref()?.path);
        let name = path.file_name()?.to_owned();
        (path.parent()? == self.storage.folder && self.storage.folder.join(name) == path).then_some(path)
    }
}

fn volume(
    storage: &Storage,
    class: &StorageClass,
    claim: &PersistentVolumeClaim,
    name: String,
    seen_by: NodeSelectorRequirement,
    node: Option<&str>,
) -> PersistentVolume {
    let (meta, spec) = (&claim.metadata, claim.spec.clone().unwrap_or_default());
    let size = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
    let size = size.cloned().unwrap_or_else(|| Quantity("0".to_owned()));
    let folder = format!("{name}_{}_{}", meta::namespace(meta), meta::name(meta));
    let policy = class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned());
    let finalizers = (policy == "Delete").then(|| vec![PROVISIONER_FINALIZER.to_owned()]);
    let term = NodeSelectorTerm { match_expressions: Some(vec![seen_by]), match_fields: None };
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            labels: node
                .filter(|_| !storage.shared)
                .map(|n| [(FOLDER_NODE.to_owned(), node_label(n))].into()),
            finalizers,
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some([("storage".to_owned(), size)].into()),
            claim_ref: Some(ObjectReference {
                resource_version: meta.resource_version.clone(),
                field_path: None,
                ..reference(claim)
            }),
            local: Some(LocalVolumeSource {
                path: storage.folder.join(folder).to_string_lossy().into_owned(),
                fs_type: None,
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: Some(policy),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// Storage for tests: nothing is removed but remembered.
#[cfg(test)]
pub mod testing {
    use super::Storage;
    use std::sync::Arc;

    pub fn storage() -> Storage {
        let remove = Arc::new(|_| -> futures::future::BoxFuture<_> { Box::pin(async { Ok(()) }) });
        Storage { folder: "/volumes".into(), shared: true, remove }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use krate_api::Kind;
    use krate_api::types::core::v1::Node;
    use serde_json::json;

    /// A released volume of a folder on `node-1`.
    fn released() -> PersistentVolume {
        PersistentVolume::from_value(json!({
            "metadata": {
                "name": "pvc-1", "uid": "1", "finalizers": [PROVISIONER_FINALIZER],
                "annotations": {PROVISIONED_BY: PROVISIONER}, "labels": {FOLDER_NODE: node_label("node-1")},
            },
            "spec": {"persistentVolumeReclaimPolicy": "Delete", "local": {"path": "/volumes/pvc-1"}},
            "status": {"phase": "Released"},
        }))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_is_removed_by_its_node_or_goes_with_it() {
        let mut w = World::new(&[]);
        w.env.storage = Some(Storage { shared: false, ..testing::storage() });
        start(&w.env);
        for name in ["node-1", "node-2"] {
            w.fake.put(&Node::from_value(json!({"metadata": {"name": name}})).unwrap());
        }
        w.fake.put(&released());
        w.pass(60).await;
        let volume = w.fake.get::<PersistentVolume>("", "pvc-1").unwrap();
        assert!(volume.metadata.deletion_timestamp.is_some(), "it is to go");
        assert!(has_finalizer(&*volume, PROVISIONER_FINALIZER), "when its node has removed the folder");
        let nodes: Api<Node> = w.api();
        nodes.delete("", "node-2", Default::default()).await.unwrap();
        w.pass(60).await;
        assert!(w.fake.get::<PersistentVolume>("", "pvc-1").is_some(), "another node is no matter");
        nodes.delete("", "node-1", Default::default()).await.unwrap();
        w.settle().await;
        assert!(w.fake.get::<PersistentVolume>("", "pvc-1").is_none());
    }
}
