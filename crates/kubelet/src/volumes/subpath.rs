//! A part of a volume as a container's mount. The part never lies outside the volume, whatever links a
//! container puts there, and whenever it does so: the way to it is walked from the volume's own descriptor
//! without following links, and the runtime is given what was found, not its name.

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// A file or folder that was found in a volume. It is mounted by [`Part::path`] while this value lives.
#[derive(Debug)]
pub struct Part(OwnedFd);

impl Part {
    /// A name that leads to exactly what was found, for other processes too.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

/// The folder or file at `part` of the volume; made as a folder if it is not there.
pub fn resolve(volume: &Path, part: &str) -> Result<Part, String> {
    let failed = |e: io::Error| format!("failed to prepare subPath for volumeMount: {e}");
    let part = Path::new(part);
    if part.is_absolute() || part.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(format!(
            "subPath {:?} must not be absolute or contain \"..\"",
            part.display().to_string()
        ));
    }
    let root = volume.canonicalize().map_err(failed)?;
    let held = File::open(&root).map_err(failed)?;
    let mut at = root.clone();
    for component in part.components() {
        let next = at.join(component);
        // Names are only asked where links lead now; what is used is opened without them below.
        at = match next.canonicalize() {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !next.is_symlink() => {
                make(&held, within(&root, &at)?, component.as_os_str().as_ref()).map_err(failed)?;
                next
            }
            Err(error) => return Err(failed(error)),
        };
        within(&root, &at)?;
    }
    open(&held, within(&root, &at)?, OFlag::O_PATH).map(Part).map_err(failed)
}

/// The place relative to the volume.
fn within<'a>(root: &Path, at: &'a Path) -> Result<&'a Path, String> {
    at.strip_prefix(root).map_err(|_| {
        let (at, root) = (at.display().to_string(), root.display().to_string());
        format!("subpath {at:?} not within volume path {root:?}")
    })
}

/// Opens what is below `root`; a link on the way, which was not there a moment ago, is a fault.
fn open(root: impl AsFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS,
    );
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(openat2(root, path, how)?)
}

/// Makes a folder with the rights of the one that it is made in.
fn make(root: &File, parent: &Path, name: &Path) -> io::Result<()> {
    let folder = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let parent = File::from(open(root, parent, folder)?);
    mkdirat(&parent, name, Mode::from_bits_truncate(0o750))?;
    let made = File::from(open(&parent, name, folder)?);
    let mode = 0o750 | (parent.metadata()?.permissions().mode() & 0o7777);
    made.set_permissions(PermissionsExt::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn there(volume: &Path, part: &str) -> PathBuf {
        resolve(volume, part).unwrap().path().canonicalize().unwrap()
    }

    #[test]
    fn it_stays_within_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        assert!(there(&volume, "a/b").is_dir());
        symlink("/etc", volume.join("out")).unwrap();
        assert!(resolve(&volume, "out/x").unwrap_err().contains("not within volume path"));
        assert!(resolve(&volume, "../x").is_err());
        symlink("a", volume.join("in")).unwrap();
        assert_eq!(there(&volume, "in/b"), volume.canonicalize().unwrap().join("a/b"));
        symlink(volume.join("a"), volume.join("whole")).unwrap();
        assert_eq!(there(&volume, "whole/b"), volume.canonicalize().unwrap().join("a/b"));
    }

    #[test]
    fn a_file_is_a_part_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "text").unwrap();
        assert_eq!(std::fs::read_to_string(resolve(dir.path(), "f").unwrap().path()).unwrap(), "text");
    }

    #[test]
    fn a_link_that_comes_late_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let held = File::open(dir.path()).unwrap();
        let part = resolve(dir.path(), "a").unwrap();
        let before = part.path().canonicalize().unwrap();
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        symlink("/etc", dir.path().join("a")).unwrap();
        assert!(open(&held, Path::new("a"), OFlag::O_PATH).is_err());
        assert!(open(&held, Path::new("a/passwd"), OFlag::O_PATH).is_err());
        assert_eq!(before.file_name().unwrap(), "a");
        assert_eq!(part.path().canonicalize().unwrap().file_name().unwrap(), "b");
    }
}
