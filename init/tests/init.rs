//! The program itself, with a gateway that is only a socket.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use innkeeper_init::protocol::*;
use rustix::process::Signal;
use support::{Gateway, all, shell};

const LARGE: Size = Size { columns: 100, rows: 30 };

#[test]
fn a_command_has_three_pipes_and_an_end() {
    let mut gateway = Gateway::new();
    let (process, mut pipes) = gateway.open(shell("cat; echo $HOME:$OWN:$USER >&2; pwd >&2; exit 7"));
    let (error, output, input) = (pipes.pop().unwrap(), pipes.pop().unwrap(), pipes.pop().unwrap());
    fs::File::from(input).write_all(b"\xffbytes\0").unwrap();
    assert_eq!(all(output), b"\xffbytes\0");
    let home = gateway.directory.path().display().to_string();
    assert_eq!(String::from_utf8(all(error)).unwrap(), format!("{home}:1:root\n{home}\n"));
    assert_eq!(gateway.exit(process), Exit::Status(7));

    let (process, _pipes) = gateway.open(shell("sleep 60 & wait"));
    gateway.order(&Order::Signal { process, signal: 10 });
    assert_eq!(gateway.exit(process), Exit::Signal(10));

    let (process, pipes) = gateway.open(shell("while echo x; do :; done"));
    drop(pipes);
    gateway.order(&Order::HangUp { process });
    assert_eq!(gateway.exit(process), Exit::Signal(1));
}

#[test]
fn ten_megabytes_pass_and_a_background_child_does_not_hold_the_end() {
    let mut gateway = Gateway::new();
    let (process, mut pipes) = gateway.open(shell("sleep 60 & head -c 10000000 /dev/zero; kill $!"));
    drop(pipes.pop());
    assert_eq!(all(pipes.pop().unwrap()).len(), 10_000_000);
    gateway.exit(process);

    let (process, _pipes) = gateway.open(shell("sleep 60 & echo $!"));
    assert_eq!(gateway.exit(process), Exit::Status(0), "though its output is still held");
    let (process, mut screen) = gateway.terminal("trap '' HUP; sleep 60 & echo done", |_| {});
    assert_eq!(gateway.exit(process), Exit::Status(0));
    assert_eq!(screen.end(), "done\r\n");

    let (process, mut screen) = gateway.terminal("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end", |_| {});
    assert_eq!(screen.end().len(), 3_000_000 + 2 + 5);
    assert_eq!(gateway.exit(process), Exit::Status(0));
}

#[test]
fn what_cannot_be_run_is_refused_with_its_reason() {
    let mut gateway = Gateway::new();
    let open = |process| |request| Order::Open { request, process };
    let pty = || Some(Pty { term: String::new(), size: LARGE, modes: Vec::new() });
    assert_eq!(gateway.refused(open(shell("a\0b"))), Failure::Invalid);
    assert_eq!(gateway.refused(open(Process { pty: pty(), name: Some("../x".into()), ..shell("true") })), Failure::Invalid);
    assert_eq!(gateway.refused(|request| Order::View { request, name: "none".into(), size: LARGE }), Failure::NotFound);
    let env = vec![Variable { name: "BIG".into(), value: "x".repeat(150_000) }];
    assert_eq!(gateway.refused(open(Process { env, ..shell("true") })), Failure::Invalid, "longer than the kernel takes");
    assert_eq!(gateway.refused(open(Process { pty: pty(), env: vec![], name: Some("x".repeat(33)), ..shell("true") })), Failure::Invalid);
    assert_eq!(gateway.refused(|request| Order::Logs { request, service: None, follow: false }), Failure::NotFound);
    gateway.order(&Order::Serve { services: Vec::new() });
    let (process, _) = gateway.open(shell("exit 3"));
    assert_eq!(gateway.exit(process), Exit::Status(3));
}

#[test]
fn a_terminal_has_its_size_modes_and_name_from_the_first_byte() {
    let mut gateway = Gateway::new();
    let (process, mut screen) = gateway.terminal("stty size; stty -a; tty; echo $SSH_TTY; echo $TERM; sleep 60", |process| {
        let pty = process.pty.as_mut().unwrap();
        pty.size = LARGE;
        pty.modes = vec![Mode { opcode: 53, value: 0 }, Mode { opcode: 1, value: 2 }];
        process.greeting = Some("welcome".into());
    });
    screen.see("xterm\r\n");
    let text = screen.text();
    assert!(text.starts_with("welcome\r\n30 100\r\n"), "{text}");
    assert!(text.contains("intr = ^B") && text.contains(" -echo "), "{text}");
    let lines: Vec<_> = text.lines().rev().skip(1).take(2).collect();
    assert!(lines[0] == lines[1] && lines[0].starts_with("/dev/pts/"), "{lines:?}");
    screen.kind("\x02");
    assert_eq!(gateway.exit(process), Exit::Signal(2));

    fs::write(gateway.path(".hushlogin"), "").unwrap();
    let (process, mut screen) = gateway.terminal("trap 'stty size; exit' WINCH; echo ready; while :; do sleep .05; done", |process| {
        process.greeting = Some("welcome".into());
    });
    screen.see("ready");
    gateway.order(&Order::Resize { process, size: Size { columns: 33, rows: 11 } });
    assert_eq!(screen.end(), "ready\r\n11 33\r\n");
}

#[test]
fn a_login_shell_is_one() {
    let mut gateway = Gateway::new();
    let (process, mut screen) = gateway.terminal("", |process| process.program = Program::LoginShell);
    screen.kind("echo 0=$0 term=$TERM\n");
    screen.see("0=-bash term=xterm");
    screen.kind("sleep 60\n");
    // Whoever has the terminal gets the signal, not the shell.
    let until = Instant::now() + Duration::from_secs(10);
    while !screen.text().contains("status=130") {
        assert!(Instant::now() < until, "{}", screen.text());
        std::thread::sleep(Duration::from_millis(100));
        gateway.order(&Order::Signal { process, signal: 2 });
        screen.kind("echo status=$?\n");
        screen.read();
    }
    screen.kind("exit 4\n");
    assert_eq!(gateway.exit(process), Exit::Status(4));
}

#[test]
fn a_named_terminal_is_shown_to_several_and_stays_without_any() {
    let mut gateway = Gateway::new();
    let (process, mut first) =
        gateway.terminal("stty -echo; while read line; do echo got $line; done", |process| process.name = Some("work".into()));
    first.kind("one\n");
    first.see("got one");
    let mut second = gateway.view("work", LARGE);
    second.see("got one");
    second.kind("two\n");
    first.see("got two");
    second.see("got two");
    assert_eq!(gateway.list()[0].viewers, 2);
    drop((first, second));
    let alone = gateway.listed(|terminals| terminals[0].viewers == 0);
    assert_eq!((alone[0].name.as_str(), alone[0].left), ("work", None));
    // Opened again, it is found.
    let (found, mut third) = gateway.terminal("echo another", |process| process.name = Some("work".into()));
    assert_eq!(found, process);
    third.see("got two");
    third.kind("three\n");
    third.see("got three");
    assert!(!third.text().contains("another"));
    gateway.order(&Order::HangUp { process });
    assert_eq!(gateway.exit(process), Exit::Signal(1));
    assert_eq!(gateway.list(), []);
    third.end();
}

#[test]
fn a_full_screen_program_is_painted_as_it_is_and_told_to() {
    let mut gateway = Gateway::new();
    let command = r"trap 'printf winched' WINCH; printf 'main\033[?1049h\033[5;5Hfull\033[?2004h'; while :; do sleep .05; done";
    let (process, mut first) = gateway.terminal(command, |process| process.name = Some("full".into()));
    first.see("[?2004h");
    let mut second = gateway.view("full", Size { columns: 80, rows: 24 });
    second.see("winched");
    let text = second.text();
    let painted = &text[text.find("main").unwrap()..];
    assert!(painted.contains("\x1b[?1049h") && painted.contains("full") && painted.contains("\x1b[?2004h"), "{text:?}");
    gateway.order(&Order::Signal { process, signal: 9 });
    assert_eq!(gateway.exit(process), Exit::Signal(9));
}

#[test]
fn who_is_slow_holds_up_nobody_but_herself() {
    let mut gateway = Gateway::new();
    // Alone, she holds up the program, and misses nothing.
    let count = "read go; seq 1 300000; echo done; read line";
    let (process, mut slow) = gateway.terminal(count, |process| process.name = Some("seq".into()));
    slow.kind("go\n");
    std::thread::sleep(Duration::from_millis(300));
    slow.see("done");
    let lines: Vec<_> = slow.text().lines().skip(1).map(str::to_owned).collect();
    assert_eq!(lines.len(), 300_001);
    assert!(lines.iter().zip(1..=300_000).all(|(line, number)| *line == number.to_string()));
    slow.kind("x\n");
    gateway.exit(process);

    let (process, mut slow) = gateway.terminal(count, |process| process.name = Some("seq".into()));
    let mut fast = gateway.view("seq", Size { columns: 80, rows: 24 });
    slow.kind("go\n");
    fast.see("300000\r\ndone");
    // She is painted the end of it when she has read what waited for her.
    slow.see("done");
    let text = slow.text();
    assert!(
        text.len() < 1_000_000 && text.ends_with("299999\r\n300000\r\ndone\r\n\x1b[0m\x1b[24;1H\x1b[0m"),
        "{:?}",
        &text[text.len() - 100..]
    );
    slow.kind("x\n");
    assert_eq!(gateway.exit(process), Exit::Status(0));
}

#[test]
fn a_viewer_that_leaves_while_nothing_is_read_has_left() {
    let mut gateway = Gateway::new();
    let (process, screen) = gateway.terminal("stty raw -echo; echo ready; sleep 60", |_| {});
    let mut screen = screen;
    screen.see("ready");
    // More than the terminal and init take.
    screen.kind(&"x".repeat(100_000));
    drop(screen);
    assert_eq!(gateway.exit(process), Exit::Signal(1));
}

#[test]
fn a_process_starts_with_the_signals_of_any_other() {
    let mut gateway = Gateway::new();
    let (_, pipes) = gateway.open(shell("cat /proc/self/status; ls -l /proc/self/fd; umask"));
    let text = String::from_utf8(all(pipes.into_iter().nth(1).unwrap())).unwrap();
    let signals = |what| {
        let line = text.lines().find_map(|line| line.strip_prefix(what)).unwrap().trim();
        u64::from_str_radix(line, 16).unwrap() & 0x7fff_ffff
    };
    assert_eq!((signals("SigBlk:"), signals("SigIgn:"), signals("SigCgt:")), (0, 0, 0));
    // Nothing of init's is left open in it.
    assert!(!["socket:", "anon_inode:", "ptmx"].iter().any(|own| text.contains(own)), "{text}");
    assert!(text.ends_with("0022\n"));
}

#[test]
fn a_launcher_waits_for_the_next_process_and_may_be_ended() {
    let mut gateway = Gateway::new();
    let init = gateway.init.id();
    let launchers = move || -> Vec<String> {
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
        let waits = |pid: &&str| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"innkeeper-launch\0");
        children.split_whitespace().filter(waits).map(str::to_owned).collect()
    };
    let until = |count: usize| {
        let began = Instant::now();
        loop {
            let found = launchers();
            if found.len() == count {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{found:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let mut pid_of_next = || {
        let (process, pipes) = gateway.open(shell("echo $$"));
        let pid = String::from_utf8(all(pipes.into_iter().nth(1).unwrap())).unwrap();
        assert_eq!(gateway.exit(process), Exit::Status(0));
        vec![pid.trim().to_owned()]
    };
    let first = until(1);
    assert_eq!(pid_of_next(), first);
    let second = until(1);
    assert_ne!(second, first);
    let pid = rustix::process::Pid::from_raw(second[0].parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    until(0);
    // Its name goes before its descriptors do.
    while fs::exists(format!("/proc/{}", second[0])).unwrap() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_ne!(pid_of_next(), second);
    let third = until(1);
    assert_eq!(pid_of_next(), third);
    // One that somebody has stopped goes on.
    let fourth = until(1);
    let pid = rustix::process::Pid::from_raw(fourth[0].parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    assert_eq!(pid_of_next(), fourth);
}

#[test]
fn a_lost_terminal_has_a_name_and_is_hung_up_in_time() {
    let mut gateway = Gateway::new();
    let keep = |seconds| move |process: &mut Process| process.keep = seconds;
    let (kept, screen) = gateway.terminal("echo here; sleep 60", keep(60));
    drop(screen);
    let lost = gateway.listed(|terminals| terminals[0].viewers == 0);
    assert_eq!((lost[0].process, lost[0].name.as_str()), (kept, "lost-1"));
    assert!(lost[0].left.unwrap() > 50);
    gateway.view("lost-1", LARGE).see("here");

    let (short, screen) = gateway.terminal("sleep 60", keep(1));
    let since = Instant::now();
    drop(screen);
    assert_eq!(gateway.exit(short), Exit::Signal(1));
    assert!(since.elapsed() > Duration::from_millis(700), "{:?}", since.elapsed());
    let (at_once, screen) = gateway.terminal("sleep 60", keep(0));
    drop(screen);
    assert_eq!(gateway.exit(at_once), Exit::Signal(1));
    assert_eq!(gateway.list().len(), 1);
}

#[test]
fn what_runs_outlives_the_gateway() {
    let mut gateway = Gateway::new();
    let file = gateway.path("written");
    let (terminal, mut screen) =
        gateway.terminal("echo before; read line; echo after $line; sleep 60", |process| process.name = Some("work".into()));
    screen.see("before");
    // More than a pipe holds: it would stop, or be killed.
    let command = format!("trap 'echo hup >> {0}' PIPE HUP; sleep .3; head -c 1000000 /dev/zero && echo all >> {0}", file.display());
    let (piped, pipes) = gateway.open(shell(&command));
    assert!(terminal < piped);
    drop((screen, pipes));
    gateway.restart();
    let names: Vec<_> = gateway.terminals.iter().map(|terminal| (terminal.process, terminal.name.as_str())).collect();
    assert_eq!(names, [(terminal, "work")]);
    let until = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(&file).unwrap_or_default().is_empty() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "all\n");
    let mut screen = gateway.view("work", LARGE);
    screen.see("before");
    screen.kind("all\n");
    screen.see("after all");
}

#[test]
fn what_is_no_order_ends_the_connection_and_nothing_else() {
    let mut gateway = Gateway::new();
    let (process, _screen) = gateway.terminal("sleep 60", |process| process.name = Some("work".into()));
    gateway.send_raw(b"\x82\x18\xff");
    assert!(gateway.receive().is_none());
    gateway.restart();
    assert_eq!(gateway.terminals[0].process, process);
}

#[test]
fn what_only_a_newer_gateway_says_is_passed_over_and_the_rest_is_done() {
    let mut gateway = Gateway::new();
    let (process, mut screen) =
        gateway.terminal("echo ready; read line; echo said $line; sleep 60", |process| process.name = Some("work".into()));
    screen.see("ready");
    let on = Endpoint::At { address: Address::Unix { path: "mine".into() } };
    let listening = gateway.ask(|request| Order::Listen { request, on }).message;
    assert!(matches!(listening, Report::Listening { .. }), "{listening:?}");
    for round in 0..2 {
        for _ in 0..20 {
            // Another kind of order; and orders that there are, with another kind of thing in them.
            gateway.send_raw(&minicbor::to_vec((200, (1, "added later"))).unwrap());
            gateway.send_raw(&minicbor::to_vec((7, (1, (9, ("vsock", 3))))).unwrap());
            gateway.send_raw(&minicbor::to_vec((8, (1, (9, ("fuse",))))).unwrap());
        }
        // One that there is, with more to say than is known.
        gateway.send_raw(&minicbor::to_vec((3, (77, "added later", 5))).unwrap());
        let (terminals, _) = gateway.until(|report| match report {
            Report::Terminals { request: 77, terminals } => Some(terminals.clone()),
            _ => None,
        });
        assert_eq!((terminals[0].process, terminals[0].name.as_str()), (process, "work"), "the same connection");
        let _client = UnixStream::connect(gateway.path("mine")).unwrap();
        gateway.until(|report| matches!(report, Report::Accepted { .. }).then_some(()));
        screen.kind("x\n");
        screen.see("said x");
        let (other, _) = gateway.open(shell("exit 3"));
        assert_eq!(gateway.exit(other), Exit::Status(3));
        if round == 0 {
            // Another, which speaks a version that does not exist yet, and whose welcome says more.
            gateway.leave();
            gateway.come_back_saying(&minicbor::to_vec((0, (VERSION + 9, "added later"))).unwrap());
            assert_eq!(gateway.terminals[0].process, process);
            screen = gateway.view("work", LARGE);
            let on = Endpoint::At { address: Address::Unix { path: "mine".into() } };
            gateway.ask(|request| Order::Listen { request, on });
        }
    }
}

#[test]
fn it_connects_to_addresses_and_paths() {
    let mut gateway = Gateway::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
    for host in ["127.0.0.1", "localhost"] {
        let answer = gateway.ask(|request| Order::Connect { request, to: tcp(host, port) });
        let mut ours = TcpStream::from(answer.descriptors.into_iter().next().unwrap());
        let (mut theirs, _) = server.accept().unwrap();
        ours.write_all(b"hello").unwrap();
        drop(ours);
        let mut said = String::new();
        theirs.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello");
    }
    drop(server);
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(gateway.refused(|request| Order::Connect { request, to: tcp(host, port) }), Failure::Refused);
    }

    let unix = |path: &str| Address::Unix { path: path.to_owned() };
    let server = UnixListener::bind(gateway.path("server")).unwrap();
    // Below the home.
    let answer = gateway.ask(|request| Order::Connect { request, to: unix("server") });
    assert_eq!(answer.message, Report::Connected { request: 5 });
    server.accept().unwrap();
    fs::write(gateway.path("file"), "").unwrap();
    assert_eq!(gateway.refused(|request| Order::Connect { request, to: unix("file") }), Failure::Invalid);
    assert_eq!(gateway.refused(|request| Order::Connect { request, to: unix("/missing") }), Failure::NotFound);
    // A program of the container's could wait for a writer there for ever.
    rustix::fs::mknodat(rustix::fs::CWD, gateway.path("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert_eq!(gateway.refused(|request| Order::Connect { request, to: unix("fifo") }), Failure::Invalid);
    // Nobody reads it, so that it has not been opened either.
    let write = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let opened = rustix::fs::open(gateway.path("fifo"), write, rustix::fs::Mode::empty());
    assert_eq!(opened.err(), Some(rustix::io::Errno::NXIO));
    std::os::unix::fs::symlink("loop", gateway.path("loop")).unwrap();
    std::os::unix::fs::symlink("server", gateway.path("link")).unwrap();
    for (path, why) in [("/dev/null", Failure::Invalid), ("/", Failure::Invalid), ("loop", Failure::Other), ("gateway", Failure::Invalid)] {
        assert_eq!(gateway.refused(|request| Order::Connect { request, to: unix(path) }), why, "{path}");
    }
    assert!(matches!(gateway.ask(|request| Order::Connect { request, to: unix("link") }).message, Report::Connected { .. }));
    drop(server);
    assert_eq!(gateway.refused(|request| Order::Connect { request, to: unix("link") }), Failure::Refused);
}

#[test]
fn it_listens_until_it_is_told_or_the_gateway_goes() {
    let mut gateway = Gateway::new();
    let listen = |gateway: &mut Gateway, on| match gateway.ask(|request| Order::Listen { request, on }).message {
        Report::Listening { listener, on, .. } => (listener, on),
        other => panic!("{other:?}"),
    };
    let accepted = |gateway: &mut Gateway, of| {
        gateway.until(|report| match report {
            Report::Accepted { listener, from } if *listener == of => Some(from.clone()),
            _ => None,
        })
    };
    let tcp = |host: &str| Endpoint::At { address: Address::Tcp { host: host.to_owned(), port: 0 } };
    for host in ["", "localhost", "127.0.0.1"] {
        let (listener, on) = listen(&mut gateway, tcp(host));
        let Address::Tcp { port, .. } = on else { panic!() };
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (from, descriptors) = accepted(&mut gateway, listener);
        assert_eq!(from, Some(Address::Tcp { host: "127.0.0.1".into(), port: client.local_addr().unwrap().port() }));
        client.write_all(b"x").unwrap();
        drop(client);
        assert_eq!(all(descriptors.into_iter().next().unwrap()), b"x");
        gateway.order(&Order::Unlisten { listener });
        gateway.list();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
    let (listener, on) = listen(&mut gateway, Endpoint::At { address: Address::Unix { path: "mine".into() } });
    assert_eq!(on, Address::Unix { path: gateway.path("mine").display().to_string() });
    let _client = UnixStream::connect(gateway.path("mine")).unwrap();
    assert_eq!(accepted(&mut gateway, listener).0, None);
    let taken = |request| Order::Listen { request, on: Endpoint::At { address: Address::Unix { path: "mine".into() } } };
    assert_eq!(gateway.refused(taken), Failure::Taken);
    let (_, Address::Unix { path: agent }) = listen(&mut gateway, Endpoint::Agent) else { panic!() };
    let x11 = Endpoint::X11 { protocol: "MIT-MAGIC-COOKIE-1".into(), cookie: vec![1; 16] };
    let (_, Address::Tcp { host: authority, port }) = listen(&mut gateway, x11) else { panic!() };
    assert!(port >= 6010 && fs::metadata(&authority).unwrap().len() > 16);
    assert!(UnixStream::connect(&agent).is_ok());
    gateway.restart();
    let until = Instant::now() + Duration::from_secs(10);
    for gone in [&agent, &authority, &gateway.path("mine").display().to_string()] {
        while fs::exists(gone).unwrap() {
            assert!(Instant::now() < until, "{gone}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn on_term_it_ends_with_the_last_of_its_processes() {
    let mut gateway = Gateway::first_process();
    let file = gateway.path("written");
    let note = |what| format!("trap 'echo {what} >> {}; exit' TERM HUP; echo ready; while :; do sleep .02; done", file.display());
    let (process, mut screen) = gateway.terminal(&note("terminal"), |_| {});
    screen.see("ready");
    let (shell_at_terminal, mut prompt) = gateway.terminal("", |process| process.program = Program::LoginShell);
    // Other words than those typed, which the terminal echoes before the shell is up.
    prompt.kind("echo $((6*7))-here\n");
    prompt.see("42-here\r\n");
    // One that is nobody's child any more, and one that is stopped.
    let (_, pipes) = gateway.open(shell(&format!("setsid sh -c \"{}\" & kill -STOP $$", note("orphan").replace('"', "\\\""))));
    support::wait(&pipes[1]);
    let mut order = vec![process, shell_at_terminal];
    // The init itself: its parent is only who made its namespace.
    let parent = gateway.init.id();
    let first: i32 = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(first).unwrap(), Signal::TERM).unwrap();
    order.retain(|process| matches!(gateway.exit(*process), Exit::Status(_) | Exit::Signal(1)));
    assert_eq!(order.len(), 2);
    assert_eq!(gateway.init.wait().unwrap().code(), Some(0));
    let mut lines: Vec<_> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    assert_eq!(lines, ["orphan", "terminal"]);
}

#[test]
fn without_processes_it_ends_at_once_on_term() {
    let mut gateway = Gateway::new();
    gateway.signal_init(Signal::TERM);
    assert_eq!(gateway.init.wait().unwrap().code(), Some(0));
}
