//! Times that Go lets be absent and `k8s-openapi` does not: `lastTransitionTime` of a condition, `lastObservedTime`
//! of a series of events.
//!
//! Whoever writes a condition in Go without its time sends `null` (nothing at all in protobuf), and gets it back. In
//! typed values such a time is the first second of the year 1, which is Go's zero time and written as `null`.

use crate::schema::{Field, Shape, Type};
use serde_json::{Map, Value};

/// As `k8s-openapi` writes the zero time in its two precisions.
const ZERO: &str = "0001-01-01T00:00:00Z";
const ZERO_MICRO: &str = "0001-01-01T00:00:00.000000Z";

/// Whether the JSON of a time is that of Go's zero time.
pub(crate) fn is_zero_time(json: &[u8]) -> bool {
    let text = json.strip_prefix(b"\"").and_then(|j| j.strip_suffix(b"\""));
    text.is_some_and(|t| t == ZERO.as_bytes() || t == ZERO_MICRO.as_bytes())
}

/// The JSON of an object of type `ty` with every required time that it lacks; none if it lacks none.
pub(crate) fn filled(ty: &'static Type, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    let Value::Object(object) = &mut value else { return None };
    fill(ty, object).then(|| value.to_string().into_bytes())
}

fn fill(ty: &'static Type, object: &mut Map<String, Value>) -> bool {
    let mut changed = false;
    for field in &ty.fields {
        match (zero(field), object.get_mut(field.name)) {
            (Some(zero), None | Some(Value::Null)) => {
                object.insert(field.name.to_owned(), Value::from(zero));
                changed = true;
            }
            (None, Some(value)) => changed |= fill_shape(&field.shape, value),
            _ => {}
        }
    }
    changed
}

fn zero(field: &Field) -> Option<&'static str> {
    match field.shape {
        Shape::Time if field.required => Some(ZERO),
        Shape::MicroTime if field.required => Some(ZERO_MICRO),
        _ => None,
    }
}

fn fill_shape(shape: &'static Shape, value: &mut Value) -> bool {
    match (shape, value) {
        (Shape::Object(_), Value::Object(object)) => shape.object().is_some_and(|ty| fill(ty, object)),
        (Shape::List(inner), Value::Array(list)) => fill_each(inner, list.iter_mut()),
        (Shape::Map(inner), Value::Object(map)) => fill_each(inner, map.values_mut()),
        _ => false,
    }
}

/// Fills every one of them, not only up to the first that changes.
fn fill_each<'a>(shape: &'static Shape, values: impl Iterator<Item = &'a mut Value>) -> bool {
    values.filter_map(|value| fill_shape(shape, value).then_some(())).count() > 0
}
