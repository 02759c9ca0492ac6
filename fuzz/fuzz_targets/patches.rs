//! The three kinds of patches, on objects that are whatever the fuzzer makes of them: `object 0x00 patch`.
#![no_main]

use krate_api::schema;
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(cut) = bytes.iter().position(|b| *b == 0) else { return };
    let (object, patch) = (&bytes[..cut], &bytes[cut + 1..]);
    let Ok(object) = serde_json::from_slice::<Value>(object) else { return };
    let _ = krate_merge::json_patch(object.clone(), patch);
    if let Ok(merged) = krate_merge::merge_patch(object.clone(), patch) {
        // A merge patch that was applied changes nothing the second time.
        let again = krate_merge::merge_patch(merged.clone(), patch);
        assert!(again.is_ok_and(|again| again == merged));
    }
    if let Some(pod) = schema::of_kind("", "v1", "Pod") {
        let _ = krate_merge::strategic_merge_patch(pod, object, patch);
    }
});
