//! What is on a terminal's screen, and a little of what was, so that it can be painted again for somebody who comes later.
//!
//! The emulator reads what programs in the container write, all of it hostile: everything kept is bounded, and a panic in it costs what
//! was on the screen and nothing else. Zero-width characters are left out: the emulator would give each a cell of its own, and the rest of
//! the line would be painted in the wrong place. Knows nothing of viewers.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use avt::parser::{EdScope, Function};
use avt::{Line, Observation, Observer, Operation, Terminal};
use innkeeper_init::protocol::Size;
use unicode_width::UnicodeWidthChar;

use crate::input_modes::InputModes;

/// A screen of a client that has not said how large hers is.
const UNKNOWN: Size = Size { columns: 80, rows: 24 };

/// Largest screen that is kept, in characters: 4 MiB with both of its buffers. What is larger is kept as if it were this large.
const LARGEST: Size = Size { columns: 512, rows: 256 };

/// Most lines kept of what has left the screen, and most bytes of them.
const SCROLLBACK_LINES: usize = 256;
const SCROLLBACK_BYTES: usize = 64 * 1024;

/// Brings a terminal that shows anything at all to the state in which a painting starts: on the main screen, every mode as it is at
/// first, empty.
const RESET: &str = concat!(
    "\x1b[?1049l\x1b[!p\x1b[r\x1b[?6l\x1b[4l\x1b[?7h\x1b[?25h\x1b[?1l\x1b>",
    "\x1b[?9;1000;1002;1003;1004;1005;1006;1015;1016;2004l\x1b[0 q\x1b(B\x1b)B\x0f\x1b[0m\x1b[H\x1b[2J"
);

/// A screen.
pub(crate) struct Screen {
    terminal: Option<Terminal>,
    size: Size,
    past: Past,
    input: InputModes,
    /// The beginning of a character whose rest has not come yet.
    piece: Vec<u8>,
}

/// Lines that have left the screen, as they are painted.
#[derive(Default)]
struct Past {
    lines: VecDeque<String>,
    bytes: usize,
}

// === impl Screen ===

impl Screen {
    pub(crate) fn new(size: Size) -> Self {
        let size = bounded(size);
        // Made with the first output, which then has gone out already: what it takes would be in the way of a terminal's opening.
        Self { terminal: None, size, past: Past::default(), input: InputModes::default(), piece: Vec::new() }
    }

    /// The program has written this.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut joined = std::mem::take(&mut self.piece);
        let mut rest = bytes;
        if !joined.is_empty() {
            joined.extend_from_slice(bytes);
            rest = &joined;
        }
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.text(text);
                    rest = &[];
                }
                Err(why) => {
                    let (good, bad) = rest.split_at(why.valid_up_to());
                    self.text(std::str::from_utf8(good).unwrap_or_default());
                    let Some(wrong) = why.error_len() else {
                        self.piece = bad.to_vec();
                        break;
                    };
                    self.text("\u{fffd}");
                    rest = bad.get(wrong..).unwrap_or_default();
                }
            }
        }
    }

    /// It has another size now.
    pub(crate) fn resize(&mut self, size: Size) {
        self.size = bounded(size);
        let size = self.size;
        self.guard(|terminal, past| terminal.resize_with(size.columns.into(), size.rows.into(), past));
    }

    /// What a terminal of this size is to be sent to look like this one, whatever it shows: with the lines that have left the screen above
    /// it, or without.
    pub(crate) fn paint(&mut self, with_past: bool) -> Vec<u8> {
        let mut painting = String::from(RESET);
        if with_past && !self.past.lines.is_empty() {
            for line in &self.past.lines {
                painting.push_str(line);
            }
            // The last may go on in the first line of the screen, and ends here all the same.
            painting.push_str(if painting.ends_with('\n') { "\x1b[0m" } else { "\x1b[0m\r\n" });
            // Pushes them off the screen, whether or not they filled it.
            for _ in 1..self.size.rows {
                painting.push('\n');
            }
            painting.push_str("\x1b[H");
        }
        let dump = self.guard(|terminal, _| terminal.dump()).unwrap_or_default();
        plain(&dump, &mut painting);
        self.input.write(&mut painting);
        let mut painting = painting.into_bytes();
        painting.extend_from_slice(&self.piece);
        painting
    }

    fn text(&mut self, text: &str) {
        self.input.feed(text);
        self.guard(|terminal, past| terminal.feed_with(text.chars().filter(|char| char.width() != Some(0) || *char == '\0'), past));
    }

    /// Asks the emulator, and takes a new one where it panics.
    fn guard<T>(&mut self, ask: impl FnOnce(&mut Terminal, &mut Past) -> T) -> Option<T> {
        let mut terminal = self.terminal.take().or_else(|| fresh(self.size))?;
        let past = &mut self.past;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            let answer = ask(&mut terminal, past);
            (terminal, answer)
        }));
        match answer {
            Ok((terminal, answer)) => {
                self.terminal = Some(terminal);
                Some(answer)
            }
            // It is gone with what it was about, and a new one takes its place when it is asked next.
            Err(_) => None,
        }
    }
}

/// An empty one. It keeps nothing of what leaves it: [`Past`] does, in a tenth of the memory.
fn fresh(size: Size) -> Option<Terminal> {
    Terminal::new(size.columns.into(), size.rows.into()).ok()
}

/// Writes what the emulator says in words that every terminal knows: it abbreviates what is repeated, and has a word of its own for the
/// other screen. Leaves out blanks at the end of a line, so that whoever copies it gets the line that was written.
fn plain(dump: &str, to: &mut String) {
    let mut blank = true;
    let mut rest = dump;
    while let Some(char) = rest.chars().next() {
        let sequence = rest.strip_prefix("\x1b[").and_then(|sequence| Some((sequence, sequence.find(|char| ('@'..='~').contains(&char))?)));
        let Some((sequence, last)) = sequence else {
            if char == '\r' && blank {
                to.truncate(to.trim_end_matches(' ').len());
            }
            to.push(char);
            rest = rest.get(char.len_utf8()..).unwrap_or_default();
            continue;
        };
        let (parameters, after) = sequence.split_at(last);
        match (parameters, after.chars().next()) {
            (count, Some('b')) => {
                let repeated = to.chars().next_back().unwrap_or(' ');
                let count = count.parse().unwrap_or(1).min(usize::from(LARGEST.columns));
                to.extend(std::iter::repeat_n(repeated, count));
            }
            ("?1047", Some(switch)) => {
                to.push_str("\x1b[?1049");
                to.push(switch);
            }
            (look, last) => {
                to.push_str("\x1b[");
                to.push_str(look);
                to.extend(last);
                if last == Some('m') {
                    blank = matches!(look, "" | "0");
                }
            }
        }
        rest = after.get(1..).unwrap_or_default();
    }
}

fn bounded(size: Size) -> Size {
    let bound = |given: u16, unknown, largest| if given == 0 { unknown } else { given.min(largest) };
    Size { columns: bound(size.columns, UNKNOWN.columns, LARGEST.columns), rows: bound(size.rows, UNKNOWN.rows, LARGEST.rows) }
}

// === impl Past ===

impl Past {
    fn push(&mut self, line: &Line) {
        let mut text = String::new();
        let mut pen = avt::Cell::default().pen().to_owned();
        let cells = line.cells();
        let shown = cells.iter().rposition(|cell| cell.char() != ' ' || !cell.pen().is_default()).map_or(0, |last| last + 1);
        for cell in cells.iter().take(if line.is_wrapped() { cells.len() } else { shown }) {
            if *cell.pen() != pen {
                pen = *cell.pen();
                sgr(&pen, &mut text);
            }
            // The second half of a wide character has no width of its own.
            if cell.width() > 0 {
                text.push(cell.char());
            }
        }
        if !pen.is_default() {
            text.push_str("\x1b[0m");
        }
        if !line.is_wrapped() {
            text.push_str("\r\n");
        }
        self.bytes += text.len();
        self.lines.push_back(text);
        while self.lines.len() > SCROLLBACK_LINES || self.bytes > SCROLLBACK_BYTES {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |line| line.len());
        }
    }
}

impl Observer for &mut Past {
    type Output = ();

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        self.push(line);
    }

    fn after(&mut self, _: &mut Observation<'_>, operation: &Operation) {
        if matches!(operation, Operation::Function(Function::Ed(EdScope::SavedLines))) {
            **self = Past::default();
        }
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

/// The words that give what follows this look, from none.
fn sgr(pen: &avt::Pen, to: &mut String) {
    to.push_str("\x1b[0");
    let flags = [
        (pen.is_bold(), 1),
        (pen.is_faint(), 2),
        (pen.is_italic(), 3),
        (pen.is_underline(), 4),
        (pen.is_blink(), 5),
        (pen.is_inverse(), 7),
        (pen.is_strikethrough(), 9),
    ];
    for (_, code) in flags.iter().filter(|(on, _)| *on) {
        let _ = write!(to, ";{code}");
    }
    for (color, code) in [(pen.foreground(), 38), (pen.background(), 48)] {
        let _ = match color {
            Some(avt::Color::Indexed(index)) => write!(to, ";{code};5;{index}"),
            Some(avt::Color::RGB(rgb)) => write!(to, ";{code};2;{};{};{}", rgb.r, rgb.g, rgb.b),
            None => Ok(()),
        };
    }
    to.push('m');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size { columns: 20, rows: 4 };

    fn shown(screen: &Screen) -> Vec<String> {
        let terminal = screen.terminal.as_ref().unwrap();
        terminal.screen().visible_lines().map(|line| line.text().trim_end().to_owned()).collect()
    }

    /// Another terminal that shows something else and is then sent the painting.
    fn repainted(screen: &mut Screen) -> Screen {
        let mut other = Screen::new(screen.size);
        other.feed(b"\x1b[?1049h\x1b[31;2Hother\x1b[2;3r\x1b[?6h\x1b[?2004h\x1b(0");
        other.feed(&screen.paint(true));
        other
    }

    #[test]
    fn a_painting_shows_what_was_there() {
        let mut screen = Screen::new(SIZE);
        for line in 0..9 {
            screen.feed(format!("\x1b[3{line}mline {line}\x1b[0m\r\n").as_bytes());
        }
        screen.feed(b"$ vi\x1b[?2004h\x1b=\x1b[?1002;1006h");
        let main = shown(&screen);
        let other = repainted(&mut screen);
        assert_eq!(shown(&other), main);
        assert_eq!(other.past.lines.len(), 6, "{:?}", other.past.lines);
        assert_eq!(other.past.lines, screen.past.lines);
        assert_eq!(other.input, screen.input);
        assert_eq!(other.terminal.as_ref().unwrap().cursor(), screen.terminal.as_ref().unwrap().cursor());

        screen.feed(b"\x1b[?1049h\x1b[2;2Hfull\x1b[?25l\x1b[2;3r\x1b[?1h\x1b[3;5H");
        let mut other = repainted(&mut screen);
        assert_eq!(shown(&other), ["", " full", "", ""]);
        assert_eq!(other.terminal.as_ref().unwrap().cursor(), screen.terminal.as_ref().unwrap().cursor());
        assert!(other.terminal.as_ref().unwrap().cursor_key_app_mode());
        // Whoever leaves the program finds what was there before.
        other.feed(b"\x1b[?1049l");
        assert_eq!(shown(&other), main);
    }

    #[test]
    fn a_line_that_has_half_left_the_screen_is_painted() {
        let mut screen = Screen::new(SIZE);
        screen.feed(format!("{}b\r\n\r\n\r\n", "a".repeat(20)).as_bytes());
        assert_eq!(shown(&screen), ["b", "", "", ""]);
        assert_eq!(shown(&repainted(&mut screen)), ["b", "", "", ""]);
    }

    #[test]
    fn a_painting_has_only_words_that_every_terminal_knows_and_no_blanks_at_the_end() {
        let mut painting = String::new();
        plain("a \x1b[6b\r\n\x1b[41m  \x1b[0m \x1b[9b\r\n\x1b[7mb \x1b[5b\r\n\x1b[0m世\x1b[3b\x1b[?1047h\x1b[", &mut painting);
        assert_eq!(painting, "a\r\n\x1b[41m  \x1b[0m\r\n\x1b[7mb      \r\n\x1b[0m世世世世\x1b[?1049h\x1b[");
    }

    #[test]
    fn what_comes_in_pieces_is_whole() {
        let mut screen = Screen::new(SIZE);
        let mut other = None;
        for (index, byte) in "aé€😀\x1b[1;31mb\u{301}\x1b]0;title\x07".bytes().enumerate() {
            screen.feed(&[byte]);
            // A painting in the middle of a character or a sequence leaves the viewer in the middle of it too.
            let now = other.get_or_insert_with(|| repainted(&mut screen));
            if index % 3 == 0 {
                *now = repainted(&mut screen);
            } else if index > 0 {
                now.feed(&[byte]);
            }
        }
        assert_eq!(shown(&screen)[0], "aé€😀b");
        assert_eq!(shown(&other.unwrap())[0], "aé€😀b");
    }

    #[test]
    fn the_past_is_bounded_and_can_be_cleared() {
        let mut screen = Screen::new(Size { columns: 500, rows: 3 });
        for _ in 0..3000 {
            screen.feed(format!("{}\r\n", "\x1b[1mx\x1b[0my".repeat(200)).as_bytes());
        }
        assert!(screen.past.bytes <= SCROLLBACK_BYTES && screen.past.lines.len() <= SCROLLBACK_LINES);
        assert!(!screen.past.lines.is_empty());
        screen.feed(b"\x1b[H\x1b[2J\x1b[3J");
        assert_eq!(screen.past.bytes, 0);
    }

    #[test]
    fn megabytes_of_anything_do_no_harm() {
        // xorshift: what fails here fails again.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut screen = Screen::new(SIZE);
        let sequences: Vec<u8> = b"\x1b[]?;0123456789HJKLMPXm@ABCDfhlrsuSTcb78=>()\x9b\xe2\x82\xac\xf0\x9f\x98\x80 ab\r\n\t\x08".to_vec();
        for round in 0..600 {
            let bytes: Vec<u8> = match round % 3 {
                0 => (0..8192).map(|_| next() as u8).collect(),
                _ => (0..8192).map(|_| sequences[next() as usize % sequences.len()]).collect(),
            };
            screen.feed(&bytes);
            screen.resize(Size { columns: next() as u16 % 300, rows: next() as u16 % 90 });
            let painting = screen.paint(true);
            assert!(painting.len() < 4 * 1024 * 1024);
            assert!(screen.piece.len() < 4);
        }
        screen.resize(Size { columns: u16::MAX, rows: u16::MAX });
        screen.resize(Size { columns: 1, rows: 1 });
        screen.feed("ü€😀".as_bytes());
    }

    proptest! {
        #[test]
        fn a_painting_is_true(text in "([ -~]|\x1b\\[[0-9;?]{0,5}[A-Zhlmr]|[é世😀]|\r\n){0,60}") {
            let mut screen = Screen::new(SIZE);
            screen.feed(text.as_bytes());
            let other = repainted(&mut screen);
            prop_assert_eq!(shown(&other), shown(&screen));
        }
    }
}
