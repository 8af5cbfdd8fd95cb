//! Every key there is, with its type, default and meaning: read off the schema that the sections' types derive.
//!
//! The one table behind the check for unknown keys, the environment variables, the default file and the reference page.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Settings;

/// What stands at some place of the tree.
#[derive(Debug)]
pub(super) enum Node {
    /// Keys under fixed names.
    Section(Section),
    /// Sections under names that the configuration chooses.
    Named(Section),
    /// A list of sections. What stands in one has its number, from 0, on the way to it.
    Each(Section),
    /// A value.
    Leaf(Leaf),
}

/// Keys under fixed names, in the order in which they are declared.
#[derive(Debug)]
pub(super) struct Section {
    /// What it is about.
    pub(super) about: String,
    /// Its keys.
    pub(super) keys: Vec<(String, Node)>,
}

/// A value.
#[derive(Debug)]
pub(super) struct Leaf {
    /// What it means.
    pub(super) about: String,
    /// What may be written.
    pub(super) kind: Kind,
    /// What it is when nobody sets it; null where the text says what that means.
    pub(super) default: Value,
    /// Whether it must never be shown.
    pub(super) secret: bool,
}

/// What may be written for a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Duration,
    Size,
    Integer,
    Number,
    Bool,
    Choice(Vec<String>),
    List(Box<Kind>),
    /// Texts under names that the configuration chooses.
    Table,
}

/// The whole tree.
pub(super) fn root() -> &'static Section {
    static ROOT: LazyLock<Section> = LazyLock::new(|| {
        let generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
        section(generator.into_root_schema_for::<Settings>().as_value())
    });
    &ROOT
}

/// What stands at a place in the tree, names that the configuration chooses and numbers in lists included.
pub(super) fn at(names: &[String]) -> Option<&'static Node> {
    let mut section = root();
    let mut names = names.iter().peekable();
    loop {
        let node = section.get(names.next()?)?;
        if names.peek().is_none() {
            return Some(node);
        }
        match node {
            Node::Section(inner) => section = inner,
            Node::Named(inner) | Node::Each(inner) => {
                names.next();
                if names.peek().is_none() {
                    return Some(node);
                }
                section = inner;
            }
            // An entry of a table.
            Node::Leaf(_) => return Some(node),
        }
    }
}

// === impl Section ===

impl Section {
    /// What stands under a name.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.keys.iter().find(|(key, _)| key == name).map(|(_, node)| node)
    }

    /// The name nearest to one that is not there, if any is near enough to be what was meant.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        let near = |key: &str| strsim::damerau_levenshtein(key, &name.to_lowercase());
        let best = self.keys.iter().map(|(key, _)| key.as_str()).min_by_key(|key| near(key))?;
        (near(best) <= 1.max(best.len() / 3)).then_some(best)
    }
}

// === impl Kind ===

impl Kind {
    /// The type's name, for the reference.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Integer => "whole number".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Choice(values) => format!("one of `\"{}\"`", values.join("\"`, `\"")),
            Self::List(of) => match of.as_ref() {
                Self::Text => "list of texts".to_owned(),
                Self::Choice(values) => format!("list of `\"{}\"`", values.join("\"`, `\"")),
                of => format!("list of {}", of.name()),
            },
            Self::Table => "table of texts".to_owned(),
        }
    }

    /// How a value of this type is written.
    pub(super) fn example(&self) -> String {
        match self {
            Self::Text => "write text in quotes".to_owned(),
            Self::Duration => "write for example \"30s\", \"5m\", \"1h 30m\"".to_owned(),
            Self::Size => "write for example \"512MiB\", \"8GiB\"".to_owned(),
            Self::Integer => "write a whole number that is not negative, for example 10".to_owned(),
            Self::Number => "write a number, for example 1.5".to_owned(),
            Self::Bool => "write true or false".to_owned(),
            Self::Choice(values) => format!("write \"{}\"", values.join("\" or \"")),
            Self::List(of) => match of.as_ref() {
                Self::Choice(values) => format!("write for example [\"{}\"]", values.join("\", \"")),
                _ => "write a list, for example [\"one\", \"two\"]".to_owned(),
            },
            Self::Table => "write texts under names, for example { NAME = \"value\" }".to_owned(),
        }
    }
}

fn section(schema: &Value) -> Section {
    let keys = schema["properties"].as_object().into_iter().flatten();
    Section { about: about(schema), keys: keys.map(|(name, schema)| (name.clone(), node(schema))).collect() }
}

fn node(schema: &Value) -> Node {
    if schema["properties"].is_object() {
        return Node::Section(section(schema));
    }
    if schema["additionalProperties"]["properties"].is_object() {
        return Node::Named(Section { about: about(schema), ..section(&schema["additionalProperties"]) });
    }
    if schema["items"]["properties"].is_object() {
        return Node::Each(Section { about: about(schema), ..section(&schema["items"]) });
    }
    Node::Leaf(Leaf {
        about: about(schema),
        kind: kind(schema),
        default: schema["default"].clone(),
        secret: schema["writeOnly"] == Value::Bool(true),
    })
}

fn kind(schema: &Value) -> Kind {
    if let Some(variants) = schema["oneOf"].as_array() {
        return Kind::Choice(variants.iter().filter_map(|variant| variant["const"].as_str()).map(str::to_owned).collect());
    }
    if let Some(variants) = schema["enum"].as_array() {
        return Kind::Choice(variants.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    // An option is `["string", "null"]`.
    let name = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match (name, schema["format"].as_str()) {
        (Some("string"), Some("duration")) => Kind::Duration,
        (Some("string"), Some("size")) => Kind::Size,
        (Some("integer"), _) => Kind::Integer,
        (Some("number"), _) => Kind::Number,
        (Some("boolean"), _) => Kind::Bool,
        (Some("array"), _) => Kind::List(Box::new(kind(&schema["items"]))),
        (Some("object"), _) => Kind::Table,
        _ => Kind::Text,
    }
}

fn about(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(path: &[&str]) -> &'static Leaf {
        let names: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
        let Some(Node::Leaf(leaf)) = at(&names) else { panic!("{path:?} is no value") };
        leaf
    }

    #[test]
    fn the_types_are_told_apart() {
        assert_eq!(leaf(&["idle", "timeout"]).kind, Kind::Duration);
        assert_eq!(leaf(&["template", "big", "memory"]).kind, Kind::Size);
        assert_eq!(leaf(&["template", "big", "cpus"]).kind, Kind::Number);
        assert_eq!(leaf(&["template", "big", "env"]).kind, Kind::Table);
        assert_eq!(leaf(&["ssh", "listen"]).kind, Kind::List(Box::new(Kind::Text)));
        assert_eq!(leaf(&["ssh", "host_keys"]).kind, Kind::Text);
        assert_eq!(leaf(&["log", "format"]).kind, Kind::Choice(vec!["text".to_owned(), "json".to_owned()]));
        assert_eq!(leaf(&["template", "big", "service", "0", "command"]).kind, Kind::List(Box::new(Kind::Text)));
        assert_eq!(leaf(&["template", "big", "service", "0", "ready", "every"]).kind, Kind::Duration);
        assert!(leaf(&["auth", "webhook", "token"]).secret && !leaf(&["auth", "webhook", "token_file"]).secret);
    }

    #[test]
    fn every_key_says_what_it_means() {
        fn look(section: &Section, path: &str) {
            for (name, node) in &section.keys {
                let about = match node {
                    Node::Section(inner) | Node::Named(inner) | Node::Each(inner) => {
                        look(inner, &format!("{path}{name}."));
                        &inner.about
                    }
                    Node::Leaf(leaf) => &leaf.about,
                };
                assert!(!about.is_empty(), "{path}{name}");
            }
        }
        look(root(), "");
    }

    #[test]
    fn a_typo_finds_what_was_meant() {
        let Some(Node::Section(idle)) = root().get("idle") else { panic!("no section") };
        assert_eq!(idle.nearest("tiemout"), Some("timeout"));
        assert_eq!(idle.nearest("Keep_Busy"), Some("keep_busy"));
        assert_eq!(idle.nearest("colour"), None);
    }
}
