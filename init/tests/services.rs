//! Services, with a gateway that is only a socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use innkeeper_init::protocol::*;
use rustix::process::{Pid, Signal, test_kill_process};
use support::Gateway;

fn service(name: &str, command: &str) -> Service {
    let command = ["sh", "-c", command].map(str::to_owned).to_vec();
    Service { name: name.to_owned(), command, env: Vec::new(), directory: None, restart: Restart::Always, ready: None }
}

fn ready(by: Check) -> Option<Ready> {
    Some(Ready { by, every: 1, timeout: 1, retries: 2, grace: 0, restart: false })
}

/// Of the log's lines, what the service has said.
fn said(log: &str) -> Vec<&str> {
    log.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect()
}

/// The numbers of processes that were written to a file, once there are so many.
fn pids(gateway: &Gateway, file: &str, many: usize) -> Vec<Pid> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(gateway.path(file)).unwrap_or_default();
        if text.ends_with('\n') && text.lines().count() >= many {
            return text.lines().map(|line| Pid::from_raw(line.parse().unwrap()).unwrap()).collect();
        }
        assert!(Instant::now() < until, "{text:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_service_has_a_login_its_own_environment_and_nothing_to_read() {
    let mut gateway = Gateway::new();
    let variable = |name: &str, value: &str| Variable { name: name.to_owned(), value: value.to_owned() };
    fs::create_dir(gateway.path("below")).unwrap();
    let command = "cat; echo $HOME:$USER:$OWN:$LANG; pwd; cut -d' ' -f 6 /proc/self/stat; echo $$ >&2; sleep 60";
    let env = vec![variable("USER", "web"), variable("LANG", "C")];
    gateway.order(&Order::Serve { services: vec![Service { env, directory: Some("below".into()), ..service("web", command) }] });
    gateway.services(|services| services == [ServiceState { name: "web".into(), running: true, ready: None, restarts: 0, exit: None }]);
    let mut reader = gateway.logs(Some("web"), true);
    while reader.text().lines().count() < 4 {
        reader.read();
    }
    let text = reader.text();
    assert!(text.lines().all(|line| line.starts_with("[web] 20") && line.contains("Z ")), "{text}");
    let home = gateway.directory.path().display();
    let lines = said(&text);
    assert_eq!(lines[..2], [format!("{home}:web:1:C"), format!("{home}/below")]);
    assert_eq!(lines[2], lines[3], "it leads its session");
}

#[test]
fn one_that_ends_is_started_again_after_growing_pauses() {
    let mut gateway = Gateway::new();
    let once = |restart, command: &str| Service { restart, ..service("once", command) };
    let services = vec![
        service("again", "date +%s%N >> times; exit 3"),
        Service { name: "well".into(), ..once(Restart::OnFailure, "exit 0") },
        Service { name: "badly".into(), ..once(Restart::OnFailure, "kill -9 $$") },
        once(Restart::Never, "exit 4"),
        Service { name: "missing".into(), command: vec!["/missing/x".into()], ..once(Restart::Never, "") },
    ];
    gateway.order(&Order::Serve { services });
    let states = gateway.services(|services| services.first().is_some_and(|service| service.restarts == 2 && !service.running));
    let times: Vec<u64> = fs::read_to_string(gateway.path("times")).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    let pauses: Vec<_> = times.windows(2).map(|two| (two[1] - two[0]) / 1_000_000).collect();
    assert!(pauses[0] >= 1000 && pauses[1] >= 2000 && pauses[0] < pauses[1], "{pauses:?}");
    let ends: Vec<_> = states.iter().map(|service| (service.name.as_str(), service.exit, service.restarts > 0)).collect();
    let expected = [
        ("again", Some(Exit::Status(3)), true),
        ("well", Some(Exit::Status(0)), false),
        ("badly", Some(Exit::Signal(9)), true),
        ("once", Some(Exit::Status(4)), false),
        ("missing", Some(Exit::Status(127)), false),
    ];
    assert_eq!(ends, expected);
    let log = gateway.logs(Some("missing"), false).end();
    assert!(log.contains("cannot be started: \"/missing/x\": No such file"), "{log}");
    let log = gateway.logs(Some("again"), false).end();
    assert!(log.contains("ended with status 3, started again in 2s"), "{log}");
}

#[test]
fn the_same_set_restarts_nothing_and_another_only_what_differs() {
    let mut gateway = Gateway::new();
    // The second leaves somebody behind who does not go at once, and the third does not listen at all.
    let a = service("a", "echo $$ >> a; exec sleep 60");
    let b = service(
        "b",
        "(trap 'sleep .5; echo gone >> b.gone; exit' TERM; echo up >> b.up; while :; do sleep .02; done) & \
                          while ! test -e b.up; do sleep .01; done; echo $$ >> b; wait",
    );
    let c = service("c", "trap '' TERM; echo $$ >> c; while :; do sleep .02; done");
    gateway.order(&Order::Serve { services: vec![a.clone(), b.clone(), c.clone()] });
    let first = [pids(&gateway, "a", 1), pids(&gateway, "b", 1), pids(&gateway, "c", 1)].concat();
    gateway.services(|services| services.len() == 3 && services.iter().all(|service| service.running));
    gateway.order(&Order::Serve { services: vec![c, b.clone(), a.clone()] });

    let env = vec![Variable { name: "X".into(), value: "1".into() }];
    let changed = Service { env, command: ["sh", "-c", "echo $$ >> b; cat b.gone; exec sleep 60"].map(str::to_owned).to_vec(), ..b };
    let since = Instant::now();
    gateway.order(&Order::Serve { services: vec![a, changed] });
    let second = pids(&gateway, "b", 2);
    assert_eq!(second[0], first[1]);
    let log = gateway.logged(Some("b"), "gone");
    assert_eq!(said(&log).last(), Some(&"gone"), "the new one is started when all of the old one have gone");
    let states = gateway.services(|services| services.len() == 2 && services.iter().all(|service| service.running));
    assert!(states.iter().all(|service| service.restarts == 0 && service.exit.is_none()), "{states:?}");
    assert_eq!(pids(&gateway, "a", 1), [first[0]]);
    // Killed in the end, and its log with it.
    while test_kill_process(first[2]).is_ok() {
        assert!(since.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(since.elapsed() > Duration::from_secs(4), "{:?}", since.elapsed());
    assert_eq!(gateway.refused(|request| Order::Logs { request, service: Some("c".into()), follow: false }), Failure::NotFound);
}

#[test]
fn a_port_is_ready_when_somebody_accepts() {
    let mut gateway = Gateway::new();
    // Taken so that nobody else takes them: without listening, they refuse.
    let taken = |host: &str| {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        port
    };
    for host in ["127.0.0.1", "::1"] {
        let port = taken(host);
        let checked = Service { ready: ready(Check::Port(port)), ..service("web", "sleep 60") };
        gateway.order(&Order::Serve { services: vec![checked] });
        gateway.services(|services| services[0].ready == Some(false));
        let listener = TcpListener::bind((host, port)).unwrap();
        gateway.services(|services| services[0].ready == Some(true));
        drop(listener);
        let states = gateway.services(|services| services[0].ready == Some(false));
        assert_eq!((states[0].running, states[0].restarts), (true, 0));
    }
}

#[test]
fn a_command_finds_out_and_one_that_is_not_ready_is_started_again() {
    let mut gateway = Gateway::new();
    let check = |command: &str| Check::Command(["sh", "-c", command].map(str::to_owned).to_vec());
    let restart = |check| ready(check).map(|ready| Ready { restart: true, ..ready });
    let services = vec![
        Service { ready: restart(check("test -e good")), ..service("good", "exec sleep 60") },
        Service { ready: ready(check("echo $$ >> slow; exec sleep 60")), ..service("slow", "exec sleep 60") },
        Service { ready: ready(check("exit 1")).map(|ready| Ready { grace: 60, ..ready }), ..service("grace", "exec sleep 60") },
        Service { ready: ready(Check::Command(vec!["/missing/x".into()])), ..service("none", "exec sleep 60") },
    ];
    fs::write(gateway.path("good"), "").unwrap();
    gateway.order(&Order::Serve { services });
    let states = gateway.services(|services| services[0].ready == Some(true) && services[1].ready == Some(false));
    assert_eq!(states[2].ready, None);
    let checks = pids(&gateway, "slow", 2);
    assert!(test_kill_process(checks[0]).is_err(), "one that takes too long is killed, and the next only comes then");
    fs::remove_file(gateway.path("good")).unwrap();
    let states = gateway.services(|services| services[0].restarts == 1);
    assert_eq!((states[0].exit, states[0].ready, states[3].ready), (Some(Exit::Signal(15)), None, Some(false)));
    fs::write(gateway.path("good"), "").unwrap();
    gateway.services(|services| services[0].ready == Some(true));
    assert!(gateway.logs(Some("good"), false).end().contains("not ready: ended, and started again in 1s"));
}

#[test]
fn logs_are_read_to_their_end_or_followed() {
    let mut gateway = Gateway::new();
    let talk = |name: &str| service(name, &format!("echo {name} one; while read line; do echo {name} $line; done < {name}; exec sleep 60"));
    for name in ["a", "b"] {
        rustix::fs::mknodat(rustix::fs::CWD, gateway.path(name), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    }
    gateway.order(&Order::Serve { services: vec![talk("a"), talk("b")] });
    let mut words = ["a", "b"].map(|name| fs::OpenOptions::new().write(true).open(gateway.path(name)).unwrap());
    gateway.logged(None, "a one");
    gateway.logged(None, "b one");
    let (mut all, mut one) = (gateway.logs(None, true), gateway.logs(Some("b"), true));
    for (which, text) in [(0, "two"), (1, "three"), (0, "four")] {
        use std::io::Write;
        writeln!(words[which], "{text}").unwrap();
        all.see(text);
    }
    one.see("b three");
    assert_eq!(said(&all.text())[2..], ["a two", "b three", "a four"]);
    assert_eq!(said(&one.text()), ["b one", "b three"]);
    assert_eq!(said(&gateway.logs(Some("b"), false).end()), ["b one", "b three"]);
    assert_eq!(gateway.logs(None, false).end(), all.text());
    assert_eq!(gateway.refused(|request| Order::Logs { request, service: Some("x".into()), follow: true }), Failure::NotFound);

    // Two follow already; whoever leaves makes room.
    let more: Vec<_> = (0..6).map(|_| gateway.logs(None, true)).collect();
    assert_eq!(gateway.refused(|request| Order::Logs { request, service: None, follow: true }), Failure::Exhausted);
    drop(more);
    gateway.logs(None, true);

    // One who reads nothing stops nobody, and is told what that has cost. A service that is no more has nothing more to say.
    let flood =
        service("a", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i 0123456789012345678901234567890123456789; done; exec sleep 60");
    let slow = gateway.logs(Some("a"), true);
    gateway.order(&Order::Serve { services: vec![flood] });
    one.end();
    gateway.logged(Some("a"), "20000 0");
    let mut slow = slow;
    slow.see("20000 0");
    assert!(slow.text().contains("lines are missing here"));
}

#[test]
fn services_outlive_the_gateway() {
    let mut gateway = Gateway::new();
    gateway.order(&Order::Serve { services: vec![service("web", "echo $$ >> pids; while :; do echo $((n+=1)); sleep .02; done")] });
    let pid = pids(&gateway, "pids", 1);
    gateway.logged(None, " 3\n");
    gateway.restart();
    assert_eq!(gateway.services, [ServiceState { name: "web".into(), running: true, ready: None, restarts: 0, exit: None }]);
    gateway.logged(None, " 50\n");
    assert_eq!(pids(&gateway, "pids", 1), pid);
    // What ends meanwhile is started again without anybody.
    gateway.leave();
    rustix::process::kill_process(pid[0], Signal::KILL).unwrap();
    pids(&gateway, "pids", 2);
    gateway.come_back();
    assert_eq!((gateway.services[0].restarts, gateway.services[0].exit), (1, Some(Exit::Signal(9))));
}

#[test]
fn on_term_services_end_and_are_not_started_again() {
    for mut gateway in [Gateway::new(), Gateway::first_process()] {
        let well = service("well", "trap 'sleep .3; echo end >> written; exit 0' TERM; echo begin >> written; while :; do sleep .02; done");
        let check = Check::Command(["sh", "-c", "exec sleep 60"].map(str::to_owned).to_vec());
        let ready = ready(check).map(|ready| Ready { timeout: 60, grace: 60, ..ready });
        let services = vec![Service { ready, ..well }, service("often", "exit 1")];
        gateway.order(&Order::Serve { services });
        gateway.services(|services| services[0].running && services[1].restarts == 1);
        let parent = gateway.init.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        // The first process of a namespace is the child of who made it.
        let made = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap() == "unshare\n";
        let init = if made { Pid::from_raw(children.trim().parse().unwrap()).unwrap() } else { Pid::from_child(&gateway.init) };
        let since = Instant::now();
        rustix::process::kill_process(init, Signal::TERM).unwrap();
        assert_eq!(gateway.init.wait().unwrap().code(), Some(0));
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
        assert_eq!(fs::read_to_string(gateway.path("written")).unwrap(), "begin\nend\n");
    }
}
