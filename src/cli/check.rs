//! `innkeeper check`.

use std::time::Duration;

use serde_json::{Value, json};

use super::output::{self, Answer, Sign};
use super::{CommandError, Exit, block_on, online};
use crate::app;
use crate::config::{Problem, Settings, Severity, Sources};
use crate::telemetry::{Outcome, Probe, ask_all};

/// How long one thing that is tried may take.
const DEADLINE: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 it can be used, 64 it cannot, 1 something that was tried did not work.")]
pub(super) struct CheckArgs {
    /// Also try the engine, the login service, the state directory and the addresses to listen on
    #[arg(long)]
    online: bool,
}

pub(super) fn run(args: CheckArgs, sources: &Sources) -> Result<Answer, CommandError> {
    let (settings, problems) = match sources.load() {
        Ok(loaded) => (Some(loaded.settings), loaded.warnings),
        Err(unusable) => (None, unusable.problems),
    };
    let probes = match &settings {
        Some(settings) if args.online => probes(settings),
        Some(settings) => online::skeletons(settings),
        None => Vec::new(),
    };
    let outcomes = if probes.is_empty() { Vec::new() } else { block_on(ask_all(&probes, DEADLINE))? };

    let exit = match &settings {
        None => Exit::Usage,
        Some(_) if outcomes.iter().all(Outcome::is_ready) => Exit::Ok,
        Some(_) => Exit::Failed,
    };
    let report = as_json(sources, settings.is_some(), &problems, &probes, &outcomes);
    let text = as_text(sources, settings.is_some(), &problems, &probes, &outcomes);
    Ok(Answer::shown(report, move |_| Ok(text)).exit(exit))
}

fn probes(settings: &Settings) -> Vec<Probe> {
    let mut probes = online::probes(settings);
    probes.extend(online::skeletons(settings));
    match app::probes(settings) {
        Ok(more) => probes.extend(more),
        Err(error) => {
            let why = format!("{error:#}");
            probes.push(Probe::new("start", move || std::future::ready(Outcome::Failed(why.clone()))));
        }
    }
    probes
}

fn as_json(sources: &Sources, usable: bool, problems: &[Problem], probes: &[Probe], outcomes: &[Outcome]) -> Value {
    let tried = probes.iter().zip(outcomes).map(|(probe, outcome)| {
        let state = match outcome {
            Outcome::Fine(_) => "fine",
            Outcome::Doubtful(_) => "doubtful",
            Outcome::Failed(_) => "failed",
        };
        json!({ "name": probe.name, "state": state, "note": outcome.note() })
    });
    json!({
        "file": sources.file(),
        "usable": usable,
        "problems": problems,
        "tried": tried.collect::<Vec<_>>(),
    })
}

fn as_text(sources: &Sources, usable: bool, problems: &[Problem], probes: &[Probe], outcomes: &[Outcome]) -> String {
    let coloured = output::has_colours();
    let problems = problems.iter().map(|problem| {
        let sign = match problem.severity {
            Severity::Error => Sign::Bad,
            Severity::Warning => Sign::Doubtful,
        };
        (sign, problem.to_string())
    });
    let source = sources.file().map_or_else(|| "the embedded defaults".to_owned(), |file| file.display().to_string());
    let verdict = if usable { (Sign::Good, format!("{source} can be used")) } else { (Sign::Bad, format!("{source} cannot be used")) };
    let tried = probes.iter().zip(outcomes).map(|(probe, outcome)| {
        let sign = match outcome {
            Outcome::Fine(_) => Sign::Good,
            Outcome::Doubtful(_) => Sign::Doubtful,
            Outcome::Failed(_) => Sign::Bad,
        };
        (sign, format!("{}: {}", probe.name, outcome.note()))
    });
    problems.chain([verdict]).chain(tried).map(|(sign, line)| format!("{} {line}\n", sign.paint(coloured))).collect()
}
