//! Processes in real containers, as a session sees them: the same tests for each way to open them.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use innkeeper::attach::{AttachError, Exit, Failure, Process, ProcessSpec, Program, Pty, WindowSize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::WAY;
use crate::container::{Said, TestContainer, Way, at_terminal, command, finish, within};
use crate::engine;

const SHELLS: [&str; 3] = ["busybox", "dash", "bash"];

fn said(stdout: &[u8], stderr: &[u8], status: u32) -> Said {
    Said { stdout: stdout.to_vec(), stderr: stderr.to_vec(), exit: Exit::Status(status) }
}

#[tokio::test]
async fn a_command_has_its_outputs_its_status_and_its_bytes() {
    for sh in SHELLS {
        let container = TestContainer::start_with(WAY, &format!("cmd-{sh}"), sh, |_| {}).await;
        assert_eq!(container.run("echo out; echo err >&2; exit 5", b"").await, said(b"out\n", b"err\n", 5), "{sh}");
        assert_eq!(container.run("cat; echo after", b"in").await, said(b"inafter\n", b"", 0), "half-close");
        assert_eq!(container.run("sleep 0.3; echo late", b"").await, said(b"late\n", b"", 0), "after the input has ended");
        assert_eq!(container.run("/nowhere/at-all", b"").await.exit, Exit::Status(127));
        let killed = if WAY == Way::Init { Exit::Signal("TERM") } else { Exit::Status(143) };
        assert_eq!(container.run("kill -TERM $$", b"").await.exit, killed);
        assert_eq!(container.run("printf '\\001\\000\\002'; echo 'a  b' \"$HOME\"", b"").await.stdout, b"\x01\x00\x02a  b /home/user\n");
        // Text that is not ASCII, and bytes that are no text, with everything a shell might trip over.
        assert_eq!(container.run("printf %s 'grüße\n\n'", b"").await.stdout, "grüße\n\n".as_bytes());
        assert_eq!(container.run(b"printf %s '\xff\xfe %s \\n \x80\n\n'", b"").await.stdout, b"\xff\xfe %s \\n \x80\n\n", "{sh}");
        let began = Instant::now();
        assert_eq!(container.run("sleep 300 >/dev/null 2>&1 & echo ok", b"").await, said(b"ok\n", b"", 0));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    let container = TestContainer::start_with(WAY, "nul", "busybox", |_| {}).await;
    let refused = container.attach.open(&container.id, &command(b"a\0b")).await;
    assert!(matches!(refused.err(), Some(AttachError::Unsupported(_))));
}

#[tokio::test]
async fn a_session_has_the_environment_of_a_login_and_no_more() {
    for sh in SHELLS {
        let container = TestContainer::start_with(WAY, &format!("env-{sh}"), sh, |spec| {
            spec.env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
        })
        .await;
        let mut spec = command("env; pwd");
        let env =
            [("GIT_PROTOCOL", "version=2"), ("ik_user", "kept"), ("LINES", "a\nINNKEEPER_NOT=1"), ("LC_ALL", "C"), ("A=B", "dropped")];
        spec.env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let said = container.run_spec(&spec, b"").await;
        let text = String::from_utf8(said.stdout).unwrap();
        for line in ["USER=user", "LOGNAME=user", "HOME=/home/user", "SHELL=/bin/sh", "LANG=C.UTF-8", "GIT_PROTOCOL=version=2", "LC_ALL=C"]
        {
            assert!(text.lines().any(|found| found == line), "{sh}: {line} in {text}");
        }
        assert!(text.ends_with("/home/user\n") && !text.contains("dropped"));
        let own: Vec<_> = text.lines().filter(|line| line.starts_with("INNKEEPER_") && *line != "INNKEEPER_NOT=1").collect();
        // Exec finds its processes again by a mark.
        let marks = usize::from(WAY == Way::Exec);
        assert!(own.len() == marks && own.iter().all(|line| line.starts_with("INNKEEPER_SESSION=")), "{own:?}");
        // Bytes that are no text take another way, which must leave no trace either.
        spec.program = Program::Command(b"env; : '\xff'".to_vec());
        let said = container.run_spec(&spec, b"").await;
        assert!(String::from_utf8(said.stdout).unwrap().lines().any(|line| line == "LC_ALL=C"));
    }
}

#[tokio::test]
async fn the_account_decides_on_home_and_shell_but_not_on_coming_in() {
    let dir = tempfile::tempdir().unwrap();
    let passwd = dir.path().join("passwd");
    let write = |text: &str| std::fs::write(&passwd, text).unwrap();
    write("");
    let mount = innkeeper::engine::Mount {
        source: passwd.clone(),
        target: "/etc/passwd".to_owned(),
        read_only: true,
        propagation: innkeeper::engine::Propagation::Private,
    };
    let container = TestContainer::start_with(WAY, "passwd", "busybox", |spec| {
        spec.mounts = vec![mount];
        spec.env.insert("HOME".to_owned(), "/".to_owned());
    })
    .await;
    let seen = async || container.text("echo $USER $HOME $SHELL $PWD").await;
    assert_eq!(seen().await, "user /home/user /usr/bin/bash /home/user", "no entry: the gateway's home, and the shell people like");
    write("alice:x:1000:1000::/tmp:/usr/bin/dash");
    assert_eq!(seen().await, "alice /tmp /usr/bin/dash /tmp", "without a newline at the end");
    for shell in ["/usr/sbin/nologin", "/bin/false", "/usr/bin/fish", "/tmp", ""] {
        write(&format!("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/nowhere:{shell}\n"));
        assert_eq!(seen().await, "alice /home/user /usr/bin/bash /home/user", "{shell:?}");
    }
}

#[tokio::test]
async fn bytes_are_the_same_on_both_ways() {
    let container = TestContainer::start_with(WAY, "bytes", "busybox", |_| {}).await;
    let mut bytes = vec![0; 20 << 20];
    rand::fill(&mut bytes[..]);
    let back = container.run("cat", &bytes).await;
    assert_eq!(Sha256::digest(&back.stdout), Sha256::digest(&bytes));
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(container.run("sha256sum", &bytes).await.stdout, format!("{hash}  -\n").into_bytes());

    // A terminal that is told to leave bytes alone does, those below 3 in front included.
    let raw = "stty raw -echo; head -c 300000 /dev/zero; printf '\\002\\001\\000\\000end'; exit 3";
    let back = container.run_spec(&at_terminal(Program::Command(raw.into())), b"").await;
    assert_eq!((back.stdout.len(), back.exit), (300_000 + 7, Exit::Status(3)));
    assert!(back.stdout.ends_with(b"\0\0\x02\x01\0\0end"));
}

#[tokio::test]
async fn a_terminal_has_its_size_and_modes_from_the_first_byte() {
    for sh in SHELLS {
        let container = TestContainer::start_with(WAY, &format!("pty-{sh}"), sh, |_| {}).await;
        let spec = at_terminal(Program::Command(b"stty size; echo $TERM $SSH_TTY; test -t 0 -a -t 1 -a -t 2 && echo tty".to_vec()));
        for _ in 0..5 {
            let said = container.run_spec(&spec, b"").await;
            let text = String::from_utf8(said.stdout).unwrap();
            assert!(text.starts_with("24 80\r\nxterm-256color /dev/pts/") && text.ends_with("\r\ntty\r\n"), "{sh}: {text}");
        }
        let mut spec = at_terminal(Program::Command(b"stty -a".to_vec()));
        // No echo, erase is Ctrl-H, nothing interrupts, UTF-8; one nobody knows.
        spec.pty.as_mut().unwrap().modes = vec![(53, 0), (3, 8), (1, 255), (42, 1), (159, 7)];
        let said = container.run_spec(&spec, b"").await;
        let text = String::from_utf8(said.stdout).unwrap();
        for word in [" -echo ", "erase = ^H", "intr = <undef>", " iutf8", " onlcr", " icanon"] {
            assert!(text.replace(['\r', '\n'], " ").contains(word), "{sh}: {word} in {text}");
        }
    }
}

#[tokio::test]
async fn a_window_that_changes_early_keeps_its_last_size() {
    let container = TestContainer::start_with(WAY, "early", "busybox", |_| {}).await;
    let line = "until test \"$(stty size)\" = '50 132'; do sleep 0.1; done; sleep 1; stty size";
    for _ in 0..5 {
        let process = container.open(&at_terminal(Program::Command(line.into()))).await;
        process.control.resize(WindowSize { columns: 100, rows: 40 }).await.unwrap();
        process.control.resize(WindowSize { columns: 132, rows: 50 }).await.unwrap();
        assert_eq!(finish(process, b"").await, said(b"50 132\r\n", b"", 0));
    }
    // And one that changes later is told so.
    let line = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done";
    let mut process = container.open(&at_terminal(Program::Command(line.into()))).await;
    until_said(&mut process, "ready").await;
    process.control.resize(WindowSize { columns: 99, rows: 33 }).await.unwrap();
    assert_eq!(finish(process, b"").await.stdout, b"33 99\r\n");
}

#[tokio::test]
async fn a_person_is_greeted_at_a_terminal_and_a_program_never() {
    let container = TestContainer::start_with(WAY, "greet", "busybox", |_| {}).await;
    let greeted = |spec: ProcessSpec| ProcessSpec { greeting: Some("Welcome,\n$(stranger) %s\n".to_owned()), ..spec };
    let login = greeted(at_terminal(Program::LoginShell));
    let text = shell_says(&container, &login, "env; echo $0\n").await;
    let (greeting, session) = (text.find("Welcome,\r\n$(stranger) %s\r\n"), text.find("SHLVL=1\r\n"));
    assert!(greeting.is_some() && greeting < session, "{text}");
    assert!(!text.contains("INNKEEPER_GREETING") && !text.contains("OLDPWD"), "{text}");
    container.text("touch ~/.hushlogin").await;
    assert!(!shell_says(&container, &login, "").await.contains("Welcome"));
    container.text("rm ~/.hushlogin").await;
    for spec in [command("true"), at_terminal(Program::Command(b"true".to_vec()))] {
        assert_eq!(container.run_spec(&greeted(spec), b"").await, said(b"", b"", 0));
    }
    let without = ProcessSpec { pty: None, ..login };
    assert_eq!(container.run_spec(&without, b"echo $HOME\n").await, said(b"/home/user\n", b"", 0), "a shell without a terminal");
}

/// What a shell at a terminal says to some input, and to `exit`.
async fn shell_says(container: &TestContainer, spec: &ProcessSpec, input: &str) -> String {
    let said = container.run_spec(spec, format!("{input}exit\n").as_bytes()).await;
    assert_eq!(said.exit, Exit::Status(0));
    String::from_utf8(said.stdout).unwrap()
}

#[tokio::test]
async fn sftp_is_served_or_refused_clearly() {
    let container = TestContainer::start_with(WAY, "sftp", "busybox", |_| {}).await;
    let sftp = ProcessSpec { program: Program::Sftp, ..command("") };
    // Length 5, INIT, version 3: answered with VERSION. Its input stays open until then, because it does not answer after its end.
    let mut server = container.open(&sftp).await;
    server.input.write_all(b"\0\0\0\x05\x01\0\0\0\x03").await.unwrap();
    let answer = within(server.output.next()).await.unwrap().unwrap();
    assert_eq!(answer.data.get(4..9), Some(&b"\x02\0\0\0\x03"[..]));
    assert_eq!(finish(server, b"").await.exit, Exit::Status(0));
    let empty = tempfile::tempdir().unwrap();
    let hide = innkeeper::engine::Mount {
        source: empty.path().to_owned(),
        target: "/usr/lib/openssh".to_owned(),
        read_only: true,
        propagation: innkeeper::engine::Propagation::Private,
    };
    let without = TestContainer::start_with(WAY, "nosftp", "busybox", |spec| spec.mounts = vec![hide]).await;
    if WAY == Way::Init {
        let refused = within(without.attach.open(&without.id, &sftp)).await.err();
        assert!(matches!(refused, Some(AttachError::Failed { why: Failure::NotFound, .. })), "{refused:?}");
        return;
    }
    let refused = without.run_spec(&sftp, b"").await;
    assert_eq!((refused.stdout.as_slice(), refused.exit), (&b""[..], Exit::Status(127)));
    assert_eq!(refused.stderr.iter().filter(|&&byte| byte == b'\n').count(), 1);
}

#[tokio::test]
async fn a_client_that_is_gone_takes_its_processes_with_it_but_not_those_made_to_stay() {
    for sh in SHELLS {
        let container = TestContainer::start_with(WAY, &format!("hup-{sh}"), sh, |_| {}).await;
        // A command that would write for ever to nobody, and two daemons.
        let mut yes = container.open(&command("setsid sleep 1001 & (trap '' HUP; exec sleep 1002) & yes")).await;
        within(yes.output.next()).await.unwrap().unwrap();
        container.until(&format!("{} && {}", sleeps(1001), sleeps(1002))).await;
        let control = yes.control.clone();
        drop(yes);
        within(control.hang_up()).await.unwrap();
        container.until("! grep -qx yes /proc/[0-9]*/comm").await;

        // A shell at a terminal, and the job in front of it.
        let mut shell = container.open(&at_terminal(Program::Command(b"sh -i".to_vec()))).await;
        shell.input.write_all(b"setsid sleep 1003 & sleep 1004\n").await.unwrap();
        container.until(&format!("{} && {}", sleeps(1003), sleeps(1004))).await;
        within(shell.control.hang_up()).await.unwrap();
        let ended = finish(shell, b"").await;
        assert_ne!(ended.exit, Exit::Status(0), "{sh}");
        container.until(&format!("! {}", sleeps(1004))).await;
        for daemon in [1001, 1002, 1003] {
            let found = container.run(sleeps(daemon), b"").await;
            assert_eq!(found.exit, Exit::Status(0), "{sh}: {daemon}");
        }
        // Whoever is gone needs no telling.
        within(control.hang_up()).await.unwrap();
    }
}

/// A command that succeeds while such a `sleep` runs, not counting who is about to become it or only speaks of it.
fn sleeps(seconds: u32) -> String {
    format!("ps -o args | grep -v 'setsid\\|-c' | grep -q '[s]leep {seconds}'")
}

#[tokio::test]
async fn a_signal_reaches_the_foreground() {
    let container = TestContainer::start_with(WAY, "signal", "busybox", |_| {}).await;
    let mut process = container.open(&command("trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.1; done")).await;
    until_said(&mut process, "ready").await;
    assert!(matches!(process.control.signal("WINCH; reboot").await, Err(AttachError::Unsupported(_))));
    within(process.control.signal("USR1")).await.unwrap();
    let ended = finish(process, b"").await;
    assert_eq!((ended.stdout.as_slice(), ended.exit), (&b"caught\n"[..], Exit::Status(7)));

    let mut shell = container.open(&at_terminal(Program::LoginShell)).await;
    shell.input.write_all(b"sleep 1005\n").await.unwrap();
    container.until(&sleeps(1005)).await;
    within(shell.control.signal("INT")).await.unwrap();
    shell.input.write_all(b"echo status $?\n").await.unwrap();
    until_said(&mut shell, "status 130").await;
    shell.input.write_all(b"exit 0\n").await.unwrap();
    assert_eq!(finish(shell, b"").await.exit, Exit::Status(0), "the shell itself goes on");
}

#[tokio::test]
async fn a_container_that_dies_ends_its_sessions() {
    let container = TestContainer::start_with(WAY, "dies", "busybox", |_| {}).await;
    let mut process = container.open(&command("echo ready; sleep 1000")).await;
    until_said(&mut process, "ready").await;
    engine::docker(&["kill", &container.id.0]);
    within(async { while process.output.next().await.is_some() {} }).await;
    let exit = within(process.control.exit()).await;
    assert!(matches!(exit, Err(AttachError::Engine(_) | AttachError::Init(_)) | Ok(Exit::Status(137))), "{exit:?}");
}

/// Reads what a process says until it has said this.
async fn until_said(process: &mut Process, what: &str) {
    let mut heard = String::new();
    within(async {
        while !heard.contains(what) {
            let chunk = process.output.next().await.unwrap_or_else(|| panic!("ended after {heard:?}")).unwrap();
            heard.push_str(&String::from_utf8_lossy(&chunk.data));
        }
    })
    .await;
}

#[tokio::test]
async fn a_terminal_without_a_known_size_is_no_obstacle() {
    let container = TestContainer::start_with(WAY, "nosize", "busybox", |_| {}).await;
    let pty = Pty { term: String::new(), size: WindowSize { columns: 0, rows: 0 }, modes: Vec::new() };
    let spec = ProcessSpec { pty: Some(pty), ..command("tty >/dev/null && echo tty; exit 4") };
    assert_eq!(container.run_spec(&spec, b"").await, said(b"tty\r\n", b"", 4));
}
