//! What is on a terminal's screen, as plain text and how it looks, for who is not to be sent what a program wrote.
//!
//! The emulator reads what programs in containers write, all of it hostile: its size is bounded, and a panic in it costs what was on the
//! screen and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use avt::Terminal;
use serde::Serialize;
use unicode_width::UnicodeWidthChar;

/// Largest screen that is kept, in columns and rows: 4 MiB with both of its buffers. What is larger is kept as if it were this large.
const LARGEST: (u16, u16) = (512, 256);

/// Most stretches of a screen that are told how they look, as many as a usual one has characters: what is beyond is told as plain.
const LOOKS: usize = 2000;

/// A screen.
pub(super) struct Screen {
    terminal: Option<Terminal>,
    size: (u16, u16),
}

/// What a screen looks like at some moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Frame {
    /// Seconds since the recording began.
    pub time: f64,
    /// Its width.
    pub columns: u16,
    /// Its height.
    pub rows: u16,
    /// Where the cursor is.
    pub cursor: Cursor,
    /// The text of each row, without blanks at its end. No control characters.
    pub lines: Vec<String>,
    /// What is not plain.
    pub looks: Vec<Look>,
}

/// Where the cursor is, counted from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cursor {
    /// The column.
    pub column: usize,
    /// The row.
    pub row: usize,
    /// Whether it is shown.
    pub visible: bool,
}

/// How part of a row looks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Look {
    /// The row.
    pub row: usize,
    /// The first column.
    pub column: usize,
    /// How many columns.
    pub length: usize,
    /// The colour of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreground: Option<Shade>,
    /// That behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<Shade>,
    /// Bold.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bold: bool,
    /// Faint.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub faint: bool,
    /// Italic.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub italic: bool,
    /// Underlined.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub underline: bool,
    /// Blinking.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub blink: bool,
    /// With its colours swapped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inverse: bool,
    /// Struck through.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strikethrough: bool,
}

/// A colour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Shade {
    /// One of the 256.
    Indexed(u8),
    /// `#rrggbb`.
    Mixed(String),
}

// === impl Screen ===

impl Screen {
    /// An empty one of so many columns and rows.
    pub(super) fn new(columns: u16, rows: u16) -> Self {
        let size = bounded(columns, rows);
        Self { terminal: fresh(size), size }
    }

    /// The program has written this.
    pub(super) fn feed(&mut self, text: &str) {
        // The emulator would give a character without a width a cell of its own, and so would whoever shows the line not.
        self.guard(|terminal| terminal.feed(text.chars().filter(|char| char.width() != Some(0) || *char == '\0')));
    }

    /// It has another size now.
    pub(super) fn resize(&mut self, columns: u16, rows: u16) {
        self.size = bounded(columns, rows);
        let (columns, rows) = self.size;
        self.guard(|terminal| terminal.resize(columns.into(), rows.into()));
    }

    /// What it looks like.
    pub(super) fn frame(&mut self, time: f64) -> Frame {
        let (columns, rows) = self.size;
        let seen = self.guard(|terminal| {
            let (mut lines, mut looks) = (Vec::new(), Vec::new());
            for (row, line) in terminal.screen().visible_lines().enumerate() {
                lines.push(read(row, line.cells(), &mut looks));
            }
            let cursor = terminal.cursor();
            // Behind the last column it waits for what is next.
            let column = cursor.col.min(usize::from(columns).saturating_sub(1));
            (lines, looks, Cursor { column, row: cursor.row, visible: cursor.visible })
        });
        let (lines, looks, cursor) = seen.unwrap_or_default();
        Frame { time, columns, rows, cursor, lines, looks }
    }

    /// Asks the emulator, and takes a new one where it panics.
    fn guard<T>(&mut self, ask: impl FnOnce(&mut Terminal) -> T) -> Option<T> {
        let mut terminal = self.terminal.take().or_else(|| fresh(self.size))?;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            let answer = ask(&mut terminal);
            (terminal, answer)
        }));
        let (terminal, answer) = answer.map_or_else(|_| (fresh(self.size), None), |(terminal, answer)| (Some(terminal), Some(answer)));
        self.terminal = terminal;
        answer
    }
}

/// The text of a row; what of it is not plain is added to `looks`.
fn read(row: usize, cells: &[avt::Cell], looks: &mut Vec<Look>) -> String {
    let mut text = String::new();
    let first = looks.len();
    let mut column = 0;
    for cell in cells {
        // The second half of a wide character has no width of its own.
        let width = usize::from(cell.width());
        if width == 0 {
            continue;
        }
        let char = cell.char();
        text.push(if char.is_control() { ' ' } else { char });
        if !cell.pen().is_default() && looks.len() < LOOKS {
            let look = Look { row, column, length: width, ..look(cell.pen()) };
            let last = looks.get_mut(first..).and_then(<[Look]>::last_mut);
            match last.filter(|last| last.column + last.length == column && Look { column, length: width, ..(*last).clone() } == look) {
                Some(last) => last.length += width,
                None => looks.push(look),
            }
        }
        column += width;
    }
    text.truncate(text.trim_end_matches(' ').len());
    text
}

fn look(pen: &avt::Pen) -> Look {
    let shade = |color: avt::Color| match color {
        avt::Color::Indexed(index) => Shade::Indexed(index),
        avt::Color::RGB(rgb) => Shade::Mixed(format!("#{:02x}{:02x}{:02x}", rgb.r, rgb.g, rgb.b)),
    };
    Look {
        foreground: pen.foreground().map(shade),
        background: pen.background().map(shade),
        bold: pen.is_bold(),
        faint: pen.is_faint(),
        italic: pen.is_italic(),
        underline: pen.is_underline(),
        blink: pen.is_blink(),
        inverse: pen.is_inverse(),
        strikethrough: pen.is_strikethrough(),
        ..Look::default()
    }
}

fn fresh((columns, rows): (u16, u16)) -> Option<Terminal> {
    Terminal::new(columns.into(), rows.into()).ok()
}

fn bounded(columns: u16, rows: u16) -> (u16, u16) {
    (columns.clamp(1, LARGEST.0), rows.clamp(1, LARGEST.1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_is_what_a_terminal_would_show() {
        let mut screen = Screen::new(20, 3);
        screen.feed("\x1b[31;1mred\x1b[0m plain\r\n\x1b[48;2;1;2;255m世\x1b[0mx\x1b[?25l");
        let frame = screen.frame(1.5);
        assert_eq!(frame.lines, ["red plain", "世x", ""]);
        let red = Look { length: 3, foreground: Some(Shade::Indexed(1)), bold: true, ..Look::default() };
        let wide = Look { row: 1, length: 2, background: Some(Shade::Mixed("#0102ff".to_owned())), ..Look::default() };
        assert_eq!(frame.looks, [red, wide]);
        assert_eq!(frame.cursor, Cursor { column: 3, row: 1, visible: false });
        let json = serde_json::to_value(&frame).unwrap();
        assert_eq!(json["looks"][0], serde_json::json!({ "row": 0, "column": 0, "length": 3, "foreground": 1, "bold": true }));
        screen.resize(40, 2);
        assert_eq!((screen.frame(0.0).columns, screen.frame(0.0).lines.len()), (40, 2));
    }

    proptest! {
        #[test]
        fn whatever_is_written_no_control_character_is_in_a_frame(bytes in prop::collection::vec(any::<u8>(), 0..2000), columns in 0u16..600) {
            let mut screen = Screen::new(columns, columns / 4);
            screen.feed(&String::from_utf8_lossy(&bytes));
            screen.feed("\u{202e}\u{9b}2J\x1b]0;\u{1b}[31m\x07\u{85}\u{feff}");
            let frame = screen.frame(0.0);
            prop_assert!(frame.lines.len() <= 256);
            prop_assert!(frame.lines.iter().flat_map(|line| line.chars()).all(|char| !char.is_control() && char.width() != Some(0)));
        }
    }
}
