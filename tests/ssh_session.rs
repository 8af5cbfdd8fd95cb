//! Sessions without a terminal, driven by the real OpenSSH client: what programs need of them.

#[path = "common/ssh.rs"]
mod common;

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Gateway, text, until, within};
use innkeeper::attach::Program;
use innkeeper::auth::EnvValue;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
    bytes
}

fn hash(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_statuses_arrive() {
    within(60, async {
        let gateway = Gateway::start().await;
        for (command, status) in [("true", 0), ("exit 5", 5), ("exit 255", 255), ("no-such-command-at-all", 127)] {
            let output = gateway.run(command).await;
            assert_eq!(output.status.code(), Some(status), "{command}: {}", text(&output.stderr));
        }
        assert_eq!(gateway.run("kill -TERM $$").await.status.code(), Some(255), "OpenSSH's status for an exit-signal");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_runs_never_fail_by_themselves() {
    within(120, async {
        let gateway = Gateway::start().await;
        for run in 0..200 {
            let output = gateway.run("echo out; exit 7").await;
            assert_eq!((output.status.code(), &*output.stdout), (Some(7), &b"out\n"[..]), "run {run}: {}", text(&output.stderr));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_arrive_whole_both_ways() {
    within(120, async {
        let gateway = Gateway::start().await;
        let bytes = random_bytes(100_000_000);
        let output = gateway.run_with_input("sha256sum", bytes.clone()).await;
        assert_eq!(text(&output.stdout).split_whitespace().next(), Some(&*hash(&bytes)));
        std::fs::write(gateway.path("big"), &bytes).unwrap();
        let output = gateway.run(&format!("cat {}", gateway.path("big").display())).await;
        assert_eq!(hash(&output.stdout), hash(&bytes));
        let output = gateway.run_with_input("cat", bytes.clone()).await;
        assert_eq!(hash(&output.stdout), hash(&bytes), "there and back at once");
    })
    .await;
}

/// A client that sends without end while nobody reads what comes back must be held back, not the connection stopped: else its word that there
/// is room again never arrives.
#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_reads_for_a_while_does_not_stop_the_connection_for_good() {
    within(120, async {
        let gateway = Gateway::start().await;
        let bytes = random_bytes(60_000_000);
        let mut child = gateway.ssh().arg(gateway.host()).arg("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let write = async {
            stdin.write_all(&bytes).await.unwrap();
            drop(stdin);
        };
        let read = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let mut back = Vec::new();
            stdout.read_to_end(&mut back).await.unwrap();
            back
        };
        let ((), back) = tokio::join!(write, read);
        assert_eq!(hash(&back), hash(&bytes));
        assert!(child.wait().await.unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_may_end_first() {
    within(30, async {
        let gateway = Gateway::start().await;
        assert_eq!(gateway.run_with_input("cat", b"x".to_vec()).await.stdout, b"x");
        assert_eq!(gateway.run("sleep 1; echo late; exit 3").await.stdout, b"late\n", "its input is /dev/null");
        let output = gateway.run_with_input("exec 1>&- 2>&-; sleep 0.3; exit 9", vec![]).await;
        assert_eq!(output.status.code(), Some(9), "output ended before the process did");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn early_and_unwanted_input_is_no_error() {
    within(60, async {
        let gateway = Gateway::start().await;
        assert_eq!(gateway.run_with_input("head -c 1", vec![b'a'; 5_000_000]).await.stdout, b"a");
        assert_eq!(gateway.run_with_input("exec 0<&-; sleep 0.5; echo done", vec![b'a'; 5_000_000]).await.stdout, b"done\n");
        let output = gateway.run("yes | head -1").await;
        assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"y\n"[..]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_error_is_apart_and_bytes_are_as_they_were() {
    within(30, async {
        let gateway = Gateway::start().await;
        let output = gateway.run("printf 'a\\r\\n\\000\\001\\002\\003\\377'; printf err >&2").await;
        assert_eq!(output.stdout, b"a\r\n\0\x01\x02\x03\xff");
        assert_eq!(output.stderr, b"err");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_process_does_not_hold_the_session() {
    within(30, async {
        let gateway = Gateway::start().await;
        let began = Instant::now();
        let output = gateway.run("sleep 20 >/dev/null 2>&1 </dev/null & echo ok").await;
        assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"ok\n"[..]));
        assert!(began.elapsed() < Duration::from_secs(10));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reaches_the_shell_as_its_bytes() {
    within(30, async {
        use std::os::unix::ffi::OsStrExt;
        let gateway = Gateway::start().await;
        let command = std::ffi::OsStr::from_bytes(b"echo \"a  b\" '\xff'");
        let output = gateway.ssh().arg(gateway.host()).arg(command).output().await.unwrap();
        assert_eq!(output.stdout, b"a  b \xff\n");
        assert_eq!(gateway.keeper.opened.lock()[0].program, Program::Command(command.as_bytes().to_vec()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_is_what_the_client_may_set_and_what_the_login_says() {
    within(30, async {
        let gateway = Gateway::start().await;
        *gateway.auth.change_grant.lock() = Some(Box::new(|grant| {
            grant.environment.insert("TOKEN".into(), EnvValue::new("s3cret", true));
        }));
        let mut ssh = gateway.ssh();
        ssh.args(["-oSetEnv=LC_TEST=é GIT_PROTOCOL=version=2 FORBIDDEN=1 LD_PRELOAD=/x BASH_ENV=/x"]);
        let output = ssh.arg(gateway.host()).arg("env").output().await.unwrap();
        let environment = text(&output.stdout);
        let has = |line: &str| environment.lines().any(|has| has == line);
        assert!(has("LC_TEST=é") && has("GIT_PROTOCOL=version=2") && has("TOKEN=s3cret"), "{environment}");
        assert!(!environment.contains("FORBIDDEN") && !environment.contains("LD_PRELOAD") && !environment.contains("BASH_ENV"));
        let port = gateway.address.port();
        let value = |name: &str| environment.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let connection = value("SSH_CONNECTION=");
        let fields: Vec<&str> = connection.split(' ').collect();
        assert_eq!((fields[0], fields[2], fields[3]), ("127.0.0.1", "127.0.0.1", &*port.to_string()));
        assert_eq!(value("SSH_CLIENT="), format!("127.0.0.1 {} {port}", fields[1]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_scp_and_rsync_carry_files() {
    within(120, async {
        let gateway = Gateway::start().await;
        // Programs must not read a single byte that was meant for people.
        *gateway.keeper.motd.lock() = Some("welcome".into());
        *gateway.auth.change_grant.lock() = Some(Box::new(|grant| grant.message = Some("hello".into())));
        let bytes = random_bytes(3_000_000);
        std::fs::write(gateway.path("from"), &bytes).unwrap();
        let key = gateway.path("id").display().to_string();
        let remote = |name: &str| format!("{}:{}", gateway.host(), gateway.path(name).display());
        for (arguments, arrives) in [(vec!["-q"], "by-sftp"), (vec!["-q", "-O"], "by-scp")] {
            let mut scp = gateway.program("scp");
            let output = scp.args(arguments).args(["-oBatchMode=yes", "-i", &key]).arg(gateway.path("from")).arg(remote(arrives));
            let output = output.output().await.unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            assert!(std::fs::read(gateway.path(arrives)).unwrap() == bytes);
        }
        let shell = format!("ssh -oBatchMode=yes -i {key} {}", gateway.options().join(" "));
        let mut rsync = tokio::process::Command::new("rsync");
        let output =
            rsync.args(["-az", "--partial", "-e", &shell]).arg(gateway.path("from")).arg(remote("by-rsync")).output().await.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(std::fs::read(gateway.path("by-rsync")).unwrap() == bytes);
        assert!(gateway.metric("sessions_total", &[("kind", "sftp")]) >= 1.0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_pushes() {
    within(60, async {
        let gateway = Gateway::start().await;
        let key = gateway.path("id").display().to_string();
        let script = format!(
            "set -e; cd {directory}; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_SSH_COMMAND='ssh -oBatchMode=yes -i {key} {options}'; \
             git init -q --bare bare.git; git -c protocol.version=2 clone -q ssh://{host}{directory}/bare.git work; cd work; \
             git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m one; git push -q origin HEAD; \
             git ls-remote ssh://{host}{directory}/bare.git HEAD",
            directory = gateway.directory.path().display(),
            options = gateway.options().join(" "),
            host = gateway.host(),
        );
        let output = tokio::process::Command::new("sh").args(["-c", &script]).output().await.unwrap();
        assert!(output.status.success() && text(&output.stdout).contains("HEAD"), "{}{}", text(&output.stdout), text(&output.stderr));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_sessions_share_one_connection() {
    within(60, async {
        let gateway = Gateway::start().await;
        let socket = format!("-oControlPath={}", gateway.path("mux").display());
        let mut master = gateway.ssh();
        let mut master = master.args(["-oControlMaster=yes", &socket, "-N"]).arg(gateway.host()).spawn().unwrap();
        until("the master listens", || gateway.path("mux").exists()).await;
        let sessions = (0..50).map(|number| {
            let mut ssh = gateway.ssh();
            let running = ssh.arg(&socket).arg(gateway.host()).arg(format!("sleep 0.5; echo {number}; exit {number}")).output();
            async move {
                let output = running.await.unwrap();
                assert_eq!((output.status.code(), text(&output.stdout)), (Some(number), format!("{number}\n")), "{}", text(&output.stderr));
            }
        });
        futures_util::future::join_all(sessions).await;
        assert_eq!(gateway.metric("connections_total", &[]), 1.0);
        assert_eq!(gateway.metric("first_byte_seconds", &[("path", "attach")]), 1.0, "the connection's first session");
        master.start_kill().unwrap();
        until("all leases are back", || gateway.keeper.leases.load(Ordering::SeqCst) == 0).await;
        assert_eq!(gateway.metric("sessions_open", &[]), 0.0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_exchanged_anew_during_a_transfer() {
    within(120, async {
        let gateway = Gateway::start().await;
        let bytes = random_bytes(20_000_000);
        for cipher in ["aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"] {
            let mut ssh = gateway.ssh();
            ssh.args(["-oRekeyLimit=1M", "-c", cipher]).arg(gateway.host()).arg("cat").stdin(Stdio::piped());
            let mut child = ssh.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let write = async {
                stdin.write_all(&bytes).await.unwrap();
                drop(stdin);
            };
            let (output, ()) = tokio::join!(child.wait_with_output(), write);
            assert_eq!(hash(&output.unwrap().stdout), hash(&bytes), "{cipher}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keepalives_are_answered() {
    within(60, async {
        let gateway = Gateway::start_with(|config| config.keepalive_interval = innkeeper::units::Span::secs(2)).await;
        let mut ssh = gateway.ssh();
        ssh.args(["-oServerAliveInterval=2", "-oServerAliveCountMax=2"]).arg(gateway.host()).arg("sleep 10; echo here");
        assert_eq!(ssh.output().await.unwrap().stdout, b"here\n", "neither side took the other for gone");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_gone_hangs_its_process_up() {
    within(30, async {
        let gateway = Gateway::start().await;
        let mut ssh = gateway.ssh();
        let mut ssh = ssh.arg(gateway.host()).arg("echo up; exec sleep 100").spawn().unwrap();
        let mut line = [0; 3];
        ssh.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
        ssh.kill().await.unwrap();
        until("it is hung up", || gateway.keeper.hung_up.load(Ordering::SeqCst) == 1).await;
        until("its lease is back", || gateway.keeper.leases.load(Ordering::SeqCst) == 0).await;
    })
    .await;
}

/// Whatever the client's buffers take, and not a byte more, is taken from a process whose client has stopped reading.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_holds_its_process_up() {
    within(60, async {
        let gateway = Gateway::start().await;
        let mut ssh = gateway.ssh();
        let child = ssh.arg(gateway.host()).arg("yes").spawn().unwrap();
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let taken = gateway.keeper.taken.load(Ordering::SeqCst);
            if taken > 0 && taken == before {
                break;
            }
            before = taken;
        }
        assert!(before < 16 << 20, "{before} bytes went somewhere");
        drop(child);
        until("it is hung up", || gateway.keeper.hung_up.load(Ordering::SeqCst) == 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_grant_does_not_permit_is_refused_with_a_word() {
    within(30, async {
        let gateway = Gateway::start().await;
        *gateway.auth.change_grant.lock() = Some(Box::new(|grant| (grant.permit.exec, grant.permit.sftp) = (false, false)));
        let output = gateway.run("true").await;
        assert_eq!(output.status.code(), Some(77));
        assert!(text(&output.stderr).contains("may open a shell only"), "{}", text(&output.stderr));
        let mut sftp = gateway.program("sftp");
        let output = sftp.args(["-oBatchMode=yes", "-i"]).arg(gateway.path("id")).arg(gateway.host()).output().await.unwrap();
        assert!(!output.status.success() && text(&output.stderr).contains("may not use sftp"), "{}", text(&output.stderr));
        assert!(gateway.keeper.opened.lock().is_empty());
    })
    .await;
}
