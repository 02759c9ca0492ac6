//! Where things lie on the node's disk. The layout is the one that log collectors and debuggers expect.

use std::path::{Path, PathBuf};

/// The roots of the kubelet's folders.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `/var/lib/kubelet` in the original.
    pub root: PathBuf,
    /// `/var/log/pods` in the original.
    pub pod_logs: PathBuf,
    /// `/var/log/containers` in the original: links by container into the folder above.
    pub container_logs: PathBuf,
}

impl Paths {
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    pub fn volumes(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volumes")
    }

    /// `plugin` is the name of the volume's kind, such as `empty-dir`.
    pub fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.volumes(uid).join(format!("kubernetes.io~{plugin}")).join(name)
    }

    pub fn hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// Folder of the termination messages of one container's attempts.
    pub fn container(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }

    pub fn logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs.join(format!("{namespace}_{name}_{uid}"))
    }

    pub fn container_link(&self, namespace: &str, pod: &str, container: &str, id: &str) -> PathBuf {
        self.container_logs.join(format!("{pod}_{namespace}_{container}-{id}.log"))
    }
}

/// Path of an attempt's log below the pod's log folder.
pub fn log_file(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The restart count that follows from the logs in a container's folder, for a runtime that forgot its
/// containers: one more than the largest number of a log.
pub fn attempts_by_logs(folder: &Path) -> u32 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let number = |entry: std::fs::DirEntry| -> Option<u32> {
        let name = entry.file_name().into_string().ok()?;
        let (number, rest) = name.split_once('.')?;
        (rest == "log" || rest.starts_with("log.")).then(|| number.parse().ok())?
    };
    entries.flatten().filter_map(number).max().map_or(0, |n| n.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_tell_how_often_a_container_ran() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(attempts_by_logs(&folder.path().join("none")), 0);
        for name in ["0.log", "3.log.20260101-000000.gz", "x.log", "9.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(attempts_by_logs(folder.path()), 4);
    }
}
