//! A JSON scanner that yields no values, with the error texts of Go's `encoding/json`.

use std::borrow::Cow;
use std::ops::Range;

/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 500;

/// The bytes are not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(String);

pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// Whether the object just entered has no key yet.
    fresh: bool,
}

fn show(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        0x80.. => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}

type Found<T> = Result<T, SyntaxError>;

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0, fresh: false }
    }

    pub fn text(&self, range: Range<usize>) -> &'a [u8] {
        &self.bytes[range]
    }

    fn current(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn fail<T>(&self, context: &str) -> Found<T> {
        Err(SyntaxError(match self.current() {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => format!("invalid character {} {context}", show(byte)),
        }))
    }

    fn space(&mut self) {
        while matches!(self.current(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The first byte of the next value.
    pub fn peek(&mut self) -> Found<u8> {
        self.space();
        match self.current() {
            Some(b @ (b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')) => Ok(b),
            _ => self.fail("looking for beginning of value"),
        }
    }

    /// Enters an object or a list, after [`Self::peek`].
    pub fn open(&mut self) -> Found<()> {
        self.at += 1;
        self.depth += 1;
        self.fresh = true;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError("exceeded max depth".to_owned()));
        }
        Ok(())
    }

    /// The next key of the object, or none at its end.
    pub fn key(&mut self, end: u8) -> Found<Option<Cow<'a, str>>> {
        self.space();
        let first = std::mem::take(&mut self.fresh);
        if self.current() == Some(end) {
            self.at += 1;
            self.depth -= 1;
            return Ok(None);
        }
        if !first {
            if self.current() != Some(b',') {
                return self.fail("after object key:value pair");
            }
            self.at += 1;
            self.space();
        }
        if self.current() != Some(b'"') {
            return self.fail("looking for beginning of object key string");
        }
        let range = self.string()?;
        self.space();
        if self.current() != Some(b':') {
            return self.fail("after object key");
        }
        self.at += 1;
        self.unquote(range).map(Some)
    }

    /// Whether the list has another item.
    pub fn item(&mut self, first: bool) -> Found<bool> {
        self.fresh = false;
        self.space();
        match self.current() {
            Some(b']') => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ if first => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            _ => self.fail("after array element"),
        }
    }

    /// A string, with its quotes.
    pub fn string(&mut self) -> Found<Range<usize>> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.current() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(start..self.at);
                }
                Some(b'\\') => self.escape()?,
                Some(0x20..) => self.at += 1,
                _ => return self.fail("in string literal"),
            }
        }
    }

    fn escape(&mut self) -> Found<()> {
        self.at += 1;
        match self.current() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.current().is_some_and(|b| b.is_ascii_hexdigit()) {
                        return self.fail("in \\u hexadecimal character escape");
                    }
                    self.at += 1;
                }
            }
            _ => return self.fail("in string escape code"),
        }
        Ok(())
    }

    /// The text of a string.
    pub fn unquote(&self, range: Range<usize>) -> Found<Cow<'a, str>> {
        let inner = &self.bytes[range.start + 1..range.end - 1];
        match std::str::from_utf8(inner) {
            Ok(text) if !inner.contains(&b'\\') => Ok(Cow::Borrowed(text)),
            _ => serde_json::from_slice(&self.bytes[range])
                .map(Cow::Owned)
                .map_err(|_| SyntaxError("invalid string literal".to_owned())),
        }
    }

    /// `true`, `false` or `null`.
    pub fn literal(&mut self) -> Found<Range<usize>> {
        let start = self.at;
        let word = match self.current() {
            Some(b't') => "true",
            Some(b'f') => "false",
            _ => "null",
        };
        for expected in word.bytes() {
            if self.current() != Some(expected) {
                let expected = char::from(expected);
                return self.fail(&format!("in literal {word} (expecting '{expected}')"));
            }
            self.at += 1;
        }
        Ok(start..self.at)
    }

    pub fn number(&mut self) -> Found<Range<usize>> {
        let start = self.at;
        if self.current() == Some(b'-') {
            self.at += 1;
        }
        match self.current() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.fail("in numeric literal"),
        }
        if self.current() == Some(b'.') {
            self.at += 1;
            if !self.current().is_some_and(|b| b.is_ascii_digit()) {
                return self.fail("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.current(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.current(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.current().is_some_and(|b| b.is_ascii_digit()) {
                return self.fail("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(start..self.at)
    }

    fn digits(&mut self) {
        while self.current().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// Passes over a value of any kind.
    pub fn skip(&mut self) -> Found<()> {
        match self.peek()? {
            b'{' => {
                self.open()?;
                while self.key(b'}')?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            b'[' => {
                self.open()?;
                let mut first = true;
                while self.item(first)? {
                    first = false;
                    self.skip()?;
                }
                Ok(())
            }
            b'"' => {
                let range = self.string()?;
                self.unquote(range).map(drop)
            }
            b'-' | b'0'..=b'9' => self.number().map(drop),
            _ => self.literal().map(drop),
        }
    }

    /// Nothing but space may follow the value.
    pub fn end(&mut self) -> Found<()> {
        self.space();
        if self.at < self.bytes.len() { self.fail("after top-level value") } else { Ok(()) }
    }
}
