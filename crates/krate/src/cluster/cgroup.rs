//! Control groups of a cluster, version 1 or 2, whichever this machine has. Only groups below `krate/` are
//! ever touched.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// The version 1 hierarchies that we make groups in.
const CONTROLLERS: &[&str] =
    &["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "systemd"];
/// The version 2 controllers that are handed down to nodes, if there are such. Memory first: a group that has
/// processes refuses it, and would be made a threaded one by the others.
const SUBTREE: [&str; 5] = ["memory", "cpu", "pids", "cpuset", "io"];
/// Without these no container's limits can be kept.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// How often the members of a group that is being ended are read again before giving up.
const KILL_ROUNDS: usize = 200;

/// The root of each hierarchy that is present.
pub fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let mut found: Vec<PathBuf> =
        CONTROLLERS.iter().map(|c| root.join(c)).filter(|p| p.join("cgroup.procs").exists()).collect();
    let mut seen = BTreeSet::new();
    found.retain(|p| std::fs::canonicalize(p).is_ok_and(|real| seen.insert(real)));
    found
}

/// The hierarchies in which a cluster may have left groups: beside its own, the version 2 one that machines with
/// version 1 mount without controllers, in which the runtime keeps its shims apart.
fn places() -> Vec<PathBuf> {
    let mut places = hierarchies();
    let unified = Path::new(ROOT).join("unified");
    if unified.join("cgroup.procs").exists() {
        places.push(unified);
    }
    places
}

/// Moves a process into `group` (made if absent), in every hierarchy.
pub fn join(group: &str, pid: i32) -> io::Result<()> {
    for hierarchy in hierarchies() {
        make(&hierarchy, group)?;
        std::fs::write(hierarchy.join(group).join("cgroup.procs"), pid.to_string())?;
    }
    Ok(())
}

fn make(hierarchy: &Path, group: &str) -> io::Result<()> {
    let version_2 = hierarchy.join("cgroup.controllers").exists();
    let mut path = hierarchy.to_owned();
    for part in Path::new(group).components() {
        let parent = path.clone();
        path.push(part);
        if version_2 {
            hand_down(&parent)?;
        }
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !version_2 {
            fill_cpuset(&path, &parent)?;
        }
    }
    Ok(())
}

/// Whether nodes can have control groups here. On version 2 the root must be able to hand its controllers down:
/// that of a container cannot, as long as the container's processes are in it.
pub fn check() -> io::Result<()> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() { hand_down(root) } else { Ok(()) }
}

/// Gives what is below a version 2 group the controllers that the group has.
fn hand_down(group: &Path) -> io::Result<()> {
    let file = group.join("cgroup.subtree_control");
    for controller in SUBTREE {
        let written = std::fs::write(&file, format!("+{controller}"));
        // A controller that this kernel lacks is simply not handed down, unless nothing can be done without it.
        if let Err(error) = written
            && NEEDED.contains(&controller)
        {
            let text = format!("{} does not take +{controller}: {error}", file.display());
            return Err(io::Error::new(error.kind(), text));
        }
    }
    Ok(())
}

/// A version 1 cpuset takes no process before it has processors and memory. One of version 2 that is empty has
/// those of its parent, and the root has no such files.
fn fill_cpuset(path: &Path, parent: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let here = path.join(file);
        if std::fs::read_to_string(&here).is_ok_and(|s| s.trim().is_empty()) {
            let above = std::fs::read_to_string(parent.join(file))?;
            std::fs::write(&here, above.trim())?;
        }
    }
    Ok(())
}

/// Every process in a group and below it.
pub fn members(group: &str) -> BTreeSet<i32> {
    let mut pids = BTreeSet::new();
    for hierarchy in places() {
        walk(&hierarchy.join(group), &mut |dir| {
            let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|l| l.trim().parse::<i32>().ok()));
        });
    }
    pids
}

/// Kills every process in a group and below it, and waits until none is left.
pub fn kill_all(group: &str) -> io::Result<()> {
    for _ in 0..KILL_ROUNDS {
        let pids = members(group);
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            // A descriptor of the process, so that its end is waited for and not polled.
            let exited = pidfd(pid);
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            end_of(exited, 1000);
        }
    }
    Err(io::Error::other(format!("processes of {group} do not end")))
}

/// Waits until a process and all its threads have ended, at most so many milliseconds.
pub fn wait_for(pid: i32, at_most: u16) {
    end_of(pidfd(pid), at_most);
}

fn end_of(process: Option<std::os::fd::OwnedFd>, at_most: u16) {
    let Some(fd) = process else { return };
    let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&fd), nix::poll::PollFlags::POLLIN)];
    let _ = nix::poll::poll(&mut poll, nix::poll::PollTimeout::from(at_most));
}

#[expect(unsafe_code, reason = "pidfd_open has no safe wrapper in the libraries that we use")]
fn pidfd(pid: i32) -> Option<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: pidfd_open takes two integers and returns a new descriptor, or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the descriptor was just made and nobody else owns it.
    Some(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}

/// Removes a group and what is below it; groups that still hold processes stay.
pub fn remove(group: &str) {
    for hierarchy in places() {
        walk(&hierarchy.join(group), &mut |dir| {
            let _ = std::fs::remove_dir(dir);
        });
    }
}

/// Visits a folder tree, the deepest first.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    if dir.exists() {
        visit(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::make;
    use std::fs;

    /// A folder that looks as the kernel's does: the files of a group are there as soon as it is made.
    fn hierarchy(root: &[(&str, &str)], below: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("krate/demo")).unwrap();
        for (place, files) in [("", root), ("krate", below), ("krate/demo", below)] {
            for (file, text) in files {
                fs::write(dir.path().join(place).join(file), text).unwrap();
            }
        }
        dir
    }

    #[test]
    fn an_empty_cpuset_of_version_2_stays_as_it_is() {
        let below = [("cgroup.subtree_control", ""), ("cpuset.cpus", "\n"), ("cpuset.mems", "\n")];
        let dir = hierarchy(&[("cgroup.controllers", "cpuset cpu"), ("cgroup.subtree_control", "")], &below);
        make(dir.path(), "krate/demo").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("krate/demo/cpuset.cpus")).unwrap(), "\n");
        assert!(!fs::read_to_string(dir.path().join("krate/cgroup.subtree_control")).unwrap().is_empty());
    }

    #[test]
    fn an_empty_cpuset_of_version_1_is_filled_from_above() {
        let dir = hierarchy(
            &[("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")],
            &[("cpuset.cpus", "\n"), ("cpuset.mems", "\n")],
        );
        make(dir.path(), "krate/demo").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("krate/demo/cpuset.cpus")).unwrap(), "0-3");
    }
}
