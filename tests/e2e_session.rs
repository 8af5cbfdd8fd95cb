//! Sessions without a terminal: what programs need of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use gateway::{Gateway, Session, noise, run, sha256, signal, wait_for, without_waiting};

#[test]
fn a_command_ends_with_its_own_status() {
    let gateway = Gateway::start("");
    for (line, status) in [("true", 0), ("exit 5", 5), ("exit 255", 255), ("no-such-command-at-all", 127), ("/etc/passwd", 126)] {
        for terminal in [&[][..], &["-tt"]] {
            let done = run(gateway.ssh("alice").args(terminal).arg(line));
            assert_eq!(done.status, Some(status), "{line} {terminal:?}: {done:?}");
        }
    }
    // OpenSSH's client shows a signal as 255; who cannot tell a signal says 143 as a shell does.
    for (line, also) in [("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let done = gateway.exec("alice", line);
        assert!(done.status == Some(255) || done.status == Some(also), "{line}: {done:?}");
        assert_eq!(done.stderr, "", "nothing else has ended");
    }
    let done = gateway.exec_with("alice", "cat >/dev/null; sleep 2; exit 9", b"x");
    assert_eq!(done.status, Some(9), "a command that goes on after its input has ended");
}

#[test]
fn two_hundred_commands_in_a_row_all_arrive() {
    let gateway = Gateway::start("");
    // Who waits at a terminal for a container to be made reads that.
    gateway.exec("bob", "true").good();
    std::thread::scope(|scope| {
        for lane in 0..2 {
            let gateway = &gateway;
            scope.spawn(move || {
                for number in 0..100 {
                    let done = gateway.exec("alice", &format!("echo {number}"));
                    assert_eq!((done.good(), done.stderr.as_str()), (format!("{number}\n"), ""), "lane {lane}");
                    if number % 4 == 0 {
                        let done = run(gateway.ssh("bob").args(["-tt", "echo"]).arg(number.to_string()));
                        assert_eq!(without_waiting(done.good().as_bytes()), format!("{number}\r\n").as_bytes(), "lane {lane}");
                    }
                }
            });
        }
    });
    assert_eq!(gateway.containers().len(), 2);
}

#[test]
fn a_hundred_megabytes_arrive_whole_both_ways() {
    let gateway = Gateway::start("");
    let (plenty, some) = (noise(100 << 20), noise(16 << 20));
    gateway.exec("alice", "true").good();
    for (name, bytes, options) in [
        ("plenty", &plenty, &[][..]),
        ("some", &some, &["-C"]),
        // Keys are changed a hundred times each way.
        ("plenty", &plenty, &["-v", "-o", "RekeyLimit=1M"]),
    ] {
        let file = gateway.home("alice").join(name);
        std::fs::write(&file, bytes).unwrap();
        let hash = sha256(bytes);
        let up = gateway.ssh("alice").args(options).arg("sha256sum").stdin(File::open(&file).unwrap()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&up.stdout), format!("{hash}  -\n"), "up, {options:?}");
        let down = run(gateway.ssh("alice").args(options).arg(format!("cat {name}")));
        assert_eq!((down.status, sha256(&down.stdout)), (Some(0), hash), "down, {options:?}");
        if options.len() > 1 {
            for stderr in [String::from_utf8_lossy(&up.stderr), down.stderr.into()] {
                assert!(stderr.matches("rekey in progress").count() > 8 || stderr.matches("SSH2_MSG_NEWKEYS sent").count() > 8, "{stderr}");
            }
        }
    }
}

#[test]
fn input_and_output_end_each_in_its_own_time() {
    let gateway = Gateway::start("");
    assert_eq!(gateway.exec_with("alice", "cat", b"x").good(), "x");
    assert_eq!(gateway.exec("alice", "sleep 1; echo late").good(), "late\n");
    assert_eq!(gateway.exec_with("alice", "exec 0<&-; sleep 1; echo deaf", &noise(1 << 20)).good(), "deaf\n");
    assert_eq!(gateway.exec("alice", "exec >&- 2>&-; sleep 1; exit 4").status, Some(4));

    let apart = gateway.exec("alice", "echo out; echo err >&2; printf 'a\\nb\\r\\n'; printf 'e\\r\\n' >&2");
    assert_eq!((apart.good().as_str(), apart.stderr.as_str()), ("out\na\nb\r\n", "err\ne\r\n"));
    assert_eq!(gateway.exec("alice", "yes | head -1").good(), "y\n");

    let since = Instant::now();
    assert_eq!(gateway.exec("alice", "sleep 300 >/dev/null 2>&1 & echo ok").good(), "ok\n");
    assert!(since.elapsed() < Duration::from_secs(30), "a background process holds its session up");
    gateway.exec("alice", "pgrep -xf 'sleep 300'").good();
}

#[test]
fn a_command_that_nobody_hears_any_more_ends() {
    let gateway = Gateway::start("[ssh]\nkeepalive_interval = \"1s\"\nkeepalive_max = 2\n");
    let line = r#"trap 'touch ~/told; exit' HUP; echo up; while :; do sleep 0.2; done"#;
    let told = gateway.home("alice").join("told");
    for name in ["KILL", "STOP"] {
        let client = gateway.hold("alice", line);
        signal(client.pid(), name);
        wait_for("its process to be told", || told.exists());
        std::fs::remove_file(&told).unwrap();
    }
    // What was made to stay stays.
    let stays = "nohup sh -c 'touch stays; exec sleep 301' >/dev/null 2>&1 &";
    let client = gateway.hold("alice", &format!("{stays} until [ -e stays ]; do sleep 0.1; done; echo up; cat"));
    signal(client.pid(), "KILL");
    gateway.wait_metric("innkeeper_sessions_open", |open| open == 0.0);
    gateway.exec("alice", "pgrep -xf 'sleep 301'").good();
}

#[test]
fn a_command_goes_through_the_login_shell() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "touch one two; echo 'echo from bashrc >/dev/null' >.bashrc").good();
    assert_eq!(gateway.exec("alice", r#"echo "a  b" $HOME *"#).good(), "a  b /home/user one two\n");
    assert_eq!(
        gateway.exec("alice", "echo ${BASH_VERSION:+bash} $SHELL; shopt -q login_shell || echo no login").good(),
        "bash /bin/bash\nno login\n"
    );
    assert_eq!(
        gateway.exec("alice", "printf '%s\\n' 'it'\\''s' \"\\\"$((1+1))\\\"\"\necho second line").good(),
        "it's\n\"2\"\nsecond line\n"
    );
    let long = "x".repeat(100_000);
    assert_eq!(gateway.exec("alice", &format!("printf {long} | wc -c")).good(), "100000\n");
    for line in [&b"printf 'caf\xe9\xff' | od -An -tx1"[..], b"printf '\xff\xfe\n\n' | od -An -tx1", "printf 'é' | od -An -tx1".as_bytes()]
    {
        let expected: String = match line[8] {
            b'c' => " 63 61 66 e9 ff\n".into(),
            0xff => " ff fe 0a 0a\n".into(),
            _ => " c3 a9\n".into(),
        };
        assert_eq!(run(gateway.ssh("alice").arg(OsStr::from_bytes(line))).good(), expected);
    }
}

#[test]
fn the_environment_is_what_programs_expect() {
    let gateway = Gateway::start("");
    let set = "SetEnv=LANG=de_DE.UTF-8 LC_TIME=C GIT_PROTOCOL=version=2 COLORTERM=truecolor LD_PRELOAD=/evil.so PATH=/evil BASH_ENV=/evil FOO=bar SSH_CLIENT=me";
    let environment = |options: &[&str]| -> BTreeMap<String, String> {
        let text = run(gateway.ssh("alice").args(["-o", set]).args(options).arg("env")).good();
        text.lines().filter_map(|line| line.trim_end().split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let env = environment(&[]);
    for (name, value) in [
        ("LANG", "de_DE.UTF-8"),
        ("LC_TIME", "C"),
        ("GIT_PROTOCOL", "version=2"),
        ("COLORTERM", "truecolor"),
        ("USER", "user"),
        ("LOGNAME", "user"),
        ("HOME", "/home/user"),
        ("SHELL", "/bin/bash"),
        ("PWD", "/home/user"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{env:#?}");
    }
    for name in ["LD_PRELOAD", "BASH_ENV", "FOO", "SSH_TTY"] {
        assert_eq!(env.get(name), None, "{name}");
    }
    assert!(!env["PATH"].contains("evil") && env["PATH"].contains("/usr/bin"), "{env:#?}");
    let words: Vec<&str> = env["SSH_CONNECTION"].split(' ').collect();
    let port = gateway.ssh_port.to_string();
    assert!(matches!(words[..], ["127.0.0.1", _, "127.0.0.1", to] if to == port), "{words:?}");
    assert_eq!(env["SSH_CLIENT"], format!("127.0.0.1 {} {port}", words[1]));
    assert!(environment(&["-tt"])["SSH_TTY"].starts_with("/dev/pts/"));
    assert_eq!(gateway.exec("alice", "echo $LANG").good(), "C.UTF-8\n", "the template's, where the client says nothing");
}

#[test]
fn fifty_sessions_at_once_share_one_connection() {
    let gateway = Gateway::start("");
    let socket = gateway.dir.path().join("control");
    let mut master = Session::start(
        gateway
            .ssh("alice")
            .args(["-M", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=5", "-S"])
            .arg(&socket)
            .arg("echo up; cat"),
    );
    master.expect("up\n");
    let mut sessions: Vec<Session> = (0..50)
        .map(|number| Session::start(gateway.ssh("alice").arg("-S").arg(&socket).arg(format!("echo up; cat; exit {number}"))))
        .collect();
    sessions.iter_mut().for_each(|session| drop(session.expect("up\n")));
    gateway.wait_metric("innkeeper_sessions_open", |open| open == 51.0);
    assert_eq!(gateway.metric("innkeeper_connections_total"), Some(1.0));
    for (number, mut session) in sessions.into_iter().enumerate() {
        session.send(number.to_string());
        session.close();
        let done = session.end();
        assert_eq!((done.status, done.text()), (i32::try_from(number).ok(), format!("up\n{number}")));
    }
    // It was asked every second whether it is there.
    master.close();
    assert_eq!(master.end().status, Some(0));
}

#[test]
fn a_client_that_asks_whether_we_are_there_is_answered() {
    let gateway = Gateway::start("");
    let done = run(gateway.ssh("alice").args(["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3", "sleep 6; echo still here"]));
    assert_eq!(done.good(), "still here\n");
}

#[test]
fn the_locale_of_a_client_works_in_the_image() {
    let gateway = Gateway::start("");
    let mut ssh = gateway.ssh("alice");
    ssh.env("LC_ALL", "de_DE.UTF-8").args(["-o", "SendEnv=LC_ALL"]);
    let done = run(ssh.arg("printf ä | wc -m; echo $LC_ALL"));
    assert_eq!((done.text().as_str(), done.stderr.as_str()), ("1\nde_DE.UTF-8\n", ""));
}
