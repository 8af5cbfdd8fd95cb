//! A workspace in one stream, for another host: its homes and what is set of it, but for its secrets and for directories of this host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::io::SyncIoBridge;
use tracing::{info, warn};

use super::AskError;
use super::directory::Directory;
use super::parcel::{Reader, Writer};
use super::passing::{Done, StepSender};
use super::recipe::Given;
use super::settings::{check_limits, refused, unread};
use super::{NetworkPolicy, policy, terms};
use crate::auth::LimitOverrides;
use crate::home::tree::{Limits, archive};
use crate::home::{HomeId, Homes, Staged};
use crate::name::{TemplateName, VariableName, WorkspaceName};
use crate::store::{Alteration, PolicyChange, Record, Settings};

/// A workspace on its way out.
pub struct Exported {
    /// Its bytes.
    pub bytes: Box<dyn AsyncRead + Send + Unpin>,
    /// Whether that were all of them, once there are no more; why not.
    pub whole: oneshot::Receiver<Result<(), AskError>>,
}

/// A workspace on its way in.
pub type Import = Box<dyn AsyncRead + Send + Unpin>;

/// What is told of a workspace beside its homes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Sheet {
    pub(super) template: TemplateName,
    idle_timeout_s: Option<u64>,
    /// What its last grant set.
    pub(super) granted: LimitOverrides,
    /// What an administrator has set.
    pub(super) limits: LimitOverrides,
    env: BTreeMap<VariableName, String>,
    /// How long it may be idle, and where its network leads. What is public is said anew by who imports it.
    #[serde(default)]
    idle_s: Option<u64>,
    #[serde(default)]
    network: Option<NetworkPolicy>,
}

/// The most that settings are long, in bytes.
const LONGEST_SHEET: usize = 512 * 1024;
/// The most that the name of a home is long, in bytes.
const LONGEST_NAME: usize = 128;
/// The most homes of one workspace.
const MOST_HOMES: usize = 64;
/// Bytes that may wait for whoever takes them.
const AHEAD: usize = 256 * 1024;
/// What the home that is no volume is called, and what is after the last.
pub(super) const HOME: &str = "home";
const END: &str = "end";
/// Volumes' names begin with this.
pub(super) const VOLUME: &str = "volume.";

impl Directory {
    /// Begins to export a workspace, which may be running.
    pub(super) async fn begin_export(&self, name: &WorkspaceName) -> Result<Exported, AskError> {
        let busy = self.busy(name)?;
        let settings = self.set_of(name).await?;
        if settings.passage.is_some() {
            return Err(AskError::Refused(format!("{name} is deleted; `innkeeper workspace undelete {name}` brings it back")));
        }
        let ids = self.homes_of(name).await?;
        if ids.is_empty() {
            return Err(AskError::Refused(format!("{name} has no home: there is nothing to export")));
        }
        let sheet = self.sheet_of(name, &settings).await?;
        let (ours, theirs) = tokio::io::duplex(AHEAD);
        let out = SyncIoBridge::new_with_handle(ours, Handle::current());
        let (tell, whole) = oneshot::channel();
        let (house, name) = (std::sync::Arc::clone(&self.house), name.clone());
        tokio::spawn(async move {
            let _busy = busy;
            let homes = house.parts.homes.clone();
            let written = house.at_length(move || write(&homes, &ids, &sheet, out)).await;
            match &written {
                Ok(()) => {
                    house.record(&name, "exported", None, None);
                    info!(workspace = %name, "exported");
                }
                Err(why) => warn!(workspace = %name, %why, "could not be exported to the end"),
            }
            drop(tell.send(written.map_err(|why| AskError::Store(why.to_string()))));
        });
        Ok(Exported { bytes: Box::new(theirs), whole })
    }

    /// What goes with a workspace's homes.
    pub(super) async fn sheet_of(&self, name: &WorkspaceName, settings: &Settings) -> Result<Sheet, AskError> {
        let store = &self.house.parts.store;
        let record = store.recall(name).await.map_err(unread)?;
        Ok(Sheet {
            template: record.as_ref().map(|record| record.template.clone()).unwrap_or_default(),
            idle_timeout_s: record.as_ref().and_then(|record| record.idle_timeout).map(|span| span.as_secs()),
            granted: terms::read(name, record.as_ref().and_then(|record| record.limits.as_deref())),
            limits: terms::read(name, settings.limits.as_deref()),
            env: store.variables(name, Vec::new()).await.map_err(unread)?.env,
            idle_s: settings.policy.idle.map(|span| span.as_secs()),
            network: policy::network(&settings.policy),
        })
    }

    /// Gives a workspace that is being made what goes with its homes; from then on it is there.
    pub(super) async fn settle(&self, name: &WorkspaceName, sheet: Sheet) -> Result<(), AskError> {
        // One after the other: until the last, all of it is a part.
        let store = &self.house.parts.store;
        let record = Record {
            template: sheet.template,
            limits: terms::written(&sheet.granted),
            idle_timeout: sheet.idle_timeout_s.map(Duration::from_secs),
            last_active: SystemTime::now(),
        };
        store.remember(name, record).await.map_err(unread)?;
        let limits = terms::written(&sheet.limits);
        store.alter(name, Alteration::Limits(Box::new(move |_| limits.clone()))).await.map_err(refused)?;
        store.alter(name, Alteration::Env { set: sheet.env, unset: Vec::new() }).await.map_err(refused)?;
        let network = sheet.network.map(|network| network.label().to_owned());
        let policy = PolicyChange { idle: Some(sheet.idle_s.map(Duration::from_secs)), network: Some(network), public_ports: None };
        store.alter(name, Alteration::Policy(policy)).await.map_err(refused)?;
        store.alter(name, Alteration::Pass(None)).await.map_err(refused)?;
        Ok(())
    }

    /// Makes a workspace of what another host has exported. It goes on to its end, or to the end of what comes in.
    pub(super) async fn import_from(&self, name: &WorkspaceName, from: Import) -> Result<Done, AskError> {
        let (directory, name) = (self.clone(), name.clone());
        // Not to be dropped with who asks: a part would be taken for whole, or what is at work for over.
        let work = tokio::spawn(async move {
            let _busy = directory.busy(&name)?;
            if directory.is_low() {
                return Err(AskError::Refused("less than limits.disk_floor is free: make room first".to_owned()));
            }
            directory.reserve(&name).await?;
            let made = directory.unpack(&name, from).await;
            match made {
                Ok(done) => {
                    directory.retire(&name).await;
                    directory.house.record(&name, "imported", None, None);
                    info!(workspace = %name, homes = ?done.homes, bytes = done.bytes, "imported");
                    Ok(done)
                }
                Err(why) => {
                    let settings = directory.set_of(&name).await?;
                    directory.finish(&name, settings, &StepSender::default()).await?;
                    Err(why)
                }
            }
        });
        work.await.unwrap_or_else(|why| Err(AskError::Store(why.to_string())))
    }

    async fn unpack(&self, name: &WorkspaceName, from: Import) -> Result<Done, AskError> {
        let input = SyncIoBridge::new_with_handle(from, Handle::current());
        let beginning = self.house.at_length(move || open(input)).await;
        let (reader, sheet) = beginning.map_err(|why| AskError::Refused(format!("it cannot be imported: {why}")))?;
        sheet.check()?;
        let recipe =
            self.house.recipe(Some(&sheet.template)).map_err(|why| AskError::Refused(format!("it cannot be imported: {why} here")))?;
        let given = recipe.given(&sheet.limits.clone().over(sheet.granted.clone()));
        let (homes, of) = (self.house.parts.homes.clone(), name.clone());
        let read = self.house.at_length(move || read(&homes, &of, reader, &given)).await;
        let done = read.map_err(|why| AskError::Refused(format!("it cannot be imported: {why}")))?;
        self.settle(name, sheet).await?;
        Ok(done)
    }
}

impl Sheet {
    /// Whether it could have been set here.
    pub(super) fn check(&self) -> Result<(), AskError> {
        check_limits(&self.limits)?;
        check_limits(&self.granted)?;
        match self.env.iter().find(|(_, value)| value.contains('\0')) {
            Some((variable, _)) => Err(AskError::Refused(format!("the value of {variable} has a zero byte"))),
            None => Ok(()),
        }
    }
}

/// Writes all of a workspace.
fn write(homes: &Homes, ids: &[HomeId], sheet: &Sheet, out: impl std::io::Write) -> Result<(), String> {
    let failed = |why: std::io::Error| why.to_string();
    let mut parcel = Writer::new(BufWriter::new(out)).map_err(failed)?;
    parcel.put(&serde_json::to_vec(sheet).map_err(|why| why.to_string())?).map_err(failed)?;
    for id in ids {
        let name = id.volume.as_ref().map_or_else(|| HOME.to_owned(), |volume| format!("{VOLUME}{volume}"));
        parcel.put(name.as_bytes()).map_err(failed)?;
        let snapshot = homes.snapshot(id).map_err(|why| why.to_string())?;
        let dir = File::open(&snapshot.path).map_err(failed)?;
        let mut section = parcel.section();
        let written = archive::write(dir.as_fd(), &mut section, Limits::default(), &|_| ControlFlow::Continue(()));
        written.map_err(|why| format!("{id}: {why}"))?;
        section.end().map_err(failed)?;
    }
    parcel.put(END.as_bytes()).and_then(|()| parcel.flush()).map_err(failed)
}

/// Reads what comes before the homes.
fn open<R: Read>(input: R) -> Result<(Reader<BufReader<R>>, Sheet), String> {
    let mut parcel = Reader::new(BufReader::new(input)).map_err(|why| why.to_string())?;
    let sheet = parcel.take(LONGEST_SHEET).map_err(|why| why.to_string())?;
    let sheet = serde_json::from_slice(&sheet).map_err(|why| format!("its settings are not understood ({why})"))?;
    Ok((parcel, sheet))
}

/// Unpacks all homes beside those that there are, and gives them their names when everything was read.
fn read(homes: &Homes, of: &WorkspaceName, mut parcel: Reader<impl Read + Send>, given: &Given) -> Result<Done, String> {
    let (mut done, mut staged): (Done, Vec<(HomeId, Staged)>) = (Done::default(), Vec::new());
    loop {
        let name = parcel.take(LONGEST_NAME).map_err(|why| why.to_string())?;
        let name = String::from_utf8(name).map_err(|_| "a home in it has no name".to_owned())?;
        if name == END {
            break;
        }
        let volume = match name.strip_prefix(VOLUME) {
            Some(volume) => Some(volume.parse().map_err(|_| "a volume in it has a name that cannot be".to_owned())?),
            None if name == HOME => None,
            None => return Err("a home in it has a name that cannot be".to_owned()),
        };
        let id = HomeId { workspace: of.clone(), volume };
        if staged.len() == MOST_HOMES || staged.iter().any(|(other, _)| *other == id) {
            return Err("it has too many homes, or one twice".to_owned());
        }
        let quota = given.quota_of(id.volume.as_ref());
        let limits = Limits { bytes: quota.bytes.unwrap_or(u64::MAX), entries: quota.inodes.unwrap_or(u64::MAX) };
        let stage = homes.stage(&quota).map_err(|why| why.to_string())?;
        let dir = File::open(stage.path()).map_err(|why| why.to_string())?;
        let mut section = parcel.section();
        let summary = archive::read(&mut section, dir.as_fd(), limits, &|_| ControlFlow::Continue(()));
        let summary = summary.map_err(|why| format!("{name}: {why}"))?;
        section.end().map_err(|why| why.to_string())?;
        done.bytes = Some(done.bytes.unwrap_or_default().saturating_add(summary.bytes));
        staged.push((id, stage));
    }
    if !staged.iter().any(|(id, _)| id.volume.is_none()) {
        return Err("there is no home in it".to_owned());
    }
    for (id, stage) in staged {
        homes.commit(stage, &id).map_err(|why| why.to_string())?;
        done.homes.push(id.to_string());
    }
    Ok(done)
}
