//! What the gateway reads, and what people in a container are told.
#![no_main]

use innkeeper_init::protocol::{Answer, Report};
use innkeeper_init::wire::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<Report>(bytes);
    let _ = decode::<Answer>(bytes);
});
