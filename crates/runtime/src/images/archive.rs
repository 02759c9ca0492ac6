//! Images from files: OCI layouts in a tar, and what `docker save` writes, old and new, compressed or not.
//!
//! The archive is read once, front to back; every file that can be a blob becomes one, and what turns out
//! to belong to no image is collected as garbage later.

use super::blobs::{BlobStore, Digest, MAX_DOCUMENT};
use super::config::{DOCKER_MANIFEST, Descriptor, Document, Index, Manifest, OCI_LAYER_TAR};
use super::layer::decompress;
use super::reference::Reference;
use super::store::{ImageRecord, ImageStore};
use crate::cri::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use tar::{Archive, Entry, EntryType};

const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Files of an archive; a bound against nonsense, far above what images have.
const MAX_FILES: usize = 100_000;
const NOT_TAR: &str = "it is not a tar archive";

impl ImageStore {
    /// Imports every image of the archive at `path` that runs on this machine. `name` is given to an image
    /// that the archive leaves nameless.
    pub fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<ImageRecord>> {
        let _adding = self.adding()?;
        let bad =
            |error: io::Error| Error::InvalidArgument(format!("failed to read {}: {error}", path.display()));
        let file = File::open(path).map_err(bad)?;
        let contents = Contents::read(&self.blobs, file).map_err(bad)?;
        let found = if let Some(docker) = contents.documents.get("manifest.json") {
            self.docker_images(docker, &contents)?
        } else if let Some(index) = contents.documents.get("index.json") {
            oci_images(index)?
        } else {
            let what =
                format!("{} holds no image: neither index.json nor manifest.json is in it", path.display());
            return Err(Error::InvalidArgument(what));
        };
        if found.is_empty() {
            return Err(Error::InvalidArgument(format!("{} lists no images", path.display())));
        }
        let mut images = Vec::new();
        for image in found {
            let names = image.names(name)?;
            let id = self.publish(&image.target, &names)?;
            images.extend(self.find(id.as_str())?);
        }
        Ok(images)
    }

    /// The images of `docker save`'s own list, each with a manifest made for it.
    fn docker_images(&self, list: &[u8], contents: &Contents) -> Result<Vec<Found>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let entries: Vec<Entry> = serde_json::from_slice(list).map_err(|e| invalid("manifest.json", &e))?;
        let mut found = Vec::new();
        for entry in entries {
            let layers = entry.layers.iter().map(|layer| self.part(contents, layer, OCI_LAYER_TAR));
            let manifest = Manifest {
                schema_version: 2,
                media_type: DOCKER_MANIFEST.to_owned(),
                config: self.part(contents, &entry.config, DOCKER_CONFIG)?,
                layers: layers.collect::<Result<_>>()?,
            };
            let json =
                serde_json::to_vec(&manifest).map_err(|error| Error::io("encode a manifest", error))?;
            found.push(Found {
                target: self.blobs.put(&json)?,
                names: entry.repo_tags.unwrap_or_default(),
                tag: None,
            });
        }
        Ok(found)
    }

    fn part(&self, contents: &Contents, name: &str, media_type: &str) -> Result<Descriptor> {
        let digest = contents.blob(name).ok_or_else(|| {
            Error::InvalidArgument(format!("the archive lists {name:?} but does not hold it"))
        })?;
        let size = self.blobs.size(digest).unwrap_or(0);
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size,
            ..Descriptor::default()
        })
    }
}

fn oci_images(index: &[u8]) -> Result<Vec<Found>> {
    let index = match Document::parse(index).map_err(|error| invalid("index.json", &error))? {
        Document::Index(index) => index,
        Document::Manifest(_) => Index::default(),
    };
    let mut found: Vec<Found> = Vec::new();
    for descriptor in index.manifests {
        let target = Digest::parse(&descriptor.digest)?;
        let annotation = NAME_ANNOTATIONS.iter().find_map(|key| descriptor.annotations.get(*key));
        let (names, tag) = match annotation {
            Some(name) if name.contains(['/', ':']) => (vec![name.clone()], None),
            Some(tag) => (Vec::new(), Some(tag.clone())),
            None => (Vec::new(), None),
        };
        match found.iter_mut().find(|known| known.target == target) {
            Some(known) => known.names.extend(names),
            None => found.push(Found { target, names, tag }),
        }
    }
    Ok(found)
}

struct Found {
    target: Digest,
    names: Vec<String>,
    /// A tag without a repository.
    tag: Option<String>,
}

impl Found {
    fn names(&self, given: Option<&str>) -> Result<Vec<Reference>> {
        if !self.names.is_empty() {
            return self.names.iter().map(|name| Reference::parse(name)).collect();
        }
        let name = match (given, &self.tag) {
            (Some(given), _) => given.to_owned(),
            (None, Some(tag)) => format!("import-{}:{tag}", &self.target.hex()[..12]),
            (None, None) => format!("import-{}", &self.target.hex()[..12]),
        };
        Ok(vec![Reference::parse(&name)?])
    }
}

fn invalid(file: &str, error: &serde_json::Error) -> Error {
    Error::InvalidArgument(format!("the archive's {file} is not valid: {error}"))
}

/// What an archive held: small documents at its top, and blobs by the name that they had.
#[derive(Default)]
struct Contents {
    documents: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Digest>,
    /// Links of old archives, which share equal layers so.
    links: BTreeMap<String, String>,
}

impl Contents {
    fn read(blobs: &BlobStore, file: File) -> io::Result<Self> {
        let mut contents = Self::default();
        let mut archive = Archive::new(decompress(file)?);
        for (count, entry) in archive.entries()?.enumerate() {
            if count > MAX_FILES {
                return Err(io::Error::other("too many files for an image archive"));
            }
            // What the library says of bytes that are no header shows those bytes.
            let entry = entry.map_err(|error| if count == 0 { io::Error::other(NOT_TAR) } else { error })?;
            contents.take(blobs, entry)?;
        }
        Ok(contents)
    }

    fn take<R: Read>(&mut self, blobs: &BlobStore, mut entry: Entry<'_, R>) -> io::Result<()> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            kind @ (EntryType::Symlink | EntryType::Link) => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = String::from_utf8_lossy(&target).into_owned();
                let folder = if kind == EntryType::Symlink {
                    name.rsplit_once('/').map_or("", |(f, _)| f)
                } else {
                    ""
                };
                self.links.insert(name.clone(), join(folder, &target));
                return Ok(());
            }
            _ => return Ok(()),
        }
        if matches!(name.as_str(), "index.json" | "manifest.json" | "oci-layout" | "repositories") {
            let mut bytes = Vec::new();
            entry.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
            self.documents.insert(name, bytes);
            return Ok(());
        }
        let expected = name.strip_prefix("blobs/sha256/").map(|hex| Digest::parse(&format!("sha256:{hex}")));
        let expected = expected.transpose().map_err(io::Error::other)?;
        let digest = match expected.filter(|digest| blobs.has(digest)) {
            Some(known) => known,
            None => {
                let wanted = name
                    .strip_prefix("blobs/sha256/")
                    .and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
                let mut writer = blobs.writer().map_err(io::Error::other)?;
                io::copy(&mut entry, &mut writer)?;
                writer.commit(wanted.as_ref()).map_err(io::Error::other)?
            }
        };
        self.blobs.insert(name, digest);
        Ok(())
    }

    fn blob(&self, name: &str) -> Option<&Digest> {
        let name = name.trim_start_matches("./");
        self.blobs.get(name).or_else(|| self.blobs.get(self.links.get(name)?))
    }
}

fn join(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
