//! Workspace URLs: HTTP from the outside to a port on the loopback of somebody's container.
//!
//! `https://8080--alice.example.org` is port 8080 in Alice's container. Whoever asks shows a signed link, which becomes a cookie of that host,
//! unless the port is public; nobody else learns whether there is anything. What is asked for is started if it sleeps. An application gets
//! neither our cookie nor a header that says who it is about but ours. Knows workspaces through [`crate::workspace::Keeper`] alone.

mod access;
mod body;
mod config;
mod headers;
mod links;
mod pages;
mod places;
mod proxy;
mod server;
mod stays;
mod target;
mod tls;
mod upstream;

pub use access::OPEN;
pub use config::{Config, Fixed};
pub use links::{Link, LinkError, Links, NewLink};
pub use server::{Entry, Server, serve};
pub use target::Target;
pub use tls::TlsError;
