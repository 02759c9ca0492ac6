//! One line of a CRI log: `2026-01-01T00:00:00.000000000Z stdout F content`.

use super::StreamKind;
use krate_base::Timestamp;

/// A parsed line; borrows from what was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub timestamp: &'a [u8],
    pub time: Timestamp,
    pub stream: StreamKind,
    /// The container has not ended this line yet (tag `P`).
    pub partial: bool,
    pub content: &'a [u8],
}

impl<'a> Line<'a> {
    /// `None` for what is not in the format.
    #[must_use]
    pub fn parse(raw: &'a [u8]) -> Option<Self> {
        let mut parts = raw.splitn(4, |b| *b == b' ');
        let timestamp = parts.next()?;
        let time = std::str::from_utf8(timestamp).ok()?.parse().ok()?;
        let stream = match parts.next()? {
            b"stdout" => StreamKind::Stdout,
            b"stderr" => StreamKind::Stderr,
            _ => return None,
        };
        // Tags are separated by colons; the first says whether the line is whole.
        let partial = match parts.next()?.split(|b| *b == b':').next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self { timestamp, time, stream, partial, content: parts.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_may_hold_spaces() {
        let line = Line::parse(b"2026-01-02T03:04:05.000000006Z stderr P a b  c").unwrap();
        assert_eq!((line.stream, line.partial, line.content), (StreamKind::Stderr, true, &b"a b  c"[..]));
        assert!(Line::parse(b"hello").is_none());
    }
}
