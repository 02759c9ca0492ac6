//! Unpacked layers, one folder per chain of layers, shared read-only by every container that needs it.
//!
//! A snapshot appears by rename when it is complete and on the disk. Its name is short because the kernel
//! takes all lower layers of a mount in one page of text.

use super::blobs::{BlobStore, Digest, sync_folder};
use super::config::{ImageConfig, Manifest};
use super::layer;
use crate::cri::{Error, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Hex digits of a chain's digest in a snapshot's name: 127 layers fit in a page.
const NAME_LENGTH: usize = 24;

#[derive(Clone, Debug)]
pub struct Snapshots {
    pub folder: PathBuf,
    tmp: PathBuf,
}

impl Snapshots {
    pub fn open(root: &Path) -> Result<Self> {
        let this = Self { folder: root.join("snapshots"), tmp: root.join("tmp") };
        std::fs::create_dir_all(&this.folder).map_err(|e| Error::io("make the snapshot folder", e))?;
        Ok(this)
    }

    /// Unpacks what is not there yet; names of the image's snapshots, lowest first.
    pub fn ensure(
        &self,
        blobs: &BlobStore,
        manifest: &Manifest,
        config: &ImageConfig,
    ) -> Result<Vec<String>> {
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let (layers, ids) = (manifest.layers.len(), diff_ids.len());
            return Err(Error::InvalidArgument(format!(
                "mismatched image rootfs ({ids} diff ids) and manifest layers ({layers})"
            )));
        }
        let names = chain(diff_ids)?;
        for (index, (name, layer)) in names.iter().zip(&manifest.layers).enumerate() {
            if self.folder.join(name).exists() {
                continue;
            }
            let below: Vec<PathBuf> =
                names[..index].iter().rev().map(|name| self.folder.join(name)).collect();
            let blob = blobs.open_blob(&Digest::parse(&layer.digest)?)?;
            self.unpack(name, blob, &below, &Digest::parse(&diff_ids[index])?)?;
        }
        Ok(names)
    }

    fn unpack(&self, name: &str, blob: File, below: &[PathBuf], wanted: &Digest) -> Result<()> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let aside = self.tmp.join(format!("snapshot-{}-{serial}", std::process::id()));
        let unpacked = self.unpack_aside(&aside, blob, below, wanted).and_then(|()| {
            match std::fs::rename(&aside, self.folder.join(name)) {
                Ok(()) => sync_folder(&self.folder).map_err(|error| Error::io("sync the snapshots", error)),
                // Another process was faster with the same content.
                Err(_) if self.folder.join(name).exists() => Ok(()),
                Err(error) => Err(Error::io("keep the snapshot", error)),
            }
        });
        let _ = std::fs::remove_dir_all(&aside);
        unpacked
    }

    fn unpack_aside(&self, aside: &Path, blob: File, below: &[PathBuf], wanted: &Digest) -> Result<()> {
        let failed = |error: io::Error| Error::io(format!("failed to extract layer {wanted}"), error);
        std::fs::create_dir(aside).map_err(failed)?;
        std::fs::set_permissions(aside, PermissionsExt::from_mode(0o755)).map_err(failed)?;
        let found = layer::unpack(blob, aside, below).map_err(failed)?;
        if found != *wanted {
            return Err(Error::InvalidArgument(format!(
                "wrong diff id calculated on extraction {found}, expected {wanted}"
            )));
        }
        let folder = File::open(aside).map_err(failed)?;
        crate::kernel::mount::sync_filesystem(&folder).map_err(failed)
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        // Out of sight first: a half removed snapshot must not be taken for a whole one.
        let aside = self.tmp.join(format!("removed-{name}-{}", std::process::id()));
        std::fs::rename(self.folder.join(name), &aside)?;
        std::fs::remove_dir_all(&aside)
    }

    pub fn all(&self) -> io::Result<Vec<String>> {
        let names =
            std::fs::read_dir(&self.folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.collect())
    }
}

/// The snapshots' names of a stack of layers, lowest first.
pub fn chain(diff_ids: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::with_capacity(diff_ids.len());
    let mut sofar: Option<Digest> = None;
    for diff_id in diff_ids {
        let diff_id = Digest::parse(diff_id)?;
        let next = match sofar {
            None => diff_id,
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        names.push(next.hex()[..NAME_LENGTH].to_owned());
        sofar = Some(next);
    }
    Ok(names)
}
