//! What the webhook protocol puts on the wire: the question, and the answer parsed into a [`Verdict`].
//!
//! Nothing here does I/O. The answer comes from a trusted service but may be anything: only `success` being literally `true` grants, whatever
//! is not of the protocol is an error, and what is kept is bounded. No value of the answer's environment reaches an error text.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::auth::{Attempt, AuthError, EnvValue, Grant, LimitOverrides, OfferedKey, Permit, Verdict, VolumeLimits};
use crate::name::{AccountName, TemplateName, WorkspaceName, printable};
use crate::units::{Size, Span};

/// The question, as JSON. `metadata`, `environment` and `files` are only sent when not empty, and the gateway has none.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question<'a> {
    remote_address: String,
    connection_id: String,
    client_version: &'a str,
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<&'a str>,
}

/// The answer, as far as it is understood. Other keys, the request's own among them, are ignored; `null` is as good as absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    success: bool,
    #[serde(default)]
    authenticated_username: Option<String>,
    #[serde(default)]
    environment: Option<BTreeMap<String, Variable>>,
    #[serde(default)]
    innkeeper: Option<Extras>,
}

#[derive(Deserialize)]
struct Variable {
    value: String,
    #[serde(default)]
    sensitive: bool,
}

/// What innkeeper adds to the protocol.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Extras {
    workspace: Option<WorkspaceName>,
    template: Option<TemplateName>,
    limits: Option<LimitOverrides>,
    idle_timeout: Option<Span>,
    permit: Option<Permit>,
    message: Option<String>,
    valid_for: Option<Span>,
}

// === impl Question ===

impl<'a> Question<'a> {
    pub(super) fn password(attempt: &'a Attempt, password: &[u8]) -> Self {
        Self { password_base64: Some(BASE64_STANDARD.encode(password)), ..Self::of(attempt) }
    }

    pub(super) fn public_key(attempt: &'a Attempt, key: &'a OfferedKey) -> Self {
        Self { public_key: Some(&key.0), ..Self::of(attempt) }
    }

    fn of(attempt: &'a Attempt) -> Self {
        let mut remote = attempt.remote;
        // A socket that listens on both families shows IPv4 peers as ::ffff:192.0.2.1; services match on the plain form.
        remote.set_ip(remote.ip().to_canonical());
        Self {
            remote_address: remote.to_string(),
            connection_id: attempt.connection.to_string(),
            client_version: &attempt.client_version,
            username: attempt.account.as_str(),
            password_base64: None,
            public_key: None,
        }
    }
}

// === the answer ===

/// The verdict in the body of an answer with status 200. `typed` is who it is about, unless the answer names her otherwise.
pub(super) fn verdict(body: &[u8], typed: &AccountName) -> Result<Verdict, AuthError> {
    // serde would take an array for an object, its elements for the values in order: `[true]` must not grant.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(garbage("not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let answer: Answer = serde_path_to_error::deserialize(&mut json).map_err(|error| garbage_at(&error))?;
    json.end().map_err(|_| garbage("more than one JSON value"))?;
    if !answer.success {
        return Ok(Verdict::Denied);
    }
    let account = match answer.authenticated_username.as_deref() {
        None | Some("") => typed.clone(),
        Some(name) => AccountName::parse(name).map_err(|error| garbage(format!("authenticatedUsername: {error}")))?,
    };
    let extras = answer.innkeeper.unwrap_or_default();
    let plain = Grant::plain(account);
    Ok(Verdict::Granted(Box::new(Grant {
        workspace: extras.workspace.unwrap_or(plain.workspace),
        template: extras.template,
        environment: environment(answer.environment.unwrap_or_default())?,
        limits: limits(extras.limits.unwrap_or_default())?,
        idle_timeout: extras.idle_timeout.map(|span| span.get().min(MAX_IDLE_TIMEOUT)),
        permit: extras.permit.unwrap_or_default(),
        message: message(extras.message)?,
        valid_for: extras.valid_for.and_then(Span::unless_zero),
        account: plain.account,
    })))
}

fn environment(variables: BTreeMap<String, Variable>) -> Result<BTreeMap<String, EnvValue>, AuthError> {
    if variables.len() > MAX_VARIABLES {
        return Err(garbage(format!("environment has more than {MAX_VARIABLES} variables")));
    }
    let mut bytes = 0;
    let mut environment = BTreeMap::new();
    for (name, variable) in variables {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(garbage(format!("environment has the impossible name {:?}", shortened(&name))));
        }
        if variable.value.contains('\0') {
            return Err(garbage(format!("environment.{} contains a NUL byte", shortened(&name))));
        }
        bytes += name.len() + variable.value.len();
        environment.insert(name, EnvValue::new(variable.value, variable.sensitive));
    }
    if bytes > MAX_ENVIRONMENT_BYTES {
        return Err(garbage(format!("environment is larger than {MAX_ENVIRONMENT_BYTES} bytes")));
    }
    Ok(environment)
}

/// Zero and numbers too large for an engine both mean "without limit" to it, and no service means that by them.
fn limits(limits: LimitOverrides) -> Result<LimitOverrides, AuthError> {
    let size = |size: Option<Size>| size.is_none_or(|size| (1..=MAX_SIZE.get()).contains(&size.get()));
    let count = |count: Option<u32>| count.is_none_or(|count| (1..=MAX_COUNT).contains(&count));
    let inodes = |inodes: Option<u64>| inodes.is_none_or(|inodes| (1..=MAX_INODES).contains(&inodes));
    let volume = |volume: &VolumeLimits| size(volume.disk) && inodes(volume.inodes);
    let checks = [
        ("cpus", limits.cpus.is_none_or(|cpus| cpus > 0.0 && cpus <= MAX_CPUS)),
        ("memory", size(limits.memory)),
        ("pids", count(limits.pids)),
        ("disk", size(limits.disk)),
        ("inodes", inodes(limits.inodes)),
        ("sessions", count(limits.sessions)),
        ("volumes", limits.volumes.len() <= MAX_VOLUMES && limits.volumes.values().all(volume)),
    ];
    match checks.iter().find(|(_, fits)| !fits) {
        Some((key, _)) => Err(garbage(format!("innkeeper.limits.{key} is zero or too large"))),
        None => Ok(limits),
    }
}

fn message(message: Option<String>) -> Result<Option<String>, AuthError> {
    match message {
        Some(text) if text.len() > MAX_MESSAGE_BYTES => Err(garbage(format!("innkeeper.message is longer than {MAX_MESSAGE_BYTES} bytes"))),
        message => Ok(message.filter(|text| !text.is_empty())),
    }
}

fn garbage(what: impl Into<String>) -> AuthError {
    AuthError::Garbage(what.into())
}

/// Says where the answer is wrong, and what, unless the parser's words could quote a value that may be a secret.
fn garbage_at(error: &serde_path_to_error::Error<serde_json::Error>) -> AuthError {
    let (path, inner) = (error.path().to_string(), error.inner());
    if !inner.is_data() {
        return garbage(format!("not JSON at line {} column {}", inner.line(), inner.column()));
    }
    if path.starts_with("innkeeper") || path == "success" || path == "authenticatedUsername" {
        return garbage(format!("{}: {}", shortened(&path), shortened(&inner.to_string())));
    }
    if path == "." {
        return garbage("an object without a success key, or with a key twice");
    }
    garbage(format!("{} is not of the form the protocol gives it", shortened(&path)))
}

fn shortened(text: &str) -> String {
    printable(&text.chars().take(MAX_QUOTED_CHARS).collect::<String>())
}

/// Variables in an answer's environment; sshd takes as many from a client.
const MAX_VARIABLES: usize = 128;
/// Bytes of their names and values together: sshd takes as much, and every kernel starts a process with it.
const MAX_ENVIRONMENT_BYTES: usize = 64 << 10;
/// Bytes of the message: more than a terminal shows.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// More CPUs than a host has.
const MAX_CPUS: f64 = 4096.0;
/// More processes, and more sessions, than a kernel has identifiers for (its `PID_MAX_LIMIT`).
const MAX_COUNT: u32 = 1 << 22;
/// More memory, and more disk, than a host has; fits a signed number of bytes.
const MAX_SIZE: Size = Size::gib(1 << 20);
/// More files than a file system of any driver can have.
const MAX_INODES: u64 = u32::MAX as u64;
/// Volumes that an answer limits: more than a template has.
const MAX_VOLUMES: usize = 64;
/// Longest idle time: clocks can still be counted forward by it.
const MAX_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 366 * 86_400);
/// Characters of the answer that an error quotes.
const MAX_QUOTED_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::name::ConnectionId;

    fn parsed(body: &str) -> Result<Verdict, AuthError> {
        verdict(body.as_bytes(), &AccountName::parse("alice").unwrap())
    }

    fn granted(body: &str) -> Grant {
        match parsed(body) {
            Ok(Verdict::Granted(grant)) => *grant,
            other => panic!("{body}: {other:?}"),
        }
    }

    fn refused(body: &str) -> String {
        match parsed(body) {
            Err(AuthError::Garbage(why)) => why,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_question_is_what_the_protocol_says() {
        let attempt = Attempt {
            account: AccountName::parse("ali\"ce").unwrap(),
            connection: ConnectionId::random(),
            remote: "[::ffff:192.0.2.1]:51234".parse().unwrap(),
            client_version: "SSH-2.0-OpenSSH_9.6".into(),
        };
        let mut expected = json!({
            "remoteAddress": "192.0.2.1:51234", "connectionId": attempt.connection.to_string(),
            "clientVersion": "SSH-2.0-OpenSSH_9.6", "username": "ali\"ce", "passwordBase64": "/wA=",
        });
        assert_eq!(serde_json::to_value(Question::password(&attempt, b"\xff\0")).unwrap(), expected);
        let key = OfferedKey("ssh-ed25519 AAAA".into());
        expected.as_object_mut().unwrap().remove("passwordBase64");
        expected["publicKey"] = json!("ssh-ed25519 AAAA");
        assert_eq!(serde_json::to_value(Question::public_key(&attempt, &key)).unwrap(), expected);
        let six = Attempt { remote: "[::1]:51234".parse().unwrap(), ..attempt };
        assert_eq!(Question::of(&six).remote_address, "[::1]:51234");
    }

    #[test]
    fn yes_and_no() {
        let grant = granted(r#"{"success": true}"#);
        assert_eq!((grant.account.as_str(), grant.workspace.as_str()), ("alice", "alice"));
        assert!(grant.permit.forwarding && grant.template.is_none() && grant.valid_for.is_none());
        assert!(matches!(parsed(r#"{"success": false, "authenticatedUsername": "root"}"#), Ok(Verdict::Denied)));
    }

    #[test]
    fn an_answer_of_containersshs_own_library_is_understood() {
        let grant = granted(
            r#"{"remoteAddress":"<nil>:0","connectionId":"","clientVersion":"","username":"","authenticatedUsername":"al",
                "metadata":null,"environment":{"A":{"value":"1","sensitive":false}},"files":{},"success":true}"#,
        );
        assert_eq!((grant.account.as_str(), grant.workspace.as_str()), ("al", "al"));
        assert_eq!(grant.environment["A"].expose(), "1");
        assert_eq!(granted(r#"{"success":true,"authenticatedUsername":"","environment":null}"#).account.as_str(), "alice");
    }

    #[test]
    fn everything_innkeeper_adds_is_carried() {
        let grant = granted(
            r#"{"success": true, "unknown": 1, "environment": {"TOKEN": {"value": "s3cret", "sensitive": true}}, "innkeeper": {
                "workspace": "acme", "template": "python", "unknown": [],
                "limits": {"cpus": 2.5, "memory": "8GiB", "pids": 512, "disk": "50GiB", "inodes": 100000, "sessions": 3,
                    "volumes": {"data": {"disk": "2GiB", "unknown": 1}, "cache": {"inodes": 500}}},
                "idle_timeout": "0s", "permit": {"sftp": false}, "message": "hello", "valid_for": "10m"}}"#,
        );
        assert_eq!((grant.workspace.as_str(), grant.template.unwrap().as_str()), ("acme", "python"));
        assert_eq!((grant.limits.cpus, grant.limits.memory, grant.limits.sessions), (Some(2.5), Some(Size::gib(8)), Some(3)));
        let volume = |name: &str| grant.limits.volumes[&name.parse().unwrap()];
        assert_eq!((volume("data").disk, volume("cache").inodes), (Some(Size::gib(2)), Some(500)));
        assert!(granted(r#"{"success": true, "innkeeper": {"limits": {"volumes": null}}}"#).limits.volumes.is_empty());
        assert_eq!((grant.idle_timeout, grant.valid_for), (Some(Duration::ZERO), Some(Duration::from_secs(600))));
        assert!(!grant.permit.sftp && grant.permit.exec);
        assert_eq!(grant.message.as_deref(), Some("hello"));
        assert_eq!(format!("{:?}", grant.environment["TOKEN"]), "***");
    }

    #[test]
    fn what_is_not_literally_true_never_grants() {
        for body in [
            "",
            "null",
            "true",
            "[true]",
            "{}",
            "{\"success\": true",
            r#"{"success": "true"}"#,
            r#"{"success": 1}"#,
            r#"{"success": null}"#,
            r#"{"Success": true}"#,
            r#"{"success": false, "success": true}"#,
            r#"{"success": true} {"success": true}"#,
            "<html>",
        ] {
            refused(body);
        }
    }

    #[test]
    fn a_wrong_part_of_a_yes_is_garbage_and_says_where() {
        for (body, expect) in [
            (r#"{"success":true,"innkeeper":{"workspace":"../etc"}}"#, "innkeeper.workspace"),
            (r#"{"success":true,"innkeeper":{"template":"A"}}"#, "innkeeper.template"),
            (r#"{"success":true,"innkeeper":{"limits":{"memory":"lots"}}}"#, "innkeeper.limits.memory"),
            (r#"{"success":true,"innkeeper":{"limits":{"memory":"0B"}}}"#, "limits.memory"),
            (r#"{"success":true,"innkeeper":{"limits":{"memory":"8EiB"}}}"#, "limits.memory"),
            (r#"{"success":true,"innkeeper":{"limits":{"cpus":-1}}}"#, "limits.cpus"),
            (r#"{"success":true,"innkeeper":{"limits":{"pids":0}}}"#, "limits.pids"),
            (r#"{"success":true,"innkeeper":{"limits":{"volumes":{"data":{"disk":"0B"}}}}}"#, "limits.volumes"),
            (r#"{"success":true,"innkeeper":{"limits":{"volumes":{"../x":{}}}}}"#, "innkeeper.limits.volumes"),
            (r#"{"success":true,"innkeeper":{"idle_timeout":30}}"#, "innkeeper.idle_timeout"),
            (r#"{"success":true,"innkeeper":{"permit":{"exec":"no"}}}"#, "innkeeper.permit.exec"),
            (r#"{"success":true,"environment":{"A=B":{"value":"x"}}}"#, "A=B"),
            (r#"{"success":true,"environment":{"A":{"value":"a\u0000b"}}}"#, "NUL"),
        ] {
            let why = refused(body);
            assert!(why.contains(expect), "{body}: {why}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let variables = |count: usize, bytes: usize| {
            let environment: BTreeMap<String, _> = (0..count).map(|n| (format!("V{n}"), json!({"value": "x".repeat(bytes)}))).collect();
            json!({"success": true, "environment": environment}).to_string()
        };
        granted(&variables(128, 16));
        refused(&variables(129, 1));
        refused(&variables(2, 40_000));
        refused(&json!({"success": true, "innkeeper": {"message": "x".repeat(5000)}}).to_string());
        refused(&json!({"success": true, "authenticatedUsername": "x".repeat(300)}).to_string());
        granted(&json!({"success": true, "innkeeper": {"idle_timeout": "500000000years"}}).to_string());
    }

    #[test]
    fn an_error_never_quotes_a_value_that_may_be_secret() {
        for body in [
            r#"{"success":true,"environment":{"TOKEN":"s3cret"}}"#,
            r#"{"success":true,"environment":{"TOKEN":{"value":"s3cret","sensitive":"s3cret"}}}"#,
            r#"{"success":true,"environment":"s3cret"}"#,
            r#""s3cret""#,
            r#"{"success":true,"environment":{"TOKEN":{"value":"s3cret\u0000"}}}"#,
        ] {
            assert!(!refused(body).contains("s3cret"), "{body}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_grants(body in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(verdict(&body, &AccountName::parse("a").unwrap()).is_err());
        }

        #[test]
        fn whatever_success_is_only_true_grants(value in "true|false|null|\"true\"|-?[0-9]{1,3}|\\[true\\]|\\{\\}") {
            let granted = matches!(parsed(&format!("{{\"success\":{value}}}")), Ok(Verdict::Granted(_)));
            prop_assert_eq!(granted, value == "true");
        }
    }
}
