//! The order of merged lists: first the order that the patch sets, then that of the live list.

use super::{BAD_ORDER, PATCH};
use crate::error::{PatchError, bad};
use serde_json::Value;

/// Whether two items are the same one: by key, or by value for scalars.
fn same(a: &Value, b: &Value, key: &str) -> bool {
    if key.is_empty() { a == b } else { a.get(key).is_some() && a.get(key) == b.get(key) }
}

/// The place of the item whose `key` has this value.
pub(super) fn place(list: &[Value], key: &str, value: &Value) -> Option<usize> {
    list.iter().position(|item| item.get(key) == Some(value))
}

fn position(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// The items of the patch must stand in the order that it sets, and none may be missing there.
pub(super) fn check(patch: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
        if !key.is_empty() && item.get(key).is_none() {
            return bad(BAD_ORDER);
        }
        if !rest.any(|o| same(o, item, key)) {
            return Err(PatchError::Internal(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                super::go_text(&Value::Array(patch.to_vec())),
                super::go_text(&Value::Array(order.to_vec()))
            )));
        }
    }
    Ok(())
}

/// Sorts `items`: those in `order` as it says; those that only the server has go before the first item that
/// was after them in `live`.
pub(super) fn arrange(
    items: Vec<Value>,
    order: &[Value],
    live: &[Value],
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    let (mut ordered, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| position(order, item, key).is_some());
    ordered.sort_by_key(|item| position(order, item, key));
    others.sort_by_key(|item| position(live, item, key));
    let mut arranged = Vec::with_capacity(ordered.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in ordered {
        let here = position(live, &item, key);
        while let Some(other) = others.peek() {
            match (position(live, other, key), here) {
                (Some(there), Some(here)) if there < here => arranged.extend(others.next()),
                _ => break,
            }
        }
        arranged.push(item);
    }
    arranged.extend(others);
    Ok(arranged)
}
