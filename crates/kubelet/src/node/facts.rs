//! What the machine says of itself.

use std::path::Path;

/// Capacity and identity of the machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub cpus: u64,
    pub memory_bytes: u64,
    pub memory_available: u64,
    pub swap_bytes: u64,
    pub disk_bytes: u64,
    pub disk_available: u64,
    pub inodes: u64,
    pub inodes_available: u64,
    pub pids_max: u64,
    pub pids_used: u64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
}

/// Where a machine may say which one it is, the best first, as the original's kubelet looks.
const SYSTEM_UUIDS: [&str; 4] = [
    "/sys/class/dmi/id/product_uuid",
    "/proc/device-tree/system-id",
    "/proc/device-tree/vm,uuid",
    "/etc/machine-id",
];

impl Facts {
    /// Reads what can be read; what cannot stays zero or empty.
    #[must_use]
    pub fn read(root_dir: &Path) -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let meminfo = file("/proc/meminfo");
        let memory = |name: &str| {
            let line = meminfo.lines().find(|l| l.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let mut facts = Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory_bytes: memory("MemTotal:").unwrap_or(0),
            memory_available: memory("MemAvailable:").unwrap_or(0),
            swap_bytes: memory("SwapTotal:").unwrap_or(0),
            pids_used: running(&file("/proc/loadavg")),
            pids_max: file("/proc/sys/kernel/pid_max").parse().unwrap_or(0),
            machine_id: file("/etc/machine-id"),
            system_uuid: SYSTEM_UUIDS.into_iter().map(file).find(|id| !id.is_empty()).unwrap_or_default(),
            boot_id: file("/proc/sys/kernel/random/boot_id"),
            kernel: file("/proc/sys/kernel/osrelease"),
            os_image: os_image(&file("/etc/os-release")),
            ..Self::default()
        };
        if let Ok(fs) = nix::sys::statvfs::statvfs(root_dir) {
            facts.disk_bytes = fs.blocks() * fs.fragment_size();
            facts.disk_available = fs.blocks_available() * fs.fragment_size();
            (facts.inodes, facts.inodes_available) = (fs.files(), fs.files_available());
        }
        facts
    }
}

/// The tasks of `0.1 0.2 0.3 1/234 567`.
fn running(load: &str) -> u64 {
    let tasks = load.split(' ').nth(3).and_then(|t| t.split_once('/'));
    tasks.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

fn os_image(release: &str) -> String {
    let line = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_a_disk() {
        let facts = Facts::read(Path::new("/"));
        assert!(!facts.system_uuid.is_empty() || facts.machine_id.is_empty());
        assert_eq!(running("0.1 0.2 0.3 1/234 567"), 234);
        assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.disk_bytes > 0);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }
}
