//! Whether this machine can run a cluster, and what to do if not.

use crate::cluster::cgroup;
use crate::ui::{Failure, Outcome};
use nix::sched::CloneFlags;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

/// Checks what every command that runs nodes needs. Names the first thing that is missing.
pub fn check() -> Outcome<()> {
    if !cfg!(target_os = "linux") {
        return Err(Failure::new(
            "krate runs nodes on Linux only",
            "Run it on a Linux machine or in a virtual machine.",
        ));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(
            "starting a cluster needs root, to make namespaces and control groups",
            "Run the same command with sudo.",
        ));
    }
    for (feature, present) in features() {
        if !present {
            return Err(Failure::new(
                format!("this kernel lacks {feature}"),
                "Load the module or boot a kernel that has it, and try again.",
            ));
        }
    }
    cgroup::check().map_err(|error| {
        let next = match error.kind() {
            ErrorKind::ResourceBusy | ErrorKind::Unsupported => {
                "Processes are in the way, as in a container: make a group beside, such as /sys/fs/cgroup/init, and \
                 write each pid of /sys/fs/cgroup/cgroup.procs to its cgroup.procs."
            }
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
                "Mount /sys/fs/cgroup writable; a container needs to be privileged."
            }
            _ => {
                "Boot a kernel that has the cpu, memory and pids controllers; in a container, have the machine hand \
                 them down to it."
            }
        };
        Failure::new(format!("control groups cannot be made: {error}"), next)
    })
}

/// What a node is made of. A file system that is a module is loaded by being asked for, so that a machine
/// on which nothing has used it since it was started has it too.
fn features() -> [(&'static str, bool); 5] {
    let cgroups = Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
        || Path::new("/sys/fs/cgroup/memory").exists();
    [
        ("network namespaces (CONFIG_NET_NS)", Path::new("/proc/self/ns/net").exists()),
        ("mount namespaces", Path::new("/proc/self/ns/mnt").exists()),
        ("mount_setattr (Linux 5.12 or newer)", krate_runtime::has_mount_setattr()),
        ("overlayfs (module overlay)", krate_runtime::open_filesystem("overlay").is_ok()),
        ("control groups with the cpu, memory and pids controllers", cgroups),
    ]
}

/// The address of this host that connections over its default route have. Nothing is sent.
pub fn address() -> Outcome<IpAddr> {
    let connected = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        // A documentation address (RFC 5737), so that no other route but the default one leads there.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    let address = connected.map_err(|_| {
        Failure::new(
            "this host has no default route to take the node's address from",
            "Give it with --node-ip ADDRESS.",
        )
    })?;
    Ok(address.ip())
}

/// Joins the network, mount and host-name namespaces of a process. Must run before any thread is made.
pub fn enter(pid: i32) -> std::io::Result<()> {
    // The mount namespace last: after it, /proc may be another one.
    let open = |ns: &str| std::fs::File::open(format!("/proc/{pid}/ns/{ns}"));
    let (net, uts, mnt) = (open("net")?, open("uts")?, open("mnt")?);
    nix::sched::setns(net, CloneFlags::CLONE_NEWNET)?;
    nix::sched::setns(uts, CloneFlags::CLONE_NEWUTS)?;
    nix::sched::setns(mnt, CloneFlags::CLONE_NEWNS)?;
    Ok(())
}
