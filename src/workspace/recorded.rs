//! A process at a terminal whose output is recorded on its way to whoever opened it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::Stream;

use super::Ending;
use super::directory::Directory;
use super::keeper::Recorded;
use crate::attach::{AttachError, Chunk, Control, Exit, Process, Pty, WindowSize};
use crate::name::WorkspaceName;
use crate::recording::{End, OnFailure, Start, Tap};

/// What it sends, recorded as it is taken.
struct Output {
    of: Pin<Box<dyn Stream<Item = io::Result<Chunk>> + Send>>,
    tap: Arc<Tap>,
}

/// What can be asked of it. The recording ends with the output, though this be held for longer.
struct Reins {
    of: Arc<dyn Control>,
    tap: Weak<Tap>,
}

impl Directory {
    /// Records a process from now on, and lets it be watched where that may be.
    pub(super) fn record(&self, workspace: &WorkspaceName, recorded: &Recorded, pty: &Pty, process: Process) -> Process {
        let WindowSize { columns, rows } = pty.size;
        let recordings = &self.house.parts.recordings;
        let begun = recordings.begin(Start {
            workspace: workspace.clone(),
            account: recorded.account.as_str().to_owned(),
            template: recorded.template.clone(),
            session: recorded.session,
            columns,
            rows,
            watchable: recorded.watchable,
        });
        let Some(tap) = begun else { return process };
        self.house.roll.shows(recorded.session, tap.view());
        if recordings.on_failure() == OnFailure::EndSession {
            let (roll, view, session) = (self.house.roll.clone(), tap.view(), recorded.session);
            tokio::spawn(async move {
                if view.over().await.is_some() {
                    roll.end(session, Ending::Unrecorded);
                }
            });
        }
        let tap = Arc::new(tap);
        Process {
            input: process.input,
            control: Arc::new(Reins { of: process.control, tap: Arc::downgrade(&tap) }),
            output: Box::pin(Output { of: process.output, tap }),
        }
    }
}

impl Stream for Output {
    type Item = io::Result<Chunk>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = this.of.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Ok(chunk))) = &next {
            this.tap.output(&chunk.data);
        }
        next
    }
}

#[async_trait::async_trait]
impl Control for Reins {
    async fn resize(&self, size: WindowSize) -> Result<(), AttachError> {
        if let Some(tap) = self.tap.upgrade() {
            tap.resized(size.columns, size.rows);
        }
        self.of.resize(size).await
    }

    async fn signal(&self, name: &str) -> Result<(), AttachError> {
        self.of.signal(name).await
    }

    async fn exit(&self) -> Result<Exit, AttachError> {
        let exit = self.of.exit().await;
        if let (Ok(exit), Some(tap)) = (&exit, self.tap.upgrade()) {
            tap.ends(End::Exited(match exit {
                Exit::Status(status) => format!("status {status}"),
                Exit::Signal(name) => format!("signal {name}"),
            }));
        }
        exit
    }

    async fn orphaned(&self) {
        self.of.orphaned().await;
    }

    async fn hang_up(&self) -> Result<(), AttachError> {
        self.of.hang_up().await
    }

    fn outlives(&self) -> bool {
        self.of.outlives()
    }
}
