//! What a gateway cannot start with: one line that names it and the mend, the right exit status, and nothing left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use fault::{complaints, refusal};
use gateway::{Gateway, mounts_below, run};

/// Refuses, with this status, in one line that has all these words, and leaves nothing.
#[track_caller]
fn refuses(gateway: &Gateway, status: i32, words: &[&str]) {
    let refused = refusal(gateway);
    let said = complaints(&refused);
    assert_eq!((refused.status, said.len()), (Some(status), 1), "{refused:#?}");
    let half = &said[0][said[0].len() / 2..];
    assert!(said[0].matches(half).count() == 1 && said[0].matches(": File exists").count() <= 1, "says something twice: {}", said[0]);
    for word in words {
        assert!(said[0].contains(word), "{word:?} is not in {:?}", said[0]);
    }
    assert_eq!(mounts_below(&gateway.state()), 0, "a mount is left after: {}", said[0]);
    assert_eq!(gateway.containers(), [], "a container is left after: {}", said[0]);
    assert!(!refused.stderr.contains("ssh listening"), "listened: {}", said[0]);
}

/// A gateway that has been up and was taken away, all but its files.
fn gone() -> Gateway {
    let mut gateway = Gateway::start("");
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    assert_eq!(mounts_below(&gateway.state()), 0);
    gateway
}

#[test]
fn an_unusable_configuration_is_64_and_names_the_key() {
    let gateway = gone();
    for (sections, words) in [
        ("\n[ssh]\nlisten = [\"here\"]\n", &["ssh.listen", "here", "0.0.0.0:2200"][..]),
        ("\n[idle]\ntimeout = \"soon\"\n", &["idle.timeout", "soon"]),
        ("\n[idle]\ntimout = \"1h\"\n", &["timout", "timeout"]),
        ("\n[auth]\nmethods = []\n", &["auth.methods"]),
        ("\n[log]\nfilter = \"innkeeper=loud\"\n", &["log.filter", "info"]),
        ("\n[pool]\ntemplate = \"python\"\n", &["pool.template", "default"]),
        ("\n[limits]\ncontainers = 0\n", &["limits.containers"]),
    ] {
        gateway.configure(sections);
        let refused = refusal(&gateway);
        let said = complaints(&refused).join("\n");
        assert_eq!(refused.status, Some(64), "{refused:?}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not in {said:?}");
        assert_eq!(mounts_below(&gateway.state()), 0);
    }
    fs::write(gateway.config(), "[ssh\n").unwrap();
    refuses(&gateway, 64, &["config.toml"]);
    fs::write(gateway.config(), [0xff, 0xfe, 0x00]).unwrap();
    refuses(&gateway, 64, &["config.toml"]);
    gateway.configure("");
}

#[test]
fn unusable_host_keys_are_named_and_never_replaced() {
    let gateway = gone();
    let (dir, key) = (gateway.state().join("host_keys"), gateway.state().join("host_keys/ssh_host_ed25519_key"));
    let path = key.to_str().unwrap();
    let whole = fs::read(&key).unwrap();
    let set = |bytes: &[u8], mode: u32| {
        fs::write(&key, bytes).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(b"garbage", 0o600);
    refuses(&gateway, 1, &[path, "backup"]);
    set(&whole, 0o644);
    refuses(&gateway, 1, &[path, "chmod 600"]);
    set(&whole[..100], 0o600);
    refuses(&gateway, 1, &[path, "backup"]);
    set(&whole, 0o600);
    run(Command::new("ssh-keygen").args(["-q", "-p", "-N", "secret", "-f", path])).good();
    refuses(&gateway, 1, &[path, "passphrase", "ssh-keygen -p"]);
    set(&whole, 0o600);

    fs::rename(&dir, gateway.dir.path().join("kept")).unwrap();
    fs::write(&dir, "a file").unwrap();
    refuses(&gateway, 1, &[dir.to_str().unwrap(), "host key"]);
    fs::remove_file(&dir).unwrap();
    // Root reads every directory; a link that goes nowhere is one that nobody reads.
    symlink("/nonexistent/keys", &dir).unwrap();
    refuses(&gateway, 1, &[dir.to_str().unwrap(), "host key"]);
    fs::remove_file(&dir).unwrap();
    fs::rename(gateway.dir.path().join("kept"), &dir).unwrap();
    assert_eq!(fs::read(&key).unwrap(), whole);
}

#[test]
fn an_engine_or_image_that_is_not_there_is_named() {
    let gateway = gone();
    let missing = gateway.dir.path().join("docker.sock");
    gateway.configure(&format!("\n[engine]\nsocket = \"{}\"\n", missing.display()));
    refuses(&gateway, 1, &["engine.socket", missing.to_str().unwrap(), "start it"]);
    fs::write(&missing, "no socket").unwrap();
    refuses(&gateway, 1, &["engine.socket", missing.to_str().unwrap()]);
    gateway.configure("\n[template.default]\nimage = \"127.0.0.1:1/innkeeper-test/nothing:1\"\n");
    refuses(&gateway, 1, &["template.default.image", "127.0.0.1:1/innkeeper-test/nothing:1", "build it"]);
    gateway.configure("");
}

#[test]
fn a_broken_accounts_file_is_named_with_its_line_and_left_alone() {
    let gateway = gone();
    let file = gateway.state().join("accounts.toml");
    let whole = fs::read(&file).unwrap();
    for (text, words) in [
        (&b"[account.alice]\npassword = \"hunter2\"\n"[..], &["accounts.toml", "password"][..]),
        (b"[account.alice\n", &["accounts.toml", "1"]),
        (b"\xff\xfe\x00", &["accounts.toml"]),
        (b"[account.alice]\nkeys = [\"ssh-ed25519 AAAA\"]\n", &["accounts.toml"]),
    ] {
        fs::write(&file, text).unwrap();
        let refused = refusal(&gateway);
        refuses(&gateway, 1, words);
        assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
        assert_eq!(fs::read(&file).unwrap(), text);
    }
    fs::write(&file, whole).unwrap();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let gateway = gone();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for section in ["ssh", "http"] {
        let value = if section == "ssh" { format!("[\"{address}\"]") } else { format!("\"{address}\"") };
        gateway.configure(&format!("\n[{section}]\nlisten = {value}\n"));
        refuses(&gateway, 1, &[&format!("{section}.listen"), &address, "another address"]);
    }
    gateway.configure("\n[ssh]\nlisten = [\"192.0.2.1:2200\"]\n");
    refuses(&gateway, 1, &["ssh.listen", "192.0.2.1:2200"]);
    gateway.configure("");
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let mut gateway = gone();
    let state = gateway.state();
    let kept = gateway.dir.path().join("kept");
    fs::rename(&state, &kept).unwrap();
    fs::write(&state, "a file").unwrap();
    refuses(&gateway, 1, &["state_dir", state.to_str().unwrap(), "write"]);
    fs::remove_file(&state).unwrap();
    fs::rename(&kept, &state).unwrap();

    for (name, words) in [("innkeeper.db", "move it away"), ("homes", "home.root")] {
        let (path, kept) = (state.join(name), gateway.dir.path().join("kept"));
        fs::rename(&path, &kept).unwrap();
        fs::write(&path, "neither a database nor a directory, but long enough to be looked at".repeat(50)).unwrap();
        refuses(&gateway, 1, &[path.to_str().unwrap(), words]);
        fs::remove_file(&path).unwrap();
        fs::rename(&kept, &path).unwrap();
    }

    // Read-only, as after a disk error.
    run(Command::new("mount").args(["--bind"]).args([&state, &state])).good();
    run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&state)).good();
    let refused = refusal(&gateway);
    run(Command::new("umount").arg(&state)).good();
    let said = complaints(&refused);
    assert!(refused.status == Some(1) && said.len() == 1 && said[0].contains(state.to_str().unwrap()), "{refused:?}");
    assert_eq!(mounts_below(&state), 0);

    gateway.up();
    let mounts = mounts_below(&state);
    let refused = refusal(&gateway);
    let said = complaints(&refused);
    assert!(refused.status == Some(1) && said.len() == 1, "{refused:?}");
    assert!(said[0].contains("state_dir") && said[0].contains("another gateway"), "{said:?}");
    assert_eq!(mounts_below(&state), mounts, "the mounts of the one that runs are its own");
    gateway.exec("alice", "true").good();
}
