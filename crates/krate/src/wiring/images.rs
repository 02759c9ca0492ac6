//! The cluster's image store, and the demo's image in it.

use crate::cluster::Cluster;
use crate::demo;
use crate::ui::{Explain, Outcome};
use krate_runtime::images::{BuildSpec, CopySpec, ImageStore};
use std::path::Path;

/// Opens (or makes) an image store. Several processes may have it open.
pub fn open(dir: &Path) -> Outcome<ImageStore> {
    ImageStore::open(dir).explain("the image store cannot be opened", "Check the rights of the data folder.")
}

/// Runs work on files off the async threads.
pub async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.explain("internal error", "")?
}

/// Makes the demo's image: this program, alone in a root file system.
pub async fn build_demo(cluster: &Cluster) -> Outcome<()> {
    let dir = cluster.images_dir();
    off_runtime(move || {
        let exe = std::fs::read_link("/proc/self/exe")
            .explain("this program cannot find itself", "Is /proc mounted?")?;
        let spec = BuildSpec {
            tag: demo::IMAGE.to_owned(),
            copies: vec![CopySpec::Path { source: exe, target: "/krate".to_owned() }],
            entrypoint: vec!["/krate".to_owned(), "demo-web".to_owned()],
            ..BuildSpec::default()
        };
        open(&dir)?.build(&spec).explain("the demo's image cannot be made", "Is the disk full?")?;
        Ok(())
    })
    .await
}
