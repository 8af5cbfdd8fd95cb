//! Clients without manners, against the real program: what each sends ends at most its own connection.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/wire.rs"]
mod wire;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fault::{Holdings, holdings, pause};
use gateway::{Gateway, run, run_with, wait_for};
use wire::*;

/// What the gateway's memory may grow by while it is abused, in KiB: bounded buffers of some connections, not what was sent.
const GROWTH: u64 = 24 * 1024;

const PASSWORD: &str = "correct horse battery staple";

/// A gateway with an account `mallory` that has a password, and what it holds when nobody is there.
fn abused(sections: &str) -> (Gateway, Holdings) {
    let gateway = Gateway::start(sections);
    let add = run_with(gateway.innkeeper().args(["account", "add", "mallory", "--password-stdin"]), PASSWORD.as_bytes());
    add.good();
    wait_for("mallory to be known", || Wire::logged_in(gateway.ssh_port, "mallory", PASSWORD).is_ok());
    gateway.exec("alice", "true").good();
    let held = settled(&gateway);
    (gateway, held)
}

/// What it holds once connections that have ended are gone.
fn settled(gateway: &Gateway) -> Holdings {
    let open = || {
        gateway.get("/metrics").1.lines().filter(|line| line.starts_with("innkeeper_connections_open")).any(|line| !line.ends_with(" 0"))
    };
    wait_for("connections to be gone", || !open());
    holdings(gateway.pid())
}

/// Another person's login works, and soon.
#[track_caller]
fn others_work(gateway: &Gateway) {
    let since = Instant::now();
    assert_eq!(gateway.exec("alice", "echo here").good(), "here\n");
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[track_caller]
fn unharmed(gateway: &Gateway, before: Holdings) {
    unharmed_beside(gateway, before, 0);
}

/// The same where so many KiB more are in order.
#[track_caller]
fn unharmed_beside(gateway: &Gateway, before: Holdings, more: u64) {
    others_work(gateway);
    wait_for("descriptors to be given back", || settled(gateway).descriptors <= before.descriptors + 4);
    let after = holdings(gateway.pid());
    assert!(after.memory <= before.memory + GROWTH + more, "{before:?} {after:?}");
    assert_eq!(gateway.metric("innkeeper_panics_total"), Some(0.0), "{}", gateway.log());
}

#[test]
fn noise_before_the_handshake() {
    let (gateway, before) = abused("\n[ssh]\nlogin_grace = \"3s\"\n");
    let mut noise: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0; 4096],
        vec![b'A'; 1 << 20],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"SSH-1.5-old\r\n".to_vec(),
        b"SSH-2.0-\xff\xfe\x1b]52;c;aGk=\x07\r\n".to_vec(),
        [b"SSH-2.0-x\r\n".to_vec(), vec![0xff; 4096]].concat(),
        // A packet of nearly 4 GiB, and one of no length at all.
        [b"SSH-2.0-x\r\n".to_vec(), 0xffff_fff0_u32.to_be_bytes().to_vec(), vec![0; 4096]].concat(),
        [b"SSH-2.0-x\r\n".to_vec(), vec![0; 64]].concat(),
        [b"SSH-2.0-x\r\n".to_vec(), 12_u32.to_be_bytes().to_vec(), vec![255; 12]].concat(),
    ];
    noise.push((0..65_536).map(|_| rand::random()).collect());
    for bytes in &noise {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.ssh_port)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        // It may have hung up before everything was sent.
        stream.write_all(bytes).ok();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        let ended = stream.take(1 << 20).read_to_end(&mut answer);
        assert!(ended.is_ok() || ended.unwrap_err().kind() == io::ErrorKind::ConnectionReset, "not ended after {} bytes", bytes.len());
    }
    // An identification line that never ends, from many at once, and others that say nothing: until the login's deadline.
    let mut floods: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(("127.0.0.1", gateway.ssh_port)).unwrap()).collect();
    for (nth, flood) in floods.iter_mut().enumerate() {
        flood.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        if nth % 2 == 0 {
            let piece = vec![b'x'; 1 << 16];
            for _ in 0..16 {
                if flood.write_all(&piece).is_err() {
                    break;
                }
            }
        }
    }
    others_work(&gateway);
    for flood in &mut floods {
        flood.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let ended = flood.read_to_end(&mut Vec::new());
        assert!(ended.is_ok() || ended.unwrap_err().kind() == io::ErrorKind::ConnectionReset);
    }
    unharmed(&gateway, before);
    assert!(!gateway.log().contains(['\x1b', '\x07']), "escapes in the log");
}

#[test]
fn every_message_before_its_time() {
    let (gateway, before) = abused("\n[ssh]\nlogin_grace = \"4s\"\nmax_startups_per_source = 400\nmax_startups = \"400:30:500\"\n");
    let port = gateway.ssh_port;
    // In the clear, before any key: only a key exchange may be talked about.
    for number in 0..=255 {
        let mut wire = Wire::connect(port).unwrap();
        wire.send(&Message::new(number).string("session").u32(0).u32(1 << 20).u32(1 << 15)).unwrap();
        let opened = (0..4).map_while(|_| wire.receive().ok()).any(|message| (50..=127).contains(&message[0]) && message[0] != 51);
        assert!(!opened, "message {number} before the key exchange was acted upon");
        drop(wire);
    }
    // Under strict key exchange nothing may come in between either.
    for number in [2, 4, 5, 50, 80, 90] {
        let mut wire = Wire::connect(port).unwrap();
        wire.send(&Message::new(number).string("x")).unwrap();
        assert!(wire.exchange().is_err(), "message {number} in front of the first key exchange");
    }
    // Encrypted, and nobody logged in.
    for number in 0..=255_u8 {
        let mut wire = Wire::encrypted(port).unwrap();
        if number % 2 == 0 {
            wire.send(&Message::new(SERVICE_REQUEST).string("ssh-userauth")).unwrap();
        }
        wire.send(&Message::new(number).string("session").u32(0).u32(1 << 20).u32(1 << 15)).unwrap();
        // It may be over by now; if it is not, nobody is in.
        let channel = Message::new(CHANNEL_OPEN).string("session").u32(7).u32(1 << 20).u32(1 << 15);
        wire.send(&channel).and_then(|()| wire.send(&channel_request(0, "exec", true).string("touch /home/user/owned"))).ok();
        wire.stream.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        while let Ok(message) = wire.receive() {
            assert!(
                ![USERAUTH_SUCCESS, CHANNEL_OPEN_CONFIRMATION, CHANNEL_SUCCESS].contains(&message[0]),
                "message {number} opened the door: {message:?}"
            );
        }
    }
    assert_eq!(gateway.containers().len(), 2, "alice's and mallory's, as before");
    assert!(!gateway.home("mallory").join("owned").exists());
    unharmed(&gateway, before);
}

#[test]
fn sizes_that_nobody_has() {
    let (gateway, before) = abused("");
    let port = gateway.ssh_port;
    // Strings that say they are 4 GiB long, everywhere a string can be, before and after the login.
    let liar = |number: u8| Message::new(number).raw(&[0xff; 4]).raw(b"short");
    for number in [SERVICE_REQUEST, USERAUTH_REQUEST, GLOBAL_REQUEST, CHANNEL_OPEN, CHANNEL_REQUEST, CHANNEL_DATA, KEXINIT] {
        let mut wire = Wire::encrypted(port).unwrap();
        wire.send(&liar(number)).unwrap();
        drop(wire);
        let mut wire = Wire::logged_in(port, "mallory", PASSWORD).unwrap();
        wire.send(&liar(number)).ok();
    }
    for kind in ["pty-req", "env", "exec", "subsystem", "signal", "window-change", "x11-req", "auth-agent-req@openssh.com", "nonsense"] {
        let mut wire = Wire::logged_in(port, "mallory", PASSWORD).unwrap();
        let channel = wire.open_session(1).unwrap().unwrap();
        wire.send(&channel_request(channel, kind, true).raw(&[0xff; 4]).raw(b"short")).unwrap();
        // Refused, or hung up on.
        loop {
            match wire.receive() {
                Ok(message) if message[0] == CHANNEL_SUCCESS => {
                    assert!(kind.contains("agent") || kind == "nonsense", "{kind} of 4 GiB was granted")
                }
                Ok(message) if [CHANNEL_FAILURE, DISCONNECT].contains(&message[0]) => break,
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    // Real ones, as large as a packet can be: a name, a password, a terminal, its modes, a variable, a command.
    let large = "x".repeat(200_000);
    for message in [password_request(&large, "p"), password_request("mallory", &large), Message::new(SERVICE_REQUEST).string(&large)] {
        let mut wire = Wire::encrypted(port).unwrap();
        wire.send(&Message::new(SERVICE_REQUEST).string("ssh-userauth")).unwrap();
        wire.send(&message).unwrap();
        let answer = wire.until(51);
        assert!(answer.is_err() || answer.unwrap()[0] == 51);
    }
    let mut wire = Wire::logged_in(port, "mallory", PASSWORD).unwrap();
    let channel = wire.open_session(1).unwrap().unwrap();
    let modes: Vec<u8> = (0..20_000_u32).flat_map(|nth| [(nth % 150 + 1) as u8, 0, 0, 0, 1]).chain([0]).collect();
    let pty = channel_request(channel, "pty-req", true).string(&large).u32(u32::MAX).u32(u32::MAX).u32(0).u32(0).string(&modes);
    wire.send(&pty).unwrap();
    let answer = wire.receive();
    if answer.as_ref().is_ok_and(|message| message[0] != DISCONNECT) {
        wire.send(&channel_request(channel, "env", true).string(&large).string(&large)).ok();
        wire.send(&channel_request(channel, "exec", true).string("stty size; echo $TERM")).ok();
        wire.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        while wire.receive().is_ok() {}
    }
    drop(wire);
    let mut wire = Wire::logged_in(port, "mallory", PASSWORD).unwrap();
    let channel = wire.open_session(1).unwrap().unwrap();
    wire.send(&channel_request(channel, "exec", true).string(&large)).unwrap();
    // It does not fit into one argument, and says so.
    let answer = wire.until(CHANNEL_SUCCESS).map(|_| ());
    wire.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(answer.is_err() || wire.until(97).is_ok(), "a command of 200 kB keeps its channel open");
    drop(wire);
    unharmed(&gateway, before);
}

#[test]
fn guessed_passwords_are_no_memory() {
    let (gateway, before) = abused("");
    let port = gateway.ssh_port;
    let guess = move || {
        let mut wire = Wire::encrypted(port).unwrap();
        wire.send(&Message::new(SERVICE_REQUEST).string("ssh-userauth")).unwrap();
        for nth in 0..4 {
            wire.send(&password_request(if nth % 2 == 0 { "mallory" } else { "nobody" }, "wrong")).unwrap();
            wire.until(51).unwrap();
        }
    };
    for _ in 0..4 {
        let guessing: Vec<_> = (0..8).map(|_| std::thread::spawn(guess)).collect();
        guessing.into_iter().for_each(|guesser| guesser.join().unwrap());
    }
    let after = settled(&gateway);
    // As many verifications at once as there are cores, and the memory of each is used again.
    let cores = std::thread::available_parallelism().unwrap().get().min(8) as u64;
    assert!(after.memory <= before.memory + cores * 20 * 1024 + 8 * 1024, "{before:?} {after:?}");
    unharmed_beside(&gateway, before, cores * 20 * 1024);
}

#[test]
fn more_of_everything() {
    let (gateway, before) = abused("\n[ssh]\nmax_sessions = 20\n");
    let port = gateway.ssh_port;
    // Thousands of channels: some are opened, the others refused, all are answered.
    let mut wire = Wire::logged_in(port, "mallory", PASSWORD).unwrap();
    let (mut opened, mut refused) = (0, 0);
    for batch in 0..50_u32 {
        let packets: Vec<u8> = (0..100)
            .flat_map(|nth| wire.packet(&Message::new(CHANNEL_OPEN).string("session").u32(batch * 100 + nth).u32(1 << 20).u32(1 << 15)))
            .collect();
        wire.stream.write_all(&packets).unwrap();
        for _ in 0..100 {
            match wire.receive().unwrap()[0] {
                CHANNEL_OPEN_CONFIRMATION => opened += 1,
                CHANNEL_OPEN_FAILURE => refused += 1,
                _ => {}
            }
        }
    }
    assert!(opened == 20 && refused >= 4_900, "{opened} {refused}");
    others_work(&gateway);
    drop(wire);

    // A hundred thousand variables, and as many windows and signals of a session that runs.
    let mut wire = Wire::logged_in(port, "mallory", PASSWORD).unwrap();
    let channel = wire.open_session(1).unwrap().unwrap();
    flood(&mut wire, 100_000, |nth| channel_request(channel, "env", false).string(format!("LC_{nth}")).string("x".repeat(100)));
    wire.send(&channel_request(channel, "pty-req", false).string("xterm").u32(80).u32(24).u32(0).u32(0).string("")).unwrap();
    wire.send(
        &channel_request(channel, "exec", true)
            .string("read line; n=0; until [ \"$(stty size)\" = '33 200' ] || [ $n = 50 ]; do sleep 0.1; n=$((n+1)); done; stty size"),
    )
    .unwrap();
    wire.until(CHANNEL_SUCCESS).unwrap();
    flood(&mut wire, 100_000, |nth| channel_request(channel, "window-change", false).u32(nth % 200 + 1).u32(33).u32(0).u32(0));
    flood(&mut wire, 20_000, |_| channel_request(channel, "signal", false).string("WINCH"));
    flood(&mut wire, 20_000, |_| Message::new(GLOBAL_REQUEST).string("nonsense@example.org").byte(0));
    flood(&mut wire, 20_000, |_| Message::new(CHANNEL_WINDOW_ADJUST).u32(channel).u32(u32::MAX));
    flood(&mut wire, 20_000, |_| Message::new(2).string("ignore me"));
    others_work(&gateway);
    wire.send(&Message::new(CHANNEL_DATA).u32(channel).string("\n")).unwrap();
    let mut said = Vec::new();
    wire.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while let Ok(message) = wire.receive() {
        match message[0] {
            CHANNEL_DATA => said.extend(&message[9..]),
            // The channel's close.
            97 => break,
            _ => {}
        }
    }
    assert!(String::from_utf8_lossy(&said).contains("33 200"), "the newest size counts: {:?}", String::from_utf8_lossy(&said));
    drop(wire);

    // Data for channels that are not there, or not there any more.
    let mut wire = Wire::logged_in(port, "mallory", PASSWORD).unwrap();
    for channel in [0, 1, 2, 1000, u32::MAX] {
        wire.send(&Message::new(CHANNEL_DATA).u32(channel).string("x")).ok();
        wire.send(&channel_request(channel, "exec", true).string("true")).ok();
        wire.send(&Message::new(97).u32(channel)).ok();
    }
    drop(wire);
    unharmed(&gateway, before);
}

/// Many messages, which the other side may answer or not.
fn flood(wire: &mut Wire, count: u32, message: impl Fn(u32) -> Message) {
    for batch in 0..count / 1_000 {
        let packets: Vec<u8> = (0..1_000).flat_map(|nth| wire.packet(&message(batch * 1_000 + nth))).collect();
        wire.stream.write_all(&packets).unwrap();
    }
}

#[test]
fn clients_that_do_not_read_or_are_gone() {
    let (gateway, before) = abused("\n[ssh]\nkeepalive_interval = \"1s\"\nkeepalive_max = 2\n");
    let port = gateway.ssh_port;
    // Windows that are never opened, and sockets that are never read.
    let mut idle: Vec<Wire> = Vec::new();
    for nth in 0..6 {
        let mut wire = Wire::logged_in(port, "mallory", PASSWORD).unwrap();
        let window = if nth % 2 == 0 { 0 } else { u32::MAX };
        wire.send(&Message::new(CHANNEL_OPEN).string("session").u32(1).u32(window).u32(if nth < 4 { 1 << 15 } else { 1 })).unwrap();
        let confirmed = wire.until(CHANNEL_OPEN_CONFIRMATION).unwrap();
        let channel = u32::from_be_bytes(confirmed[5..9].try_into().unwrap());
        wire.send(&channel_request(channel, "exec", false).string("yes")).unwrap();
        idle.push(wire);
    }
    // A program that is killed, and one behind a line that swallows everything: frozen, its kernel still acknowledges.
    let client = |gateway: &Gateway| {
        let mut command = gateway.ssh("mallory-with-key");
        command.arg("exec sleep 1000").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    gateway.add_account("mallory-with-key");
    let (mut killed, mut frozen) = (client(&gateway), client(&gateway));
    let sleeping = || gateway.exec("mallory-with-key", "pgrep -xc sleep; true").text().trim().parse().unwrap_or(0);
    wait_for("both to sleep", || sleeping() >= 2);
    killed.kill().unwrap();
    killed.wait().unwrap();
    gateway::signal(frozen.id(), "STOP");
    wait_for("their processes to be gone", || sleeping() <= 1);
    others_work(&gateway);
    let memory = holdings(gateway.pid()).memory;
    pause(3_000);
    let later = holdings(gateway.pid()).memory;
    assert!(later <= memory + 4 * 1024, "it grows: {memory} {later}");
    // Who does not answer is taken for gone.
    wait_for("all of them to be gone", || {
        let (_, metrics) = gateway.get("/metrics");
        metrics.contains("innkeeper_connections_open{stage=\"open\"} 0")
    });
    gateway::signal(frozen.id(), "CONT");
    frozen.kill().unwrap();
    frozen.wait().unwrap();
    drop(idle);
    unharmed(&gateway, before);
    let left = run(Command::new("docker").args(["exec", &gateway.container("mallory"), "pgrep", "-xc", "yes"])).text();
    assert_eq!(left.trim(), "0", "processes of clients that are gone");
}
