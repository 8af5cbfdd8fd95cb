//! Which recordings there are: read from their files at the start, and kept up by the thread that writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;

use super::cast::Meta;
use super::files::name_of;
use super::id::RecordingId;
use crate::name::{TemplateName, WorkspaceName};

/// A recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its name.
    pub id: RecordingId,
    /// Where its session was.
    pub workspace: WorkspaceName,
    /// Whose it was, as it was typed at login: a stranger's text.
    pub account: String,
    /// The workspace's template then.
    pub template: TemplateName,
    /// The session's number, counted since its gateway's start.
    pub session: u64,
    /// The terminal's width at first.
    pub columns: u16,
    /// Its height at first.
    pub rows: u16,
    /// When it began.
    pub began: SystemTime,
    /// When it ended, or when its file was last written to.
    pub ended: Option<SystemTime>,
    /// How long it is, compressed.
    pub bytes: u64,
    /// Whether it is in the bucket, and not on the disk any more.
    pub away: bool,
    /// Whether it takes a key to read.
    pub encrypted: bool,
    /// Whether it goes on, or is whole.
    pub state: State,
}

/// How a recording stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its session goes on.
    Recording,
    /// All of it is there.
    Complete,
    /// It ends where the gateway was killed or the disk took no more.
    Cut,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) meta: Arc<Meta>,
    pub(super) bytes: u64,
    pub(super) ended: Option<SystemTime>,
    pub(super) state: State,
    pub(super) away: bool,
}

/// All recordings, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Index(RwLock<BTreeMap<RecordingId, Entry>>);

impl State {
    /// In a word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Complete => "complete",
            Self::Cut => "cut",
        }
    }
}

impl Entry {
    /// What its file is called, and its object.
    pub(super) fn name(&self, id: RecordingId) -> String {
        name_of(id, self.meta.salt.is_some(), self.state == State::Complete)
    }

    fn view(&self, id: RecordingId) -> Recorded {
        let Meta { workspace, account, template, session, columns, rows, salt } = &*self.meta;
        Recorded {
            id,
            workspace: workspace.clone(),
            account: account.clone(),
            template: template.clone(),
            session: *session,
            columns: *columns,
            rows: *rows,
            began: id.began(),
            ended: self.ended,
            bytes: self.bytes,
            away: self.away,
            encrypted: salt.is_some(),
            state: self.state,
        }
    }
}

impl Index {
    pub(super) fn put(&self, id: RecordingId, entry: Entry) {
        self.0.write().insert(id, entry);
    }

    pub(super) fn change(&self, id: RecordingId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.0.write().get_mut(&id) {
            change(entry);
        }
    }

    pub(super) fn take(&self, id: RecordingId) -> Option<Entry> {
        self.0.write().remove(&id)
    }

    pub(super) fn get(&self, id: RecordingId) -> Option<Entry> {
        self.0.read().get(&id).cloned()
    }

    pub(super) fn view(&self, id: RecordingId) -> Option<Recorded> {
        self.0.read().get(&id).map(|entry| entry.view(id))
    }

    /// Those that are wanted.
    pub(super) fn views(&self, wanted: impl Fn(&RecordingId, &WorkspaceName, &str) -> bool) -> Vec<Recorded> {
        let all = self.0.read();
        let wanted = all.iter().filter(|(id, entry)| wanted(id, &entry.meta.workspace, &entry.meta.account));
        wanted.map(|(id, entry)| entry.view(*id)).collect()
    }

    /// Those of a workspace.
    pub(super) fn of(&self, workspace: &WorkspaceName) -> Vec<RecordingId> {
        self.0.read().iter().filter(|(_, entry)| entry.meta.workspace == *workspace).map(|(id, _)| *id).collect()
    }

    /// The oldest of those that do not go on; of those on the disk, or of all. One that is on its way to the bucket only if there is no other.
    pub(super) fn oldest(&self, of_all: bool, on_its_way: Option<RecordingId>) -> Option<RecordingId> {
        let all = self.0.read();
        let mut goes = all.iter().filter(|(_, entry)| entry.state != State::Recording && (of_all || !entry.away)).map(|(id, _)| *id);
        goes.find(|id| Some(*id) != on_its_way).or(on_its_way.filter(|id| all.get(id).is_some_and(|entry| !entry.away)))
    }

    /// Those that have ended and are on the disk, the oldest first.
    pub(super) fn at_home(&self) -> Vec<RecordingId> {
        let all = self.0.read();
        all.iter().filter(|(_, entry)| entry.state != State::Recording && !entry.away).map(|(id, _)| *id).collect()
    }

    /// Those that began and ended before.
    pub(super) fn before(&self, time: SystemTime) -> Vec<RecordingId> {
        let all = self.0.read();
        let began = all.iter().take_while(|(id, _)| id.began() < time);
        began.filter(|(_, entry)| entry.ended.is_some_and(|ended| ended < time)).map(|(id, _)| *id).collect()
    }

    /// Bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.0.read().values().filter(|entry| !entry.away).map(|entry| entry.bytes).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.0.read().len()
    }
}
