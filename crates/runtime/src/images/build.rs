//! Images made from files, without any other tool: one layer of copies upon a base image or upon nothing.

use super::blobs::Digest;
use super::config::{
    Descriptor, ImageConfig, Manifest, OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST, architecture,
};
use super::reference::Reference;
use super::store::{ImageRecord, ImageStore};
use crate::cri::{Error, Result};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// What goes into an image.
#[derive(Clone, Debug, Default)]
pub struct BuildSpec {
    pub tag: String,
    /// An image of the store; `None` begins with nothing.
    pub from: Option<String>,
    pub copies: Vec<CopySpec>,
    /// Empty keeps the base's. A new entry point forgets the base's command.
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`; replaces the base's variable of that name.
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// One copy. Files keep their mode and time and belong to root.
#[derive(Clone, Debug)]
pub enum CopySpec {
    /// A file, or a folder whose contents are copied. A target that ends in `/` is a folder to copy into.
    Path { source: PathBuf, target: String },
    /// A file given as bytes.
    Bytes { content: std::sync::Arc<[u8]>, target: String, mode: u32 },
}

impl ImageStore {
    pub fn build(&self, spec: &BuildSpec) -> Result<ImageRecord> {
        let _adding = self.adding()?;
        let name = Reference::parse(&spec.tag)?;
        let (mut config, mut layers) = self.base(spec.from.as_deref())?;
        if !spec.copies.is_empty() {
            let layer = self.layer(&spec.copies)?;
            config.rootfs.diff_ids.push(layer.digest.clone());
            layers.push(layer);
        }
        apply(&mut config, spec);
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: self.document(OCI_CONFIG, &config)?,
            layers,
        };
        let target = Digest::parse(&self.document(OCI_MANIFEST, &manifest)?.digest)?;
        let id = self.publish(&target, &[name])?;
        self.find(id.as_str())?.ok_or_else(|| Error::Internal(format!("image {id} vanished")))
    }

    fn base(&self, from: Option<&str>) -> Result<(ImageConfig, Vec<Descriptor>)> {
        let Some(from) = from else {
            let config = ImageConfig {
                architecture: architecture().into(),
                os: "linux".into(),
                ..ImageConfig::default()
            };
            return Ok((config, Vec::new()));
        };
        let base = self.find(from)?.ok_or_else(|| Error::NotFound(format!("image {from:?}: not found")))?;
        let (_, manifest) = self.manifest(&base.manifest)?;
        Ok(((*base.config).clone(), manifest.layers))
    }

    fn document(&self, media_type: &str, value: &impl serde::Serialize) -> Result<Descriptor> {
        let json = serde_json::to_vec(value).map_err(|error| Error::io("encode an image document", error))?;
        let digest = self.blobs.put(&json)?.to_string();
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: json.len() as u64,
            ..Descriptor::default()
        })
    }

    /// The copies as a layer that is not compressed: it never leaves the machine, and importing it is then
    /// as fast as the disk.
    fn layer(&self, copies: &[CopySpec]) -> Result<Descriptor> {
        let mut tar = Builder::new(self.blobs.writer()?);
        for copy in copies {
            match copy {
                CopySpec::Path { source, target } => copy_path(&mut tar, source, target)
                    .map_err(|error| Error::InvalidArgument(format!("copy {}: {error}", source.display())))?,
                CopySpec::Bytes { content, target, mode } => {
                    let header = header(EntryType::Regular, *mode, 0);
                    append(&mut tar, header, &relative(target), content.len() as u64, &content[..])
                        .map_err(|error| Error::InvalidArgument(format!("copy to {target}: {error}")))?;
                }
            }
        }
        let writer = tar.into_inner().map_err(|error| Error::io("write the layer", error))?;
        let size = writer.length();
        let digest = writer.commit(None)?.to_string();
        Ok(Descriptor { media_type: OCI_LAYER_TAR.to_owned(), digest, size, ..Descriptor::default() })
    }
}

fn apply(config: &mut ImageConfig, spec: &BuildSpec) {
    let defaults = &mut config.config;
    if !spec.entrypoint.is_empty() {
        defaults.entrypoint = spec.entrypoint.clone();
        defaults.cmd = Vec::new();
    }
    if !spec.cmd.is_empty() {
        defaults.cmd = spec.cmd.clone();
    }
    for variable in &spec.env {
        let name = variable.split('=').next().unwrap_or(variable);
        defaults.env.retain(|known| known.split('=').next() != Some(name));
        defaults.env.push(variable.clone());
    }
    if let Some(workdir) = &spec.workdir {
        defaults.working_dir = workdir.clone();
    }
    if let Some(user) = &spec.user {
        defaults.user = user.clone();
    }
    defaults.labels.extend(spec.labels.clone());
}

fn copy_path<W: Write>(tar: &mut Builder<W>, source: &Path, target: &str) -> io::Result<()> {
    let meta = std::fs::metadata(source)?;
    if meta.is_dir() {
        return copy_folder(tar, source, &relative(target));
    }
    let mut place = relative(target);
    if target.ends_with('/') {
        place.push(source.file_name().unwrap_or_default());
    }
    let content = std::fs::File::open(source)?;
    append(tar, header(EntryType::Regular, meta.mode(), meta.mtime()), &place, meta.len(), content)
}

fn copy_folder<W: Write>(tar: &mut Builder<W>, folder: &Path, target: &Path) -> io::Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    if !target.as_os_str().is_empty() {
        let meta = folder.metadata()?;
        append(tar, header(EntryType::Directory, meta.mode(), meta.mtime()), target, 0, io::empty())?;
    }
    for entry in entries {
        let (path, place) = (entry.path(), target.join(entry.file_name()));
        let meta = path.symlink_metadata()?;
        if meta.is_dir() {
            copy_folder(tar, &path, &place)?;
        } else if meta.is_symlink() {
            let mut header = header(EntryType::Symlink, 0o777, meta.mtime());
            header.set_size(0);
            tar.append_link(&mut header, &place, std::fs::read_link(&path)?)?;
        } else if meta.is_file() {
            let header = header(EntryType::Regular, meta.mode(), meta.mtime());
            append(tar, header, &place, meta.len(), std::fs::File::open(&path)?)?;
        }
    }
    Ok(())
}

fn header(kind: EntryType, mode: u32, mtime: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header
}

fn append<W: Write>(
    tar: &mut Builder<W>,
    mut header: Header,
    place: &Path,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    header.set_size(size);
    // A file that grows while it is read must not spoil the archive.
    tar.append_data(&mut header, place, content.take(size))
}

/// A target below the image's root, without what would leave it.
fn relative(target: &str) -> PathBuf {
    let parts = Path::new(target).components().filter(|part| matches!(part, std::path::Component::Normal(_)));
    let path: PathBuf = parts.collect();
    debug_assert!(!path.as_os_str().as_bytes().starts_with(b"/"));
    path
}
