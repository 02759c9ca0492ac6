//! Places inside a container's root file system: opened, and made if missing, without ever following a link
//! out of it.

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// An existing place, its links read as if `root` were the root.
pub fn open(root: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(root, path, how)
}

/// An existing place of the node, by a path that has no links.
pub fn open_unlinked(path: &Path) -> nix::Result<OwnedFd> {
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(nix::fcntl::AT_FDCWD, path, how)
}

/// The place, made as an empty folder or file when it is not there.
pub fn make(root: impl AsFd, path: &Path, folder: bool) -> nix::Result<OwnedFd> {
    let root = root.as_fd();
    match open(root, path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (parent, name) = split(path)?;
    let parent = make_folders(root, &parent)?;
    if folder {
        match mkdirat(&parent, name.as_path(), Mode::from_bits_truncate(0o755)) {
            Err(error) if error != Errno::EEXIST => return Err(error),
            _ => {}
        }
    } else {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&parent, name.as_path(), flags, Mode::from_bits_truncate(0o644))?;
    }
    open(root, path)
}

/// A folder and all above it. Each step starts from the root again, so that links are read rightly.
pub fn make_folders(root: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let root = root.as_fd();
    match open(root, path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (parent, name) = split(path)?;
    let parent = make_folders(root, &parent)?;
    match mkdirat(&parent, name.as_path(), Mode::from_bits_truncate(0o755)) {
        Err(error) if error != Errno::EEXIST => return Err(error),
        _ => {}
    }
    open(root, path)
}

fn split(path: &Path) -> nix::Result<(PathBuf, PathBuf)> {
    let name = path.file_name().ok_or(Errno::ENOENT)?;
    Ok((path.parent().unwrap_or(Path::new("")).to_owned(), PathBuf::from(name)))
}
