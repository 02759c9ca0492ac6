//! Collects the descriptions of types and fields from the documentation comments of `k8s-openapi`.
//!
//! The file is zlib-compressed text: a line `@definition` with its description, then lines `field` with
//! theirs, a tab between; line feeds within a description are written `\n`. A description that was already
//! given is `=N`, the N-th distinct one.

use super::Error;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The folder with the generated sources of the API version that we serve.
pub fn source() -> Result<PathBuf, Error> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(["metadata", "--format-version", "1", "--offline"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let package = packages.iter().find(|p| p["name"] == "k8s-openapi").ok_or("no k8s-openapi here")?;
    let manifest = package["manifest_path"].as_str().ok_or("no manifest path")?;
    Ok(Path::new(manifest).with_file_name("src").join("v1_36"))
}

/// Descriptions by definition; the type's own is under the empty field.
type Docs = BTreeMap<String, BTreeMap<String, String>>;

pub fn collect(source: &Path) -> Result<Vec<u8>, Error> {
    let mut docs = Docs::new();
    walk(source, &mut docs)?;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text(&docs).as_bytes())?;
    Ok(encoder.finish()?)
}

fn text(docs: &Docs) -> String {
    let mut out = String::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (definition, fields) in docs {
        for (field, doc) in fields {
            let name = if field.is_empty() { format!("@{definition}") } else { field.clone() };
            let next = known.len();
            let doc = match known.get(doc.as_str()) {
                Some(n) => format!("={n}"),
                None => {
                    known.insert(doc, next);
                    doc.replace('\n', "\\n")
                }
            };
            out.push_str(&format!("{name}\t{doc}\n"));
        }
    }
    out
}

fn walk(folder: &Path, docs: &mut Docs) -> Result<(), Error> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, docs)?;
        } else {
            file(&fs::read_to_string(&path)?, docs);
        }
    }
    Ok(())
}

/// One file holds one definition: its struct with comments, then a serializer that says the JSON names.
fn file(source: &str, docs: &mut Docs) {
    let Some(rest) = source.strip_prefix("// Generated from definition ") else { return };
    let definition = rest.lines().next().unwrap_or_default().to_owned();
    let names = json_names(source);
    let mut fields = BTreeMap::new();
    let mut doc: Vec<&str> = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.strip_prefix(' ').unwrap_or(text));
        } else if line.starts_with("pub struct") || line.starts_with("pub enum") {
            fields.insert(String::new(), doc.join("\n"));
            doc.clear();
        } else if let Some(field) = line.strip_prefix("pub ").and_then(|l| l.split_once(": ")).map(|l| l.0) {
            if let Some(name) = names.get(field) {
                fields.insert(name.clone(), doc.join("\n"));
            }
            doc.clear();
        } else if line.starts_with("impl") {
            break;
        } else if !line.starts_with("#[") {
            doc.clear();
        }
    }
    // Only types with fields and their own description are of use; kinds get theirs the same way.
    docs.insert(definition, fields);
}

/// JSON names by Rust names: the arms of the deserializer are `"jsonName" => Field::Key_rust_name`.
fn json_names(source: &str) -> HashMap<&str, String> {
    let arms = source.lines().filter_map(|line| {
        let (json, field) = line.trim().strip_prefix('"')?.split_once("\" => Field::Key_")?;
        Some((field.trim_end_matches(','), json.to_owned()))
    });
    arms.collect()
}
