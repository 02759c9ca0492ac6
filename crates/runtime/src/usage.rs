//! How much of the disk a folder takes.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes on the disk and number of files below `folder`, hard links counted once. What vanishes meanwhile
/// is not counted.
#[must_use]
pub fn tree(folder: &Path) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    let mut linked = HashSet::new();
    let mut todo: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            } else if meta.nlink() > 1 && !linked.insert((meta.dev(), meta.ino())) {
                continue;
            }
            bytes += meta.blocks() * 512;
            files += 1;
        }
    }
    (bytes, files)
}
