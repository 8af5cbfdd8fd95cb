//! Forwarding, driven by the real OpenSSH client: ports, sockets, and the client that asks for what it may not have.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "common/ssh.rs"]
mod common;

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Gateway, text, until, within};
use innkeeper::attach::Address;
use innkeeper::workspace::Ending;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::process::Child;

/// Sends back what it gets, until that ends.
async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

/// A port of this machine's loopback behind which there is an echo.
async fn echo_port(host: &str) -> u16 {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    port
}

fn echo_socket(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
}

/// A port that nobody listens on.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// What comes back for `bytes`, to the end.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back).await;
    back
}

/// `ssh -N` with these arguments, and the local socket `near` that appears once it is logged in.
async fn forwarding(gateway: &Gateway, arguments: &[String], near: &str) -> Child {
    forwarding_with(gateway.ssh(), gateway, arguments, near).await
}

/// The same of a client that says why something is refused.
async fn forwarding_aloud(gateway: &Gateway, arguments: &[String], near: &str) -> Child {
    let mut ssh = gateway.ssh();
    ssh.arg("-v");
    forwarding_with(ssh, gateway, arguments, near).await
}

/// Whether somebody has begun to listen at a socket, which is there before.
fn is_listening(path: &Path) -> bool {
    let path = path.to_str().unwrap();
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    sockets.lines().any(|line| line.contains(" 00010000 ") && line.ends_with(path))
}

async fn forwarding_with(mut ssh: tokio::process::Command, gateway: &Gateway, arguments: &[String], near: &str) -> Child {
    let child = ssh.arg("-N").args(arguments).arg(gateway.host()).spawn().unwrap();
    until("it listens", || is_listening(&gateway.path(near))).await;
    child
}

/// `-L near:to`, where `near` is a socket in the gateway's directory.
fn local(gateway: &Gateway, near: &str, to: &str) -> [String; 2] {
    ["-L".to_owned(), format!("{}:{to}", gateway.path(near).display())]
}

async fn near(gateway: &Gateway, name: &str) -> UnixStream {
    UnixStream::connect(gateway.path(name)).await.unwrap()
}

/// What a client has on its standard error in the end, once it is told to go.
async fn end(mut child: Child) -> String {
    rustix::process::kill_process(rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap(), rustix::process::Signal::TERM)
        .unwrap();
    let mut errors = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut errors).await.unwrap();
    child.wait().await.unwrap();
    text(&errors)
}

/// A master to which other clients can be connected by `-S`.
async fn master(gateway: &Gateway, arguments: &[&str]) -> Child {
    let socket = gateway.path("mux");
    let mut ssh = gateway.ssh();
    let master = ssh.args(["-N", "-M", "-S"]).arg(&socket).args(arguments).arg(gateway.host()).spawn().unwrap();
    until("the master listens", || socket.exists()).await;
    master
}

/// A command of the client's on that connection: `-O forward -R ...`, or one that runs there.
async fn over(gateway: &Gateway, arguments: &[&str], command: &[&str]) -> std::process::Output {
    gateway.ssh().arg("-S").arg(gateway.path("mux")).args(arguments).arg(gateway.host()).args(command).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_of_the_containers_loopback_is_reached() {
    within(60, async {
        let gateway = Gateway::start().await;
        for (number, (listens, named)) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("::1", "[::1]")].iter().enumerate() {
            let port = echo_port(listens).await;
            let near_name = format!("near{number}");
            let child = forwarding(&gateway, &local(&gateway, &near_name, &format!("{named}:{port}")), &near_name).await;
            assert_eq!(ask(near(&gateway, &near_name).await, b"hello").await, b"hello", "{named}");
            drop(child);
            let host = named.trim_matches(['[', ']']).to_owned();
            assert_eq!(gateway.keeper.connected.lock().last(), Some(&Address::Tcp { host, port }), "as the client named it");
        }
        assert_eq!(gateway.metric("forwards_total", &[("kind", "local"), ("outcome", "opened")]), 3.0);
        until("all leases are back", || gateway.keeper.leases.load(Ordering::SeqCst) == 0).await;
        assert_eq!(gateway.keeper.opened.lock().len(), 0, "no session was needed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once() {
    within(60, async {
        let gateway = Gateway::start().await;
        let port = echo_port("127.0.0.1").await;
        let _ssh = forwarding(&gateway, &local(&gateway, "near", &format!("localhost:{port}")), "near").await;
        let mut all = Vec::new();
        for number in 0..100u8 {
            let mut stream = near(&gateway, "near").await;
            stream.write_all(&[number; 1000]).await.unwrap();
            all.push(stream);
        }
        for (number, stream) in all.iter_mut().enumerate() {
            let mut back = [0; 1000];
            stream.read_exact(&mut back).await.unwrap();
            assert!(back.iter().all(|byte| usize::from(*byte) == number));
        }
        assert_eq!(gateway.metric("forwards_open", &[]), 100.0);
        assert_eq!(gateway.keeper.leases.load(Ordering::SeqCst), 100);
        drop(all);
        until("all are over", || gateway.metric("forwards_open", &[]) == 0.0).await;
        until("all leases are back", || gateway.keeper.leases.load(Ordering::SeqCst) == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_and_the_connection_goes_on() {
    within(60, async {
        let gateway = Gateway::start().await;
        let port = echo_port("127.0.0.1").await;
        let closed = closed_port().await;
        let nowhere = gateway.path("nowhere").display().to_string();
        let arguments = [
            local(&gateway, "closed", &format!("127.0.0.1:{closed}")),
            local(&gateway, "none", &nowhere),
            local(&gateway, "open", &format!("127.0.0.1:{port}")),
        ];
        let ssh = forwarding_aloud(&gateway, &arguments.concat(), "open").await;
        assert_eq!(ask(near(&gateway, "closed").await, b"x").await, b"");
        assert_eq!(ask(near(&gateway, "none").await, b"x").await, b"");
        assert_eq!(ask(near(&gateway, "open").await, b"x").await, b"x");
        let errors = end(ssh).await;
        assert!(errors.contains("connect failed: Connection refused") && errors.contains("connect failed: no such"), "{errors}");
        assert_eq!(gateway.metric("connections_total", &[]), 1.0);
        assert_eq!(gateway.metric("forwards_total", &[("outcome", "failed")]), 2.0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks_proxy_is_one() {
    within(60, async {
        let gateway = Gateway::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ninns\n").await;
            }
        });
        let proxy = closed_port().await;
        let mut ssh = gateway.ssh();
        let _ssh = ssh.args(["-N", "-D", &format!("127.0.0.1:{proxy}")]).arg(gateway.host()).spawn().unwrap();
        until("it listens", || std::net::TcpStream::connect(("127.0.0.1", proxy)).is_ok()).await;
        for version in ["--socks5-hostname", "--socks4a", "--socks5"] {
            let mut curl = tokio::process::Command::new("curl");
            let output = curl.args(["-sS", "-4", version, &format!("127.0.0.1:{proxy}"), &url]).output().await.unwrap();
            assert_eq!(text(&output.stdout), "inns\n", "{version}: {}", text(&output.stderr));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_and_output_are_a_connection_and_a_jump_is_made_over_one() {
    within(60, async {
        let gateway = Gateway::start().await;
        let port = echo_port("127.0.0.1").await;
        let mut ssh = gateway.ssh();
        ssh.args(["-W", &format!("127.0.0.1:{port}")]).arg(gateway.host()).stdin(Stdio::piped());
        let mut child = ssh.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"through").await.unwrap();
        assert_eq!(child.wait_with_output().await.unwrap().stdout, b"through");
        let inner = Gateway::start().await;
        let jump =
            format!("ssh -oBatchMode=yes -i {} {} -W %h:%p alice@127.0.0.1", gateway.path("id").display(), gateway.options().join(" "));
        let output = inner.ssh().arg(format!("-oProxyCommand={jump}")).arg(inner.host()).arg("echo inside; exit 4").output().await.unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(4), &b"inside\n"[..]), "{}", text(&output.stderr));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_reached_and_listened_on() {
    within(60, async {
        let gateway = Gateway::start().await;
        echo_socket(&gateway.path("far"));
        let remote = gateway.path("remote");
        // A socket file of a client that is gone.
        drop(std::os::unix::net::UnixListener::bind(&remote).unwrap());
        let mut arguments = local(&gateway, "near", &gateway.path("far").display().to_string()).to_vec();
        let back = format!("{}:{}", remote.display(), gateway.path("far").display());
        arguments.extend(["-oExitOnForwardFailure=yes".to_owned(), "-R".to_owned(), back]);
        let ssh = forwarding(&gateway, &arguments, "near").await;
        assert_eq!(ask(near(&gateway, "near").await, b"there").await, b"there");
        until("the far side listens", || std::os::unix::net::UnixStream::connect(&remote).is_ok()).await;
        assert_eq!(ask(near(&gateway, "remote").await, b"and back").await, b"and back");
        drop(ssh);
        until("its place is free", || !remote.exists()).await;
        until("all leases are back", || gateway.keeper.leases.load(Ordering::SeqCst) == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_chosen_told_and_given_back() {
    within(60, async {
        let gateway = Gateway::start().await;
        let target = echo_port("127.0.0.1").await;
        let _master = master(&gateway, &[]).await;
        let spec = format!("0:127.0.0.1:{target}");
        let told = over(&gateway, &["-O", "forward", "-R", &spec], &[]).await;
        let port: u16 = text(&told.stdout).trim().parse().unwrap_or_else(|_| panic!("{}{}", text(&told.stdout), text(&told.stderr)));
        for _ in 0..3 {
            assert_eq!(ask(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), b"back").await, b"back");
        }
        assert_eq!(gateway.metric("forwards_total", &[("kind", "remote"), ("outcome", "opened")]), 3.0);
        // The same port once more is taken, by the connection itself.
        let again = over(&gateway, &["-O", "forward", "-R", &format!("{port}:127.0.0.1:{target}")], &[]).await;
        assert!(!again.status.success());
        let cancelled = over(&gateway, &["-O", "cancel", "-R", &spec], &[]).await;
        assert!(cancelled.status.success(), "{}", text(&cancelled.stderr));
        until("nobody listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err()).await;
        let named = over(&gateway, &["-O", "forward", "-R", &format!("{port}:127.0.0.1:{target}")], &[]).await;
        assert!(named.status.success(), "{}", text(&named.stderr));
        assert_eq!(ask(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), b"again").await, b"again");
        until("only the listener has a lease", || gateway.keeper.leases.load(Ordering::SeqCst) == 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_is_prohibited_and_logged() {
    within(60, async {
        let log = log();
        let gateway = Gateway::start().await;
        gateway.keeper.permit.lock().local_forwarding = false;
        *gateway.auth.change_grant.lock() = Some(Box::new(|grant| grant.permit.remote_forwarding = false));
        let secret = gateway.path("secret\u{202e}socket").display().to_string();
        let ssh = forwarding_aloud(&gateway, &local(&gateway, "near", &secret), "near").await;
        assert_eq!(ask(near(&gateway, "near").await, b"x").await, b"");
        let errors = end(ssh).await;
        assert!(errors.contains("administratively prohibited"), "{errors}");
        let escaped = secret.replace('\u{202e}', "\\u{202e}");
        let logged = text(&log.lock());
        let line = logged.lines().find(|line| line.contains(&escaped)).unwrap_or_else(|| panic!("{logged}"));
        assert!(line.contains("INFO") && line.contains("local_socket") && line.contains("denied"), "{line}");
        let mut ssh = gateway.ssh();
        let output =
            ssh.args(["-oExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"]).arg(gateway.host()).arg("true").output().await.unwrap();
        assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
        let mut ssh = gateway.ssh();
        let output = ssh.args(["-R", "0:127.0.0.1:1"]).arg(gateway.host()).arg("echo on").output().await.unwrap();
        assert_eq!(output.stdout, b"on\n", "the session goes on");
        assert_eq!(gateway.metric("forwards_total", &[("kind", "remote"), ("outcome", "denied")]), 2.0);
        assert!(gateway.keeper.connected.lock().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_connection_may_have_are_a_shortage() {
    within(60, async {
        let gateway = Gateway::start_with(|config| (config.max_forwards, config.max_listeners) = (2, 2)).await;
        let port = echo_port("127.0.0.1").await;
        let ssh = forwarding_aloud(&gateway, &local(&gateway, "near", &format!("127.0.0.1:{port}")), "near").await;
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = near(&gateway, "near").await;
            stream.write_all(b"x").await.unwrap();
            stream.read_u8().await.unwrap();
            held.push(stream);
        }
        assert_eq!(ask(near(&gateway, "near").await, b"x").await, b"");
        held.pop();
        until("one is over", || gateway.metric("forwards_open", &[]) == 1.0).await;
        assert_eq!(ask(near(&gateway, "near").await, b"x").await, b"x");
        let errors = end(ssh).await;
        assert!(errors.contains("resource shortage"), "{errors}");
        let _master = master(&gateway, &[]).await;
        for (number, succeeds) in [(1, true), (2, true), (3, false)] {
            let output = over(&gateway, &["-O", "forward", "-R", &format!("0:127.0.0.1:{number}")], &[]).await;
            assert_eq!(output.status.success(), succeeds, "{number}: {}", text(&output.stderr));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_direction_ends_by_itself() {
    within(60, async {
        let gateway = Gateway::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let _ssh = forwarding(&gateway, &local(&gateway, "near", &to), "near").await;
        // The client ends first, and the answer still arrives.
        let mut client = near(&gateway, "near").await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        // The far end ends first, and still hears everything.
        let mut client = near(&gateway, "near").await;
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"greeting").await.unwrap();
        server.shutdown().await.unwrap();
        let mut greeting = Vec::new();
        client.read_to_end(&mut greeting).await.unwrap();
        assert_eq!(greeting, b"greeting");
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.write_all(b"thanks").await.unwrap();
        drop(client);
        let mut thanks = Vec::new();
        server.read_to_end(&mut thanks).await.unwrap();
        assert_eq!(thanks, b"thanks");
        until("both are over", || gateway.metric("forwards_open", &[]) == 0.0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_megabytes_arrive_whole_both_ways() {
    within(120, async {
        let gateway = Gateway::start().await;
        let port = echo_port("127.0.0.1").await;
        let _ssh = forwarding(&gateway, &local(&gateway, "near", &format!("127.0.0.1:{port}")), "near").await;
        let mut bytes = vec![0; 200_000_000];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
        let (mut read, mut write) = near(&gateway, "near").await.into_split();
        let send = async {
            write.write_all(&bytes).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let receive = async {
            let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
            loop {
                let length = read.read(&mut buffer).await.unwrap();
                if length == 0 {
                    return hash.finalize();
                }
                hash.update(&buffer[..length]);
            }
        };
        let ((), back) = tokio::join!(send, receive);
        assert!(back == Sha256::digest(&bytes));
    })
    .await;
}

/// Nobody reads what three forwards bring. The connection they are on goes on: a session answers, and other forwards bring what they have.
#[tokio::test(flavor = "multi_thread")]
async fn forwards_that_stand_still_hold_nothing_else_up() {
    within(120, async {
        let gateway = Gateway::start().await;
        let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("127.0.0.1:{}", deaf.local_addr().unwrap().port());
        let port = echo_port("127.0.0.1").await;
        let _master = master(&gateway, &[]).await;
        for arguments in [local(&gateway, "deaf", &to), local(&gateway, "near", &format!("127.0.0.1:{port}"))] {
            let output = over(&gateway, &["-O", "forward", &arguments[0], &arguments[1]], &[]).await;
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        let mut stalled = Vec::new();
        for _ in 0..3 {
            let mut stream = near(&gateway, "deaf").await;
            let send = async {
                loop {
                    stream.write_all(&[0; 64 * 1024]).await.unwrap();
                }
            };
            let _: Result<(), _> = tokio::time::timeout(Duration::from_secs(2), send).await;
            stalled.push((stream, deaf.accept().await.unwrap()));
        }
        let began = Instant::now();
        let output = over(&gateway, &[], &["echo here"]).await;
        assert_eq!(output.stdout, b"here\n", "{}", text(&output.stderr));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let bytes = vec![7; 20_000_000];
        assert!(within(30, exchange(near(&gateway, "near").await, &bytes)).await == bytes, "a forward beside them");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        until("it is over, and they are still there", || gateway.metric("forwards_open", &[]) == 3.0).await;
        // And they go on where they were.
        let (mut stream, (mut server, _)) = stalled.pop().unwrap();
        let drain = tokio::spawn(async move { tokio::io::copy(&mut server, &mut tokio::io::sink()).await });
        for _ in 0..100 {
            stream.write_all(&[0; 64 * 1024]).await.unwrap();
        }
        drop(stream);
        assert!(drain.await.unwrap().unwrap() > 100 * 64 * 1024);
    })
    .await;
}

/// Sends and receives at once.
async fn exchange(stream: UnixStream, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = stream.into_split();
    let send = async {
        write.write_all(bytes).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let receive = async {
        read.read_to_end(&mut back).await.unwrap();
    };
    tokio::join!(send, receive);
    back
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_session_stays_as_long_as_it_wants_and_goes_with_the_gateway() {
    within(60, async {
        let gateway = Gateway::start_with(|config| {
            (config.keepalive_interval, config.drain_timeout) = (innkeeper::units::Span::secs(1), innkeeper::units::Span::secs(2));
        })
        .await;
        let port = echo_port("127.0.0.1").await;
        let mut ssh = forwarding(&gateway, &local(&gateway, "near", &format!("127.0.0.1:{port}")), "near").await;
        // Longer than the keepalives, the wait for a first request on a channel, or any other grace there is would bear.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let mut open = near(&gateway, "near").await;
        open.write_all(b"x").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'x');
        gateway.shutdown.cancel();
        let status = tokio::time::timeout(Duration::from_secs(15), ssh.wait()).await.expect("the drain ends it").unwrap();
        assert_eq!(status.code(), Some(255));
        assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_end_with_their_container() {
    within(60, async {
        let gateway = Gateway::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let remote = gateway.path("remote");
        let mut arguments = local(&gateway, "near", &to).to_vec();
        arguments.extend(["-R".to_owned(), format!("{}:{to}", remote.display())]);
        let _ssh = forwarding(&gateway, &arguments, "near").await;
        until("the far side listens", || remote.exists()).await;
        let mut client = near(&gateway, "near").await;
        let (_held, _) = listener.accept().await.unwrap();
        gateway.keeper.ending.send_replace(Some(Ending::Died));
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0, "it ends");
        until("nobody listens", || !remote.exists()).await;
        until("all leases are back", || gateway.keeper.leases.load(Ordering::SeqCst) == 0).await;
        // The next one is made in a container that is there.
        gateway.keeper.ending.send_replace(None);
        let port = echo_port("127.0.0.1").await;
        let mut ssh = gateway.ssh();
        ssh.args(["-W", &format!("127.0.0.1:{port}")]).arg(gateway.host());
        assert!(ssh.output().await.unwrap().status.success());
    })
    .await;
}

/// What all gateways of this process have logged.
fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    struct Writer;
    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LOG.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let _ = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Writer).try_init();
    &LOG
}
