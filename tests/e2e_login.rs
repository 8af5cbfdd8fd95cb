//! Logging in: by a login service and by the accounts file, by key and by password.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/django.rs"]
mod django;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/service.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
mod service;

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;

use django::Django;
use gateway::{DEADLINE, Gateway, docker, run, run_with, wait_for};
use serde_json::Value;
use service::{Reply, Service};

/// Settings for a login service at this address.
fn webhook(url: &str, token: &str) -> String {
    format!("[auth]\nmethods = [\"webhook\"]\n[auth.webhook]\nurl = \"{url}\"\ntoken = \"{token}\"\ntimeout = \"30s\"\n")
}

fn public_key(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.dir.path().join("id.pub")).unwrap().trim().to_owned()
}

#[test]
fn users_of_a_django_site_land_where_it_says() {
    let django = Django::start();
    let secrets = tempfile::tempdir().unwrap();
    let token = secrets.path().join("token");
    fs::write(&token, format!("{}\n", django.token())).unwrap();
    let by_file = webhook(&django.url(), "").replace("token = \"\"", &format!("token_file = \"{}\"", token.display()));
    let gateway = Gateway::start(&by_file);
    django.add_user("alice", "correct horse");
    let key = public_key(&gateway);
    let limits = r#"{"cpus": 0.5, "memory": "300MiB", "pids": 77, "sessions": 1}"#;
    django.manage(&["addsshuser", "bob", "--key", &key, "--workspace", "acme", "--limits", limits], "");

    assert_eq!(run(gateway.ssh_by_password("alice", &["correct horse"]).arg("id -un; pwd")).good(), "user\n/home/user\n");
    for (account, password) in [("alice", "wrong"), ("nobody", "correct horse"), ("bob", ""), ("alice", "")] {
        let refused = run(gateway.ssh_by_password(account, &[password]).arg("true"));
        assert!(refused.status == Some(255) && refused.stderr.contains("Permission denied"), "{account} {password:?}: {refused:?}");
    }
    let refused = gateway.exec("alice", "true");
    assert!(refused.status == Some(255) && refused.stderr.contains("Permission denied"), "a key that is not hers: {refused:?}");

    assert_eq!(gateway.exec("bob", "echo mine >file; cat file").good(), "mine\n");
    assert_eq!(
        gateway.inspect("acme", "{{.HostConfig.CpuQuota}}/{{.HostConfig.CpuPeriod}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"),
        format!("50000/100000 {} 77", 300 << 20)
    );
    let held = gateway.hold("bob", "echo up; cat");
    let second = gateway.exec("bob", "true");
    assert!(second.status == Some(75) && second.stderr.contains("1 sessions open"), "{second:?}");
    drop(held);
    let names: Vec<String> = gateway.containers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 2, "nobody else got one: {names:?}");
    gateway.wait_metric("innkeeper_logins_total{method=\"password\",outcome=\"granted\"}", |count| count == 1.0);
    assert!(gateway.metric("innkeeper_logins_total{method=\"password\",outcome=\"denied\"}").is_some_and(|count| count >= 3.0));

    // A user of the site who is not active any more is out at the next login.
    django.manage(&["addsshuser", "alice", "--inactive"], "");
    assert_eq!(run(gateway.ssh_by_password("alice", &["correct horse"]).arg("true")).status, Some(255));
    assert!(!gateway.log().contains("correct horse") && !gateway.log().contains(django.token()));
}

#[test]
fn what_a_grant_says_reaches_the_session_and_nobody_else() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let grant = r#"{"success": true,
        "environment": {"API_KEY": {"value": "hush-hush", "sensitive": true}, "TEAM": {"value": "blue", "sensitive": false}},
        "innkeeper": {"workspace": "blue", "message": "Backup at six.", "idle_timeout": "1s", "permit": {"sftp": false}}}"#;
    let service = runtime.block_on(Service::start(|_| Reply::json(grant)));
    let gateway = Gateway::start(&webhook(&service.url, "a-token-for-tests"));

    let plain = gateway.exec("alice", "echo $TEAM $API_KEY");
    assert_eq!((plain.good().as_str(), plain.stderr.as_str()), ("blue hush-hush\n", ""), "no message where there is no terminal");
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("Backup at six.\r\n");
    terminal.expect("$ ");
    terminal.send("exit\r");
    terminal.end();

    let refused = run(Command::new("sftp")
        .args(gateway.client_options())
        .args(["-b", "/dev/null", "-P"])
        .arg(gateway.ssh_port.to_string())
        .arg("x@127.0.0.1"));
    assert!(refused.status == Some(255), "{refused:?}");
    wait_for("the grant's own idle limit", || gateway.container_state("blue") == "exited");
    let everywhere = [gateway.log(), docker(&["inspect", &gateway.container("blue")]), gateway.get("/metrics").1];
    for secret in ["hush-hush", "a-token-for-tests"] {
        assert!(everywhere.iter().all(|text| !text.contains(secret)), "{secret} is seen");
    }
    let requests = service.requests();
    assert!(requests.iter().all(|request| request.header("authorization") == Some("Bearer a-token-for-tests")));
}

#[test]
fn accounts_that_are_added_changed_or_removed_count_at_once() {
    let gateway = Gateway::start("");
    let account = |arguments: &[&str], input: &str| run_with(gateway.innkeeper().arg("account").args(arguments), input.as_bytes());
    assert_eq!(gateway.exec("erin", "true").status, Some(255));
    account(&["add", "erin", "--password-stdin"], "first\n").good();
    let by = |password: &str| run(gateway.ssh_by_password("erin", &[password]).arg("true")).status;
    assert_eq!((by("first"), by("second")), (Some(0), Some(255)));
    account(&["passwd", "erin", "--password-stdin"], "second\n").good();
    assert_eq!((by("first"), by("second")), (Some(255), Some(0)));
    gateway.add_account("erin");
    assert_eq!((gateway.exec("erin", "echo kept >file").status, by("second")), (Some(0), Some(0)));

    let session = gateway.hold("erin", "echo up; cat");
    account(&["remove", "erin"], "").good();
    assert_eq!((gateway.exec("erin", "true").status, by("second")), (Some(255), Some(255)));
    drop(session);
    assert_eq!(gateway.exec("alice", "true").status, Some(0), "the others are as they were");
    account(&["add", "erin", "--password-stdin"], "third\n").good();
    assert_eq!(run(gateway.ssh_by_password("erin", &["third"]).arg("cat file")).good(), "kept\n", "her files outlive her account");
    // A file that cannot be used any more changes nothing, and says so.
    let file = gateway.state().join("accounts.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, "account = 7").unwrap();
    assert_eq!(gateway.exec("alice", "true").status, Some(0));
    assert!(gateway.log().contains("accounts.toml"));
    fs::write(&file, good).unwrap();
    assert_eq!(gateway.exec("bob", "true").status, Some(0));
}

#[test]
fn a_password_has_three_tries_and_a_key_needs_its_owner() {
    let gateway = Gateway::start("");
    run_with(gateway.innkeeper().args(["account", "add", "erin", "--password-stdin"]), b"right\n").good();
    assert_eq!(run(gateway.ssh_by_password("erin", &["wrong", "also wrong", "right"]).arg("echo in")).good(), "in\n");
    let refused = run(gateway.ssh_by_password("erin", &["wrong", "also wrong", "wrong again", "right"]).arg("true"));
    assert_eq!(refused.status, Some(255), "{refused:?}");

    // Somebody who knows alice's public key, and offers it with a private key of her own.
    let other = gateway.dir.path().join("other");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other)).good();
    fs::copy(gateway.dir.path().join("id.pub"), gateway.dir.path().join("other.pub")).unwrap();
    let stranger = run(Command::new("ssh")
        .arg("-i")
        .arg(&other)
        .args(gateway.client_options().iter().skip(4))
        .args(["-F", "/dev/null", "-p"])
        .arg(gateway.ssh_port.to_string())
        .args(["-l", "alice", "127.0.0.1", "true"]));
    assert_eq!(stranger.status, Some(255), "{stranger:?}");

    // RSA keys sign with SHA-2 or not at all.
    let rsa = gateway.dir.path().join("rsa");
    run(Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-b", "3072", "-N", "", "-f"]).arg(&rsa)).good();
    run(gateway.innkeeper().args(["account", "add", "frank", "--key"]).arg(gateway.dir.path().join("rsa.pub"))).good();
    let by_rsa = |algorithm: &str| {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(&rsa).args(gateway.client_options().iter().skip(4)).args([
            "-F",
            "/dev/null",
            "-o",
            &format!("PubkeyAcceptedAlgorithms={algorithm}"),
            "-p",
        ]);
        run(ssh.arg(gateway.ssh_port.to_string()).args(["-l", "frank", "127.0.0.1", "true"])).status
    };
    assert_eq!([by_rsa("rsa-sha2-512"), by_rsa("rsa-sha2-256"), by_rsa("ssh-rsa")], [Some(0), Some(0), Some(255)]);
}

#[test]
fn who_does_not_log_in_is_not_kept() {
    let gateway = Gateway::start("[ssh]\nlogin_grace = \"2s\"\nmax_startups_per_source = 3\n");
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", gateway.ssh_port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let said = |mut stream: TcpStream| {
        let mut said = Vec::new();
        // Its end may be abrupt.
        let _ = stream.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    };
    let idle: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
    // They are taken in the order in which they come.
    let refused = said(connect());
    assert!(refused.contains("Too many connections"), "{refused:?}");
    let told = gateway.trail(&[], |trail| trail.contains("\"per_source\""));
    let told: Vec<Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|event: &Value| event["door"] == "ssh").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["remote"], &told[0]["times"]), (&"127.0.0.1".into(), &1.into()), "{told:?}");
    for stream in idle {
        assert!(said(stream).starts_with("SSH-2.0-"), "they are ended within the login's time");
    }
    assert_eq!(gateway.exec("alice", "true").status, Some(0), "and then there is room");
}

#[test]
fn who_cannot_be_asked_about_is_told_that_it_is_not_her_password() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = runtime.block_on(Service::start(|_| Reply::status(500, "")));
    let asking = webhook(&service.url, "token").replace("timeout = \"30s\"", "timeout = \"3s\"");
    let gateway = Gateway::start(&format!("[ssh]\nlogin_grace = \"3s\"\n{asking}"));
    let done = run(gateway.ssh_by_password("alice", &["right"]).arg("true"));
    assert!(done.status == Some(255) && done.stderr.contains("login service cannot be reached"), "{done:?}");
    assert!(gateway.containers().is_empty());
}
