//! Keeps dependencies to the licences that `deny.toml` allows (the form of cargo-deny, which may be used in
//! place of this): for every package of the lock file, one of the licences it offers must be allowed.

use crate::check::{Outcome, cargo};
use serde_json::Value;
use std::collections::BTreeSet;

const FILE: &str = "deny.toml";

pub fn run() -> Outcome {
    let allowed = allowed(&std::fs::read_to_string(FILE).map_err(|e| format!("{FILE}: {e}"))?);
    let output = cargo().args(["metadata", "--format-version", "1", "--locked"]).output();
    let output = output.map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let faults: Vec<String> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|package| {
            let licence = package["license"].as_str().unwrap_or("none");
            let name = package["name"].as_str().unwrap_or_default();
            (!permits(licence, &allowed)).then(|| format!("{name}: its licence {licence:?} is not in {FILE}"))
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// The quoted words of `allow = [...]`.
fn allowed(text: &str) -> BTreeSet<String> {
    let list = text.split_once("allow = [").map_or("", |(_, rest)| rest.split(']').next().unwrap_or(""));
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression leaves a choice of licences that are all allowed. `AND` binds closer than `OR`;
/// a slash is the old way to write `OR`.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, allowed) && rest.is_empty()
}

fn either(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut permitted = both(rest, allowed);
    while let [first, after @ ..] = rest
        && *first == "OR"
    {
        *rest = after;
        permitted |= both(rest, allowed);
    }
    permitted
}

fn both(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut permitted = one(rest, allowed);
    while let [first, after @ ..] = rest
        && *first == "AND"
    {
        *rest = after;
        permitted &= one(rest, allowed);
    }
    permitted
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let [first, after @ ..] = rest else { return false };
    *rest = after;
    if *first == "(" {
        let permitted = either(rest, allowed);
        *rest = rest.get(1..).unwrap_or(&[]);
        return permitted;
    }
    // An exception only adds rights.
    if let ["WITH", _, after @ ..] = rest {
        *rest = after;
    }
    allowed.contains(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_offered_licence_has_to_be_allowed() {
        let allowed = allowed("[licenses]\nallow = [\n  \"MIT\",\n  \"ISC\",\n]\nx = \"GPL-2.0\"");
        assert_eq!(allowed.len(), 2);
        for good in
            ["MIT", "GPL-2.0 OR MIT", "MIT/X", "(X OR ISC) AND MIT", "ISC WITH e OR X", "X AND Y OR MIT"]
        {
            assert!(permits(good, &allowed), "{good}");
        }
        for bad in ["GPL-2.0", "none", "", "MIT AND GPL-2.0", "(MIT OR X) AND Y", "MIT )"] {
            assert!(!permits(bad, &allowed), "{bad}");
        }
    }
}
