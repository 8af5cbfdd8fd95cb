//! Sessions at a terminal: what a person sees, and what her keys do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::process::Command;
use std::time::{Duration, Instant};

use gateway::{Gateway, Terminal, run, template, without_waiting};

/// A prompt that no echo of its own definition looks like.
const PROMPT: &str = "PS1='rea''dy> '; bind 'set enable-bracketed-paste off'\r";

/// The login shell at a terminal, at its prompt.
fn shell(gateway: &Gateway) -> Terminal {
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("$ ");
    terminal.send(PROMPT);
    terminal.expect("ready> ");
    terminal
}

#[test]
fn a_terminal_has_its_kind_and_size_from_the_first_byte_and_follows_the_window() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    for (term, rows, columns) in [("xterm-256color", 37, 101), ("screen", 2, 500), ("vt100", 120, 7)] {
        let mut ssh = gateway.ssh("alice");
        ssh.args(["-tt", "stty size; echo $TERM; tput cols"]).env("TERM", term);
        let (status, seen) = Terminal::open(&ssh, rows, columns).end();
        assert_eq!(String::from_utf8_lossy(without_waiting(&seen)), format!("{rows} {columns}\r\n{term}\r\n{columns}\r\n"));
        assert_eq!(status, Some(0));
    }
    // Blocked and waited for, so that no signal is lost on the program's side.
    let follow = "import os, signal\n\
        changed = {signal.SIGWINCH}\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, changed)\n\
        print('up', flush=True)\n\
        while signal.sigwait(changed): print(*os.get_terminal_size()[::-1], flush=True)\n";
    let mut terminal = gateway.terminal("alice", &format!("python3 -c \"{follow}\""));
    terminal.expect("up\r\n");
    for (rows, columns) in [(50, 132), (10, 20), (999, 999)] {
        terminal.resize(rows, columns);
        terminal.expect(&format!("{rows} {columns}\r\n"));
    }
}

#[test]
fn keys_do_what_they_do_at_any_terminal() {
    let gateway = Gateway::start("");
    let mut terminal = shell(&gateway);
    // The keys are for a program that runs: bash loses those that come while it starts one.
    terminal.send("sh -c 'echo go; exec sleep 300'\r");
    terminal.expect("\r\ngo\r\n");
    terminal.send("\x03");
    terminal.expect("ready> ");
    terminal.send("echo status $?\r");
    terminal.expect("status 130\r\n");

    terminal.send("sh -c 'echo go; exec cat'\r");
    terminal.expect("\r\ngo\r\n");
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.expect("ready> ");
    terminal.send("fg\r");
    terminal.expect("exec cat'\r\n");
    terminal.send("grüße 中\r");
    terminal.expect("grüße 中\r\ngrüße 中\r\n");
    terminal.send("\x04");
    terminal.expect("ready> ");

    // The engine's own keys to detach begin with Ctrl-P: they are nothing here, and the first is not held back for the second.
    terminal.send("echo fi''rst\r");
    terminal.expect("\nfirst\r\n");
    terminal.expect("ready> ");
    let since = Instant::now();
    terminal.send("\x10");
    terminal.expect("echo fi''rst");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    terminal.send("\r");
    terminal.expect("\nfirst\r\n");
    terminal.send("stty -icanon -echo -ixon; echo raw; head -c 3 | od -An -tx1; stty sane\r");
    terminal.expect("\nraw\r\n");
    terminal.send("\x10\x11\x02");
    terminal.expect("10 11 02");
    terminal.expect("ready> ");

    terminal.send("echo ${#who}; exit 3\r");
    let (status, seen) = terminal.end();
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert_eq!(status, Some(3), "{seen}");
    assert!(!seen.contains("no job control") && !seen.contains("cannot set terminal"), "{seen}");
}

#[test]
fn what_a_program_writes_arrives_byte_for_byte() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    let (_, seen) = gateway.terminal("alice", r"stty -opost; printf '\000\001\002\r\n\377\303\244\033[1m\000'").end();
    assert_eq!(without_waiting(&seen), b"\x00\x01\x02\r\n\xff\xc3\xa4\x1b[1m\x00");
    let all = run(gateway.ssh("alice").args(["-tt", "stty -opost; for i in $(seq 0 255); do printf \"\\\\x$(printf %x $i)\"; done"]));
    assert_eq!(without_waiting(&all.stdout), (0..=255).collect::<Vec<u8>>());
    let lines = run(gateway.ssh("alice").args(["-tt", "seq 1 200000; exit 7"]));
    assert_eq!(lines.status, Some(7));
    let expected: String = (1..=200_000).map(|number| format!("{number}\r\n")).collect();
    assert!(without_waiting(&lines.stdout) == expected.as_bytes(), "{} bytes of {}", lines.stdout.len(), expected.len());
}

#[test]
fn the_terminals_own_modes_travel_along() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    let ssh = gateway.ssh("alice");
    let words: Vec<String> = ssh.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
    let mut command = Command::new("sh");
    let line = format!("stty intr ^G erase ^H quit undef -echoctl -ixon iutf8; exec ssh -tt {} 'stty -a; stty size'", words.join(" "));
    command.args(["-c", &line]).env("TERM", "xterm");
    let (status, seen) = Terminal::open(&command, 30, 90).end();
    let seen = String::from_utf8_lossy(&seen).into_owned();
    for mode in ["intr = ^G;", "erase = ^H;", "quit = <undef>;", "-echoctl", "-ixon", " iutf8", " echo ", "\nisig", "susp = ^Z;", "30 90"] {
        assert!(seen.contains(mode), "{mode}: {seen}");
    }
    assert_eq!(status, Some(0));
}

#[test]
fn people_are_greeted_and_programs_are_not() {
    let gateway = Gateway::start(&template("motd = \"Be kind.\\nAnd brief.\""));
    for (options, line) in [(&[][..], "true"), (&["-tt"], "true"), (&["-T"], "")] {
        let mut ssh = gateway.ssh("alice");
        ssh.args(options);
        if !line.is_empty() {
            ssh.arg(line);
        }
        if options == ["-tt"] {
            // A terminal shows that a container is made; this one is there.
            gateway.exec("alice", "true").good();
        }
        let done = run(&mut ssh);
        assert_eq!((without_waiting(done.good().as_bytes()), done.stderr.as_str()), (&b""[..], ""), "{options:?}");
    }
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("Be kind.\r\nAnd brief.\r\n");
    terminal.expect("$ ");
    terminal.send("touch .hushlogin; exit\r");
    terminal.end();
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("$ ");
    terminal.send("exit\r");
    let (status, seen) = terminal.end();
    assert!(status == Some(0) && !String::from_utf8_lossy(&seen).contains("kind"), "{}", String::from_utf8_lossy(&seen));
}
