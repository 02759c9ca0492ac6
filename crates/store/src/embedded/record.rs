//! The form of one version of one key on the disk.
//!
//! The log is ordered by space, revision and path; a record is written once and removed once (by
//! compaction, or rewritten under another seal). Space 0 holds what the store knows about itself. Decoding never panics: whatever does not
//! read is an error, never skipped.

use crate::{Entry, Key, Revision, Seal};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// The number of a space in keys on the disk.
pub(crate) type SpaceId = u32;

/// The space of the store's own facts.
pub(crate) const META: SpaceId = 0;
/// Version of the whole form on disk, kept under [`meta_key`]`("format")`. The first had no sealed values.
pub(crate) const FORMAT: u8 = 2;
/// The oldest form that is read.
pub(crate) const OLDEST_FORMAT: u8 = 1;
/// Prefix of the names under which spaces are numbered.
pub(crate) const META_SPACE: &str = "space/";
/// Name of the revision up to which history is dropped.
pub(crate) const META_COMPACTED: &str = "compacted";
/// Name of the version of the form.
pub(crate) const META_FORMAT: &str = "format";

const PUT: u8 = 1;
const DELETE: u8 = 2;
/// Set beside the kind when the value is sealed.
const SEALED: u8 = 0x80;
const NO_STAMP: u32 = u32::MAX;
/// Kind, created, previous, time, expires, stamp offset, stamp length.
const HEADER: usize = 1 + 8 + 8 + 8 + 8 + 4 + 1;

/// One version as it is on the disk; its space, revision and path are in its key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub deleted: bool,
    pub created: Revision,
    /// Revision of the version before, 0 if the key was absent.
    pub previous: Revision,
    /// When it was committed, microseconds since 1970.
    pub time: i64,
    /// When it is to be deleted, 0 for never.
    pub expires: i64,
    pub stamp: Option<(usize, usize)>,
    /// The bytes; of a deletion, the last state that watchers are shown.
    pub value: Bytes,
}

/// `space, revision, path`: sorts as history does.
pub(crate) fn key(space: SpaceId, revision: Revision, path: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + path.len());
    out.extend_from_slice(&space.to_be_bytes());
    out.extend_from_slice(&revision.to_be_bytes());
    out.extend_from_slice(path.as_bytes());
    out
}

/// The reverse of [`key`].
pub(crate) fn split_key(key: &[u8]) -> io::Result<(SpaceId, Revision, &str)> {
    let (space, rest) = key.split_first_chunk::<4>().ok_or_else(|| corrupt("a key is too short"))?;
    let (revision, path) = rest.split_first_chunk::<8>().ok_or_else(|| corrupt("a key is too short"))?;
    let path = std::str::from_utf8(path).map_err(|_| corrupt("a key is not UTF-8"))?;
    Ok((SpaceId::from_be_bytes(*space), Revision::from_be_bytes(*revision), path))
}

/// The key of one of the store's own facts.
pub(crate) fn meta_key(name: &str) -> Vec<u8> {
    let mut out = META.to_be_bytes().to_vec();
    out.extend_from_slice(name.as_bytes());
    out
}

/// What was read is not what was written.
pub(crate) fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the store's files are damaged: {what}"))
}

/// The seal of a store, if it has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vault(pub Option<Arc<dyn Seal>>);

impl Vault {
    fn seal(&self, key: &Key, plain: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.0.as_ref().map_or(Ok(None), |seal| seal.seal(key, plain))
    }

    fn open(&self, key: &Key, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let without = || {
            let what = format!("{}/{} is encrypted, and the store was given no keys", key.space, key.path);
            io::Error::new(io::ErrorKind::PermissionDenied, what)
        };
        self.0.as_ref().ok_or_else(without)?.open(key, sealed)
    }

    /// Whether an encoded record would be sealed otherwise now.
    pub(crate) fn is_stale(&self, bytes: &[u8], key: &Key) -> bool {
        let (Some(seal), Some((header, kept))) = (&self.0, bytes.split_first_chunk::<HEADER>()) else {
            return false;
        };
        seal.is_stale(key, (header[0] & SEALED != 0).then_some(kept))
    }
}

impl Record {
    /// The record's bytes, its value under the seal.
    pub(crate) fn encode(&self, key: &Key, vault: &Vault) -> io::Result<Vec<u8>> {
        let sealed = vault.seal(key, &self.value)?;
        let kept: &[u8] = sealed.as_deref().unwrap_or(&self.value);
        let (at, length) = self.stamp.unwrap_or((NO_STAMP as usize, 0));
        let mut out = Vec::with_capacity(HEADER + kept.len());
        let mark = if sealed.is_some() { SEALED } else { 0 };
        out.push(mark | if self.deleted { DELETE } else { PUT });
        out.extend_from_slice(&self.created.to_be_bytes());
        out.extend_from_slice(&self.previous.to_be_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(&self.expires.to_be_bytes());
        out.extend_from_slice(&u32::try_from(at).unwrap_or(NO_STAMP).to_be_bytes());
        out.push(u8::try_from(length).unwrap_or(0));
        out.extend_from_slice(kept);
        Ok(out)
    }

    /// Reads a record of `key`, its value out of the seal.
    pub(crate) fn decode(bytes: &[u8], key: &Key, vault: &Vault) -> io::Result<Self> {
        let (header, kept) =
            bytes.split_first_chunk::<HEADER>().ok_or_else(|| corrupt("a record is too short"))?;
        let value = match header[0] & SEALED {
            0 => Bytes::copy_from_slice(kept),
            _ => vault.open(key, kept)?.into(),
        };
        let word = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&header[at..at + 8]);
            eight
        };
        let at = u32::from_be_bytes([header[33], header[34], header[35], header[36]]);
        let stamp = (at != NO_STAMP).then_some((at as usize, usize::from(header[37])));
        if stamp.is_some_and(|(at, length)| at + length > value.len()) {
            return Err(corrupt("a record's revision is outside of its value"));
        }
        Ok(Self {
            deleted: match header[0] & !SEALED {
                PUT => false,
                DELETE => true,
                _ => return Err(corrupt("a record is of no known kind")),
            },
            created: u64::from_be_bytes(word(1)),
            previous: u64::from_be_bytes(word(9)),
            time: i64::from_be_bytes(word(17)),
            expires: i64::from_be_bytes(word(25)),
            stamp,
            value,
        })
    }

    /// The record's bytes as they would be written now, if that differs from how they were.
    pub(crate) fn resealed(bytes: &[u8], key: &Key, vault: &Vault) -> io::Result<Option<Vec<u8>>> {
        if !vault.is_stale(bytes, key) {
            return Ok(None);
        }
        Self::decode(bytes, key, vault)?.encode(key, vault).map(Some)
    }

    /// The version that readers share.
    pub(crate) fn into_entry(self, space: &Arc<str>, path: Arc<str>, revision: Revision) -> Arc<Entry> {
        let key = Key { space: space.clone(), path };
        Arc::new(Entry::new(key, self.value, self.created, revision, self.stamp, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_survives_the_disk(
            deleted: bool, created: u64, previous: u64, time: i64, expires: i64, value: Vec<u8>, stamped: bool,
        ) {
            let stamp = stamped.then_some((value.len() / 2, value.len().min(20) / 2));
            let record =
                Record { deleted, created, previous, time, expires, stamp, value: Bytes::from(value) };
            let (key, vault) = (Key::new("a", "b"), Vault::default());
            let bytes = record.encode(&key, &vault).unwrap();
            prop_assert_eq!(Record::decode(&bytes, &key, &vault).unwrap(), record);
        }

        #[test]
        fn noise_is_an_error_or_a_record_but_never_a_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes, &Key::new("a", "b"), &Vault::default());
            let _ = split_key(&bytes);
        }

        #[test]
        fn keys_sort_as_history_does(a: (u32, u64, String), b: (u32, u64, String)) {
            let (x, y) = (key(a.0, a.1, &a.2), key(b.0, b.1, &b.2));
            prop_assert_eq!(x.cmp(&y), (a.0, a.1, a.2.as_bytes()).cmp(&(b.0, b.1, b.2.as_bytes())));
            prop_assert_eq!(split_key(&x).unwrap(), (a.0, a.1, a.2.as_str()));
        }
    }
}
