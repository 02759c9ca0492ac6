//! Blocks of PEM: what they are called and whether their content can be read. What is in them is for others to judge.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// One block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block<'a> {
    pub label: &'a str,
    /// Whether lines such as `Name: value` come before the content.
    pub has_headers: bool,
    pub content: Vec<u8>,
}

/// The blocks of a text, one after the other; what is between them and what cannot be read is left out.
#[must_use]
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, "-----BEGIN ") else { continue };
        let mut rest = lines.clone();
        let mut body = String::new();
        let mut has_headers = false;
        let closed = rest.by_ref().any(|line| {
            if let Some(end) = boundary(line, "-----END ") {
                return end == label;
            }
            if line.contains(':') {
                has_headers = true;
            } else {
                body.push_str(line.trim());
            }
            false
        });
        if let (true, Ok(content)) = (closed, BASE64_STANDARD.decode(&body)) {
            found.push(Block { label, has_headers, content });
            lines = rest;
        }
    }
    found
}

fn boundary<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim_end().strip_prefix(start)?.strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_other_lines() {
        let text =
            "x\n-----BEGIN A-----\nYQ==\n-----END A-----\n-----BEGIN B-----\nk: v\n\nYg==\n-----END B-----\n";
        let a = Block { label: "A", has_headers: false, content: b"a".to_vec() };
        let b = Block { label: "B", has_headers: true, content: b"b".to_vec() };
        assert_eq!(blocks(text), [a, b]);
    }

    #[test]
    fn broken_blocks_are_left_out() {
        assert_eq!(blocks("-----BEGIN A-----\n!\n-----END A-----\n"), []);
        assert_eq!(blocks("-----BEGIN A-----\nYQ==\n-----END B-----\n"), []);
        let good = Block { label: "A", has_headers: false, content: b"a".to_vec() };
        assert_eq!(blocks("-----BEGIN B-----\n-----BEGIN A-----\nYQ==\n-----END A-----\n"), [good]);
    }
}
