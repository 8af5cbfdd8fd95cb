//! What is recorded.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::name::{WorkspaceName, printable};

/// Longest text of a stranger's that is recorded, in characters.
const LONGEST: usize = 256;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// When.
    #[serde(serialize_with = "time")]
    pub at: SystemTime,
    /// Whose doing it was.
    pub actor: Actor,
    /// From where, if it came over the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// The workspace it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceName>,
    /// The connection it belongs to, as the log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// Whose doing something was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The gateway's own: a limit, a sweep, a restart.
    Gateway,
    /// Somebody who has logged in, or tried to, by the name that was given.
    Account(String),
    /// Root of the gateway's host, by its command line.
    Host,
    /// Somebody who was given a link, by the name that it was made for, if for any.
    Visitor(Option<String>),
    /// Whoever holds a token, by the token's name.
    Token(String),
    /// Somebody at the dashboard, by the name of what she has logged in with, if with anything.
    Dashboard(Option<String>),
    /// Somebody who has shown nothing that is known.
    Stranger,
}

/// What went with a workspace that was deleted, and what of it stays. Of one that was deleted first and removed for good later there are two of
/// these, each of what went then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Removal {
    /// Its home and its volumes.
    pub homes: Vec<RemovedHome>,
    /// Until when those are kept, and what was set of it with them; none: they are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<String>,
    /// Homes that a restore had put aside.
    pub replaced_homes: usize,
    /// Snapshots of it.
    pub snapshots: Vec<String>,
    /// Sessions that were ended.
    pub sessions: usize,
    /// Links to its ports that were taken back.
    pub links: usize,
    /// Its secrets.
    pub secrets: usize,
    /// Its variables.
    pub variables: usize,
    /// Mounts that were set of it.
    pub mounts: usize,
    /// Whether what else was set and remembered of it is gone.
    pub settings: bool,
    /// Tokens of the API that opened it and nothing else.
    pub tokens: usize,
    /// Answers to requests with an idempotency key that named it.
    pub answers: usize,
    /// Its recordings.
    pub recordings: usize,
    /// Its backups.
    pub backups: u64,
    /// Whether those that there are stay, for as long as others.
    pub backups_kept: bool,
    /// Accounts of the accounts file that land in it. They stay: who logs in begins with an empty one.
    pub accounts_kept: Vec<String>,
}

/// A home, or a volume, that was removed or set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovedHome {
    /// Its name.
    pub name: String,
    /// What was in it, where that could be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Files and directories, where somebody counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
}

/// Kinds of events, and what is told of each.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum What {
    /// The gateway began to serve.
    GatewayStarted {
        /// Its version.
        version: String,
    },
    /// The gateway ended as it was told to. Where this is missing before the next start, it was killed.
    GatewayStopped {},
    /// The configuration was read again.
    Reloaded {
        /// The keys that changed; values are not recorded.
        keys: Vec<String>,
    },
    /// Somebody was let in.
    Login {
        /// `publickey`, `password` or `keyboard-interactive`.
        method: String,
        /// The key's fingerprint.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// Somebody was not let in.
    LoginRefused {
        /// The method that was tried.
        method: String,
        /// `denied`, or why there was no verdict.
        reason: String,
    },
    /// A session began.
    SessionStarted {
        /// `shell`, `exec`, `sftp` …
        kind: String,
        /// Whether it is at a terminal.
        terminal: bool,
    },
    /// A session ended.
    SessionEnded {
        /// As it began.
        kind: String,
        /// How long it lasted, in seconds.
        #[serde(serialize_with = "seconds")]
        lasted: Duration,
    },
    /// A connection into or out of a workspace was opened, or refused.
    Forward {
        /// `direct-tcpip`, `direct-streamlocal` …
        kind: String,
        /// Where to.
        target: String,
        /// `opened`, or why not.
        outcome: String,
    },
    /// A link to a port of a workspace was made.
    LinkMade {
        /// By which it is listed; it opens nothing.
        link: String,
        /// The port.
        port: u16,
        /// For whom, if for anybody.
        #[serde(skip_serializing_if = "Option::is_none")]
        visitor: Option<String>,
        /// When it is over.
        ends: String,
    },
    /// Links to a workspace were taken back.
    LinkRevoked {
        /// The one; none: all.
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<String>,
    },
    /// A link to a port of a workspace was opened.
    LinkOpened {
        /// The port.
        port: u16,
    },
    /// What became of a workspace: `created`, `claimed`, `started`, `stopped`, `deleted` …
    Workspace {
        /// The step.
        step: String,
        /// Why, where there is a reason.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The container, where there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        container: Option<String>,
        /// What went with it, where it was deleted.
        #[serde(skip_serializing_if = "Option::is_none")]
        removed: Option<Box<Removal>>,
    },
    /// What became of a recording of a terminal: `began`, `failed`, `removed`, `played`, `downloaded`.
    Recording {
        /// Which.
        recording: String,
        /// The step.
        step: String,
        /// Why, where there is a reason.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Somebody began to watch a session, or ended it.
    Watch {
        /// The session's number.
        session: u64,
        /// Its recording.
        recording: String,
        /// `began` or `ended`.
        step: String,
    },
    /// An administrator's act.
    Admin {
        /// What was asked for, without the values that were set.
        act: String,
        /// `done`, or why not.
        outcome: String,
    },
    /// Something was refused over HTTP, or a connection of SSH: the first of its kind from somewhere, or how many followed it.
    Refused {
        /// Where: `ssh`, `api`, `dashboard` or `url`.
        door: &'static str,
        /// What was asked for; nothing where several are told at once.
        #[serde(skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
        /// Why, in a word.
        reason: &'static str,
        /// How often: 1, or how many there were since the line before of the same source and reason.
        times: u64,
    },
    /// Events that could not be recorded, as they came faster than they are written.
    Lost {
        /// How many.
        events: u64,
    },
    /// A line that a killed gateway had written half was cut off.
    Torn {
        /// Its length.
        bytes: u64,
    },
}

// === impl Event ===

impl Event {
    /// One that happens now.
    pub fn now(actor: Actor, what: What) -> Self {
        Self { at: SystemTime::now(), actor, remote: None, workspace: None, connection: None, what }
    }

    /// About this workspace.
    #[must_use]
    pub fn about(mut self, workspace: &WorkspaceName) -> Self {
        self.workspace = Some(workspace.clone());
        self
    }

    /// From this address, over this connection.
    #[must_use]
    pub fn from(mut self, remote: IpAddr, connection: impl ToString) -> Self {
        (self.remote, self.connection) = (Some(remote), Some(connection.to_string()));
        self
    }
}

// === impl Actor ===

impl Actor {
    /// Somebody by the name that was given, whatever it is.
    pub fn account(name: &str) -> Self {
        Self::Account(text(name))
    }
}

/// Text of a stranger's as it may stand in a line: short, and harmless at a terminal.
pub(super) fn text(raw: &str) -> String {
    printable(&raw.chars().take(LONGEST).collect::<String>())
}

impl What {
    /// The same with every text in it short and harmless.
    #[must_use]
    pub(super) fn tamed(self) -> Self {
        match self {
            Self::Login { method, key } => Self::Login { method, key: key.map(|key| text(&key)) },
            Self::LoginRefused { method, reason } => Self::LoginRefused { method: text(&method), reason: text(&reason) },
            Self::Forward { kind, target, outcome } => Self::Forward { kind, target: text(&target), outcome: text(&outcome) },
            Self::Workspace { step, reason, container, removed } => {
                let tame = |mut removal: Box<Removal>| {
                    removal.accounts_kept.iter_mut().for_each(|account| *account = text(account));
                    removal
                };
                Self::Workspace { step, reason: reason.map(|reason| text(&reason)), container, removed: removed.map(tame) }
            }
            Self::LinkMade { link, port, visitor, ends } => Self::LinkMade { link, port, visitor: visitor.map(|name| text(&name)), ends },
            Self::Admin { act, outcome } => Self::Admin { act: text(&act), outcome: text(&outcome) },
            Self::Refused { door, asked, reason, times } => Self::Refused { door, asked: asked.map(|asked| text(&asked)), reason, times },
            other => other,
        }
    }
}

fn time<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_micros(*at))
}

fn seconds<S: serde::Serializer>(lasted: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((lasted.as_secs_f64() * 1000.0).round() / 1000.0)
}
