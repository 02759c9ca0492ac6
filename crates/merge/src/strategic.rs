//! Strategic merge patch: a merge patch that knows which lists are sets of scalars and which are maps by a
//! key, and that takes directives.
//!
//! | directive | where | what it does |
//! | --- | --- | --- |
//! | `$patch: replace` | an object, or an item of a list of objects | the patch takes the place of what is there |
//! | `$patch: delete` | an object, or an item with its key | empties the object, removes the item |
//! | `$patch: merge` | an object | nothing: it is what happens anyway |
//! | `$retainKeys: [..]` | an object | the fields that are not named go |
//! | `$deleteFromPrimitiveList/f: [..]` | beside list `f` of scalars | removes these from it |
//! | `$setElementOrder/f: [..]` | beside list `f` | sorts it so; what only the server has keeps its place among them |
//!
//! What merges how is in the schema table. Texts of errors are those of the original.

mod order;

use crate::error::{PatchError, bad};
use krate_api::schema::{Field, Shape, Type};
use serde_json::{Map, Value};

pub(crate) const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_ORDER: &str = "invalid patch format of setElementOrder list";
const BAD_PRIMITIVE_LIST: &str = "invalid patch format of primitive list";

type Object = Map<String, Value>;

/// Applies `patch` to `original`, an object of type `ty`.
pub fn strategic_merge_patch(ty: &'static Type, original: Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch: Value = match serde_json::from_slice(patch) {
        Ok(patch) => patch,
        Err(error) => return bad(error.to_string()),
    };
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return bad("invalid JSON document");
    };
    merge_object(original, patch, Known::Type(ty)).map(Value::Object)
}

/// What the table says of an object that is merged.
#[derive(Clone, Copy)]
pub(crate) enum Known {
    Type(&'static Type),
    /// A map: all values are of one shape.
    Values(&'static Shape),
    /// Free-form JSON: lists are replaced.
    Nothing,
}

impl Known {
    fn of(shape: &'static Shape) -> Self {
        match (shape, shape.object()) {
            (_, Some(ty)) => Self::Type(ty),
            (Shape::Map(inner), _) => Self::Values(inner),
            _ => Self::Nothing,
        }
    }

    fn field(self, name: &str) -> Option<&'static Field> {
        match self {
            Self::Type(ty) => ty.field(name),
            _ => None,
        }
    }

    fn value(self, name: &str) -> Self {
        match self {
            Self::Type(_) => self.field(name).map_or(Self::Nothing, |f| Self::of(&f.shape)),
            Self::Values(shape) => Self::of(shape),
            Self::Nothing => Self::Nothing,
        }
    }
}

/// A list that merges, and how.
#[derive(Clone, Copy)]
pub(crate) struct List {
    /// Empty for scalars.
    pub key: &'static str,
    pub items: Known,
}

impl List {
    fn of(known: Known, name: &str) -> Option<Self> {
        let field = known.field(name).filter(|f| f.patch_merge)?;
        let items = field.shape.element().map_or(Known::Nothing, Known::of);
        Some(Self { key: field.patch_key, items })
    }
}

fn merge_object(original: Object, mut patch: Object, known: Known) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(clean_object(patch)),
            Some("delete") => Ok(Object::new()),
            Some("merge") => merge_object(original, patch, known),
            _ => Err(unknown_directive(&directive, &patch)),
        };
    }
    let mut merged = original;
    retain_keys(&mut merged, &mut patch)?;
    ordered_lists(&mut merged, &mut patch, known)?;
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(&mut merged, list, &value)?;
        } else {
            merge_value(&mut merged, name, value, known)?;
        }
    }
    Ok(merged)
}

fn merge_value(merged: &mut Object, name: String, value: Value, known: Known) -> Result<(), PatchError> {
    if value.is_null() {
        merged.remove(&name);
        return Ok(());
    }
    let result = match (merged.remove(&name), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            Value::Object(merge_object(old, new, known.value(&name))?)
        }
        (Some(Value::Array(old)), Value::Array(new)) => match List::of(known, &name) {
            Some(list) => Value::Array(merge_list(old, new, list)?),
            None => Value::Array(new),
        },
        (_, new) => clean(new),
    };
    merged.insert(name, result);
    Ok(())
}

/// Drops what `$retainKeys` does not name.
fn retain_keys(merged: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = directive else { return bad(BAD_RETAIN_KEYS) };
    let named = |name: &str| retained.iter().any(|r| r == name);
    let directive = |name: &str| name.starts_with(DELETE_FROM_LIST) || name.starts_with(SET_ORDER);
    if patch.iter().any(|(name, value)| !value.is_null() && !directive(name) && !named(name)) {
        return bad(BAD_RETAIN_KEYS);
    }
    merged.retain(|name, _| named(name));
    Ok(())
}

/// Merges the lists whose order the patch sets, and takes them out of the patch.
fn ordered_lists(merged: &mut Object, patch: &mut Object, known: Known) -> Result<(), PatchError> {
    let names: Vec<String> =
        patch.keys().filter_map(|k| k.strip_prefix(SET_ORDER)).map(str::to_owned).collect();
    for name in names {
        let Some(Value::Array(order)) = patch.remove(&format!("{SET_ORDER}{name}")) else {
            return bad(BAD_ORDER);
        };
        // A null beside an order removes the list; the merge does that.
        let new = match patch.get(&name) {
            None => None,
            Some(Value::Null) => continue,
            Some(Value::Array(_)) => patch.remove(&name),
            Some(_) => return bad(BAD_ORDER),
        };
        let old = match merged.get(&name) {
            None | Some(Value::Null) => None,
            Some(Value::Array(_)) => merged.remove(&name),
            Some(_) => return bad(BAD_ORDER),
        };
        let list = List::of(known, &name);
        let key = list.map_or("", |l| l.key);
        if let Some(Value::Array(new)) = &new {
            order::check(new, &order, key)?;
        }
        let live = old.clone().and_then(into_list).unwrap_or_default();
        let both = match (old.and_then(into_list), new.and_then(into_list), list) {
            (None, None, _) => continue,
            (Some(old), None, _) => old,
            (Some(old), Some(new), Some(list)) => merge_list(old, new, list)?,
            (_, Some(new), _) => clean_list(new),
        };
        // Deletions beside the order come first: what goes has no place in it.
        merged.insert(name, Value::Array(order::arrange(both, &order, &live, key)?));
    }
    Ok(())
}

fn into_list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

fn delete_from_list(merged: &mut Object, name: &str, gone: &Value) -> Result<(), PatchError> {
    let Value::Array(gone) = gone else { return bad(BAD_PRIMITIVE_LIST) };
    if let Some(Value::Array(list)) = merged.get_mut(name) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_list(old: Vec<Value>, new: Vec<Value>, list: List) -> Result<Vec<Value>, PatchError> {
    if old.iter().chain(&new).any(Value::is_array) {
        return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
    }
    if !old.iter().chain(&new).any(Value::is_object) {
        let mut both: Vec<Value> = Vec::with_capacity(old.len() + new.len());
        for item in old.iter().chain(&new) {
            if !both.contains(item) {
                both.push(item.clone());
            }
        }
        return order::arrange(both, &new, &old, "");
    }
    if list.key.is_empty() {
        return Err(PatchError::Internal("cannot merge lists without merge key for type struct".to_owned()));
    }
    let (live, new) = special_items(old, new, list.key)?;
    let mut merged = live.clone();
    for item in &new {
        let Value::Object(item) = item else { return bad("invalid JSON document") };
        let key = key_of(item, list.key)?.clone();
        match order::place(&merged, list.key, &key) {
            Some(at) => {
                let Value::Object(old) = merged[at].take() else { return bad("invalid JSON document") };
                merged[at] = Value::Object(merge_object(old, item.clone(), list.items)?);
            }
            None => merged.push(clean(Value::Object(item.clone()))),
        }
    }
    order::arrange(merged, &new, &live, list.key)
}

fn key_of<'a>(item: &'a Object, key: &str) -> Result<&'a Value, PatchError> {
    item.get(key).ok_or_else(|| {
        let item = go_text(&Value::Object(item.clone()));
        PatchError::Internal(format!("map: {item} does not contain declared merge key: {key}"))
    })
}

/// Carries out the items that are directives; returns what is left of both lists.
fn special_items(
    mut old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut rest = Vec::with_capacity(new.len());
    let mut replace = false;
    for item in new {
        let Some(directive) = item.get(PATCH) else {
            rest.push(item);
            continue;
        };
        let empty = Object::new();
        let object = item.as_object().unwrap_or(&empty);
        match directive.as_str() {
            Some("delete") => {
                let gone = key_of(object, key)?;
                old.retain(|o| o.get(key) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Internal(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            _ => return Err(unknown_directive(directive, object)),
        }
    }
    if replace {
        old = clean_list(std::mem::take(&mut rest));
    }
    Ok((old, rest))
}

fn unknown_directive(directive: &Value, object: &Object) -> PatchError {
    let object = go_text(&Value::Object(object.clone()));
    PatchError::Internal(format!("unknown patch type: {} in map: {object}", go_text(directive)))
}

/// A value of the patch that has nothing to merge with: without its nulls and directives.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(clean_object(object)),
        Value::Array(list) => Value::Array(clean_list(list)),
        other => other,
    }
}

fn clean_object(object: Object) -> Object {
    let directive = |name: &str| {
        matches!(name, PATCH | RETAIN_KEYS)
            || name.starts_with(DELETE_FROM_LIST)
            || name.starts_with(SET_ORDER)
    };
    object
        .into_iter()
        .filter(|(name, value)| !value.is_null() && !directive(name))
        .map(|(name, value)| (name, clean(value)))
        .collect()
}

fn clean_list(list: Vec<Value>) -> Vec<Value> {
    let special = |item: &Value| item.get(PATCH).is_some();
    list.into_iter().filter(|item| !special(item)).map(clean).collect()
}

/// A value as Go's `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
