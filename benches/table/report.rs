//! What was measured, as a table for people and as JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::samples::Samples;

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured, and beside what.
    pub what: String,
    /// The figure, in `unit`.
    pub value: f64,
    /// What `value`, `beside` and `to_reach` count.
    pub unit: &'static str,
    /// The same of OpenSSH's sshd or of plain docker, measured in the same run.
    pub beside: Option<f64>,
    /// `value` over `beside`.
    pub ratio: Option<f64>,
    /// The largest `value` that is good enough (the smallest, for a throughput). Nothing where none was promised.
    pub to_reach: Option<f64>,
    /// Whether less than `to_reach` is too little, as of a throughput, and not more of it too much.
    #[serde(skip)]
    pub more_is_better: bool,
    /// Whether it was reached.
    pub holds: Option<bool>,
    /// How often and how widely, for the table's reader.
    #[serde(skip)]
    pub note: String,
}

impl Row {
    /// A figure without anything beside it.
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let what = what.into();
        Self { what, value, unit, beside: None, ratio: None, to_reach: None, more_is_better: false, holds: None, note: String::new() }
    }

    /// Medians of what was measured in turns.
    pub fn of(what: impl Into<String>, ours: &Samples, theirs: &Samples, unit: &'static str) -> Self {
        Self::new(what, ours.median(), unit).beside(theirs.median()).note(ours.spread_beside(theirs))
    }

    /// With what it is held against.
    pub fn beside(mut self, beside: f64) -> Self {
        self.beside = Some(beside);
        self.ratio = (beside > 0.0).then_some(self.value / beside);
        self
    }

    /// With the most it may be.
    pub fn at_most(mut self, bound: f64) -> Self {
        self.to_reach = Some(bound);
        self.holds = Some(self.value <= bound);
        self
    }

    /// With the least it may be.
    pub fn at_least(mut self, bound: f64) -> Self {
        self.to_reach = Some(bound);
        self.more_is_better = true;
        self.holds = Some(self.value >= bound);
        self
    }

    /// With a word on how it came about.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let head = ["what", "value", "beside", "ratio", "to reach", "holds", "how"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let figure = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{} {}", round(value), row.unit));
        [
            row.what.clone(),
            figure(Some(row.value)),
            figure(row.beside),
            row.ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
            row.to_reach
                .map_or("–".to_owned(), |bound| format!("{} {} {}", if row.more_is_better { "≥" } else { "≤" }, round(bound), row.unit)),
            row.holds.map_or("–", |holds| if holds { "yes" } else { "NO" }).to_owned(),
            row.note.clone(),
        ]
    });
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(cells).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell}{} ", " ".repeat(width - cell.chars().count()));
        }
        text.push_str("|\n");
        if number == 0 {
            text.extend(widths.iter().map(|width| format!("|{}", "-".repeat(width + 2))));
            text.push_str("|\n");
        }
    }
    text
}

/// Three digits that mean something.
pub fn round(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
