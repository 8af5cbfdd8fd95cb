//! A recording as screens at the pace of its session.

use std::time::Duration;

use super::cast::{self, What};
use super::reader::{Broken, Reader};
use super::screen::{Frame, Screen};

/// How a recording is played.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How much faster than it was.
    pub speed: f64,
    /// From which second on; all before is one screen.
    pub from: f64,
    /// How long a pause is at most, in seconds of the recording.
    pub idle: f64,
}

/// The shortest time between two screens.
const EVERY: f64 = 0.125;

/// Plays it: waits by `wait` and shows by `show`, each of which says whether to go on. Returns whether it came to its end.
pub fn play(
    mut reader: Reader,
    size: (u16, u16),
    pace: Pace,
    wait: &mut dyn FnMut(Duration) -> bool,
    show: &mut dyn FnMut(Frame) -> bool,
) -> Result<bool, Broken> {
    let mut screen = Screen::new(size.0, size.1);
    // The second of the recording that is shown, and that up to which was waited; whether the screen is another than was shown.
    let (mut at, mut shown, mut stale) = (pace.from, f64::NEG_INFINITY, true);
    // The header's line says what is known.
    let mut broken = reader.line().err();
    while broken.is_none() {
        let line = match reader.line() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(why) => {
                broken = Some(why);
                break;
            }
        };
        let Some((seconds, what)) = cast::parse(&line) else { continue };
        // What came before a pause is seen during it.
        let gap = seconds - at;
        if gap > 0.0 {
            if stale && seconds - shown >= EVERY * pace.speed {
                if !show(screen.frame(at)) {
                    return Ok(false);
                }
                (shown, stale) = (at, false);
            }
            if !wait(Duration::try_from_secs_f64(gap.min(pace.idle) / pace.speed).unwrap_or_default()) {
                return Ok(false);
            }
            at = seconds;
        }
        match what {
            What::Output(text) => screen.feed(&text),
            What::Resized(columns, rows) => screen.resize(columns, rows),
            What::Mark(_) | What::Other => continue,
        }
        stale = true;
    }
    if stale {
        show(screen.frame(at));
    }
    broken.map_or(Ok(true), Err)
}
