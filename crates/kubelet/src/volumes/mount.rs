//! The few mounts that volumes need, behind a trait, so that tests need no privileges.

use super::nfs::{self, Export};
use std::io;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

/// The kernel's side of volumes.
pub trait Mounter: Send + Sync + 'static {
    /// Mounts a memory file system of at most `size` bytes (the kernel's default without).
    fn tmpfs(&self, target: &Path, size: Option<u64>) -> io::Result<()>;
    /// Mounts an export of an NFS server.
    fn nfs(&self, target: &Path, export: &Export) -> io::Result<()>;
    /// Ends every mount at `target` and below it, innermost first. None is success.
    fn unmount_all(&self, target: &Path) -> io::Result<()>;
    fn is_mount_point(&self, target: &Path) -> io::Result<bool>;
}

/// The real one. It works in the mount namespace that the process lives in.
pub struct Kernel;

impl Mounter for Kernel {
    fn tmpfs(&self, target: &Path, size: Option<u64>) -> io::Result<()> {
        use nix::mount::{MsFlags, mount};
        let options = size.map_or_else(|| "mode=0777".to_owned(), |size| format!("mode=0777,size={size}"));
        mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .map_err(io::Error::from)
    }

    fn nfs(&self, target: &Path, export: &Export) -> io::Result<()> {
        use nix::mount::{MsFlags, mount};
        // The port is not used; the kernel asks for the server's address only.
        let address = (export.server.trim_matches(['[', ']']), 0).to_socket_addrs()?.next();
        let address = address.ok_or_else(|| io::Error::other("the server has no address"))?.ip();
        let server = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let source = format!("{server}:{}", export.path);
        let mut flags = MsFlags::empty();
        for option in export.options.iter().flat_map(|o| o.split(',')) {
            flags |= match option {
                "ro" => MsFlags::MS_RDONLY,
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "nodiratime" => MsFlags::MS_NODIRATIME,
                "relatime" => MsFlags::MS_RELATIME,
                _ => MsFlags::empty(),
            };
        }
        if export.read_only {
            flags |= MsFlags::MS_RDONLY;
        }
        let mut last = nix::errno::Errno::EINVAL;
        for options in nfs::attempts(export, &address.to_string()) {
            match mount(Some(source.as_str()), target, Some("nfs"), flags, Some(options.as_str())) {
                Ok(()) => return Ok(()),
                // An older version may do.
                Err(nix::errno::Errno::EPROTONOSUPPORT | nix::errno::Errno::EINVAL) => {
                    last = nix::errno::Errno::EPROTONOSUPPORT;
                }
                Err(nix::errno::Errno::ENODEV) => {
                    return Err(io::Error::other(
                        "unknown filesystem type 'nfs': this kernel has no NFS client",
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.into())
    }

    fn unmount_all(&self, target: &Path) -> io::Result<()> {
        use nix::mount::{MntFlags, umount2};
        // The kernel shows paths without links.
        let Ok(target) = target.canonicalize() else { return Ok(()) };
        let mut below: Vec<PathBuf> = mounts()?.into_iter().filter(|m| m.starts_with(&target)).collect();
        below.sort_by_key(|m| std::cmp::Reverse(m.as_os_str().len()));
        for mount in below {
            // A mount that a process still holds goes with it; its name is free at once.
            umount2(&mount, MntFlags::MNT_DETACH).map_err(io::Error::from)?;
        }
        Ok(())
    }

    fn is_mount_point(&self, target: &Path) -> io::Result<bool> {
        let target = target.canonicalize()?;
        Ok(mounts()?.contains(&target))
    }
}

/// Mount points of this process, outermost first.
fn mounts() -> io::Result<Vec<PathBuf>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

fn parse(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|text| PathBuf::from(unescape(text)))
        .collect()
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let digits: Vec<u8> = bytes.by_ref().take(3).collect();
        let value = std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 8).ok());
        out.push(value.unwrap_or(byte));
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A mounter that mounts nothing and remembers what it was asked for.
#[derive(Default)]
pub struct Recorded(parking_lot::Mutex<Vec<(PathBuf, Option<u64>)>>);

impl Recorded {
    pub fn mounted(&self) -> Vec<(PathBuf, Option<u64>)> {
        self.0.lock().clone()
    }
}

impl Mounter for Recorded {
    fn tmpfs(&self, target: &Path, size: Option<u64>) -> io::Result<()> {
        self.0.lock().push((target.to_owned(), size));
        Ok(())
    }

    fn nfs(&self, target: &Path, _: &Export) -> io::Result<()> {
        self.0.lock().push((target.to_owned(), None));
        Ok(())
    }

    fn unmount_all(&self, target: &Path) -> io::Result<()> {
        self.0.lock().retain(|(path, _)| !path.starts_with(target));
        Ok(())
    }

    fn is_mount_point(&self, target: &Path) -> io::Result<bool> {
        Ok(self.0.lock().iter().any(|(path, _)| path == target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let text = "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n\
                    37 35 0:5 / /proc rw - proc proc rw\n";
        assert_eq!(parse(text), [PathBuf::from("/mnt/a b"), PathBuf::from("/proc")]);
    }
}
