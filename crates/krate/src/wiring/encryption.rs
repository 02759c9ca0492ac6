//! The keys of the store: the file that they come from, made when there is none, and followed while the
//! server runs.

use super::identity::write_private;
use crate::ui::{Explain, Outcome};
use krate_apiserver::encryption::Encryption;
use krate_base::Supervisor;
use krate_kubelet::file_watch::FileWatch;
use krate_store::Embedded;
use nix::sys::inotify::AddWatchFlags;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the file that Krate makes by itself, in the server's folder.
pub const FILE: &str = "encryption.yaml";

/// Keys and where they come from.
pub struct Keys {
    pub encryption: Arc<Encryption>,
    file: PathBuf,
}

/// Reads the file that was given, or the server's own, which is made with a new key if there is none.
pub fn load(data_dir: &Path, given: Option<&Path>) -> Outcome<Keys> {
    let file = given.map_or_else(|| data_dir.join(FILE), Path::to_owned);
    if given.is_none() && !file.exists() {
        let text = Encryption::generate().explain("a key for the store cannot be made", "")?;
        write_private(&file, text.as_bytes())?;
    }
    let what = format!("the encryption configuration {} cannot be used", file.display());
    let text = std::fs::read_to_string(&file).explain(&what, "Check the path and the rights.")?;
    let next = "It has the form of Kubernetes' EncryptionConfiguration (apiserver.config.k8s.io/v1).";
    let encryption = Arc::new(Encryption::parse(&text).explain(&what, next)?);
    Ok(Keys { encryption, file })
}

/// Takes every change of the file while the server runs, and rewrites what is then under an older key.
pub fn follow(keys: Keys, store: &Arc<Embedded>, supervisor: &Supervisor) {
    let (keys, store) = (Arc::new(keys), store.clone());
    supervisor.component("encryption", move |shutdown| {
        let (keys, store) = (keys.clone(), store.clone());
        async move {
            let folder = keys.file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut watch = FileWatch::new()?;
            // The folder, because files are replaced rather than changed (and so are links to them).
            let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_CREATE;
            watch.add(folder, flags)?;
            let mut last = read(&keys.file).await.unwrap_or_default();
            loop {
                match shutdown.run_until_cancelled(watch.changed()).await {
                    None => return Ok::<(), std::io::Error>(()),
                    Some(events) => drop(events?),
                }
                match read(&keys.file).await {
                    Ok(text) if text != last => {
                        last = text;
                        take(&keys, &store, &last).await;
                    }
                    _ => {}
                }
            }
        }
    });
}

async fn read(file: &Path) -> std::io::Result<String> {
    tokio::fs::read_to_string(file).await
}

async fn take(keys: &Keys, store: &Embedded, text: &str) {
    let file = keys.file.display();
    if let Err(error) = keys.encryption.reload(text) {
        tracing::error!(%file, %error, "the encryption configuration is refused; the one before goes on");
        return;
    }
    match store.reseal().await {
        Ok(records) => tracing::info!(
            %file, records,
            "the encryption configuration was taken and everything rewritten; older keys are no longer needed"
        ),
        Err(error) => tracing::error!(%file, %error, "the store could not be rewritten under its new keys"),
    }
}

/// Puts a new key into a file that Krate made.
pub fn rotate(file: &Path) -> Outcome<()> {
    let what = format!("the keys of {} cannot be rotated", file.display());
    let text = std::fs::read_to_string(file).explain(&what, "Has the cluster been started yet?")?;
    let next = "Put a new key before the others by hand; a running server takes it at once.";
    write_private(file, Encryption::rotate(&text).explain(&what, next)?.as_bytes())
}
