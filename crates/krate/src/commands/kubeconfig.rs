//! `krate kubeconfig`: prints the kubeconfig of a cluster, and where the commands that change the user's own
//! file find it.

use crate::cli::Named;
use crate::cluster::Cluster;
use crate::ui::{Explain, Failure, Outcome, say};
use std::path::{Path, PathBuf};

pub fn run(args: &Named) -> Outcome<()> {
    let cluster = Cluster::of(args)?;
    cluster.load()?;
    let file = cluster.admin_kubeconfig();
    let next = "Start the cluster with `krate up`.";
    say!(
        "{}",
        std::fs::read_to_string(file).explain("the cluster has not been started yet", next)?.trim_end()
    );
    Ok(())
}

/// The user's kubeconfig: as given, or the first file of `$KUBECONFIG`, or `~/.kube/config`.
pub fn user_file(given: Option<&Path>) -> Outcome<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if let Some(list) = std::env::var_os("KUBECONFIG")
        && let Some(first) = std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty())
    {
        return Ok(first);
    }
    let home = std::env::var_os("HOME").ok_or_else(|| {
        Failure::new("there is no home folder for the kubeconfig", "Give --kubeconfig PATH.")
    })?;
    Ok(Path::new(&home).join(".kube/config"))
}

/// Changes the user's file: atomically, readable by its owner only, removed when `change` leaves nothing.
pub fn edit(
    file: &Path,
    change: impl FnOnce(&str) -> Result<Option<String>, krate_client::kubeconfig::KubeconfigError>,
) -> Outcome<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let what = format!("the kubeconfig {} cannot be changed", file.display());
    let next = "Give another with --kubeconfig PATH.";
    let existing = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.explain(&what, next)?,
    };
    let Some(text) = change(&existing).explain(&what, next)? else {
        if !existing.is_empty() {
            std::fs::remove_file(file).explain(&what, next)?;
        }
        return Ok(());
    };
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent).explain(&what, next)?;
    }
    let temporary = file.with_extension("krate-new");
    let mut options = std::fs::File::options();
    let mut out =
        options.create(true).write(true).truncate(true).mode(0o600).open(&temporary).explain(&what, next)?;
    std::io::Write::write_all(&mut out, text.as_bytes()).explain(&what, next)?;
    std::fs::rename(&temporary, file).explain(&what, next)
}
