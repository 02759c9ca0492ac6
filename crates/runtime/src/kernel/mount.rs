//! The descriptor-based mount calls (Linux 5.12 and later): a mount is made or copied without a place,
//! adjusted, and then put on a target that was opened safely. No path is walked twice.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

pub const ATTR_READONLY: u64 = 0x1;
pub const ATTR_NOSUID: u64 = 0x2;
pub const ATTR_NODEV: u64 = 0x4;
pub const ATTR_NOEXEC: u64 = 0x8;
/// Clears all access-time modes, then asks for strict times.
pub const ATTR_STRICTATIME: u64 = 0x20;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_FROM_FD: libc::c_uint = 0x4;
const MOVE_TO_FD: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn checked(result: libc::c_long) -> io::Result<RawFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just returned this descriptor to us alone.
    checked(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A copy of the mount at `path` (with what is mounted below it, if `recursive`), mounted nowhere yet.
pub fn copy_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = cstring(path)?;
    copy(libc::AT_FDCWD, &path, recursive, 0)
}

/// The same of an open file or folder.
pub fn copy_tree_at(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    copy(fd.as_raw_fd(), c"", recursive, libc::AT_EMPTY_PATH.cast_unsigned())
}

fn copy(dir: RawFd, path: &CStr, recursive: bool, flags: libc::c_uint) -> io::Result<OwnedFd> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    let flags = flags | OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | recursive;
    // SAFETY: the path is NUL-terminated; the call has no other memory arguments.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

/// Changes flags and, if not 0, the propagation (`MS_PRIVATE`...) of a mount and perhaps of all below it.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> io::Result<()> {
    let attr = MountAttr { set, clear, propagation, userns_fd: 0 };
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    let flags = libc::AT_EMPTY_PATH.cast_unsigned() | recursive;
    // SAFETY: the empty path is NUL-terminated, and the structure is the kernel's first version of it with
    // its size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    checked(result).map(drop)
}

/// Puts a detached mount on an open target.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both paths are empty and NUL-terminated.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_FROM_FD | MOVE_TO_FD,
        )
    };
    checked(result).map(drop)
}

/// Asks the kernel for a file system by its name, which makes it load the module that holds it. Fails with
/// ENODEV where there is none.
pub fn open_filesystem(fstype: &str) -> io::Result<OwnedFd> {
    let name = CString::new(fstype)?;
    // SAFETY: the name is NUL-terminated.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })
}

/// Whether the kernel has the call that changes a mount by its descriptor, the newest of those used here.
pub fn has_mount_setattr() -> bool {
    // SAFETY: a size of zero is refused before any memory is looked at.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, std::ptr::null::<u8>(), 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// A new mount of a file system, mounted nowhere yet. An option without a value is a flag.
pub fn new_mount(fstype: &str, options: &[(&str, Option<&str>)], attributes: u64) -> io::Result<OwnedFd> {
    let context = open_filesystem(fstype)?;
    configure(&context, FSCONFIG_SET_STRING, Some("source"), Some(fstype))?;
    for (key, value) in options {
        let command = if value.is_some() { FSCONFIG_SET_STRING } else { FSCONFIG_SET_FLAG };
        configure(&context, command, Some(key), *value)
            .map_err(|error| io::Error::new(error.kind(), format!("{fstype} option {key}: {error}")))?;
    }
    configure(&context, FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: no memory arguments.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

fn configure(
    context: &OwnedFd,
    command: libc::c_uint,
    key: Option<&str>,
    value: Option<&str>,
) -> io::Result<()> {
    let key = key.map(CString::new).transpose()?;
    let value = value.map(CString::new).transpose()?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: both strings are NUL-terminated or null, as the command wants them.
    let result = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, pointer(&key), pointer(&value), 0)
    };
    checked(result).map(drop)
}

/// Makes everything written to the file system that holds `file` durable.
pub fn sync_filesystem(file: &File) -> io::Result<()> {
    // SAFETY: no memory arguments.
    let result = unsafe { libc::syncfs(file.as_fd().as_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn cstring(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::{has_mount_setattr, open_filesystem};

    #[test]
    fn the_kernel_is_asked_for_a_file_system_by_its_name() {
        if nix::unistd::geteuid().is_root() {
            assert!(open_filesystem("overlay").is_ok());
            let error = open_filesystem("no-such-filesystem").expect_err("nobody has it");
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        }
        assert!(has_mount_setattr());
    }
}
