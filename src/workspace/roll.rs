//! Who is in: the sessions there are, and ending one.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Ending;
use super::events::{Events, News};
use crate::name::{AccountName, WorkspaceName};
use crate::recording::{RecordingId, View};

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its number, counted from 1 since the gateway's start.
    pub id: u64,
    /// Whose it is.
    pub account: AccountName,
    /// Where.
    pub workspace: WorkspaceName,
    /// When it began.
    pub since: SystemTime,
    /// For how long it has lasted.
    pub lasted: Duration,
    /// Its recording, while it is recorded.
    pub recording: Option<RecordingId>,
    /// Whether it can be watched.
    pub watchable: bool,
}

/// All sessions.
#[derive(Debug, Clone)]
pub(super) struct Roll {
    all: Arc<DashMap<u64, Line>>,
    last: Arc<Mutex<u64>>,
    events: Events,
}

#[derive(Debug)]
struct Line {
    account: AccountName,
    workspace: WorkspaceName,
    since: SystemTime,
    began: Instant,
    end: CancellationToken,
    /// Why it is to end, once it is.
    why: Arc<OnceLock<Ending>>,
    shows: Option<View>,
}

/// A session on the roll, until this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    id: u64,
    roll: Roll,
}

impl Roll {
    pub(super) fn new(events: Events) -> Self {
        Self { all: Arc::default(), last: Arc::default(), events }
    }

    /// A session begins: gives what tells its end, which is its workspace's or its own.
    pub(super) fn enter(
        &self,
        account: &AccountName,
        workspace: &WorkspaceName,
        mut of_workspace: watch::Receiver<Option<Ending>>,
    ) -> (Entry, watch::Receiver<Option<Ending>>) {
        let id = {
            let mut last = self.last.lock();
            *last += 1;
            *last
        };
        let end = CancellationToken::new();
        let why = Arc::new(OnceLock::new());
        let line = Line {
            why: Arc::clone(&why),
            shows: None,
            account: account.clone(),
            workspace: workspace.clone(),
            since: SystemTime::now(),
            began: Instant::now(),
            end: end.clone(),
        };
        self.all.insert(id, line);
        self.events.tell(News::SessionBegan { session: id, account: account.clone(), workspace: workspace.clone() });
        let (tell, ending) = watch::channel(of_workspace.borrow_and_update().clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // Its own, whatever the workspace does: only who is in it listens on.
                    () = end.cancelled() => {
                        tell.send_replace(Some(why.get().cloned().unwrap_or(Ending::Ended)));
                        return tell.closed().await;
                    }
                    () = tell.closed() => return,
                    changed = of_workspace.changed() => {
                        if changed.is_err() {
                            return tell.closed().await;
                        }
                        let news = of_workspace.borrow_and_update().clone();
                        tell.send_replace(news);
                    }
                }
            }
        });
        (Entry { id, roll: self.clone() }, ending)
    }

    /// All there are.
    pub(super) fn all(&self) -> Vec<SessionView> {
        let view = |id: u64, line: &Line| SessionView {
            id,
            account: line.account.clone(),
            workspace: line.workspace.clone(),
            since: line.since,
            lasted: line.began.elapsed(),
            recording: line.shows.as_ref().filter(|view| !view.is_over()).map(View::id),
            watchable: line.shows.as_ref().is_some_and(View::is_watchable),
        };
        self.all.iter().map(|line| view(*line.key(), line.value())).collect()
    }

    /// How many there are in each workspace that has any.
    pub(super) fn counts(&self) -> HashMap<WorkspaceName, usize> {
        let mut counts = HashMap::new();
        for line in self.all.iter() {
            *counts.entry(line.workspace.clone()).or_default() += 1;
        }
        counts
    }

    /// A session is recorded from now on.
    pub(super) fn shows(&self, id: u64, view: View) {
        if let Some(mut line) = self.all.get_mut(&id) {
            line.shows = Some(view);
        }
    }

    /// The recording of a session: `None`, there is no session of that number; and none within, if it is not recorded.
    pub(super) fn view(&self, id: u64) -> Option<(WorkspaceName, Option<View>)> {
        self.all.get(&id).map(|line| (line.workspace.clone(), line.shows.clone()))
    }

    /// How many sessions of a workspace are recorded, and how many of them are watched.
    pub(super) fn seen(&self, workspace: &WorkspaceName) -> (usize, usize) {
        let of = self
            .all
            .iter()
            .filter(|line| line.workspace == *workspace)
            .filter_map(|line| line.shows.clone())
            .filter(|view| !view.is_over());
        of.fold((0, 0), |(recorded, watched), view| (recorded + 1, watched + usize::from(view.watchers() > 0)))
    }

    /// Ends a session, and says why. `false`: there is none of that number.
    pub(super) fn end(&self, id: u64, why: Ending) -> bool {
        let Some(line) = self.all.get(&id) else { return false };
        let _ = line.why.set(why);
        line.end.cancel();
        true
    }
}

impl Entry {
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some((_, line)) = self.roll.all.remove(&self.id) {
            self.roll.events.tell(News::SessionEnded { session: self.id, account: line.account, workspace: line.workspace });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_is_ended_alone_and_hears_of_its_workspace() {
        let events = Events::default();
        let mut heard = events.listen();
        let roll = Roll::new(events);
        let (account, workspace) = (AccountName::parse("alice").unwrap(), "alice".parse().unwrap());
        let (tell, of_workspace) = watch::channel(None);
        let (one, mut end_of_one) = roll.enter(&account, &workspace, of_workspace.clone());
        let (_two, mut end_of_two) = roll.enter(&account, &workspace, of_workspace);
        assert_eq!(roll.counts(), HashMap::from([(workspace.clone(), 2)]));
        let first = roll.all().into_iter().map(|session| session.id).min().unwrap();
        assert!(roll.end(first, Ending::Ended) && !roll.end(99, Ending::Ended));
        end_of_one.changed().await.unwrap();
        assert_eq!(*end_of_one.borrow(), Some(Ending::Ended));
        assert!(!end_of_two.has_changed().unwrap());
        tell.send_replace(Some(Ending::Died));
        end_of_two.changed().await.unwrap();
        assert_eq!(*end_of_two.borrow(), Some(Ending::Died));
        drop(one);
        assert_eq!(roll.all().len(), 1);
        let mut last = None;
        while let Ok(event) = heard.try_recv() {
            last = Some(event);
        }
        let ended = last.unwrap();
        assert_eq!((ended.number, ended.news), (3, News::SessionEnded { session: first, account, workspace }));
    }
}
