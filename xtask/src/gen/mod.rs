//! `cargo xtask gen`: the compact data that `krate-api` embeds.
//!
//! `schema.txt` is the schema table (see `krate_api::schema` for its format); `docs.bin` holds the
//! descriptions of types and fields, taken from the sources of the `k8s-openapi` crate. Both are derived:
//! nothing else in the tree may depend on the facts folder.

mod docs;
mod facts;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};

pub type Error = Box<dyn std::error::Error>;

pub fn run(facts: &Path) -> Result<(), Error> {
    let data = workspace().join("crates/api/data");
    fs::create_dir_all(&data)?;
    let facts = facts::Facts::read(facts)?;
    let schema = schema::table(&facts)?;
    fs::write(data.join("schema.txt"), &schema)?;
    let docs = docs::collect(&docs::source()?)?;
    fs::write(data.join("docs.bin"), &docs)?;
    println!("schema.txt {} bytes, docs.bin {} bytes", schema.len(), docs.len());
    Ok(())
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
