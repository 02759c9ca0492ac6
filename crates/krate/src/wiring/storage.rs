//! What the cluster's own volumes need beside objects: their folders are removed here.

use std::io;
use std::path::PathBuf;

/// Removes a folder with everything in it. One that is not there is removed already.
pub async fn remove(folder: PathBuf) -> io::Result<()> {
    let done = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    done.await.map_err(io::Error::other)?
}
