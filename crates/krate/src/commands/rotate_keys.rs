//! `krate rotate-keys`: a new key for the store. A running server takes it and rewrites everything at once.

use crate::cli::RotateKeys;
use crate::cluster::Cluster;
use crate::ui::{Outcome, say};
use crate::wiring::encryption;

pub fn run(args: &RotateKeys) -> Outcome<()> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => {
            let cluster = Cluster::of(&args.cluster)?;
            cluster.load()?;
            cluster.server_dir().join(encryption::FILE)
        }
    };
    encryption::rotate(&file)?;
    say!("{} has a new key, which a running server takes at once.", file.display());
    Ok(())
}
