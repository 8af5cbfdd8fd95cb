//! Everything that happens to workspaces, told to whoever looks on. Nobody waits for who listens slowly: she misses some, and learns that.

use std::time::SystemTime;

use tokio::sync::broadcast;

use crate::name::{AccountName, WorkspaceName};

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Since the gateway's start, counted from 1.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// What.
    pub news: News,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A workspace is doing something else.
    State {
        /// Which.
        workspace: WorkspaceName,
        /// What, in the words of [`super::Overview::state`].
        state: &'static str,
    },
    /// Something was set of a workspace.
    Changed {
        /// Of which.
        workspace: WorkspaceName,
        /// What, in a word or two.
        what: &'static str,
    },
    /// A workspace was made otherwise than by a login.
    Made {
        /// Which.
        workspace: WorkspaceName,
    },
    /// A session began.
    SessionBegan {
        /// Its number.
        session: u64,
        /// Whose it is.
        account: AccountName,
        /// Where.
        workspace: WorkspaceName,
    },
    /// A session is over.
    SessionEnded {
        /// Its number.
        session: u64,
        /// Whose it was.
        account: AccountName,
        /// Where.
        workspace: WorkspaceName,
    },
}

/// Where it is told.
#[derive(Debug, Clone)]
pub(super) struct Events(broadcast::Sender<Event>, std::sync::Arc<parking_lot::Mutex<u64>>);

/// How many wait for who listens slowly: a burst of a thousand logins is a few thousand.
const KEPT: usize = 1024;

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT), std::sync::Arc::default())
    }
}

impl Events {
    /// Tells those who listen now.
    pub(super) fn tell(&self, news: News) {
        // Held while it is sent, so that numbers arrive in their order. Nothing waits in here.
        let mut number = self.1.lock();
        *number += 1;
        // Nobody may be there to hear it.
        let _ = self.0.send(Event { number: *number, at: SystemTime::now(), news });
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
