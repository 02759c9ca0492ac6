//! The small languages: quantities, selectors, schedules, image references, kubeconfigs, lines of logs.
#![no_main]

use krate_api::cron::Schedule;
use krate_api::quantity::Quantity;
use krate_api::{fields, labels};
use krate_runtime::images::Reference;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = krate_kubelet::logs::Line::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(canonical) = krate_api::quantity::canonical(text) {
        let again = krate_api::quantity::canonical(&canonical);
        assert!(again.is_ok_and(|again| again == canonical), "{text:?} became {canonical:?}");
        assert!(Quantity::parse(text).is_ok());
    }
    let _ = labels::Selector::parse(text);
    let _ = fields::Selector::parse(text);
    let _ = Schedule::parse(text);
    let _ = Reference::parse(text);
    let _ = krate_client::kubeconfig::remote_config(text, None);
});
