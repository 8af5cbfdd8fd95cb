//! `innkeeper audit`.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::{self, Answer, Sign};
use super::{CommandError, Exit};
use crate::audit;
use crate::name::printable;

/// How often it is looked whether there is more, for who follows.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Show what was recorded, the oldest first
    Show(ShowArgs),
    /// Say whether every line is there as it was written; exit status 1 if not
    Verify {
        /// A digest that an earlier `verify` has printed: it must be in the trail
        #[arg(long, value_name = "DIGEST")]
        head: Option<String>,
    },
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Only what is about this workspace
    #[arg(long, short, value_name = "NAME")]
    workspace: Option<String>,
    /// Only what this account did or tried
    #[arg(long, short, value_name = "NAME")]
    account: Option<String>,
    /// Only events of this kind, such as login-refused
    #[arg(long, short, value_name = "KIND")]
    event: Option<String>,
    /// Only the last so many
    #[arg(long, short = 'n', value_name = "NUMBER")]
    last: Option<usize>,
    /// Go on with what is recorded from now on, until interrupted
    #[arg(long, short)]
    follow: bool,
}

pub(super) fn run(args: AuditArgs, trail: &Path, json: bool) -> Result<Answer, CommandError> {
    match args.command {
        AuditCommand::Show(args) => show(&args, trail, json).map(|()| Answer::nothing()),
        AuditCommand::Verify { head } => verify(head.as_deref(), trail),
    }
}

/// Prints events, for programs as the lines that they are in the trail.
fn show(args: &ShowArgs, trail: &Path, json: bool) -> Result<(), CommandError> {
    let mut seen = 0;
    let mut limit = args.last;
    loop {
        let mut events = std::collections::VecDeque::new();
        read(trail, &mut |event| {
            let seq = event["seq"].as_u64().unwrap_or_default();
            if seq > seen {
                seen = seq;
                if args.wants(&event) {
                    if limit.is_some_and(|limit| events.len() >= limit) {
                        events.pop_front();
                    }
                    events.push_back(event);
                }
            }
            true
        })?;
        if limit != Some(0) {
            for event in &events {
                output::print(if json { format!("{event}\n") } else { line(event) })?;
            }
        }
        limit = None;
        if !args.follow {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

fn verify(head: Option<&str>, trail: &Path) -> Result<Answer, CommandError> {
    let report = audit::verify(trail, head).with_context(|| unreadable(trail))?;
    let exit = if report.flaws.is_empty() { Exit::Ok } else { Exit::Failed };
    let value = serde_json::to_value(&report).context("the report")?;
    Ok(Answer::shown(value, move |_| Ok(said(&report))).exit(exit))
}

fn said(report: &audit::Report) -> String {
    let coloured = output::has_colours();
    if report.flaws.is_empty() {
        let (first, last, sign) = (report.first, report.last, Sign::Good.paint(coloured));
        let events = report.events;
        return format!(
            "{sign} {events} events, {first} to {last}, as they were written\n  the last one's digest, for `--head` later: {}\n",
            report.head
        );
    }
    let flaw = |flaw: &audit::Flaw| {
        let line = if flaw.line > 0 { format!(":{}", flaw.line) } else { String::new() };
        format!("{} {}{line}: {}\n", Sign::Bad.paint(coloured), flaw.file.display(), flaw.what)
    };
    report.flaws.iter().map(flaw).collect()
}

fn read(trail: &Path, wanted: &mut dyn FnMut(Value) -> bool) -> Result<(), CommandError> {
    audit::read(trail, wanted).with_context(|| unreadable(trail)).map_err(CommandError::Failed)
}

fn unreadable(trail: &Path) -> String {
    format!("the audit trail in {} cannot be read; only the gateway's owner may, and there is none before its first start", trail.display())
}

impl ShowArgs {
    fn wants(&self, event: &Value) -> bool {
        let is = |wanted: &Option<String>, value: &Value| wanted.as_deref().is_none_or(|wanted| value.as_str() == Some(wanted));
        is(&self.workspace, &event["workspace"]) && is(&self.event, &event["event"]) && is(&self.account, &event["actor"]["account"])
    }
}

/// An event for people: when, who, what, where, and the rest.
fn line(event: &Value) -> String {
    const FIRST: [&str; 8] = ["seq", "at", "event", "actor", "workspace", "remote", "connection", "chain"];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let actor = match &event["actor"] {
        Value::Object(kinds) => kinds.iter().map(|(kind, name)| format!("{kind}:{}", text(name))).collect(),
        other => text(other),
    };
    let mut line = format!("{}  {:<16}  {actor}", text(&event["at"]), text(&event["event"]));
    for key in ["workspace", "remote"] {
        if !event[key].is_null() {
            line += &format!("  {key}={}", text(&event[key]));
        }
    }
    for (key, value) in event.as_object().into_iter().flatten().filter(|(key, _)| !FIRST.contains(&key.as_str())) {
        line += &format!("  {key}={}", text(value));
    }
    printable(&line) + "\n"
}
