//! One tree from a TOML file and the environment, that remembers where each value comes from.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::keys::{self, Kind, Leaf, Node, Section};
use super::problem::{Origin, Problem};

/// What every variable that sets a key begins with.
pub(super) const PREFIX: &str = "INNKEEPER__";

/// Values as they were written, not yet of any type.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The values.
    pub(super) table: Table,
    origins: BTreeMap<Names, Origin>,
}

/// The names on the way to a value.
type Names = Vec<String>;

impl Tree {
    /// Reads a file's text.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Problem> {
        let broken = |error: toml::de::Error| {
            let origin = place(path, text, error.span().map_or(0, |span| span.start));
            Problem::error("", format!("not TOML: {}", error.message().trim())).at(origin)
        };
        let spans = DeTable::parse(text).map_err(broken)?;
        let mut origins = BTreeMap::new();
        locate(spans.get_ref(), &mut Vec::new(), &mut |names, at| {
            origins.insert(names.to_vec(), place(path, text, at));
        });
        Ok(Self { table: text.parse().map_err(broken)?, origins })
    }

    /// Where a value, or the nearest section around it, was set.
    pub(super) fn origin(&self, names: &[String]) -> Origin {
        let around = (1..=names.len()).rev().find_map(|length| self.origins.get(&names[..length]));
        around.cloned().unwrap_or(Origin::Default)
    }

    /// Where a key was set, given as `section.key`.
    pub(super) fn origin_of_key(&self, key: &str) -> Origin {
        self.origin(&key.split('.').map(str::to_owned).collect::<Vec<_>>())
    }

    /// Lays the environment's values over the file's.
    pub(super) fn overlay(&mut self, variables: &BTreeMap<String, String>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, raw) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            match resolve(rest) {
                Ok((names, leaf)) => {
                    insert(&mut self.table, &names, value(raw, leaf));
                    self.origins.retain(|known, _| !known.starts_with(&names));
                    self.origins.insert(names, Origin::Variable(name.clone()));
                }
                Err(why) => problems.push(Problem::error("", why).at(Origin::Variable(name.clone()))),
            }
        }
        problems
    }

    /// Takes out and reports every key that there is not.
    pub(super) fn take_unknown(&mut self) -> Vec<Problem> {
        let mut unknown = Vec::new();
        find_unknown(&self.table, keys::root(), &mut Vec::new(), &mut unknown);
        let report = |(names, nearest): (Names, Option<&str>)| {
            let name = names.last().map_or("", String::as_str);
            let guess = nearest.map_or_else(
                || "`innkeeper config default` lists all there are".to_owned(),
                |nearest| format!("did you mean `{nearest}`?"),
            );
            let problem = Problem::error(names.join("."), format!("unknown key `{name}`, {guess}")).at(self.origin(&names));
            remove(&mut self.table, &names);
            problem
        };
        unknown.into_iter().map(report).collect()
    }
}

/// Takes a value out. Says whether it was there.
pub(super) fn remove(table: &mut Table, names: &[String]) -> bool {
    match names {
        [] => false,
        [name] => table.remove(name).is_some(),
        [name, rest @ ..] => match (table.get_mut(name), rest) {
            (Some(Value::Table(inner)), _) => remove(inner, rest),
            // Without one of its entries, the others of a list would have other numbers than in the file: all of it goes.
            (Some(Value::Array(_)), [_]) => table.remove(name).is_some(),
            (Some(Value::Array(list)), [number, rest @ ..]) => entry(list, number).is_some_and(|inner| remove(inner, rest)),
            _ => false,
        },
    }
}

/// The section of this number in a list.
fn entry<'a>(list: &'a mut [Value], number: &str) -> Option<&'a mut Table> {
    list.get_mut(number.parse::<usize>().ok()?)?.as_table_mut()
}

fn insert(table: &mut Table, names: &[String], value: Value) {
    match names {
        [] => {}
        [name] => {
            table.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            // What is no table is reported as that, later.
            if let Value::Table(inner) = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new())) {
                insert(inner, rest, value);
            }
        }
    }
}

/// The names that a variable means, given what follows the prefix: `IDLE__TIMEOUT`.
fn resolve(rest: &str) -> Result<(Names, Option<&'static Leaf>), String> {
    let mut names = Vec::new();
    let mut segments = rest.split("__");
    let mut section: &Section = keys::root();
    while let Some(segment) = segments.next() {
        let name = segment.to_lowercase();
        let Some(node) = section.get(&name) else {
            let guess = section.nearest(&name).map_or_else(String::new, |nearest| {
                let right: Vec<&str> = names.iter().map(String::as_str).chain([nearest]).collect();
                format!(", did you mean {}?", variable(&right))
            });
            return Err(format!("unknown key `{name}`{guess}"));
        };
        names.push(name);
        match node {
            Node::Section(inner) => section = inner,
            Node::Named(inner) => {
                section = inner;
                let Some(chosen) = segments.next() else { break };
                names.push(chosen.to_lowercase());
            }
            Node::Each(_) => match segments.next() {
                None => break,
                Some(more) => return Err(format!("unknown key `{more}`: `{}` is a list, and set as a whole", names.join("."))),
            },
            Node::Leaf(leaf) => match (segments.next(), segments.next()) {
                (None, _) => return Ok((names, Some(leaf))),
                // Names of environment variables keep their case.
                (Some(entry), None) if leaf.kind == Kind::Table => {
                    names.push(entry.to_owned());
                    return Ok((names, None));
                }
                (Some(more), _) => return Err(format!("unknown key `{more}`: `{}` is a value, not a section", names.join("."))),
            },
        }
    }
    Ok((names, None))
}

/// The variable that sets a key.
pub(super) fn variable(names: &[&str]) -> String {
    format!("{PREFIX}{}", names.join("__").to_uppercase())
}

/// A variable's text as a value: TOML where it is TOML, text else; text in any case where text is wanted.
fn value(raw: &str, leaf: Option<&Leaf>) -> Value {
    let text = || Value::String(raw.to_owned());
    let wants_text = leaf.is_some_and(|leaf| !matches!(leaf.kind, Kind::Integer | Kind::Number | Kind::Bool | Kind::List(_) | Kind::Table));
    match format!("value = {raw}").parse::<Table>() {
        Ok(mut parsed) if parsed.len() == 1 => match parsed.remove("value") {
            Some(Value::String(quoted)) => Value::String(quoted),
            Some(other) if !wants_text => other,
            _ => text(),
        },
        _ => text(),
    }
}

/// Tells the position of every key.
fn locate(table: &DeTable<'_>, names: &mut Names, found: &mut impl FnMut(&[String], usize)) {
    for (key, value) in table {
        names.push(key.get_ref().to_string());
        found(names, Spanned::span(key).start);
        match value.get_ref() {
            DeValue::Table(inner) => locate(inner, names, found),
            DeValue::Array(list) => {
                for (number, value) in list.iter().enumerate() {
                    names.push(number.to_string());
                    if let DeValue::Table(inner) = value.get_ref() {
                        found(names, value.span().start);
                        locate(inner, names, found);
                    }
                    names.pop();
                }
            }
            _ => {}
        }
        names.pop();
    }
}

fn find_unknown(table: &Table, section: &'static Section, names: &mut Names, unknown: &mut Vec<(Names, Option<&'static str>)>) {
    for (name, value) in table {
        names.push(name.clone());
        match (section.get(name), value) {
            (None, _) => unknown.push((names.clone(), section.nearest(name))),
            (Some(Node::Section(inner)), Value::Table(table)) => find_unknown(table, inner, names, unknown),
            (Some(Node::Named(inner)), Value::Table(chosen)) => {
                for (name, value) in chosen {
                    names.push(name.clone());
                    if let Value::Table(table) = value {
                        find_unknown(table, inner, names, unknown);
                    }
                    names.pop();
                }
            }
            (Some(Node::Each(inner)), Value::Array(list)) => {
                for (number, value) in list.iter().enumerate() {
                    names.push(number.to_string());
                    if let Value::Table(table) = value {
                        find_unknown(table, inner, names, unknown);
                    }
                    names.pop();
                }
            }
            // A value of the wrong type is found when it is given one.
            (Some(Node::Leaf(_) | Node::Section(_) | Node::Named(_) | Node::Each(_)), _) => {}
        }
        names.pop();
    }
}

fn place(path: &Path, text: &str, at: usize) -> Origin {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Origin::File { path: path.to_owned(), line, column }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlaid(variables: &[(&str, &str)]) -> (Table, Vec<Problem>) {
        let mut tree = Tree::default();
        let problems = tree.overlay(&variables.iter().map(|(name, raw)| ((*name).to_owned(), (*raw).to_owned())).collect());
        (tree.table, problems)
    }

    #[track_caller]
    fn check(name: &str, raw: &str, toml: &str) {
        let (table, problems) = overlaid(&[(name, raw)]);
        assert_eq!(problems, []);
        assert_eq!(table, toml.parse::<Table>().unwrap());
    }

    #[test]
    fn variables_become_values_of_the_type_that_is_wanted() {
        check("INNKEEPER__IDLE__TIMEOUT", "5m", "idle.timeout = '5m'");
        check("INNKEEPER__IDLE__TIMEOUT", "\"5m\"", "idle.timeout = '5m'");
        check("INNKEEPER__INSTANCE", "2026", "instance = '2026'");
        check("INNKEEPER__POOL__SIZE", "7", "pool.size = 7");
        check("INNKEEPER__SSH__POST_QUANTUM_ONLY", "true", "ssh.post_quantum_only = true");
        check("INNKEEPER__SSH__LISTEN", "['[::]:22']", "ssh.listen = ['[::]:22']");
        check("INNKEEPER__HTTP__LISTEN", "", "http.listen = ''");
        check("INNKEEPER__TEMPLATE__BIG__CPUS", "4.5", "template.big.cpus = 4.5");
        check("INNKEEPER__TEMPLATE__BIG__ENV__PS1", "$ ", "template.big.env.PS1 = '$ '");
        check("INNKEEPER__TEMPLATE__BIG__ENV", "{ A = 'b' }", "template.big.env.A = 'b'");
        check("INNKEEPER__IDLE", "{ timeout = '5m' }", "idle.timeout = '5m'");
        check("INNKEEPER__POOL__SIZE", "7\nextra = 1", "pool.size = \"7\\nextra = 1\"");
    }

    #[test]
    fn an_unknown_variable_is_named_with_what_was_meant() {
        let (table, problems) = overlaid(&[("INNKEEPER__IDLE__TIEMOUT", "5m"), ("INNKEEPER__POOL__SIZE__X", "1"), ("INNKEEPER_OTHER", "")]);
        assert!(table.is_empty());
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "INNKEEPER__IDLE__TIEMOUT: unknown key `tiemout`, did you mean INNKEEPER__IDLE__TIMEOUT?",
                "INNKEEPER__POOL__SIZE__X: unknown key `X`: `pool.size` is a value, not a section",
            ]
        );
    }

    proptest! {
        #[test]
        fn no_variable_panics(name in "[A-Z_a-z]{0,40}", raw in ".{0,40}") {
            overlaid(&[(&format!("{PREFIX}{name}"), &raw)]);
        }
    }
}
