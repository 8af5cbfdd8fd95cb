//! What was understood can be said again, and is understood as the same.
#![no_main]

use innkeeper_init::protocol::{Answer, Ask, Order, Report};
use innkeeper_init::wire::{decode, encode};
use libfuzzer_sys::fuzz_target;
use minicbor::{Decode, Encode};

fn there_and_back<T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = decode::<T>(bytes) {
        // Fields that were left out are written: a message may have become longer than messages may be, and nothing else.
        if let Ok(again) = encode(&message) {
            assert_eq!(decode::<T>(&again).expect("what was written is read"), message);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    there_and_back::<Order>(bytes);
    there_and_back::<Report>(bytes);
    there_and_back::<Ask>(bytes);
    there_and_back::<Answer>(bytes);
});
