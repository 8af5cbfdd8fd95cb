//! Many people who sit at a prompt and do nothing: a connection, a terminal and a shell each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::Run;
use crate::gateway::{Gateway, Setup};
use crate::report::Row;
use crate::{process, wait};

/// The most that one may hold of the gateway's memory, in KiB.
const BOUND: f64 = 96.0;

/// How many sit in one container.
const TOGETHER: usize = 100;

/// How many of sshd's suffice to see what one takes: its processes are all alike.
const SSHD_SESSIONS: usize = 25;

/// How long all must have been silent before it is counted.
const SETTLE: Duration = Duration::from_secs(10);

/// How long one login may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// How many log in at a time.
const AT_ONCE: usize = 8;

/// Row 6 of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let sessions = run.repetitions(500, 50);
    let accounts: Vec<String> = (0..sessions.div_ceil(TOGETHER)).map(|number| format!("sitting{number}")).collect();
    let setup = Setup { name: "sitting", template: "pids = 4096\n", ..Setup::default() };
    let gateway = Gateway::start(&run.place, setup, &accounts)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let key = Arc::new(russh::keys::load_secret_key(run.place.path("id"), None)?);

    run.progress("terminals: sshd");
    let before = process::family(run.sshd.pid(), "sshd")?;
    let root = vec!["root".to_owned()];
    let sitting = sit(run, &runtime, &key, run.sshd.port, &root, SSHD_SESSIONS)?;
    wait::pause(SETTLE)?;
    #[allow(clippy::cast_precision_loss, reason = "a few hundred")]
    let of_sshd = (process::family(run.sshd.pid(), "sshd")? - before) / SSHD_SESSIONS as f64;
    drop(sitting);

    // One each has come and gone: what is made once, and the containers, are there before it is counted.
    drop(sit(run, &runtime, &key, gateway.port, &accounts, accounts.len())?);
    wait::pause(SETTLE)?;
    let before = process::resident(gateway.pid())?;
    let sitting = sit(run, &runtime, &key, gateway.port, &accounts, sessions)?;
    wait::pause(SETTLE)?;
    let after = process::resident(gateway.pid())?;
    ensure!(sitting.iter().all(|one| !one.0.is_closed()), "somebody was thrown out");
    drop(sitting);
    #[allow(clippy::cast_precision_loss, reason = "a few hundred")]
    let each = (after - before) / sessions as f64;
    let note = format!(
        "{:.1} MiB before, {:.1} MiB with {sessions}; sshd: of {SSHD_SESSIONS}, shared memory counted once",
        before / 1024.0,
        after / 1024.0
    );
    Ok(vec![
        Row::new(format!("gateway's memory for each of {sessions} idle terminals; beside: sshd"), each, "KiB")
            .beside(of_sshd)
            .at_most(BOUND)
            .note(note),
    ])
}

/// A person at a prompt. She leaves when this is dropped.
struct Sitting(Handle<Client>, #[allow(dead_code, reason = "keeps the session open")] Channel<Msg>);

/// A client that trusts the server it has just been told to measure.
struct Client;

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

fn sit(run: &Run, runtime: &Runtime, key: &Arc<PrivateKey>, port: u16, accounts: &[String], how_many: usize) -> Result<Vec<Sitting>> {
    let people: Vec<&String> = accounts.iter().cycle().take(how_many).collect();
    let mut sitting = Vec::with_capacity(how_many);
    for group in people.chunks(AT_ONCE) {
        wait::go_on()?;
        let arrivals = group.iter().map(|account| async { timeout(DEADLINE, arrive(key.clone(), port, account)).await? });
        sitting.extend(runtime.block_on(futures_util::future::try_join_all(arrivals))?);
        if sitting.len() % 100 < AT_ONCE {
            run.progress(&format!("terminals: {} of {how_many}", sitting.len()));
        }
    }
    Ok(sitting)
}

/// Logs in and waits for the prompt.
async fn arrive(key: Arc<PrivateKey>, port: u16, account: &str) -> Result<Sitting> {
    // She sits in this process, so her buffers are small.
    let config = client::Config { window_size: 64 * 1024, inactivity_timeout: None, ..client::Config::default() };
    let mut connection = client::connect(Arc::new(config), ("127.0.0.1", port), Client).await?;
    let login = connection.authenticate_publickey(account, PrivateKeyWithHashAlg::new(key, None)).await?;
    ensure!(login.success(), "{account} was not let in");
    let mut channel = connection.channel_open_session().await?;
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await?;
    channel.request_shell(true).await?;
    loop {
        match channel.wait().await.context("no prompt")? {
            ChannelMsg::Data { .. } => return Ok(Sitting(connection, channel)),
            ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::ExitStatus { .. } => anyhow::bail!("no shell for {account}"),
            _ => {}
        }
    }
}
