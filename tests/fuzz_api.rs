//! The API, fuzzed from its own description: nothing that anybody sends is answered with an error of the server's or ends a task.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/venv.rs"]
mod venv;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use api::{Api, token};
use gateway::{Gateway, finish, template};

/// Few places, so that no example fills the host; deleted workspaces go at once.
const SETTINGS: &str = "\n[limits]\ncontainers = 6\n[home]\ndeleted_keep = \"0s\"\n";

fn fuzz(gateway: &Gateway, token: Option<&str>, examples: u32) {
    let python = venv::python("schemathesis", Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/schemathesis.txt")));
    let config = gateway.dir.path().join("schemathesis.toml");
    let header = token.map_or_else(String::new, |token| format!("[headers]\nAuthorization = \"Bearer {token}\"\n"));
    std::fs::write(&config, header).unwrap();
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command.current_dir(gateway.dir.path()).arg("--config-file").arg(&config).arg("--no-color").arg("run");
    command.arg(format!("http://127.0.0.1:{}/api/v1/openapi.json", gateway.http_port));
    command.args([
        "--checks",
        "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance",
        "--phases",
        "examples,coverage,fuzzing",
        "--seed",
        "1",
    ]);
    // They keep it from hearing the feed for ever, and from revoking the token that it has.
    command.env("SCHEMATHESIS_HOOKS", "schemathesis_hooks").env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common"));
    command.args(["--request-timeout", "60", "--max-examples", &examples.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = finish(command.spawn().unwrap(), Duration::from_secs(900));
    assert_eq!(done.status, Some(0), "{}\n{}", done.text(), done.stderr);
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[test]
fn an_administrator_who_sends_anything_breaks_nothing() {
    let gateway = Gateway::start(&format!("{}{SETTINGS}", template("")));
    let value = token(&mut gateway.innkeeper(), "for-the-fuzzer-alone", &["admin"]);
    fuzz(&gateway, Some(&value), 15);
    let admin = Api::new(gateway.http_port, Some(&value));
    let made = admin.good(200, "GET", "/workspaces", None)["items"].as_array().unwrap().len();
    assert!(made > 0, "what it sent was not even understood");
    assert_eq!(gateway.get("/healthz").0, 200);
}

#[test]
fn somebody_without_a_token_changes_nothing() {
    let gateway = Gateway::start(&format!("{}{SETTINGS}", template("")));
    let admin = Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "onlooker", &["admin"])));
    let all = || ["/workspaces", "/accounts", "/pool", "/config"].map(|path| admin.good(200, "GET", path, None));
    let before = all();
    fuzz(&gateway, None, 5);
    assert_eq!(all(), before);
    assert_eq!(gateway.containers(), []);
}
