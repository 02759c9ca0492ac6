//! Writes the files of a volume so that a reader sees all of the old content or all of the new.
//!
//! The content lies in a folder of its own; `..data` is a link to it that is replaced by a rename, and
//! every name that the user sees is a link through `..data`. Nothing is ever removed before its successor
//! is in place, and content that did not change is not written.

use krate_base::{Clock, Rng};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Owner, if not the kubelet's own user.
    pub user: Option<u32>,
}

/// Files by their path below the volume.
pub type Payload = BTreeMap<String, File>;

/// What makes a folder's name unique.
#[derive(Clone, Debug)]
pub struct Stamp {
    pub clock: Clock,
    pub rng: Rng,
}

impl Stamp {
    fn folder(&self) -> String {
        let now = self.clock.now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
        format!("..{now}.{}", self.rng.below(10_000_000_000))
    }
}

/// Makes the volume at `target` hold exactly `payload`. `finish` is applied to the new folder before
/// anybody can see it (ownership). Whether anything was written.
pub fn write(
    target: &Path,
    payload: &Payload,
    stamp: &Stamp,
    finish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    for path in payload.keys() {
        check(path)?;
    }
    let link = target.join(DATA);
    let old = std::fs::read_link(&link).ok();
    if old.as_ref().is_some_and(|old| holds(&target.join(old), payload)) {
        // A crash between the swap and the links leaves links to be made.
        publish(target, payload)?;
        return Ok(false);
    }
    let name = stamp.folder();
    let folder = target.join(&name);
    fill(&folder, payload)?;
    finish(&folder)?;
    let new_link = target.join(NEW_DATA);
    let _ = std::fs::remove_file(&new_link);
    symlink(&name, &new_link)?;
    std::fs::rename(&new_link, &link)?;
    publish(target, payload)?;
    withdraw(target, payload)?;
    if let Some(old) = old {
        std::fs::remove_dir_all(target.join(old))?;
    }
    Ok(true)
}

/// A path stays below the volume and does not begin with the names that belong to this module.
fn check(path: &str) -> io::Result<()> {
    let ordinary = |c: Component<'_>| matches!(c, Component::Normal(_));
    let bad = path.is_empty() || path.starts_with("..") || !Path::new(path).components().all(ordinary);
    if bad {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {path:?}")))
    } else {
        Ok(())
    }
}

fn fill(folder: &Path, payload: &Payload) -> io::Result<()> {
    std::fs::create_dir(folder)?;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755))?;
    for (path, file) in payload {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &file.data)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(file.mode))?;
        if let Some(user) = file.user {
            chown(&path, Some(user), None)?;
        }
    }
    Ok(())
}

/// Whether a folder holds exactly the payload, in content and in the modes asked for (group rights that
/// were added for the pod's group do not count).
fn holds(folder: &Path, payload: &Payload) -> bool {
    let mut found = BTreeSet::new();
    if walk(folder, folder, &mut found).is_err() || !found.iter().eq(payload.keys()) {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let path = folder.join(path);
        let mode = std::fs::metadata(&path).map(|m| m.mode() & 0o777).unwrap_or(0);
        mode & file.mode == file.mode && std::fs::read(&path).is_ok_and(|data| data == file.data)
    })
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(root, &entry.path(), found)?;
        } else if let Ok(path) = entry.path().strip_prefix(root) {
            found.insert(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// The names that the user sees: the first part of every path.
fn visible(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().filter_map(|path| path.split('/').next()).collect()
}

fn publish(target: &Path, payload: &Payload) -> io::Result<()> {
    for name in visible(payload) {
        let (link, to) = (target.join(name), PathBuf::from(DATA).join(name));
        if std::fs::read_link(&link).ok().as_ref() == Some(&to) {
            continue;
        }
        match symlink(&to, &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                std::fs::remove_file(&link)?;
                symlink(&to, &link)?;
            }
            result => result?,
        }
    }
    Ok(())
}

/// Removes the visible links of what is no longer there.
fn withdraw(target: &Path, payload: &Payload) -> io::Result<()> {
    let wanted = visible(payload);
    for entry in std::fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !wanted.contains(name) && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { clock: Clock::system(), rng: Rng::from_seed(1) }
    }

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.into(), mode: 0o644, user: None };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    fn update(target: &Path, files: &[(&str, &str)]) -> bool {
        write(target, &payload(files), &stamp(), |_| Ok(())).unwrap()
    }

    fn folders(target: &Path) -> usize {
        let is_dir =
            |e: &io::Result<std::fs::DirEntry>| e.as_ref().is_ok_and(|e| e.file_type().unwrap().is_dir());
        std::fs::read_dir(target).unwrap().filter(is_dir).count()
    }

    #[test]
    fn content_is_swapped_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).ok();
        assert!(update(dir.path(), &[("a", "1"), ("sub/b", "2")]));
        assert_eq!((read("a").as_deref(), read("sub/b").as_deref()), (Some("1"), Some("2")));
        assert_eq!(std::fs::read_link(dir.path().join("a")).unwrap(), Path::new("..data/a"));
        let stamp = Stamp { rng: Rng::from_seed(2), ..stamp() };
        write(dir.path(), &payload(&[("a", "3"), ("c", "4")]), &stamp, |_| Ok(())).unwrap();
        assert_eq!(read("a").as_deref(), Some("3"));
        assert_eq!(read("sub/b"), None);
        assert!(!dir.path().join("sub").is_symlink());
        assert_eq!(folders(dir.path()), 1);
    }

    #[test]
    fn the_same_content_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(update(dir.path(), &[("a", "1")]));
        let before = std::fs::read_link(dir.path().join(DATA)).unwrap();
        assert!(!update(dir.path(), &[("a", "1")]));
        assert_eq!(std::fs::read_link(dir.path().join(DATA)).unwrap(), before);
    }

    #[test]
    fn a_link_that_got_lost_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        update(dir.path(), &[("a", "1")]);
        std::fs::remove_file(dir.path().join("a")).unwrap();
        update(dir.path(), &[("a", "1")]);
        assert!(dir.path().join("a").exists());
    }

    #[test]
    fn paths_do_not_leave_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "..data", "/etc/x", "a/../../x", ""] {
            let result = write(dir.path(), &payload(&[(path, "")]), &stamp(), |_| Ok(()));
            assert!(result.is_err(), "{path}");
        }
    }
}
