//! NFS: an export of a server, mounted by the kernel itself from within the node's network.

use super::mount::Mounter;
use krate_api::types::core::v1::NFSVolumeSource;
use std::path::Path;

/// Name of the plug-in in paths.
pub const PLUGIN: &str = "nfs";

/// What is mounted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    pub server: String,
    pub path: String,
    pub read_only: bool,
    /// As for `mount -o`.
    pub options: Vec<String>,
}

impl Export {
    #[must_use]
    pub fn of(source: &NFSVolumeSource, options: &[String]) -> Self {
        Self {
            server: source.server.clone(),
            path: source.path.clone(),
            read_only: source.read_only == Some(true),
            options: options.to_vec(),
        }
    }
}

/// Mounts the export if it is not mounted.
pub fn set_up(export: &Export, at: &Path, mounter: &dyn Mounter) -> Result<(), String> {
    let failed =
        |e: std::io::Error| format!("mounting {}:{} at {}: {e}", export.server, export.path, at.display());
    std::fs::create_dir_all(at).map_err(failed)?;
    if !mounter.is_mount_point(at).map_err(failed)? {
        mounter.nfs(at, export).map_err(failed)?;
    }
    Ok(())
}

/// Options that are flags of the mount, not of the file system.
pub fn is_flag(option: &str) -> bool {
    matches!(
        option,
        "ro" | "rw"
            | "nosuid"
            | "suid"
            | "nodev"
            | "dev"
            | "noexec"
            | "exec"
            | "noatime"
            | "nodiratime"
            | "relatime"
            | "defaults"
            | "_netdev"
            | "nofail"
    )
}

/// The option strings to try, newest version first; the version that the user asks for is the only one.
#[must_use]
pub fn attempts(export: &Export, address: &str) -> Vec<String> {
    let own: Vec<&str> = export.options.iter().flat_map(|o| o.split(',')).filter(|o| !is_flag(o)).collect();
    let versioned = own.iter().any(|o| ["vers=", "nfsvers="].iter().any(|p| o.starts_with(p)));
    let versions: &[&str] = if versioned { &[""] } else { &["vers=4.2", "vers=4.1", "vers=4.0", "vers=3"] };
    let address = format!("addr={address}");
    let join = |version: &&str| {
        let parts = own.iter().copied().chain([*version, address.as_str()]);
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",")
    };
    versions.iter().map(join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_tried_from_the_newest_unless_one_is_asked_for() {
        let mut export = Export { options: vec!["ro".into(), "hard,timeo=600".into()], ..Default::default() };
        let tried = attempts(&export, "10.0.0.1");
        assert_eq!(tried.len(), 4);
        assert_eq!(tried[0], "hard,timeo=600,vers=4.2,addr=10.0.0.1");
        export.options.push("nfsvers=4.1".into());
        assert_eq!(attempts(&export, "10.0.0.1"), ["hard,timeo=600,nfsvers=4.1,addr=10.0.0.1"]);
    }
}
