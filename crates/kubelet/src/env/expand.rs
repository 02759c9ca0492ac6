//! `$(VAR)` in commands, arguments, variables and sub-paths.
//!
//! `$(NAME)` is replaced when NAME is defined and stays as it is otherwise; `$$` is one `$`. Anything else
//! after a `$` (such as the `$(id -u)` of a shell) stays.

use std::collections::BTreeMap;

/// Replaces what `lookup` knows.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// [`expand`] over each string, from a list of variables in which the last of a name counts.
pub fn expand_all(texts: &[String], env: &[(String, String)]) -> Vec<String> {
    let known: BTreeMap<&str, &str> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    texts.iter().map(|text| expand(text, |name| known.get(name).copied())).collect()
}

/// Replaces every `$(NAME)`, or says which one is not defined (`subPathExpr` has to be whole).
pub fn expand_strict(text: &str, env: &[(String, String)]) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let known: BTreeMap<&str, &str> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let out = expand(text, |name| {
        let value = known.get(name).copied();
        if value.is_none() {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        value
    });
    match missing.into_inner() {
        Some(name) => Err(name),
        None => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_defined_is_replaced() {
        let cases = [
            ("$(A)", "1"),
            ("$(A)$(A)", "11"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(id -u)", "$(id -u)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("cost: 5$", "cost: 5$"),
            ("$()", "$()"),
            ("é$(A)é", "é1é"),
        ];
        for (input, wanted) in cases {
            assert_eq!(expand(input, |n| (n == "A").then_some("1")), wanted, "{input}");
        }
    }

    #[test]
    fn strict_names_what_is_missing() {
        let env = [("A".to_owned(), "1".to_owned())];
        assert_eq!(expand_strict("x/$(A)", &env).unwrap(), "x/1");
        assert_eq!(expand_strict("x/$(B)", &env).unwrap_err(), "B");
    }
}
