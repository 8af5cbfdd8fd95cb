//! What people in a container call, with an init and a gateway that is only a socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use innkeeper_init::protocol::*;
use innkeeper_init::wire::{self, WireError};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use support::{Gateway, all, shell};

/// A command's output, its error, and its end.
struct Called {
    process: u64,
    input: OwnedFd,
    output: OwnedFd,
    error: OwnedFd,
}

impl Called {
    fn new(gateway: &mut Gateway, command: &str) -> Self {
        let (process, descriptors) = gateway.open(shell(command));
        let [input, output, error] = <[OwnedFd; 3]>::try_from(descriptors).unwrap();
        Self { process, input, output, error }
    }

    fn end(self, gateway: &mut Gateway) -> (String, String, Exit) {
        drop(self.input);
        let text = |descriptor| String::from_utf8(all(descriptor)).unwrap();
        (text(self.output), text(self.error), gateway.exit(self.process))
    }
}

fn asked(gateway: &mut Gateway) -> Lease {
    gateway.until(|report| if let Report::KeepAsked { lease } = report { Some(lease.clone()) } else { None }).0
}

fn ended(gateway: &mut Gateway) -> u64 {
    gateway.until(|report| if let Report::KeepEnded { lease } = report { Some(*lease) } else { None }).0
}

fn grant(gateway: &Gateway, lease: &Lease, seconds: u32, words: Option<&str>) {
    gateway.order(&Order::KeepAnswer { lease: lease.lease, seconds, words: words.map(str::to_owned) });
}

#[test]
fn a_lease_is_held_while_the_command_runs_and_no_longer() {
    let mut gateway = Gateway::in_its_own_network();
    let called = Called::new(&mut gateway, "./innkeeper-keep 2h -- sh -c 'echo runs; read line; echo $line; exit 7'");
    let lease = asked(&mut gateway);
    assert_eq!((lease.seconds, lease.what.as_str()), (7200, "sh -c echo runs; read line; echo $line; exit 7"));
    grant(&gateway, &lease, 3600, Some("that is the most"));
    support::wait(&called.output);
    // It is told again to a gateway that comes.
    gateway.restart();
    let [held] = gateway.leases.as_slice() else { panic!("{:?}", gateway.leases) };
    assert_eq!((held.lease, &held.what), (lease.lease, &lease.what));
    assert!((3590..=3600).contains(&held.seconds), "{held:?}");
    use std::io::Write;
    File::from(called.input.try_clone().unwrap()).write_all(b"line\n").unwrap();
    assert_eq!(ended(&mut gateway), lease.lease);
    // Its pipes were of the connection that is gone.
    gateway.exit(called.process);

    let called = Called::new(&mut gateway, "./innkeeper-keep 90s sh -c 'kill -9 $$'");
    let next = asked(&mut gateway);
    assert!(next.lease > lease.lease);
    grant(&gateway, &next, 9000, None);
    assert_eq!(called.end(&mut gateway), (String::new(), String::new(), Exit::Status(137)));
    assert_eq!(ended(&mut gateway), next.lease);

    let called = Called::new(&mut gateway, "./innkeeper-keep 2h sh -c 'echo runs; exit 7'");
    let cut = asked(&mut gateway);
    grant(&gateway, &cut, 5400, Some("that is the most"));
    let words = "innkeeper-keep: kept for 1h30m at most: that is the most\n";
    assert_eq!(called.end(&mut gateway), ("runs\n".to_owned(), words.to_owned(), Exit::Status(7)));

    let called = Called::new(&mut gateway, "./innkeeper-keep 1m /missing/x");
    let lease = asked(&mut gateway);
    grant(&gateway, &lease, 60, None);
    assert_eq!(called.end(&mut gateway).2, Exit::Status(127));
}

#[test]
fn what_is_not_kept_is_not_run() {
    let mut gateway = Gateway::in_its_own_network();
    let called = Called::new(&mut gateway, "./innkeeper-keep 1h echo runs");
    let lease = asked(&mut gateway);
    grant(&gateway, &lease, 0, Some("not here"));
    let words = "innkeeper-keep: not kept: not here\n".to_owned();
    assert_eq!(called.end(&mut gateway), (String::new(), words, Exit::Status(75)));
    // A gateway that is slow to grant is told that nobody has it any more.
    let called = Called::new(&mut gateway, "./innkeeper-keep 1h echo runs & read line; kill -9 $!; wait; echo killed");
    let lease = asked(&mut gateway);
    let (output, _, _) = called_with(called, &mut gateway, "go\n");
    assert_eq!(output, "killed\n");
    assert_eq!(ended(&mut gateway), lease.lease);
    grant(&gateway, &lease, 60, None);
    assert_eq!(ended(&mut gateway), lease.lease);

    for (command, status) in [("./innkeeper-keep 1x true", 64), ("./innkeeper-keep", 64), ("./innkeeper-status x", 64)] {
        let called = Called::new(&mut gateway, command);
        let (output, error, exit) = called.end(&mut gateway);
        assert!(output.is_empty() && error.starts_with("usage: innkeeper-"), "{error}");
        assert_eq!(exit, Exit::Status(status));
    }
    let (output, error, exit) = Called::new(&mut gateway, "./innkeeper-keep --help").end(&mut gateway);
    assert!(output.starts_with("usage: innkeeper-keep DURATION") && error.is_empty());
    assert_eq!(exit, Exit::Status(0));
}

fn called_with(called: Called, gateway: &mut Gateway, input: &str) -> (String, String, Exit) {
    use std::io::Write;
    File::from(called.input.try_clone().unwrap()).write_all(input.as_bytes()).unwrap();
    called.end(gateway)
}

#[test]
fn without_a_command_it_is_held_until_its_time_is_over_or_it_is_interrupted() {
    let mut gateway = Gateway::in_its_own_network();
    let called = Called::new(&mut gateway, "./innkeeper-keep 1m");
    let lease = asked(&mut gateway);
    assert_eq!(lease.what, "innkeeper-keep");
    grant(&gateway, &lease, 1, None);
    assert_eq!(ended(&mut gateway), lease.lease);
    assert_eq!(called.end(&mut gateway).2, Exit::Status(0));

    // A terminal's interrupt.
    let (process, screen) = gateway.terminal("exec ./innkeeper-keep 1h", |_| {});
    let lease = asked(&mut gateway);
    grant(&gateway, &lease, 3600, None);
    screen.kind("\x03");
    assert_eq!(ended(&mut gateway), lease.lease);
    assert_eq!(gateway.exit(process), Exit::Signal(2));

    // It is the command's, where there is one.
    let (process, mut screen) =
        gateway.terminal("./innkeeper-keep 1h sh -c 'trap \"exit 5\" INT; echo on; while :; do sleep .02; done'; echo ended $?", |_| {});
    let lease = asked(&mut gateway);
    grant(&gateway, &lease, 3600, None);
    screen.see("on\r\n");
    screen.kind("\x03");
    screen.see("ended 5");
    assert_eq!(ended(&mut gateway), lease.lease);
    gateway.exit(process);
}

#[test]
fn a_question_waits_for_the_gateway_but_not_for_ever() {
    let mut gateway = Gateway::in_its_own_network();
    let called = Called::new(&mut gateway, "./innkeeper-status");
    let question = |gateway: &mut Gateway| {
        gateway.until(|report| if let Report::StatusAsked { question } = report { Some(*question) } else { None }).0
    };
    let first = question(&mut gateway);
    gateway.order(&Order::StatusAnswer { question: first, text: "all is well".to_owned() });
    assert_eq!(called.end(&mut gateway), ("all is well\n".to_owned(), String::new(), Exit::Status(0)));

    // Asked while nobody is there, or who was is gone: asked again.
    let file = gateway.path("status");
    let (process, _pipes) = gateway.open(shell("./innkeeper-status > status; echo $? >> status"));
    let second = question(&mut gateway);
    gateway.restart();
    assert_eq!(question(&mut gateway), second);
    gateway.order(&Order::StatusAnswer { question: second, text: "well\n".to_owned() });
    gateway.exit(process);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "well\n0\n");

    let keep = Called::new(&mut gateway, "./innkeeper-keep 1h echo runs");
    let status = Called::new(&mut gateway, "./innkeeper-status");
    let lease = asked(&mut gateway);
    let (output, error, exit) = keep.end(&mut gateway);
    assert_eq!((output.as_str(), error.as_str(), exit), ("", "innkeeper-keep: not kept: the gateway does not answer\n", Exit::Status(75)));
    assert_eq!(ended(&mut gateway), lease.lease);
    let (output, error, exit) = status.end(&mut gateway);
    assert!(output.is_empty() && error.starts_with("innkeeper-status: "), "{error}");
    assert_eq!(exit, Exit::Status(69));
}

#[test]
fn who_asks_too_much_is_hung_up_on() {
    let mut gateway = Gateway::in_its_own_network();
    let network = File::open(format!("/proc/{}/ns/net", gateway.init.id())).unwrap();
    // Of this thread alone, which ends with the test.
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    let call = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        connect(&socket, &SocketAddrUnix::new_abstract_name(LOCAL_SOCKET).unwrap()).unwrap();
        socket
    };
    let says = |socket: &OwnedFd, bytes: &[u8]| wire::send(socket, bytes, &[]).unwrap();
    let has_ended = |socket: &OwnedFd| {
        support::wait(socket);
        matches!(wire::receive::<Answer>(socket, &mut [0; 4096]), Err(WireError::Closed))
    };
    let keep = |what: &str| wire::encode(&Ask::Keep { seconds: 60, what: what.to_owned() }).unwrap();

    for wrong in [&b"hello"[..], &keep(&"x".repeat(5000))] {
        let caller = call();
        says(&caller, wrong);
        assert!(has_ended(&caller));
    }
    let caller = call();
    says(&caller, &keep(&"ä".repeat(2000)));
    let lease = asked(&mut gateway);
    assert_eq!(lease.what, "ä".repeat(128), "what is told of it is short");
    says(&caller, &keep("twice"));
    assert!(has_ended(&caller));
    assert_eq!(ended(&mut gateway), lease.lease);

    let callers: Vec<_> = (0..64).map(|_| call()).collect();
    assert!(has_ended(&call()), "one too many");
    says(&callers[0], &keep("good"));
    let lease = asked(&mut gateway);
    grant(&gateway, &lease, 60, None);
    support::wait(&callers[0]);
    let answer = wire::receive::<Answer>(&callers[0], &mut [0; 4096]).unwrap().message;
    assert_eq!(answer, Answer::Kept { seconds: 60, words: None });
    drop(callers);
    assert_eq!(ended(&mut gateway), lease.lease);
}
