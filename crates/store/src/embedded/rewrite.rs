//! Opening a folder, and making a new one of it when records in it are kept under another seal than now.
//!
//! An overwritten record lingers in journals and tables until they are compacted away; a copy into a new
//! folder leaves nothing behind. It is made only while nobody else has the store open, and a crash in
//! the middle leaves the old folder or the new one, whole.

use super::agenda::Agenda;
use super::load::{Loaded, load};
use super::medium::{Change, Fjall, Medium};
use super::record::{
    META, META_SPACE, Record, SpaceId, Vault, corrupt, key as disk_key, meta_key, split_key,
};
use crate::Key;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a batch of the copy.
const BATCH_BYTES: usize = 4 << 20;

/// Opens or makes the folder and reads it. Everything in it is then under the vault's present seal.
pub(crate) fn open(
    folder: &Path,
    vault: &Vault,
    agenda: impl Fn() -> Agenda,
) -> io::Result<(Arc<dyn Medium>, Loaded, Agenda)> {
    recover(folder)?;
    fs::create_dir_all(folder)?;
    for rewritten in [false, true] {
        let (medium, mut agenda) = (Fjall::open(folder)?, agenda());
        let loaded = load(&medium, vault, &mut agenda)?;
        if loaded.stale == 0 || rewritten {
            return Ok((Arc::new(medium), loaded, agenda));
        }
        tracing::info!(records = loaded.stale, "rewriting the store under its present keys");
        rewrite(folder, medium, vault)?;
    }
    Err(io::Error::other("the store was rewritten and not opened"))
}

fn rewrite(folder: &Path, medium: Fjall, vault: &Vault) -> io::Result<()> {
    let (draft, old) = (beside(folder, "new"), beside(folder, "old"));
    copy(&medium, &Fjall::open(&draft)?, vault)?;
    drop(medium);
    fs::rename(folder, &old)?;
    fs::rename(&draft, folder)?;
    sync_parent(folder)?;
    fs::remove_dir_all(&old)
}

/// What a copy that was cut short left: the old folder wins as long as the new one has not its name.
fn recover(folder: &Path) -> io::Result<()> {
    let (draft, old) = (beside(folder, "new"), beside(folder, "old"));
    if old.exists() {
        if folder.exists() {
            fs::remove_dir_all(&old)?;
        } else {
            fs::rename(&old, folder)?;
        }
    }
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    Ok(())
}

fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    folder.with_file_name(format!("{name}.{suffix}"))
}

fn sync_parent(folder: &Path) -> io::Result<()> {
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The names of the spaces by their numbers.
fn names(medium: &dyn Medium) -> io::Result<HashMap<SpaceId, Arc<str>>> {
    let mut names = HashMap::new();
    let prefix = meta_key(META_SPACE);
    medium.scan(&prefix, &(META + 1).to_be_bytes(), &mut |key, value| {
        let Some(name) = key.strip_prefix(prefix.as_slice()) else { return Ok(ControlFlow::Break(())) };
        let name = std::str::from_utf8(name).map_err(|_| corrupt("a name is not UTF-8"))?;
        let id = value.try_into().map_err(|_| corrupt("a space's number is none"))?;
        names.insert(SpaceId::from_be_bytes(id), name.into());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(names)
}

/// Visits all records, each with its key.
fn records(
    medium: &dyn Medium,
    visit: &mut dyn FnMut(&[u8], &Key, &[u8]) -> io::Result<ControlFlow<()>>,
) -> io::Result<()> {
    let names = names(medium)?;
    medium.scan(&disk_key(META + 1, 0, ""), &[0xff; 5], &mut |disk, value| {
        let (id, _, path) = split_key(disk)?;
        let space = names.get(&id).ok_or_else(|| corrupt("a record belongs to no space"))?;
        visit(disk, &Key { space: space.clone(), path: path.into() }, value)
    })
}

fn copy(from: &dyn Medium, to: &dyn Medium, vault: &Vault) -> io::Result<()> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut put = |key: &[u8], value: Vec<u8>| {
        bytes += value.len();
        batch.push(Change::Put(key.to_vec(), value));
        if bytes < BATCH_BYTES {
            return Ok(());
        }
        bytes = 0;
        to.write(std::mem::take(&mut batch), false)
    };
    from.scan(&meta_key(""), &(META + 1).to_be_bytes(), &mut |key, value| {
        put(key, value.to_vec())?;
        Ok(ControlFlow::Continue(()))
    })?;
    records(from, &mut |disk, key, value| {
        let fresh = Record::resealed(value, key, vault)?;
        put(disk, fresh.unwrap_or_else(|| value.to_vec()))?;
        Ok(ControlFlow::Continue(()))
    })?;
    to.write(batch, true)
}
