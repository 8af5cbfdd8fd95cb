//! Health and metrics over HTTP, and the API: the only room that names axum and utoipa.
//!
//! Health and metrics are read-only, and ask nobody for a name: they may be known to whoever can reach the address. Answers there are
//! remembered for a moment, so that asking often costs nobody else anything. The API ([`api`]) takes a token there, and none on a Unix socket
//! that only this process's user can open. The dashboard ([`dashboard`]) is pages that ask the API, in a session ([`sessions`]).

mod api;
mod config;
mod dashboard;
mod pages;
mod server;
mod sessions;

pub use api::{Api, EngineView, Gateway, Reloaded, openapi};
pub use config::Config;
pub use dashboard::{Oidc, OidcConfig};
pub use pages::Pages;
pub use server::{listen_for_admin, serve, serve_admin};
