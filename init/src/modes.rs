//! Terminal modes, from RFC 4254 section 8 to a Linux terminal's.

use innkeeper_init::protocol::Mode;
use rustix::termios::{InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios};

/// Bits of one of a terminal's words, or the place of one of its characters.
enum Place {
    Key(SpecialCodeIndex),
    Input(InputModes),
    Local(LocalModes),
    Output(OutputModes),
}

/// The place of an opcode. Left out: speeds and character sizes, which a pseudo-terminal has none of, and modes that no Linux has.
fn place(opcode: u8) -> Option<Place> {
    use Place::{Input, Key, Local, Output};
    Some(match opcode {
        1 => Key(SpecialCodeIndex::VINTR),
        2 => Key(SpecialCodeIndex::VQUIT),
        3 => Key(SpecialCodeIndex::VERASE),
        4 => Key(SpecialCodeIndex::VKILL),
        5 => Key(SpecialCodeIndex::VEOF),
        6 => Key(SpecialCodeIndex::VEOL),
        7 => Key(SpecialCodeIndex::VEOL2),
        8 => Key(SpecialCodeIndex::VSTART),
        9 => Key(SpecialCodeIndex::VSTOP),
        10 => Key(SpecialCodeIndex::VSUSP),
        12 => Key(SpecialCodeIndex::VREPRINT),
        13 => Key(SpecialCodeIndex::VWERASE),
        14 => Key(SpecialCodeIndex::VLNEXT),
        30 => Input(InputModes::IGNPAR),
        31 => Input(InputModes::PARMRK),
        32 => Input(InputModes::INPCK),
        33 => Input(InputModes::ISTRIP),
        34 => Input(InputModes::INLCR),
        35 => Input(InputModes::IGNCR),
        36 => Input(InputModes::ICRNL),
        37 => Input(InputModes::IUCLC),
        38 => Input(InputModes::IXON),
        39 => Input(InputModes::IXANY),
        40 => Input(InputModes::IXOFF),
        41 => Input(InputModes::IMAXBEL),
        42 => Input(InputModes::IUTF8),
        50 => Local(LocalModes::ISIG),
        51 => Local(LocalModes::ICANON),
        53 => Local(LocalModes::ECHO),
        54 => Local(LocalModes::ECHOE),
        55 => Local(LocalModes::ECHOK),
        56 => Local(LocalModes::ECHONL),
        57 => Local(LocalModes::NOFLSH),
        58 => Local(LocalModes::TOSTOP),
        59 => Local(LocalModes::IEXTEN),
        60 => Local(LocalModes::ECHOCTL),
        61 => Local(LocalModes::ECHOKE),
        70 => Output(OutputModes::OPOST),
        71 => Output(OutputModes::OLCUC),
        72 => Output(OutputModes::ONLCR),
        73 => Output(OutputModes::OCRNL),
        74 => Output(OutputModes::ONOCR),
        75 => Output(OutputModes::ONLRET),
        _ => return None,
    })
}

/// Sets these modes. Opcodes that mean nothing here are ignored; of several the last counts.
pub(crate) fn apply(terminal: &mut Termios, modes: &[Mode]) {
    for Mode { opcode, value } in modes {
        match place(*opcode) {
            // 255 is no key; Linux writes that as NUL. What is no character is ignored.
            Some(Place::Key(key)) => {
                if let Ok(code) = u8::try_from(*value) {
                    terminal.special_codes[key] = if code == 0xff { 0 } else { code };
                }
            }
            Some(Place::Input(bits)) => terminal.input_modes.set(bits, *value != 0),
            Some(Place::Local(bits)) => terminal.local_modes.set(bits, *value != 0),
            Some(Place::Output(bits)) => terminal.output_modes.set(bits, *value != 0),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pty;

    fn mode((opcode, value): (u8, u32)) -> Mode {
        Mode { opcode, value }
    }

    #[test]
    fn modes_are_set_and_what_is_none_is_ignored() {
        let (_master, slave) = pty::open(Default::default(), &[]).unwrap();
        let mut terminal = rustix::termios::tcgetattr(&slave).unwrap();
        let before = terminal.local_modes;
        apply(&mut terminal, &[(53, 0), (3, 8), (1, 255), (42, 1), (36, 7), (2, u32::MAX), (0, 9), (200, 1), (129, 38400)].map(mode));
        assert_eq!(terminal.local_modes, before - LocalModes::ECHO);
        assert_eq!(terminal.special_codes[SpecialCodeIndex::VERASE], 8);
        assert_eq!(terminal.special_codes[SpecialCodeIndex::VINTR], 0);
        assert_eq!(terminal.special_codes[SpecialCodeIndex::VQUIT], 0x1c);
        assert!(terminal.input_modes.contains(InputModes::IUTF8 | InputModes::ICRNL));
        apply(&mut terminal, &[(53, 0), (53, 1)].map(mode));
        assert_eq!(terminal.local_modes, before);
    }
}
