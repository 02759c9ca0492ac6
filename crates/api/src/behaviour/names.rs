//! The formats of names, keys and numbers, each as a list of what is wrong with a value (empty: nothing),
//! in the original's words.

use super::check::Check;
use crate::field::{Errors, Path};

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
     and must start and end with an alphanumeric character";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '-' or '.', and must start and end with an alphanumeric character";

/// What is wrong with a value, in sentences.
pub type Faults = Vec<String>;

/// `must be no more than N bytes`.
#[must_use]
pub fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// `must be between LOW and HIGH, inclusive`.
#[must_use]
pub fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A text, examples and the regular expression, as the original puts them together.
#[must_use]
pub fn regex(text: &str, expression: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{expression}')");
    }
    format!("{text} (e.g. {}regex used for validation is '{expression}')", examples.join(" or "))
}

fn lower_or_digit(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Whether a value begins and ends with `edge` characters and has only `inner` ones between.
fn edged(value: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    match bytes {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|c| inner(*c)),
    }
}

fn is_label(value: &str) -> bool {
    edged(value, lower_or_digit, |c| lower_or_digit(c) || c == b'-')
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

/// A DNS label (RFC 1123).
#[must_use]
pub fn dns1123_label(value: &str) -> Faults {
    let mut faults = vec![];
    if value.len() > 63 {
        faults.push(too_long(63));
    }
    if !is_label(value) {
        faults.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex(LABEL_TEXT, LABEL, &["my-name", "123-abc"])
        });
    }
    faults
}

/// A DNS subdomain (RFC 1123).
#[must_use]
pub fn dns1123_subdomain(value: &str) -> Faults {
    let mut faults = vec![];
    if value.len() > 253 {
        faults.push(too_long(253));
    }
    if !is_subdomain(value) {
        faults.push(regex(SUBDOMAIN_TEXT, SUBDOMAIN, &["example.com"]));
    }
    faults
}

/// A DNS subdomain whose labels may begin with and contain underscores.
#[must_use]
pub fn dns1123_subdomain_with_underscore(value: &str) -> Faults {
    const TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', \
         '-' or '.', and must start and end with an alphanumeric character";
    const EXPRESSION: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
    let mut faults = vec![];
    if value.len() > 253 {
        faults.push(too_long(253));
    }
    let label = |l: &str| {
        edged(l.strip_prefix('_').unwrap_or(l), lower_or_digit, |c| {
            lower_or_digit(c) || c == b'-' || c == b'_'
        })
    };
    if !value.split('.').all(label) {
        faults.push(regex(TEXT, EXPRESSION, &["example.com"]));
    }
    faults
}

/// A DNS label that begins with a letter (RFC 1035).
#[must_use]
pub fn dns1035_label(value: &str) -> Faults {
    const TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
         alphabetic character, and end with an alphanumeric character";
    let mut faults = vec![];
    if value.len() > 63 {
        faults.push(too_long(63));
    }
    if !is_label(value) || !value.as_bytes().first().is_some_and(u8::is_ascii_lowercase) {
        faults.push(regex(TEXT, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    faults
}

/// A DNS subdomain after `*.`.
#[must_use]
pub fn wildcard_subdomain(value: &str) -> Faults {
    const TEXT: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
         must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
    let mut faults = vec![];
    if value.len() > 253 {
        faults.push(too_long(253));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        faults.push(regex(TEXT, &format!(r"\*\.{SUBDOMAIN}"), &["*.example.com"]));
    }
    faults
}

/// The key of a label or annotation, and every other "qualified name": an optional prefix and a name.
#[must_use]
pub fn qualified_name(value: &str) -> Faults {
    crate::labels::key_faults(value)
}

/// The value of a label.
#[must_use]
pub fn label_value(value: &str) -> Faults {
    crate::labels::value_faults(value)
}

/// One segment of a URL path: the names of roles and the like.
#[must_use]
pub fn path_segment(value: &str) -> Faults {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    path_segment_prefix(value)
}

/// As [`path_segment`], for the beginning of a name.
#[must_use]
pub fn path_segment_prefix(value: &str) -> Faults {
    ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A key of a config map or secret.
#[must_use]
pub fn config_key(value: &str) -> Faults {
    const TEXT: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
    let mut faults = vec![];
    if value.len() > 253 {
        faults.push(too_long(253));
    }
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(inner) {
        faults.push(regex(TEXT, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    faults.extend(dots(value));
    faults
}

fn dots(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// The name of an environment variable: any printable ASCII except `=`.
#[must_use]
pub fn env_name(value: &str) -> Faults {
    let mut faults = vec![];
    if value.is_empty() {
        faults.push("environment variable name must be non-empty".to_owned());
    }
    if value.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        faults.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    faults
}

/// The name of a port (IANA service name).
#[must_use]
pub fn port_name(value: &str) -> Faults {
    let mut faults = vec![];
    let mut fault = |wrong: bool, text: &str| {
        if wrong {
            faults.push(text.to_owned());
        }
    };
    fault(value.len() > 15, &too_long(15));
    fault(
        value.is_empty() || !value.bytes().all(|c| lower_or_digit(c) || c == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    fault(!value.bytes().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    fault(value.contains("--"), "must not contain consecutive hyphens");
    fault(value.starts_with('-') || value.ends_with('-'), "must not begin or end with a hyphen");
    faults
}

/// A port number.
#[must_use]
pub fn port_number(value: i64) -> Faults {
    in_range(value, 1, 65535)
}

#[must_use]
pub fn in_range(value: i64, low: i64, high: i64) -> Faults {
    if (low..=high).contains(&value) { vec![] } else { vec![between(low, high)] }
}

/// A user or group number.
#[must_use]
pub fn user_id(value: i64) -> Faults {
    in_range(value, 0, i64::from(u32::MAX))
}

#[must_use]
pub fn percent(value: &str) -> Faults {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return vec![];
    }
    const TEXT: &str = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex(TEXT, "[0-9]+%", &["1%", "93%"])]
}

#[must_use]
pub fn http_header_name(value: &str) -> Faults {
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return vec![];
    }
    const TEXT: &str = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex(TEXT, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// The beginning of a generated name, checked as if it were followed by something.
fn masked(name: &str, prefix: bool) -> String {
    match name.strip_suffix('-') {
        // The original cuts one character too many; only the length could tell.
        Some(rest) if prefix && !rest.is_empty() => format!("{}a", &rest[..rest.len() - last_len(rest)]),
        _ => name.to_owned(),
    }
}

fn last_len(text: &str) -> usize {
    text.chars().next_back().map_or(0, char::len_utf8)
}

/// Names of most kinds. `prefix` for a `generateName`.
#[must_use]
pub fn subdomain_name(name: &str, prefix: bool) -> Faults {
    dns1123_subdomain(&masked(name, prefix))
}

/// Names of namespaces and services.
#[must_use]
pub fn label_name(name: &str, prefix: bool) -> Faults {
    dns1123_label(&masked(name, prefix))
}

/// Names of roles and bindings.
#[must_use]
pub fn path_name(name: &str, prefix: bool) -> Faults {
    if prefix { path_segment_prefix(name) } else { path_segment(name) }
}

/// An IP address in its standard form (no leading zeros, not IPv4 in IPv6).
#[must_use]
pub fn ip(value: &str) -> Faults {
    let text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned();
    match value.parse::<std::net::IpAddr>() {
        Err(_) if sloppy_ip(value).is_some() => {
            vec!["must not have leading 0s".to_owned()]
        }
        Err(_) => vec![text],
        Ok(std::net::IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(_) => vec![],
    }
}

/// An address as older parsers read it: with zeros before the numbers of IPv4.
#[must_use]
pub fn sloppy_ip(value: &str) -> Option<std::net::IpAddr> {
    value.parse().or_else(|_| without_leading_zeros(value).parse()).ok()
}

/// An IPv4 address in its short form.
fn without_leading_zeros(value: &str) -> String {
    let part = |p: &str| match p.trim_start_matches('0') {
        "" if !p.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    value.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// A network in its standard form.
#[must_use]
pub fn cidr(value: &str) -> Faults {
    let text = || vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    let Some((address, bits)) = value.split_once('/') else { return text() };
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return text() };
    let canonical = bits.parse::<u8>().ok().filter(|b| b.to_string() == bits);
    let (number, width) = match address {
        std::net::IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        std::net::IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let Some(bits) = canonical.map(u32::from).filter(|b| *b <= width) else { return text() };
    let host = width - bits;
    if host > 0 && host < 128 && number & ((1u128 << host) - 1) != 0 {
        return vec!["must not have bits set beyond the prefix length".to_owned()];
    }
    vec![]
}

/// A path below a domain, such as `example.com/controller`.
pub fn domain_path(errors: &mut Errors, path: &Path, value: &str) {
    if !errors.required(path, value) {
        return;
    }
    match value.split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            errors.faults(path, host, dns1123_subdomain(host));
            let good = |c: u8| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c);
            if !rest.bytes().all(good) {
                let text = regex("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[]);
                errors.invalid(path, rest, &text);
            }
        }
        _ => errors.invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomains_are_told_with_the_original_text() {
        assert_eq!(dns1123_subdomain("a.b-c"), Vec::<String>::new());
        assert_eq!(
            dns1123_subdomain("A_b"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
              must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
    }

    #[test]
    fn labels_are_told_apart_from_subdomains() {
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_label("-a"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
              and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
    }

    #[test]
    fn keys_have_a_prefix_and_a_name() {
        assert!(qualified_name("example.com/My_name").is_empty());
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/").len(), 2);
        assert_eq!(
            label_value("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
              must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
              used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
    }

    #[test]
    fn generated_names_may_end_in_a_dash() {
        assert!(subdomain_name("web-", true).is_empty());
        assert_eq!(subdomain_name("web-", false).len(), 1);
    }

    #[test]
    fn networks_are_checked_to_the_last_bit() {
        for good in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/64", "10.1.2.3/32"] {
            assert!(cidr(good).is_empty(), "{good}");
        }
        for bad in ["10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "010.0.0.0/8", "10.0.0.0/08", "x/1"] {
            assert!(!cidr(bad).is_empty(), "{bad}");
        }
    }
}
