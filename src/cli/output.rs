//! Writing to the person or program that called: colours only at a terminal, and never without saying it in words or signs too.
//!
//! A command ends with an [`Answer`], which has both what a person reads and what a program does; one place shows either.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{CommandError, Exit};

/// What a command has to say at its end.
#[derive(Debug)]
pub(super) struct Answer {
    what: What,
    remarks: Vec<String>,
    exit: Exit,
}

enum What {
    Nothing,
    /// How something is, and how it is put for people.
    Shown(Value, Text),
    /// What was done: for programs, and for people.
    Did(Map<String, Value>, String),
}

type Text = Box<dyn FnOnce(Value) -> anyhow::Result<String>>;

/// A sign at the head of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Good,
    Doubtful,
    Bad,
}

impl Sign {
    /// The sign as it is written, in colour if `coloured`.
    pub(super) fn paint(self, coloured: bool) -> String {
        let (sign, colour) = match self {
            Self::Good => ("✓", 32),
            Self::Doubtful => ("!", 33),
            Self::Bad => ("✗", 31),
        };
        if coloured { format!("\x1b[{colour}m{sign}\x1b[0m") } else { sign.to_owned() }
    }
}

/// Whether standard output takes colours: a terminal does, unless `NO_COLOR` is set (<https://no-color.org>).
pub(super) fn has_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

// === impl Answer ===

impl Answer {
    /// Nothing: all has been printed as it came.
    pub(super) fn nothing() -> Self {
        Self { what: What::Nothing, remarks: Vec::new(), exit: Exit::Ok }
    }

    /// How something is: programs get it as it is, and people a text of it.
    pub(super) fn shown(value: Value, text: impl FnOnce(Value) -> anyhow::Result<String> + 'static) -> Self {
        Self { what: What::Shown(value, Box::new(text)), ..Self::nothing() }
    }

    /// The same of a list, for people as a table.
    pub(super) fn list<T: DeserializeOwned>(list: Value, table: impl FnOnce(&[T]) -> String + 'static) -> Self {
        Self::shown(list, |list| Ok(table(&understood::<Vec<T>>(list)?)))
    }

    /// What was done. Programs get one object: `did`, which is the command's words; what it was done to; and what the gateway said of it.
    pub(super) fn did(words: impl Into<String>, to: Value, said: Value) -> Self {
        let mut object = Map::new();
        for part in [said, to] {
            if let Value::Object(part) = part {
                object.extend(part);
            }
        }
        Self { what: What::Did(object, words.into()), ..Self::nothing() }
    }

    /// With something beside it that a person should know: on standard error, or in the object.
    #[must_use]
    pub(super) fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remarks.push(remark.into());
        self
    }

    /// What the program's status is then, in place of success.
    #[must_use]
    pub(super) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Prints it, as the answer of the command that has these words.
    pub(super) fn print(mut self, json: bool, command: &str) -> Result<Exit, CommandError> {
        let remarks = std::mem::take(&mut self.remarks);
        let in_words = !json || !matches!(self.what, What::Did(..));
        let exit = self.exit;
        let text = self.render(json, command, if in_words { &[] } else { &remarks })?;
        print(text)?;
        if in_words {
            remarks.iter().for_each(complain);
        }
        Ok(exit)
    }

    /// What is printed of it to standard output.
    pub(super) fn render(self, json: bool, command: &str, remarks: &[String]) -> anyhow::Result<String> {
        Ok(match self.what {
            What::Nothing => String::new(),
            What::Shown(value, _) if json => format!("{value:#}\n"),
            What::Shown(value, text) => text(value)?,
            What::Did(mut object, _) if json => {
                object.insert("did".to_owned(), command.into());
                if !remarks.is_empty() {
                    object.insert("remarks".to_owned(), remarks.into());
                }
                format!("{:#}\n", Value::Object(object))
            }
            What::Did(_, words) => words,
        })
    }
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some of it may be shown once, to who asked.
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Shown(..) => "how something is",
            Self::Did(..) => "what was done",
        })
    }
}

/// What the gateway says, as this program understands it.
pub(super) fn understood<T: DeserializeOwned>(answer: Value) -> anyhow::Result<T> {
    serde_json::from_value(answer).context("the gateway's answer is not understood; is it of another version?")
}

/// Rows as lines, in columns as wide as what is in them.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Writes text to standard output.
pub(super) fn print(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// Writes what went wrong to standard error.
pub(super) fn complain(text: &(impl Display + ?Sized)) {
    for line in text.to_string().lines() {
        // Nobody left to tell, if this fails.
        let _ = writeln!(io::stderr(), "innkeeper: {line}");
    }
}

/// Writes what went wrong to standard error for a program: one object on a line.
pub(super) fn complain_in_json(why: &str, code: Option<&str>, exit: Exit) {
    let object = serde_json::json!({ "error": why, "code": code, "exit": exit as u8 });
    // Nobody left to tell, if this fails.
    let _ = writeln!(io::stderr(), "{object}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_done_is_words_or_one_object() {
        let done = || Answer::did("alice is stopped\n", json!({ "name": "alice" }), json!({ "name": "of the answer", "bytes": 3 }));
        assert_eq!(done().render(false, "workspace stop", &[]).unwrap(), "alice is stopped\n");
        let object: Value = serde_json::from_str(&done().render(true, "workspace stop", &["late".to_owned()]).unwrap()).unwrap();
        assert_eq!(object, json!({ "did": "workspace stop", "name": "alice", "bytes": 3, "remarks": ["late"] }));
        let nothing = Answer::did("", json!({}), Value::Null).render(true, "clean", &[]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&nothing).unwrap(), json!({ "did": "clean" }));
    }

    #[test]
    fn a_list_that_is_not_understood_is_still_given_to_programs() {
        let list = || Answer::list::<u8>(json!(["new"]), |_| unreachable!());
        assert_eq!(list().render(true, "x list", &[]).unwrap(), "[\n  \"new\"\n]\n");
        assert!(list().render(false, "x list", &[]).unwrap_err().to_string().contains("another version"));
    }
}
