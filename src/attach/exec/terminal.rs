//! The size of an exec's terminal.
//!
//! The engine takes a size only once the process runs, and does not say when that is: the first one is offered until it is taken, and
//! what the client says meanwhile replaces it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::attach::WindowSize;
use crate::engine::{Engine, EngineError, ExecId};

/// Waits between offers of the first size, in milliseconds. A process that has not started after these two seconds never will.
const OFFERS: [u64; 9] = [0, 10, 20, 40, 80, 150, 300, 600, 800];

/// How long the login script may take to set the size that the terminal was opened with, at the wrong moment: after it looked whether
/// there is a newer one, and before it set its own. After this, a newer one is said once more.
const SCRIPT: Duration = Duration::from_millis(500);

/// A terminal, as far as its size is concerned.
pub(super) struct Terminal {
    engine: Arc<dyn Engine>,
    exec: ExecId,
    size: Mutex<Size>,
}

struct Size {
    latest: WindowSize,
    /// Whether the engine takes sizes now.
    settled: bool,
}

impl Terminal {
    /// A terminal that was just opened with this size, which it is given as soon as possible.
    pub(super) fn open(engine: Arc<dyn Engine>, exec: ExecId, size: WindowSize) -> Arc<Self> {
        let terminal = Arc::new(Self { engine, exec, size: Mutex::new(Size { latest: size, settled: false }) });
        let opening = terminal.clone();
        tokio::spawn(async move { opening.settle(size).await });
        terminal
    }

    /// Gives it another size, now or as soon as it takes one.
    pub(super) async fn resize(&self, size: WindowSize) -> Result<(), EngineError> {
        let settled = {
            let mut known = self.size.lock();
            known.latest = size;
            known.settled
        };
        if settled { self.tell(size).await } else { Ok(()) }
    }

    async fn settle(&self, opened_with: WindowSize) {
        for wait in OFFERS {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let offered = self.size.lock().latest;
            if self.tell(offered).await.is_err() {
                continue;
            }
            let mut known = self.size.lock();
            if known.latest == offered {
                known.settled = true;
                break;
            }
        }
        let latest = {
            let mut known = self.size.lock();
            known.settled = true;
            known.latest
        };
        if latest != opened_with {
            tokio::time::sleep(SCRIPT).await;
            let latest = self.size.lock().latest;
            // It has been told once; a process that has ended meanwhile needs no size.
            let _ = self.tell(latest).await;
        }
    }

    async fn tell(&self, size: WindowSize) -> Result<(), EngineError> {
        // Zero means unknown.
        if size.columns == 0 || size.rows == 0 {
            return Ok(());
        }
        self.engine.exec_resize(&self.exec, size.columns, size.rows).await
    }
}
