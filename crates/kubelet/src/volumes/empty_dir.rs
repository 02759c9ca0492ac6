//! emptyDir: a folder for everybody, on disk or in memory, that lives as long as the pod.

use super::mount::Mounter;
use crate::spec::resources;
use krate_api::types::core::v1::{EmptyDirVolumeSource, Pod};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Name of the plug-in in paths.
pub const PLUGIN: &str = "empty-dir";

/// Makes the folder if it is not there. What is in it stays.
pub fn set_up(
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    at: &Path,
    mounter: &dyn Mounter,
) -> Result<(), String> {
    let medium = source.medium.as_deref().unwrap_or_default();
    match medium {
        "" => folder(at).map_err(|e| format!("mkdir {}: {e}", at.display())),
        "Memory" => in_memory(at, memory_limit(pod, source), mounter),
        medium if medium.starts_with("HugePages") => {
            Err(format!("emptyDir medium \"{medium}\" is not supported by this kubelet"))
        }
        medium => Err(format!("unknown storage medium {medium:?}")),
    }
}

/// A folder with all rights for all.
fn folder(at: &Path) -> io::Result<()> {
    if at.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(at)?;
    std::fs::set_permissions(at, PermissionsExt::from_mode(0o777))
}

/// Makes a folder with a memory file system on it.
pub fn in_memory(at: &Path, size: Option<u64>, mounter: &dyn Mounter) -> Result<(), String> {
    let failed = |e: io::Error| format!("mounting tmpfs at {}: {e}", at.display());
    folder(at).map_err(failed)?;
    if !mounter.is_mount_point(at).map_err(failed)? {
        mounter.tmpfs(at, size).map_err(failed)?;
    }
    Ok(())
}

/// The smaller of the volume's own limit and the memory that the pod may use.
fn memory_limit(pod: &Pod, source: &EmptyDirVolumeSource) -> Option<u64> {
    let own = source.size_limit.as_ref().map(resources::value).filter(|v| *v > 0);
    let of_pod = resources::pod_limit(pod, "memory").filter(|v| *v > 0);
    let least = match (own, of_pod) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    least.and_then(|v| u64::try_from(v).ok())
}

#[cfg(test)]
mod tests {
    use super::super::mount::Recorded;
    use super::*;
    use crate::spec::build::pod;
    use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    #[test]
    fn everybody_may_write_and_the_content_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("volume");
        let source = EmptyDirVolumeSource::default();
        set_up(&pod("web"), &source, &at, &Recorded::default()).unwrap();
        assert_eq!(std::fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o777);
        std::fs::write(at.join("x"), "1").unwrap();
        set_up(&pod("web"), &source, &at, &Recorded::default()).unwrap();
        assert!(at.join("x").exists());
    }

    #[test]
    fn memory_is_mounted_once_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("volume");
        let source =
            EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: Some(Quantity("16Mi".into())) };
        let mounter = Recorded::default();
        for _ in 0..2 {
            set_up(&pod("web"), &source, &at, &mounter).unwrap();
        }
        assert_eq!(mounter.mounted(), [(at, Some(16 << 20))]);
    }
}
