//! Rules that no compiler checks: every file says what it is for, and none grows without bound.

use crate::check::Outcome;
use std::path::{Path, PathBuf};

/// Longest source file, in lines; tables of data are exempt by living outside `src`.
const MAX_LINES: usize = 1000;

pub fn run() -> Outcome {
    let mut files = Vec::new();
    for root in ["crates", "xtask"] {
        collect(Path::new(root), &mut files);
    }
    let mut faults = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        if !text.starts_with("//!") {
            faults.push(format!("{}: does not begin with //!", file.display()));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{}: {lines} lines, more than {MAX_LINES}", file.display()));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_none_or(|n| n != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}
