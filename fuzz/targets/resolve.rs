//! What name servers answer, and the files that say who they are.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
use simple_dns::TYPE;

#[path = "../../init/src/resolve.rs"]
mod resolve;

/// What the module needs of its neighbours.
mod jobs {
    pub(crate) type Refusal = (innkeeper_init::protocol::Failure, String);
}
mod login {
    pub(crate) fn read(_: &str, _: u64) -> Vec<u8> {
        Vec::new()
    }
}

fuzz_target!(|bytes: &[u8]| {
    // The number is the first two bytes of a packet, so that answers are to the question that was asked.
    let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    for kind in [TYPE::A, TYPE::AAAA] {
        let _ = resolve::answer(bytes, id, "db", kind);
    }
    let config = resolve::config(bytes);
    let _ = resolve::candidates(&config, "db");
    let _ = resolve::hosts(bytes, "db");
});
