//! The settings as text: a default file, the reference page, and what is in effect.

use std::fmt::Write as _;

use serde_json::Value as Json;
use toml::Value;

use super::keys::{self, Leaf, Node, Section};
use super::source::variable;
use super::{NEEDS_RESTART, Settings, is_within};

/// Columns of a comment in the default file.
const WIDTH: usize = 100;

/// A complete configuration file that says what is so anyway.
pub fn default_file() -> String {
    let mut out = comment("innkeeper's configuration. Everything here is the default: what is taken out stays as it is.");
    sections(&mut out, "default", &Place::default(), keys::root(), &mut |out, _, place, leaves| {
        // A list that is empty says nothing: what could be in it is shown as one would write it.
        let listed = place.list.is_some();
        if !place.names.is_empty() {
            let _ = write!(out, "\n{}{}\n", if listed { "# " } else { "" }, place.header());
        }
        for (name, leaf) in leaves {
            out.push('\n');
            out.push_str(&comment(&leaf.about));
            match literal(&leaf.default) {
                Some(value) if listed => {
                    let _ = writeln!(out, "# {name} = {value}");
                }
                Some(value) => {
                    let _ = writeln!(out, "{name} = {value}");
                }
                None => {
                    let _ = writeln!(out, "# {name} =");
                }
            }
        }
    });
    out
}

/// The reference page, in Markdown.
pub fn reference() -> String {
    let mut out = INTRODUCTION.to_owned();
    sections(&mut out, "NAME", &Place::default(), keys::root(), &mut |out, about, place, leaves| {
        if place.names.is_empty() {
            out.push_str("\n## At the top\n");
        } else {
            let _ = write!(out, "\n## `{}`\n\n{about}\n", place.header());
        }
        for (name, leaf) in leaves {
            entry(out, place, name, leaf);
        }
    });
    out
}

/// The settings in effect as a configuration file; secrets are `***`.
pub fn effective(settings: &Settings) -> String {
    let mut value = Value::try_from(settings).unwrap_or_else(|_| Value::Table(toml::Table::new()));
    for (key, secret) in settings.secrets() {
        if secret.is_some() {
            let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
            let table = section.split('.').try_fold(&mut value, |value, name| value.get_mut(name)).and_then(Value::as_table_mut);
            if let Some(table) = table {
                table.insert(name.to_owned(), Value::String("***".to_owned()));
            }
        }
    }
    toml::to_string(&value).unwrap_or_default()
}

/// Where a section stands.
#[derive(Default)]
struct Place<'a> {
    /// The names on the way to it.
    names: Vec<&'a str>,
    /// How many of them are those of the list that it is in, if it is in one.
    list: Option<usize>,
}

impl Place<'_> {
    /// How a file begins it.
    fn header(&self) -> String {
        let name = self.names.join(".");
        if self.list == Some(self.names.len()) { format!("[[{name}]]") } else { format!("[{name}]") }
    }
}

/// Shows each section's own values, then those of the sections in it. What has a chosen name is shown under `chosen`.
fn sections<'a>(
    out: &mut String,
    chosen: &'a str,
    place: &Place<'a>,
    section: &'a Section,
    show: &mut impl FnMut(&mut String, &str, &Place<'_>, &[(&str, &Leaf)]),
) {
    let leaves: Vec<(&str, &Leaf)> = section
        .keys
        .iter()
        .filter_map(|(name, node)| match node {
            Node::Leaf(leaf) => Some((name.as_str(), leaf)),
            Node::Section(_) | Node::Named(_) | Node::Each(_) => None,
        })
        .collect();
    if !leaves.is_empty() {
        show(out, &section.about, place, &leaves);
    }
    for (name, node) in &section.keys {
        let (inner, below): (_, &[&str]) = match node {
            Node::Section(inner) | Node::Each(inner) => (inner, &[name]),
            Node::Named(inner) => (inner, &[name, chosen]),
            Node::Leaf(_) => continue,
        };
        let names = [place.names.as_slice(), below].concat();
        let list = if matches!(node, Node::Each(_)) { Some(names.len()) } else { place.list };
        sections(out, chosen, &Place { names, list }, inner, show);
    }
}

fn entry(out: &mut String, place: &Place<'_>, name: &str, leaf: &Leaf) {
    let key = [place.names.as_slice(), &[name]].concat();
    // Where the text says what the default is, there is no value that would.
    let default = match literal(&leaf.default) {
        Some(value) => format!(" · default `{value}`"),
        None if leaf.about.contains("Default: ") => String::new(),
        None => " · not set".to_owned(),
    };
    let secret = if leaf.secret { " · secret" } else { "" };
    let restart = NEEDS_RESTART.iter().any(|section| is_within(&key.join("."), section));
    let restart = if restart { " A change needs a restart." } else { "" };
    // A list is set as a whole: what is in it has no variables.
    let variable = if place.list.is_some() { String::new() } else { format!(" · `{}`", variable(&key)) };
    let _ = write!(out, "\n**`{name}`** · {}{default}{secret}{variable}\n\n{}{restart}\n", leaf.kind.name(), leaf.about);
}

/// A default as it is written in a file; `None` if there is no value that would say the same.
fn literal(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::Object(fields) => {
            let fields: Vec<String> = fields.iter().filter_map(|(name, value)| Some(format!("{name} = {}", literal(value)?))).collect();
            Some(if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) })
        }
        value => Value::try_from(value).ok().map(|value| value.to_string()),
    }
}

fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + word.len() >= WIDTH) {
            lines.push(String::from("#"));
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

const INTRODUCTION: &str = "\
# Configuration

This page is generated by `innkeeper config docs`; a test compares the two.

Settings are read from one TOML file: the one named with `--config`, or else `/etc/innkeeper/config.toml` if it is there. Without any
file the defaults below hold. An environment variable goes before the file: `INNKEEPER__`, then the names on the way to the key in upper
case with two underscores between them. Where text is wanted the variable's value is taken as it is; numbers, lists and tables are
written as in TOML: `INNKEEPER__SSH__LISTEN='[\"0.0.0.0:22\", \"[::]:22\"]'`.

- Durations are written `500ms`, `30s`, `1h 30m`; sizes `512MiB`, `8GiB`.
- A relative path in the file is relative to the file's directory; in a variable, to the working directory.
- A secret can be in a file of its own: `token_file` in place of `token`. Space around it is cut off. Readable by its owner only, mode 0600.
- An unknown key is an error. `innkeeper check` lists everything that is wrong, with line and key, and changes nothing; with `--online` it
  tries the engine, the login service and the state directory too. `innkeeper config show` prints what is in effect, secrets as `***`.
- SIGHUP reads the file again. A file with an error in it changes nothing. What only a restart applies says so below.
";
