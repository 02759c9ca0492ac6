//! Bodies in JSON against the schema of the type that has every construct: a pod. What the check passes on is
//! JSON still, and is found to be in order when it is checked again.
#![no_main]

use krate_api::{schema, strict};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(pod) = schema::of_kind("", "v1", "Pod") else { return };
    let Ok(checked) = strict::check(pod, bytes) else { return };
    let passed = checked.bytes(bytes);
    let again = strict::check(pod, passed);
    assert!(again.is_ok_and(|again| again.rewritten.is_none()), "{}", String::from_utf8_lossy(passed));
});
