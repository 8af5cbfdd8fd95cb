//! What a client lends its sessions, driven by the real OpenSSH client: its key agent and its display.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "common/ssh.rs"]
mod common;

use std::process::Stdio;
use std::sync::atomic::Ordering;

use common::{Gateway, make_key, text, until, within};
use russh::ChannelMsg;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// A running `ssh-agent` with one key, and its socket's name.
async fn agent(gateway: &Gateway) -> (Child, String) {
    let socket = gateway.path("agent").display().to_string();
    let child = Command::new("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    until("the agent listens", || gateway.path("agent").exists()).await;
    make_key(&gateway.path("lent"), &["-t", "ed25519"]).await;
    let added = Command::new("ssh-add").arg("-q").arg(gateway.path("lent")).env("SSH_AUTH_SOCK", &socket).status().await.unwrap();
    assert!(added.success());
    (child, socket)
}

/// `ssh -A` with that agent.
fn ssh_lending(gateway: &Gateway, socket: &str) -> Command {
    let mut ssh = Command::new("ssh");
    // Of an option given twice the first counts, and the gateway's own say that there is no agent.
    ssh.args(["-A", &format!("-oIdentityAgent={socket}")]).args(gateway.options()).arg("-oBatchMode=yes").arg("-i").arg(gateway.path("id"));
    ssh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    ssh
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_there_for_every_session_until_the_connection_ends() {
    within(60, async {
        let gateway = Gateway::start().await;
        let (_agent, socket) = agent(&gateway).await;
        let mux = format!("-oControlPath={}", gateway.path("mux").display());
        let mut master = ssh_lending(&gateway, &socket);
        let mut master = master.args(["-oControlMaster=yes", &mux, "-N"]).arg(gateway.host()).spawn().unwrap();
        until("the master listens", || gateway.path("mux").exists()).await;
        let session = |command: &str| {
            let mut ssh = ssh_lending(&gateway, &socket);
            ssh.arg(&mux).arg(gateway.host()).arg(command);
            ssh
        };
        let mut first = session("ssh-add -l; echo $SSH_AUTH_SOCK; read x");
        let mut first = first.stdin(Stdio::piped()).spawn().unwrap();
        let mut seen = String::new();
        while seen.lines().count() < 2 {
            let mut buffer = [0; 4096];
            let length = first.stdout.as_mut().unwrap().read(&mut buffer).await.unwrap();
            assert!(length > 0, "ended after {seen:?}");
            seen.push_str(&text(&buffer[..length]));
        }
        assert!(seen.contains("ED25519"), "{seen}");
        let path = seen.lines().nth(1).unwrap().to_owned();
        let second = session("ssh-add -l; echo $SSH_AUTH_SOCK").output().await.unwrap();
        assert!(text(&second.stdout).contains("ED25519") && text(&second.stdout).contains(&path), "one socket for all: {second:?}");
        drop(first.stdin.take());
        first.wait().await.unwrap();
        let third = session("ssh-add -l").output().await.unwrap();
        assert!(text(&third.stdout).contains("ED25519"), "{third:?}");
        // What the first session left running still has it, too.
        let left = Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &path).output().await.unwrap();
        assert!(text(&left.stdout).contains("ED25519"), "{left:?}");
        assert_eq!(gateway.metric("forwards_total", &[("kind", "agent"), ("outcome", "opened")]), 4.0);
        until("a socket alone keeps nothing running", || gateway.keeper.leases.load(Ordering::SeqCst) == 0).await;
        master.start_kill().unwrap();
        until("it goes with the connection", || !std::path::Path::new(&path).exists()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_agent_without_being_asked_for_or_permitted() {
    within(60, async {
        let gateway = Gateway::start().await;
        let (_agent, socket) = agent(&gateway).await;
        assert_eq!(gateway.run("echo [$SSH_AUTH_SOCK]").await.stdout, b"[]\n");
        let lent = ssh_lending(&gateway, &socket).arg(gateway.host()).arg("ssh-add -l").output().await.unwrap();
        assert!(text(&lent.stdout).contains("ED25519"), "{lent:?}");
        gateway.keeper.permit.lock().agent_forwarding = false;
        let refused = ssh_lending(&gateway, &socket).arg(gateway.host()).arg("echo [$SSH_AUTH_SOCK]").output().await.unwrap();
        assert_eq!(refused.stdout, b"[]\n", "the session goes on");
        assert_eq!(gateway.metric("forwards_total", &[("kind", "agent"), ("outcome", "denied")]), 1.0);
        gateway.keeper.permit.lock().agent_forwarding = true;
        gateway.keeper.deaf.store(true, Ordering::SeqCst);
        let without = ssh_lending(&gateway, &socket).arg(gateway.host()).arg("echo [$SSH_AUTH_SOCK]").output().await.unwrap();
        assert_eq!((&*without.stdout, &*without.stderr), (&b"[]\n"[..], &b""[..]), "nothing is said where there is no terminal");
    })
    .await;
}

/// The first message of an X11 client with this cookie.
fn hello(cookie: &[u8]) -> Vec<u8> {
    let name = b"MIT-MAGIC-COOKIE-1";
    let padded = |bytes: &[u8]| [bytes, &vec![0; (4 - bytes.len() % 4) % 4]].concat();
    let lengths = [name.len() as u16, cookie.len() as u16, 0].map(u16::to_le_bytes).concat();
    [&[b'l', 0, 11, 0, 0, 0][..], &lengths, &padded(name), &padded(cookie)].concat()
}

/// The real client's display is a port behind which we are, and its cookie is one that only it knows: what a program in the container sends
/// with the cookie that it was given arrives with the client's own, and with another it does not arrive at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_display_is_reached_by_who_has_the_cookie() {
    within(60, async {
        let gateway = Gateway::start().await;
        let (display, number) = loop {
            let number = rand::random_range(1000..20_000u16);
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", 6000 + number)).await {
                break (listener, number);
            }
        };
        let mut ssh = gateway.ssh();
        ssh.env("DISPLAY", format!("127.0.0.1:{number}"))
            .env("XAUTHORITY", gateway.path("no-xauthority"))
            .env("HOME", gateway.directory.path());
        let mut ssh =
            ssh.arg("-Y").arg(gateway.host()).arg("echo $DISPLAY; echo $XAUTHORITY; read x; true").stdin(Stdio::piped()).spawn().unwrap();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(ssh.stdout.take().unwrap()));
        let lent = lines.next_line().await.unwrap().unwrap();
        let port: u16 =
            6000 + lent.strip_prefix("localhost:").and_then(|rest| rest.strip_suffix(".0")).expect(&lent).parse::<u16>().unwrap();
        let file = std::fs::read(lines.next_line().await.unwrap().unwrap()).unwrap();
        let cookie = file.strip_prefix(b"MIT-MAGIC-COOKIE-1 ").unwrap();
        let mut program = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        program.write_all(&hello(cookie)).await.unwrap();
        let (mut server, _) = display.accept().await.unwrap();
        let mut seen = vec![0; hello(cookie).len()];
        server.read_exact(&mut seen).await.unwrap();
        assert!(seen[..12] == hello(cookie)[..12] && seen != hello(cookie), "the client exchanges the cookie");
        server.write_all(b"welcome").await.unwrap();
        let mut welcome = [0; 7];
        program.read_exact(&mut welcome).await.unwrap();
        assert_eq!(&welcome, b"welcome");
        let mut stranger = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stranger.write_all(&hello(&[0; 16])).await.unwrap();
        assert_eq!(stranger.read(&mut [0]).await.unwrap_or(0), 0);
        // The session ends; nobody else can connect, and the window that is open stays.
        drop(ssh.stdin.take());
        until("the display is gone", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err()).await;
        server.write_all(b"still").await.unwrap();
        let mut still = [0; 5];
        program.read_exact(&mut still).await.unwrap();
        assert_eq!(gateway.keeper.leases.load(Ordering::SeqCst), 1, "the window's");
        drop((program, server));
        assert!(ssh.wait().await.unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_display_may_be_for_one_connection_only() {
    within(30, async {
        let gateway = Gateway::start().await;
        let client = gateway.log_in().await;
        let mut channel = client.channel_open_session().await.unwrap();
        for (protocol, cookie) in [("MIT MAGIC", "00"), ("MIT-MAGIC-COOKIE-1", "xyz"), ("MIT-MAGIC-COOKIE-1", "")] {
            channel.request_x11(true, true, protocol, cookie, 0).await.unwrap();
            assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)), "{protocol} {cookie}");
        }
        channel.request_x11(true, true, "MIT-MAGIC-COOKIE-1", "00ff", 3).await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
        channel.exec(true, "echo $DISPLAY; sleep 20").await.unwrap();
        let name = loop {
            if let Some(ChannelMsg::Data { data }) = channel.wait().await {
                break text(&data).trim().to_owned();
            }
        };
        let port = 6000 + name.strip_prefix("localhost:").and_then(|rest| rest.strip_suffix(".3")).expect(&name).parse::<u16>().unwrap();
        let _first = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        until("nobody else can", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_display_is_told_at_a_terminal_and_goes_on() {
    within(60, async {
        let gateway = Gateway::start().await;
        gateway.keeper.deaf.store(true, Ordering::SeqCst);
        let mut ssh = gateway.ssh();
        ssh.env("DISPLAY", "127.0.0.1:9").env("XAUTHORITY", gateway.path("no-xauthority")).env("HOME", gateway.directory.path());
        let output = ssh.args(["-Y", "-tt"]).arg(gateway.host()).arg("echo [$DISPLAY]").output().await.unwrap();
        let seen = text(&output.stdout);
        assert!(seen.contains("innkeeper: your display cannot be used here") && seen.ends_with("[]\r\n"), "{seen:?}");
        let mut ssh = gateway.ssh();
        ssh.env("DISPLAY", "127.0.0.1:9").env("XAUTHORITY", gateway.path("no-xauthority")).env("HOME", gateway.directory.path());
        gateway.keeper.permit.lock().x11_forwarding = false;
        let output = ssh.arg("-Y").arg(gateway.host()).arg("echo [$DISPLAY]").output().await.unwrap();
        assert_eq!(output.stdout, b"[]\n");
        assert_eq!(gateway.metric("forwards_total", &[("kind", "x11"), ("outcome", "denied")]), 1.0);
    })
    .await;
}
