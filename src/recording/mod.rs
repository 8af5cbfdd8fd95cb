//! Recordings of terminals, and what a terminal looks like right now.
//!
//! A recording is a file in asciinema's format (version 2), compressed, and encrypted where there is a key. What a terminal is sent is handed
//! to its [`Tap`] on the way to the client; a thread of its own writes it down a moment later, so that no session waits for a disk. The files
//! are all there is: what is known of them is read from them at the start. Where a bucket is named, a second thread takes there what has ended, and
//! only a recording's head stays. Nothing is known here of who records or looks on.

mod cast;
mod config;
mod end;
mod far;
mod files;
mod id;
mod index;
mod live;
mod play;
mod reader;
mod recordings;
mod screen;
mod seal;
#[cfg(test)]
mod tests;
mod text;
mod writer;

pub use config::{Config, OnFailure, WhenDeleted};
pub use end::{End, Failure};
pub use id::RecordingId;
pub use index::{Recorded, State};
pub use live::{Tap, View, Watch};
pub use play::{Pace, play};
pub use reader::{Broken, Reader};
pub use recordings::{Recordings, RecordingsError, Start};
pub use screen::{Cursor, Frame, Look, Shade};
