//! RFC 6902 (JSON patch) and RFC 7386 (merge patch), with the leniencies of the library that the original
//! uses: `replace` of an absent key of an object adds it, `test` of an absent key against null holds,
//! negative indices count from the end.

use crate::error::{PatchError, bad};
use serde_json::{Map, Value};

/// More operations than these are refused.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that all `copy` operations of one patch may add.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Applies a JSON patch.
pub fn json_patch(mut original: Value, patch: &[u8]) -> Result<Value, PatchError> {
    let operations: Vec<Map<String, Value>> = serde_json::from_slice(patch).map_err(|e| undecodable(&e))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut copied = 0;
    for operation in &operations {
        apply(&mut original, operation, &mut copied)?;
    }
    Ok(original)
}

/// Applies a merge patch: null removes, objects merge, everything else replaces.
pub fn merge_patch(mut original: Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch: Value = serde_json::from_slice(patch).map_err(|e| undecodable(&e))?;
    if !patch.is_object() {
        return bad("Invalid JSON Patch");
    }
    merge(&mut original, patch);
    Ok(original)
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn refuse<T>(text: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Unprocessable(text.into()))
}

fn text<'a>(operation: &'a Map<String, Value>, name: &str) -> Result<&'a str, PatchError> {
    let kind = operation.get("op").and_then(Value::as_str).unwrap_or("unknown");
    match operation.get(name).and_then(Value::as_str) {
        Some(text) => Ok(text),
        None => refuse(format!("{kind} operation failed to decode {name}: missing value")),
    }
}

fn apply(doc: &mut Value, operation: &Map<String, Value>, copied: &mut usize) -> Result<(), PatchError> {
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    let path = text(operation, "path")?;
    match operation.get("op").and_then(Value::as_str).unwrap_or("unknown") {
        "add" => add(doc, path, value()),
        "remove" => remove(doc, path).map(drop),
        "replace" => replace(doc, path, value()),
        "move" => {
            let moved = remove(doc, text(operation, "from")?)?;
            add(doc, path, moved)
        }
        "test" => {
            let found = get(doc, path)?;
            let wanted = operation.get("value").unwrap_or(&Value::Null);
            if found.unwrap_or(&Value::Null) == wanted {
                return Ok(());
            }
            refuse(format!("testing value {path} failed: test failed"))
        }
        "copy" => {
            let from = text(operation, "from")?;
            let Some(found) = get(doc, from)?.cloned() else {
                return refuse(format!("copy operation does not apply: doc is missing from path: {from}"));
            };
            *copied += found.to_string().len();
            if *copied > MAX_COPIED {
                return refuse(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                ));
            }
            add(doc, path, found)
        }
        other => refuse(format!("Unexpected kind: {other}")),
    }
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// The container that a path leads into, and the last token. The root has no container.
fn parent<'a>(doc: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), PatchError> {
    let missing = || PatchError::Unprocessable(format!("doc is missing path: {path:?}: missing value"));
    let (front, last) = path.rsplit_once('/').ok_or_else(missing)?;
    let mut at = doc;
    for token in front.split('/').skip(1).map(unescape) {
        at = match at {
            Value::Object(map) => map.get_mut(&token),
            Value::Array(list) => {
                let index = index(&token, list.len()).ok_or_else(missing)?;
                list.get_mut(index)
            }
            _ => None,
        }
        .ok_or_else(missing)?;
    }
    if at.is_object() || at.is_array() { Ok((at, unescape(last))) } else { Err(missing()) }
}

/// A place in a list; negative ones count from `length`.
fn index(token: &str, length: usize) -> Option<usize> {
    let number: i64 = token.parse().ok()?;
    if number >= 0 {
        return usize::try_from(number).ok();
    }
    length.checked_sub(usize::try_from(number.unsigned_abs()).ok()?)
}

fn invalid_index<T>(token: &str) -> Result<T, PatchError> {
    refuse(format!("Unable to access invalid index: {token}: invalid index"))
}

fn get<'a>(doc: &'a mut Value, path: &str) -> Result<Option<&'a Value>, PatchError> {
    if path.is_empty() {
        return Ok(Some(doc));
    }
    let (container, token) = parent(doc, path)?;
    match container {
        Value::Array(list) => match index(&token, list.len()).and_then(|i| list.get(i)) {
            Some(found) => Ok(Some(found)),
            None => invalid_index(&token),
        },
        other => Ok(other.get(&token)),
    }
}

fn add(doc: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *doc = value;
        return Ok(());
    }
    let (container, token) = parent(doc, path)?;
    match container {
        Value::Object(map) => drop(map.insert(token, value)),
        Value::Array(list) if token == "-" => list.push(value),
        Value::Array(list) => match index(&token, list.len() + 1) {
            Some(i) if i <= list.len() => list.insert(i, value),
            _ => return invalid_index(&token),
        },
        _ => {}
    }
    Ok(())
}

fn remove(doc: &mut Value, path: &str) -> Result<Value, PatchError> {
    let (container, token) = parent(doc, path)?;
    let removed = match container {
        Value::Object(map) => map.remove(&token),
        Value::Array(list) => match index(&token, list.len()) {
            Some(i) if i < list.len() => Some(list.remove(i)),
            _ => return invalid_index(&token),
        },
        _ => None,
    };
    match removed {
        Some(value) => Ok(value),
        None => refuse(format!(
            "error in remove for path: '{path}': Unable to remove nonexistent key: {token}: missing value"
        )),
    }
}

fn replace(doc: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *doc = value;
        return Ok(());
    }
    let (container, token) = parent(doc, path)?;
    match container {
        Value::Array(list) => match index(&token, list.len()).and_then(|i| list.get_mut(i)) {
            Some(place) => *place = value,
            None => {
                return refuse(format!(
                    "replace operation does not apply: doc is missing key: {path}: missing value"
                ));
            }
        },
        Value::Object(map) => drop(map.insert(token, value)),
        _ => {}
    }
    Ok(())
}

/// The decoder's complaint; an end too early in Go's words, which clients show.
fn undecodable(error: &serde_json::Error) -> PatchError {
    let text = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
    PatchError::BadRequest(format!("error decoding patch: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(doc: Value, patch: Value) -> Result<Value, String> {
        json_patch(doc, patch.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_patch_that_ends_too_early_is_told_in_gos_words() {
        let text = merge_patch(json!({}), b"{\"spec\":").unwrap_err().to_string();
        assert_eq!(text, "error decoding patch: unexpected end of JSON input");
        assert_eq!(json_patch(json!({}), b"[").unwrap_err().to_string(), text);
    }

    #[test]
    fn operations_do_what_the_rfc_says() {
        let doc = json!({"a": {"b/c": 1}, "l": [1, 2]});
        for (patch, want) in [
            (
                json!([{"op": "add", "path": "/a/x", "value": 2}]),
                json!({"a": {"b/c": 1, "x": 2}, "l": [1, 2]}),
            ),
            (json!([{"op": "remove", "path": "/a/b~1c"}]), json!({"a": {}, "l": [1, 2]})),
            (json!([{"op": "add", "path": "/l/-", "value": 3}]), json!({"a": {"b/c": 1}, "l": [1, 2, 3]})),
            (json!([{"op": "add", "path": "/l/0", "value": 0}]), json!({"a": {"b/c": 1}, "l": [0, 1, 2]})),
            (json!([{"op": "remove", "path": "/l/-1"}]), json!({"a": {"b/c": 1}, "l": [1]})),
            (json!([{"op": "replace", "path": "/l/1", "value": 5}]), json!({"a": {"b/c": 1}, "l": [1, 5]})),
            (json!([{"op": "move", "from": "/a/b~1c", "path": "/m"}]), json!({"a": {}, "l": [1, 2], "m": 1})),
            (
                json!([{"op": "copy", "from": "/l", "path": "/k"}]),
                json!({"a": {"b/c": 1}, "l": [1, 2], "k": [1, 2]}),
            ),
            (
                json!([{"op": "test", "path": "/l/0", "value": 1}, {"op": "test", "path": "/z", "value": null}]),
                doc.clone(),
            ),
        ] {
            assert_eq!(patched(doc.clone(), patch.clone()), Ok(want), "{patch}");
        }
    }

    #[test]
    fn what_does_not_apply_is_refused() {
        let doc = json!({"a": {}, "l": []});
        for patch in [
            json!([{"op": "test", "path": "/a", "value": 1}]),
            json!([{"op": "remove", "path": "/a/x"}]),
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
            json!([{"op": "replace", "path": "/l/0", "value": 1}]),
            json!([{"op": "add", "path": "/l/1", "value": 1}]),
            json!([{"op": "grow", "path": "/a"}]),
            json!([{"op": "add", "value": 1}]),
        ] {
            let error = json_patch(doc.clone(), patch.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.status().code(), 422, "{patch}");
        }
        assert_eq!(json_patch(doc.clone(), b"{}").unwrap_err().status().code(), 400);
        let many = Value::Array(vec![json!({"op": "test", "path": "/z"}); MAX_OPERATIONS + 1]);
        let status = json_patch(doc, many.to_string().as_bytes()).unwrap_err().status();
        assert_eq!(status.code(), 413);
        assert_eq!(status.message(), "The allowed maximum operations in a JSON patch is 10000, got 10001");
    }

    #[test]
    fn merge_patches_merge() {
        let doc = json!({"a": {"b": 1, "c": 2}, "l": [1]});
        let patch = json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [2], "n": null});
        let want = json!({"a": {"c": 2, "d": {"f": 1}}, "l": [2]});
        assert_eq!(merge_patch(doc.clone(), patch.to_string().as_bytes()), Ok(want));
        assert!(merge_patch(doc, b"[]").is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..9).prop_map(Value::from)];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_added_value_is_there_and_can_be_removed(doc in any_json(), value in any_json(), key in "[x-z~/]{1,3}") {
            prop_assume!(doc.is_object());
            let path = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
            let added = patched(doc.clone(), json!([{"op": "add", "path": path, "value": value}, {"op": "test", "path": path, "value": value}])).unwrap();
            prop_assert_eq!(patched(added, json!([{"op": "remove", "path": path}])).unwrap(), doc);
        }

        #[test]
        fn a_merge_patch_is_idempotent(doc in any_json(), patch in any_json()) {
            prop_assume!(doc.is_object() && patch.is_object());
            let bytes = patch.to_string();
            let once = merge_patch(doc, bytes.as_bytes()).unwrap();
            prop_assert_eq!(merge_patch(once.clone(), bytes.as_bytes()).unwrap(), once);
        }
    }
}
