//! Descriptions of types and fields, those of `k8s-openapi`, kept compressed until somebody asks.

use flate2::read::ZlibDecoder;
use std::collections::HashMap;
use std::io::Read as _;

/// Every description, unpacked; dropped when the caller is done with it.
pub struct Descriptions {
    text: String,
    /// Range of the description of a definition and field; the definition's own under the empty field.
    by_name: HashMap<(String, String), (usize, usize)>,
}

impl Descriptions {
    /// Unpacks them all: about a megabyte, for the time that a document is made.
    #[must_use]
    pub fn unpack() -> Self {
        let mut text = String::new();
        let mut decoder = ZlibDecoder::new(&include_bytes!("../../data/docs.bin")[..]);
        decoder.read_to_string(&mut text).expect("the descriptions were packed by xtask");
        let by_name = index(&text);
        Self { text, by_name }
    }

    /// The description of a type (empty `field`) or field; empty if there is none.
    #[must_use]
    pub fn get(&self, definition: &str, field: &str) -> String {
        let range = self.by_name.get(&(definition.to_owned(), field.to_owned()));
        range.map_or_else(String::new, |(start, end)| plain(&self.text[*start..*end]))
    }
}

/// A description as it was before `k8s-openapi` escaped it for rustdoc, with its lines.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next_if(|next| "n<>[]\\".contains(*next)) } else { None };
        out.push(match escaped {
            None => c,
            Some('n') => '\n',
            Some(escaped) => escaped,
        });
    }
    out
}

/// `@definition<tab>text` or `field<tab>text`; a text `=N` repeats the N-th distinct one.
fn index(text: &str) -> HashMap<(String, String), (usize, usize)> {
    let mut by_name = HashMap::new();
    let mut distinct: Vec<(usize, usize)> = Vec::new();
    let (mut definition, mut at) = ("", 0);
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let Some((name, doc)) = line.trim_end_matches('\n').split_once('\t') else { continue };
        let repeated = doc.strip_prefix('=').and_then(|n| n.parse::<usize>().ok());
        let range = repeated.and_then(|n| distinct.get(n).copied()).unwrap_or_else(|| {
            let from = start + name.len() + 1;
            distinct.push((from, from + doc.len()));
            (from, from + doc.len())
        });
        let field = match name.strip_prefix('@') {
            Some(name) => {
                definition = name;
                ""
            }
            None => name,
        };
        by_name.insert((definition.to_owned(), field.to_owned()), range);
    }
    by_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let docs = Descriptions::unpack();
        let pod = "io.k8s.api.core.v1.PodSpec";
        assert_eq!(docs.get(pod, ""), "PodSpec is a description of a pod.");
        assert!(docs.get(pod, "hostIPC").starts_with("Use the host's ipc namespace."));

        let port = docs.get("io.k8s.api.core.v1.ContainerPort", "containerPort");
        assert!(port.ends_with(" number, 0 < x < 65536."), "{port}");
        assert!(
            docs.get(pod, "setHostnameAsFQDN").contains(r"HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet")
        );
        assert_eq!(docs.get(pod, "nothing"), "");
    }
}
