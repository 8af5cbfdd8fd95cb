//! Lines of asciinema's format, version 2: a header, and then an event each. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::name::{TemplateName, WorkspaceName};

/// What is known of a recording from its beginning on. Stands before it in its file, readable without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) workspace: WorkspaceName,
    /// As it was typed at login: a stranger's text.
    pub(super) account: String,
    pub(super) template: TemplateName,
    /// Its number among the sessions of its gateway, and the connection as the log has it.
    pub(super) session: u64,
    pub(super) columns: u16,
    pub(super) rows: u16,
    /// What its key is made with; `None`: it is not encrypted.
    pub(super) salt: Option<String>,
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    /// The terminal was sent this.
    Output(String),
    /// It has another size, in columns and rows.
    Resized(u16, u16),
    /// A word of ours.
    Mark(String),
    /// Something else, which is not ours.
    Other,
}

/// The header's line.
pub(super) fn header(meta: &Meta, began: SystemTime) -> String {
    let seconds = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let title = format!("{} in {}", crate::name::printable(&meta.account), meta.workspace);
    let header = json!({ "version": 2, "width": meta.columns, "height": meta.rows, "timestamp": seconds, "title": title });
    header.to_string() + "\n"
}

/// An event's line, so many seconds after the beginning.
pub(super) fn event(seconds: f64, what: &What) -> String {
    let (code, data) = match what {
        What::Output(text) => ("o", text.as_str().into()),
        What::Resized(columns, rows) => ("r", Value::from(format!("{columns}x{rows}"))),
        What::Mark(words) => ("m", words.as_str().into()),
        What::Other => return String::new(),
    };
    format!("[{seconds:.6}, \"{code}\", {data}]\n")
}

/// An event of its line.
pub(super) fn parse(line: &str) -> Option<(f64, What)> {
    let (seconds, code, data): (f64, String, String) = serde_json::from_str(line).ok()?;
    let what = match code.as_str() {
        "o" => What::Output(data),
        "r" => {
            let (columns, rows) = data.split_once('x')?;
            What::Resized(columns.parse().ok()?, rows.parse().ok()?)
        }
        "m" => What::Mark(data),
        _ => What::Other,
    };
    seconds.is_finite().then_some((seconds, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_were_written() {
        let all = [What::Output("a\"\\\x1b[2J\r\n\u{0}é\u{7f}".into()), What::Resized(80, 24), What::Mark("ended".into())];
        for what in all {
            let line = event(1.25, &what);
            assert!(line.ends_with("]\n") && line.matches('\n').count() == 1 && !line.contains('\x1b'), "{line}");
            assert_eq!(parse(line.trim_end()), Some((1.25, what)));
        }
        assert_eq!(parse("[0.5, \"i\", \"x\"]"), Some((0.5, What::Other)));
        for wrong in ["", "{}", "[1]", "[1, \"r\", \"80\"]", "[null, \"o\", \"\"]"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_header_is_that_of_version_2_and_a_name_in_it_is_harmless() {
        let meta = Meta {
            workspace: "alice".parse().unwrap(),
            account: "al\x1b]0;x\x07".to_owned(),
            template: TemplateName::default(),
            session: 7,
            columns: 80,
            rows: 24,
            salt: None,
        };
        let header: Value = serde_json::from_str(&header(&meta, UNIX_EPOCH + std::time::Duration::from_secs(5))).unwrap();
        assert_eq!(
            (&header["version"], &header["width"], &header["height"], &header["timestamp"]),
            (&json!(2), &json!(80), &json!(24), &json!(5))
        );
        assert_eq!(header["title"], "al\\u{1b}]0;x\\u{7} in alice");
    }
}
