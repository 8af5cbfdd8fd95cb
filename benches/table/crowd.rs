//! Clients in this process, each with a connection and a terminal of its own: as processes of OpenSSH's, hundreds of them would need the machine
//! for themselves. It does not know what they are there for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::Run;
use crate::wait;

/// How long one login may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// How many log in at a time.
const AT_ONCE: usize = 8;

/// What a command prints once it is ready for what is to come. A gateway's own words, which may come first, do not hold it.
pub const READY: &str = "<ready>";

/// One thread for all of them, so that the rest of the machine is left to what is measured.
pub fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// The key that all of them log in with.
pub fn key(run: &Run) -> Result<Arc<PrivateKey>> {
    Ok(Arc::new(russh::keys::load_secret_key(run.place.path("id"), None)?))
}

/// People who come to one server and stay.
#[derive(Clone, Copy)]
pub struct Crowd<'a> {
    /// What they are called when progress is reported.
    pub name: &'a str,
    /// Where it listens.
    pub port: u16,
    /// Who they are, in turn.
    pub accounts: &'a [String],
    /// How many.
    pub size: usize,
    /// What each runs, which must print [`READY`]. `None`: her login shell.
    pub command: Option<&'a str>,
}

/// Somebody at a terminal. She leaves when this is dropped.
pub struct Seat {
    /// Her connection.
    pub connection: Handle<Client>,
    /// Her session.
    pub channel: Channel<Msg>,
}

/// A client that trusts the server it has just been told to measure.
pub struct Client;

// === impl Crowd ===

impl Crowd<'_> {
    /// All of them arrive, a few at a time. Returns when each has a prompt, or is ready.
    pub fn arrive(&self, run: &Run, runtime: &Runtime, key: &Arc<PrivateKey>) -> Result<Vec<Seat>> {
        let people: Vec<&String> = self.accounts.iter().cycle().take(self.size).collect();
        let mut seats = Vec::with_capacity(self.size);
        for group in people.chunks(AT_ONCE) {
            wait::go_on()?;
            let arrivals = group.iter().map(|account| sit(key.clone(), self.port, account, self.command));
            seats.extend(runtime.block_on(futures_util::future::try_join_all(arrivals))?);
            if seats.len() % 100 < AT_ONCE {
                run.progress(&format!("{}: {} of {}", self.name, seats.len(), self.size));
            }
        }
        Ok(seats)
    }
}

/// One of them arrives: logs in, and waits for the prompt or until the command is ready.
pub async fn sit(key: Arc<PrivateKey>, port: u16, account: &str, command: Option<&str>) -> Result<Seat> {
    let arrival = async {
        let connection = log_in(key, port, account).await?;
        let mut channel = open(&connection, command).await?;
        let mut said = Vec::new();
        loop {
            said.extend(output(&mut channel).await.with_context(|| format!("{account} has read {:?}", String::from_utf8_lossy(&said)))?);
            if command.is_none() || said.windows(READY.len()).any(|window| window == READY.as_bytes()) {
                return Ok(Seat { connection, channel });
            }
        }
    };
    timeout(DEADLINE, arrival).await?
}

/// A connection that is logged in.
pub async fn log_in(key: Arc<PrivateKey>, port: u16, account: &str) -> Result<Handle<Client>> {
    // She sits in this process, so her buffers are small. Without a delay, as OpenSSH's client does it at a terminal.
    let config = client::Config { window_size: 64 * 1024, inactivity_timeout: None, nodelay: true, ..client::Config::default() };
    let mut connection = client::connect(Arc::new(config), ("127.0.0.1", port), Client).await?;
    let login = connection.authenticate_publickey(account, PrivateKeyWithHashAlg::new(key, None)).await?;
    ensure!(login.success(), "{account} was not let in");
    Ok(connection)
}

/// Asks for a process at a terminal; what comes of it is told by [`output`].
pub async fn open(connection: &Handle<Client>, command: Option<&str>) -> Result<Channel<Msg>> {
    let channel = connection.channel_open_session().await?;
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await?;
    match command {
        Some(command) => channel.exec(true, command).await?,
        None => channel.request_shell(true).await?,
    }
    Ok(channel)
}

/// What comes next out of a session.
pub async fn output(channel: &mut Channel<Msg>) -> Result<Vec<u8>> {
    loop {
        match channel.wait().await.context("no more output")? {
            ChannelMsg::Data { data } => return Ok(data.to_vec()),
            ChannelMsg::Failure => bail!("a request was refused"),
            ChannelMsg::ExitStatus { exit_status } => bail!("the process has ended with {exit_status}"),
            ChannelMsg::Close => bail!("the session was closed"),
            _ => {}
        }
    }
}

// === impl Client ===

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}
