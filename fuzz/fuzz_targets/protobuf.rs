//! Bodies in Kubernetes' protobuf form: read or refused, and what was read is JSON that decodes or is refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let with_envelope = [b"k8s\0", bytes].concat();
    for body in [bytes, &with_envelope] {
        if let Ok(decoded) = krate_api::protobuf::decode(body) {
            assert!(decoded.value.is_object());
        }
    }
});
