//! What a person sees while her workspace is made ready: one line at the terminal that is written over, and gone before her shell is there.
//!
//! Who is quickly served sees nothing, and who has no terminal never does.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::client::Client;
use super::words;
use crate::workspace::Progress;

/// How long a wait is not worth a word.
const QUIET: Duration = Duration::from_millis(300);

/// Least time between two versions of the line: a pull reports hundreds of steps a second.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// How long a terminal that takes no output may hold up the wait itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// Back to the line's beginning, and clear it.
const CLEAR: &str = "\r\x1b[K";

/// Awaits `work` while showing its progress in a line of at most `columns` characters.
pub(super) async fn show<T>(client: &Client, columns: u16, mut progress: watch::Receiver<Progress>, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut shown: Option<String> = None;
    let mut next = Instant::now() + QUIET;
    let done = loop {
        tokio::select! {
            biased;
            done = &mut work => break done,
            () = tokio::time::sleep_until(next) => {}
        }
        let line = words::progress(&progress.borrow_and_update()).map(|text| fit(&text, columns));
        if let Some(line) = line
            && shown.as_ref() != Some(&line)
        {
            let _ = tokio::time::timeout(PATIENCE, client.write(format!("{CLEAR}{line}"))).await;
            shown = Some(line);
        }
        // Nothing changes any more once the sender is gone: only the work remains to be awaited.
        tokio::select! {
            biased;
            done = &mut work => break done,
            changed = progress.changed() => if changed.is_err() { break work.await },
        }
        next = Instant::now() + AT_MOST_EVERY;
    };
    if shown.is_some() {
        let _ = tokio::time::timeout(PATIENCE, client.write(CLEAR)).await;
    }
    done
}

/// Cuts a line so that it does not wrap: what has wrapped cannot be written over.
fn fit(text: &str, columns: u16) -> String {
    text.chars().take(usize::from(columns.max(2)) - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_never_reach_the_last_column() {
        assert_eq!(fit("abcdef", 4), "abc");
        assert_eq!(fit("abc", 80), "abc");
        assert_eq!(fit("abc", 0), "a");
    }
}
