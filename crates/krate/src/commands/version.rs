//! `krate version`.

use crate::ui::Outcome;

pub fn run() -> Outcome<()> {
    println!("krate {}", env!("CARGO_PKG_VERSION"));
    println!("Kubernetes {}", krate_api::KUBERNETES_VERSION);
    Ok(())
}
