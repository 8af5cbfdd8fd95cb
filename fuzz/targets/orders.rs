//! What init reads: its gateway's orders, and what people in its container ask.
#![no_main]

use innkeeper_init::protocol::{Ask, Order};
use innkeeper_init::wire::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<Order>(bytes);
    let _ = decode::<Ask>(bytes);
});
