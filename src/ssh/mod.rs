//! The SSH server: the only room that names russh.
//!
//! Top to bottom: [`Server`] runs listeners; `listener` accepts and `admission` says who may try; `connection` watches over one connection
//! from outside its protocol, with `guard` as the means to end it; `handler` answers the client's messages, `login` and `channel` decide what
//! the answers are; `session` is the task behind one session channel, with `waiting`, `bridge`, `input` and `client` as its parts, `aids` for what
//! the client lends it, `terminals` for those that have a name, and `leaving` for what becomes of a process when its client has gone. `forward`
//! is one forwarded connection, carried by `tunnel`; `remote` listens for them. `inputs` and `windows` keep one channel of a connection from
//! standing in the way of the others. `words` has every sentence that a person reads. Nothing here knows containers, paths of homes, or the
//! engine: only a [`crate::workspace::Keeper`].

mod admission;
mod aids;
mod bridge;
mod channel;
mod client;
mod config;
mod connection;
mod environment;
mod forward;
mod guard;
mod handler;
mod host_keys;
mod input;
mod inputs;
mod leaving;
mod listener;
mod login;
mod prompt;
mod protocol;
mod remote;
mod server;
mod session;
mod tasks;
mod terminals;
mod tunnel;
mod waiting;
mod windows;
mod words;

pub use config::{Config, SessionConfig};
pub use host_keys::HostKeyError;
pub use server::{Server, SshError, SshSettings};
