//! Modes that concern what a terminal sends, not what it shows: the emulator of what is shown does not know them.

use std::fmt::Write as _;

/// The private modes of mouse, focus and paste, by their numbers, in ascending order.
const MODES: [u16; 12] = [9, 1000, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016, 2004, 2026];

/// Most parameters of a sequence that are looked at.
const PARAMETERS: usize = 16;

/// Which of them are on, and where in a sequence that may change them the text has come.
#[derive(Debug, Default, Clone)]
pub(crate) struct InputModes {
    on: u16,
    keypad: bool,
    cursor: u16,
    at: At,
}

#[derive(Debug, Default, Clone)]
enum At {
    #[default]
    Text,
    Escape,
    Sequence(Sequence),
}

#[derive(Debug, Default, Clone)]
struct Sequence {
    private: bool,
    space: bool,
    soft: bool,
    count: usize,
    parameters: [u16; PARAMETERS],
}

// === impl InputModes ===

/// By what is on; not by where in a sequence the text is.
impl PartialEq for InputModes {
    fn eq(&self, other: &Self) -> bool {
        (self.on, self.keypad, self.cursor) == (other.on, other.keypad, other.cursor)
    }
}

impl InputModes {
    /// The program has written this.
    pub(crate) fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            self.at = match (std::mem::take(&mut self.at), byte) {
                (_, 0x1b) => At::Escape,
                (At::Text, _) | (_, 0x18 | 0x1a) => At::Text,
                (At::Escape, b'[') => At::Sequence(Sequence::default()),
                (At::Escape, _) => {
                    self.escape(byte);
                    At::Text
                }
                (At::Sequence(sequence), 0x40..) => {
                    self.sequence(&sequence, byte);
                    At::Text
                }
                (At::Sequence(mut sequence), _) => {
                    sequence.feed(byte);
                    At::Sequence(sequence)
                }
            };
        }
    }

    /// Writes what turns on what is on, for a terminal where nothing is.
    pub(crate) fn write(&self, to: &mut String) {
        for (bit, mode) in MODES.iter().enumerate() {
            if self.on & 1 << bit != 0 {
                let _ = write!(to, "\x1b[?{mode}h");
            }
        }
        if self.keypad {
            to.push_str("\x1b=");
        }
        if self.cursor != 0 {
            let _ = write!(to, "\x1b[{} q", self.cursor);
        }
    }

    fn escape(&mut self, byte: u8) {
        match byte {
            b'=' => self.keypad = true,
            b'>' => self.keypad = false,
            b'c' => *self = Self::default(),
            _ => {}
        }
    }

    fn sequence(&mut self, sequence: &Sequence, last: u8) {
        match last {
            b'h' | b'l' if sequence.private => {
                for mode in sequence.parameters.iter().take(sequence.count + 1) {
                    if let Ok(bit) = MODES.binary_search(mode) {
                        self.on = if last == b'h' { self.on | 1 << bit } else { self.on & !(1 << bit) };
                    }
                }
            }
            b'p' if sequence.soft => self.keypad = false,
            b'q' if sequence.space => self.cursor = sequence.parameters.first().copied().filter(|style| *style <= 6).unwrap_or(0),
            _ => {}
        }
    }
}

// === impl Sequence ===

impl Sequence {
    fn feed(&mut self, byte: u8) {
        match byte {
            b'?' => self.private = true,
            b' ' => self.space = true,
            b'!' => self.soft = true,
            b';' => self.count = (self.count + 1).min(PARAMETERS),
            b'0'..=b'9' => {
                if let Some(number) = self.parameters.get_mut(self.count) {
                    *number = number.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_turned_on_is_written_again() {
        let mut modes = InputModes::default();
        for piece in ["a\x1b[?100", "0;1006h\x1b[?2004;25h", "\x1b[4 q\x1b=\x1b]0;[?1003h\x07", "\x1b[1003h\x1b[?9999999999h"] {
            modes.feed(piece);
        }
        let mut written = String::new();
        modes.write(&mut written);
        assert_eq!(written, "\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b=\x1b[4 q");
        let mut other = InputModes::default();
        other.feed(&written);
        assert_eq!(other, modes);
        modes.feed("\x1b[?1006;1000l\x1b[?2004l\x1b>\x1b[0 q");
        assert_eq!(modes, InputModes::default());
    }
}
