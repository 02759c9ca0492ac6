//! A part of a volume as a container's mount. The part never lies outside the volume, whatever links a
//! container has put there.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// The folder or file at `part` of the volume; made as a folder if it is not there.
pub fn resolve(volume: &Path, part: &str) -> Result<PathBuf, String> {
    let failed = |e: io::Error| format!("failed to prepare subPath for volumeMount: {e}");
    let part = Path::new(part);
    if part.is_absolute() || part.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(format!(
            "subPath {:?} must not be absolute or contain \"..\"",
            part.display().to_string()
        ));
    }
    let root = volume.canonicalize().map_err(failed)?;
    let mut at = root.clone();
    for component in part.components() {
        let next = at.join(component);
        at = match next.canonicalize() {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !next.is_symlink() => {
                std::fs::create_dir(&next).map_err(failed)?;
                std::fs::set_permissions(&next, PermissionsExt::from_mode(0o750 | mode_of(&at)))
                    .map_err(failed)?;
                next
            }
            Err(error) => return Err(failed(error)),
        };
        if !at.starts_with(&root) {
            return Err(format!(
                "subpath {:?} not within volume path {:?}",
                at.display().to_string(),
                root.display().to_string()
            ));
        }
    }
    Ok(at)
}

/// The rights of a folder, for those made in it.
fn mode_of(folder: &Path) -> u32 {
    std::fs::metadata(folder).map_or(0, |m| m.permissions().mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_within_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        assert!(resolve(&volume, "a/b").unwrap().is_dir());
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        assert!(resolve(&volume, "out/x").unwrap_err().contains("not within volume path"));
        assert!(resolve(&volume, "../x").is_err());
        std::os::unix::fs::symlink("a", volume.join("in")).unwrap();
        assert_eq!(resolve(&volume, "in/b").unwrap(), volume.canonicalize().unwrap().join("a/b"));
    }
}
