//! The links of an HTML page, rewritten as the page passes by.
//!
//! Pure: bytes in, bytes out, in pieces of any size. Only values of attributes that hold a link are touched, and
//! only as the given function says; everything else stays byte for byte. Never holds back more than one tag.

/// Longest tag that is waited for to its end; a longer one passes as it is. Bytes.
const LONGEST_TAG: usize = 64 * 1024;

/// Elements whose content is text, however much it looks like tags.
const RAW: [&str; 10] =
    ["iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// Which attributes of which elements hold a link.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

enum Within {
    Text,
    Comment,
    /// The content of such an element, up to its end tag.
    Raw(&'static str),
}

/// A page on its way.
pub(super) struct Rewriter<F> {
    link: F,
    within: Within,
    held: Vec<u8>,
}

/// A tag as it stands: where it ends, and where its attributes' names and values are.
struct Tag {
    end: usize,
    attributes: Vec<(std::ops::Range<usize>, std::ops::Range<usize>)>,
}

/// What to do with what is held.
enum Step {
    /// So many bytes pass as they are.
    Pass(usize),
    /// So many bytes pass, and more has to come before anything else can be said.
    Wait(usize),
}

impl<F: Fn(&str) -> Option<String>> Rewriter<F> {
    /// With what a link becomes; none leaves it.
    pub fn new(link: F) -> Self {
        Self { link, within: Within::Text, held: Vec::new() }
    }

    /// The next bytes; what can be passed on so far.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::with_capacity(held.len());
        let mut at = 0;
        while at < held.len() {
            match self.step(&held[at..], &mut out) {
                Step::Pass(count) => at += count,
                Step::Wait(count) => {
                    at += count;
                    break;
                }
            }
        }
        self.held = held[at..].to_vec();
        out
    }

    /// What is left when the page has ended.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Step {
        match self.within {
            Within::Text => self.text(bytes, out),
            Within::Comment => self.up_to(bytes, b"-->", out),
            Within::Raw(name) => {
                let end: Vec<u8> = [b"</", name.as_bytes()].concat();
                self.up_to(bytes, &end, out)
            }
        }
    }

    /// Passes everything up to an end, and the end too.
    fn up_to(&mut self, bytes: &[u8], end: &[u8], out: &mut Vec<u8>) -> Step {
        if let Some(at) = bytes.windows(end.len()).position(|w| w.eq_ignore_ascii_case(end)) {
            self.within = Within::Text;
            out.extend_from_slice(&bytes[..at + end.len()]);
            return Step::Pass(at + end.len());
        }
        let safe = bytes.len().saturating_sub(end.len() - 1);
        out.extend_from_slice(&bytes[..safe]);
        Step::Wait(safe)
    }

    fn text(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Step {
        let open = bytes.iter().position(|b| *b == b'<').unwrap_or(bytes.len());
        out.extend_from_slice(&bytes[..open]);
        let rest = &bytes[open..];
        let comment = b"<!--";
        if rest.starts_with(comment) {
            self.within = Within::Comment;
            // The two dashes may be those of the end as well: `<!-->` is whole.
            out.extend_from_slice(&rest[..2]);
            return Step::Pass(open + 2);
        }
        match rest.get(1) {
            None => Step::Wait(open),
            Some(b'!') if rest.len() < comment.len() && comment.starts_with(rest) => Step::Wait(open),
            Some(b) if b.is_ascii_alphabetic() => match read_tag(rest) {
                Some(tag) => {
                    self.tag(&rest[..tag.end], &tag, out);
                    Step::Pass(open + tag.end)
                }
                None if rest.len() < LONGEST_TAG => Step::Wait(open),
                None => {
                    out.push(b'<');
                    Step::Pass(open + 1)
                }
            },
            Some(_) => {
                out.push(b'<');
                Step::Pass(open + 1)
            }
        }
    }

    fn tag(&mut self, bytes: &[u8], tag: &Tag, out: &mut Vec<u8>) {
        let name = name_of(bytes);
        let links =
            LINKS.iter().find(|(n, _)| name.eq_ignore_ascii_case(n.as_bytes())).map_or(&[][..], |l| l.1);
        let mut at = 0;
        for (attribute, value) in &tag.attributes {
            let attribute = &bytes[attribute.clone()];
            if !links.iter().any(|l| attribute.eq_ignore_ascii_case(l.as_bytes())) {
                continue;
            }
            let new = std::str::from_utf8(&bytes[value.clone()]).ok().and_then(|v| (self.link)(v));
            if let Some(new) = new {
                out.extend_from_slice(&bytes[at..value.start]);
                out.extend_from_slice(new.as_bytes());
                at = value.end;
            }
        }
        out.extend_from_slice(&bytes[at..]);
        if let Some(raw) = RAW.iter().find(|r| name.eq_ignore_ascii_case(r.as_bytes())) {
            self.within = Within::Raw(raw);
        }
    }
}

fn name_of(tag: &[u8]) -> &[u8] {
    let end = tag[1..].iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'));
    &tag[1..end.map_or(tag.len(), |e| e + 1)]
}

/// Reads a tag from its `<`; none when it has no end yet.
fn read_tag(bytes: &[u8]) -> Option<Tag> {
    let mut at = 1 + name_of(bytes).len();
    let mut attributes = Vec::new();
    let skip = |from: usize, what: fn(u8) -> bool| {
        bytes.get(from..)?.iter().position(|b| !what(*b)).map(|p| from + p)
    };
    let space = |b: u8| b.is_ascii_whitespace();
    loop {
        at = skip(at, |b| b.is_ascii_whitespace() || b == b'/')?;
        if bytes[at] == b'>' {
            return Some(Tag { end: at + 1, attributes });
        }
        // A name may begin with `=`, so at least one byte is taken.
        let end = skip(at + 1, |b| !(b.is_ascii_whitespace() || matches!(b, b'/' | b'>' | b'=')))?;
        let name = at..end;
        at = skip(end, space)?;
        if bytes[at] != b'=' {
            continue;
        }
        at = skip(at + 1, space)?;
        let value = match bytes[at] {
            quote @ (b'"' | b'\'') => {
                let length = bytes[at + 1..].iter().position(|b| *b == quote)?;
                at + 1..at + 1 + length
            }
            _ => at..skip(at, |b| !(b.is_ascii_whitespace() || b == b'>'))?,
        };
        let quoted = matches!(bytes[at], b'"' | b'\'');
        at = value.end + usize::from(quoted);
        attributes.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(text: &str) -> Option<String> {
        text.starts_with('/').then(|| format!("/p{text}"))
    }

    /// The page in pieces of a size.
    fn rewritten(page: &str, size: usize) -> String {
        let mut rewriter = Rewriter::new(link);
        let mut out = Vec::new();
        for piece in page.as_bytes().chunks(size) {
            out.extend(rewriter.push(piece));
        }
        out.extend(rewriter.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn links_change_and_nothing_else_does_however_the_page_is_cut() {
        let cases = [
            (r#"<a href="/x">test</a>"#, r#"<a href="/p/x">test</a>"#),
            ("<A HREF='/x' href=\"y\">", "<A HREF='/p/x' href=\"y\">"),
            ("<img src=/a.png alt=it's><a href=/b>", "<img src=/p/a.png alt=it's><a href=/p/b>"),
            ("1 < 2 <!doctype html><a  href = \"/x\" />", "1 < 2 <!doctype html><a  href = \"/p/x\" />"),
            ("<!-- <a href=/x> --><a href=/y>", "<!-- <a href=/x> --><a href=/p/y>"),
            ("<!--><a href=/y>", "<!--><a href=/p/y>"),
            (
                r#"<script src="/s">"<a href='/x'>"</SCRIPT><b href=/x>"#,
                r#"<script src="/p/s">"<a href='/x'>"</SCRIPT><b href=/x>"#,
            ),
            (r#"<a title="a > b" href="/x">"#, r#"<a title="a > b" href="/p/x">"#),
            ("<a href", "<a href"),
            ("<", "<"),
            ("<a href=\"/never ended", "<a href=\"/never ended"),
            ("</a href=/x><a =x href=/y>", "</a href=/x><a =x href=/p/y>"),
        ];
        for (page, want) in cases {
            for size in 1..=page.len() {
                assert_eq!(rewritten(page, size), want, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_never_ends_is_not_kept() {
        let mut rewriter = Rewriter::new(link);
        let out = rewriter.push(format!("<a href=\"{}", "x".repeat(LONGEST_TAG)).as_bytes());
        assert!(out.len() > LONGEST_TAG);
    }
}
