//! `krate version`.

use crate::ui::{Outcome, say};

pub fn run() -> Outcome<()> {
    say!("krate {}", env!("CARGO_PKG_VERSION"));
    say!("Kubernetes {}", krate_api::KUBERNETES_VERSION);
    Ok(())
}
