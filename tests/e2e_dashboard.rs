//! The dashboard: logging in and what a page may ask, and its pages in a real browser.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/browser.rs"]
mod browser;
#[path = "common/gateway.rs"]
mod gateway;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use api::Api;
use browser::{BACKSPACE, Browser, ENTER, ESCAPE, SPACE};
use gateway::{Gateway, Session, run, run_with, template, wait_for};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A program that speaks HTTP as a browser does, or not quite.
struct Http {
    base: String,
    runtime: Runtime,
    client: Client,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Http {
    fn new(gateway: &Gateway) -> Self {
        // A connection each: one that waited may be hung up on in the moment in which it is used again.
        let client = Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60));
        Self { base: format!("http://127.0.0.1:{}", gateway.http_port), runtime: Runtime::new().unwrap(), client: client.build().unwrap() }
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        self.runtime.block_on(async {
            let mut request = self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", self.base));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().await.unwrap();
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            Answer { status, headers, body: serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default() }
        })
    }

    /// Logs in as a page does whose address begins so; the cookie as a browser sends it back, all of the cookie, and what the page is told.
    fn log_in(&self, token: &str, origin: &str) -> (String, String, Value) {
        let answer = self.ask("POST", "/dashboard/session", &[("origin", origin)], Some(&json!({ "token": token })));
        assert_eq!(answer.status, 201, "{}", answer.body);
        let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
        (cookie.split(';').next().unwrap().to_owned(), cookie, answer.body)
    }
}

fn token(gateway: &Gateway, name: &str, scopes: &[&str]) -> String {
    api::token(&mut gateway.innkeeper(), name, scopes)
}

#[test]
fn a_token_becomes_a_session_that_ends_with_it_and_opens_no_more() {
    let gateway = Gateway::start("");
    let http = Http::new(&gateway);
    let own = http.base.clone();
    let admin = token(&gateway, "ops", &["admin"]);
    let since = Instant::now();
    for wrong in ["", "ink_guessed", "x", &admin[..admin.len() - 1]] {
        let answer = http.ask("POST", "/dashboard/session", &[("origin", &own)], Some(&json!({ "token": wrong })));
        assert_eq!((answer.status, answer.headers.contains_key("set-cookie")), (401, false), "{wrong}");
    }
    assert!(since.elapsed() > Duration::from_millis(1200), "who was wrong of late waits");
    let (cookie, whole, seen) = http.log_in(&admin, &own);
    assert!(!whole.contains(&admin) && whole.ends_with("; Path=/; Max-Age=28800; HttpOnly; SameSite=Strict"), "{whole}");
    assert_eq!((&seen["name"], &seen["scopes"]), (&json!("token ops"), &json!(["admin"])));
    let csrf = seen["csrf"].as_str().unwrap();
    // Behind a proxy that speaks TLS, the cookie is for nothing else.
    let encrypted = own.replace("http:", "https:");
    assert!(http.log_in(&admin, &encrypted).1.starts_with("__Host-innkeeper-session="));

    // Reading takes the cookie; changing something also what only a page of ours knows, and the browser's word that it is one.
    let asked = |method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>| http.ask(method, path, headers, body).status;
    assert_eq!(asked("GET", "/api/v1/workspaces", &[("cookie", &cookie)], None), 200);
    assert_eq!(asked("GET", "/api/v1/workspaces", &[("cookie", &cookie), ("sec-fetch-site", "cross-site")], None), 403);
    assert_eq!(asked("GET", "/api/v1/workspaces", &[], None), 401);
    let new = json!({ "name": "made" });
    let make =
        |headers: &[(&str, &str)]| asked("POST", "/api/v1/workspaces", &[&[("cookie", cookie.as_str())], headers].concat(), Some(&new));
    for refused in [
        &[][..],
        &[("origin", own.as_str())],
        &[("x-innkeeper-csrf", csrf)],
        &[("x-innkeeper-csrf", csrf), ("origin", "http://evil.example")],
        &[("x-innkeeper-csrf", csrf), ("origin", own.as_str()), ("sec-fetch-site", "same-site")],
        &[("x-innkeeper-csrf", "guessed"), ("origin", own.as_str())],
    ] {
        assert_eq!(make(refused), 403, "{refused:?}");
    }
    assert_eq!(make(&[("x-innkeeper-csrf", csrf), ("origin", &own)]), 201);
    let shown = gateway.trail(&[], |shown| shown.contains(r#""actor":{"dashboard":"token ops"}"#));
    assert!(!shown.contains(&admin), "{shown}");
    // From another site nobody is logged in, either.
    let elsewhere = [("origin", "http://evil.example")];
    assert_eq!(asked("POST", "/dashboard/session", &elsewhere, Some(&json!({ "token": admin }))), 403);

    // A session opens what its token does.
    let reader = token(&gateway, "reader", &["read"]);
    let (read, _, seen) = http.log_in(&reader, &own);
    let headers = [("cookie", read.as_str()), ("x-innkeeper-csrf", seen["csrf"].as_str().unwrap()), ("origin", &own)];
    assert_eq!((asked("GET", "/api/v1/sessions", &headers, None), asked("POST", "/api/v1/pool/pause", &headers, None)), (200, 403));
    run(gateway.innkeeper().args(["token", "revoke", "reader"])).good();
    assert_eq!(asked("GET", "/api/v1/sessions", &headers, None), 401);
    assert_eq!(http.ask("GET", "/dashboard/session", &headers, None).body, Value::Null);
    let brief = run(gateway.innkeeper().args(["token", "create", "brief", "--scope", "read", "--expires-in", "3s"])).good();
    let (brief, ..) = http.log_in(brief.trim(), &own);
    assert_eq!(asked("GET", "/api/v1/sessions", &[("cookie", &brief)], None), 200);
    wait_for("its token to expire", || asked("GET", "/api/v1/sessions", &[("cookie", &brief)], None) == 401);

    // Out again.
    let headers = [("cookie", cookie.as_str()), ("origin", &own)];
    assert_eq!(asked("DELETE", "/dashboard/session", &headers, None), 403);
    let out = http.ask("DELETE", "/dashboard/session", &[&headers[..], &[("x-innkeeper-csrf", csrf)]].concat(), None);
    assert_eq!((out.status, out.headers.get_all("set-cookie").iter().count()), (204, 2));
    assert_eq!(asked("GET", "/api/v1/workspaces", &headers, None), 401);
}

#[test]
fn what_is_told_without_end_ends_with_the_session_and_there_need_be_no_dashboard() {
    let gateway = Gateway::start("[http]\nsession_lifetime = \"4s\"\n");
    let http = Http::new(&gateway);
    let (cookie, ..) = http.log_in(&token(&gateway, "ops", &["admin"]), &http.base);
    let since = Instant::now();
    let feed = http.ask("GET", "/api/v1/events", &[("cookie", &cookie)], None);
    assert_eq!(feed.status, 200);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert_eq!(http.ask("GET", "/api/v1/workspaces", &[("cookie", &cookie)], None).status, 401);
    drop(gateway);
    let gateway = Gateway::start("[http]\ndashboard = false\n");
    let http = Http::new(&gateway);
    for path in ["/dashboard/", "/dashboard/session", "/"] {
        assert_eq!(http.ask("GET", path, &[], None).status, 404, "{path}");
    }
}

/// Pages, and what each shows when it is there.
const PAGES: [(&str, &str); 11] = [
    ("overview", "Until a workspace is ready"),
    ("workspaces", "alice"),
    ("workspaces/alice", "Limits and quota"),
    ("new", "Make tenant"),
    ("accounts", "dave"),
    ("sessions", "alice"),
    ("pool", "Templates"),
    ("capacity", "How many more fit"),
    ("recordings", "complete"),
    ("audit", "session-started"),
    ("gateway", "Tokens"),
];

/// A browser in which somebody with this token has logged in.
fn logged_in(gateway: &Gateway, token: &str) -> Browser {
    let browser = Browser::open(1280, 860);
    browser.prefer("light");
    browser.go(&format!("http://127.0.0.1:{}/", gateway.http_port));
    browser.wait("!!document.getElementById('token')");
    browser.keys(token);
    browser.keys(ENTER);
    browser.wait_text("main h1", "Overview");
    browser
}

fn show(browser: &Browser, page: &str, text: &str) {
    browser.run("location.hash = '#/' + arguments[0]", &[json!(page)]);
    browser.wait_text("main", text);
}

#[test]
fn every_page_is_whole_wide_and_narrow_in_light_and_in_the_dark() {
    let shots = std::env::var_os("INNKEEPER_SCREENSHOTS").map(PathBuf::from);
    let pool =
        "[pool]\nsize = 1\n[capacity]\nsample_every = \"1s\"\nhost_price = 64.0\n[urls]\nlisten = \"127.0.0.1:0\"\ndomain = \"test\"\n";
    let gateway = Gateway::start(&format!("{pool}{}", template("recording = \"terminals\"\nwatch = true")));
    let ops = token(&gateway, "ops", &["admin"]);

    // Somebody who has no token, or another's.
    let browser = Browser::open(1280, 860);
    browser.prefer("light");
    browser.go(&format!("http://127.0.0.1:{}/dashboard/", gateway.http_port));
    browser.wait("!!document.getElementById('token')");
    browser.keys("ink_guessed");
    browser.keys(ENTER);
    browser.wait_text("[role=alert]", "not known");
    shots.iter().for_each(|dir| browser.shoot(&dir.join("login.png")));
    browser.keys(&ops);
    browser.keys(ENTER);
    browser.wait_text("main h1", "Overview");
    let cookies = browser.cookies();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert_eq!((&cookies[0]["httpOnly"], &cookies[0]["sameSite"], &cookies[0]["path"]), (&json!(true), &json!("Strict"), &json!("/")));
    assert_eq!(browser.run("return document.cookie + Object.keys(localStorage) + Object.keys(sessionStorage)", &[]), "");

    // Somebody who works, and who has worked, and some who have not come yet.
    let api = Api::new(gateway.http_port, Some(&ops));
    for name in ["course-a", "course-b", "lab", "thesis"] {
        api.good(201, "POST", "/workspaces", Some(&json!({ "name": name, "limits": { "memory": "1GiB" } })));
    }
    gateway.exec("carol", "true").good();
    gateway.exec("bob", "head -c 3000000 /dev/urandom > data").good();
    let done = gateway.terminal("bob", "ls --color=always -la / && sleep 1");
    done.end();
    let mut terminal = gateway.terminal("alice", "");
    terminal.send("export PS1='alice $ '; clear; printf '\\033[1;32mready\\033[0m for %s\\n' work; while sleep 1; do head -c 1000000 /dev/urandom >> log; done & \r");
    terminal.expect("for work");
    run(gateway.innkeeper().args(["workspace", "suspend", "bob", "--reason", "unpaid"])).good();
    browser.wait_text("#news", "bob is suspended");
    std::thread::sleep(Duration::from_secs(if shots.is_some() { 45 } else { 4 }));

    for (scheme, phone, (width, height)) in [("light", false, (1200, 760)), ("dark", false, (1200, 760)), ("light", true, (390, 844))] {
        browser.resize(width, height, phone);
        browser.prefer(scheme);
        for (page, text) in PAGES {
            show(&browser, page, text);
            browser.wait("!document.querySelector('.trouble')");
            let wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]", &[]);
            assert_eq!(wide[0], wide[1], "{page} is wider than a window of {width}");
            let ground = browser.run("return getComputedStyle(document.body).backgroundColor", &[]);
            assert_eq!(ground, if scheme == "dark" { "rgb(14, 18, 21)" } else { "rgb(246, 247, 248)" });
            let look = if phone { "phone" } else { scheme };
            let wanted = ["overview", "workspaces", "workspaces/alice"].contains(&page) || scheme == "light" && !phone;
            if let Some(dir) = shots.as_ref().filter(|_| wanted && page != "new") {
                std::thread::sleep(Duration::from_millis(1500));
                browser.shoot(&dir.join(format!("{}-{look}.png", page.replace('/', "-").replace("workspaces-alice", "workspace"))));
            }
        }
    }

    // On a phone, the pages are behind a button.
    browser.wait("!document.getElementById('nav').checkVisibility()");
    browser.click(".menu");
    browser.wait("document.querySelector('.menu').ariaExpanded === 'true' && document.getElementById('nav').checkVisibility()");
    browser.click("#nav [data-page=capacity]");
    browser.wait_text("main h1", "Capacity");
    browser.wait("document.querySelector('.menu').ariaExpanded === 'false' && !document.getElementById('nav').checkVisibility()");
    browser.click(".menu");
    browser.wait("document.getElementById('nav').checkVisibility()");
    browser.keys(ESCAPE);
    browser.wait("!document.getElementById('nav').checkVisibility()");
    assert_eq!(browser.text("main h1"), "Capacity");
    browser.resize(1200, 760, false);

    // Found by name, by state, and in another order.
    show(&browser, "workspaces", "thesis");
    browser.keys("/");
    browser.keys("COURSE");
    browser.wait("document.querySelectorAll('tbody tr').length === 2");
    browser.run("document.querySelector('[type=search]').select()", &[]);
    browser.keys(BACKSPACE);
    browser.wait("document.querySelectorAll('tbody tr').length === 7");
    let names = "[...document.querySelectorAll('tbody td.name')].map((cell) => cell.innerText).join(' ')";
    browser.tab_to("Disk");
    browser.keys(ENTER);
    browser.wait(&format!(
        "{names}.startsWith('alice bob carol') && document.querySelector('[aria-sort=descending]').innerText.includes('Disk')"
    ));
    browser.keys(ENTER);
    browser.wait(&format!("{names}.startsWith('carol bob alice')"));
    browser.run("const it = document.querySelector('[name=state]'); it.value = 'suspended'; it.dispatchEvent(new Event('change'))", &[]);
    browser.wait(&format!("{names} === 'bob'"));

    // What was deleted is had back.
    api.good(200, "DELETE", "/workspaces/carol", None);
    browser.wait("!!document.querySelector('#deleted button')");
    assert!(browser.text("#deleted").contains("carol"));
    browser.run("document.querySelector('#deleted button').click()", &[]);
    browser.wait_text("#toasts", "carol is back");
    browser.wait("!document.getElementById('deleted')");

    // What is in use is looked on at, and what was is played.
    show(&browser, "sessions", "Watch");
    browser.run("document.querySelector('td.acts a').click()", &[]);
    browser.wait_text(".screen", "ready for work");
    terminal.send("echo twelve-$((3*4))\r");
    browser.wait_text(".screen", "twelve-12");
    shots.iter().for_each(|dir| browser.shoot(&dir.join("watch.png")));
    show(&browser, "recordings", "complete");
    browser.run(
        "[...document.querySelectorAll('tbody tr')].find((row) => row.innerText.includes('bob')).querySelector('td.acts a').click()",
        &[],
    );
    browser.wait_text(".screen", "root");
    browser.wait_text(".player", "Play");
    shots.iter().for_each(|dir| browser.shoot(&dir.join("replay.png")));
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // Its session over, the page asks for another.
    run(gateway.innkeeper().args(["token", "revoke", "ops"])).good();
    browser.wait("!!document.getElementById('token')");
    terminal.send("exit\r");
    terminal.end();
}

#[test]
fn a_tenant_is_made_used_limited_suspended_resumed_and_deleted_by_keys_alone() {
    let gateway = Gateway::start(&format!("[urls]\nlisten = \"127.0.0.1:{}\"\ndomain = \"test\"\n", free_port()));
    let browser = logged_in(&gateway, &token(&gateway, "ops", &["admin"]));
    let press = |name: &str| {
        browser.tab_to(name);
        browser.keys(ENTER);
    };
    press("Workspaces");
    browser.wait_text("main h1", "Workspaces");
    press("New …");
    browser.wait_text("main h1", "New");
    browser.tab_to("account");
    browser.keys("erin");
    press("Make tenant");
    browser.wait("!!document.querySelector('dialog[open]')");
    let password = browser.run("return [...document.querySelectorAll('dialog input')].at(-1).value", &[]);
    browser.keys(ENTER);
    browser.wait_text("main h1", "erin");
    browser.wait_text("main .title .badge", "running");

    // She comes, and is seen without anything being loaded anew.
    browser.run("window.neverLoadedAnew = true", &[]);
    let erins = || gateway.ssh_by_password("erin", &[password.as_str().unwrap()]);
    run_with(erins().arg("cat > application.py"), include_bytes!("common/application.py")).good();
    let mut erin = Session::start(erins().arg("exec python3 application.py 8080"));
    erin.expect("up\n");
    browser.wait_text("#sessions", "erin");
    browser.wait_text("#now", "in use");

    browser.tab_to("memory");
    browser.keys("640MiB");
    press("Save limits");
    browser.wait_text("#toasts", "Saved");
    assert_eq!(gateway.inspect("erin", "{{.HostConfig.Memory}}"), (640 << 20).to_string());
    browser.wait("document.querySelector('[name=memory]').value === '640MiB'");

    // A port of hers, by a link.
    browser.tab_to("port");
    browser.keys("8080");
    press("Make a link");
    browser.wait("!!document.querySelector('dialog[open] a')");
    let link = browser.run("return document.querySelector('dialog a').href", &[]);
    let dashboard = browser.tab();
    press("Open it");
    browser.to_new_tab();
    browser.wait("location.host.startsWith('8080--erin.test')");
    browser.wait_text("body", r#""x-innkeeper-workspace": "erin""#);
    let application = browser.tab();
    browser.to_tab(&dashboard);
    browser.keys(ESCAPE);
    browser.wait("!document.querySelector('dialog')");
    browser.wait_text("#links", "anybody");

    // Who thinks better of it has changed nothing.
    press("Suspend");
    browser.wait("!!document.querySelector('dialog[open]')");
    browser.keys("a slip");
    browser.keys(ESCAPE);
    browser.wait("!document.querySelector('dialog')");
    press("Suspend");
    browser.wait("!!document.querySelector('dialog[open]')");
    assert_eq!(browser.text("main .title .badge"), "running");
    browser.keys("unpaid");
    browser.keys(ENTER);
    browser.wait_text("main .title .badge", "suspended");
    browser.wait_text(".notice", "unpaid");
    erin.end();
    wait_for("it to stop", || gateway.container_state("erin") != "running");
    // Neither what was open goes on, nor does the link open it anew.
    browser.to_tab(&application);
    browser.reload();
    browser.wait_text("body", "The workspace is suspended");
    browser.go(link.as_str().unwrap());
    browser.wait_text("body", "The workspace is suspended");
    browser.to_tab(&dashboard);
    press("Resume");
    browser.wait("!document.querySelector('.notice')");
    press("Start");
    browser.wait_text("main .title .badge", "running");
    press("Stop");
    browser.wait("!!document.querySelector('dialog[open]')");
    browser.keys(ENTER);
    browser.wait("!document.querySelector('main .title .badge').innerText.includes('running')");
    assert_eq!(browser.run("return window.neverLoadedAnew", &[]), true);

    press("Delete");
    browser.wait("!!document.querySelector('dialog[open]')");
    browser.keys(SPACE);
    browser.tab_to("accounts");
    browser.wait_text("dialog", "and its account erin");
    browser.keys(SPACE);
    browser.tab_to("typed");
    browser.keys("erin");
    browser.keys(ENTER);
    browser.wait_text("main h1", "Workspaces");
    browser.wait("!document.querySelector('main').innerText.includes('erin')");
    assert!(!gateway.home("erin").exists() && gateway.container_state("erin").is_empty());
    let shown = run(gateway.innkeeper().args(["audit", "show", "--json"])).good();
    assert!(shown.contains(r#""actor":{"dashboard":"token ops"}"#) && shown.matches("/suspend").count() == 1, "{shown}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // She is let in no more, and given nothing; the others are.
    let refused = run(erins().arg("true"));
    assert!(refused.status == Some(255) && refused.stderr.contains("Permission denied"), "{refused:?}");
    assert!(!gateway.home("erin").exists() && gateway.container_state("erin").is_empty());
    gateway.exec("alice", "true").good();
    // What the link led to is gone with her.
    browser.to_tab(&application);
    browser.go(link.as_str().unwrap());
    browser.wait_text("body", "needs a link");
}

#[test]
fn what_strangers_write_is_text() {
    const EVIL: &str = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u{1b}[31m\u{202e}";
    let gateway = Gateway::start("");
    let ops = token(&gateway, "ops", &["admin"]);
    let api = Api::new(gateway.http_port, Some(&ops));
    gateway.exec("alice", "true").good();
    api.good(200, "PATCH", "/workspaces/alice", Some(&json!({ "env": { "EVIL": EVIL } })));
    api.good(200, "POST", "/workspaces/alice/suspend", Some(&json!({ "reason": EVIL.replace('\u{1b}', "") })));
    gateway.add_account_with("<i>carol</i>", &["--workspace", "carol"]);
    let mut carol = Session::start(ssh_as(&gateway, "<i>carol</i>").arg("echo up; exec sleep 600"));
    carol.expect("up\n");

    let browser = logged_in(&gateway, &ops);
    show(&browser, "workspaces/alice", "EVIL");
    let seen = browser.text("main");
    assert!(seen.contains("<img src=x onerror=\"document.title='owned'\"><script>"), "{seen}");
    assert!(seen.contains("\\u{1b}[31m\\u{202e}"), "{seen}");
    browser.wait_text(".notice", "<img src=x");
    show(&browser, "audit", "account <i>carol</i>");
    show(&browser, "sessions", "<i>carol</i>");
    browser.run("location.hash = '#/workspaces/' + encodeURIComponent(arguments[0])", &[json!(EVIL)]);
    browser.wait("!!document.querySelector('.trouble')");
    assert_eq!(browser.run("return document.querySelectorAll('main img, main script, main b, main i').length", &[]), 0);
    assert!(!browser.run("return document.title", &[]).as_str().unwrap().starts_with("owned"));

    // Whose accounts go with a workspace is asked in words, and nothing goes without a tick.
    show(&browser, "workspaces/carol", "History");
    let delete = "[...document.querySelectorAll('.actions.is-bar button')].find((button) => button.innerText === 'Delete')";
    browser.wait(&format!("!!{delete}"));
    browser.run(&format!("{delete}.click()"), &[]);
    browser.wait_text("dialog", "and its accounts <i>carol</i> and carol");
    assert_eq!(browser.run("return document.querySelectorAll('dialog i, dialog :checked').length", &[]), 0);
    browser.keys(ESCAPE);
    browser.wait("!document.querySelector('dialog')");

    // Markup that gets in all the same does nothing: neither is it made of text, nor run, nor does it change how things look.
    for made in
        ["document.body.innerHTML = '<img src=x onerror=window.ran=true>'", "document.body.setAttribute('onclick', 'window.ran = true')"]
    {
        let refused = browser.run(&format!("try {{ {made}; return 'made' }} catch (why) {{ return why.name }}"), &[]);
        assert_eq!(refused, "TypeError", "{made}");
    }
    browser.run("const it = document.createElement('style'); it.textContent = 'main { display: none }'; document.head.append(it)", &[]);
    browser.run("document.body.click()", &[]);
    let left = browser.run("return [window.ran ?? null, getComputedStyle(document.querySelector('main')).display]", &[]);
    assert_eq!(left, json!([null, "flex"]));
    assert!(!browser.complaints().is_empty(), "the browser says what was tried");
    // Who looks on has nothing to press, and who has one workspace sees that.
    browser.run("[...document.querySelectorAll('button')].find((button) => button.innerText === 'Log out').click()", &[]);
    browser.wait("!!document.getElementById('token')");
    assert_eq!(browser.cookies(), Vec::<Value>::new());
    browser.keys(&token(&gateway, "reader", &["read"]));
    browser.keys(ENTER);
    browser.wait("!!document.querySelector('main')");
    show(&browser, "workspaces/carol", "History");
    assert_eq!(browser.text(".actions.is-bar"), "");
    assert!(!browser.text("main").contains("Save"), "{}", browser.text("main"));
    browser.run("[...document.querySelectorAll('button')].find((button) => button.innerText === 'Log out').click()", &[]);
    browser.wait("!!document.getElementById('token')");
    browser.keys(&token(&gateway, "carols", &["workspace:carol"]));
    browser.keys(ENTER);
    browser.wait_text("main h1", "carol");
    assert_eq!(browser.text(".actions.is-bar").split_whitespace().collect::<Vec<_>>(), ["Stop", "Restart"]);
    drop(carol);
}

/// The OpenSSH client of somebody whose name it would refuse on its command line.
fn ssh_as(gateway: &Gateway, name: &str) -> Command {
    let config = gateway.dir.path().join("client");
    std::fs::write(&config, format!("User \"{name}\"\n")).unwrap();
    let mut options = gateway.client_options();
    options[1] = config.to_str().unwrap().to_owned();
    let mut command = Command::new("ssh");
    command.args(options).arg("-p").arg(gateway.ssh_port.to_string()).arg("127.0.0.1");
    command
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
