//! The command line: one file a subcommand.
//!
//! What a command finds out goes to standard output, what went wrong to standard error. Knows how things are asked for and shown, and
//! leaves doing them to [`crate::app`]. Each ends with an [`output::Answer`], which one place prints: in words, or with `--json` as JSON.

mod account;
mod asking;
mod audit;
mod backup;
mod capacity;
mod check;
mod clean;
mod completions;
mod config;
mod engine;
mod exit;
mod healthcheck;
mod lease;
mod man;
mod online;
mod open;
mod output;
mod pool;
mod queue;
mod recording;
mod screens;
mod serve;
mod session;
mod template;
mod tenant;
mod token;
mod top;
mod workspace;

use std::ffi::OsString;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use exit::Exit;
use output::Answer;

use crate::config::Sources;

/// An SSH gateway that gives everyone who logs in a container of their own.
#[derive(Debug, Parser)]
#[command(name = "innkeeper", version, arg_required_else_help = true, subcommand_required = true, after_help = AFTER_HELP)]
struct Cli {
    /// Configuration file [default: /etc/innkeeper/config.toml, if it is there]
    #[arg(long, short, global = true, value_name = "FILE", env = "INNKEEPER_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, in the foreground, until SIGTERM; SIGHUP reads the configuration again
    Serve,
    /// Add, change, remove and list accounts of the accounts file
    Account(account::AccountArgs),
    /// Make an account and the workspace that it lands in, as a site does when somebody signs up
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// List the workspaces of the running gateway, see how they do, and set what is theirs alone
    Workspace(workspace::WorkspaceArgs),
    /// Print a link to a port of a workspace, or list the links to it
    Open(open::OpenArgs),
    /// Take back every link to a workspace; cookies that they became end as well
    Unlink(open::UnlinkArgs),
    /// Show the audit trail, and say whether it is as it was written
    Audit(audit::AuditArgs),
    /// List, make, verify and restore backups of workspaces
    Backup(backup::BackupArgs),
    /// List the sessions, watch one or what happens, end one
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// List, play, export and remove recordings of terminals
    #[command(subcommand)]
    Recording(recording::RecordingCommand),
    /// Show, resize, pause and drain the containers that stand ready
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Show how many places there are, and who waits for one
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// List what keeps workspaces running
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Show what runs the containers
    #[command(subcommand)]
    Engine(engine::EngineCommand),
    /// Make, list and revoke tokens of the API
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List the templates that workspaces are made from
    #[command(subcommand)]
    Template(template::TemplateCommand),
    /// Say how many more workspaces fit, what they meet first, and what one costs
    Capacity,
    /// Show who runs, who is in and who waits, again and again
    Top(top::TopArgs),
    /// Say what is wrong with the configuration; start nothing
    Check(check::CheckArgs),
    /// Print a default configuration, the reference page, or what is in effect; have the running gateway load it again
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Ask the gateway that runs with this configuration whether it is alive
    Healthcheck,
    /// Remove every container, network and mount of this instance; homes stay
    Clean,
    /// Do one thing to a repository of backups; started by the gateway
    #[command(name = crate::backup::WORKER, hide = true)]
    BackupWorker,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or that of a command: innkeeper man workspace delete
    Man {
        /// The command
        command: Vec<String>,
    },
}

const AFTER_HELP: &str = "\
Every key of the configuration is an environment variable as well: INNKEEPER__SECTION__KEY.
With --json a command prints one JSON value: how things are, or an object of what was done.
Exit status: 0 done, 1 failed, 64 wrong usage or unusable configuration, 70 a bug.";

/// Commands whose output is a text, a file or a program's own.
const WITHOUT_JSON: [&str; 8] =
    ["serve", "config default", "config docs", crate::backup::WORKER, "completions", "man", "recording export", "workspace logs"];

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// Nobody reads what it prints any more, or it cannot be written.
    #[error("output: {0}")]
    Output(#[from] io::Error),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] crate::config::Unusable),
    /// Something it needed did not work.
    #[error("{}", crate::app::with_causes(.0))]
    Failed(#[from] anyhow::Error),
}

/// Runs the command that the arguments, the program's name first, ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(exit) = completions::answered(&arguments) {
        return exit;
    }
    let asked = command().try_get_matches_from(arguments).and_then(|matches| Ok((words(&matches), Cli::from_arg_matches(&matches)?)));
    let ((words, json), cli) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            // Nobody left to tell, if this fails.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    let done = || told(run(cli, json).and_then(|answer| answer.print(json, &words)), json);
    panic::catch_unwind(AssertUnwindSafe(done)).unwrap_or(Exit::Internal)
}

/// All commands. Each whose answer is no text of its own takes `--json`.
fn command() -> clap::Command {
    with_json(Cli::command(), "")
}

fn with_json(command: clap::Command, words: &str) -> clap::Command {
    if command.has_subcommands() {
        return command.mut_subcommands(|one| {
            let words = format!("{words} {}", one.get_name());
            with_json(one, words.trim_start())
        });
    }
    if WITHOUT_JSON.contains(&words) {
        return command;
    }
    command.arg(clap::Arg::new(JSON).long(JSON).action(clap::ArgAction::SetTrue).help("Print JSON instead of a text"))
}

/// What the option is called.
const JSON: &str = "json";

/// The words of the command that is asked for, and whether it is to answer in JSON.
fn words(matches: &ArgMatches) -> (String, bool) {
    let (mut words, mut at) = (Vec::new(), matches);
    while let Some((name, inner)) = at.subcommand() {
        words.push(name);
        at = inner;
    }
    let json = at.try_get_one::<bool>(JSON).ok().flatten().copied().unwrap_or_default();
    (words.join(" "), json)
}

fn run(cli: Cli, json: bool) -> Result<Answer, CommandError> {
    let sources = || Sources::of_process(cli.config.clone());
    let socket = || Ok::<_, CommandError>(Sources::of_process(cli.config.clone()).load()?.settings.admin_socket());
    match cli.command {
        Command::Serve => serve::run(&sources()).map(|()| Answer::nothing()),
        Command::Account(args) => {
            let settings = sources().load()?.settings;
            let (file, socket) = (settings.accounts_file(), settings.admin_socket());
            account::run(args, account::Book::open(&file, &socket)).map_err(CommandError::from)
        }
        Command::Tenant(command) => tenant::run(command, &socket()?),
        Command::Open(args) => open::run(args, &socket()?),
        Command::Unlink(args) => open::unlink(&args, &socket()?),
        Command::Audit(args) => audit::run(args, &sources().load()?.settings.audit_trail(), json),
        Command::Backup(args) => backup::run(args, &socket()?),
        Command::Workspace(args) => workspace::run(args, &socket()?),
        Command::Session(command) => session::run(command, &socket()?, json),
        Command::Recording(command) => recording::run(command, &socket()?, json),
        Command::Pool(command) => pool::run(command, &socket()?),
        Command::Queue(command) => queue::run(&command, &socket()?),
        Command::Lease(command) => lease::run(&command, &socket()?),
        Command::Engine(command) => engine::run(&command, &socket()?),
        Command::Token(command) => token::run(command, &socket()?),
        Command::Template(command) => template::run(&command, &socket()?),
        Command::Capacity => capacity::run(&socket()?),
        Command::Top(args) => top::run(&args, &socket()?, json),
        Command::Check(args) => check::run(args, &sources()),
        Command::Config(command) => config::run(command, &sources()),
        Command::Healthcheck => healthcheck::run(&sources()),
        Command::Clean => clean::run(&sources()),
        Command::BackupWorker => Ok(Answer::nothing().exit(if crate::backup::worker_main() { Exit::Ok } else { Exit::Failed })),
        Command::Completions(args) => completions::run(&args),
        Command::Man { command: words } => man::run(&words, command()),
    }
}

/// Says what went wrong, and what the exit status is.
fn told(result: Result<Exit, CommandError>, json: bool) -> Exit {
    let error = match result {
        Ok(exit) => return exit,
        Err(error) => error,
    };
    let exit = match &error {
        // `innkeeper … | head` has what it wanted.
        CommandError::Output(why) if why.kind() == io::ErrorKind::BrokenPipe => return Exit::Ok,
        CommandError::Config(_) => Exit::Usage,
        CommandError::Output(_) | CommandError::Failed(_) => Exit::Failed,
    };
    if json {
        output::complain_in_json(&error.to_string(), error.code(), exit);
    } else {
        output::complain(&error);
    }
    exit
}

impl CommandError {
    /// The stable word that the gateway has for it.
    fn code(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => why.chain().find_map(|why| why.downcast_ref::<asking::Refused>()?.code.as_deref()),
            Self::Output(_) | Self::Config(_) => None,
        }
    }
}

impl From<account::AccountError> for CommandError {
    fn from(why: account::AccountError) -> Self {
        match why {
            account::AccountError::Gateway(why) => Self::Failed(why),
            other => Self::Failed(other.into()),
        }
    }
}

/// After how many steps of tasks it is looked who else has something to say. With tokio's own 61 a key that is pressed waits for as many lines
/// of others; a look is one system call.
const LOOK_EVERY: u32 = 4;

/// Runs what waits for others.
fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().event_interval(LOOK_EVERY).enable_all().build()?;
    let done = runtime.block_on(future);
    // Not longer for whatever a thread is still busy with: what had to end has ended.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        command().debug_assert();
    }
}
