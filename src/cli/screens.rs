//! Screens of sessions at this terminal: text and looks, never what a program in a container wrote.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::Path;

use reqwest::Method;
use serde_json::Value;
use unicode_width::UnicodeWidthChar;

use super::{CommandError, asking, block_on, output};
use crate::name::printable;

/// Clears a terminal and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the screens of an event stream until its end. Away from a terminal only the last one is shown, or with `json` each as an object a line.
pub(super) fn show(socket: &Path, path: &str, json: bool) -> Result<(), CommandError> {
    let at_terminal = io::stdout().is_terminal() && !json;
    let (mut last, mut printed, mut failed) = (None, Ok(()), None);
    if at_terminal {
        output::print(CLEAR)?;
    }
    block_on(asking::events(socket, (Method::GET, path, None), |name, data| {
        match name {
            "frame" if json => printed = output::print(format!("{data}\n")),
            "frame" if at_terminal => printed = output::print(paint(&data, size())),
            "frame" => last = Some(data),
            "error" => failed = Some(printable(data["detail"].as_str().unwrap_or("it failed"))),
            "end" if data["complete"] == false => output::complain(&"the recording is cut here"),
            _ => {}
        }
        printed.is_ok() && !matches!(name, "end" | "error")
    }))??;
    printed?;
    if let Some(frame) = last {
        output::print(lines(&frame).map(|line| plain(line) + "\n").collect::<String>())?;
    }
    failed.map_or(Ok(()), |why| Err(anyhow::anyhow!("{why}").into()))
}

/// How large this terminal is, in columns and rows.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
}

fn lines(frame: &Value) -> impl Iterator<Item = &str> {
    frame["lines"].as_array().into_iter().flatten().map(|line| line.as_str().unwrap_or_default())
}

/// Whatever the gateway says, nothing of it drives this terminal.
fn plain(line: &str) -> String {
    line.chars().filter(|char| shown(*char)).collect()
}

fn shown(char: char) -> bool {
    char.width().is_some_and(|width| width > 0)
}

/// What a terminal of this size is sent to show a screen. The cursor stays below it, where a prompt does no harm; where the session's is, it
/// is painted.
fn paint(frame: &Value, (columns, rows): (usize, usize)) -> String {
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX);
    let cursor = (frame["cursor"]["visible"] == true).then(|| (number(&frame["cursor"]["row"]), number(&frame["cursor"]["column"])));
    let mut looks = frame["looks"].as_array().into_iter().flatten().peekable();
    let mut text = String::from("\x1b[H");
    for (row, line) in lines(frame).enumerate().take(rows.saturating_sub(1)) {
        let (mut column, mut now) = (0, String::new());
        // A blank at the end is where the cursor may be.
        for char in line.chars().filter(|char| shown(*char)).chain(std::iter::once(' ')) {
            let width = char.width().unwrap_or(1);
            if column + width > columns {
                break;
            }
            while looks
                .next_if(|look| {
                    let at = (number(&look["row"]), number(&look["column"]).saturating_add(number(&look["length"])));
                    at.0 < row || at.0 == row && at.1 <= column
                })
                .is_some()
            {}
            let look = looks.peek().filter(|look| number(&look["row"]) == row && number(&look["column"]) <= column);
            let here = cursor == Some((row, column));
            let wanted = sgr(look.copied(), here);
            if wanted != now {
                let _ = write!(text, "\x1b[0{wanted}m");
                now = wanted;
            }
            text.push(char);
            column += width;
        }
        text.push_str("\x1b[0m\x1b[K\r\n");
    }
    text.push_str("\x1b[J");
    text
}

/// The words that give this look, from none.
fn sgr(look: Option<&Value>, cursor: bool) -> String {
    let mut words = String::new();
    let empty = Value::Null;
    let look = look.unwrap_or(&empty);
    let flags = [("bold", 1), ("faint", 2), ("italic", 3), ("underline", 4), ("strikethrough", 9)];
    for (_, code) in flags.iter().filter(|(name, _)| look[*name] == true) {
        let _ = write!(words, ";{code}");
    }
    if (look["inverse"] == true) != cursor {
        words.push_str(";7");
    }
    for (name, code) in [("foreground", 38), ("background", 48)] {
        let hex = |text: &str| u32::from_str_radix(text.strip_prefix('#')?, 16).ok();
        if let Some(index) = look[name].as_u64() {
            let _ = write!(words, ";{code};5;{}", index & 255);
        } else if let Some(rgb) = look[name].as_str().and_then(hex) {
            let _ = write!(words, ";{code};2;{};{};{}", rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_screen_is_painted_with_its_looks_and_nothing_of_it_drives_the_terminal() {
        let frame = json!({
            "lines": ["red 世x", "\u{1b}[2J\u{9b}2Jevil\u{202e}", "below"],
            "looks": [
                { "row": 0, "column": 0, "length": 3, "foreground": 1, "bold": true },
                { "row": 0, "column": 4, "length": 2, "background": "#0102ff" }
            ],
            "cursor": { "row": 0, "column": 6, "visible": true }
        });
        let painted = paint(&frame, (80, 3));
        let first = "\x1b[H\x1b[0;1;38;5;1mred\x1b[0m \x1b[0;48;2;1;2;255m世\x1b[0;7mx\x1b[0m \x1b[0m\x1b[K\r\n";
        assert_eq!(painted, format!("{first}[2J2Jevil \x1b[0m\x1b[K\r\n\x1b[J"));
        assert_eq!(paint(&json!({}), (80, 24)), "\x1b[H\x1b[J");
    }

    #[test]
    fn a_line_is_cut_where_the_terminal_ends() {
        let frame = json!({ "lines": ["ab世cd"], "looks": [] });
        assert_eq!(paint(&frame, (3, 24)), "\x1b[Hab\x1b[0m\x1b[K\r\n\x1b[J");
    }
}
