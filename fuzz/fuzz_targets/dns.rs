//! Questions and replies of DNS, from pods and from name servers.
#![no_main]

use krate_network::dns::wire;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = wire::asked(bytes);
    let _ = wire::is_truncated(bytes);
    let (request, reply) = bytes.split_at(bytes.len() / 2);
    let _ = wire::matches(request, reply);
});
