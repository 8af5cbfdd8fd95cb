//! Something else where a socket is expected: what a forward leads to, what was listened on for a client, and where a container's init dials.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/client.rs"]
mod client;
#[path = "common/fault.rs"]
mod fault;
#[path = "common/forward.rs"]
mod forward;
#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use fault::{Holdings, holdings, pause};
use forward::{Listening, ask, connect, echo_inside};
use gateway::{Gateway, run, wait_for};
use russh::Disconnect;

/// What the gateway and alice's init hold.
fn held(gateway: &Gateway) -> [Holdings; 2] {
    [gateway.pid(), gateway.inspect("alice", "{{.State.Pid}}").parse().unwrap()].map(holdings)
}

#[track_caller]
fn no_descriptor_stays(gateway: &Gateway, before: [Holdings; 2]) {
    let mut now = held(gateway);
    for _ in 0..200 {
        if now.iter().zip(&before).all(|(now, before)| now.descriptors <= before.descriptors + 2) {
            return;
        }
        pause(100);
        now = held(gateway);
    }
    panic!("{before:?} became {now:?}");
}

#[test]
fn a_forward_leads_to_sockets_of_her_container_and_to_nothing_else() {
    let gateway = Gateway::start("");
    let (_inside, _) = echo_inside(&gateway, &["/tmp/outside"]);
    let make = "ln -s /tmp/outside outside; ln -s /var/run/docker.sock host; ln -s /.innkeeper/socket gateways; ln -s loop loop; ln -s /dev/zero device; \
                mkfifo fifo; mkdir directory; echo mine >file; ln -s /proc/self/fd/3 number; ln -s /.innkeeper/innkeeper-init program";
    gateway.exec("alice", make).good();
    let home = |name: &str| format!("/home/user/{name}");
    // What is no socket, or one that streams cannot go to: nobody means that well.
    let mut never = ["gateways", "device", "fifo", "directory", "file"].map(home).to_vec();
    never.extend(["/dev/null", "/tmp", "/.innkeeper/socket"].map(str::to_owned));
    // What is not there, or may not be reached.
    let mut absent = ["host", "loop", "program", "file/below", "nothing"].map(home).to_vec();
    absent.extend(["/proc/1/root/nothing", "/proc/1/mem", "/etc/passwd"].map(str::to_owned));
    // What init itself has open.
    let mut own: Vec<String> = (0..16).map(|number| format!("/proc/self/fd/{number}")).collect();
    own.push(home("number"));

    let all: Vec<&String> = never.iter().chain(&absent).chain(&own).collect();
    let mut ssh = gateway.ssh("alice");
    ssh.args(["-o", "StreamLocalBindUnlink=yes"]);
    let near = |number: usize| format!("n{number}");
    for (number, far) in all.iter().enumerate() {
        ssh.args(forward::local(&gateway, &near(number), far));
    }
    ssh.args(forward::local(&gateway, "outside", &home("outside"))).arg("-N");
    let mut client = Listening::start(&gateway, &mut ssh, &["outside"]);
    assert_eq!(ask(connect(&gateway, "outside"), "hello"), "/tmp/outside hello", "a link to a socket of hers leads there");
    gateway.wait_metric("innkeeper_forwards_open", |open| open == 0.0);
    let before = held(&gateway);
    for (number, far) in all.iter().enumerate() {
        assert_eq!(ask(connect(&gateway, &near(number)), "hello"), "", "{far}");
    }
    assert_eq!(ask(connect(&gateway, "outside"), "hello"), "/tmp/outside hello", "the connection goes on");
    assert!(client.is_there());
    let log = gateway.log();
    let told = |far: &str| {
        let target = format!("\"target\":\"{far}\"");
        log.lines().filter(|line| line.contains("forward refused") && line.contains("\"invalid\"") && line.contains(&target)).count()
    };
    for far in &never {
        assert_eq!(told(far), 1, "{far}");
    }
    for far in &absent {
        assert_eq!(told(far), 0, "{far}");
    }
    gateway.wait_metric("innkeeper_forwards_open", |open| open == 0.0);
    no_descriptor_stays(&gateway, before);
    // A FIFO that was opened would let somebody write.
    let untouched = "python3 -c 'import os; os.open(\"fifo\", os.O_WRONLY | os.O_NONBLOCK)' 2>&1 | tail -n 1; cat file; ls directory";
    let said = gateway.exec("alice", untouched).text();
    assert!(said.contains("No such device or address") && said.ends_with("mine\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_the_place_of_a_socket_of_ours_is_hers() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "echo hers >precious; mkdir -m 700 dear; echo hers >dear/agent; echo hers >dear/authority").good();
    let key = client::key(&gateway);
    // Once, for what stays.
    let connection = client::connect(gateway.ssh_port, "alice", key.clone()).await;
    drop(connection);
    gateway.wait_metric("innkeeper_connections_open{stage=\"open\"}", |open| open == 0.0);
    pause(500);
    let before = held(&gateway);
    for thing in [
        "ln -s ~/precious X",
        "ln -s /dev/null X",
        "ln -s X X",
        "mkfifo X",
        "mkdir X",
        "echo other >X",
        "rmdir $(dirname X); ln -s ~/dear $(dirname X)",
    ] {
        let connection = client::connect(gateway.ssh_port, "alice", key.clone()).await;
        connection.streamlocal_forward("/home/user/back").await.unwrap();
        let display = connection.channel_open_session().await.unwrap();
        display.agent_forward(true).await.unwrap();
        display.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00112233445566778899aabbccddeeff", 0).await.unwrap();
        let replace = |place: &str| format!("rm -f {place}; {}", thing.replace('X', place));
        let line = format!(
            "ssh-add -l; {}; {}; {}; timeout 9 ssh-add -l 2>&1 | tail -n 1; echo $SSH_AUTH_SOCK",
            replace("$SSH_AUTH_SOCK"),
            replace("$XAUTHORITY"),
            if thing.contains("dirname") { "true".to_owned() } else { replace("/home/user/back") },
        );
        display.exec(true, line).await.unwrap();
        let (said, _) = client::end(display).await;
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0] == "The agent has no identities." && lines[1].contains("rror connecting to agent"), "{thing}: {said}");
        // A second session has the same place, and what is there now; it does not wait for it.
        let second = connection.channel_open_session().await.unwrap();
        second.agent_forward(true).await.unwrap();
        second.exec(true, "echo $SSH_AUTH_SOCK").await.unwrap();
        assert_eq!(client::end(second).await.0.trim(), *lines.last().unwrap(), "{thing}");
        connection.disconnect(Disconnect::ByApplication, "", "").await.unwrap();
        no_descriptor_stays(&gateway, before);
        // Removing what was ours has no end that is told.
        pause(300);
        let look = "cat precious dear/agent dear/authority; ls -dF back";
        let hers = gateway.exec("alice", look).text();
        let back = match thing {
            _ if thing.starts_with("ln") => "back@\n",
            "mkfifo X" => "back|\n",
            "mkdir X" => "back/\n",
            "echo other >X" => "back\n",
            // Only here it is the one that was made.
            _ => "",
        };
        assert_eq!(hers, format!("hers\nhers\nhers\n{back}"), "{thing}");
        gateway.exec("alice", "rm -rf back").good();
        let connection = client::connect(gateway.ssh_port, "alice", key.clone()).await;
        let again = connection.channel_open_session().await.unwrap();
        again.agent_forward(true).await.unwrap();
        again.exec(true, "ssh-add -l").await.unwrap();
        assert_eq!(client::end(again).await.0, "The agent has no identities.\n", "the next connection has one of its own");
        connection.disconnect(Disconnect::ByApplication, "", "").await.unwrap();
    }
    no_descriptor_stays(&gateway, before);
}

/// The directory of alice's init on the host.
fn directory(gateway: &Gateway) -> PathBuf {
    gateway.inspect("alice", "{{range .Mounts}}{{if eq .Destination \"/.innkeeper\"}}{{.Source}}{{end}}{{end}}").into()
}

#[test]
fn what_is_in_place_of_the_socket_that_init_dials_goes_or_is_named() {
    let mut gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    gateway.exec("bob", "true").good();
    let (directory, victim) = (directory(&gateway), gateway.dir.path().join("victim"));
    let socket = directory.join("socket");
    fs::create_dir(&victim).unwrap();
    for name in ["socket", "innkeeper-init"] {
        fs::write(victim.join(name), "somebody else's").unwrap();
    }
    let is_whole = || ["socket", "innkeeper-init"].iter().all(|name| fs::read(victim.join(name)).unwrap() == b"somebody else's");
    let complaints = |gateway: &Gateway| gateway.log().lines().filter(|line| line.contains("cannot listen for its init")).count();
    let mut descriptors = Vec::new();
    for thing in
        ["nothing", "link", "link to a device", "device", "fifo", "directory", "nothing", "link in place of the directory", "nothing"]
    {
        gateway.kill();
        let aside = directory.with_extension("aside");
        if aside.exists() {
            fs::remove_file(&directory).unwrap();
            fs::rename(&aside, &directory).unwrap();
        }
        match fs::symlink_metadata(&socket) {
            Ok(found) if found.is_dir() => fs::remove_dir(&socket).unwrap(),
            _ => drop(fs::remove_file(&socket)),
        }
        match thing {
            "link" => symlink(victim.join("socket"), &socket).unwrap(),
            "link to a device" => symlink("/dev/null", &socket).unwrap(),
            "device" => drop(run(Command::new("mknod").arg(&socket).args(["c", "1", "3"])).good()),
            "fifo" => drop(run(Command::new("mkfifo").arg(&socket)).good()),
            "directory" => fs::create_dir(&socket).unwrap(),
            "link in place of the directory" => {
                fs::rename(&directory, &aside).unwrap();
                symlink(&victim, &directory).unwrap();
            }
            _ => {}
        }
        gateway.up();
        // Whoever cannot be reached by her init still is by the engine.
        for account in ["bob", "alice"] {
            assert_eq!(gateway.exec(account, "echo here").good(), "here\n", "{thing}");
        }
        let is_named = thing.contains("directory");
        assert_eq!(complaints(&gateway), usize::from(is_named), "{thing}: {}", gateway.log());
        assert!(is_whole(), "{thing}");
        // Only an init can say how things stand.
        assert_eq!(gateway.exec("alice", "innkeeper-status").text().contains("workspace"), !is_named, "{thing}");
        gateway.wait_metric("innkeeper_sessions_open", |open| open == 0.0);
        wait_for("connections to end", || gateway.metric("innkeeper_connections_open{stage=\"open\"}") == Some(0.0));
        descriptors.push((thing, holdings(gateway.pid()).descriptors));
    }
    let usual = descriptors[0].1;
    assert!(descriptors.iter().all(|(_, count)| *count <= usual + 3), "{descriptors:?}");
}
