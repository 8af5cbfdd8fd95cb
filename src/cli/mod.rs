//! The command line: one file a subcommand.
//!
//! What a command finds out goes to standard output, what went wrong to standard error. Knows how things are asked for and shown, and
//! leaves doing them to [`crate::app`].

mod account;
mod asking;
mod audit;
mod backup;
mod capacity;
mod check;
mod clean;
mod completions;
mod config;
mod exit;
mod healthcheck;
mod man;
mod online;
mod open;
mod output;
mod pool;
mod recording;
mod screens;
mod serve;
mod session;
mod template;
mod token;
mod top;
mod workspace;

use std::ffi::OsString;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

pub use exit::Exit;

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
    /// Make, list and revoke tokens of the API
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List the templates that workspaces are made from
    #[command(subcommand)]
    Template(template::TemplateCommand),
    /// Say how many more workspaces fit, what they meet first, and what one costs
    Capacity(capacity::CapacityArgs),
    /// Show who runs, who is in and who waits, again and again
    Top(top::TopArgs),
    /// Say what is wrong with the configuration; start nothing
    Check(check::CheckArgs),
    /// Print a default configuration, the reference page, or what is in effect
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
Exit status: 0 done, 1 failed, 64 wrong usage or unusable configuration, 70 a bug.";

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
    /// It has said so itself.
    #[error("")]
    Said(Exit),
}

/// Runs the command that the arguments, the program's name first, ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody left to tell, if this fails.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    panic::catch_unwind(AssertUnwindSafe(|| told(run(cli)))).unwrap_or(Exit::Internal)
}

fn run(cli: Cli) -> Result<(), CommandError> {
    let sources = || Sources::of_process(cli.config.clone());
    let socket = || Ok::<_, CommandError>(Sources::of_process(cli.config.clone()).load()?.settings.admin_socket());
    match cli.command {
        Command::Serve => serve::run(&sources()),
        Command::Account(args) => {
            let settings = sources().load()?.settings;
            let (file, socket) = (settings.accounts_file(), settings.admin_socket());
            account::run(args, account::Book::open(&file, &socket)).map_err(|why| CommandError::Failed(why.into()))
        }
        Command::Open(args) => open::run(args, &socket()?),
        Command::Unlink(args) => open::unlink(&args, &socket()?),
        Command::Audit(args) => audit::run(args, &sources().load()?.settings.audit_trail()),
        Command::Backup(args) => backup::run(args, &socket()?),
        Command::Workspace(args) => workspace::run(args, &socket()?),
        Command::Session(command) => session::run(command, &socket()?),
        Command::Recording(command) => recording::run(command, &socket()?),
        Command::Pool(command) => pool::run(command, &socket()?),
        Command::Token(command) => token::run(command, &socket()?),
        Command::Template(command) => template::run(&command, &socket()?),
        Command::Capacity(args) => capacity::run(&args, &socket()?),
        Command::Top(args) => top::run(&args, &socket()?),
        Command::Check(args) => check::run(args, &sources()),
        Command::Config(command) => config::run(command, sources),
        Command::Healthcheck => healthcheck::run(&sources()),
        Command::Clean => clean::run(&sources()),
        Command::BackupWorker => {
            if crate::backup::worker_main() {
                Ok(())
            } else {
                Err(CommandError::Said(Exit::Failed))
            }
        }
        Command::Completions(args) => completions::run(args, Cli::command()),
        Command::Man { command } => man::run(&command, Cli::command()),
    }
}

/// Says what went wrong, and what the exit status is.
fn told(result: Result<(), CommandError>) -> Exit {
    match result {
        Ok(()) => Exit::Ok,
        Err(CommandError::Said(exit)) => exit,
        // `innkeeper … | head` has what it wanted.
        Err(CommandError::Output(why)) if why.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error @ CommandError::Config(_)) => {
            output::complain(&error);
            Exit::Usage
        }
        Err(error @ (CommandError::Output(_) | CommandError::Failed(_))) => {
            output::complain(&error);
            Exit::Failed
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
        Cli::command().debug_assert();
    }
}
