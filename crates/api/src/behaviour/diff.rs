//! What changed between two values, for errors about fields that may not change: the difference of their
//! JSON, line by line, in the unified form.

use serde::Serialize;

/// Lines around a change.
const CONTEXT: usize = 3;
/// Beyond this many lines a finer comparison is not worth its cost, which is quadratic.
const MAX_LINES: usize = 2000;

enum Edit {
    Keep,
    Remove,
    Add,
}

/// The difference of two values, empty if there is none.
#[must_use]
pub fn unified<T: Serialize>(old: &T, new: &T) -> String {
    let text = |value: &T| serde_json::to_string_pretty(value).unwrap_or_default();
    let (old, new) = (text(old), text(new));
    let old: Vec<&str> = old.split('\n').collect();
    let new: Vec<&str> = new.split('\n').collect();
    render(&old, &new, &edits(&old, &new))
}

/// The shortest way from one list of lines to the other.
fn edits(old: &[&str], new: &[&str]) -> Vec<Edit> {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    let mut all: Vec<Edit> = (0..start).map(|_| Edit::Keep).collect();
    if old.len().max(new.len()) > MAX_LINES {
        all.extend(old.iter().map(|_| Edit::Remove));
        all.extend(new.iter().map(|_| Edit::Add));
    } else {
        walk(old, new, &mut all);
    }
    all.extend((0..end).map(|_| Edit::Keep));
    all
}

/// By the longest common subsequence.
fn walk(old: &[&str], new: &[&str], all: &mut Vec<Edit>) {
    let width = new.len() + 1;
    let mut longest = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i * width + j] = if old[i] == new[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            all.push(Edit::Keep);
            i += 1;
            j += 1;
        } else if j == new.len()
            || (i < old.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1])
        {
            all.push(Edit::Remove);
            i += 1;
        } else {
            all.push(Edit::Add);
            j += 1;
        }
    }
}

fn render(old: &[&str], new: &[&str], edits: &[Edit]) -> String {
    let changed: Vec<usize> =
        edits.iter().enumerate().filter(|(_, e)| !matches!(e, Edit::Keep)).map(|(i, _)| i).collect();
    let mut out = String::new();
    let mut next = 0;
    while next < changed.len() {
        let from = changed[next].saturating_sub(CONTEXT);
        let mut last = next;
        while last + 1 < changed.len() && changed[last + 1] - changed[last] <= 2 * CONTEXT {
            last += 1;
        }
        let to = (changed[last] + CONTEXT + 1).min(edits.len());
        hunk(&mut out, old, new, edits, from, to);
        next = last + 1;
    }
    out
}

fn hunk(out: &mut String, old: &[&str], new: &[&str], edits: &[Edit], from: usize, to: usize) {
    let count = |part: &[Edit], skip: fn(&Edit) -> bool| part.iter().filter(|e| !skip(e)).count();
    let adds: fn(&Edit) -> bool = |e| matches!(e, Edit::Add);
    let removes: fn(&Edit) -> bool = |e| matches!(e, Edit::Remove);
    let (mut i, mut j) = (count(&edits[..from], adds), count(&edits[..from], removes));
    let (lines_old, lines_new) = (count(&edits[from..to], adds), count(&edits[from..to], removes));
    let range = |start: usize, lines: usize| match lines {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{lines}", start + 1),
    };
    out.push_str(&format!("@@ -{} +{} @@\n", range(i, lines_old), range(j, lines_new)));
    for edit in &edits[from..to] {
        let (mark, line) = match edit {
            Edit::Keep => (' ', old[i]),
            Edit::Remove => ('-', old[i]),
            Edit::Add => ('+', new[j]),
        };
        out.push_str(&format!("{mark}{line}\n"));
        i += usize::from(!matches!(edit, Edit::Add));
        j += usize::from(!matches!(edit, Edit::Remove));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_what_is_around_them() {
        let old = serde_json::json!({"a": 1, "b": 2, "c": 3});
        let new = serde_json::json!({"a": 1, "b": 5, "c": 3});
        assert_eq!(
            unified(&old, &new),
            "@@ -1,5 +1,5 @@\n {\n   \"a\": 1,\n-  \"b\": 2,\n+  \"b\": 5,\n   \"c\": 3\n }\n"
        );
        assert_eq!(unified(&old, &old), "");
    }

    #[test]
    fn changes_far_apart_are_shown_apart() {
        let mut new: Vec<u32> = (0..30).collect();
        let old = new.clone();
        new[2] = 100;
        new.remove(25);
        let text = unified(&old, &new);
        assert_eq!(text.matches("@@ -").count(), 2, "{text}");
        assert!(text.contains("-  25,\n"));
    }
}
