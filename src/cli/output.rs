//! Writing to the person or program that called: colours only at a terminal, and never without saying it in words or signs too.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

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
pub(super) fn complain(text: &impl Display) {
    for line in text.to_string().lines() {
        // Nobody left to tell, if this fails.
        let _ = writeln!(io::stderr(), "innkeeper: {line}");
    }
}
