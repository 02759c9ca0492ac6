//! Being told that there are other images than before, whoever brought or removed them: several programs of
//! a machine may share one store.

use crate::file_watch::FileWatch;
use nix::sys::inotify::AddWatchFlags;
use std::path::Path;
use tokio::sync::watch;

/// Counts the changes of the names in the store at `root`. Call it inside a runtime. Where the kernel gives no
/// watch, nothing is counted.
#[must_use]
pub fn changes(root: &Path) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    let names = root.join("refs");
    let flags = AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_CLOSE_WRITE;
    let watched = FileWatch::new().and_then(|mut watch| watch.add(&names, flags).map(|()| watch));
    match watched {
        Ok(watch) => {
            tokio::spawn(count(watch, sender));
        }
        Err(error) => tracing::warn!(%error, "changes of images are not noticed"),
    }
    receiver
}

async fn count(mut watch: FileWatch, sender: watch::Sender<u64>) {
    loop {
        tokio::select! {
            changed = watch.changed() => match changed {
                Ok(_) => sender.send_modify(|count| *count += 1),
                Err(error) => return tracing::warn!(%error, "changes of images are no longer noticed"),
            },
            () = sender.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_comes_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("refs")).unwrap();
        let mut changes = changes(dir.path());
        std::fs::write(dir.path().join("refs/app"), "x").unwrap();
        changes.changed().await.unwrap();
    }
}
