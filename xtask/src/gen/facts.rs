//! Reads the tables of facts.

use super::Error;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// What the Go declaration of a field says beyond the OpenAPI document.
pub struct GoField {
    pub go_type: String,
    pub omitempty: bool,
    /// Dotted where an embedded struct is a message of its own in protobuf: `2.1`.
    pub number: String,
}

pub struct Facts {
    pub definitions: serde_json::Map<String, Value>,
    /// By `package/version`, type and JSON name.
    pub go: HashMap<(String, String, String), GoField>,
    /// Real defaults by definition and field, as JSON.
    pub defaults: HashMap<(String, String), String>,
    /// Allowed values by definition and field.
    pub enums: HashMap<(String, String), Vec<String>>,
}

/// The rows of a table whose remarks begin with `#` and whose first line names the columns.
fn rows(path: &Path) -> Result<Vec<Vec<String>>, Error> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().filter(|l| !l.starts_with('#')).skip(1);
    Ok(lines.map(|l| l.split('\t').map(str::to_owned).collect()).collect())
}

impl Facts {
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let text = fs::read(folder.join("openapi/swagger.json"))?;
        let mut document: Value = serde_json::from_slice(&text)?;
        let Value::Object(definitions) = document["definitions"].take() else {
            return Err("swagger.json has no definitions".into());
        };
        let pair = |row: &[String]| (row[0].clone(), row[1].clone());
        let defaults = rows(&folder.join("openapi-defaults.tsv"))?;
        let enums = rows(&folder.join("enums.tsv"))?;
        let values = |row: &Vec<String>| row[2].split(',').map(str::to_owned).collect();
        Ok(Self {
            definitions,
            go: go_fields(&folder.join("api-fields-1.37.tsv"))?,
            defaults: defaults
                .iter()
                .filter(|row| row[5] == "yes")
                .map(|row| (pair(row), row[3].clone()))
                .collect(),
            enums: enums.iter().map(|row| (pair(row), values(row))).collect(),
        })
    }
}

/// Every field, those of embedded structs under the struct that embeds them.
fn go_fields(path: &Path) -> Result<HashMap<(String, String, String), GoField>, Error> {
    let mut types: HashMap<(String, String), Vec<Vec<String>>> = HashMap::new();
    for row in rows(path)? {
        types.entry((row[0].clone(), row[1].clone())).or_default().push(row);
    }
    let mut fields = HashMap::new();
    for (package, name) in types.keys() {
        let mut found = Vec::new();
        collect(&types, package, name, "", &mut found);
        for (json, field) in found {
            fields.insert((package.clone(), name.clone(), json), field);
        }
    }
    Ok(fields)
}

fn collect(
    types: &HashMap<(String, String), Vec<Vec<String>>>,
    package: &str,
    name: &str,
    prefix: &str,
    found: &mut Vec<(String, GoField)>,
) {
    let Some(rows) = types.get(&(package.to_owned(), name.to_owned())) else { return };
    for row in rows {
        let (json, go_type, number) = (&row[2], &row[3], &row[4]);
        if json != "(inline)" {
            let field = GoField {
                go_type: go_type.clone(),
                omitempty: row[5] == "yes",
                number: if number.is_empty() { String::new() } else { format!("{prefix}{number}") },
            };
            found.push((json.clone(), field));
        } else if go_type.ends_with("TypeMeta") {
            for json in ["apiVersion", "kind"] {
                let field = GoField { go_type: "string".into(), omitempty: true, number: String::new() };
                found.push((json.to_owned(), field));
            }
        } else {
            collect(types, package, go_type, &format!("{prefix}{number}."), found);
        }
    }
}
