//! The webhook against a real Django, with Django's own user table.

#![allow(clippy::unwrap_used)]

#[path = "common/django.rs"]
mod django;

use std::time::Duration;

use innkeeper::auth::webhook::Webhook;
use innkeeper::auth::{Attempt, AuthError, Authenticator, Grant, KeyProof, OfferedKey, Verdict, WebhookConfig};
use innkeeper::name::{AccountName, ConnectionId};
use innkeeper::units::{Size, Span};

use self::django::Django;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQY6rRKAiY5aonMzQIdAa99zhzUUdiAMXCYxKCmUP9z";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn webhook(django: &Django, token: &str) -> Webhook {
    // A host that builds and tests beside it may be slow; nothing here is about time.
    let config = WebhookConfig { url: django.url(), token: Some(token.into()), timeout: Span::secs(30), ..WebhookConfig::default() };
    Webhook::new(&config, Duration::from_secs(60)).unwrap()
}

fn attempt(account: &str) -> Attempt {
    Attempt {
        account: AccountName::parse(account).unwrap(),
        connection: ConnectionId::random(),
        remote: "[2001:db8::1]:51234".parse().unwrap(),
        client_version: "SSH-2.0-OpenSSH_9.6".into(),
    }
}

async fn password(webhook: &Webhook, account: &str, password: &str) -> Option<Grant> {
    granted(webhook.password(&attempt(account), password.as_bytes()).await)
}

async fn key(webhook: &Webhook, account: &str, key: &str) -> Option<Grant> {
    let offered = granted(webhook.public_key(&attempt(account), &OfferedKey(key.into()), KeyProof::Offered).await);
    let verified = granted(webhook.public_key(&attempt(account), &OfferedKey(key.into()), KeyProof::Verified).await);
    assert_eq!(offered.is_some(), verified.is_some());
    verified
}

fn granted(answer: Result<Verdict, AuthError>) -> Option<Grant> {
    match answer.unwrap() {
        Verdict::Granted(grant) => Some(*grant),
        Verdict::Denied => None,
    }
}

#[tokio::test]
async fn users_of_a_django_site_log_in() {
    let django = Django::start();
    django.add_user("alice", "correct horse");
    django.add_key("alice", &format!("{KEY} alice@laptop"));
    django.manage(&["addsshuser", "gone", "--password-stdin", "--inactive", "--key", OTHER], "correct horse");
    let limits = r#"{"cpus": 1.5, "memory": "512MiB"}"#;
    django.manage(&["addsshuser", "bob", "--key", OTHER, "--workspace", "acme", "--template", "python", "--limits", limits], "");

    let webhook = webhook(&django, django.token());
    webhook.ready().await.unwrap();
    let grant = password(&webhook, "alice", "correct horse").await.unwrap();
    assert_eq!((grant.account.as_str(), grant.workspace.as_str()), ("alice", "alice"));
    assert!(password(&webhook, "alice", "wrong").await.is_none());
    assert!(password(&webhook, "nobody", "correct horse").await.is_none());
    assert!(password(&webhook, "al\0ice\u{202e}", "correct horse").await.is_none());
    assert!(password(&webhook, "bob", "").await.is_none(), "without a password none fits");
    assert!(password(&webhook, "gone", "correct horse").await.is_none());

    assert!(key(&webhook, "alice", KEY).await.is_some());
    assert!(key(&webhook, "alice", OTHER).await.is_none());
    assert!(key(&webhook, "nobody", KEY).await.is_none());
    assert!(key(&webhook, "gone", OTHER).await.is_none());
    let grant = key(&webhook, "bob", OTHER).await.unwrap();
    assert_eq!((grant.workspace.as_str(), grant.template.unwrap().as_str()), ("acme", "python"));
    assert_eq!((grant.limits.cpus, grant.limits.memory, grant.limits.pids), (Some(1.5), Some(Size::mib(512)), None));
}

#[tokio::test]
async fn a_gateway_with_a_wrong_token_gets_nobody_in() {
    let django = Django::start();
    django.add_user("alice", "correct horse");
    assert!(password(&webhook(&django, "wrong"), "alice", "correct horse").await.is_none());
    assert!(password(&webhook(&django, django.token()), "alice", "correct horse").await.is_some());
}

#[test]
fn the_example_passes_its_own_tests() {
    Django::start().manage(&["test", "--verbosity", "0"], "");
}
