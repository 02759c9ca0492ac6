//! Content-addressed files: `blobs/sha256/<hex>`.
//!
//! A blob appears complete and durable (written aside, fsynced, renamed) or not at all, and what it holds
//! is what its name says.

use crate::cri::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Largest manifest or configuration that is read into memory.
pub const MAX_DOCUMENT: u64 = 8 << 20;

/// `sha256:<64 hex digits>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(String);

impl Digest {
    pub fn parse(text: &str) -> Result<Self> {
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(Error::InvalidArgument(format!("unsupported digest {text:?}"))),
        }
    }

    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(bytes))
    }

    #[must_use]
    pub fn from_hash(hash: Sha256) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hash.finalize() {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        Self(text)
    }

    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug)]
pub struct BlobStore {
    folder: PathBuf,
    tmp: PathBuf,
}

impl BlobStore {
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self { folder: root.join("blobs/sha256"), tmp: root.join("tmp") };
        for folder in [&store.folder, &store.tmp] {
            std::fs::create_dir_all(folder)
                .map_err(|e| Error::io(format!("make {}", folder.display()), e))?;
        }
        Ok(store)
    }

    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    #[must_use]
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.path(digest).metadata().ok().map(|meta| meta.len())
    }

    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.path(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(format!("content digest {digest}: not found")),
            _ => Error::io(format!("open blob {digest}"), error),
        })
    }

    /// A manifest or configuration, whole.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open_blob(digest)?.take(MAX_DOCUMENT).read_to_end(&mut bytes);
        read.map_err(|error| Error::io(format!("read blob {digest}"), error))?;
        Ok(bytes)
    }

    /// Adds a small blob.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(&digest) {
            let mut writer = self.writer()?;
            writer.write_all(bytes).map_err(|error| Error::io("write blob", error))?;
            writer.commit(Some(&digest))?;
        }
        Ok(digest)
    }

    /// Begins a blob; it is nowhere to be seen before [`BlobWriter::commit`].
    pub fn writer(&self) -> Result<BlobWriter> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let name = format!("blob-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let path = self.tmp.join(name);
        let file =
            File::create(&path).map_err(|error| Error::io(format!("create {}", path.display()), error))?;
        Ok(BlobWriter { file, path, hash: Sha256::new(), length: 0, store: self.clone(), done: false })
    }

    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        std::fs::remove_file(self.path(digest))
    }

    pub(super) fn all(&self) -> io::Result<Vec<Digest>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            if let Some(Ok(digest)) =
                entry?.file_name().to_str().map(|hex| Digest::parse(&format!("sha256:{hex}")))
            {
                all.push(digest);
            }
        }
        Ok(all)
    }
}

/// A blob being written. Dropped without a commit it leaves nothing.
pub struct BlobWriter {
    file: File,
    path: PathBuf,
    hash: Sha256,
    length: u64,
    store: BlobStore,
    done: bool,
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobWriter {
    /// Bytes written so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Makes the blob durable and visible; fails when its content is not what was expected.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<Digest> {
        let digest = Digest::from_hash(std::mem::take(&mut self.hash));
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::InvalidArgument(format!(
                "unexpected commit digest {digest}, expected {expected}"
            )));
        }
        let target = self.store.path(&digest);
        let durable = self.file.sync_all().and_then(|()| std::fs::rename(&self.path, &target));
        durable.map_err(|error| Error::io(format!("store blob {digest}"), error))?;
        self.done = true;
        sync_folder(&self.store.folder).map_err(|error| Error::io("sync blobs", error))?;
        Ok(digest)
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes renames in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Replaces a small file so that a reader, or a machine that lost power, sees the old or the new one.
/// Files that begin with a dot are unfinished.
pub(crate) fn write_file(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let mut name = std::ffi::OsString::from(format!(
        ".{}.{}.",
        std::process::id(),
        SERIAL.fetch_add(1, Ordering::Relaxed)
    ));
    name.push(path.file_name().unwrap_or_default());
    let aside = path.with_file_name(name);
    let mut file = File::create(&aside)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    std::fs::rename(&aside, path)?;
    match path.parent() {
        Some(folder) if durable => sync_folder(folder),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_what_its_name_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(folder.path()).unwrap();
        let digest = store.put(b"hello").unwrap();
        assert_eq!(
            digest.as_str(),
            "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
        assert_eq!(store.read(&digest).unwrap(), b"hello");
        let mut writer = store.writer().unwrap();
        writer.write_all(b"other").unwrap();
        assert!(writer.commit(Some(&digest)).is_err());
        assert_eq!(store.all().unwrap(), [digest]);
        assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }
}
