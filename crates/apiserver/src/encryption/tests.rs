//! Configurations that are read and refused, and what they seal.

use super::*;

fn config(resources: &str, providers: &str) -> String {
    format!(
        "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources:\n\
         - resources: [{resources}]\n  providers:\n{providers}"
    )
}

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn keyed(provider: &str, name: &str) -> String {
    format!("  - {provider}: {{keys: [{{name: {name}, secret: {KEY}}}]}}\n")
}

fn key(space: &str, path: &str) -> Key {
    Key::new(space, path)
}

#[test]
fn every_provider_reads_what_it_wrote_and_says_whose_it_is() {
    for provider in ["aesgcm", "aescbc", "secretbox"] {
        let seal = Encryption::parse(&config("secrets", &keyed(provider, "k"))).unwrap();
        for plain in [&b""[..], b"hush", &[7; 4096]] {
            let sealed = seal.seal(&key("secrets", "a/b"), plain).unwrap().unwrap();
            assert!(sealed.starts_with(format!("k8s:enc:{provider}:v1:k:").as_bytes()));
            assert!(plain.is_empty() || !sealed.windows(plain.len()).any(|part| part == plain));
            assert_eq!(seal.open(&key("secrets", "a/b"), &sealed).unwrap(), plain);
            assert!(!seal.is_stale(&key("secrets", "a/b"), Some(&sealed)));
            assert_ne!(seal.seal(&key("secrets", "a/b"), plain).unwrap().unwrap(), sealed);
        }
        assert!(seal.seal(&key("pods", "a/b"), b"x").unwrap().is_none());
        assert!(seal.is_stale(&key("secrets", "a/b"), None) && !seal.is_stale(&key("pods", "a/b"), None));
    }
}

#[test]
fn a_record_in_anothers_place_or_with_a_turned_bit_is_refused() {
    let seal = Encryption::parse(&config("secrets", &keyed("aesgcm", "k"))).unwrap();
    let mut sealed = seal.seal(&key("secrets", "a/b"), b"hush").unwrap().unwrap();
    assert!(seal.open(&key("secrets", "a/c"), &sealed).is_err());
    *sealed.last_mut().unwrap() ^= 1;
    assert!(seal.open(&key("secrets", "a/b"), &sealed).is_err());
}

#[test]
fn the_first_provider_writes_and_all_read() {
    let seal = Encryption::parse(&config("secrets", &keyed("aescbc", "old"))).unwrap();
    let at = key("secrets", "a/b");
    let old = seal.seal(&at, b"hush").unwrap().unwrap();
    let both = [keyed("secretbox", "new"), keyed("aescbc", "old")].concat();
    seal.reload(&config("secrets", &both)).unwrap();
    assert_eq!(seal.open(&at, &old).unwrap(), b"hush");
    assert!(seal.is_stale(&at, Some(&old)));
    assert!(seal.seal(&at, b"hush").unwrap().unwrap().starts_with(b"k8s:enc:secretbox:v1:new:"));
    assert!(seal.reload("kind: Pod").is_err());
    seal.reload(&config("secrets", "  - identity: {}\n")).unwrap();
    let error = seal.open(&at, &old).unwrap_err().to_string();
    assert!(error.contains("aescbc key \"old\""), "{error}");
    assert!(seal.is_stale(&at, Some(&old)) && seal.seal(&at, b"x").unwrap().is_none());
}

#[test]
fn rules_name_resources_groups_or_everything_and_the_first_holds() {
    let text = format!(
        "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources:\n\
         - resources: [events]\n  providers:\n  - identity: {{}}\n\
         - resources: ['*.apps', secrets, widgets.example.com]\n  providers:\n{}\
         - resources: ['*.']\n  providers:\n{}",
        keyed("aesgcm", "a"),
        keyed("aesgcm", "b"),
    );
    let seal = Encryption::parse(&text).unwrap();
    let by = |space: &str| {
        let sealed = seal.seal(&key(space, "x"), b"").unwrap();
        sealed.map(|s| String::from_utf8_lossy(&s[..20]).rsplit(':').nth(1).unwrap().to_owned())
    };
    assert_eq!(by("events"), None);
    assert_eq!(by("deployments.apps").as_deref(), Some("a"));
    assert_eq!(by("widgets.example.com").as_deref(), Some("a"));
    assert_eq!(by("secrets").as_deref(), Some("a"));
    assert_eq!(by("pods").as_deref(), Some("b"));
    assert_eq!(by("jobs.batch"), None);
    let all = Encryption::parse(&config("'*.*'", &keyed("aesgcm", "k"))).unwrap();
    assert!(all.seal(&key("jobs.batch", "x"), b"").unwrap().is_some());
}

#[test]
fn bad_files_are_refused_with_their_reason() {
    let identity = "  - identity: {}\n";
    for (text, expected) in [
        ("kind: Pod\napiVersion: v1\n".to_owned(), "no kind \"Pod\""),
        (config("", identity), "resources must be set"),
        (config("secrets", ""), "cannot be read"),
        (config("'*'", identity), "use '*.' to encrypt"),
        (config("secrets, secrets", identity), "multiple times"),
        (config("secrets, '*.'", identity), "masked"),
        (config("Secrets", identity), "capital letters"),
        (config("secrets", "  - aesgcm: {keys: [{name: a, secret: c2hvcnQ=}]}\n"), "got 5, expected one of"),
        (config("secrets", "  - aesgcm: {keys: [{name: a, secret: '!'}]}\n"), "base64"),
        (config("secrets", "  - aesgcm: {keys: []}\n"), "at least one key"),
        (
            config(
                "secrets",
                &format!("  - identity: {{}}\n    aescbc: {{keys: [{{name: a, secret: {KEY}}}]}}\n"),
            ),
            "more than one provider",
        ),
        (config("secrets", "  - kms: {apiVersion: v2, name: x, endpoint: 'unix:///x'}\n"), "no KMS provider"),
    ] {
        let error = Encryption::parse(&text).expect_err(&text).to_string();
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn a_file_of_our_own_is_rotated_and_one_of_others_is_not() {
    let first = Encryption::generate().unwrap();
    let seal = Encryption::parse(&first).unwrap();
    let at = key("secrets", "a/b");
    let old = seal.seal(&at, b"hush").unwrap().unwrap();
    let second = Encryption::rotate(&first).unwrap();
    seal.reload(&second).unwrap();
    assert!(seal.is_stale(&at, Some(&old)) && seal.open(&at, &old).unwrap() == b"hush");
    assert!(seal.seal(&at, b"").unwrap().unwrap().starts_with(b"k8s:enc:aesgcm:v1:key2:"));
    assert!(Encryption::rotate(&second).unwrap().contains("name: key3"));
    assert!(Encryption::rotate(&config("pods", "  - identity: {}\n")).is_err());
}
