//! What innkeeper takes of a person's time and a machine's memory, each figure beside OpenSSH's sshd or plain docker in the same run.
//!
//! Whole processes are measured, because they are what a user waits for: OpenSSH's client against the release binary. `./bench` builds and
//! starts it; docs/performance.md says what each row means.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]
#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

mod api;
mod archives;
mod backups;
mod bulk;
mod client;
mod cpu;
mod crowd;
mod docker;
mod echo;
mod filesystem;
mod forward;
mod gateway;
mod ground;
mod homes;
mod logins;
mod opening;
mod place;
mod process;
mod report;
mod samples;
mod sshd;
mod stalled;
mod storm;
mod terminals;
mod trail;
mod trees;
mod urls;
mod wait;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::place::Place;
use crate::report::Row;
use crate::sshd::Sshd;

/// Measure innkeeper beside OpenSSH's sshd and plain docker, and print a table
#[derive(Debug, Parser)]
#[command(name = "bench", bin_name = "./bench")]
struct Arguments {
    /// Print the table as a JSON array of {what, value, unit, beside, ratio, to_reach, holds}
    #[arg(long)]
    json: bool,
    /// Fewer repetitions and sessions, and one minute instead of ten for the client that does not read
    #[arg(long)]
    quick: bool,
    /// Only the measurements whose name has this in it: logins, opening, storm, terminals, echo, stalled, bulk, forward, cpu, homes, homes-logins, homes-archives, homes-backups, lists, provision, urls, audit
    #[arg(long, value_name = "PATTERN", default_value = "")]
    only: String,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What all measurements of a run share.
pub struct Run {
    pub quick: bool,
    pub sshd: Sshd,
    pub place: Place,
}

impl Run {
    /// How often something is done, and how often in a quick run.
    pub fn repetitions(&self, usually: usize, quick: usize) -> usize {
        if self.quick { quick } else { usually }
    }

    /// Says to the person who waits what is going on.
    #[allow(clippy::unused_self, reason = "it is this run's")]
    pub fn progress(&self, what: &str) {
        eprintln!("{what}");
    }
}

type Measurement = fn(&Run) -> Result<Vec<Row>>;

const MEASUREMENTS: [(&str, Measurement); 17] = [
    ("logins", logins::measure),
    ("opening", opening::measure),
    ("storm", storm::measure),
    ("terminals", terminals::measure),
    ("echo", echo::measure),
    ("stalled", stalled::measure),
    ("bulk", bulk::measure),
    ("forward", forward::measure),
    ("cpu", cpu::measure),
    ("homes", homes::measure),
    ("homes-logins", homes::logins),
    ("homes-archives", archives::measure),
    ("homes-backups", backups::measure),
    ("lists", api::lists),
    ("provision", api::provision),
    ("urls", urls::measure),
    ("audit", trail::measure),
];

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether everything held that was promised.
fn measure(arguments: &Arguments) -> Result<bool> {
    let chosen: Vec<_> = MEASUREMENTS.into_iter().filter(|(name, _)| name.contains(&arguments.only)).collect();
    let names = MEASUREMENTS.map(|(name, _)| name).join(", ");
    ensure!(!chosen.is_empty(), "nothing is called {:?}; there are {names}", arguments.only);
    ensure!(rustix::process::geteuid().is_root(), "homes are mounted and sshd lets root in: run it as root");
    wait::heed_signals()?;
    // A thousand clients are in this process, and many systems give a program no more than 1,024 descriptors unless it asks.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let machine = machine()?;
    eprintln!("{machine}");
    let place = Place::new()?;
    let run = Run { quick: arguments.quick, sshd: Sshd::start(&place)?, place };
    let mut rows = Vec::new();
    for (name, measurement) in chosen {
        let measured = measurement(&run).with_context(|| name)?;
        // A run is long: what is known is shown, in case the rest is not waited for.
        eprintln!("{}", report::table(&measured));
        rows.extend(measured);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("{machine}\n\n{}", report::table(&rows));
    }
    Ok(rows.iter().all(|row| row.holds != Some(false)))
}

/// The machine and the programs, in a few lines.
fn machine() -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or("?", |(_, value)| value.trim()).to_owned()
    };
    let ssh = Command::new("ssh").arg("-V").output()?.stderr;
    let memory: f64 = value(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
    Ok(format!(
        "{}, {} cores, {:.1} GiB, Linux {}\n{}; {}; load before: {}",
        value(&read("/proc/cpuinfo"), "model name"),
        std::thread::available_parallelism()?,
        memory / 1_048_576.0,
        read("/proc/sys/kernel/osrelease").trim(),
        docker::describe()?,
        String::from_utf8_lossy(&ssh).trim(),
        read("/proc/loadavg").split(' ').take(1).collect::<String>(),
    ))
}
