//! From a file and the environment to settings that can be used, or to the list of everything that is wrong with them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use secrecy::SecretString;
use serde_path_to_error::Segment;
use toml::Value;

use super::keys::{self, Node};
use super::problem::{Origin, Problem, Severity, Unusable};
use super::source::{self, Tree};
use super::{DEFAULT_FILE, Settings, default_template};

/// Where settings are read from; the same again on every reload.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file that must be there.
    named: Option<PathBuf>,
    /// The file that is read if none is named and it is there, now or by the next reload.
    usual: Option<PathBuf>,
    variables: BTreeMap<String, String>,
}

/// Settings that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings: paths are absolute, secrets are read.
    pub settings: Settings,
    /// What is wrong with them and can be lived with.
    pub warnings: Vec<Problem>,
    /// Where they were read from.
    pub sources: Sources,
}

/// What a reload found.
#[derive(Debug, Clone)]
pub struct Reload {
    /// The new settings.
    pub loaded: Loaded,
    /// The keys that changed.
    pub changed: Vec<String>,
    /// Those keys or sections among them that only a restart applies.
    pub needs_restart: Vec<&'static str>,
}

// === impl Loaded ===

impl Loaded {
    /// Reads the same sources again and says what changed. Changes nothing itself.
    pub fn reload(&self) -> Result<Reload, Unusable> {
        let loaded = self.sources.load()?;
        Ok(Reload {
            changed: Settings::diff(&self.settings, &loaded.settings),
            needs_restart: Settings::diff_needing_restart(&self.settings, &loaded.settings),
            loaded,
        })
    }
}

// === impl Sources ===

impl Sources {
    /// A file that must be there, if one is given, and variables of the environment.
    pub fn new(file: Option<PathBuf>, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = variables.into_iter().filter(|(name, _)| name.starts_with(source::PREFIX)).collect();
        Self { named: file, usual: None, variables }
    }

    /// The given file, or the one at [`DEFAULT_FILE`] if there is one, and this process's environment.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Self { usual: Some(PathBuf::from(DEFAULT_FILE)), ..Self::new(file, variables) }
    }

    /// The file that would be read now, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.named.as_deref().or_else(|| self.usual.as_deref().filter(|path| path.exists()))
    }

    /// Reads them. Everything that is wrong is found in one go.
    pub fn load(&self) -> Result<Loaded, Unusable> {
        let mut tree = self.read().map_err(|problem| Unusable { problems: vec![problem] })?;
        let mut problems = tree.overlay(&self.variables);
        problems.extend(tree.take_unknown());
        let mut settings = settings(&mut tree, &mut problems);
        settings.template.entry(default_template()).or_default();
        resolve_paths(&mut settings, |key| match tree.origin_of_key(key) {
            Origin::File { .. } => self.directory(),
            Origin::Variable(_) | Origin::Default => current_directory(),
        });

        let known: Vec<String> = problems.iter().map(|problem| problem.key.clone()).filter(|key| !key.is_empty()).collect();
        let mut found = settings.check();
        found.extend(self.exposed_secrets(&settings, &tree));
        found.extend(read_secrets(&mut settings));
        // A key with one problem needs no second: its value is not the one that was written.
        found.retain(|problem| !known.iter().any(|key| super::is_within(key, &problem.key)));
        problems.extend(found.into_iter().map(|problem| {
            let origin = tree.origin_of_key(&problem.key);
            problem.at(origin)
        }));
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));

        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(Unusable { problems });
        }
        Ok(Loaded { settings, warnings: problems, sources: self.clone() })
    }

    fn read(&self) -> Result<Tree, Problem> {
        let Some(path) = self.file() else { return Ok(Tree::default()) };
        let unreadable = |why: io::Error| {
            let origin = Origin::File { path: path.to_owned(), line: 0, column: 0 };
            Problem::error("", format!("cannot be read: {why}; name another file with --config")).at(origin)
        };
        Tree::parse(path, &std::fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Secrets that everybody can read in the file itself.
    fn exposed_secrets(&self, settings: &Settings, tree: &Tree) -> Option<Problem> {
        let exposed = self.file().filter(|path| std::fs::metadata(path).is_ok_and(|data| is_world_readable(&data)))?;
        let in_file = |key: &str| matches!(tree.origin_of_key(key), Origin::File { .. });
        let (key, _) = settings.secrets().into_iter().find(|(key, secret)| secret.is_some() && in_file(key))?;
        Some(Problem::warning(key, format!("everybody on this machine can read it; mend: chmod 600 {}", exposed.display())))
    }

    /// What relative paths in the file are relative to.
    fn directory(&self) -> PathBuf {
        let file = self.file().unwrap_or(Path::new(""));
        std::path::absolute(file).ok().and_then(|file| file.parent().map(Path::to_owned)).unwrap_or_else(current_directory)
    }
}

/// Names of variables only: a value may be a secret.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file()).field("variables", &self.variables.keys()).finish()
    }
}

/// The tree as settings. A value that does not fit is reported, taken out, and the rest tried again.
fn settings(tree: &mut Tree, problems: &mut Vec<Problem>) -> Settings {
    loop {
        let error = match serde_path_to_error::deserialize(Value::Table(tree.table.clone())) {
            Ok(settings) => return settings,
            Err(error) => error,
        };
        let mut names: Vec<String> = Vec::new();
        for segment in error.path() {
            match segment {
                Segment::Map { key } => names.push(key.clone()),
                // A list of sections; another list is one value.
                Segment::Seq { index } if matches!(keys::at(&names), Some(Node::Each(_))) => names.push(index.to_string()),
                Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => break,
            }
        }
        let written = error.inner().message().trim();
        let message = match keys::at(&names) {
            // What was written may be the secret, if in the wrong place.
            Some(Node::Leaf(leaf)) if leaf.secret => leaf.kind.example(),
            Some(Node::Leaf(leaf)) if written.starts_with("invalid") => format!("{written}; {}", leaf.kind.example()),
            Some(Node::Section(_) | Node::Named(_)) if written.starts_with("invalid type") => {
                format!("is a section, not a value; write its keys below [{}]", header(&names))
            }
            Some(Node::Each(_)) if written.starts_with("invalid type") => {
                format!("is a list of sections; write the keys of each below a [[{}]] of its own", header(&names))
            }
            _ => written.to_owned(),
        };
        problems.push(Problem::error(names.join("."), message).at(tree.origin(&names)));
        if !source::remove(&mut tree.table, &names) {
            return Settings::default();
        }
    }
}

/// The names as a file has them between brackets, where lists have no numbers.
fn header(names: &[String]) -> String {
    let is_number = |at: usize| matches!(keys::at(&names[..at]), Some(Node::Each(_))) && names[at].parse::<usize>().is_ok();
    let names: Vec<&str> = (0..names.len()).filter(|at| !is_number(*at)).map(|at| names[at].as_str()).collect();
    names.join(".")
}

/// Makes every path absolute, and gives those that depend on others their values.
fn resolve_paths(settings: &mut Settings, base: impl Fn(&str) -> PathBuf) {
    let join = |(key, path): (&str, &mut PathBuf)| {
        if !path.as_os_str().is_empty() && path.is_relative() {
            *path = base(key).join(&*path);
        }
    };
    join(("state_dir", &mut settings.state_dir));
    settings.ssh.host_keys = Some(settings.host_keys());
    settings.auth.accounts.file = Some(settings.accounts_file());
    settings.home.root = Some(settings.homes());
    settings.paths_mut().into_iter().for_each(join);
}

/// Reads each secret that is in a file of its own.
fn read_secrets(settings: &mut Settings) -> Vec<Problem> {
    let (webhook, audit, backup) = (&mut settings.auth.webhook, &mut settings.audit.webhook, &mut settings.backup);
    let (s3, oidc, recording) = (&mut backup.s3, &mut settings.http.oidc, &mut settings.recording);
    let theirs = &mut recording.s3;
    let mut problems = Vec::new();
    for (key, secret, file_key, file) in [
        ("auth.webhook.token", &mut webhook.token, "auth.webhook.token_file", &webhook.token_file),
        ("audit.webhook.secret", &mut audit.secret, "audit.webhook.secret_file", &audit.secret_file),
        ("http.oidc.client_secret", &mut oidc.client_secret, "http.oidc.client_secret_file", &oidc.client_secret_file),
        ("backup.key", &mut backup.key, "backup.key_file", &backup.key_file),
        ("backup.s3.access_key", &mut s3.access_key, "backup.s3.access_key_file", &s3.access_key_file),
        ("backup.s3.secret_key", &mut s3.secret_key, "backup.s3.secret_key_file", &s3.secret_key_file),
        ("recording.key", &mut recording.key, "recording.key_file", &recording.key_file),
        ("recording.s3.access_key", &mut theirs.access_key, "recording.s3.access_key_file", &theirs.access_key_file),
        ("recording.s3.secret_key", &mut theirs.secret_key, "recording.s3.secret_key_file", &theirs.secret_key_file),
    ] {
        let Some(path) = file else { continue };
        if secret.is_some() {
            problems.push(Problem::error(file_key, format!("`{key}` is set as well; take one of the two out")));
            continue;
        }
        match read_secret(path) {
            Ok((read, world_readable)) => {
                *secret = Some(read);
                if world_readable {
                    let path = path.display();
                    problems.push(Problem::warning(file_key, format!("everybody on this machine can read it; mend: chmod 600 {path}")));
                }
            }
            Err(why) => problems.push(Problem::error(file_key, format!("{}: {why}", path.display()))),
        }
    }
    problems
}

/// A secret without the space around it, and whether everybody may read its file.
fn read_secret(path: &Path) -> Result<(SecretString, bool), String> {
    let text = std::fs::read_to_string(path).map_err(|why| format!("cannot be read: {why}"))?;
    let data = std::fs::metadata(path).map_err(|why| format!("cannot be read: {why}"))?;
    match text.trim() {
        "" => Err("is empty; put the secret into it".to_owned()),
        secret => Ok((secret.into(), is_world_readable(&data))),
    }
}

fn is_world_readable(data: &std::fs::Metadata) -> bool {
    data.permissions().mode() & 0o004 != 0
}

fn current_directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}
