//! Patch bodies before they are applied: is it JSON, is it of the right shape, are there duplicate keys and (of a
//! JSON patch) fields that operations do not have.
//!
//! What the patched object is like is looked at after it was applied.

use super::{CheckError, Checker, Found, Step, values};
use std::collections::HashSet;

/// What a patch has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchShape {
    /// An object, of any depth (merge and strategic merge).
    Object,
    /// The operations of a JSON patch.
    Operations,
}

/// The findings of a patch body, in the order found.
pub fn check_patch(shape: PatchShape, bytes: &[u8]) -> Result<Vec<String>, CheckError> {
    let mut checker = Checker::new(bytes);
    match shape {
        PatchShape::Object if !matches!(checker.scanner.peek()?, b'{' | b'n') => {
            checker.mismatch("map[string]interface {}")?;
        }
        PatchShape::Object => checker.anything()?,
        PatchShape::Operations => checker.operations()?,
    }
    checker.scanner.end()?;
    let prefix = if shape == PatchShape::Operations { "json patch " } else { "" };
    match checker.fault {
        Some(fault) => Err(CheckError::Type(fault)),
        None => Ok(checker.findings.into_iter().map(|f| format!("{prefix}{f}")).collect()),
    }
}

impl Checker<'_> {
    /// A value of no type: only duplicate keys can be told.
    fn anything(&mut self) -> Found {
        match self.scanner.peek()? {
            b'{' => self.entries(),
            b'[' => self.items(Self::anything),
            _ => self.scanner.skip(),
        }
    }

    fn entries(&mut self) -> Found {
        self.scanner.open()?;
        let mut seen = HashSet::new();
        while let Some(key) = self.scanner.key(b'}')? {
            let repeated = !seen.insert(key.clone());
            self.path.push(Step::Key(key));
            if repeated {
                self.find("duplicate");
            }
            self.anything()?;
            self.path.pop();
        }
        Ok(())
    }

    fn items(&mut self, item: fn(&mut Self) -> Found) -> Found {
        self.scanner.open()?;
        let mut index = 0;
        while self.scanner.item(index == 0)? {
            self.path.push(Step::Index(index));
            item(self)?;
            self.path.pop();
            index += 1;
        }
        Ok(())
    }

    fn operations(&mut self) -> Found {
        match self.scanner.peek()? {
            b'[' => self.items(Self::operation),
            _ => self.mismatch("[]handlers.jsonPatchOp"),
        }
    }

    fn operation(&mut self) -> Found {
        if self.scanner.peek()? != b'{' {
            return self.mismatch("handlers.jsonPatchOp");
        }
        self.scanner.open()?;
        let mut seen = HashSet::new();
        while let Some(key) = self.scanner.key(b'}')? {
            let known = matches!(&*key, "op" | "path" | "from" | "value");
            let is_text = known && key != "value";
            let name = key.to_string();
            self.path.push(Step::Key(key));
            if !known {
                self.find("unknown");
            } else if !seen.insert(name.clone()) {
                self.find("duplicate");
            }
            match self.scanner.peek()? {
                first if is_text && !matches!(first, b'"' | b'n') => {
                    let found = values::json_type(first);
                    let place = format!("Go struct field jsonPatchOp.{name} of type string");
                    self.fail(format!("json: cannot unmarshal {found} into {place}"));
                    self.scanner.skip()?;
                }
                _ if known => self.anything()?,
                _ => self.scanner.skip()?,
            }
            self.path.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::PatchShape::{Object, Operations};
    use super::*;

    #[test]
    fn duplicates_and_unknown_fields_are_told_with_their_paths() {
        let cases: &[(PatchShape, &str, &[&str])] = &[
            (Object, r#"{"a":1,"b":{"c":1}}"#, &[]),
            (Object, "null", &[]),
            (
                Object,
                r#"{"spec":{"x":1,"x":2,"list":[{"y":1},{"y":1,"y":{"z":1,"z":1}}]},"spec":1}"#,
                &[
                    r#"duplicate field "spec.x""#,
                    r#"duplicate field "spec.list[1].y""#,
                    r#"duplicate field "spec.list[1].y.z""#,
                    r#"duplicate field "spec""#,
                ],
            ),
            (
                Operations,
                r#"[{"op":"add","path":"/a","foo":{"a":1,"a":1}},{"op":"add","path":"/a","path":"/b"}]"#,
                &[r#"json patch unknown field "[0].foo""#, r#"json patch duplicate field "[1].path""#],
            ),
            (
                Operations,
                r#"[{"op":"add","value":{"a":1,"a":1}}]"#,
                &[r#"json patch duplicate field "[0].value.a""#],
            ),
        ];
        for (shape, json, want) in cases {
            assert_eq!(check_patch(*shape, json.as_bytes()).unwrap(), *want, "{json}");
        }
    }

    #[test]
    fn what_is_no_patch_reads_as_go_writes_it() {
        for (shape, json, want) in [
            (Object, "junk", "invalid character 'j' looking for beginning of value"),
            (Object, "", "unexpected end of JSON input"),
            (Object, "[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
            (Operations, "{}", "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
            (Operations, "[1]", "json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"),
            (
                Operations,
                r#"[{"op":1}]"#,
                "json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            ),
            (Object, "{} x", "invalid character 'x' after top-level value"),
        ] {
            assert_eq!(check_patch(shape, json.as_bytes()).unwrap_err().to_string(), want, "{json}");
        }
    }
}
