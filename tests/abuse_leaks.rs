//! Ten thousand sessions in several workspaces: no descriptor stays, and none gets where it does not belong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fault::{Holdings, holdings, pause};
use gateway::{Gateway, template};
use russh::client::{self, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{ChannelMsg, Disconnect};

const ACCOUNTS: [&str; 3] = ["alice", "bob", "carol"];

/// Sessions of each account: so many connections, one after the other, with so many sessions on each, so many at once.
const CONNECTIONS: usize = 17;
const ON_EACH: usize = 200;
const AT_ONCE: usize = 4;

/// Says which descriptors it has beside the first three, and looks for them without opening anything.
const LOOK: &str = "for ((i = 3; i < 64; i++)); do [ -e /proc/self/fd/$i ] && echo $i; done; exit 7";

struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// One session: every second at a terminal, every eighth looks around, every 49th is left without waiting for its end.
async fn session(connection: &Handle<Trusting>, nth: usize) {
    let mut channel = connection.channel_open_session().await.unwrap();
    if nth % 2 == 1 {
        channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    }
    let line = if nth % 8 < 2 { LOOK } else { "exit 7" };
    channel.exec(true, line).await.unwrap();
    if nth.is_multiple_of(49) {
        channel.close().await.unwrap();
        return;
    }
    let (mut said, mut status) = (Vec::new(), None);
    while let Some(news) = channel.wait().await {
        match news {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => said.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    assert_eq!((String::from_utf8_lossy(&said).as_ref(), status), ("", Some(7)), "session {nth}");
}

async fn account(port: u16, name: &str, key: Arc<PrivateKey>) {
    for _ in 0..CONNECTIONS {
        let mut connection = client::connect(Arc::default(), ("127.0.0.1", port), Trusting).await.unwrap();
        let login = connection.authenticate_publickey(name, PrivateKeyWithHashAlg::new(key.clone(), None)).await.unwrap();
        assert!(login.success());
        let connection = &connection;
        let lanes = (0..AT_ONCE).map(|lane| async move {
            for nth in (lane..ON_EACH).step_by(AT_ONCE) {
                session(connection, nth).await;
            }
        });
        futures_util::future::join_all(lanes).await;
        connection.disconnect(Disconnect::ByApplication, "", "").await.unwrap();
    }
}

/// The gateway's holdings, and those of each init.
fn all(gateway: &Gateway) -> Vec<Holdings> {
    let inits = ACCOUNTS.map(|account| gateway.inspect(account, "{{.State.Pid}}").parse().unwrap());
    std::iter::once(gateway.pid()).chain(inits).map(holdings).collect()
}

/// Threads of the pool for what waits for the disk that may have stayed: each goes when it had nothing to do for ten seconds, and the gateway's own
/// looks at its disks, seconds apart, are dealt out among those there are.
const POOL: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sessions_leave_no_descriptor() {
    let gateway = Gateway::start(&template("pids = 256"));
    for name in ACCOUNTS {
        for _ in 0..5 {
            gateway.exec(name, "true").good();
        }
    }
    pause(500);
    let before = all(&gateway);
    let key = Arc::new(load_secret_key(gateway.dir.path().join("id"), None).unwrap());
    let since = Instant::now();
    let port = gateway.ssh_port;
    let accounts = ACCOUNTS.map(|name| tokio::spawn(account(port, name, key.clone())));
    for account in accounts {
        tokio::time::timeout(Duration::from_secs(600), account).await.expect("took too long").unwrap();
    }
    let took = since.elapsed();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let after = all(&gateway);
        let stays = |(before, after): (&Holdings, &Holdings)| {
            after.descriptors > before.descriptors + 3 || after.memory > before.memory + 48 * 1024 || after.threads > before.threads + POOL
        };
        if !before.iter().zip(&after).any(stays) {
            break;
        }
        assert!(Instant::now() < deadline, "after {took:?}: {before:?} became {after:?}");
        pause(200);
    }
}
