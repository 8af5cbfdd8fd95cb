//! Terminals that outlive their clients, in real containers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use gateway::{Gateway, Terminal, signal, wait_for, without_waiting};

fn lines(gateway: &Gateway) -> String {
    gateway.exec("alice", "@").text()
}

/// A shell that knows something which no other does.
fn marked(gateway: &Gateway, account: &str, mark: &str) -> Terminal {
    let mut terminal = gateway.terminal(account, "");
    terminal.send(format!("mark={mark}\necho $mark'-is-set'\n"));
    terminal.expect(&format!("{mark}-is-set"));
    terminal
}

fn check_mark(terminal: &mut Terminal, mark: &str) {
    terminal.send("echo still-$mark\n");
    terminal.expect(&format!("still-{mark}"));
}

#[test]
fn a_terminal_with_a_name_is_shown_again_also_by_the_next_gateway() {
    let mut gateway = Gateway::start("[ssh]\ndrain_timeout = \"500ms\"\n");
    let first = marked(&gateway, "alice+work", "red");
    drop(first);
    wait_for("it is left", || lines(&gateway).starts_with("work  nobody watches"));
    let mut second = gateway.terminal("alice", "@work");
    check_mark(&mut second, "red");
    gateway.stop();
    let said = String::from_utf8_lossy(&second.end().1).into_owned();
    assert!(said.contains("its terminal goes on; to get back into it: ssh -t ... @work"), "{said}");
    gateway.up();
    let mut third = gateway.terminal("alice+work", "");
    check_mark(&mut third, "red");
    third.send("exit 5\n");
    assert_eq!(third.end().0, Some(5));
    assert_eq!(lines(&gateway), "");
}

/// What somebody sees on her screen of 24 rows and 80 columns: its lines, and where the cursor is.
fn screen(seen: &[u8]) -> (Vec<String>, (usize, usize)) {
    let mut terminal = avt::Terminal::new(80, 24).unwrap();
    terminal.feed(String::from_utf8_lossy(without_waiting(seen)).chars());
    let line = |line: &avt::Line| line.cells().iter().map(avt::Cell::char).collect::<String>().trim_end().to_owned();
    let lines = terminal.screen().visible_lines().map(line).collect();
    (lines, (terminal.cursor().row, terminal.cursor().col))
}

#[test]
fn two_people_at_one_terminal_both_come_back_to_it_after_a_kill() {
    let mut gateway = Gateway::start("");
    let pids = gateway.home("alice").join("pids");
    let mut first = marked(&gateway, "alice+work", "red");
    let mut second = gateway.terminal("alice", "@work");
    check_mark(&mut second, "red");
    // A picture that is not made of the last lines alone, and a shell with a job.
    first.send("PS1='rea''dy> '; bind 'set enable-bracketed-paste off'; clear; printf '\\033[7;30Ha pict''ure\\033[20;1H'; sleep 1000 & echo $$ $! >pids; fg\n");
    for person in [&mut first, &mut second] {
        person.expect("a picture");
    }
    wait_for("the job", || std::fs::read_to_string(&pids).is_ok_and(|pids| pids.ends_with('\n')));
    let processes = std::fs::read_to_string(&pids).unwrap();

    let mut last = None;
    for _ in 0..2 {
        gateway.kill();
        for person in [first, second] {
            assert_eq!(person.end().0, Some(255), "their connections have failed");
        }
        gateway.up();
        // At the same time, each by a name of her own for it.
        (first, second) = (gateway.terminal("alice", "@work"), gateway.terminal("alice+work", ""));
        for person in [&mut first, &mut second] {
            person.expect("a picture");
        }
        wait_for("both to be there", || lines(&gateway).starts_with("work  watched by 2"));
        let mut seen = (Vec::new(), (0, 0));
        wait_for("both to see the same", || {
            seen = screen(&first.seen());
            seen == screen(&second.seen()) && seen.0.get(6).is_some_and(|line| line.ends_with(" a picture"))
        });
        assert_eq!(*last.get_or_insert_with(|| seen.clone()), seen, "and what they saw before");
        assert_eq!(gateway.exec("alice", "ps -o pid= $(cat pids) | xargs").good(), processes, "the same processes");
    }

    // Either types, both see it, at the same shell.
    second.send("\x03");
    for person in [&mut first, &mut second] {
        person.expect("ready> ");
    }
    first.send("echo $mark $$ | tee same\n");
    let shell = processes.split(' ').next().unwrap();
    for person in [&mut first, &mut second] {
        person.expect(&format!("red {shell}\r\n"));
    }
    second.send("exit 7\n");
    for person in [first, second] {
        assert_eq!(person.end().0, Some(7), "its status reaches both");
    }
    assert_eq!(lines(&gateway), "");
}

#[test]
fn a_lost_terminal_keeps_its_workspace_is_told_of_and_ends_in_time() {
    let gateway = Gateway::start(
        "[ssh]\nkeepalive_interval = \"1s\"\nkeepalive_max = 1\n[session]\nkeep_lost = \"40s\"\n[idle]\ntimeout = \"1s\"\nkeep_busy = false\n",
    );
    let lost = marked(&gateway, "alice", "blue");
    signal(lost.pid(), "STOP");
    // Those that are closed meanwhile are not kept, also in the middle of a stream of output.
    marked(&gateway, "alice", "green").close();
    for _ in 0..5 {
        let mut loud = gateway.terminal("alice", "");
        loud.send("yes\n");
        loud.expect("y\r\ny\r\ny");
        loud.close();
    }
    gateway.wait_sweeps(6);
    assert_eq!(gateway.container_state("alice"), "running", "nobody is there, and it is longer idle than it may be");
    // A login does not wait for long for the list of her terminals.
    let mut told = gateway.terminal("alice", "");
    let mut logins = 1;
    loop {
        told.send("echo pro''mpt\n");
        let read = told.expect("prompt");
        if read.contains("a terminal of yours was cut off ") && read.contains("to get back into it: ssh -t ... @lost-1") {
            break;
        }
        assert!(logins < 5, "{read}");
        logins += 1;
        told.close();
        told = gateway.terminal("alice", "");
    }
    let mut back = gateway.terminal("alice", "@lost-1");
    check_mark(&mut back, "blue");
    let list = lines(&gateway);
    assert_eq!(list, "lost-1  watched by 1; to get into it: ssh -t ... @lost-1\n");
    drop(back);
    told.send("exit\n");
    told.end();
    wait_for("it is hung up, and alice's container stopped", || gateway.container_state("alice") == "exited");
    drop(lost);
}
