//! The size of an exec's terminal.
//!
//! The engine takes a size only once the process runs, and does not say when that is: the first one is offered until it is taken, and
//! what the client says meanwhile replaces it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::attach::WindowSize;
use crate::engine::{Engine, EngineError, ExecId};

/// Waits between offers of the first size, in milliseconds. A process that has not started after these ten seconds never will.
const OFFERS: [u64; 13] = [0, 10, 20, 40, 80, 150, 300, 600, 800, 1000, 2000, 2000, 3000];

/// How long the login script may take to set the size that the terminal was opened with, at the wrong moment: after it looked whether
/// there is a newer one, and before it set its own. After each of these, a newer one is said once more: on a busy host the first is too soon.
const SCRIPT: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];

/// A terminal, as far as its size is concerned. One task tells the engine, so that an older size never overtakes a newer one.
pub(super) struct Terminal {
    size: watch::Sender<WindowSize>,
}

impl Terminal {
    /// A terminal that was just opened with this size, which it is given as soon as possible.
    pub(super) fn open(engine: Arc<dyn Engine>, exec: ExecId, size: WindowSize) -> Self {
        let (sender, sizes) = watch::channel(size);
        tokio::spawn(follow(engine, exec, size, sizes));
        Self { size: sender }
    }

    /// Gives it another size, now or as soon as it takes one. Of several that come at once, the newest counts.
    pub(super) fn resize(&self, size: WindowSize) {
        self.size.send_replace(size);
    }
}

/// Tells the engine each size, until the terminal is dropped. There may be a newer one than it was opened with before this runs.
async fn follow(engine: Arc<dyn Engine>, exec: ExecId, opened_with: WindowSize, mut sizes: watch::Receiver<WindowSize>) {
    for wait in OFFERS {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let offered = *sizes.borrow_and_update();
        if tell(&*engine, &exec, offered).await.is_ok() {
            break;
        }
    }
    let mut again = SCRIPT.into_iter();
    loop {
        let wait = if *sizes.borrow() == opened_with { None } else { again.next() };
        let changed = match wait {
            Some(wait) => tokio::time::timeout(wait, sizes.changed()).await.unwrap_or(Ok(())),
            None => sizes.changed().await,
        };
        if changed.is_err() {
            return;
        }
        let newest = *sizes.borrow_and_update();
        // A process that has ended meanwhile needs no size.
        let _ = tell(&*engine, &exec, newest).await;
    }
}

async fn tell(engine: &dyn Engine, exec: &ExecId, size: WindowSize) -> Result<(), EngineError> {
    // Zero means unknown.
    if size.columns == 0 || size.rows == 0 {
        return Ok(());
    }
    engine.exec_resize(exec, size.columns, size.rows).await
}
