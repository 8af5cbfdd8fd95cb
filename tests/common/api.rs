//! Asking the API of a running gateway over its port.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "a test that cannot go on says where")]

use std::process::Command;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Somebody with a token, or without.
pub struct Api {
    port: u16,
    token: Option<String>,
    runtime: Runtime,
    client: Client,
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub text: String,
    pub etag: Option<String>,
    pub replayed: bool,
    pub kind: String,
}

impl Api {
    pub fn new(port: u16, token: Option<&str>) -> Self {
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_secs(120)).build().unwrap();
        Self { port, token: token.map(str::to_owned), runtime: Runtime::new().unwrap(), client }
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("http://127.0.0.1:{}/api/v1{path}", self.port));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request
    }

    /// Only how it is answered, not what: that may never end.
    pub fn status(&self, method: &str, path: &str) -> u16 {
        self.runtime.block_on(async { self.request(method, path, None, &[]).send().await.unwrap().status().as_u16() })
    }

    pub fn ask_with(&self, method: &str, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> Answer {
        self.runtime.block_on(async {
            let answer = self.request(method, path, body, headers).send().await.unwrap();
            let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let (status, etag, replayed) = (answer.status().as_u16(), header("etag"), header("idempotency-replayed").is_some());
            let kind = header("content-type").unwrap_or_default();
            let text = answer.text().await.unwrap();
            Answer { status, body: serde_json::from_str(&text).unwrap_or_default(), text, etag, replayed, kind }
        })
    }

    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask_with(method, path, body, &[])
    }

    /// What is answered, which must be this status.
    #[track_caller]
    pub fn good(&self, status: u16, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        answer.body
    }

    /// The stable word for what is wrong, and that it comes as it should.
    #[track_caller]
    pub fn refused(&self, method: &str, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> String {
        let answer = self.ask_with(method, path, body, headers);
        assert_eq!(answer.kind, "application/problem+json", "{method} {path}: {answer:?}");
        assert_eq!(answer.body["status"], answer.status, "{answer:?}");
        assert!(answer.body["type"].is_string() && answer.body["title"].is_string() && answer.body["detail"].is_string(), "{answer:?}");
        answer.body["code"].as_str().unwrap().to_owned()
    }
}

/// A token that opens this, made by the program.
pub fn token(innkeeper: &mut Command, name: &str, scopes: &[&str]) -> String {
    innkeeper.args(["token", "create", name]);
    for scope in scopes {
        innkeeper.args(["--scope", scope]);
    }
    let output = innkeeper.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
