//! Rotation of container logs: a log that has grown too large is renamed, the runtime opens a new one, older
//! ones are compressed, the oldest removed.

use flate2::Compression;
use flate2::write::GzEncoder;
use krate_base::Timestamp;
use krate_runtime::cri::Runtime;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// When and how far logs are rotated.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a log before it is rotated (`containerLogMaxSize`).
    pub size: u64,
    /// Files of one container, the one that is written to included (`containerLogMaxFiles`).
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { size: 10 << 20, files: 5 }
    }
}

/// Rotates the log of a running container if it is too large.
pub async fn rotate(
    runtime: &dyn Runtime,
    id: &str,
    log: &Path,
    limits: Limits,
    now: Timestamp,
) -> io::Result<()> {
    if std::fs::metadata(log).map_or(0, |m| m.len()) < limits.size {
        return Ok(());
    }
    let path = log.to_owned();
    tokio::task::spawn_blocking(move || make_room(&path, limits.files)).await.map_err(io::Error::other)??;
    let rotated = with_suffix(log, &now.strftime("%Y%m%d-%H%M%S").to_string());
    std::fs::rename(log, &rotated)?;
    match runtime.reopen_container_log(id).await {
        Ok(()) => Ok(()),
        Err(error) => {
            // It goes on writing into the old one: that keeps its name.
            if !log.exists() {
                std::fs::rename(&rotated, log)?;
            }
            Err(io::Error::other(error.to_string()))
        }
    }
}

fn with_suffix(log: &Path, suffix: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The rotated files of a log, the oldest first.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)))
        .map(|e| e.path())
        .collect();
    all.sort();
    all
}

/// Removes what is too much once one more is rotated, and compresses the rest.
fn make_room(log: &Path, files: usize) -> io::Result<()> {
    let mut all = rotated(log);
    for unfinished in all.extract_if(.., |p| p.extension().is_some_and(|e| e == "tmp")) {
        std::fs::remove_file(unfinished)?;
    }
    let keep = files.saturating_sub(2);
    let too_many = all.len().saturating_sub(keep);
    for old in all.drain(..too_many) {
        std::fs::remove_file(old)?;
    }
    all.iter().filter(|p| p.extension().is_none_or(|e| e != "gz")).try_for_each(|p| compress(p))
}

fn compress(path: &Path) -> io::Result<()> {
    let unfinished = with_suffix(path, "tmp");
    let mut out = GzEncoder::new(File::create(&unfinished)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut out)?;
    out.finish()?.sync_all()?;
    std::fs::rename(&unfinished, with_suffix(path, "gz"))?;
    std::fs::remove_file(path)
}

/// Removes a log with everything that was rotated from it.
pub fn remove(log: &Path) {
    for path in rotated(log).into_iter().chain([log.to_owned()]) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_the_others_are_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for name in ["0.log", "0.log.1.gz", "0.log.2.gz", "0.log.3.gz", "0.log.4", "0.log.4.tmp", "1.log"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        make_room(&log, 5).unwrap();
        let mut left: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.2.gz", "0.log.3.gz", "0.log.4.gz", "1.log"]);
        remove(&log);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
