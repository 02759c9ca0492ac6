//! Control groups, versions 1 and 2, and machines that have some of each.
//!
//! Which there are is read from the mount table once. Groups are made only below the prefix that the
//! configuration names, and nothing above it is written to but the list of controllers that version 2 hands
//! down. Where version 2 is mounted without controllers, groups are made there too: it knows how to kill.

use crate::cri::{LinuxContainerResources, MemoryUsage};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

/// The version 1 controllers that containers are put under where they are mounted.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "devices", "hugetlb"];
/// Made only when asked for: an empty one refuses processes.
const CPUSET: &str = "cpuset";
/// What version 2 hands down to our groups.
const DELEGATED: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];
const DEFAULT_PERIOD: i64 = 100_000;
/// How long killed processes may take to leave a group that is removed, in milliseconds.
const EMPTY_PATIENCE_MILLIS: u16 = 2_000;
/// Changes of a group that are looked at while waiting for it to be empty.
const EMPTY_EVENTS: usize = 64;

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 1, by controller.
    v1: BTreeMap<String, PathBuf>,
    v2: Option<PathBuf>,
    /// Version 2 carries the controllers (and version 1 none of them).
    unified: bool,
}

impl Hierarchies {
    pub fn detect() -> io::Result<Self> {
        let found = Self::parse(&std::fs::read_to_string("/proc/self/mountinfo")?);
        Ok(found)
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut right = right.split(' ');
            let (fstype, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
            let Some(place) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            match fstype {
                "cgroup2" => found.v2 = Some(place),
                "cgroup" => {
                    let known = options.split(',').filter(|o| CONTROLLERS.contains(o) || *o == CPUSET);
                    for controller in known {
                        found.v1.insert(controller.to_owned(), place.clone());
                    }
                }
                _ => {}
            }
        }
        found.unified = !found.v1.contains_key("memory") && found.v2.is_some();
        found
    }

    /// The controllers that are mounted as version 1.
    pub fn v1_mounts(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.v1.iter().map(|(controller, place)| (controller.as_str(), place.as_path()))
    }

    #[must_use]
    pub fn v2_mount(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// The group at a path below the roots.
    #[must_use]
    pub fn group(&self, path: &str) -> Group {
        Group { hierarchies: self.clone(), path: path.trim_start_matches('/').to_owned() }
    }
}

/// A group: the same path in every hierarchy.
#[derive(Clone, Debug)]
pub struct Group {
    hierarchies: Hierarchies,
    path: String,
}

impl Group {
    fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.hierarchies.v1.get(controller).map(|root| root.join(&self.path))
    }

    fn v2(&self) -> Option<PathBuf> {
        self.hierarchies.v2.as_ref().map(|root| root.join(&self.path))
    }

    /// Every folder of the group, each once (controllers can share a hierarchy).
    fn folders(&self) -> Vec<PathBuf> {
        let v1 = CONTROLLERS.iter().filter(|_| !self.hierarchies.unified).filter_map(|c| self.v1(c));
        let cpuset = self.v1(CPUSET).filter(|path| path.is_dir());
        let mut folders: Vec<PathBuf> = v1.chain(cpuset).chain(self.v2()).collect();
        folders.sort();
        folders.dedup();
        folders
    }

    pub fn create(&self) -> io::Result<()> {
        if self.hierarchies.unified {
            self.delegate()?;
        }
        for folder in self.folders() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(())
    }

    /// Hands controllers down from the root to the group's parent.
    fn delegate(&self) -> io::Result<()> {
        let Some(root) = &self.hierarchies.v2 else { return Ok(()) };
        let parents = Path::new(&self.path).parent().unwrap_or(Path::new(""));
        let mut folder = root.clone();
        let mut levels = vec![folder.clone()];
        for part in parents.components() {
            folder.push(part);
            levels.push(folder.clone());
        }
        for level in levels {
            std::fs::create_dir_all(&level)?;
            let offered = std::fs::read_to_string(level.join("cgroup.controllers"))?;
            let given = std::fs::read_to_string(level.join("cgroup.subtree_control"))?;
            for controller in offered.split_whitespace() {
                if DELEGATED.contains(&controller) && !given.split_whitespace().any(|g| g == controller) {
                    // One that cannot be handed down (real-time groups, a threaded parent) must not cost the others.
                    if let Err(error) =
                        std::fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"))
                    {
                        tracing::debug!(controller, level = %level.display(), %error, "controller not available");
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets what `resources` names and leaves the rest alone.
    pub fn apply(&self, resources: &LinuxContainerResources) -> io::Result<()> {
        if !resources.cpuset_cpus.is_empty() || !resources.cpuset_mems.is_empty() {
            self.make_cpuset()?;
        }
        let files = if self.hierarchies.unified { v2_files(resources) } else { v1_files(resources) };
        for Setting { controller, file, value, optional } in files {
            let folder = if self.hierarchies.unified { self.v2() } else { self.v1(controller) };
            let Some(folder) = folder else { continue };
            match std::fs::write(folder.join(&file), &value) {
                Err(_) if optional => {}
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("write {value} to {file}: {error}")));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// One process of this group killed for want of memory takes the others along, as Kubernetes promises for a
    /// container. Not for a pod: its pause process would go too. Only version 2 can do this.
    pub fn end_together(&self) -> io::Result<()> {
        let Some(folder) = self.v2().filter(|_| self.hierarchies.unified) else { return Ok(()) };
        std::fs::write(folder.join("memory.oom.group"), "1")
    }

    /// A version 1 cpuset begins empty and takes nobody in: fill it from above.
    fn make_cpuset(&self) -> io::Result<()> {
        let (Some(root), false) = (self.hierarchies.v1.get(CPUSET), self.hierarchies.unified) else {
            return Ok(());
        };
        let mut folder = root.clone();
        for part in Path::new(&self.path).components() {
            let parent = folder.clone();
            folder.push(part);
            std::fs::create_dir_all(&folder)?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if std::fs::read_to_string(folder.join(file))?.trim().is_empty() {
                    std::fs::write(folder.join(file), std::fs::read_to_string(parent.join(file))?.trim())?;
                }
            }
        }
        for pid in self.processes() {
            std::fs::write(folder.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    /// Moves the calling process in. Called by a forked child before it enters other namespaces.
    pub fn join(&self) -> io::Result<()> {
        for folder in self.folders() {
            std::fs::write(folder.join("cgroup.procs"), "0").map_err(|error| {
                io::Error::new(error.kind(), format!("join {}: {error}", folder.display()))
            })?;
        }
        Ok(())
    }

    /// Every process in the group and below it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        fn collect(folder: &Path, pids: &mut Vec<i32>) {
            let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            for child in children(folder) {
                collect(&child, pids);
            }
        }
        let mut pids = Vec::new();
        if let Some(folder) = self.folders().first() {
            collect(folder, &mut pids);
        }
        pids
    }

    /// SIGKILL to everything in the group.
    pub fn kill(&self) {
        let atomically = self.v2().map(|folder| std::fs::write(folder.join("cgroup.kill"), "1"));
        if matches!(atomically, Some(Ok(()))) {
            return;
        }
        for pid in self.processes() {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Removes the group and what is below it. Absent is success. Killed processes may take a moment to be
    /// gone; what lives is an error.
    pub fn remove(&self) -> io::Result<()> {
        match self.try_remove() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                self.wait_until_empty();
                self.try_remove()
            }
            other => other,
        }
    }

    fn try_remove(&self) -> io::Result<()> {
        let cpuset = self.v1(CPUSET);
        let mut result = Ok(());
        for folder in self.folders().into_iter().chain(cpuset) {
            if let Err(error) = remove_tree(&folder) {
                result = Err(io::Error::new(error.kind(), format!("remove {}: {error}", folder.display())));
            }
        }
        result
    }

    /// Version 2 says when the last process is gone; where it is not mounted there is nothing to wait on.
    fn wait_until_empty(&self) {
        use nix::poll::{PollFd, PollFlags, poll};
        use std::os::fd::AsFd;
        let Some(mut events) = self.v2().and_then(|folder| File::open(folder.join("cgroup.events")).ok())
        else {
            return;
        };
        for _ in 0..EMPTY_EVENTS {
            let mut text = String::new();
            let read = events.rewind().and_then(|()| events.read_to_string(&mut text));
            if read.is_err() || keyed_in(&text, "populated") == 0 {
                return;
            }
            let mut waits = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            if matches!(poll(&mut waits, EMPTY_PATIENCE_MILLIS), Ok(0)) {
                return;
            }
        }
    }

    /// Removes the group if nothing is in it. A pod's group is shared by its sandboxes, and goes with the last.
    pub fn remove_if_empty(&self) {
        for folder in self.folders().into_iter().chain(self.v1(CPUSET)) {
            let _ = std::fs::remove_dir(folder);
        }
    }

    /// Processes that the kernel killed in this group for want of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let (folder, file) = match self.hierarchies.unified {
            true => (self.v2(), "memory.events"),
            false => (self.v1("memory"), "memory.oom_control"),
        };
        folder.map_or(0, |folder| keyed(&folder.join(file), "oom_kill"))
    }

    /// Nanoseconds of CPU time used.
    #[must_use]
    pub fn cpu_nanos(&self) -> u64 {
        if self.hierarchies.unified {
            return self.v2().map_or(0, |folder| keyed(&folder.join("cpu.stat"), "usage_usec") * 1000);
        }
        self.v1("cpuacct").map_or(0, |folder| number(&folder.join("cpuacct.usage")).unwrap_or(0))
    }

    #[must_use]
    pub fn processes_now(&self) -> u64 {
        let folder = if self.hierarchies.unified { self.v2() } else { self.v1("pids") };
        folder.and_then(|folder| number(&folder.join("pids.current"))).unwrap_or(0)
    }

    #[must_use]
    pub fn memory(&self, timestamp: i64) -> MemoryUsage {
        let unified = self.hierarchies.unified;
        let Some(folder) = (if unified { self.v2() } else { self.v1("memory") }) else {
            return MemoryUsage { timestamp, ..MemoryUsage::default() };
        };
        let (usage, limit, inactive, rss) = match unified {
            true => ("memory.current", "memory.max", "inactive_file", "anon"),
            false => ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file", "total_rss"),
        };
        let (faults, major) =
            if unified { ("pgfault", "pgmajfault") } else { ("total_pgfault", "total_pgmajfault") };
        let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let usage_bytes = number(&folder.join(usage)).unwrap_or(0);
        let working_set_bytes = usage_bytes.saturating_sub(keyed_in(&stat, inactive));
        // Version 1 writes "no limit" as a number near 2^63, version 2 as a word.
        let limit = number(&folder.join(limit)).filter(|limit| *limit < 1 << 60);
        MemoryUsage {
            timestamp,
            working_set_bytes,
            available_bytes: limit.map(|limit| limit.saturating_sub(working_set_bytes)),
            usage_bytes,
            rss_bytes: keyed_in(&stat, rss),
            page_faults: keyed_in(&stat, faults),
            major_page_faults: keyed_in(&stat, major),
        }
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for child in children(folder) {
        remove_tree(&child)?;
    }
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn keyed(path: &Path, key: &str) -> u64 {
    keyed_in(&std::fs::read_to_string(path).unwrap_or_default(), key)
}

fn keyed_in(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// One file to write. Optional ones do not exist on every kernel.
struct Setting {
    controller: &'static str,
    file: String,
    value: String,
    optional: bool,
}

fn setting(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Setting {
    Setting { controller, file: file.into(), value: value.to_string(), optional: false }
}

fn v1_files(r: &LinuxContainerResources) -> Vec<Setting> {
    let mut files = Vec::new();
    if r.cpu_shares > 0 {
        files.push(setting("cpu", "cpu.shares", r.cpu_shares));
    }
    if r.cpu_period > 0 {
        files.push(setting("cpu", "cpu.cfs_period_us", r.cpu_period));
    }
    if r.cpu_quota != 0 {
        files.push(setting("cpu", "cpu.cfs_quota_us", r.cpu_quota));
    }
    if r.memory_limit_in_bytes != 0 {
        files.push(setting("memory", "memory.limit_in_bytes", r.memory_limit_in_bytes));
    }
    if r.memory_swap_limit_in_bytes > 0 {
        let swap = setting("memory", "memory.memsw.limit_in_bytes", r.memory_swap_limit_in_bytes);
        files.push(Setting { optional: true, ..swap });
    }
    files.extend(cpuset_files(r));
    for page in &r.hugepage_limits {
        let file = format!("hugetlb.{}.limit_in_bytes", page.page_size);
        files.push(Setting { optional: true, ..setting("hugetlb", file, page.limit) });
    }
    files
}

fn cpuset_files(r: &LinuxContainerResources) -> impl Iterator<Item = Setting> {
    [("cpuset.cpus", &r.cpuset_cpus), ("cpuset.mems", &r.cpuset_mems)]
        .map(|(file, value)| setting("cpuset", file, value))
        .into_iter()
        .filter(|setting| !setting.value.is_empty())
}

fn v2_files(r: &LinuxContainerResources) -> Vec<Setting> {
    let mut files = Vec::new();
    if r.cpu_shares > 0 {
        files.push(setting("cpu", "cpu.weight", weight(r.cpu_shares)));
    }
    if r.cpu_quota != 0 {
        let period = if r.cpu_period > 0 { r.cpu_period } else { DEFAULT_PERIOD };
        let quota = if r.cpu_quota > 0 { r.cpu_quota.to_string() } else { "max".to_owned() };
        files.push(setting("cpu", "cpu.max", format!("{quota} {period}")));
    }
    if r.memory_limit_in_bytes != 0 {
        let limit =
            if r.memory_limit_in_bytes > 0 { r.memory_limit_in_bytes.to_string() } else { "max".into() };
        files.push(setting("memory", "memory.max", limit));
    }
    if r.memory_swap_limit_in_bytes > 0 {
        let swap = (r.memory_swap_limit_in_bytes - r.memory_limit_in_bytes.max(0)).max(0);
        files.push(Setting { optional: true, ..setting("memory", "memory.swap.max", swap) });
    }
    files.extend(cpuset_files(r));
    for page in &r.hugepage_limits {
        let file = format!("hugetlb.{}.max", page.page_size);
        files.push(Setting { optional: true, ..setting("hugetlb", file, page.limit) });
    }
    files.extend(
        r.unified.iter().filter(|(key, _)| !key.contains('/')).map(|(key, value)| setting("", key, value)),
    );
    files
}

/// Shares (2 to 262144) on version 2's scale (1 to 10000).
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_and_pure_machines_are_told_apart() {
        let mixed = "31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                     32 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                     33 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                     34 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(mixed);
        assert!(!found.is_unified());
        let group = found.group("/krate/x");
        let folders: Vec<_> = group.folders().iter().map(|f| f.display().to_string()).collect();
        assert_eq!(
            folders,
            [
                "/sys/fs/cgroup/cpu,cpuacct/krate/x",
                "/sys/fs/cgroup/memory/krate/x",
                "/sys/fs/cgroup/unified/krate/x"
            ]
        );
        let pure =
            Hierarchies::parse("30 20 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(pure.is_unified());
        assert_eq!(pure.group("a").folders(), [PathBuf::from("/sys/fs/cgroup/a")]);
    }

    #[test]
    fn version_2_gets_its_own_files() {
        let resources = LinuxContainerResources {
            cpu_shares: 1024,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 1 << 20,
            ..LinuxContainerResources::default()
        };
        let files: Vec<_> = v2_files(&resources).into_iter().map(|s| (s.file, s.value)).collect();
        assert_eq!(files[0], ("cpu.weight".to_owned(), "39".to_owned()));
        assert_eq!(files[1], ("cpu.max".to_owned(), "50000 100000".to_owned()));
        assert_eq!(files[2], ("memory.max".to_owned(), "1048576".to_owned()));
    }

    #[test]
    fn a_containers_processes_end_together_and_a_pods_do_not() {
        let root = tempfile::tempdir().expect("a folder");
        let hierarchies =
            Hierarchies { v1: BTreeMap::new(), v2: Some(root.path().to_owned()), unified: true };
        let (pod, container) = (hierarchies.group("pod"), hierarchies.group("pod/container"));
        std::fs::create_dir_all(root.path().join("pod/container")).expect("folders");
        let resources =
            LinuxContainerResources { memory_limit_in_bytes: 1 << 20, ..LinuxContainerResources::default() };
        pod.apply(&resources).expect("limits");
        container.apply(&resources).expect("limits");
        container.end_together().expect("the file is written");
        assert!(root.path().join("pod/container/memory.oom.group").exists());
        assert!(!root.path().join("pod/memory.oom.group").exists());
    }

    #[test]
    fn statistics_are_read_by_their_whole_key() {
        assert_eq!(keyed_in("oom_kill_disable 1\nunder_oom 0\noom_kill 3\n", "oom_kill"), 3);
    }
}
