//! Waiting for things outside this process, and being told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

/// How long anything is waited for.
const DEADLINE: Duration = Duration::from_secs(120);

/// How often it is looked.
const POLL: Duration = Duration::from_millis(20);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C and SIGTERM end the run at the next step, so that what was made is removed.
pub fn heed_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
            loop {
                tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
                INTERRUPTED.store(true, Ordering::Relaxed);
                eprintln!("stopping and cleaning up");
            }
        });
    });
    Ok(())
}

/// Fails once somebody wants the run to end.
pub fn go_on() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// Sleeps, but not on after an interruption.
pub fn pause(how_long: Duration) -> Result<()> {
    let end = Instant::now() + how_long;
    loop {
        go_on()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        sleep(left.min(Duration::from_millis(200)));
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    while !so().with_context(|| format!("waiting for {what}"))? {
        go_on()?;
        ensure!(Instant::now() < end, "waited in vain for {what}");
        sleep(POLL);
    }
    Ok(())
}
