//! Variables that a container takes from a file in one of its pod's volumes (KEP-3721), which another container
//! of the pod has written.
//!
//! The file is in the hands of the pod: it is looked up without leaving its volume, only a plain file is read,
//! and no more of it than [`SIZE`].

use krate_api::types::core::v1::{Container, FileKeySelector};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Most bytes of a file of variables.
const SIZE: u64 = 1 << 20;

/// What was read of the files that a container names: their text and where they are, by volume and path.
pub type Files = BTreeMap<(String, String), Result<(String, PathBuf), String>>;

/// Reads the files that a container's variables come from. `volumes` are the folders of the pod's volumes.
pub fn read(container: &Container, volumes: &BTreeMap<String, PathBuf>) -> Files {
    let sources = container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()?.file_key_ref.as_ref());
    let mut files = Files::new();
    for source in sources {
        files
            .entry((source.volume_name.clone(), source.path.clone()))
            .or_insert_with(|| one(source, volumes));
    }
    files
}

fn one(source: &FileKeySelector, volumes: &BTreeMap<String, PathBuf>) -> Result<(String, PathBuf), String> {
    let volume = &source.volume_name;
    let Some(folder) = volumes.get(volume) else {
        return Err(format!("cannot find the volume {volume:?} referenced by FileKeyRef"));
    };
    let path = folder.join(&source.path);
    match text(folder, Path::new(&source.path)) {
        Ok(text) => Ok((text, path)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a file of variables cannot be read");
            Err(unread())
        }
    }
}

fn unread() -> String {
    "couldn't parse env file".to_owned()
}

/// The text of a file within a folder, wherever links lead.
fn text(folder: &Path, path: &Path) -> io::Result<String> {
    let root = File::open(folder)?;
    let how = OpenHow::new()
        // a pipe without a writer must not hold up the kubelet
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(&root, path, how)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE {
        return Err(io::Error::other(format!("it is larger than {SIZE} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value of a variable; nothing if it is missing and may be.
pub fn value(files: &Files, source: &FileKeySelector) -> Result<Option<String>, String> {
    let file = files.get(&(source.volume_name.clone(), source.path.clone()));
    let (text, path) = file.ok_or_else(unread)?.as_ref().map_err(Clone::clone)?;
    let found = find(text, &source.key).map_err(|error| {
        tracing::warn!(path = %path.display(), error, "a file of variables cannot be read");
        unread()
    })?;
    match found.filter(|value| !value.is_empty()) {
        Some(value) => Ok(Some(value)),
        None if source.optional == Some(true) => Ok(None),
        None => Err(format!(
            "environment variable key {:?} not found in file {:?}",
            source.key,
            path.display().to_string()
        )),
    }
}

/// Finds the first assignment of a key: `KEY='value'`, of which the value is taken as it is and may go over several
/// lines. What is written after the one that is found is not looked at.
fn find(text: &str, key: &str) -> Result<Option<String>, String> {
    let blank = [' ', '\t'];
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    while let Some((number, line)) = lines.next() {
        let fault = |what: &str| format!("invalid environment variable format at line {number}: {what}");
        let line = line.trim_start_matches(blank);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once('=').ok_or_else(|| fault("missing '='"))?;
        if name.trim_end_matches(blank).is_empty() {
            return Err(fault("empty variable name"));
        }
        if name.ends_with(blank) {
            return Err(fault("whitespace before '=' is not allowed"));
        }
        let value = if rest.starts_with(blank) {
            // As a shell reads it: the variable is empty.
            String::new()
        } else {
            let quoted =
                rest.strip_prefix('\'').ok_or_else(|| fault("value must be enclosed in single quotes"))?;
            to_quote(quoted, &mut lines).map_err(fault)?
        };
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Reads on to the closing quote, over further lines if need be.
fn to_quote<'a>(
    first: &'a str,
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Result<String, &'static str> {
    let (mut value, mut rest) = (String::new(), first);
    loop {
        if let Some((end, after)) = rest.split_once('\'') {
            value.push_str(end);
            let after = after.trim_start_matches([' ', '\t']);
            let ends = after.is_empty() || after.starts_with('#');
            return if ends { Ok(value) } else { Err("unexpected content after closing quote") };
        }
        value.push_str(rest);
        value.push('\n');
        rest = lines.next().ok_or("unclosed single quote")?.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_as_a_shell_would_read_it() {
        let text = "# note\n\n  A='1'\nB='two\nlines' # note\nC= 'x'\nD='$A \\n'\nA='2'\n";
        let get = |key: &str| find(text, key).unwrap();
        assert_eq!(get("A").as_deref(), Some("1"));
        assert_eq!(get("B").as_deref(), Some("two\nlines"));
        assert_eq!(get("C").as_deref(), Some(""));
        assert_eq!(get("D").as_deref(), Some("$A \\n"));
        assert_eq!(get("E"), None);
    }

    #[test]
    fn what_is_no_assignment_is_a_fault() {
        for (text, fault) in [
            ("A", "missing '='"),
            ("='x'", "empty variable name"),
            ("A ='x'", "whitespace before '=' is not allowed"),
            ("A=x", "value must be enclosed in single quotes"),
            ("A='x' y", "unexpected content after closing quote"),
            ("A='x", "unclosed single quote"),
        ] {
            let error = find(text, "A").unwrap_err();
            assert_eq!(error, format!("invalid environment variable format at line 1: {fault}"));
        }
        // what comes before is enough
        assert_eq!(find("A='1'\nrubbish", "A").unwrap().as_deref(), Some("1"));
    }

    #[test]
    fn files_are_read_within_their_volume_and_only_files() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(dir.path().join("outside"), "A='outside'").unwrap();
        std::fs::write(volume.join("inside"), "A='inside'").unwrap();
        std::os::unix::fs::symlink("../outside", volume.join("escape")).unwrap();
        std::os::unix::fs::symlink("/inside", volume.join("link")).unwrap();
        nix::unistd::mkfifo(&volume.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let volumes = BTreeMap::from([("v".to_owned(), volume.clone())]);
        let get = |volume: &str, path: &str, optional| {
            let source = FileKeySelector {
                key: "A".into(),
                optional: Some(optional),
                path: path.into(),
                volume_name: volume.into(),
            };
            let files = Files::from([((volume.into(), path.into()), one(&source, &volumes))]);
            value(&files, &source)
        };
        assert_eq!(get("v", "inside", false).unwrap().as_deref(), Some("inside"));
        assert_eq!(get("v", "link", false).unwrap().as_deref(), Some("inside"));
        for unreadable in ["escape", "pipe", "absent", ""] {
            assert_eq!(get("v", unreadable, true).unwrap_err(), "couldn't parse env file", "{unreadable}");
        }
        let error = get("w", "inside", false).unwrap_err();
        assert_eq!(error, "cannot find the volume \"w\" referenced by FileKeyRef");
        std::fs::write(volume.join("inside"), "B='1'\n").unwrap();
        assert_eq!(get("v", "inside", true).unwrap(), None);
        let error = get("v", "inside", false).unwrap_err();
        assert!(error.starts_with("environment variable key \"A\" not found in file \""), "{error}");
    }
}
