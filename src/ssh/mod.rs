//! The SSH server: the only room that names russh.
//!
//! Top to bottom: [`Server`] runs listeners; `listener` accepts and `admission` says who may try; `connection` watches over one connection
//! from outside its protocol, with `guard` as the means to end it; `handler` answers the client's messages, `login` and `channel` decide what
//! the answers are; `session` is the task behind one session channel, with `waiting`, `bridge`, `input` and `client` as its parts. `words`
//! has every sentence that a person reads. Nothing here knows containers, paths of homes, or the engine: only a [`crate::workspace::Keeper`].

mod admission;
mod bridge;
mod channel;
mod client;
mod config;
mod connection;
mod environment;
mod guard;
mod handler;
mod host_keys;
mod input;
mod listener;
mod login;
mod protocol;
mod server;
mod session;
mod tasks;
mod waiting;
mod words;

pub use config::Config;
pub use host_keys::HostKeyError;
pub use server::{Server, SshError, SshSettings};
