//! Ten thousand sessions and forwards in several workspaces: no descriptor stays, and none gets where it does not belong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/client.rs"]
mod client;
#[path = "common/fault.rs"]
mod fault;
#[path = "common/forward.rs"]
mod forward;
#[path = "common/gateway.rs"]
mod gateway;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, ask, connect, end};
use fault::{Holdings, holdings, pause};
use forward::echo_of;
use gateway::{Gateway, Session, template, wait_for, without_waiting};
use russh::Disconnect;
use russh::client::Handle;
use russh::keys::PrivateKey;

const ACCOUNTS: [&str; 3] = ["alice", "bob", "carol"];

/// What each account does: so many connections, one after the other, with so much on each, so much at once.
const CONNECTIONS: usize = 17;
const ON_EACH: usize = 200;
const AT_ONCE: usize = 4;

/// Says which descriptors it has beside the first three, and looks for them without opening anything.
const LOOK: &str = "for ((i = 3; i < 64; i++)); do [ -e /proc/self/fd/$i ] && echo $i; done; exit 7";

/// Where something inside repeats what it hears.
const SOCKET: &str = "/home/user/echo";

/// What is done with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// A command: every second at a terminal, every fourth looks around.
    Session,
    /// A connection to a port inside.
    Local,
    /// To a socket inside.
    LocalSocket,
    /// To a port at which nobody listens.
    Refused,
    /// Somebody inside connects to a port that leads to the client.
    Remote,
    /// To a socket that does.
    RemoteSocket,
    /// To the client's key agent.
    Agent,
}

/// One connection's, with what there is at both ends.
struct Ends {
    connection: Handle<Client>,
    /// A port inside that repeats what it hears, and one that leads here.
    inside: u16,
    here: u32,
    /// A socket that leads here.
    socket: String,
}

fn deed(nth: usize) -> Deed {
    match (nth % 10, nth / 10) {
        (8, tens) => [Deed::Local, Deed::LocalSocket, Deed::Local, Deed::Refused][tens % 4],
        (9, tens) => [Deed::Remote, Deed::Agent, Deed::RemoteSocket][tens % 3],
        _ => Deed::Session,
    }
}

/// Does the nth. Every 49th that begins here is left without waiting for its end.
async fn perform(ends: &Ends, nth: usize) {
    let Ends { connection, inside, here, socket } = ends;
    let is_left = nth.is_multiple_of(49);
    match deed(nth) {
        Deed::Session => {
            let channel = connection.channel_open_session().await.unwrap();
            if nth % 2 == 1 {
                channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
            }
            channel.exec(true, if nth % 8 < 2 { LOOK } else { "exit 7" }).await.unwrap();
            if is_left {
                return channel.close().await.unwrap();
            }
            // On a busy machine she may have read that she waits.
            let (said, status) = end(channel).await;
            assert_eq!((without_waiting(said.as_bytes()), status), (&b""[..], Some(7)), "session {nth}");
        }
        Deed::Local => {
            let channel = connection.channel_open_direct_tcpip("127.0.0.1", u32::from(*inside), "127.0.0.1", 1).await.unwrap();
            if is_left {
                return channel.close().await.unwrap();
            }
            assert_eq!(ask(channel, "hello").await, "127.0.0.1 hello", "connection {nth}");
        }
        Deed::LocalSocket => {
            let channel = connection.channel_open_direct_streamlocal(SOCKET).await.unwrap();
            if is_left {
                return channel.close().await.unwrap();
            }
            assert_eq!(ask(channel, "hello").await, format!("{SOCKET} hello"), "connection {nth}");
        }
        Deed::Refused => assert!(connection.channel_open_direct_tcpip("127.0.0.1", 1, "127.0.0.1", 1).await.is_err()),
        Deed::Remote => {
            let line = format!("exec 3<>/dev/tcp/127.0.0.1/{here} && echo hello >&3 && read -r word <&3 && echo $word; exit 7");
            let channel = connection.channel_open_session().await.unwrap();
            channel.exec(true, line).await.unwrap();
            assert_eq!(end(channel).await, ("hello\n".to_owned(), Some(7)), "connection {nth} from inside");
        }
        Deed::Agent | Deed::RemoteSocket => {
            let channel = connection.channel_open_session().await.unwrap();
            let line = if deed(nth) == Deed::Agent {
                channel.agent_forward(true).await.unwrap();
                "ssh-add -l; exit 7".to_owned()
            } else {
                // It asks whoever is there what keys she has.
                format!("SSH_AUTH_SOCK={socket} ssh-add -l; exit 7")
            };
            channel.exec(true, line).await.unwrap();
            assert_eq!(end(channel).await, ("The agent has no identities.\n".to_owned(), Some(7)), "agent {nth}");
        }
    }
}

async fn account(port: u16, name: &str, key: Arc<PrivateKey>, inside: u16) {
    for nth in 0..CONNECTIONS {
        let connection = connect(port, name, key.clone()).await;
        let here = connection.tcpip_forward("127.0.0.1", 0).await.unwrap();
        let socket = format!("/home/user/back-{nth}");
        connection.streamlocal_forward(&socket).await.unwrap();
        let ends = &Ends { connection, inside, here, socket };
        let lanes = (0..AT_ONCE).map(|lane| async move {
            for nth in (lane..ON_EACH).step_by(AT_ONCE) {
                perform(ends, nth).await;
            }
        });
        futures_util::future::join_all(lanes).await;
        if nth % 2 == 0 {
            // The others end with their connection.
            ends.connection.cancel_tcpip_forward("127.0.0.1", here).await.unwrap();
            ends.connection.cancel_streamlocal_forward(&ends.socket).await.unwrap();
        }
        ends.connection.disconnect(Disconnect::ByApplication, "", "").await.unwrap();
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
async fn ten_thousand_sessions_and_forwards_leave_no_descriptor() {
    let gateway = Gateway::start(&template("pids = 256"));
    let inside: Vec<(Session, u16)> = ACCOUNTS
        .into_iter()
        .map(|name| {
            for _ in 0..5 {
                gateway.exec(name, "true").good();
            }
            let (session, ports) = echo_of(&gateway, name, &["127.0.0.1", SOCKET]);
            (session, ports[0])
        })
        .collect();
    pause(500);
    let before = all(&gateway);
    let key = client::key(&gateway);
    let since = Instant::now();
    let port = gateway.ssh_port;
    let accounts: Vec<_> =
        ACCOUNTS.into_iter().zip(&inside).map(|(name, (_, inside))| tokio::spawn(account(port, name, key.clone(), *inside))).collect();
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
    // Each was what it was meant to be, and is over.
    gateway.wait_metric("innkeeper_forwards_open", |open| open == 0.0);
    for (kind, outcome, wanted) in [
        ("local", "opened", Deed::Local),
        ("local_socket", "opened", Deed::LocalSocket),
        ("local", "failed", Deed::Refused),
        ("remote", "opened", Deed::Remote),
        ("remote_socket", "opened", Deed::RemoteSocket),
        ("agent", "opened", Deed::Agent),
    ] {
        let count = ACCOUNTS.len() * CONNECTIONS * (0..ON_EACH).filter(|nth| deed(*nth) == wanted).count();
        let name = format!("innkeeper_forwards_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}");
        gateway.wait_metric(&name, |counted| counted == count as f64);
    }
    for name in ACCOUNTS {
        let left = || gateway.exec(name, "ls -A | grep -v '^echo$'; ls -A /tmp").text();
        wait_for("what was listened on to be gone", || left().is_empty());
    }
}
