//! Terminal modes, from RFC 4254 section 8 to the words of `stty`.

/// What the argument of an opcode is.
enum Mode {
    /// A character that does something; 255 for none.
    Key(&'static str),
    /// On or off.
    Flag(&'static str),
}
use Mode::{Flag, Key};

/// Opcode, `stty`'s word, and what a new terminal has: Linux's defaults, so that a mode is only named where it differs.
///
/// Left out: speeds and character sizes, which a pseudo-terminal has none of, and modes that no Linux has.
const MODES: &[(u8, Mode, u32)] = &[
    (1, Key("intr"), 0x03),
    (2, Key("quit"), 0x1c),
    (3, Key("erase"), 0x7f),
    (4, Key("kill"), 0x15),
    (5, Key("eof"), 0x04),
    (6, Key("eol"), 0xff),
    (7, Key("eol2"), 0xff),
    (8, Key("start"), 0x11),
    (9, Key("stop"), 0x13),
    (10, Key("susp"), 0x1a),
    (12, Key("rprnt"), 0x12),
    (13, Key("werase"), 0x17),
    (14, Key("lnext"), 0x16),
    (30, Flag("ignpar"), 0),
    (31, Flag("parmrk"), 0),
    (32, Flag("inpck"), 0),
    (33, Flag("istrip"), 0),
    (34, Flag("inlcr"), 0),
    (35, Flag("igncr"), 0),
    (36, Flag("icrnl"), 1),
    (37, Flag("iuclc"), 0),
    (38, Flag("ixon"), 1),
    (39, Flag("ixany"), 0),
    (40, Flag("ixoff"), 0),
    (41, Flag("imaxbel"), 0),
    (42, Flag("iutf8"), 0),
    (50, Flag("isig"), 1),
    (51, Flag("icanon"), 1),
    (53, Flag("echo"), 1),
    (54, Flag("echoe"), 1),
    (55, Flag("echok"), 1),
    (56, Flag("echonl"), 0),
    (57, Flag("noflsh"), 0),
    (58, Flag("tostop"), 0),
    (59, Flag("iexten"), 1),
    (60, Flag("echoctl"), 1),
    (61, Flag("echoke"), 1),
    (70, Flag("opost"), 1),
    (71, Flag("olcuc"), 0),
    (72, Flag("onlcr"), 1),
    (73, Flag("ocrnl"), 0),
    (74, Flag("onocr"), 0),
    (75, Flag("onlret"), 0),
];

/// The words for those modes that differ from a new terminal's. Opcodes that mean nothing here are ignored; of several the last counts.
pub(super) fn stty(modes: &[(u8, u32)]) -> String {
    let words = MODES.iter().filter_map(|(opcode, mode, default)| {
        let (_, value) = modes.iter().rev().find(|(given, _)| given == opcode)?;
        match mode {
            _ if value == default => None,
            Key(word) if *value == 0xff => Some(format!("{word} undef")),
            // As 0x.., because a single digit would be taken for itself.
            Key(word) => Some(format!("{word} 0x{:02x}", value & 0xff)),
            Flag(word) if *value == 0 => Some(format!("-{word}")),
            Flag(_) if *default == 1 => None,
            Flag(word) => Some((*word).to_owned()),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_said() {
        assert_eq!(stty(&[(53, 1), (3, 127), (72, 1), (1, 3)]), "");
        assert_eq!(stty(&[(53, 0), (3, 8), (1, 255), (42, 1), (36, 7)]), "intr undef erase 0x08 iutf8 -echo");
        assert_eq!(stty(&[(0, 9), (200, 1), (129, 38400)]), "", "unknown ones are ignored");
        assert_eq!(stty(&[(53, 0), (53, 1)]), "");
        assert!(MODES.is_sorted_by_key(|(opcode, ..)| opcode));
    }
}
