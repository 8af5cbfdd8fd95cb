//! The webhook against services that misbehave, and against one that does not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/service.rs"]
mod service;

use std::time::Duration;

use futures_util::future::join_all;
use innkeeper::auth::webhook::Webhook;
use innkeeper::auth::{Attempt, AuthError, Authenticator, KeyProof, OfferedKey, Verdict, WebhookConfig};
use innkeeper::name::{AccountName, ConnectionId};
use innkeeper::units::Span;
use tokio::time::Instant;

use self::service::{Reply, Service, Tls};

const YES: &str = r#"{"success": true}"#;
const NO: &str = r#"{"success": false}"#;

fn config(url: &str) -> WebhookConfig {
    WebhookConfig { url: url.to_owned(), timeout: Span::secs(20), ..WebhookConfig::default() }
}

/// Tries until long after everything here has been answered.
fn patient(service: &Service) -> Webhook {
    Webhook::new(&config(&service.url), Duration::from_secs(60)).unwrap()
}

/// Has time for a second try. One that hangs is given up after `timeout`.
fn impatient(url: &str, timeout: Span) -> Webhook {
    Webhook::new(&WebhookConfig { timeout, ..config(url) }, Duration::from_secs(2)).unwrap()
}

fn attempt(account: &str) -> Attempt {
    Attempt {
        account: AccountName::parse(account).unwrap(),
        connection: ConnectionId::random(),
        remote: "192.0.2.7:51234".parse().unwrap(),
        client_version: "SSH-2.0-OpenSSH_9.6".into(),
    }
}

async fn password(webhook: &Webhook) -> Result<bool, AuthError> {
    webhook.password(&attempt("alice"), b"secret").await.map(|verdict| matches!(verdict, Verdict::Granted(_)))
}

async fn key(webhook: &Webhook, account: &str, proof: KeyProof) -> Result<bool, AuthError> {
    let verdict = webhook.public_key(&attempt(account), &OfferedKey("ssh-ed25519 AAAA".into()), proof).await;
    verdict.map(|verdict| matches!(verdict, Verdict::Granted(_)))
}

/// What goes wrong on each try is what is answered in the end.
async fn check(reply: Reply, outcome: &str) {
    let shown = format!("{reply:?}");
    let timeout = if matches!(reply, Reply::Hang | Reply::Drip) { Span::millis(300) } else { Span::secs(20) };
    let service = Service::start(move |_| reply.clone()).await;
    let error = password(&impatient(&service.url, timeout)).await.expect_err(&shown);
    assert_eq!(error.label(), outcome, "{shown}: {error:?}");
    assert!(service.requests().len() > 1, "{shown}: was not tried again");
}

#[tokio::test]
async fn one_connection_serves_many_questions() {
    let service = Service::start(|number| Reply::json(if number % 2 == 0 { YES } else { NO })).await;
    let config = WebhookConfig { token: Some("t0ken".into()), ..config(&service.url) };
    let webhook = Webhook::new(&config, Duration::from_secs(60)).unwrap();
    for number in 0..10 {
        assert_eq!(password(&webhook).await.unwrap(), number % 2 == 0);
    }
    assert!(key(&webhook, "alice", KeyProof::Verified).await.unwrap());
    assert_eq!(service.connections(), 1);

    let requests = service.requests();
    assert!(requests[0].head.starts_with("POST /ssh/password HTTP/1.1\r\n"), "{}", requests[0].head);
    assert!(requests[10].head.starts_with("POST /ssh/pubkey HTTP/1.1\r\n"), "{}", requests[10].head);
    for request in &requests {
        assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("accept"), Some("application/json"));
    }
    let body: serde_json::Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(body["passwordBase64"], "c2VjcmV0");
    assert_eq!(body["remoteAddress"], "192.0.2.7:51234");
    assert_eq!(body["connectionId"].as_str().unwrap().len(), 32);
}

#[tokio::test]
async fn many_at_once_are_all_answered() {
    let service = Service::start(|_| Reply::json(YES)).await;
    let webhook = patient(&service);
    let answers = join_all((0..100).map(|_| password(&webhook))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap()));
}

#[tokio::test]
async fn a_status_that_is_no_verdict() {
    join_all([201, 204, 404, 429, 500, 502, 503].map(|status| check(Reply::status(status, YES), "bad_status"))).await;
    for status in [401, 403] {
        let service = Service::start(move |_| Reply::status(status, YES)).await;
        assert!(!password(&patient(&service)).await.unwrap());
        assert_eq!(service.requests().len(), 1, "a final no is not asked again");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Service::start(|_| Reply::json(YES)).await;
    join_all([301, 302, 303, 307, 308].map(|status| check(Reply::redirect(status, &elsewhere.url), "bad_status"))).await;
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn garbage_never_grants() {
    let bodies = ["", "true", "[true]", "<html>", r#"{"success":"true"}"#, r#"{"success":1}"#, r#"{"success":true"#, "\u{feff}{}"];
    join_all(bodies.map(|body| check(Reply::json(body), "garbage"))).await;
    check(Reply::Bytes(b"SSH-2.0-OpenSSH_9.6\r\n".repeat(100)), "garbage").await;
}

#[tokio::test]
async fn an_answer_too_large_is_not_read_to_its_end() {
    check(Reply::declared(1 << 30), "too_large").await;
    let service = Service::start(|number| if number == 0 { Reply::Endless } else { Reply::json(NO) }).await;
    assert!(!password(&patient(&service)).await.unwrap());
    // What was sent beyond the bound is what the sockets' buffers took.
    assert!(service.ended_after().await < 32 << 20);
}

#[tokio::test]
async fn a_connection_that_breaks() {
    join_all([Reply::Close, Reply::cut_short(YES)].map(|reply| check(reply, "unreachable"))).await;
}

#[tokio::test]
async fn a_service_that_is_slow_is_given_up_in_time() {
    let since = Instant::now();
    join_all([Reply::Hang, Reply::Drip].map(|reply| check(reply, "timeout"))).await;
    assert!(since.elapsed() < Duration::from_secs(10), "took {:?}", since.elapsed());
}

#[tokio::test]
async fn a_service_that_is_down() {
    // Held, and nobody listens: what is given up may be another test's the next moment.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/", held.local_addr().unwrap());
    let webhook = impatient(&url, Span::secs(20));
    let error = password(&webhook).await.unwrap_err();
    assert!(matches!(&error, AuthError::Unreachable(why) if why.contains("refused")), "{error:?}");
    assert!(matches!(webhook.ready().await, Err(AuthError::Unreachable(_))));
}

#[tokio::test]
async fn a_service_that_comes_back_answers_the_same_login() {
    let service = Service::start(|number| match number {
        0 => Reply::Close,
        1 => Reply::status(502, "bad gateway"),
        2 => Reply::json("garbage"),
        _ => Reply::json(YES),
    })
    .await;
    assert!(password(&patient(&service)).await.unwrap());
    assert_eq!(service.requests().len(), 4);
}

#[tokio::test]
async fn an_idle_connection_that_the_service_closed_costs_no_login() {
    let service = Service::start(|_| Reply::last(YES)).await;
    let webhook = patient(&service);
    for _ in 0..20 {
        assert!(password(&webhook).await.unwrap());
    }
}

#[tokio::test]
async fn any_answer_at_all_is_ready() {
    for status in [200, 302, 401, 404, 500] {
        let service = Service::start(move |_| Reply::status(status, "")).await;
        patient(&service).ready().await.unwrap();
    }
    let hangs = Service::start(|_| Reply::Hang).await;
    assert!(matches!(impatient(&hangs.url, Span::millis(100)).ready().await, Err(AuthError::TimedOut)));
}

#[tokio::test]
async fn only_a_verified_keys_verdict_is_remembered() {
    let remember = r#"{"success": true, "innkeeper": {"valid_for": "10m"}}"#;
    let service = Service::start(move |_| Reply::json(remember)).await;
    let webhook = patient(&service);
    let asked = |expect: usize| assert_eq!(service.requests().len(), expect);
    for number in 1..=3 {
        assert!(key(&webhook, "alice", KeyProof::Offered).await.unwrap());
        asked(number);
    }
    for _ in 0..3 {
        assert!(key(&webhook, "alice", KeyProof::Verified).await.unwrap());
        assert!(key(&webhook, "alice", KeyProof::Offered).await.unwrap());
        asked(4);
    }
    assert!(key(&webhook, "bob", KeyProof::Verified).await.unwrap());
    asked(5);
    for number in 6..=8 {
        assert!(password(&webhook).await.unwrap());
        asked(number);
    }
}

#[tokio::test]
async fn a_no_and_a_yes_without_valid_for_are_asked_again() {
    let service = Service::start(|number| Reply::json([NO, YES, YES][number % 3])).await;
    let webhook = patient(&service);
    assert!(!key(&webhook, "alice", KeyProof::Verified).await.unwrap());
    assert!(key(&webhook, "alice", KeyProof::Verified).await.unwrap());
    assert!(key(&webhook, "alice", KeyProof::Verified).await.unwrap());
    assert_eq!(service.requests().len(), 3);
}

#[tokio::test]
async fn both_sides_prove_themselves_with_certificates() {
    let tls = Tls::new();
    let service = Service::start_tls(&tls, |_| Reply::json(YES)).await;
    let asking = |ca: &str, identity: Option<&str>| {
        let config = WebhookConfig {
            ca_file: Some(tls.file(ca)),
            client_cert_file: identity.map(|name| tls.file(&format!("{name}.crt"))),
            client_key_file: identity.map(|name| tls.file(&format!("{name}.key"))),
            ..config(&service.url)
        };
        Webhook::new(&config, Duration::from_secs(2)).unwrap()
    };
    let good = asking("ca.crt", Some("client"));
    assert!(password(&good).await.unwrap());
    good.ready().await.unwrap();
    assert_eq!(service.requests()[0].header("authorization"), None);
    assert_eq!(service.connections(), 1);
    for (what, webhook) in [
        ("no client certificate", asking("ca.crt", None)),
        ("a client certificate of another authority", asking("ca.crt", Some("stranger"))),
        ("a server of another authority", asking("stranger.crt", Some("client"))),
    ] {
        let answer = password(&webhook).await;
        assert!(matches!(answer, Err(AuthError::Unreachable(_))), "{what}: {answer:?}");
        assert!(webhook.ready().await.is_err(), "{what}");
    }
}
