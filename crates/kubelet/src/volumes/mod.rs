//! Volumes of pods: set up before the first container, kept up to date while the pod lives, taken down
//! after the last container has ended.
//!
//! One small file per kind. Setting up is idempotent and never empties what is there. File work happens on
//! tokio's blocking threads.

pub mod atomic;
pub mod claims;
pub mod empty_dir;
pub mod files;
pub mod folders;
pub mod host_path;
pub mod mount;
pub mod nfs;
pub mod ownership;
pub mod persistent;
pub mod subpath;
pub mod tokens;

use crate::env::Referenced;
use crate::env::fields::Facts;
use crate::paths::Paths;
use crate::spec;
use atomic::{Payload, Stamp};
use claims::Claims;
use krate_api::types::core::v1::{HostPathVolumeSource, Pod, Volume};
use krate_api::volumes::claim_name;
use krate_base::Timestamp;
use mount::Mounter;
use persistent::Persistent;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokens::Tokens;

/// Why a volume is not there now, as the event `FailedMount` says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What it is is known, but it cannot be set up.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
    SetUp { volume: String, reason: String },
    /// It must not be mounted on this node.
    #[error("MountVolume.NodeAffinity check failed for volume \"{volume}\" : no matching NodeSelectorTerms")]
    Elsewhere { volume: String },
    /// What it is cannot be found out.
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process \
         volumes=[{volume}]: {reason}"
    )]
    Process { volume: String, reason: String },
}

/// The volumes of one pod.
#[derive(Clone, Debug, Default)]
pub struct SetUp {
    /// Folder (or file) of each volume, by the volume's name. Image volumes are not here: the runtime
    /// mounts them.
    pub paths: BTreeMap<String, PathBuf>,
    /// When a token has to be replaced.
    pub refresh_at: Option<Timestamp>,
}

/// Sets volumes up and takes them down.
pub struct Volumes {
    pub paths: Paths,
    pub mounter: Arc<dyn Mounter>,
    pub claims: Claims,
    pub tokens: Arc<Tokens>,
    pub stamp: Stamp,
}

/// What the blocking half of a set-up is to do.
enum Work {
    EmptyDir { at: PathBuf },
    HostPath(HostPathVolumeSource),
    Files { at: PathBuf, payload: Payload, in_memory: bool },
    Persistent(Persistent),
    Nothing,
}

impl Volumes {
    /// Makes all volumes of the pod what they should be now.
    pub async fn set_up(
        &self,
        pod: &Arc<Pod>,
        facts: &Facts,
        referenced: &Referenced,
    ) -> Result<SetUp, Error> {
        let mut out = SetUp::default();
        for volume in spec::spec(pod).volumes.iter().flatten() {
            let mut name = volume.name.clone();
            let (work, refresh) = if let Some(claim) = claim_name(spec::name(pod), volume) {
                let (found, work) = self.persistent(pod, volume, &claim).await?;
                name = found;
                (work, None)
            } else {
                let failed = |reason: String| Error::SetUp { volume: name.clone(), reason };
                self.prepare(pod, volume, facts, referenced).await.map_err(failed)?
            };
            let failed = |reason: String| Error::SetUp { volume: name.clone(), reason };
            out.refresh_at = [out.refresh_at, refresh].into_iter().flatten().min();
            let path = match &work {
                Work::EmptyDir { at } | Work::Files { at, .. } => at.clone(),
                Work::HostPath(source) => PathBuf::from(&source.path),
                Work::Persistent(work) => work.path(),
                Work::Nothing => continue,
            };
            out.paths.insert(volume.name.clone(), path);
            let (pod, volume, stamp, mounter) =
                (pod.clone(), volume.clone(), self.stamp.clone(), self.mounter.clone());
            let done =
                tokio::task::spawn_blocking(move || carry_out(&pod, &volume, work, &stamp, &*mounter)).await;
            done.map_err(|e| failed(e.to_string()))?.map_err(failed)?;
        }
        Ok(out)
    }

    /// The half of a set-up that asks the API.
    async fn prepare(
        &self,
        pod: &Arc<Pod>,
        volume: &Volume,
        facts: &Facts,
        referenced: &Referenced,
    ) -> Result<(Work, Option<Timestamp>), String> {
        let at = |plugin: &str| self.paths.volume(spec::uid(pod), plugin, &volume.name);
        let files = |at: PathBuf, payload: Payload, in_memory: bool| Work::Files { at, payload, in_memory };
        let default = |mode: Option<i32>| mode.unwrap_or(files::DEFAULT_MODE);
        if volume.empty_dir.is_some() {
            return Ok((Work::EmptyDir { at: at(empty_dir::PLUGIN) }, None));
        }
        if let Some(source) = &volume.host_path {
            return Ok((Work::HostPath(source.clone()), None));
        }
        if let Some(source) = &volume.nfs {
            let export = nfs::Export::of(source, &[]);
            return Ok((Work::Persistent(Persistent::Nfs { export, at: at(nfs::PLUGIN) }), None));
        }
        if let Some(s) = &volume.config_map {
            let payload = files::config_map(
                referenced,
                &s.name,
                s.items.as_ref(),
                default(s.default_mode),
                s.optional,
            )?;
            return Ok((files(at("configmap"), payload, false), None));
        }
        if let Some(s) = &volume.secret {
            let name = s.secret_name.as_deref().unwrap_or_default();
            let payload =
                files::secret(referenced, name, s.items.as_ref(), default(s.default_mode), s.optional)?;
            return Ok((files(at("secret"), payload, true), None));
        }
        if let Some(s) = &volume.downward_api {
            let payload = files::downward(pod, facts, s.items.as_ref(), default(s.default_mode))?;
            return Ok((files(at("downward-api"), payload, false), None));
        }
        if let Some(s) = &volume.projected {
            let (mut tokens, mut refresh) = (Vec::new(), None);
            for request in files::token_requests(s) {
                let (token, at) = self
                    .tokens
                    .get(pod, request)
                    .await
                    .map_err(|status| format!("failed to fetch token: {}", status.message()))?;
                tokens.push(token);
                refresh = [refresh, Some(at)].into_iter().flatten().min();
            }
            let payload = files::projected(pod, facts, referenced, s, &tokens)?;
            return Ok((files(at("projected"), payload, true), refresh));
        }
        if volume.image.is_some() {
            return Ok((Work::Nothing, None));
        }
        Err("no volume plugin matched".to_owned())
    }

    /// A volume behind a claim: its name, and what is to be done.
    async fn persistent(&self, pod: &Pod, volume: &Volume, claim: &str) -> Result<(String, Work), Error> {
        let found = self.claims.find(pod, volume, claim).await?;
        let name = found.metadata.name.clone().unwrap_or_default();
        let at = self.paths.volume(spec::uid(pod), nfs::PLUGIN, &name);
        match persistent::of(&found, pod, volume, at) {
            Ok(work) => Ok((name, Work::Persistent(work))),
            Err(reason) => Err(Error::SetUp { volume: name, reason }),
        }
    }

    /// Takes the pod's volumes down and removes everything of the pod below the kubelet's folder.
    pub async fn tear_down(&self, uid: &str) -> std::io::Result<()> {
        self.tokens.forget(uid);
        self.claims.forget(uid);
        let (folder, mounter) = (self.paths.pod(uid), self.mounter.clone());
        let done = tokio::task::spawn_blocking(move || {
            mounter.unmount_all(&folder)?;
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        });
        done.await.map_err(std::io::Error::other)?
    }
}

/// The half of a set-up that works on files.
fn carry_out(
    pod: &Pod,
    volume: &Volume,
    work: Work,
    stamp: &Stamp,
    mounter: &dyn Mounter,
) -> Result<(), String> {
    let group = spec::spec(pod).security_context.as_ref().and_then(|s| s.fs_group);
    let group = group.and_then(|g| u32::try_from(g).ok());
    match work {
        Work::EmptyDir { at } => {
            let source = volume.empty_dir.clone().unwrap_or_default();
            empty_dir::set_up(pod, &source, &at, mounter)?;
            give_once(pod, &at, group)
        }
        Work::HostPath(source) => host_path::set_up(&source),
        Work::Persistent(work) => {
            work.set_up(mounter)?;
            match &work {
                Persistent::Local { path, read_only: false, .. } => give_by_policy(pod, path, group),
                _ => Ok(()),
            }
        }
        Work::Files { at, payload, in_memory } => {
            if in_memory {
                empty_dir::in_memory(&at, None, mounter)?;
            } else {
                std::fs::create_dir_all(&at).map_err(|e| e.to_string())?;
            }
            // Nobody in the pod writes these, so its group may read them and no more.
            let own = |folder: &Path| group.map_or(Ok(()), |g| ownership::give_to_group(folder, g, true));
            atomic::write(&at, &payload, stamp, own).map(drop).map_err(|e| e.to_string())
        }
        Work::Nothing => Ok(()),
    }
}

/// Gives a volume with the user's own files to the pod's group. Only once: it walks all files.
fn give_once(pod: &Pod, at: &Path, group: Option<u32>) -> Result<(), String> {
    let Some(group) = group else { return Ok(()) };
    let started = pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
    if started || ownership::belongs_to_group(at, group) {
        return Ok(());
    }
    ownership::give_to_group(at, group, false).map_err(|e| format!("applying fsGroup: {e}"))
}

/// As [`give_once`], of a volume that others have used before: whether all files are looked at again is the
/// pod's choice.
fn give_by_policy(pod: &Pod, at: &Path, group: Option<u32>) -> Result<(), String> {
    let security = spec::spec(pod).security_context.as_ref();
    let policy = security.and_then(|s| s.fs_group_change_policy.as_deref());
    if policy == Some("OnRootMismatch") {
        return give_once(pod, at, group);
    }
    let started = pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
    let Some(group) = group.filter(|_| !started) else { return Ok(()) };
    ownership::give_to_group(at, group, false).map_err(|e| format!("applying fsGroup: {e}"))
}

/// Names of the ConfigMaps and Secrets that the pod's volumes need.
pub fn references(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for volume in spec::spec(pod).volumes.iter().flatten() {
        config_maps.extend(volume.config_map.iter().map(|s| s.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        for part in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            config_maps.extend(part.config_map.iter().map(|s| s.name.clone()));
            secrets.extend(part.secret.iter().map(|s| s.name.clone()));
        }
    }
    (config_maps, secrets)
}
