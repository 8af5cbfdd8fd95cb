//! What programs write to a terminal, in pieces, at windows of all sizes.
#![no_main]
#![allow(dead_code)]

use innkeeper_init::protocol::Size;
use libfuzzer_sys::fuzz_target;

#[path = "../../init/src/input_modes.rs"]
mod input_modes;
#[path = "../../init/src/screen.rs"]
mod screen;

/// The largest painting: every cell with its colours, and what left the screen.
const LONGEST: usize = 16 << 20;

fuzz_target!(|bytes: &[u8]| {
    let mut screen = screen::Screen::new(Size { columns: 80, rows: 24 });
    // A byte 0xfc, which is in no text, is followed by what happens beside it.
    for (number, piece) in bytes.split(|byte| *byte == 0xfc).enumerate() {
        let text = match piece {
            [columns, rows, rest @ ..] if number > 0 => {
                screen.resize(Size { columns: u16::from(*columns) * 3, rows: u16::from(*rows) * 2 });
                rest
            }
            text => text,
        };
        screen.feed(text);
    }
    assert!(screen.paint(true).len() < LONGEST);
});
