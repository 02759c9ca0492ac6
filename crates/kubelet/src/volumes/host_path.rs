//! hostPath: a path of the node, checked or made by its type.

use krate_api::types::core::v1::HostPathVolumeSource;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Checks the path and makes it where the type says so.
pub fn set_up(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let failed = |e: io::Error| format!("hostPath {}: {e}", source.path);
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if !path.exists() => {
            std::fs::create_dir_all(path).map_err(failed)?;
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).map_err(failed)
        }
        "FileOrCreate" if !path.exists() => {
            std::fs::File::create_new(path).map_err(failed)?;
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).map_err(failed)
        }
        _ => check(path, kind),
    }
}

fn check(path: &Path, kind: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", path.display()));
    let file_type = std::fs::metadata(path).map(|m| m.file_type()).ok();
    let is = |test: fn(&std::fs::FileType) -> bool| file_type.as_ref().is_some_and(test);
    match kind {
        "Directory" | "DirectoryOrCreate" if !is(std::fs::FileType::is_dir) => wrong("a directory"),
        "File" | "FileOrCreate" if !is(std::fs::FileType::is_file) => wrong("a file"),
        "Socket" if !is(FileTypeExt::is_socket) => wrong("a socket file"),
        "CharDevice" if !is(FileTypeExt::is_char_device) => wrong("a character device"),
        "BlockDevice" if !is(FileTypeExt::is_block_device) => wrong("a block device"),
        "Directory" | "DirectoryOrCreate" | "File" | "FileOrCreate" | "Socket" | "CharDevice"
        | "BlockDevice" => Ok(()),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_one(path: &Path, kind: &str) -> Result<(), String> {
        set_up(&HostPathVolumeSource { path: path.to_string_lossy().into_owned(), type_: Some(kind.into()) })
    }

    #[test]
    fn types_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let (none, made, file) = (dir.path().join("none"), dir.path().join("a/b"), dir.path().join("f"));
        assert!(try_one(&none, "").is_ok());
        let error = try_one(&none, "Directory").unwrap_err();
        assert_eq!(error, format!("hostPath type check failed: {} is not a directory", none.display()));
        try_one(&made, "DirectoryOrCreate").unwrap();
        try_one(&made, "Directory").unwrap();
        try_one(&file, "FileOrCreate").unwrap();
        try_one(&file, "File").unwrap();
        assert!(try_one(&file, "Socket").is_err());
        assert!(try_one(&file, "Nonsense").is_err());
        try_one(Path::new("/dev/null"), "CharDevice").unwrap();
    }
}
