//! Terminals that outlive their clients, with the real OpenSSH client: the ones that have a name, and the ones whose client was lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/ssh.rs"]
mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Gateway, PASSWORD, Terminal, text, until, within};
use innkeeper::units::Span;
use innkeeper::workspace::{Ending, StartPath};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpListener, TcpStream};

/// A way to the gateway that can fail.
struct Network {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
    reset: Arc<AtomicBool>,
}

impl Network {
    async fn to(gateway: &Gateway) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let network = Self { address: listener.local_addr().unwrap(), silent: Arc::default(), reset: Arc::default() };
        let (far, silent, reset) = (gateway.address, network.silent.clone(), network.reset.clone());
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(near, TcpStream::connect(far).await.unwrap(), silent.clone(), reset.clone()));
            }
        });
        network
    }

    fn option(&self) -> String {
        format!("-oPort={}", self.address.port())
    }
}

/// Both ways, until it is told not to carry any more, or to tear the connection.
async fn carry(near: TcpStream, far: TcpStream, silent: Arc<AtomicBool>, reset: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if reset.load(Ordering::SeqCst) {
            for stream in [&near, &far] {
                socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            return;
        }
        if !silent.load(Ordering::SeqCst) {
            for (from, to) in [(&near, &far), (&far, &near)] {
                match from.try_read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => {
                        let mut rest = &buffer[..length];
                        while !rest.is_empty() {
                            to.writable().await.unwrap();
                            rest = &rest[to.try_write(rest).unwrap_or(0)..];
                        }
                    }
                    Err(_) => {}
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn hung_up(gateway: &Gateway) -> usize {
    gateway.keeper.hung_up.load(Ordering::SeqCst)
}

fn leases(gateway: &Gateway) -> (usize, usize) {
    (gateway.keeper.leases.load(Ordering::SeqCst), gateway.keeper.sessions.load(Ordering::SeqCst))
}

fn at_terminal(gateway: &Gateway, name: &str, arguments: &[&str]) -> Terminal {
    gateway.ssh_at_terminal_as(name, &[], 80, 24, arguments)
}

async fn kill(terminal: &mut Terminal) {
    terminal.child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_names_a_terminal_after_the_last_plus_and_nobody_is_asked_about_it() {
    within(60, async {
        let gateway = Gateway::start().await;
        for (typed, account) in [
            ("alice", "alice"),
            ("alice+work", "alice"),
            ("a+b+c", "a+b"),
            ("a+b@example.org", "a+b@example.org"),
            ("alice+", "alice+"),
            ("+work", "+work"),
            ("alice+Work", "alice+Work"),
        ] {
            let mut client = gateway.connect().await;
            let let_in = client.authenticate_password(typed, PASSWORD).await.unwrap().success();
            assert_eq!(let_in, account == "alice", "{typed}");
            assert_eq!(gateway.auth.asked.lock().last().unwrap().1.account.as_str(), account, "{typed}");
        }
        let mut ssh = gateway.ssh();
        assert_eq!(ssh.arg("alice+work@127.0.0.1").arg("echo by key").output().await.unwrap().stdout, b"by key\n");
        assert!(gateway.keeper.opened.lock().iter().all(|spec| spec.terminal.is_none()), "a command has no use for it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_with_a_name_is_found_again_however_it_was_left() {
    within(60, async {
        let gateway = Gateway::start().await;
        let mut first = at_terminal(&gateway, "alice+work", &[]);
        first.see("$ ").await;
        first.write("marked=yes\n").await;
        first.see("$ ").await;
        kill(&mut first).await;
        until("it is left", || gateway.keeper.terminals.has("work", 0)).await;

        // By the other way to say its name, and then by both at once.
        let mut second = at_terminal(&gateway, "alice", &["@work"]);
        second.see("marked=yes").await;
        second.write("echo $marked, again\n").await;
        second.see("yes, again\r\n").await;
        let mut third = at_terminal(&gateway, "alice+work", &[]);
        third.see("yes, again\r\n").await;
        assert!(gateway.keeper.terminals.has("work", 2));
        // OpenSSH's own way to leave.
        second.write("\n~.").await;
        assert_eq!(second.end().await.1, Some(255));
        until("one is left", || gateway.keeper.terminals.has("work", 1)).await;
        third.write("exit 7\n").await;
        assert_eq!(third.end().await.1, Some(7));
        assert_eq!(hung_up(&gateway), 0);
        until("all leases are back", || leases(&gateway) == (0, 0)).await;
        assert_eq!(gateway.keeper.opened.lock().iter().filter(|spec| spec.terminal.is_some()).count(), 3);
        assert_eq!(gateway.metric("sessions_total", &[("kind", "shell")]), 3.0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_at_a_terminal_gets_its_end_and_sizes_reach_it() {
    within(60, async {
        let gateway = Gateway::start().await;
        let mut one = at_terminal(&gateway, "alice+work", &[]);
        one.see("$ ").await;
        let mut other = at_terminal(&gateway, "alice+work", &[]);
        other.see("$ ").await;
        other.pty.resize(pty_process::Size::new(20, 61)).unwrap();
        one.write("until [ \"$(stty size)\" = '20 61' ]; do sleep 0.02; done; echo so it' 'is\n").await;
        one.see("so it is\r\n").await;
        other.see("so it is\r\n").await;
        other.write("exit 9\n").await;
        assert_eq!((one.end().await.1, other.end().await.1), (Some(9), Some(9)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_needs_a_terminal_and_no_permission_to_run_commands() {
    within(60, async {
        let gateway = Gateway::start().await;
        *gateway.auth.change_grant.lock() = Some(Box::new(|grant| grant.permit.exec = false));
        let output = gateway.run("@work").await;
        assert_eq!((output.status.code(), &*output.stdout), (Some(64), &b""[..]));
        assert_eq!(text(&output.stderr), "innkeeper: a name after @ is a terminal's, which your client must ask for: ssh -t ... @name\n");
        assert!(gateway.keeper.opened.lock().is_empty());
        let mut terminal = at_terminal(&gateway, "alice", &["@work"]);
        terminal.see("$ ").await;
        terminal.write("exit 3\n").await;
        assert_eq!(terminal.end().await.1, Some(3));
        assert_eq!(gateway.run("true").await.status.code(), Some(77));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_are_listed_with_and_without_a_terminal() {
    within(60, async {
        let gateway = Gateway::start().await;
        let output = gateway.run("@").await;
        assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b""[..]));
        assert!(text(&output.stderr).contains("you have no terminal that has a name"), "{}", text(&output.stderr));
        let mut work = at_terminal(&gateway, "alice+work", &[]);
        work.see("$ ").await;
        let mut left = at_terminal(&gateway, "alice+a", &[]);
        left.see("$ ").await;
        kill(&mut left).await;
        until("it is left", || gateway.keeper.terminals.has("a", 0)).await;
        let check = |list: &str| {
            let lines: Vec<&str> = list.lines().collect();
            assert!(
                lines[0].starts_with("a     nobody watches, since ") && lines[0].ends_with("; to get into it: ssh -t ... @a"),
                "{list}"
            );
            assert_eq!(lines[1..], ["work  watched by 1; to get into it: ssh -t ... @work"]);
        };
        let output = gateway.run("@").await;
        assert_eq!(output.status.code(), Some(0));
        check(&text(&output.stdout));
        let mut terminal = at_terminal(&gateway, "alice", &["@"]);
        let (all, status) = terminal.end().await;
        assert!(status == Some(0) && all.matches("\r\n").count() == 2, "{all:?}");
        check(&all);
    })
    .await;
}

/// The client says goodbye, or its kernel does for it.
#[tokio::test(flavor = "multi_thread")]
async fn who_closes_a_session_without_a_name_ends_it() {
    within(60, async {
        let gateway = Gateway::start().await;
        let mut killed = gateway.ssh_at_terminal(80, 24, &[]);
        killed.see("$ ").await;
        kill(&mut killed).await;
        until("the first is hung up", || hung_up(&gateway) == 1).await;
        let mut left = gateway.ssh_at_terminal(80, 24, &[]);
        left.see("$ ").await;
        left.write("\n~.").await;
        left.end().await;
        until("the second is hung up", || hung_up(&gateway) == 2).await;
        // The terminal's window is closed.
        let mut window = gateway.ssh_at_terminal(80, 24, &[]);
        window.see("$ ").await;
        kill_process(Pid::from_raw(window.child.id().unwrap() as i32).unwrap(), Signal::HUP).unwrap();
        until("the third is hung up", || hung_up(&gateway) == 3).await;
        // One channel of a connection that goes on.
        let client = gateway.log_in().await;
        let channel = client.channel_open_session().await.unwrap();
        channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
        channel.request_shell(true).await.unwrap();
        until("it is open", || gateway.keeper.opened.lock().len() == 4).await;
        channel.close().await.unwrap();
        until("the fourth is hung up", || hung_up(&gateway) == 4).await;
        until("nothing is left", || gateway.keeper.terminals.list().is_empty() && leases(&gateway) == (0, 0)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_lost_finds_her_terminal_again_and_is_told_of_it() {
    within(90, async {
        let gateway = Gateway::start_with(|config| (config.keepalive_interval, config.keepalive_max) = (Span::secs(2), 2)).await;
        let network = Network::to(&gateway).await;
        *gateway.keeper.motd.lock() = Some("Welcome.".into());
        let mut torn = gateway.ssh_at_terminal_as("alice", &[&network.option()], 80, 24, &[]);
        torn.see("Welcome.\r\n$ ").await;
        torn.write("marked=yes\n").await;
        torn.see("$ ").await;
        network.reset.store(true, Ordering::SeqCst);
        until("it is left", || gateway.keeper.terminals.has("lost-1", 0)).await;
        // Long enough for a hang-up that would come, were it taken for closed.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!((hung_up(&gateway), leases(&gateway)), (0, (1, 0)), "its workspace is kept, and no session is counted");
        torn.end().await;

        network.reset.store(false, Ordering::SeqCst);
        let mut silent = gateway.ssh_at_terminal_as("alice", &[&network.option()], 80, 24, &[]);
        silent.see("Welcome.\r\na terminal of yours was cut off ").await;
        silent.see(" ago and still runs; to get back into it: ssh -t ... @lost-1\r\n$ ").await;
        network.silent.store(true, Ordering::SeqCst);
        until("that is left as well", || gateway.keeper.terminals.has("lost-2", 0)).await;
        until("both workspaces are kept", || leases(&gateway) == (2, 0)).await;

        let mut back = at_terminal(&gateway, "alice", &["@lost-1"]);
        back.see("marked=yes").await;
        back.write("echo $marked, again\n").await;
        back.see("yes, again\r\n").await;
        let mut hush = gateway.ssh_at_terminal(80, 24, &[]);
        let greeting = hush.see("$ ").await;
        assert!(greeting.contains("@lost-2") && !greeting.contains("@lost-1"), "that one is watched: {greeting:?}");
        back.write("exit\n").await;
        assert_eq!(back.end().await.1, Some(0));
        until("the lease that was for it is back", || leases(&gateway) == (2, 1)).await;
        assert_eq!(hung_up(&gateway), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stands_still_is_lost() {
    within(60, async {
        let gateway = Gateway::start_with(|config| (config.keepalive_interval, config.keepalive_max) = (Span::secs(2), 2)).await;
        let mut terminal = gateway.ssh_at_terminal(80, 24, &[]);
        terminal.see("$ ").await;
        let client = Pid::from_raw(terminal.child.id().unwrap() as i32).unwrap();
        kill_process(client, Signal::STOP).unwrap();
        until("it is left", || gateway.keeper.terminals.has("lost-1", 0)).await;
        kill(&mut terminal).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!((hung_up(&gateway), leases(&gateway)), (0, (1, 0)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_terminal_ends_with_its_client_and_so_does_everything_where_nothing_is_kept() {
    within(60, async {
        for keep in [0, 600] {
            let gateway = Gateway::start_with_sessions(|_, session| session.keep_lost = Span::secs(keep)).await;
            let network = Network::to(&gateway).await;
            let mut ssh = tokio::process::Command::new("ssh");
            ssh.arg(network.option()).args(gateway.options()).args(["-oBatchMode=yes", "-i"]).arg(gateway.path("id")).kill_on_drop(true);
            let _program = ssh.arg(gateway.host()).arg("exec sleep 100").spawn().unwrap();
            let mut terminal = gateway.ssh_at_terminal_as("alice", &[&network.option()], 80, 24, &[]);
            terminal.see("$ ").await;
            until("both are open", || gateway.keeper.opened.lock().len() == 2).await;
            network.reset.store(true, Ordering::SeqCst);
            let ended = if keep == 0 { 2 } else { 1 };
            until("those that end are hung up", || hung_up(&gateway) == ended).await;
            until("what is not kept is given back", || leases(&gateway) == (2 - ended, 0)).await;
            let spec = gateway.keeper.opened.lock().iter().find(|spec| spec.pty.is_some()).unwrap().clone();
            assert_eq!(spec.keep_lost, Duration::from_secs(keep));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_kept_no_longer_than_its_terminal() {
    within(60, async {
        let gateway = Gateway::start_with_sessions(|_, session| session.keep_lost = Span::secs(3)).await;
        let network = Network::to(&gateway).await;
        let mut terminal = gateway.ssh_at_terminal_as("alice", &[&network.option()], 80, 24, &["sh"]);
        terminal.see("$ ").await;
        network.reset.store(true, Ordering::SeqCst);
        until("it is left", || gateway.keeper.terminals.has("lost-1", 0)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(leases(&gateway), (1, 0));
        until("its time has passed", || leases(&gateway) == (0, 0)).await;
        assert_eq!(hung_up(&gateway), 0, "ending it is not for this side");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_does_not_wait_to_be_told_of_what_was_lost() {
    within(60, async {
        let gateway = Gateway::start().await;
        let network = Network::to(&gateway).await;
        let mut lost = gateway.ssh_at_terminal_as("alice", &[&network.option()], 80, 24, &[]);
        lost.see("$ ").await;
        network.reset.store(true, Ordering::SeqCst);
        until("it is left", || gateway.keeper.terminals.has("lost-1", 0)).await;
        // Nothing can be lost in a container that was only started for this login.
        *gateway.keeper.path.lock() = StartPath::Start;
        let mut terminal = gateway.ssh_at_terminal(80, 24, &[]);
        assert_eq!(terminal.see("$ ").await, "$ ");
        *gateway.keeper.path.lock() = StartPath::Attach;
        *gateway.keeper.listing_takes.lock() = Duration::from_secs(600);
        let mut terminal = gateway.ssh_at_terminal(80, 24, &[]);
        assert_eq!(terminal.see("$ ").await, "$ ");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_gateway_loses_clients_and_says_how_to_come_back() {
    within(60, async {
        let mut gateway = Gateway::start_with(|config| config.drain_timeout = Span::secs(2)).await;
        let mut named = at_terminal(&gateway, "alice+work", &[]);
        let mut plain = gateway.ssh_at_terminal(80, 24, &[]);
        let mut leaves = gateway.ssh_at_terminal(80, 24, &[]);
        for terminal in [&mut named, &mut plain, &mut leaves] {
            terminal.see("$ ").await;
        }
        gateway.shutdown.cancel();
        named.see("this session ends within 2s, its terminal goes on; to get back into it: ssh -t ... @work\r\n").await;
        plain.see("this session ends within 2s, its terminal goes on for 30m; log in again in a moment, and you are told how").await;
        leaves.see("the gateway is restarting").await;
        kill(&mut leaves).await;
        for terminal in [&mut named, &mut plain] {
            assert_eq!(terminal.end().await.1, Some(255));
        }
        (&mut gateway.running).await.unwrap();
        assert_eq!(hung_up(&gateway), 1, "the one that left by itself");
        let left = gateway.keeper.terminals.list();
        assert!(left.iter().all(|terminal| terminal.viewers == 0 && !terminal.name.is_empty()) && left.len() == 2, "{left:?}");
        assert_eq!(leases(&gateway), (0, 0), "the next gateway sees to that");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_to_come_is_said_once_and_again_when_it_was_put_off() {
    within(60, async {
        let gateway = Gateway::start().await;
        let mut terminal = gateway.ssh_at_terminal(80, 24, &[]);
        terminal.see("$ ").await;
        let soon = |seconds, can_be_kept| {
            let within = Duration::from_secs(seconds);
            gateway.keeper.ending.send_replace(Some(Ending::Soon { reason: "a test", within, can_be_kept }));
        };
        soon(300, true);
        terminal
            .see("innkeeper: your container will be stopped in 5m (a test); your home is kept; `innkeeper-keep 1h` asks for more time")
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        soon(295, true);
        tokio::time::sleep(Duration::from_millis(200)).await;
        soon(600, false);
        assert!(!terminal.see("will be stopped in 10m (a test); your home is kept\r\n").await.contains("4m"), "the same end twice");
        let mut late = gateway.ssh_at_terminal(80, 24, &[]);
        late.see("$ ").await;
        soon(3, false);
        late.see("will be stopped in 3s").await;
        gateway.keeper.ending.send_replace(Some(Ending::Stopping("a test")));
        terminal.see("your container is being stopped (a test)").await;
        terminal.write("exit\n").await;
        assert_eq!(terminal.end().await.1, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_brings_mosh_is_told_what_works_instead() {
    within(60, async {
        let gateway = Gateway::start().await;
        let output = gateway.run("mosh-server new -c 256 -s -l LANG=C.UTF-8").await;
        assert_eq!((output.status.code(), &*output.stdout), (Some(64), &b""[..]));
        assert!(
            text(&output.stderr).contains("mosh cannot work here: it needs to reach your container by UDP. A terminal that has a name")
        );
        let mut terminal = gateway.ssh_at_terminal(80, 24, &["mosh-server", "new"]);
        terminal.see("mosh cannot work here").await;
        assert_eq!(terminal.end().await.1, Some(64));
        assert!(gateway.keeper.opened.lock().is_empty());
        assert_eq!(gateway.run("echo mosh-server new").await.stdout, b"mosh-server new\n");
    })
    .await;
}
