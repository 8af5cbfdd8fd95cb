//! `innkeeper account`: who may log in by the accounts file.
//!
//! Passwords are asked for, read from standard input or made up, and never taken as an argument, where every process on the host could
//! read them. A running gateway makes the change, and records it; where none
//! runs the file itself is changed.

mod book;

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rand::seq::IndexedRandom;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

pub(super) use self::book::Book;
use self::book::{Listed, ListedKey, New};
use super::output::{self, Answer};
use crate::auth::accounts::edit::EditError;
use crate::auth::accounts::{AuthorizedKey, HashError, KeyError, MAX_PASSWORD_BYTES};
use crate::name::{AccountName, NameError, TemplateName, TerminalName, WorkspaceName, printable};

/// Add, change, remove and list the accounts of the accounts file
#[derive(Debug, Args)]
pub(super) struct AccountArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add an account, or with --key alone, add keys to one that exists
    Add(AddArgs),
    /// Set the password of an account
    Passwd(PasswdArgs),
    /// Remove an account; its workspace and files stay
    Remove {
        /// The account's name
        #[arg(value_parser = account_name)]
        name: AccountName,
    },
    /// List the keys of an account, or have one open it no more
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// List the accounts
    List,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// List the keys that open an account
    List {
        /// The account's name
        #[arg(value_parser = account_name)]
        name: AccountName,
    },
    /// Have a key open an account no more; whoever is in by it stays in
    Remove {
        /// The account's name
        #[arg(value_parser = account_name)]
        name: AccountName,
        /// The key's fingerprint, as `account key list` and `ssh-keygen -l` show it
        #[arg(value_parser = fingerprint)]
        fingerprint: String,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The name to log in with
    #[arg(value_parser = account_name)]
    name: AccountName,
    /// File with public keys in authorized_keys form, or - for standard input; without a password option, none is then asked for
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    #[command(flatten)]
    source: PasswordSource,
    /// The workspace to land in, instead of one of the account's own
    #[arg(long)]
    workspace: Option<WorkspaceName>,
    /// The template of the workspace, instead of the default one
    #[arg(long)]
    template: Option<TemplateName>,
}

#[derive(Debug, Args)]
struct PasswdArgs {
    /// The account's name
    #[arg(value_parser = account_name)]
    name: AccountName,
    #[command(flatten)]
    source: PasswordSource,
}

/// Where the password comes from. Without either, it is asked for at the terminal.
#[derive(Debug, Args)]
struct PasswordSource {
    /// Read the password from the first line of standard input
    #[arg(long, conflicts_with = "generate")]
    password_stdin: bool,
    /// Make a password up and print it
    #[arg(long)]
    generate: bool,
}

/// Why an account command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccountError {
    /// The accounts file.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The hash could not be made.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A file of `--key` cannot be read.
    #[error("--key: cannot read {name}: {error}", name = .0.display(), error = .1)]
    KeyFile(PathBuf, io::Error),
    /// A line of it is not a usable key.
    #[error("--key: {name} line {line}: {error}", name = .0.display(), line = .1, error = .2)]
    Key(PathBuf, usize, KeyError),
    /// A file of `--key` without a key.
    #[error("--key: {name} holds no public key; give the file whose name ends in .pub", name = .0.display())]
    NoKey(PathBuf),
    /// Both want all of it.
    #[error("--key - and --password-stdin cannot both read standard input; give the key as a file")]
    StdinTwice,
    /// A name of which the end is taken for a terminal's.
    #[error("nobody could log in as {0}: what follows the last + is taken for the name of a terminal")]
    NamesTerminal(AccountName),
    /// Nobody to ask.
    #[error("no terminal to ask for a password at; pipe it in with --password-stdin, or use --generate, or give only keys with --key")]
    NoTerminal,
    /// Nothing was typed.
    #[error("the password is empty")]
    Empty,
    /// Too long to be a password.
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// Two different passwords were typed.
    #[error("the two passwords are not the same; nothing was changed")]
    Mismatch,
    /// There is no such account.
    #[error("there is no account {0} in {1}; see \"innkeeper account list\"")]
    Unknown(AccountName, String),
    /// There is one.
    #[error(
        "there is an account {0} in {1} already; \"innkeeper account passwd\" gives it another password, and --key alone adds keys to it"
    )]
    Exists(AccountName, String),
    /// The gateway, which has not changed it.
    #[error(transparent)]
    Gateway(anyhow::Error),
    /// The terminal or a pipe.
    #[error("cannot read or print: {0}")]
    Terminal(#[from] io::Error),
}

/// Does what the arguments say to these accounts.
pub(super) fn run(args: AccountArgs, book: Book<'_>) -> Result<Answer, AccountError> {
    match args.command {
        Command::Add(args) => add(args, book),
        Command::Passwd(args) => {
            // Found out before anybody has to think of a password.
            if !book.has(&args.name)? {
                return Err(AccountError::Unknown(args.name, book.place()));
            }
            let password = args.source.password(&args.name)?;
            book.set_password(&args.name, &password)?;
            let (words, shown) = args.source.tell(format!("changed the password of {}\n", args.name), &password);
            Ok(Answer::did(words, to(&args.name), json!({ "password": shown })))
        }
        Command::Remove { name } => {
            book.remove(&name)?;
            Ok(Answer::did(format!("removed {name}\n"), to(&name), Value::Null))
        }
        Command::Key { command: KeyCommand::List { name } } => {
            let known = book.list()?.into_iter().find(|one| one.name == name.as_str());
            let keys = known.ok_or_else(|| AccountError::Unknown(name, book.place()))?.keys;
            Ok(Answer::shown(serde_json::to_value(&keys).map_err(io::Error::from)?, move |_| Ok(key_table(&keys))))
        }
        Command::Key { command: KeyCommand::Remove { name, fingerprint } } => {
            book.remove_key(&name, &fingerprint)?;
            let words = format!("{fingerprint} opens {name} no more\n");
            Ok(Answer::did(words, to(&name), json!({ "fingerprint": fingerprint })))
        }
        Command::List => {
            let accounts = book.list()?;
            Ok(Answer::shown(serde_json::to_value(&accounts).map_err(io::Error::from)?, move |_| Ok(table(&accounts))))
        }
    }
}

fn add(args: AddArgs, book: Book<'_>) -> Result<Answer, AccountError> {
    if args.source.password_stdin && args.keys.iter().any(|path| is_stdin(path)) {
        return Err(AccountError::StdinTwice);
    }
    if TerminalName::split(args.name.as_str()).1.is_some() {
        return Err(AccountError::NamesTerminal(args.name));
    }
    let keys = all_keys(&args.keys)?;
    let exists = book.has(&args.name)?;
    let only_keys = !keys.is_empty() && !args.source.is_given();
    if exists && only_keys && args.workspace.is_none() && args.template.is_none() {
        let added = book.add_keys(&args.name, &keys)?;
        let words = format!("added {} to {}\n", counted(added, "key"), args.name);
        return Ok(Answer::did(words, to(&args.name), json!({ "made": false, "keys": added, "password": null })));
    }
    if exists {
        return Err(AccountError::Exists(args.name, book.place()));
    }
    let password = if only_keys { None } else { Some(args.source.password(&args.name)?) };
    let (means, count) = (means(password.is_some(), keys.len()), keys.len());
    book.add(&args.name, New { password: password.clone(), keys, workspace: args.workspace, template: args.template })?;
    let words = format!("added {} with {means} to {}\n", args.name, book.place());
    let (words, shown) = password.map_or((words.clone(), None), |password| args.source.tell(words, &password));
    Ok(Answer::did(words, to(&args.name), json!({ "made": true, "keys": count, "password": shown })))
}

/// Whose account something was done to.
fn to(name: &AccountName) -> Value {
    json!({ "name": name.as_str() })
}

// === impl PasswordSource ===

impl PasswordSource {
    fn is_given(&self) -> bool {
        self.password_stdin || self.generate
    }

    fn password(&self, name: &AccountName) -> Result<SecretString, AccountError> {
        if self.password_stdin {
            return password_from_stdin(false);
        }
        fit(if self.generate { generated() } else { asked(name)? })
    }

    /// These words and, of a password that was made up, that password: it is shown this once.
    fn tell(&self, words: String, password: &SecretString) -> (String, Option<String>) {
        if !self.generate {
            return (words, None);
        }
        let password = password.expose_secret().to_owned();
        (format!("{words}password: {password}\n"), Some(password))
    }
}

fn asked(name: &AccountName) -> Result<SecretString, AccountError> {
    if !io::stdin().is_terminal() {
        return Err(AccountError::NoTerminal);
    }
    let first = SecretString::from(rpassword::prompt_password(format!("Password for {name}: "))?);
    let second = SecretString::from(rpassword::prompt_password("The same once more: ")?);
    if first.expose_secret() == second.expose_secret() { Ok(first) } else { Err(AccountError::Mismatch) }
}

/// Without the end of the line, which `echo` adds and nobody means.
fn first_line(input: impl BufRead) -> Result<SecretString, AccountError> {
    let mut line = String::new();
    input.take(MAX_PASSWORD_BYTES as u64 + 3).read_line(&mut line)?;
    Ok(SecretString::from(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn generated() -> SecretString {
    let mut rng = rand::rng();
    let characters = (0..GENERATED_CHARS).filter_map(|_| READABLE.choose(&mut rng)).map(|byte| char::from(*byte));
    SecretString::from(characters.collect::<String>())
}

/// The password in the first line of standard input, from which keys cannot be read as well.
pub(super) fn password_from_stdin(keys_too: bool) -> Result<SecretString, AccountError> {
    if keys_too {
        return Err(AccountError::StdinTwice);
    }
    fit(first_line(io::stdin().lock())?)
}

/// A password, if it can be one.
fn fit(password: SecretString) -> Result<SecretString, AccountError> {
    match password.expose_secret().len() {
        0 => Err(AccountError::Empty),
        length if length > MAX_PASSWORD_BYTES => Err(AccountError::TooLong),
        _ => Ok(password),
    }
}

/// The public keys in these files.
pub(super) fn all_keys(paths: &[PathBuf]) -> Result<Vec<AuthorizedKey>, AccountError> {
    let mut keys = Vec::new();
    for path in paths {
        keys.extend(read_keys(path)?);
    }
    Ok(keys)
}

fn read_keys(path: &Path) -> Result<Vec<AuthorizedKey>, AccountError> {
    let unreadable = |error| AccountError::KeyFile(path.to_owned(), error);
    let text = if is_stdin(path) {
        let mut text = String::new();
        io::stdin().lock().take(MAX_KEY_FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        text
    } else {
        std::fs::read_to_string(path).map_err(unreadable)?
    };
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            keys.push(line.parse().map_err(|error| AccountError::Key(path.to_owned(), number + 1, error))?);
        }
    }
    if keys.is_empty() { Err(AccountError::NoKey(path.to_owned())) } else { Ok(keys) }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn account_name(text: &str) -> Result<AccountName, NameError> {
    AccountName::parse(text)
}

fn fingerprint(text: &str) -> Result<String, &'static str> {
    let digest = text.strip_prefix("SHA256:").filter(|digest| digest.len() == 43);
    let is_one = digest.is_some_and(|digest| digest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte)));
    if is_one { Ok(text.to_owned()) } else { Err("a key is named by its fingerprint, SHA256: and 43 characters") }
}

fn means(password: bool, keys: usize) -> String {
    match (password, keys) {
        (true, 0) => "a password".to_owned(),
        (true, keys) => format!("a password and {}", counted(keys, "key")),
        (false, keys) => counted(keys, "key"),
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn table(accounts: &[Listed]) -> String {
    let mut rows = vec![["NAME", "PASSWORD", "KEYS", "WORKSPACE", "TEMPLATE"].map(str::to_owned)];
    rows.extend(accounts.iter().map(|account| {
        [
            printable(&account.name),
            if account.password { "yes" } else { "no" }.to_owned(),
            account.keys.len().to_string(),
            printable(&account.workspace),
            account.template.as_deref().map_or_else(|| "-".to_owned(), printable),
        ]
    }));
    output::table(&rows)
}

fn key_table(keys: &[ListedKey]) -> String {
    let mut rows = vec![["FINGERPRINT", "ALGORITHM", "COMMENT"].map(str::to_owned)];
    rows.extend(keys.iter().map(|key| [&key.fingerprint, &key.algorithm, &key.comment].map(|text| printable(text))));
    output::table(&rows)
}

/// Characters that are not mistaken for one another when read aloud or typed from paper.
const READABLE: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Five bits each: 100 bits, beyond guessing.
const GENERATED_CHARS: usize = 20;
/// Keys piped in: thousands of them.
const MAX_KEY_FILE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::auth::accounts::edit;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: AccountArgs,
    }

    /// The output of a command line, or its error.
    fn check(file: &Path, line: &str) -> Result<String, String> {
        let (line, json) = line.strip_suffix(" --json").map_or((line, false), |line| (line, true));
        let args = Line::try_parse_from(["account"].into_iter().chain(line.split(' '))).map_err(|error| error.to_string())?.args;
        let answer = run(args, Book::File(file)).map_err(|error| error.to_string())?;
        Ok(answer.render(json, line, &[]).unwrap())
    }

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQY6rRKAiY5aonMzQIdAa99zhzUUdiAMXCYxKCmUP9z laptop";

    #[test]
    fn an_account_from_its_beginning_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (file, key) = (dir.path().join("accounts.toml"), dir.path().join("id.pub"));
        std::fs::write(&key, format!("# mine\n\n{KEY}\n")).unwrap();
        let added = check(&file, "add alice --generate --workspace acme").unwrap();
        assert!(added.starts_with(&format!("added alice with a password to {}\npassword: ", file.display())), "{added}");
        let password = added.trim_end().rsplit_once(' ').unwrap().1;
        assert!(edit::list(&file).unwrap().values().next().unwrap().password.as_ref().unwrap().verify(password.as_bytes()));
        assert_eq!(check(&file, &format!("add alice --key {}", key.display())).unwrap(), "added 1 key to alice\n");
        assert_eq!(check(&file, &format!("add Bob --key {}", key.display())).unwrap().split(" to ").next(), Some("added Bob with 1 key"));
        let table = check(&file, "list").unwrap();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[2], ["alice", "yes", "1", "acme", "-"]);
        assert_eq!(rows[1][..3], ["Bob", "no", "1"]);
        let json: serde_json::Value = serde_json::from_str(&check(&file, "list --json").unwrap()).unwrap();
        assert_eq!(json[1]["keys"][0]["comment"], "laptop");
        let keys = check(&file, "key list alice").unwrap();
        let fingerprint = KEY.parse::<AuthorizedKey>().unwrap().fingerprint();
        assert_eq!(keys.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(), [&fingerprint, "ssh-ed25519", "laptop"]);
        assert_eq!(check(&file, &format!("key remove alice {fingerprint}")).unwrap(), format!("{fingerprint} opens alice no more\n"));
        assert_eq!(check(&file, "key list alice --json").unwrap(), "[]\n");
        assert!(check(&file, &format!("key remove alice {fingerprint}")).unwrap_err().contains("has no key"));
        assert!(check(&file, "key list nobody").unwrap_err().contains("no account nobody"));
        assert!(check(&file, "key remove alice laptop").unwrap_err().contains("SHA256:"));
        assert!(check(&file, "passwd alice --generate").unwrap().contains("changed the password of alice\npassword: "));
        assert_eq!(check(&file, "remove alice").unwrap(), "removed alice\n");
        assert!(check(&file, "remove alice").unwrap_err().contains("no account alice"));
    }

    #[test]
    fn what_is_wrong_says_how_to_mend_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("accounts.toml"), dir.path().join("other"));
        check(&file, "add alice --generate").unwrap();
        for (content, line, expect) in [
            ("", "add alice --generate", "account passwd"),
            ("", "passwd bob --generate", "no account bob"),
            ("", "add bob --key /nonexistent", "cannot read /nonexistent"),
            ("", "add bob --key OTHER", "holds no public key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "add bob --key OTHER", "line 1: this is a private key"),
            ("", "add bob --key - --password-stdin", "standard input"),
            ("", "add bob --generate --password-stdin", "cannot be used with"),
            ("", "add bob --generate --workspace A/B", "workspace name"),
            ("", "add bob+work --generate", "the name of a terminal"),
            ("", "add bob --password hunter2", "unexpected argument"),
        ] {
            std::fs::write(&other, content).unwrap();
            let problem = check(&file, &line.replace("OTHER", &other.display().to_string())).unwrap_err();
            assert!(problem.contains(expect), "{line}: {problem}");
        }
        assert_eq!(edit::list(&file).unwrap().len(), 1);
    }

    #[test]
    fn a_piped_password_is_its_first_line() {
        let line = |input: &str| first_line(input.as_bytes()).unwrap().expose_secret().to_owned();
        assert_eq!(line("two words \r\nmore"), "two words ");
        assert_eq!(line("x"), "x");
        assert!(line(&"x".repeat(5000)).len() > MAX_PASSWORD_BYTES, "too long is noticed, not cut");
    }
}
