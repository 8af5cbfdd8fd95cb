//! Terminals that outlive their clients, in real containers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use gateway::{Gateway, Terminal, signal, wait_for};

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
