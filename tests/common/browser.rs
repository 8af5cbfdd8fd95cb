//! A real browser: Chromium without a window, driven over WebDriver.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "a test that cannot go on says where")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// How long a page may take to be as wanted.
const DEADLINE: Duration = Duration::from_secs(40);

pub const ENTER: &str = "\u{e007}";
pub const TAB: &str = "\u{e004}";
pub const ESCAPE: &str = "\u{e00c}";
pub const SPACE: &str = " ";
pub const BACKSPACE: &str = "\u{e003}";

/// A browser with one page, which is closed when this is dropped.
pub struct Browser {
    driver: Child,
    base: String,
    runtime: Runtime,
    client: Client,
    /// What it leaves lying about.
    _dir: tempfile::TempDir,
}

impl Browser {
    /// Opens one whose window is so wide and high. Every name below `test` is this machine to it.
    pub fn open(width: u32, height: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("c").tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 =
            lines.find_map(|line| line.unwrap().split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()).unwrap();
        // It goes on to speak, and must not be held up by it.
        std::thread::spawn(move || lines.for_each(drop));
        let client = Client::builder().no_proxy().timeout(DEADLINE * 2).build().unwrap();
        let mut browser = Self { driver, base: format!("http://127.0.0.1:{port}"), runtime: Runtime::new().unwrap(), client, _dir: dir };
        let size = format!("--window-size={width},{height}");
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-proxy-server",
            "--force-color-profile=srgb",
            "--host-resolver-rules=MAP *.test 127.0.0.1",
            size,
        ]);
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.ask("POST", "/session", Some(wanted))["sessionId"].as_str().unwrap().to_owned();
        browser.base += &format!("/session/{session}");
        browser
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        self.tried(method, path, body).unwrap_or_else(|why| panic!("{method} {path}: {why}"))
    }

    fn tried(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, String> {
        self.runtime.block_on(async {
            let mut request = self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", self.base));
            if let Some(body) = body {
                request = request.json(&body);
            }
            let answer = request.send().await.unwrap();
            let good = answer.status().is_success();
            let mut body: Value = answer.json().await.unwrap();
            if good { Ok(body["value"].take()) } else { Err(body["value"].to_string().chars().take(600).collect()) }
        })
    }

    pub fn go(&self, url: &str) {
        self.ask("POST", "/url", Some(json!({ "url": url })));
    }

    /// Loads the page again.
    pub fn reload(&self) {
        self.ask("POST", "/refresh", Some(json!({})));
    }

    /// Presses what a selector finds with the pointer: it has to be in sight, and nothing over it.
    pub fn click(&self, selector: &str) {
        let found = self.ask("POST", "/element", Some(json!({ "using": "css selector", "value": selector })));
        let element = found.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        self.ask("POST", &format!("/element/{element}/click"), Some(json!({})));
    }

    /// Presses with the pointer what has this text, or is called so: in the dialog that is open, or on the page. Waits until it is there and
    /// nothing lies over it.
    #[track_caller]
    pub fn press(&self, name: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let scope = self.run("return document.querySelector('dialog[open]') ? '//dialog[@open]' : '//body'", &[]);
            let which = format!(
                "{}//*[self::button or self::a][not(@disabled)][normalize-space()=\"{name}\" or @aria-label=\"{name}\"]",
                scope.as_str().unwrap()
            );
            let pressed = self.tried("POST", "/element", Some(json!({ "using": "xpath", "value": which }))).and_then(|found| {
                let element = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
                // To where neither the head of the page nor a word at its edge is.
                let scroll = json!({ "script": "arguments[0].scrollIntoView({ block: 'center' })", "args": [found] });
                self.tried("POST", "/execute/sync", Some(scroll))?;
                self.tried("POST", &format!("/element/{element}/click"), Some(json!({})))
            });
            match pressed {
                Ok(_) => return,
                Err(why) => assert!(Instant::now() < deadline, "cannot press {name}: {why}\n{}", self.text("body")),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has a field hold this, as a person puts it there.
    #[track_caller]
    pub fn set(&self, selector: &str, value: &str) {
        const PUT: &str = "const [at, value] = arguments; const it = document.querySelector(at); it.focus();
            if (it.tagName === 'INPUT' && !['datetime-local', 'range', 'checkbox'].includes(it.type) || it.tagName === 'TEXTAREA') { it.select(); return true; }
            it.value = value; for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind, { bubbles: true })); return false;";
        self.wait(&format!("!!document.querySelector({})", json!(selector)));
        if self.run(PUT, &[json!(selector), json!(value)]) == true {
            self.keys(if value.is_empty() { BACKSPACE } else { value });
        }
    }

    /// The tab that is driven now.
    pub fn tab(&self) -> Value {
        self.ask("GET", "/window", None)
    }

    /// Waits until there is a tab beside this one, and goes to it.
    pub fn to_new_tab(&self) {
        let (here, deadline) = (self.tab(), Instant::now() + DEADLINE);
        loop {
            let tabs = self.ask("GET", "/window/handles", None);
            if let Some(other) = tabs.as_array().unwrap().iter().find(|tab| **tab != here) {
                return self.to_tab(other);
            }
            assert!(Instant::now() < deadline, "there is no other tab");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Goes to a tab, and has it be in front.
    pub fn to_tab(&self, tab: &Value) {
        self.ask("POST", "/window", Some(json!({ "handle": tab })));
        self.command("Page.bringToFront", json!({}));
    }

    /// What a script of this function body returns; `arguments` are its arguments.
    pub fn run(&self, script: &str, arguments: &[Value]) -> Value {
        self.ask("POST", "/execute/sync", Some(json!({ "script": script, "args": arguments })))
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn wait(&self, expression: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let value = self.tried("POST", "/execute/sync", Some(json!({ "script": format!("return {expression}"), "args": [] })));
            match value {
                Ok(value) if !matches!(value, Value::Null | Value::Bool(false)) => return value,
                other => assert!(
                    Instant::now() < deadline,
                    "waited in vain for {expression}: {other:?}\n{}\n{}",
                    self.text("body"),
                    self.ask("POST", "/se/log", Some(json!({ "type": "browser" })))
                ),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The text of what a selector finds, as it is seen; empty: there is nothing.
    pub fn text(&self, selector: &str) -> String {
        let found = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", &[json!(selector)]);
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until what a selector finds has this text in it.
    #[track_caller]
    pub fn wait_text(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.wait(&format!("!!document.querySelector({selector})?.innerText.includes({text})"));
    }

    /// Types into whatever has the focus.
    pub fn keys(&self, text: &str) {
        let strokes: Vec<Value> = text
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key.to_string() }), json!({ "type": "keyUp", "value": key.to_string() })])
            .collect();
        self.ask("POST", "/actions", Some(json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] })));
    }

    /// Presses Tab until what has the focus is called so: by its text, its label, its name.
    #[track_caller]
    pub fn tab_to(&self, name: &str) {
        const FOCUSED: &str = "const it = document.activeElement; return [it.innerText, it.ariaLabel, it.name, it.labels?.[0]?.innerText].map((one) => (one ?? '').trim())";
        let mut passed = Vec::new();
        for _ in 0..80 {
            self.keys(TAB);
            let focused = self.run(FOCUSED, &[]);
            if focused.as_array().unwrap().iter().any(|one| one == name) {
                return;
            }
            passed.push(focused);
        }
        panic!("no way to {name} by Tab: {passed:?}");
    }

    /// What the console has said since the last look that a page of ours should not give cause for. Answers of the gateway that are refusals
    /// are told there too, and are none of that.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.ask("POST", "/se/log", Some(json!({ "type": "browser" })));
        let bad = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")) && entry["source"] != "network";
        entries.as_array().unwrap().iter().filter(bad).map(Value::to_string).collect()
    }

    /// A command of Chromium's own protocol.
    pub fn command(&self, name: &str, parameters: Value) -> Value {
        self.ask("POST", "/goog/cdp/execute", Some(json!({ "cmd": name, "params": parameters })))
    }

    /// Has the page be as wide and high, as on a phone.
    pub fn resize(&self, width: u32, height: u32, phone: bool) {
        self.command(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone }),
        );
    }

    pub fn prefer(&self, scheme: &str) {
        let features =
            json!([{ "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": "reduce" }]);
        self.command("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    pub fn cookies(&self) -> Vec<Value> {
        self.ask("GET", "/cookie", None).as_array().unwrap().clone()
    }

    pub fn shoot(&self, path: &Path) {
        let picture = self.ask("GET", "/screenshot", None);
        std::fs::write(path, STANDARD.decode(picture.as_str().unwrap()).unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its processes end with the session, and the driver then by hand.
        let _ = self.tried("DELETE", "", None);
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
