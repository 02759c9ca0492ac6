//! What the original says of JSON that it cannot read into an object: the words of Go's decoder.
//!
//! Where the fault lies is serde's finding; only the sentence is made here. Never shows more than one character.

use serde_json::Value;

/// The fault of bytes that have to hold a JSON object (or null).
pub fn object_fault(bytes: &[u8]) -> Option<String> {
    // The original reads bytes that are no UTF-8 as replacement characters.
    let text = String::from_utf8_lossy(bytes);
    let found = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(_) | Value::Null) => return None,
        Ok(Value::Array(_)) => "array",
        Ok(Value::String(_)) => "string",
        Ok(Value::Number(_)) => "number",
        Ok(Value::Bool(_)) => "bool",
        Err(error) => return Some(syntax(text.as_bytes(), &error)),
    };
    Some(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"))
}

fn syntax(text: &[u8], error: &serde_json::Error) -> String {
    let line = text.split(|b| *b == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = error.column().saturating_sub(1);
    let Some(byte) = line.get(at).filter(|_| !error.is_eof()) else {
        return "unexpected end of JSON input".to_owned();
    };
    let said = error.to_string();
    let begins = |start: &str| said.starts_with(start);
    let context = if begins("key must be a string") || begins("trailing comma") && *byte == b'}' {
        "looking for beginning of object key string".to_owned()
    } else if begins("expected `:`") {
        "after object key".to_owned()
    } else if begins("expected `,` or `}`") {
        "after object key:value pair".to_owned()
    } else if begins("expected `,` or `]`") {
        "after array element".to_owned()
    } else if begins("trailing characters") {
        "after top-level value".to_owned()
    } else if begins("control character") {
        "in string literal".to_owned()
    } else if begins("invalid escape") {
        "in string escape code".to_owned()
    } else if begins("invalid number") {
        "in numeric literal".to_owned()
    } else {
        literal(line, at).unwrap_or_else(|| "looking for beginning of value".to_owned())
    };
    format!("invalid character {} {context}", quoted(*byte))
}

/// A word that began as true, false or null.
fn literal(line: &[u8], at: usize) -> Option<String> {
    ["true", "false", "null"].into_iter().find_map(|word| {
        let read = (1..word.len()).rev().find(|n| line[..at].ends_with(&word.as_bytes()[..*n]))?;
        Some(format!("in literal {word} (expecting '{}')", char::from(word.as_bytes()[read])))
    })
}

fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        0..=0x1f | 0x7f => format!("'\\x{byte:02x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::object_fault;

    #[test]
    fn faults_read_as_the_original_writes_them() {
        for (text, fault) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("bad", "invalid character 'b' looking for beginning of value"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("{\"a\":[1 2]}", "invalid character '2' after array element"),
            ("{}x", "invalid character 'x' after top-level value"),
            ("{\"a\":trux}", "invalid character 'x' in literal true (expecting 'e')"),
            ("{\n\"a\": 'b'}", "invalid character '\\'' looking for beginning of value"),
            ("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
            ("\"a\"", "json: cannot unmarshal string into Go value of type map[string]interface {}"),
        ] {
            assert_eq!(object_fault(text.as_bytes()).as_deref(), Some(fault), "{text}");
        }
        assert_eq!(object_fault(b"{}"), None);
        assert_eq!(object_fault(b"null"), None);
    }
}
