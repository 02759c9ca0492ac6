//! fsGroup: the files of a volume belong to the pod's group, which may read and write them.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Gives everything at and below `path` to `group`.
pub fn give_to_group(path: &Path, group: u32, readonly: bool) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    lchown(path, Some(metadata.uid()), Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let rights = if readonly { 0o440 } else { 0o660 };
    // New files in a folder inherit its group through the setgid bit.
    let mask = if metadata.is_dir() { rights | 0o2110 } else { rights };
    std::fs::set_permissions(path, PermissionsExt::from_mode(metadata.mode() & 0o7777 | mask))?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_to_group(&entry?.path(), group, readonly)?;
        }
    }
    Ok(())
}

/// Whether the top of a volume has its group and rights already (`fsGroupChangePolicy: OnRootMismatch`).
pub fn belongs_to_group(path: &Path, group: u32) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.gid() == group && m.mode() & 0o2770 == 0o2770)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_gets_its_rights() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        // The group that the file has already, so that the test needs no privileges.
        let group = std::fs::metadata(&file).unwrap().gid();
        give_to_group(dir.path(), group, false).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o660);
        assert!(belongs_to_group(dir.path(), group));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o400)).unwrap();
        give_to_group(dir.path(), group, true).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o440);
    }
}
