//! Logging in, driven by the real OpenSSH client, and by a client library where OpenSSH is too well behaved.

#[path = "common/ssh.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{ACCOUNT, Gateway, PASSWORD, make_key, public_key, text, within};
use innkeeper::ssh::SessionConfig;
use innkeeper::units::Span;
use russh::client;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, load_secret_key};

#[tokio::test(flavor = "multi_thread")]
async fn a_password_lets_in_and_the_keeper_hears_of_it_at_once() {
    within(30, async {
        let gateway = Gateway::start().await;
        let mut ssh = gateway.ssh_with_password(PASSWORD);
        let output = ssh.arg(gateway.host()).arg("echo in").output().await.unwrap();
        assert_eq!(output.stdout, b"in\n", "{}", text(&output.stderr));
        assert_eq!((gateway.auth.count("password"), gateway.keeper.prepared.load(Ordering::SeqCst)), (1, 1));
        assert_eq!(gateway.metric("logins_total", &[("method", "password"), ("outcome", "granted")]), 1.0);
        let (_, attempt) = gateway.auth.asked.lock()[0].clone();
        assert!(attempt.client_version.starts_with("SSH-2.0-OpenSSH"), "{:?}", attempt.client_version);
        assert_eq!((attempt.account.as_str(), attempt.remote.ip()), (ACCOUNT, gateway.address.ip()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_has_three_tries() {
    within(30, async {
        let gateway = Gateway::start().await;
        let output = gateway.ssh_with_password("wrong").arg(gateway.host()).arg("true").output().await.unwrap();
        assert_eq!(output.status.code(), Some(255));
        assert_eq!(gateway.auth.count("password"), 3);
        assert!(text(&output.stderr).contains("Permission denied (publickey,password)"), "{}", text(&output.stderr));
        assert_eq!(gateway.metric("logins_total", &[("method", "password"), ("outcome", "denied")]), 3.0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_on_one_connection_are_limited() {
    within(60, async {
        let gateway = Gateway::start_with(|config| config.max_auth_tries = 2).await;
        let mut ssh = gateway.ssh_with_password("wrong");
        let output = ssh.arg("-oNumberOfPasswordPrompts=10").arg(gateway.host()).arg("true").output().await.unwrap();
        assert_eq!(gateway.auth.count("password"), 2);
        assert!(text(&output.stderr).contains("Too many failed tries"), "{}", text(&output.stderr));
        // One that goes on regardless is not even asked about.
        let mut client = gateway.connect().await;
        for _ in 0..10 {
            if client.authenticate_password(ACCOUNT, PASSWORD.to_owned() + "x").await.is_err() {
                break;
            }
        }
        assert_eq!(gateway.auth.count("password"), 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keyboard_interactive_is_another_way_to_type_a_password() {
    within(30, async {
        use client::KeyboardInteractiveAuthResponse::{InfoRequest, Success};
        let gateway = Gateway::start().await;
        let mut client = gateway.connect().await;
        let asked = client.authenticate_keyboard_interactive_start(ACCOUNT, None).await.unwrap();
        assert!(matches!(asked, InfoRequest { ref prompts, .. } if prompts.len() == 1 && !prompts[0].echo));
        let entered = client.authenticate_keyboard_interactive_respond(vec![PASSWORD.to_owned()]).await.unwrap();
        assert!(matches!(entered, Success));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_counts_only_once_its_signature_is_verified() {
    within(30, async {
        let gateway = Gateway::start().await;
        assert_eq!(gateway.run("echo in").await.stdout, b"in\n");
        assert_eq!((gateway.auth.count("offered"), gateway.auth.count("verified")), (1, 1));

        // Somebody else's public key, which anybody can offer, signed with one's own.
        let stranger = gateway.path("stranger");
        make_key(&stranger, &["-t", "ed25519"]).await;
        std::fs::copy(gateway.path("id.pub"), gateway.path("stranger.pub")).unwrap();
        let mut ssh = gateway.program("ssh");
        let output = ssh.args(["-oBatchMode=yes", "-i"]).arg(&stranger).arg(gateway.host()).arg("true").output().await.unwrap();
        assert_eq!(output.status.code(), Some(255));
        assert_eq!(gateway.auth.count("verified"), 1, "only the first login was verified");
        assert_eq!(gateway.keeper.prepared.load(Ordering::SeqCst), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_accepted_when_offered_is_asked_about_again() {
    within(30, async {
        let gateway = Gateway::start().await;
        let known = public_key(&gateway.path("id"));
        gateway.auth.withdraws.store(true, Ordering::SeqCst);
        let output = gateway.run("true").await;
        assert_eq!(output.status.code(), Some(255));
        assert_eq!((gateway.auth.count("offered"), gateway.auth.count("verified")), (1, 1), "the key was good when it was offered");
        assert!(!gateway.auth.keys.lock().contains(&known));
        assert_eq!(gateway.keeper.prepared.load(Ordering::SeqCst), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sha1_signatures_and_short_keys_are_refused() {
    within(60, async {
        let gateway = Gateway::start().await;
        let (rsa, short) = (gateway.path("rsa"), gateway.path("short"));
        make_key(&rsa, &["-t", "rsa", "-b", "2048"]).await;
        make_key(&short, &["-t", "rsa", "-b", "1024"]).await;
        gateway.auth.trust(&rsa);
        gateway.auth.trust(&short);
        for (path, algorithms, lets_in) in
            [(&rsa, "rsa-sha2-512", true), (&rsa, "rsa-sha2-256", true), (&rsa, "ssh-rsa", false), (&short, "rsa-sha2-512", false)]
        {
            let mut ssh = gateway.program("ssh");
            ssh.args(["-oBatchMode=yes", "-oRequiredRSASize=1024", &format!("-oPubkeyAcceptedAlgorithms={algorithms}"), "-i"]);
            let output = ssh.arg(path).arg(gateway.host()).arg("true").output().await.unwrap();
            assert_eq!(output.status.success(), lets_in, "{algorithms}: {}", text(&output.stderr));
        }
        // A client that does not even ask whether SHA-1 would do.
        let mut client = gateway.connect().await;
        let key = PrivateKeyWithHashAlg::new(Arc::new(load_secret_key(&rsa, None).unwrap()), None);
        let entered = client.authenticate_publickey(ACCOUNT, key).await.unwrap();
        assert!(!entered.success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_service_that_is_down_is_said_to_be_down() {
    within(60, async {
        let gateway = Gateway::start().await;
        gateway.auth.down.store(true, Ordering::SeqCst);
        let output = gateway.ssh_with_password(PASSWORD).arg(gateway.host()).arg("true").output().await.unwrap();
        let told = text(&output.stderr);
        assert!(told.contains("login service cannot be reached") && !told.contains("denied"), "{told}");
        assert_eq!(gateway.auth.count("password"), 1, "nobody types her password again for nothing");
        assert_eq!(gateway.metric("logins_total", &[("method", "password"), ("outcome", "unreachable")]), 1.0);

        let mut ssh = gateway.program("ssh");
        let output = ssh.arg("-i").arg(gateway.path("id")).arg(gateway.host()).arg("true").output().await.unwrap();
        assert!(text(&output.stderr).contains("login service cannot be reached"), "{}", text(&output.stderr));

        // With nobody to ask, OpenSSH gives up before it reads that; it has shown the banner by then.
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.args(["-v", "-oBatchMode=yes", "-i"]).arg(gateway.path("id")).args(gateway.options());
        let output = ssh.arg(gateway.host()).arg("true").output().await.unwrap();
        assert!(text(&output.stderr).contains("could not be reached a moment ago"), "{}", text(&output.stderr));
        gateway.auth.down.store(false, Ordering::SeqCst);
        assert!(gateway.run("true").await.status.success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_service_that_hangs_is_given_up_before_the_deadline() {
    within(30, async {
        let gateway = Gateway::start_with(|config| config.login_grace = Span::secs(3)).await;
        *gateway.auth.takes.lock() = Duration::from_secs(600);
        let output = gateway.ssh_with_password(PASSWORD).arg(gateway.host()).arg("true").output().await.unwrap();
        assert!(text(&output.stderr).contains("login service cannot be reached"), "{}", text(&output.stderr));
        assert_eq!(gateway.metric("logins_total", &[("method", "password"), ("outcome", "timeout")]), 1.0);
    })
    .await;
}

/// Names that nobody could have are refused in the same way and in the same time as names that nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_take_as_long_as_known_ones() {
    within(60, async {
        let gateway = Gateway::start().await;
        let long = "x".repeat(10_000);
        for name in [ACCOUNT, "nobody", "../../etc/passwd", "", &long] {
            let mut took = Vec::new();
            for _ in 0..3 {
                let mut client = gateway.connect().await;
                let began = Instant::now();
                let entered = client.authenticate_password(name, "wrong").await.unwrap();
                took.push(began.elapsed().as_millis());
                assert!(
                    matches!(&entered, client::AuthResult::Failure { remaining_methods, .. } if remaining_methods.len() == 2),
                    "{entered:?}"
                );
            }
            // Of three, since this machine may stand still for a moment.
            assert!(took.iter().all(|took| *took >= 500) && took.iter().any(|took| *took < 700), "{took:?}");
        }
        assert_eq!(gateway.auth.count("password"), 9, "the last two are no names");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_may_be_offered_but_not_any_number() {
    within(60, async {
        let gateway = Gateway::start().await;
        let mut client = gateway.connect().await;
        for _ in 0..15 {
            let seed = rand::random();
            let other = PrivateKey::from(russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed));
            let entered = client.authenticate_publickey(ACCOUNT, PrivateKeyWithHashAlg::new(Arc::new(other), None)).await.unwrap();
            assert!(!entered.success());
        }
        let entered = client
            .authenticate_publickey(ACCOUNT, PrivateKeyWithHashAlg::new(Arc::new(load_secret_key(gateway.path("id"), None).unwrap()), None))
            .await
            .unwrap();
        assert!(entered.success(), "an agent with fifteen other keys");

        let mut client = gateway.connect().await;
        let mut offered = 0;
        while offered < 100 {
            let other = PrivateKey::from(russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&rand::random()));
            let entered = client.authenticate_publickey(ACCOUNT, PrivateKeyWithHashAlg::new(Arc::new(other), None)).await;
            if !matches!(entered, Ok(client::AuthResult::Failure { ref remaining_methods, .. }) if remaining_methods.len() == 2) {
                break;
            }
            offered += 1;
        }
        assert_eq!(offered, 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_good_algorithms_are_offered() {
    within(60, async {
        let gateway = Gateway::start().await;
        for (option, works) in [
            ("-oKexAlgorithms=curve25519-sha256", true),
            ("-oKexAlgorithms=diffie-hellman-group14-sha256,ecdh-sha2-nistp256", false),
            ("-oCiphers=aes128-gcm@openssh.com", true),
            ("-oCiphers=aes192-ctr,aes128-cbc", false),
            ("-oMACs=hmac-sha2-256", true),
            ("-oCompression=yes", true),
            ("-oHostKeyAlgorithms=rsa-sha2-512,ecdsa-sha2-nistp256", false),
        ] {
            let mut ssh = gateway.ssh();
            let output = ssh.arg(option).arg(gateway.host()).arg("true").output().await.unwrap();
            assert_eq!(output.status.success(), works, "{option}: {}", text(&output.stderr));
        }
        // Message authentication codes count only where the cipher has none of its own.
        let mut ssh = gateway.ssh();
        ssh.args(["-oCiphers=aes128-ctr", "-oMACs=hmac-sha2-256,hmac-sha1"]);
        assert!(!ssh.arg(gateway.host()).arg("true").output().await.unwrap().status.success());
        let strict = Gateway::start_with(|config| config.post_quantum_only = true).await;
        assert!(
            !strict.ssh().arg("-oKexAlgorithms=curve25519-sha256").arg(strict.host()).arg("true").output().await.unwrap().status.success()
        );
        assert!(strict.connect().await.authenticate_password(ACCOUNT, PASSWORD).await.unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_counts_for_new_connections() {
    within(30, async {
        let gateway = Gateway::start().await;
        let change = innkeeper::ssh::Config { max_auth_tries: 1, ..Default::default() };
        gateway.server.reload(change, SessionConfig::default()).unwrap();
        let output = gateway.ssh_with_password("wrong").arg(gateway.host()).arg("true").output().await.unwrap();
        assert_eq!(gateway.auth.count("password"), 1, "{}", text(&output.stderr));
        let broken = innkeeper::ssh::Config { max_startups: "lots".into(), ..Default::default() };
        let why = gateway.server.reload(broken, SessionConfig::default()).unwrap_err().to_string();
        assert!(why.contains("ssh.max_startups") && why.contains("100:30:500"), "{why}");
    })
    .await;
}
