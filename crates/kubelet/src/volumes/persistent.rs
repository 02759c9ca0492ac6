//! What persistent volumes can be on this node: a path, a local folder, an export of an NFS server.

use super::mount::Mounter;
use super::{host_path, nfs};
use krate_api::types::core::v1::{HostPathVolumeSource, PersistentVolume, Pod, Volume};
use krate_api::volumes::{FOLDER_PROVISIONER, PROVISIONED_BY, volume_mode};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A volume behind a claim, or one that is mounted like it.
#[derive(Clone, Debug, PartialEq)]
pub enum Persistent {
    HostPath(HostPathVolumeSource),
    Local {
        path: PathBuf,
        read_only: bool,
        /// It is one of the cluster's own folders: made when it is first used.
        make: bool,
        /// It is a device, not a folder.
        block: bool,
    },
    Nfs {
        export: nfs::Export,
        at: PathBuf,
    },
}

/// What is to be done for a volume of a pod. `at` is where it is mounted if it has to be.
pub fn of(found: &PersistentVolume, _: &Pod, volume: &Volume, at: PathBuf) -> Result<Persistent, String> {
    let spec = found.spec.clone().unwrap_or_default();
    let block = volume_mode(spec.volume_mode.as_ref()) == "Block";
    let read_only = volume.persistent_volume_claim.as_ref().is_some_and(|s| s.read_only == Some(true));
    if let Some(source) = spec.local {
        let maker = found.metadata.annotations.as_ref().and_then(|a| a.get(PROVISIONED_BY));
        let make = maker.is_some_and(|m| m == FOLDER_PROVISIONER) && !block;
        return Ok(Persistent::Local { path: source.path.into(), read_only, make, block });
    }
    if block {
        return Err("only local volumes can be used as block devices on this node".to_owned());
    }
    if let Some(source) = spec.host_path {
        return Ok(Persistent::HostPath(source));
    }
    if let Some(source) = &spec.nfs {
        let mut export = nfs::Export::of(source, spec.mount_options.as_deref().unwrap_or_default());
        export.read_only |= read_only;
        return Ok(Persistent::Nfs { export, at });
    }
    Err("no volume plugin matched".to_owned())
}

impl Persistent {
    /// Where containers find it on the node.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::HostPath(source) => PathBuf::from(&source.path),
            Self::Local { path, .. } => path.clone(),
            Self::Nfs { at, .. } => at.clone(),
        }
    }

    pub fn set_up(&self, mounter: &dyn Mounter) -> Result<(), String> {
        match self {
            Self::HostPath(source) => host_path::set_up(source),
            Self::Local { path, make, block, .. } => local(path, *make, *block),
            Self::Nfs { export, at } => nfs::set_up(export, at, mounter),
        }
    }
}

fn local(path: &Path, make: bool, block: bool) -> Result<(), String> {
    if make && !path.exists() {
        let failed = |e: io::Error| format!("mkdir {}: {e}", path.display());
        std::fs::create_dir_all(path).map_err(failed)?;
        // Whoever runs in the pod may write; a pod with a group narrows nothing.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).map_err(failed)?;
    }
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|_| format!("path {:?} does not exist", path.display().to_string()))?;
    let kind = metadata.file_type();
    if block && !kind.is_block_device() {
        return Err(format!("{} is not a block device", path.display()));
    }
    if !block && kind.is_block_device() {
        return Err(format!("{} is a block device and has no file system mounted", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::mount::Recorded;
    use super::*;
    use crate::spec::build::pod;
    use krate_api::Kind;
    use serde_json::json;

    fn work(spec: serde_json::Value, ours: bool) -> Result<Persistent, String> {
        let by = if ours { FOLDER_PROVISIONER } else { "" };
        let meta = json!({"name": "pv", "annotations": {PROVISIONED_BY: by}});
        let found = PersistentVolume::from_value(json!({"metadata": meta, "spec": spec})).unwrap();
        of(&found, &pod("web"), &Volume::default(), "/mnt/pv".into())
    }

    #[test]
    fn the_clusters_own_folders_are_made_and_others_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pvc-1");
        let spec = json!({"local": {"path": path}});
        let error = work(spec.clone(), false).unwrap().set_up(&Recorded::default()).unwrap_err();
        assert_eq!(error, format!("path {:?} does not exist", path.display().to_string()));
        work(spec, true).unwrap().set_up(&Recorded::default()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
    }

    #[test]
    fn what_no_node_can_mount_is_refused() {
        assert_eq!(
            work(json!({"csi": {"driver": "d", "volumeHandle": "h"}}), false).unwrap_err(),
            "no volume plugin matched"
        );
        assert!(work(json!({"hostPath": {"path": "/x"}, "volumeMode": "Block"}), false).is_err());
    }

    #[test]
    fn an_export_is_mounted_once() {
        let dir = tempfile::tempdir().unwrap();
        let export = nfs::Export { server: "192.0.2.1".into(), path: "/data".into(), ..Default::default() };
        let work = Persistent::Nfs { export, at: dir.path().join("pv") };
        let mounter = Recorded::default();
        work.set_up(&mounter).unwrap();
        work.set_up(&mounter).unwrap();
        assert_eq!(mounter.mounted(), [(dir.path().join("pv"), None)]);
    }
}
