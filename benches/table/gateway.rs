//! The gateway under measurement: the release binary, as a process of its own, with an instance and a state directory of its own.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::docker;
use crate::place::Place;
use crate::wait::until;

/// A running gateway. Dropping it ends it and removes all it made.
pub struct Gateway {
    /// Whose containers they are.
    pub instance: String,
    /// Where it serves SSH.
    pub port: u16,
    /// Where its API is.
    pub http_port: u16,
    /// Where workspaces are reached by URL, if they are.
    pub urls_port: u16,
    state: PathBuf,
    config: PathBuf,
    log: PathBuf,
    pool: usize,
    child: Option<Child>,
}

/// What differs between gateways.
#[derive(Clone, Copy, Default)]
pub struct Setup<'a> {
    /// Distinguishes the gateways of a run.
    pub name: &'a str,
    /// Containers kept ready.
    pub pool: usize,
    /// Lines added to the template.
    pub template: &'a str,
    /// Lines of the section on homes.
    pub home: &'a str,
    /// Whole sections.
    pub sections: &'a str,
}

impl Gateway {
    /// Starts one that these accounts may use with the place's key, and waits until its pool is full.
    pub fn start(place: &Place, setup: Setup<'_>, accounts: &[String]) -> Result<Self> {
        let Setup { name, pool, template, home, sections } = setup;
        let instance = format!("bench-{:08x}-{name}", rand::random::<u32>());
        let dir = place.path(name);
        fs::create_dir(&dir)?;
        let (config, log, state, people) = (dir.join("config.toml"), dir.join("log"), dir.join("state"), dir.join("accounts.toml"));
        let key = place.public_key()?;
        let known: String = accounts.iter().map(|account| format!("[account.{account}]\nkeys = [\"{key}\"]\n")).collect();
        fs::write(&people, known)?;
        fs::set_permissions(&people, Permissions::from_mode(0o600))?;
        // Only what a benchmark cannot do without: its own place on the machine, and no caps that 500 clients from one address would meet.
        let text = format!(
            "instance = \"{instance}\"\nstate_dir = \"{state}\"\n\
             [ssh]\nlisten = [\"127.0.0.1:0\"]\nmax_startups = \"1000:30:1000\"\nmax_startups_per_source = 1000\nmax_connections_per_source = 10000\n\
             [http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
             [auth]\nmethods = [\"accounts\"]\n[auth.accounts]\nfile = \"{people}\"\n\
             [limits]\ncontainers = 1000\nsessions_per_account = 1000\n[idle]\ntimeout = \"0s\"\n\
             [pool]\nsize = {pool}\n[home]\n{home}\n{sections}\n[template.default]\nimage = \"{IMAGE}\"\n{template}",
            state = state.display(),
            people = people.display(),
        );
        fs::write(&config, text)?;
        let mut gateway = Self { instance, port: 0, http_port: 0, urls_port: 0, state, config, log, pool, child: None };
        gateway.up()?;
        gateway.until_pool_is_full()?;
        Ok(gateway)
    }

    fn up(&mut self) -> Result<()> {
        // In a process group of its own: Ctrl-C is for the benchmark, which ends it in its own time.
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(&self.config).arg("serve").process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&self.log)?).spawn().context(PROGRAM)?;
        self.child = Some(child);
        until("the gateway to listen", || {
            let log = fs::read_to_string(&self.log)?;
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("the gateway ended: {status}\n{log}");
            }
            let port = |message: &str| {
                let line = log.lines().find(|line| line.contains(message))?;
                line.split_once("127.0.0.1:")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            };
            (self.port, self.http_port) = (port("ssh listening").unwrap_or(0), port("http listening").unwrap_or(0));
            self.urls_port = port("workspaces listening").unwrap_or(0);
            Ok(self.port != 0 && self.http_port != 0 && log.contains("found again"))
        })
    }

    /// Waits until as many containers stand ready as should, and nothing of an earlier one is left.
    pub fn until_pool_is_full(&self) -> Result<()> {
        until("the pool to be full", || {
            let containers = docker::list(&self.instance)?;
            let ready = containers.iter().filter(|(name, state)| name.contains(".pool.") && state == "running").count();
            // A slot is made with its container, and taken away when the gateway has noticed that the container is gone.
            let slots = fs::read_dir(self.state.join("slots"))?.count();
            Ok(ready == self.pool && slots == containers.len())
        })
    }

    /// The name of the container of the workspace of this account.
    pub fn container(&self, account: &str) -> String {
        format!("innkeeper.{}.{account}", self.instance)
    }

    /// The directory in which homes reach its containers: a shared mount.
    pub fn slots(&self) -> PathBuf {
        self.state.join("slots")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// How many workspaces were made ready on this path.
    pub fn starts(&self, path: &str) -> Result<f64> {
        let name = format!("innkeeper_starts_total{{path=\"{path}\"}} ");
        // What is shown may be a second old.
        crate::wait::pause(std::time::Duration::from_millis(1100))?;
        let answer = Command::new("curl").args(["-sf", &format!("http://127.0.0.1:{}/metrics", self.http_port)]).output()?;
        let text = String::from_utf8(answer.stdout)?;
        Ok(text.lines().find_map(|line| line.strip_prefix(&name)).map_or(Ok(0.0), str::parse)?)
    }

    /// A command of its administrator's.
    pub fn innkeeper(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(PROGRAM).arg("--config").arg(&self.config).args(arguments).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// What it said that was not good, for whoever has to find out.
    pub fn complaints(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let bad = |line: &&str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
        log.lines().filter(bad).take(20).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It has nothing to hand over.
            child.kill().ok();
            child.wait().ok();
        }
        let complaints = self.complaints();
        if !complaints.is_empty() {
            eprintln!("the gateway {} said:\n{complaints}", self.instance);
        }
        // An engine under load may not see a container with hundreds of processes end in its own time, and says so; it does the next time.
        for attempt in 1..=CLEANINGS {
            let why = match Command::new(PROGRAM).arg("--config").arg(&self.config).arg("clean").output() {
                Ok(cleaned) if cleaned.status.success() => return,
                Ok(cleaned) => String::from_utf8_lossy(&cleaned.stderr).into_owned(),
                Err(why) => why.to_string(),
            };
            eprintln!("not all of {} was removed in attempt {attempt}: {why}", self.instance);
        }
    }
}

/// What is measured, built as it is released.
const PROGRAM: &str = env!("CARGO_BIN_EXE_innkeeper");

/// How often it is tried to remove what a gateway made.
const CLEANINGS: u32 = 3;

/// The image that users live in.
pub const IMAGE: &str = "innkeeper/user:latest";
