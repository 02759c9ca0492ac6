//! Scalars: what Go takes for each type, and its message when it does not.

use super::{Checker, Found};
use crate::quantity;
use crate::schema::{Field, Shape};
use std::ops::Range;

/// Go's word for the JSON value that begins with this byte.
pub(super) fn json_type(first: u8) -> &'static str {
    match first {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "bool",
        b'n' => "null",
        _ => "number",
    }
}

/// The Go type of a value of `field` (its items or values, if `shape` is theirs).
pub(super) fn go_type(shape: &Shape, field: &Field) -> String {
    if !field.go_name.is_empty() && shape.element().is_none() && shape.object().is_none() {
        return field.go_name.to_owned();
    }
    match shape {
        Shape::String => "string".to_owned(),
        Shape::Bool => "bool".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Double => "float64".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Any => "runtime.RawExtension".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        Shape::Time => "v1.Time".to_owned(),
        Shape::MicroTime => "v1.MicroTime".to_owned(),
        Shape::Object(_) => shape.object().map_or_else(String::new, |t| t.go_name()),
        Shape::List(inner) => format!("[]{}", go_type(inner, field)),
        Shape::Map(inner) => format!("map[string]{}", go_type(inner, field)),
    }
}

impl Checker<'_> {
    pub(super) fn scalar(&mut self, shape: &Shape, field: &'static Field, first: u8) -> Found {
        match (shape, first) {
            (Shape::String, b'"') => {
                let range = self.scanner.string()?;
                self.scanner.unquote(range).map(drop)
            }
            (Shape::Bool, b't' | b'f') => self.scanner.literal().map(drop),
            (Shape::Int32 | Shape::Int64 | Shape::Double, b'-' | b'0'..=b'9') => self.number(shape, field),
            (Shape::Bytes, b'"') => self.base64(),
            (Shape::Quantity, _) => self.quantity(first),
            (Shape::IntOrString, _) => self.int_or_string(first),
            (Shape::Time | Shape::MicroTime, _) => self.time(shape, first),
            _ => self.mismatch(&go_type(shape, field)),
        }
    }

    fn number(&mut self, shape: &Shape, field: &'static Field) -> Found {
        let range = self.scanner.number()?;
        let text = self.ascii(range);
        let fits = match shape {
            Shape::Int32 => text.parse::<i32>().is_ok(),
            Shape::Int64 => text.parse::<i64>().is_ok(),
            _ => text.parse::<f64>().is_ok_and(f64::is_finite),
        };
        if !fits {
            self.wrong(&format!("number {text}"), &go_type(shape, field));
        }
        Ok(())
    }

    fn ascii(&self, range: Range<usize>) -> &str {
        std::str::from_utf8(self.scanner.text(range)).unwrap_or_default()
    }

    /// A string or a bare number.
    fn quantity(&mut self, first: u8) -> Found {
        let range = match first {
            b'"' => self.scanner.string()?,
            b'-' | b'0'..=b'9' => self.scanner.number()?,
            _ => {
                self.scanner.skip()?;
                self.fail(quantity::QuantityError::Format.to_string());
                return Ok(());
            }
        };
        let text = self.ascii(range.clone()).trim_matches('"');
        match quantity::canonical(text).map(|c| c.into_owned()) {
            Ok(canonical) if first != b'"' || canonical != text => {
                self.edit(range, format!("\"{canonical}\""));
            }
            Ok(_) => {}
            Err(error) => self.fail(error.to_string()),
        }
        Ok(())
    }

    fn int_or_string(&mut self, first: u8) -> Found {
        match first {
            b'"' => {
                let range = self.scanner.string()?;
                self.scanner.unquote(range).map(drop)
            }
            b'-' | b'0'..=b'9' => {
                let range = self.scanner.number()?;
                let text = self.ascii(range).to_owned();
                if text.parse::<i32>().is_err() {
                    let what = "into Go value of type int32";
                    self.fail(format!("json: cannot unmarshal number {text} {what}"));
                }
                Ok(())
            }
            _ => {
                self.scanner.skip()?;
                let found = json_type(first);
                self.fail(format!("json: cannot unmarshal {found} into Go value of type int32"));
                Ok(())
            }
        }
    }

    fn base64(&mut self) -> Found {
        let range = self.scanner.string()?;
        let text = self.scanner.unquote(range.clone())?;
        let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        if let Some(at) = bad_base64(&clean) {
            self.fail(format!("illegal base64 data at input byte {at}"));
        } else if clean.len() != text.len() {
            self.edit(range, format!("\"{clean}\""));
        }
        Ok(())
    }

    fn time(&mut self, shape: &Shape, first: u8) -> Found {
        if first != b'"' {
            self.scanner.skip()?;
            let found = json_type(first);
            self.fail(format!("json: cannot unmarshal {found} into Go value of type string"));
            return Ok(());
        }
        let range = self.scanner.string()?;
        let text = self.scanner.unquote(range)?;
        if let Some(rest) = bad_time(&text) {
            let layout = match shape {
                Shape::Time => "2006-01-02T15:04:05Z07:00",
                _ => "2006-01-02T15:04:05.000000Z07:00",
            };
            self.fail(format!("parsing time {text:?} as {layout:?}: {rest}"));
        }
        Ok(())
    }
}

/// The place that Go's decoder gives for the first fault of standard base64 with padding.
fn bad_base64(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let data = text.trim_end_matches('=').len();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    if let Some(at) = bytes[..data].iter().position(|b| !plain(b)) {
        return Some(at);
    }
    let padding = bytes.len() - data;
    match (data % 4, padding) {
        (0, 0) | (2, 2) | (3, 1) => None,
        // Too much padding is found where it begins to be too much, too little at the last group.
        (0, _) => Some(data),
        (1, 0) | (2 | 3, 0) => Some(data - data % 4),
        (2, 3..) | (3, 2..) => Some(data + 4 - data % 4),
        _ => Some(bytes.len()),
    }
}

/// Why a text is not a time of RFC 3339: `cannot parse "x" as "2006"`.
fn bad_time(text: &str) -> Option<String> {
    let mut rest = text;
    for (layout, width, max) in [
        ("2006", 4, 9999),
        ("-", 0, 0),
        ("01", 2, 12),
        ("-", 0, 0),
        ("02", 2, 31),
        ("T", 0, 0),
        ("15", 2, 23),
        (":", 0, 0),
        ("04", 2, 59),
        (":", 0, 0),
        ("05", 2, 59),
    ] {
        let bad = || Some(format!("cannot parse {rest:?} as {layout:?}"));
        if width == 0 {
            let Some(next) = rest.strip_prefix(layout) else { return bad() };
            rest = next;
            continue;
        }
        let Some((number, next)) = rest.split_at_checked(width) else { return bad() };
        match number.parse::<u32>() {
            Ok(value) if number.bytes().all(|b| b.is_ascii_digit()) => {
                let name = ["month", "day", "hour", "minute", "second"]
                    [["01", "02", "15", "04", "05"].iter().position(|l| *l == layout).unwrap_or(0)];
                if value > max || (value == 0 && matches!(layout, "01" | "02")) {
                    return Some(format!("{name} out of range"));
                }
                rest = next;
            }
            _ => return bad(),
        }
    }
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    zone(rest).then(|| format!("cannot parse {rest:?} as \"Z07:00\""))
}

/// Whether a time zone is neither `Z` nor `+hh:mm`.
fn zone(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |r: Range<usize>| bytes.get(r).is_some_and(|b| b.iter().all(u8::is_ascii_digit));
    let offset = bytes.len() == 6
        && matches!(bytes[0], b'+' | b'-')
        && bytes[3] == b':'
        && digits(1..3)
        && digits(4..6);
    text != "Z" && !offset
}
