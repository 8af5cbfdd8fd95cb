//! Sessions at a terminal, driven by the real OpenSSH client: what people see.

#[path = "common/ssh.rs"]
mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Gateway, text, until, within};
use innkeeper::workspace::{Ending, EnsureError, Progress};
use tokio::io::AsyncReadExt;

const CLEAR: &str = "\r\x1b[K";

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_its_size_and_kind_from_the_first_byte() {
    within(60, async {
        let gateway = Gateway::start().await;
        let mut terminal =
            gateway.ssh_at_terminal(133, 41, &["stty size; echo $TERM; while [ \"$(stty size)\" = '41 133' ]; do sleep 0.02; done; stty size; printf '\\000\\001\\002'; exit 4"]);
        assert_eq!(terminal.see("\r\n").await, "41 133\r\n", "not one byte more");
        assert_eq!(terminal.see("\r\n").await, "xterm-256color\r\n");
        terminal.pty.resize(pty_process::Size::new(20, 61)).unwrap();
        terminal.see("20 61\r\n").await;
        let (rest, status) = terminal.end().await;
        assert_eq!((&*rest, status), ("\0\x01\x02", Some(4)));
        let opened = gateway.keeper.opened.lock();
        let modes = &opened[0].pty.as_ref().unwrap().modes;
        assert!(modes.iter().any(|(opcode, value)| (*opcode, *value) == (1, 3)), "VINTR is Ctrl-C: {modes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_the_shell_and_its_greeting_is_seen_once_a_connection() {
    within(60, async {
        let gateway = Gateway::start().await;
        *gateway.keeper.motd.lock() = Some("Welcome to the inn.\n".into());
        *gateway.auth.change_grant.lock() = Some(Box::new(|grant| grant.message = Some("Your bill is due.".into())));
        let mut terminal = gateway.ssh_at_terminal(80, 24, &[]);
        terminal.see("Welcome to the inn.\r\nYour bill is due.\r\n$ ").await;
        // Its own word says that it is in the foreground: before that, the shell would take the Ctrl-C for itself.
        terminal.write("sh -c 'echo run''ning; exec sleep 100'\n").await;
        terminal.see("running\r\n").await;
        terminal.write("\x03").await;
        terminal.see("$ ").await;
        terminal.write("exit 6\n").await;
        assert_eq!(terminal.end().await.1, Some(6));
        let output = gateway.ssh().args(["-tt"]).arg(gateway.host()).arg("echo hi").output().await.unwrap();
        assert_eq!(output.stdout, b"hi\r\n", "a command at a terminal is not greeted");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_runs_at_a_terminal_never_fail_by_themselves() {
    within(120, async {
        let gateway = Gateway::start().await;
        for run in 0..200 {
            let output = gateway.ssh().arg("-tt").arg(gateway.host()).arg("echo out; exit 7").output().await.unwrap();
            assert_eq!((output.status.code(), &*output.stdout), (Some(7), &b"out\r\n"[..]), "run {run}: {}", text(&output.stderr));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_one_line_that_goes_away() {
    within(60, async {
        let gateway = Gateway::start().await;
        let second = Duration::from_millis(700);
        *gateway.keeper.progress.lock() = vec![
            (Progress::Queued { position: 2 }, second),
            (Progress::Queued { position: 1 }, second),
            (Progress::Pulling("layer 3 of 7 \x1b[2J".into()), second),
            (Progress::Starting, second),
        ];
        let mut terminal = gateway.ssh_at_terminal(80, 24, &["echo shell"]);
        assert_eq!(
            terminal.see("2 in the queue (Ctrl-C to give up)").await,
            format!("{CLEAR}everything is taken; 2 in the queue (Ctrl-C to give up)")
        );
        terminal.see(&format!("{CLEAR}everything is taken; you are next")).await;
        terminal.see(&format!("{CLEAR}fetching the image: layer 3 of 7 \\u{{1b}}[2J")).await;
        terminal.see(&format!("{CLEAR}starting your container")).await;
        assert_eq!(terminal.see("shell\r\n").await, format!("{CLEAR}shell\r\n"), "erased before the shell");
        assert_eq!(terminal.end().await.1, Some(0));

        let output = gateway.run("echo program").await;
        assert_eq!((&*output.stdout, &*output.stderr), (&b"program\n"[..], &b""[..]), "a program sees nothing of it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_can_be_given_up() {
    within(60, async {
        let gateway = Gateway::start().await;
        *gateway.keeper.progress.lock() = vec![(Progress::Queued { position: 7 }, Duration::from_secs(600))];
        let cancelled = || gateway.keeper.cancelled.load(Ordering::SeqCst);
        let mut terminal = gateway.ssh_at_terminal(80, 24, &[]);
        terminal.see("7 in the queue").await;
        terminal.write("\x03").await;
        terminal.see("innkeeper: interrupted\r\n").await;
        assert_eq!(terminal.end().await.1, Some(130));
        until("the first wait is over", || cancelled() == 1).await;

        let mut client = gateway.ssh();
        let mut client = client.arg(gateway.host()).arg("true").spawn().unwrap();
        until("it waits", || gateway.keeper.ensured.load(Ordering::SeqCst) == 2).await;
        client.kill().await.unwrap();
        until("the second wait is over", || cancelled() == 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_there_is_no_container_is_said_without_internals() {
    within(60, async {
        let gateway = Gateway::start().await;
        let refusals = [
            (EnsureError::QueueFull { waiting: 9 }, 75, "9 are waiting already"),
            (EnsureError::TooManySessions { limit: 3 }, 75, "you have 3 sessions open"),
            (EnsureError::NoTemplate("gold".into()), 78, "template \"gold\""),
            (EnsureError::Engine("dial /var/run/docker.sock".into()), 75, "could not be started"),
        ];
        for (why, status, words) in refusals {
            *gateway.keeper.refuse.lock() = Some(why);
            let output = gateway.run("true").await;
            assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0));
            let told = text(&output.stderr);
            assert!(told.contains(words) && !told.contains("docker.sock") && told.lines().count() == 1, "{told}");
            let mut terminal = gateway.ssh_at_terminal(80, 24, &[]);
            terminal.see(words).await;
            let (rest, code) = terminal.end().await;
            assert!(rest.ends_with("\r\n") && code == Some(status), "{rest:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_goes_away_before_the_process_is_open_is_made_ready_again() {
    within(30, async {
        let gateway = Gateway::start().await;
        gateway.keeper.gone.store(2, Ordering::SeqCst);
        assert_eq!(gateway.run("echo third").await.stdout, b"third\n");
        gateway.keeper.gone.store(100, Ordering::SeqCst);
        assert_eq!(gateway.run("echo never").await.status.code(), Some(75));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_dies_is_told_and_nothing_hangs() {
    within(60, async {
        let gateway = Gateway::start().await;
        // One whose process ends with it, and one that is never heard of again.
        let mut terminal = gateway.ssh_at_terminal(80, 24, &["echo up; read x; kill -KILL $$"]);
        let mut program = gateway.ssh();
        let mut program = program.arg(gateway.host()).arg("echo up; exec sleep 100").spawn().unwrap();
        terminal.see("up\r\n").await;
        program.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).await.unwrap();
        terminal.write("x\n").await;
        gateway.keeper.ending.send_replace(Some(Ending::Died));
        terminal.see("your container ended").await;
        let (_, status) = terminal.end().await;
        assert!(status != Some(0));
        let output = program.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(75));
        assert!(text(&output.stderr).contains("your container ended"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_tells_people_waits_for_them_and_then_ends() {
    within(60, async {
        let mut gateway = Gateway::start_with(|config| config.drain_timeout = innkeeper::units::Span::secs(2)).await;
        let mut person = gateway.ssh_at_terminal(80, 24, &["echo up; exec sleep 100"]);
        let mut program = gateway.ssh();
        let mut program = program.arg(gateway.host()).arg("echo up; sleep 1; echo done").spawn().unwrap();
        person.see("up\r\n").await;
        program.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).await.unwrap();
        let began = std::time::Instant::now();
        gateway.shutdown.cancel();
        person.see("innkeeper: the gateway is restarting; this session ends within 2s").await;
        let output = program.wait_with_output().await.unwrap();
        assert_eq!((output.status.code(), &*output.stdout, &*output.stderr), (Some(0), &b"done\n"[..], &b""[..]), "it had the time");
        let (rest, status) = person.end().await;
        assert!(rest.contains("The gateway is restarting. Your container keeps running") && status == Some(255), "{rest:?}");
        (&mut gateway.running).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(gateway.keeper.leases.load(Ordering::SeqCst), 0);
        assert!(tokio::net::TcpStream::connect(gateway.address).await.is_err());
    })
    .await;
}
