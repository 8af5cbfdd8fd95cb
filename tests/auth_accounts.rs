//! The accounts file as a gateway uses it while somebody else changes it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use innkeeper::auth::accounts::edit::{self, NewAccount};
use innkeeper::auth::accounts::{Accounts, Hash};
use innkeeper::auth::{Attempt, Authenticator, Grant, KeyProof, OfferedKey, Verdict};
use innkeeper::name::{AccountName, ConnectionId};
use tempfile::TempDir;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQY6rRKAiY5aonMzQIdAa99zhzUUdiAMXCYxKCmUP9z";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// An accounts file and a gateway's view of it.
struct House {
    file: PathBuf,
    accounts: Accounts,
    _dir: TempDir,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("accounts.toml");
        Self { accounts: Accounts::open(&file).unwrap(), file, _dir: dir }
    }

    fn add(&self, account: &str, new: &NewAccount) {
        edit::add(&self.file, &name(account), new).unwrap();
    }

    async fn password(&self, account: &str, password: &[u8]) -> Option<Grant> {
        granted(self.accounts.password(&attempt(account), password).await.unwrap())
    }

    async fn key(&self, account: &str, key: &str) -> Option<Grant> {
        granted(self.accounts.public_key(&attempt(account), &OfferedKey(key.into()), KeyProof::Verified).await.unwrap())
    }
}

fn name(account: &str) -> AccountName {
    AccountName::parse(account).unwrap()
}

fn attempt(account: &str) -> Attempt {
    Attempt {
        account: name(account),
        connection: ConnectionId::random(),
        remote: "192.0.2.7:51234".parse().unwrap(),
        client_version: "SSH-2.0-OpenSSH_9.6".into(),
    }
}

fn granted(verdict: Verdict) -> Option<Grant> {
    match verdict {
        Verdict::Granted(grant) => Some(*grant),
        Verdict::Denied => None,
    }
}

fn with_password(password: &[u8]) -> NewAccount {
    NewAccount { password: Some(Hash::of(password).unwrap()), ..NewAccount::default() }
}

#[tokio::test]
async fn accounts_come_and_go_while_the_gateway_runs() {
    let house = House::new();
    assert!(house.password("alice", b"secret").await.is_none());
    house.add("alice", &with_password(b"secret"));
    assert_eq!(house.password("alice", b"secret").await.unwrap().workspace.as_str(), "alice");
    edit::set_password(&house.file, &name("alice"), &Hash::of(b"other").unwrap()).unwrap();
    assert!(house.password("alice", b"secret").await.is_none());
    assert!(house.password("alice", b"other").await.is_some());
    assert!(house.password("Alice", b"other").await.is_none());
    edit::add_keys(&house.file, &name("alice"), &[format!("{KEY} a laptop").parse().unwrap()]).unwrap();
    assert!(house.key("alice", KEY).await.is_some());
    assert!(house.key("alice", OTHER).await.is_none());
    assert!(house.key("bob", KEY).await.is_none());
    edit::remove(&house.file, &name("alice")).unwrap();
    assert!(house.password("alice", b"other").await.is_none());
    assert!(house.key("alice", KEY).await.is_none());
}

#[tokio::test]
async fn an_account_without_a_password_is_opened_by_none() {
    let house = House::new();
    let new = NewAccount { keys: vec![KEY.parse().unwrap()], workspace: Some("acme".parse().unwrap()), ..NewAccount::default() };
    house.add("bob@example.org", &new);
    for password in ["", "x", "***", "$argon2id$"] {
        assert!(house.password("bob@example.org", password.as_bytes()).await.is_none());
    }
    let grant = house.key("bob@example.org", KEY).await.unwrap();
    assert_eq!((grant.account.as_str(), grant.workspace.as_str()), ("bob@example.org", "acme"));
}

#[tokio::test]
async fn a_broken_change_locks_nobody_out() {
    let house = House::new();
    house.add("alice", &with_password(b"secret"));
    assert!(house.password("alice", b"secret").await.is_some());
    let good = fs::read(&house.file).unwrap();
    fs::write(&house.file, "[account.mallory").unwrap();
    assert!(house.password("alice", b"secret").await.is_some());
    house.accounts.ready().await.unwrap();
    fs::write(&house.file, good).unwrap();
    assert!(house.password("alice", b"secret").await.is_some());
}

#[tokio::test]
async fn a_password_beyond_the_bound_is_not_hashed() {
    let house = House::new();
    house.add("alice", &with_password(&[b'x'; 1024]));
    assert!(house.password("alice", &[b'x'; 1024]).await.is_some());
    assert!(house.password("alice", &[b'x'; 1025]).await.is_none());
    assert!(house.password("alice", &vec![b'x'; 64 << 20]).await.is_none());
}

#[tokio::test]
async fn many_at_once_are_all_answered() {
    let house = House::new();
    house.add("alice", &with_password(b"secret"));
    let answers = join_all((0..20).map(|n| house.password("alice", if n % 2 == 0 { b"secret" } else { b"wrong!" }))).await;
    assert!(answers.iter().enumerate().all(|(n, answer)| answer.is_some() == (n % 2 == 0)));
}

#[tokio::test]
async fn whether_an_account_exists_cannot_be_seen_from_the_time() {
    let house = House::new();
    house.add("with", &with_password(b"secret"));
    house.add("without", &NewAccount { keys: vec![KEY.parse().unwrap()], ..NewAccount::default() });
    // The least of many is what the work itself takes, whatever else the machine does meanwhile; a busy one needs more of them.
    let mut least = [Duration::MAX; 3];
    for round in 1..=60 {
        for (least, account) in least.iter_mut().zip(["with", "without", "nobody"]) {
            let since = Instant::now();
            assert!(house.password(account, b"wrong").await.is_none());
            *least = (*least).min(since.elapsed());
        }
        let same = |other: Duration| (0.75..1.35).contains(&(other.as_secs_f64() / least[0].as_secs_f64()));
        if round >= 5 && same(least[1]) && same(least[2]) {
            return;
        }
    }
    panic!("wrong password, no password, no account: {least:?}");
}
