//! What strangers and broken clients may cost: at most their own connection.

#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "common/ssh.rs"]
mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Client, Gateway, until, within};
use innkeeper::auth::Permit;
use innkeeper::units::Span;
use russh::{ChannelMsg, ChannelOpenFailure, Error};
use rustix::process::Resource;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A packet before any encryption: length, padding length, payload, padding.
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 8 - (payload.len() + 5) % 8 + 8;
    let mut bytes = u32::try_from(payload.len() + padding + 1).unwrap().to_be_bytes().to_vec();
    bytes.push(u8::try_from(padding).unwrap());
    bytes.extend_from_slice(payload);
    bytes.extend(std::iter::repeat_n(0, padding));
    bytes
}

/// How long until the server closes this connection.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    let mut sink = [0; 4096];
    while !matches!(stream.read(&mut sink).await, Ok(0) | Err(_)) {}
    began.elapsed()
}

async fn works(gateway: &Gateway) {
    assert_eq!(gateway.run("echo on").await.stdout, b"on\n");
}

async fn exec(client: &Client, command: &str) -> (Vec<u8>, Option<u32>) {
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    let (mut output, mut status) = (Vec::new(), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => output.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (output, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_deadline_is_not_put_off_by_traffic() {
    within(60, async {
        let gateway = Gateway::start_with(|config| config.login_grace = Span::secs(4)).await;
        let mut silent = TcpStream::connect(gateway.address).await.unwrap();
        let mut half = TcpStream::connect(gateway.address).await.unwrap();
        half.write_all(b"SSH-2.0-half\r\n").await.unwrap();
        let dripping = TcpStream::connect(gateway.address).await.unwrap();
        let (mut read, mut write) = dripping.into_split();
        let drip = tokio::spawn(async move {
            write.write_all(b"SSH-2.0-drip\r\n").await.unwrap();
            // SSH_MSG_IGNORE with an empty string.
            while write.write_all(&packet(&[2, 0, 0, 0, 0])).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let began = Instant::now();
        let mut sink = [0; 4096];
        while !matches!(read.read(&mut sink).await, Ok(0) | Err(_)) {}
        let dripped = began.elapsed();
        drip.await.unwrap();
        closed_after(&mut silent).await;
        closed_after(&mut half).await;
        assert!(dripped > Duration::from_millis(3500) && began.elapsed() < Duration::from_secs(12), "{dripped:?} {:?}", began.elapsed());
        // Who is in stays in.
        assert_eq!(gateway.run("sleep 5; echo in").await.stdout, b"in\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_do_not_log_in_cannot_take_all_places() {
    within(60, async {
        let gateway = Gateway::start_with(|config| {
            config.max_startups = "5:100:5".into();
            config.login_grace = Span::secs(3);
        })
        .await;
        let mut silent = Vec::new();
        for _ in 0..5 {
            silent.push(TcpStream::connect(gateway.address).await.unwrap());
        }
        until("all five wait", || gateway.metric("connections_open", &[("stage", "login")]) == 5.0).await;
        let mut refused = TcpStream::connect(gateway.address).await.unwrap();
        assert!(closed_after(&mut refused).await < Duration::from_secs(1));
        assert_eq!(gateway.metric("connections_refused_total", &[("reason", "max_startups")]), 1.0);
        until("their time is over", || gateway.metric("connections_open", &[("stage", "login")]) == 0.0).await;
        works(&gateway).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_cannot_take_all_places() {
    within(60, async {
        let gateway = Gateway::start_with(|config| {
            config.max_startups_per_source = 2;
            config.max_connections_per_source = 3;
        })
        .await;
        let silent = [TcpStream::connect(gateway.address).await.unwrap(), TcpStream::connect(gateway.address).await.unwrap()];
        until("both wait", || gateway.metric("connections_open", &[("stage", "login")]) == 2.0).await;
        closed_after(&mut TcpStream::connect(gateway.address).await.unwrap()).await;
        drop(silent);
        until("both are gone", || gateway.metric("connections_open", &[("stage", "login")]) == 0.0).await;
        let inside = [gateway.log_in().await, gateway.log_in().await, gateway.log_in().await];
        closed_after(&mut TcpStream::connect(gateway.address).await.unwrap()).await;
        assert_eq!(gateway.metric("connections_refused_total", &[("reason", "per_source")]), 2.0);
        drop(inside);
        until("all are gone", || gateway.metric("connections_open", &[]) == 0.0).await;
        works(&gateway).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_one_connection_are_limited_and_come_back() {
    within(60, async {
        let gateway = Gateway::start_with(|config| config.max_sessions = 10).await;
        let client = gateway.log_in().await;
        let mut open = Vec::new();
        let mut refused = 0;
        for _ in 0..1000 {
            match client.channel_open_session().await {
                Ok(channel) => open.push(channel),
                Err(Error::ChannelOpenFailure(ChannelOpenFailure::ResourceShortage)) => refused += 1,
                Err(why) => panic!("{why}"),
            }
        }
        assert_eq!((open.len(), refused), (10, 990));
        for channel in open.drain(..5) {
            channel.close().await.unwrap();
        }
        for _ in 0..30 {
            assert_eq!(exec(&client, "echo x; exit 2").await, (b"x\n".to_vec(), Some(2)));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_requests_are_refused_and_the_session_works() {
    within(60, async {
        let gateway = Gateway::start().await;
        let client = gateway.log_in().await;
        let mut channel = client.channel_open_session().await.unwrap();
        for number in 0..3000 {
            channel.set_env(false, format!("LC_{number}"), "x".repeat(3000)).await.unwrap();
        }
        channel.set_env(true, "LC_X", "x".repeat(100_000)).await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
        let modes: Vec<_> = (0..129).map(|_| (russh::Pty::ECHO, 1)).collect();
        channel.request_pty(true, &"T".repeat(200_000), u32::MAX, u32::MAX, 0, 0, &modes).await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
        for size in 0..10_000 {
            channel.window_change(size, size, 0, 0).await.unwrap();
        }
        channel.exec(true, "env | grep -c ^LC_; env | grep TERM=").await.unwrap();
        channel.exec(true, "echo second").await.unwrap();
        let (mut output, mut answers) = (Vec::new(), Vec::new());
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => output.extend_from_slice(&data),
                ChannelMsg::Success => answers.push(true),
                ChannelMsg::Failure => answers.push(false),
                _ => {}
            }
        }
        assert_eq!(answers, [true, false], "one program on a channel");
        assert_eq!(common::text(&output), "21\r\nTERM=dumb\r\n", "64 KiB of variables");
        let opened = gateway.keeper.opened.lock();
        assert_eq!(opened.len(), 1);
        assert!(opened[0].pty.as_ref().unwrap().size.columns <= 10_000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_is_refused_and_not_passed_over() {
    within(30, async {
        let gateway = Gateway::start().await;
        *gateway.keeper.permit.lock() = Permit { forwarding: false, agent_forwarding: false, ..Permit::default() };
        let client = gateway.log_in().await;
        let refused = client.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await;
        assert!(matches!(refused, Err(Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited))), "{refused:?}");
        let refused = client.channel_open_direct_streamlocal("/run/docker.sock").await;
        assert!(matches!(refused, Err(Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited))), "{refused:?}");
        assert!(client.tcpip_forward("127.0.0.1", 0).await.is_err());
        assert!(client.streamlocal_forward("/tmp/x").await.is_err());
        let mut channel = client.channel_open_session().await.unwrap();
        for _ in 0..2 {
            channel.request_subsystem(true, "netconf").await.unwrap();
            assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
        }
        channel.agent_forward(true).await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
        channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
        channel.exec(true, "echo on").await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_to_a_channel_that_runs_nothing_is_bounded() {
    within(60, async {
        let gateway = Gateway::start().await;
        let client = gateway.log_in().await;
        let channel = client.channel_open_session().await.unwrap();
        let send = async {
            loop {
                channel.data_bytes(vec![0; 32 * 1024]).await.unwrap();
            }
        };
        let _: Result<(), _> = tokio::time::timeout(Duration::from_secs(2), send).await;
        // Another channel of the same connection is not held up by it.
        assert_eq!(exec(&client, "echo x").await, (b"x\n".to_vec(), Some(0)));
        let sending = Instant::now();
        let mut uploaded = client.channel_open_session().await.unwrap();
        uploaded.exec(true, "wc -c").await.unwrap();
        uploaded.data_bytes(vec![0; 5_000_000]).await.unwrap();
        uploaded.eof().await.unwrap();
        while let Some(message) = uploaded.wait().await {
            if let ChannelMsg::Data { data } = message {
                assert_eq!(&data[..], b"5000000\n");
            }
        }
        assert!(sending.elapsed() < Duration::from_secs(20), "{:?}", sending.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_its_own_connection_only() {
    within(60, async {
        let gateway = Gateway::start().await;
        let inside = gateway.log_in().await;
        let mut noise = vec![0; 20_000];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut noise);
        let hello = b"SSH-2.0-odd\r\n".to_vec();
        let mut out_of_order = vec![hello.clone()];
        // CHANNEL_OPEN, USERAUTH_REQUEST, USERAUTH_SUCCESS, NEWKEYS, KEXDH_INIT, none of which may come first; and a length of 4 GiB.
        out_of_order
            .extend([90u8, 50, 52, 21, 30].map(|number| [hello.clone(), packet(&[number, 0, 0, 0, 4, b'a', b'b', b'c', b'd'])].concat()));
        out_of_order.push([hello.clone(), vec![0xff; 64]].concat());
        out_of_order.push([hello, noise.clone()].concat());
        out_of_order.push(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
        out_of_order.push(vec![b'x'; 100_000]);
        for bytes in &out_of_order {
            let mut stream = TcpStream::connect(gateway.address).await.unwrap();
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            closed_after(&mut stream).await;
        }
        until("they are gone", || gateway.metric("connections_open", &[("stage", "login")]) == 0.0).await;
        assert_eq!(gateway.metric("panics_total", &[]), 0.0);
        assert_eq!(exec(&inside, "echo x").await.1, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bug_behind_one_session_is_counted_and_ends_that_session_only() {
    within(30, async {
        let gateway = Gateway::start().await;
        let client = gateway.log_in().await;
        gateway.keeper.panic_on_ensure.store(true, Ordering::SeqCst);
        let (output, status) = exec(&client, "true").await;
        assert!(output.is_empty() && status != Some(0));
        gateway.keeper.panic_on_ensure.store(false, Ordering::SeqCst);
        assert_eq!(gateway.metric("panics_total", &[]), 1.0);
        assert_eq!(gateway.metric("sessions_open", &[]), 0.0);
        assert_eq!(exec(&client, "true").await.1, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_before_the_login() {
    within(30, async {
        let gateway = Gateway::start().await;
        let client = gateway.connect().await;
        let early = tokio::time::timeout(Duration::from_secs(1), client.channel_open_session()).await;
        assert!(!matches!(early, Ok(Ok(_))));
        assert_eq!(gateway.keeper.ensured.load(Ordering::SeqCst), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_ends_does_not_grow_without_end() {
    within(120, async {
        let gateway = Gateway::start_with(|config| config.max_sessions = 1).await;
        let client = gateway.log_in().await;
        // One session is on, and all others are refused: what counts is that they were asked for.
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "read x; exit 3").await.unwrap();
        for _ in 0..10_000 {
            assert!(matches!(client.channel_open_session().await, Err(Error::ChannelOpenFailure(ChannelOpenFailure::ResourceShortage))));
        }
        assert!(!client.is_closed(), "the session goes on");
        channel.data_bytes(b"x\n".to_vec()).await.unwrap();
        let mut status = None;
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::ExitStatus { exit_status } = message {
                status = Some(exit_status);
            }
        }
        assert_eq!(status, Some(3));
        until("the connection is ended", || client.is_closed()).await;
    })
    .await;
}

/// In a process of its own, as the limit on descriptors is the whole process's: the same test, told by a variable to be the server.
#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_descriptors_does_not_end_the_listener() {
    const SERVE: &str = "INNKEEPER_TEST_SERVE";
    const NAME: &str = "running_out_of_descriptors_does_not_end_the_listener";
    if std::env::var_os(SERVE).is_some() {
        let gateway = Gateway::start().await;
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let limit = rustix::process::Rlimit { current: Some(open + 12), ..rustix::process::getrlimit(Resource::Nofile) };
        rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        std::io::Write::write_all(&mut std::io::stdout(), format!("\nserving {}\n", gateway.address).as_bytes()).unwrap();
        // Until the parent closes our input.
        tokio::io::stdin().read_to_end(&mut Vec::new()).await.unwrap();
        return;
    }
    within(60, async {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(SERVE, "1")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Some(address) = line.strip_prefix("serving ") {
                break address.parse::<std::net::SocketAddr>().unwrap();
            }
        };
        let mut crowd = Vec::new();
        for _ in 0..40 {
            crowd.push(TcpStream::connect(address).await.unwrap());
        }
        // The first ones were accepted and greeted; the last one waits in the kernel for a descriptor.
        crowd[0].read_exact(&mut [0; 8]).await.unwrap();
        let last = tokio::time::timeout(Duration::from_secs(1), crowd[39].read_u8()).await;
        assert!(last.is_err(), "there was no shortage");
        drop(crowd);
        let mut later = TcpStream::connect(address).await.unwrap();
        let mut greeting = [0; 8];
        later.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"SSH-2.0-");
        drop(child.stdin.take());
        assert!(child.wait().await.unwrap().success());
    })
    .await;
}
