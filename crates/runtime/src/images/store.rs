//! The image store: names that point at images, images made of blobs, blobs unpacked into snapshots.
//!
//! Layout below the root: `blobs/sha256`, `snapshots`, `refs` (one small file per name), `leases` (one file
//! per user of snapshots, so that removing an image does not pull the floor from under a container), `tmp`,
//! `lock`. Whoever adds holds the lock shared; the garbage collector holds it alone.

use super::blobs::{BlobStore, Digest, write_file};
use super::config::{Document, ImageConfig, Manifest, choose};
use super::reference::Reference;
use super::snapshot::{Snapshots, chain};
use crate::cri::{Error, Image, Result};
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Links followed when a file of an image is looked up.
const MAX_LINKS: usize = 16;
/// Largest file that is read out of an image (passwd and group).
const MAX_FILE: u64 = 4 << 20;

/// What a name points at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RefFile {
    name: String,
    /// What the name resolved to: a manifest or an index.
    target: Digest,
    manifest: Digest,
    config: Digest,
}

/// An image and all its names.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    /// The configuration's digest; the image's id.
    pub id: Digest,
    pub manifest: Digest,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    /// Bytes of its blobs.
    pub size: u64,
    pub config: Arc<ImageConfig>,
}

impl ImageRecord {
    /// The image in the CRI's words.
    #[must_use]
    pub fn to_cri(&self) -> Image {
        let user = self.config.config.user.split(':').next().unwrap_or_default();
        let uid = user.parse::<i64>().ok();
        Image {
            id: self.id.to_string(),
            repo_tags: self.tags.clone(),
            repo_digests: self.digests.clone(),
            size: self.size,
            uid,
            username: if uid.is_some() { String::new() } else { user.to_owned() },
            pinned: false,
        }
    }

    /// What container states show as the image: a digest name when there is one.
    #[must_use]
    pub fn reference(&self) -> String {
        self.digests.first().cloned().unwrap_or_else(|| self.id.to_string())
    }
}

/// The unpacked layers of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// The folder that the layers' names are relative to.
    pub folder: PathBuf,
    /// Lowest first.
    pub layers: Vec<String>,
}

pub struct ImageStore {
    root: PathBuf,
    pub blobs: BlobStore,
    snapshots: Snapshots,
    configs: Mutex<BTreeMap<Digest, Arc<ImageConfig>>>,
}

/// Held while something is added that nothing refers to yet.
pub struct Adding(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

impl ImageStore {
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self {
            root: root.to_owned(),
            blobs: BlobStore::open(root)?,
            snapshots: Snapshots::open(root)?,
            configs: Mutex::default(),
        };
        for folder in ["refs", "leases"] {
            std::fs::create_dir_all(root.join(folder)).map_err(|e| Error::io("make the image store", e))?;
        }
        Ok(store)
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Keeps the garbage collector out until dropped.
    pub fn adding(&self) -> Result<Adding> {
        self.lock(FlockArg::LockShared).map(Adding)
    }

    fn lock(&self, how: FlockArg) -> Result<Flock<File>> {
        let file = File::create(self.root.join("lock")).map_err(|e| Error::io("open the store's lock", e))?;
        Flock::lock(file, how).map_err(|(_, error)| Error::io("lock the image store", error))
    }

    /// Every image, by id.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        let mut by_id: BTreeMap<Digest, Vec<RefFile>> = BTreeMap::new();
        for reference in self.refs()? {
            by_id.entry(reference.config.clone()).or_default().push(reference);
        }
        by_id.into_values().map(|names| self.record(&names)).collect()
    }

    /// An image by name, id, or unique beginning of an id.
    pub fn find(&self, image: &str) -> Result<Option<ImageRecord>> {
        let refs = self.refs()?;
        let Some(id) = resolve(&refs, image) else { return Ok(None) };
        let names: Vec<RefFile> = refs.into_iter().filter(|reference| reference.config == id).collect();
        self.record(&names).map(Some)
    }

    /// Gives the image at `target` (a manifest, or an index of which one runs here) these names, after
    /// unpacking it.
    pub fn publish(&self, target: &Digest, names: &[Reference]) -> Result<Digest> {
        let (manifest_digest, manifest) = self.manifest(target)?;
        let config_digest = Digest::parse(&manifest.config.digest)?;
        self.snapshots.ensure(&self.blobs, &manifest, &*self.config(&config_digest)?)?;
        for name in names {
            let file = RefFile {
                name: name.to_string(),
                target: target.clone(),
                manifest: manifest_digest.clone(),
                config: config_digest.clone(),
            };
            let json = serde_json::to_vec(&file).map_err(|error| Error::io("encode a reference", error))?;
            write_file(&self.ref_path(&file.name), &json, true)
                .map_err(|e| Error::io("write a reference", e))?;
        }
        Ok(config_digest)
    }

    /// The manifest that runs here.
    pub fn manifest(&self, target: &Digest) -> Result<(Digest, Manifest)> {
        let invalid =
            |error: serde_json::Error| Error::InvalidArgument(format!("invalid manifest {target}: {error}"));
        match Document::parse(&self.blobs.read(target)?).map_err(invalid)? {
            Document::Manifest(manifest) => Ok((target.clone(), manifest)),
            Document::Index(index) => {
                let chosen = choose(&index).ok_or_else(|| {
                    let platform = format!("linux/{}", super::config::architecture());
                    Error::NotFound(format!(
                        "no match for platform in manifest: {platform} is not in {target}"
                    ))
                })?;
                self.manifest(&Digest::parse(&chosen.digest)?)
            }
        }
    }

    /// An image's configuration; parsed once.
    pub fn config(&self, digest: &Digest) -> Result<Arc<ImageConfig>> {
        if let Some(known) = self.configs.lock().get(digest) {
            return Ok(known.clone());
        }
        let config: ImageConfig = serde_json::from_slice(&self.blobs.read(digest)?)
            .map_err(|error| Error::InvalidArgument(format!("invalid image config {digest}: {error}")))?;
        let config = Arc::new(config);
        self.configs.lock().insert(digest.clone(), config.clone());
        Ok(config)
    }

    /// The image's layers, unpacked, and kept until [`Self::release`] for `owner`.
    pub fn lease(&self, owner: &str, image: &ImageRecord) -> Result<Rootfs> {
        let _adding = self.adding()?;
        let (_, manifest) = self.manifest(&image.manifest)?;
        let layers = self.snapshots.ensure(&self.blobs, &manifest, &image.config)?;
        write_file(&self.root.join("leases").join(owner), layers.join("\n").as_bytes(), false)
            .map_err(|error| Error::io("write a lease", error))?;
        Ok(Rootfs { folder: self.snapshots.folder.clone(), layers })
    }

    pub fn release(&self, owner: &str) -> Result<()> {
        match std::fs::remove_file(self.root.join("leases").join(owner)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove a lease", error)),
            _ => Ok(()),
        }
    }

    /// Removes a name, or with an id all names of the image, and then what nothing refers to any more.
    pub fn remove(&self, image: &str) -> Result<()> {
        {
            let _adding = self.adding()?;
            let refs = self.refs()?;
            let Some(id) = resolve(&refs, image) else { return Ok(()) };
            let name = super::reference::normalise(image).unwrap_or_default();
            let by_name = refs.iter().any(|reference| reference.name == name);
            let tags = refs.iter().filter(|r| r.config == id && !r.name.contains('@')).count();
            for reference in refs.iter().filter(|r| r.config == id) {
                // The last tag takes the digest names along.
                if !by_name || reference.name == name || (tags <= 1 && reference.name.contains('@')) {
                    let removed = std::fs::remove_file(self.ref_path(&reference.name));
                    removed.or_else(ignore_absent).map_err(|error| Error::io("remove a reference", error))?;
                }
            }
        }
        self.collect()
    }

    /// Removes blobs and snapshots that no name and no lease needs.
    pub fn collect(&self) -> Result<()> {
        let _alone = self.lock(FlockArg::LockExclusive)?;
        let (mut blobs, mut snapshots) = (BTreeSet::new(), self.leased()?);
        for reference in self.refs()? {
            let (_, manifest) = self.manifest(&reference.manifest)?;
            let layers = manifest.layers.iter().map(|layer| layer.digest.clone());
            blobs.extend(
                layers.chain(
                    [&reference.target, &reference.manifest, &reference.config].map(ToString::to_string),
                ),
            );
            snapshots.extend(chain(&self.config(&reference.config)?.rootfs.diff_ids)?);
        }
        let failed = |error: io::Error| Error::io("collect garbage", error);
        for digest in self.blobs.all().map_err(failed)? {
            if !blobs.contains(digest.as_str()) {
                self.configs.lock().remove(&digest);
                self.blobs.remove(&digest).or_else(ignore_absent).map_err(failed)?;
            }
        }
        for name in self.snapshots.all().map_err(failed)? {
            if !snapshots.contains(&name) {
                self.snapshots.remove(&name).or_else(ignore_absent).map_err(failed)?;
            }
        }
        self.clear_tmp().map_err(failed)
    }

    /// Bytes and files of everything kept.
    pub fn usage(&self) -> (u64, u64) {
        crate::usage::tree(&self.root)
    }

    /// With the lock held alone nobody writes there, so what is there was left by a killed process.
    fn clear_tmp(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.root.join("tmp"))? {
            let path = entry?.path();
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
                .or_else(ignore_absent)?;
        }
        Ok(())
    }

    fn leased(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let read = |error: io::Error| Error::io("read the leases", error);
        for entry in std::fs::read_dir(self.root.join("leases")).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if unfinished(&path) {
                continue;
            }
            let text = std::fs::read_to_string(path).map_err(read)?;
            names.extend(text.lines().map(str::to_owned));
        }
        Ok(names)
    }

    fn ref_path(&self, name: &str) -> PathBuf {
        // A name's only character that a file's name cannot hold is the slash.
        self.root.join("refs").join(name.replace('/', "%2F"))
    }

    fn refs(&self) -> Result<Vec<RefFile>> {
        let read = |error: io::Error| Error::io("read the references", error);
        let mut refs = Vec::new();
        for entry in std::fs::read_dir(self.root.join("refs")).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if unfinished(&path) {
                continue;
            }
            match std::fs::read(&path) {
                Ok(json) => refs.push(
                    serde_json::from_slice(&json)
                        .map_err(|error| Error::io(format!("read {}", path.display()), error))?,
                ),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(read(error)),
            }
        }
        refs.sort_by(|a: &RefFile, b: &RefFile| a.name.cmp(&b.name));
        Ok(refs)
    }

    fn record(&self, names: &[RefFile]) -> Result<ImageRecord> {
        let first = names.first().ok_or_else(|| Error::Internal("an image without a name".into()))?;
        let (_, manifest) = self.manifest(&first.manifest)?;
        let (digests, tags): (Vec<_>, Vec<_>) =
            names.iter().map(|r| r.name.clone()).partition(|name| name.contains('@'));
        let layers: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
        let size = layers + manifest.config.size + self.blobs.size(&first.manifest).unwrap_or(0);
        let config = self.config(&first.config)?;
        Ok(ImageRecord {
            id: first.config.clone(),
            manifest: first.manifest.clone(),
            tags,
            digests,
            size,
            config,
        })
    }
}

fn unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn ignore_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// The id that a name, an id, or a beginning of an id means.
fn resolve(refs: &[RefFile], image: &str) -> Option<Digest> {
    let by_id = |wanted: &str| refs.iter().find(|r| r.config.as_str() == wanted || r.config.hex() == wanted);
    if let Some(found) = by_id(image) {
        return Some(found.config.clone());
    }
    if let Ok(mut reference) = Reference::parse(image) {
        if reference.digest.is_some() {
            reference.tag = None;
        }
        let name = reference.to_string();
        if let Some(found) = refs.iter().find(|r| r.name == name) {
            return Some(found.config.clone());
        }
    }
    let short = image.len() >= 12 && image.bytes().all(|b| b.is_ascii_hexdigit());
    let mut matching = refs.iter().filter(|r| short && r.config.hex().starts_with(image));
    let first = matching.next()?;
    matching.all(|other| other.config == first.config).then(|| first.config.clone())
}

impl Rootfs {
    /// A file of the image as a container would see it, or `None`. Links are followed inside the image.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut path = PathBuf::from(path.trim_start_matches('/'));
        for _ in 0..MAX_LINKS {
            let found = self.lookup(&path)?;
            let meta = found.symlink_metadata().ok()?;
            if meta.is_symlink() {
                let target = std::fs::read_link(&found).ok()?;
                path = join_inside(path.parent().unwrap_or(Path::new("")), &target);
            } else if meta.is_file() && meta.len() <= MAX_FILE {
                return std::fs::read(&found).ok();
            } else {
                return None;
            }
        }
        None
    }

    /// The topmost entry of that name, whiteouts and opaque folders obeyed.
    fn lookup(&self, path: &Path) -> Option<PathBuf> {
        for layer in self.layers.iter().rev() {
            let mut here = self.folder.join(layer);
            let mut opaque = false;
            let mut found = true;
            for component in path.components() {
                here.push(component);
                match here.symlink_metadata() {
                    Ok(meta) if meta.file_type().is_char_device() => return None,
                    Ok(meta) if meta.is_dir() => {
                        opaque |= crate::kernel::xattr::get(&here, b"trusted.overlay.opaque").ok()?.is_some();
                    }
                    Ok(_) => {}
                    Err(_) => {
                        found = false;
                        break;
                    }
                }
            }
            if found {
                return Some(here);
            }
            if opaque {
                return None;
            }
        }
        None
    }
}

fn join_inside(folder: &Path, target: &Path) -> PathBuf {
    use std::path::Component;
    let mut result = if target.is_absolute() { PathBuf::new() } else { folder.to_owned() };
    for component in target.components() {
        match component {
            Component::Normal(part) => result.push(part),
            Component::ParentDir => {
                result.pop();
            }
            _ => {}
        }
    }
    result
}

#[cfg(test)]
mod tests;
