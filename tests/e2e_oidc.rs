//! Logging in at the dashboard through an OpenID Connect provider.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/browser.rs"]
mod browser;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/venv.rs"]
mod venv;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use browser::ENTER;
use gateway::{Gateway, wait_for};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A provider, at which everybody is who she says.
struct Provider {
    process: Child,
    issuer: String,
    /// What it knows the dashboard by.
    secret: tempfile::NamedTempFile,
}

impl Provider {
    fn start(people: &[Value]) -> Self {
        let python = venv::python("oidc", &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/oidc.txt"));
        // It cannot be handed a socket: a port that was free a moment ago is, but for bad luck, free still.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(python);
        command.args(["-m", "oidc_provider_mock", "--host", "127.0.0.1", "--port", &port.to_string(), "--require-nonce", "true"]);
        for person in people {
            command.args(["--user-claims", &person.to_string()]);
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "any will do\n").unwrap();
        let provider = Self { process, issuer: format!("http://127.0.0.1:{port}"), secret };
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the provider did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        provider
    }

    fn stop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a browser does, step by step.
struct Browser {
    runtime: Runtime,
    client: Client,
    base: String,
}

/// How a login ended: what the page goes on to, and the cookie of a session if there is one.
#[derive(Debug)]
struct Ended {
    onwards: String,
    session: Option<String>,
}

impl Browser {
    fn new(gateway: &Gateway) -> Self {
        let client = Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60));
        Self { runtime: Runtime::new().unwrap(), client: client.build().unwrap(), base: format!("http://127.0.0.1:{}", gateway.http_port) }
    }

    fn get(&self, url: &str, cookie: Option<&str>) -> Response {
        let mut request = self.client.get(url);
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        self.runtime.block_on(async { request.send().await }).unwrap()
    }

    fn text(&self, response: Response) -> String {
        self.runtime.block_on(response.text()).unwrap()
    }

    fn json(&self, response: Response) -> Value {
        serde_json::from_str(&self.text(response)).unwrap()
    }

    /// Goes to the provider: the address there, and the cookie that was left.
    fn begin(&self) -> (String, String) {
        let response = self.get(&format!("{}/dashboard/oidc", self.base), None);
        assert_eq!(response.status(), 303);
        let location = response.headers()[LOCATION].to_str().unwrap().to_owned();
        (location, cookie(&response, "innkeeper-login").unwrap())
    }

    /// Shows the provider who she is; the address at which it sends her back, at this gateway.
    fn at_provider(&self, location: &str, form: &[(&str, &str)]) -> String {
        let request = self.client.post(location).header("content-type", "application/x-www-form-urlencoded").body(encoded(form));
        let response = self.runtime.block_on(async { request.send().await }).unwrap();
        let back = response.headers()[LOCATION].to_str().unwrap().to_owned();
        // The gateway's port is chosen when it starts, and so its address is not what the configuration says.
        assert!(back.starts_with("http://localhost:1/dashboard/oidc/callback?"), "{back}");
        back.replacen("http://localhost:1", &self.base, 1)
    }

    fn come_back(&self, url: &str, cookie_sent: Option<&str>) -> Ended {
        let response = self.get(url, cookie_sent);
        assert_eq!(response.status(), 200, "{url}");
        assert_eq!(response.headers()["content-security-policy"].to_str().unwrap().split(';').next(), Some("default-src 'none'"));
        let session = cookie(&response, "innkeeper-session");
        let text = self.text(response);
        let onwards = text.split_once("0;url=").unwrap().1.split('"').next().unwrap().to_owned();
        Ended { onwards, session }
    }

    fn log_in(&self, sub: &str) -> Ended {
        let (location, login) = self.begin();
        let back = self.at_provider(&location, &[("sub", sub)]);
        self.come_back(&back, Some(&login))
    }
}

fn encoded(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

/// A cookie as a browser sends it back.
fn cookie(response: &Response, name: &str) -> Option<String> {
    let all = response.headers().get_all(SET_COOKIE).into_iter().map(|line| line.to_str().unwrap());
    let pair = all.filter_map(|line| line.split(';').next()).find(|pair| pair.starts_with(&format!("{name}=")))?;
    (!pair.ends_with('=')).then(|| pair.to_owned())
}

fn people() -> Vec<Value> {
    let person = |sub: &str, verified: bool, groups: &[&str]| json!({ "sub": sub, "email": format!("{sub}@example.org"), "email_verified": verified, "groups": groups });
    vec![person("ann", true, &[]), person("ben", true, &["staff"]), person("cat", true, &["others"]), person("dan", false, &["staff"])]
}

/// What the configuration says where browsers find the gateway at this port.
fn sections(provider: &Provider, port: u16) -> String {
    format!(
        "[http.oidc]\nissuer = \"{}\"\nclient_id = \"innkeeper\"\nclient_secret_file = \"{}\"\n\
         public_url = \"http://localhost:{port}/\"\nlabel = \"Log in at work\"\n\
         admins = [\"ann@example.org\", \"dan@example.org\"]\nreader_groups = [\"staff\"]\n",
        provider.issuer,
        provider.secret.path().display()
    )
}

#[test]
fn whoever_the_provider_vouches_for_has_what_the_configuration_gives_her() {
    let provider = Provider::start(&people());
    let gateway = Gateway::start(&sections(&provider, 1));
    let browser = Browser::new(&gateway);
    let ways = browser.json(browser.get(&format!("{}/dashboard/ways", browser.base), None));
    assert_eq!(ways, json!({ "oidc": "Log in at work" }));

    let (location, _) = browser.begin();
    for asked in ["response_type=code", "code_challenge_method=S256", "state=", "nonce=", "scope=openid+email+profile"] {
        assert!(location.contains(asked), "{asked}: {location}");
    }

    for (sub, name, scopes) in [("ann", "ann@example.org", json!(["admin"])), ("ben", "ben@example.org", json!(["read"]))] {
        let ended = browser.log_in(sub);
        assert_eq!(ended.onwards, "/dashboard/");
        let session = ended.session.unwrap();
        let seen = browser.json(browser.get(&format!("{}/dashboard/session", browser.base), Some(&session)));
        assert_eq!((&seen["name"], &seen["scopes"]), (&json!(name), &scopes));
        let listed = browser.get(&format!("{}/api/v1/workspaces", browser.base), Some(&session));
        assert_eq!(listed.status(), 200);
        let tokens = browser.get(&format!("{}/api/v1/tokens", browser.base), Some(&session));
        assert_eq!(tokens.status(), if sub == "ann" { 200 } else { 403 });
    }
    for (sub, onwards) in [("cat", "/dashboard/#login-not-permitted"), ("dan", "/dashboard/#login-broken")] {
        let ended = browser.log_in(sub);
        assert_eq!((ended.onwards.as_str(), ended.session), (onwards, None), "{sub}");
    }
    for actor in ["ann@example.org", "ben@example.org", "cat@example.org"] {
        gateway.trail(&[], |shown| shown.lines().any(|line| line.contains("log in") && line.contains(actor)));
    }
}

#[test]
fn what_did_not_begin_in_this_browser_or_was_refused_opens_nothing() {
    let mut provider = Provider::start(&people());
    let gateway = Gateway::start(&sections(&provider, 1));
    let browser = Browser::new(&gateway);
    let refused =
        |ended: &Ended, why: &str| assert!(ended.onwards == format!("/dashboard/#login-{why}") && ended.session.is_none(), "{ended:?}");

    // Another's way back, followed by somebody who has begun none, or one of her own.
    let (location, login) = browser.begin();
    let back = browser.at_provider(&location, &[("sub", "ann")]);
    refused(&browser.come_back(&back, None), "expired");
    let (_, other) = browser.begin();
    refused(&browser.come_back(&back, Some(&other)), "expired");
    // The one it is for.
    assert!(browser.come_back(&back, Some(&login)).session.is_some());
    // Again: the code was for one use.
    refused(&browser.come_back(&back, Some(&login)), "broken");

    // A code of one login in the answer of another.
    let (location, login) = browser.begin();
    let state = location.split("state=").nth(1).unwrap().split('&').next().unwrap();
    let (others, _) = browser.begin();
    let stolen = browser.at_provider(&others, &[("sub", "ann")]);
    let code = stolen.split("code=").nth(1).unwrap().split('&').next().unwrap();
    let mixed = format!("{}/dashboard/oidc/callback?code={code}&state={state}", browser.base);
    refused(&browser.come_back(&mixed, Some(&login)), "broken");

    let (location, login) = browser.begin();
    let state = location.split("state=").nth(1).unwrap().split('&').next().unwrap();
    let denied = format!("{}/dashboard/oidc/callback?error=access_denied&error_description=%3Cscript%3E&state={state}", browser.base);
    refused(&browser.come_back(&denied, Some(&login)), "denied");

    // The provider is gone: on the way back, and before.
    let (location, login) = browser.begin();
    let back = browser.at_provider(&location, &[("sub", "ann")]);
    provider.stop();
    refused(&browser.come_back(&back, Some(&login)), "broken");
}

#[test]
fn a_provider_that_is_not_there_is_said_and_tokens_still_open() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gateway = Gateway::start(&format!(
        "[http.oidc]\nissuer = \"http://127.0.0.1:{free}\"\nclient_id = \"innkeeper\"\npublic_url = \"http://localhost:1\"\nadmins = [\"ann@example.org\"]\n"
    ));
    let browser = Browser::new(&gateway);
    let response = browser.get(&format!("{}/dashboard/oidc", browser.base), None);
    assert!(browser.text(response).contains("/dashboard/#login-broken"));
    wait_for("the log", || gateway.log().contains("cannot begin a login at the dashboard"));
}

#[test]
fn a_real_browser_goes_there_and_comes_back_logged_in() {
    let provider = Provider::start(&people());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gateway = Gateway::start(&format!("[http]\nlisten = \"127.0.0.1:{port}\"\n{}", sections(&provider, port)));
    assert_eq!(gateway.http_port, port);
    let browser = browser::Browser::open(1280, 860);
    let go = || {
        browser.go(&format!("http://localhost:{port}/dashboard/"));
        browser.wait_text(".login-elsewhere a", "Log in at work");
        browser.tab_to("Log in at work");
        browser.keys(ENTER);
        browser.wait("document.getElementsByName('sub').length > 0");
    };
    let press = |name: &str| {
        browser.run("[...document.querySelectorAll('button')].find((it) => it.value === arguments[0]).click()", &[json!(name)])
    };
    go();
    press("cat");
    browser.wait_text(".login-said", "nothing is open to you");
    go();
    press("ben");
    browser.wait_text("main h1", "Overview");
    assert_eq!(browser.text(".who-name"), "ben@example.org");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let session = browser.cookies().into_iter().find(|cookie| cookie["name"] == "innkeeper-session").unwrap();
    assert_eq!((&session["httpOnly"], &session["sameSite"]), (&json!(true), &json!("Strict")));
    assert!(!browser.cookies().iter().any(|cookie| cookie["name"] == "innkeeper-login"));
    // She looks on, and the pages offer nothing else.
    assert!(!browser.text("nav").contains("New"));
    browser.run("[...document.querySelectorAll('button')].find((it) => it.textContent === 'Log out').click()", &[]);
    browser.wait_text(".login-elsewhere a", "Log in at work");
}
