//! SPDY/3.1 as a client may send it: frames and compressed header blocks.
#![no_main]

use krate_runtime::streaming::spdy::{frame, headers};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut decoder = frame::Decoder::default();
    decoder.buffer().extend_from_slice(bytes);
    while let Ok(Some(_)) = decoder.next_frame() {}
    let _ = headers::Decompressor::new().decode(bytes);
});
