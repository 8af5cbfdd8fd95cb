//! The dashboard in a real browser: each of its controls is used, can be read, and is reached by keys and on a small phone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/browser.rs"]
mod browser;
#[path = "common/gateway.rs"]
mod gateway;

use std::process::Command;

use api::Api;
use browser::{Browser, ENTER, ESCAPE, TAB};
use gateway::{Gateway, run, template, wait_for};
use serde_json::{Value, json};

/// A gateway that has everything that a page shows, and somebody who may do everything.
struct World {
    gateway: Gateway,
    api: Api,
    token: String,
    sections: String,
    _target: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let target = tempfile::Builder::new().prefix("innkeeper-target-").tempdir().unwrap();
        let sections = format!(
            "[pool]\nsize = 0\n[capacity]\nsample_every = \"1s\"\nhost_price = 64.0\n[urls]\nlisten = \"127.0.0.1:0\"\ndomain = \"test\"\n\
             [backup]\ntarget = \"{}\"\nevery = \"0s\"\nverify_every = \"0s\"\n{}",
            target.path().display(),
            template("disk = \"1GiB\"\nrecording = \"terminals\"\nwatch = true")
        );
        let gateway = Gateway::start(&sections);
        let token = api::token(&mut gateway.innkeeper(), "ops", &["admin"]);
        let api = Api::new(gateway.http_port, Some(&token));
        Self { gateway, api, token, sections, _target: target }
    }

    /// A browser at the page that asks who somebody is.
    fn browser(&self) -> Browser {
        let browser = Browser::open(1280, 900);
        browser.prefer("light");
        browser.go(&format!("http://127.0.0.1:{}/dashboard/", self.gateway.http_port));
        browser.wait("!!document.getElementById('token')");
        browser
    }

    fn log_in(&self, browser: &Browser) {
        browser.set("#token", &self.token);
        browser.press("Log in");
        browser.wait_text("main h1", "Overview");
    }

    fn get(&self, path: &str) -> Value {
        self.api.good(200, "GET", path, None)
    }
}

fn show(browser: &Browser, page: &str, text: &str) {
    browser.run("location.hash = '#/' + arguments[0]", &[json!(page)]);
    browser.wait_text("main", text);
}

/// Notes which controls a page has had and which were used, by the page and their names, for as long as it is not loaded anew.
const NOTE: &str = r#"
    const kinds = 'button, a.button, a.back, nav a, a.figure, a.skip, input, select, textarea';
    const titles = ['Log in', 'Overview', 'Workspaces', 'New', 'Accounts', 'Sessions', 'Pool & templates', 'Capacity', 'Recordings', 'Recording', 'Audit', 'Gateway'];
    const called = (it) => {
        const title = document.title.split(' · ')[0];
        const page = titles.includes(title) ? title : 'One';
        const panel = it.closest('.panel')?.querySelector('h2')?.textContent;
        const place = it.closest('dialog') ? 'dialog' : it.closest('main') ? [page, panel].filter(Boolean).join(', ') : 'frame';
        const words = it.matches('input, select, textarea') ? it.name || it.ariaLabel : it.ariaLabel ?? (it.querySelector('.figure-label') ?? it).textContent;
        return `${place}: ${words.trim().replace(/^(End the session of) .*/, '$1').replace(/^(Copied|Selected)$/, 'Copy')}`;
    };
    window.had = new Set();
    window.used = new Set();
    const look = () => document.querySelectorAll(kinds).forEach((it) => !it.disabled && !it.readOnly && window.had.add(called(it)));
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true, attributes: true });
    const note = (event) => {
        const it = event.target.closest?.(kinds);
        if (it) window.used.add(called(it));
    };
    for (const kind of ['click', 'input', 'change']) document.addEventListener(kind, note, true);
    look();
"#;

#[test]
fn each_button_and_form_does_what_it_says() {
    let world = World::start();
    let World { gateway, api, .. } = &world;
    for number in 0..60 {
        api.good(201, "POST", "/workspaces", Some(&json!({ "name": format!("course-{number:02}") })));
    }
    gateway.exec("alice", "echo hers > file").good();
    gateway.terminal("bob", "for line in 1 2 3 4 5 6; do echo line-$line; sleep 1; done; echo to the end").end();
    let browser = world.browser();
    let downloads = tempfile::tempdir().unwrap();
    browser.command("Page.setDownloadBehavior", json!({ "behavior": "allow", "downloadPath": downloads.path() }));
    browser.run(NOTE, &[]);
    world.log_in(&browser);
    let rows = |many: usize| browser.wait(&format!("document.querySelectorAll('tbody tr').length === {many}"));

    // The frame.
    browser.run("document.activeElement.blur()", &[]);
    browser.tab_to("Skip to the page");
    browser.keys(ENTER);
    browser.wait("document.activeElement.id === 'main'");
    for (name, title) in [
        ("Workspaces", "Workspaces"),
        ("Accounts", "Accounts"),
        ("Sessions", "Sessions"),
        ("Pool & templates", "Pool & templates"),
        ("Capacity", "Capacity"),
        ("Recordings", "Recordings"),
        ("Audit", "Audit"),
        ("Gateway", "Gateway"),
        ("Overview", "Overview"),
    ] {
        browser.run("[...document.querySelectorAll('nav a')].find((it) => it.innerText === arguments[0]).click()", &[json!(name)]);
        browser.wait_text("main h1", title);
    }
    for (number, title) in ["Sessions", "Workspaces", "Pool & templates", "Pool & templates"].iter().enumerate() {
        show(&browser, "overview", "Until a workspace is ready");
        browser.click(&format!("a.figure:nth-child({})", number + 1));
        browser.wait_text("main h1", title);
    }

    // All workspaces: in every order, by pages, and some of them.
    show(&browser, "workspaces", "course-00");
    rows(50);
    for title in ["State", "Template", "CPU", "Memory", "Disk", "Idle", "Last login", "Workspace"] {
        browser.press(title);
        browser.wait(&format!("document.querySelector('[aria-sort=ascending], [aria-sort=descending]').innerText.includes('{title}')"));
    }
    browser.press("On");
    browser.wait_text(".pager", "2 of 2");
    rows(12);
    browser.press("Back");
    browser.wait_text(".pager", "1 of 2");
    browser.set("[name=search]", "ali");
    rows(1);
    browser.set("[name=search]", "");
    browser.set("[name=state]", "running");
    rows(2);
    browser.set("[name=state]", "");
    browser.set("[name=template]", "default");
    rows(50);

    // A workspace alone, a copy of one, and a tenant with a key.
    browser.press("New …");
    let workspace = "main .panel:nth-child(2) ";
    for (name, value) in [("name", "made"), ("cpus", "0.5"), ("memory", "256MiB"), ("disk", "512MiB")] {
        browser.set(&format!("{workspace}[name={name}]"), value);
    }
    browser.set(&format!("{workspace}[name=template]"), "default");
    browser.press("Make workspace");
    browser.wait_text("main h1", "made");
    let made = world.get("/workspaces/made");
    assert_eq!(made["own_limits"], json!({ "cpus": 0.5, "memory": "256MiB", "disk": "512MiB", "pids": null, "inodes": null }));
    show(&browser, "new", "Make tenant");
    browser.set(&format!("{workspace}[name=name]"), "twin");
    browser.set(&format!("{workspace}[name=copy_of]"), "alice");
    browser.press("Make workspace");
    browser.wait_text("main h1", "twin");
    assert_eq!(std::fs::read_to_string(gateway.home("twin").join("file")).unwrap(), "hers\n");
    show(&browser, "new", "Make tenant");
    let key = std::fs::read_to_string(gateway.dir.path().join("id.pub")).unwrap();
    let tenant = "main .panel:nth-child(1) ";
    for (name, value) in
        [("account", "keyed"), ("keys", key.trim()), ("workspace", "lab"), ("cpus", "1"), ("memory", "300MiB"), ("disk", "600MiB")]
    {
        browser.set(&format!("{tenant}[name={name}]"), value);
    }
    browser.set(&format!("{tenant}[name=template]"), "default");
    browser.press("Make tenant");
    browser.wait_text("dialog", "keyed can log in");
    browser.press("Copy");
    browser.wait("/Copied|Selected/.test(document.querySelector('dialog').innerText)");
    browser.press("Close");
    browser.wait_text("main h1", "lab");
    assert_eq!(gateway.exec("keyed", "echo in").good(), "in\n");
    assert_eq!(gateway.inspect("lab", "{{.HostConfig.Memory}}"), (300 << 20).to_string());

    // One workspace: it stops, starts, and starts again; nothing happens to it where somebody thinks better of it.
    show(&browser, "workspaces/alice", "Limits and quota");
    let badge = |text: &str| browser.wait_text("main .title .badge", text);
    let started = || gateway.inspect("alice", "{{.State.StartedAt}}");
    badge("running");
    browser.press("Stop");
    browser.press("Cancel");
    browser.wait("!document.querySelector('dialog')");
    assert_eq!(gateway.container_state("alice"), "running");
    let before = started();
    browser.press("Restart");
    browser.set("dialog [name=in]", "0s");
    browser.press("Restart");
    browser.wait_text("#toasts", "alice runs again");
    assert_ne!(started(), before);
    browser.press("Stop");
    browser.press("Stop");
    browser.wait_text("#toasts", "alice is stopped");
    assert_ne!(gateway.container_state("alice"), "running");
    browser.press("Start");
    browser.wait_text("#toasts", "alice runs (start)");
    assert_eq!(gateway.container_state("alice"), "running");
    browser.press("Close");
    browser.wait("document.getElementById('toasts').children.length === 0");
    browser.press("Back up");
    browser.wait_text("#toasts", "alice is backed up");
    assert_eq!(world.get("/backups?workspace=alice")["items"].as_array().unwrap().len(), 1);
    browser.wait("document.querySelectorAll('#backups tbody tr').length === 1");
    for (name, value) in [("cpus", "1.5"), ("memory", "384MiB"), ("disk", "2GiB"), ("pids", "200"), ("inodes", "50000")] {
        browser.set(&format!("#limits [name={name}]"), value);
    }
    browser.press("Save limits");
    browser.wait_text("#toasts", "Saved");
    let own = &world.get("/workspaces/alice")["own_limits"];
    assert_eq!(own, &json!({ "cpus": 1.5, "memory": "384MiB", "disk": "2GiB", "pids": 200, "inodes": 50000 }));
    assert_eq!(gateway.inspect("alice", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), format!("{} 200", 384 << 20));
    browser.wait("document.querySelector('#limits [name=pids]').value === '200'");
    browser.set("#policy [name=idle]", "2h");
    browser.set("#policy [name=network]", "none");
    browser.set("#policy [name=public_ports]", "8080, 8081");
    browser.press("Save");
    browser.wait_text("#toasts", "in effect from the next start");
    assert_eq!(world.get("/workspaces/alice")["policy"], json!({ "idle": "2h", "network": "none", "public_ports": [8080, 8081] }));
    let pressed = "[...document.querySelectorAll('#history [aria-pressed=true]')].map((it) => it.innerText).join()";
    browser.press("Day");
    browser.wait(&format!("{pressed} === 'Day'"));
    browser.press("Hour");
    browser.wait(&format!("{pressed} === 'Hour'"));
    for (name, value) in [("port", "8080"), ("lifetime", "8h"), ("visitor", "dora")] {
        browser.set(&format!("#links [name={name}]"), value);
    }
    browser.press("Make a link");
    browser.wait_text("dialog", "Port 8080 of alice");
    browser.press("Close");
    let links = || world.get("/workspaces/alice/links")["items"].clone();
    assert_eq!((&links()[0]["port"], &links()[0]["visitor"]), (&json!(8080), &json!("dora")));
    browser.press("Take back");
    browser.wait_text("#toasts", "opens nothing any more");
    assert_eq!(links(), json!([]));

    // Its backup: as another workspace, in its own place and back, in its own place for good.
    std::fs::write(gateway.home("alice").join("file"), "changed\n").unwrap();
    let file = |name: &str| std::fs::read_to_string(gateway.home(name).join("file")).unwrap();
    let restore = |how: &str, said: &str| {
        browser.press("Restore");
        browser.set("dialog [name=how]", how);
        browser.set("dialog [name=to]", "restored");
        browser.press("Restore");
        browser.wait_text("#toasts", said);
    };
    restore("new", "restored is what alice was");
    assert_eq!((file("restored").as_str(), file("alice").as_str()), ("hers\n", "changed\n"));
    restore("place", "alice is what it was");
    assert_eq!(file("alice"), "hers\n");
    browser.press("Undo");
    browser.press("Undo it");
    browser.wait_text("#toasts", "alice has again what it had before");
    assert_eq!(file("alice"), "changed\n");
    restore("place", "alice is what it was");
    browser.press("Keep");
    browser.press("Keep it");
    browser.wait_text("#toasts", "What was before is gone");
    assert_eq!((file("alice").as_str(), &world.get("/backups")["unconfirmed"]), ("hers\n", &json!([])));

    browser.press("Suspend");
    browser.set("dialog [name=reason]", "unpaid");
    browser.press("Suspend");
    badge("suspended");
    assert_eq!(world.get("/workspaces/alice")["suspended"]["reason"], "unpaid");
    browser.press("Resume");
    browser.wait("!document.querySelector('.notice')");
    assert_eq!(world.get("/workspaces/alice")["suspended"], Value::Null);

    // Sessions: found, in every order, looked on at, and ended, on either page.
    let ended = |page: &str, session: gateway::Session| {
        browser.press("End the session of carol");
        browser.press("End session");
        assert_eq!(session.end().status, Some(77), "{page}");
    };
    let carol = gateway.hold("carol", "echo up; exec sleep 1000");
    let mut dave = gateway.terminal("dave", "");
    dave.send("echo seen-$((6*7))\r");
    dave.expect("seen-42");
    show(&browser, "workspaces/carol", "Limits and quota");
    browser.wait_text("#sessions", "carol");
    for title in ["Account", "Since", "For"] {
        browser.press(title);
        browser
            .wait(&format!("document.querySelector('#sessions [aria-sort$=ending]:not([aria-sort=none])').innerText.includes('{title}')"));
    }
    ended("workspace", carol);
    browser.press("All workspaces");
    browser.wait_text("main h1", "Workspaces");
    let carol = gateway.hold("carol", "echo up; exec sleep 1000");
    show(&browser, "sessions", "dave");
    rows(2);
    for title in ["Account", "Workspace", "Since", "For"] {
        browser.press(title);
        browser.wait(&format!("document.querySelector('[aria-sort=ascending], [aria-sort=descending]').innerText.includes('{title}')"));
    }
    browser.set("[name=search]", "car");
    rows(1);
    ended("sessions", carol);
    browser.set("[name=search]", "");
    browser.press("Watch");
    browser.wait_text(".screen", "seen-42");

    // Accounts.
    show(&browser, "accounts", "keyed");
    for title in ["Keys", "Workspace", "Account"] {
        browser.press(title);
        browser.wait(&format!("document.querySelector('[aria-sort=ascending], [aria-sort=descending]').innerText.includes('{title}')"));
    }
    browser.set("[name=search]", "bob");
    rows(1);
    browser.press("Password");
    browser.set("dialog [name=password]", "correct horse battery");
    browser.press("Set password");
    browser.wait_text("#toasts", "bob has another password");
    assert_eq!(run(gateway.ssh_by_password("bob", &["correct horse battery"]).arg("true")).status, Some(0));
    let second = gateway.dir.path().join("second");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&second)).good();
    browser.press("Add key");
    browser.set("dialog [name=keys]", std::fs::read_to_string(second.with_extension("pub")).unwrap().trim());
    browser.press("Add");
    browser.wait_text("#toasts", "1 key is new");
    assert_eq!(world.get("/accounts/bob")["keys"], 2);
    browser.press("Remove");
    browser.press("Remove");
    browser.wait_text("#toasts", "bob cannot log in any more");
    assert_eq!(api.ask("GET", "/accounts/bob", None).status, 404);
    browser.press("New …");
    browser.wait_text("main h1", "New");

    // The gateway: what it uses, its configuration loaded again, and a token that opens one workspace until it is revoked.
    show(&browser, "gateway", "Engine");
    browser.wait_text("#engine", "answers");
    browser.wait_text("#leases", "dave");
    gateway.configure(&format!("{}\n[idle]\ntimeout = \"7m\"\n", world.sections));
    browser.press("Load it again");
    browser.wait_text("#toasts", "changed: idle.timeout");
    assert_eq!(world.get("/config")["idle"]["timeout"], "7m");
    for (name, value) in [("name", "a-site"), ("scope", "workspace"), ("workspace", "alice"), ("expires_in", "90d")] {
        browser.set(&format!("#tokens [name={name}]"), value);
    }
    browser.press("Make a token");
    browser.wait_text("dialog", "The token a-site");
    let value = browser.run("return document.querySelector('dialog [name=copied]').value", &[]);
    browser.press("Close");
    let site = Api::new(gateway.http_port, value.as_str());
    assert_eq!(["alice", "carol"].map(|name| site.ask("GET", &format!("/workspaces/{name}"), None).status), [200, 403]);
    browser.wait_text("#tokens", "workspace:alice");
    browser.press("Revoke");
    browser.press("Revoke");
    browser.wait_text("#toasts", "a-site opens nothing any more");
    assert_eq!(site.ask("GET", "/workspaces/alice", None).status, 401);

    // The pool.
    show(&browser, "pool", "Templates");
    browser.set("[name=size]", "1");
    browser.press("Resize");
    browser.wait_text("#toasts", "The pool is resized");
    wait_for("one to be ready", || world.get("/pool")["templates"][0]["ready"] == 1);
    browser.press("Pause");
    browser.wait_text("#pool .badge", "paused");
    assert_eq!(world.get("/pool")["paused"], true);
    browser.press("Go on");
    browser.wait("!document.querySelector('#pool .badge')");
    assert_eq!(world.get("/pool")["paused"], false);
    browser.press("Drain");
    browser.press("Drain");
    browser.wait_text("#toasts", "1 container thrown away");
    assert_eq!((&world.get("/pool")["paused"], gateway.pool()), (&json!(true), 0));

    // Recordings: found, played at a pace and from a place, taken away, removed.
    dave.send("exit\r");
    dave.end();
    wait_for("dave's recording", || world.get("/recordings?account=dave")["items"][0]["state"] == "complete");
    show(&browser, "recordings", "dave");
    browser.set("[name=account]", "bob");
    browser.press("Find");
    rows(1);
    browser.set("[name=account]", "");
    browser.set("[name=workspace]", "dave");
    browser.press("Find");
    browser.wait("document.querySelectorAll('tbody tr').length === 1 && document.querySelector('tbody').innerText.includes('dave')");
    browser.set("[name=workspace]", "bob");
    browser.press("Find");
    browser.wait_text("tbody", "bob");
    browser.press("Download");
    let taken = || {
        std::fs::read_dir(downloads.path())
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
            .collect::<String>()
    };
    wait_for("it to be taken away", || taken().contains("to the end"));
    browser.press("Play");
    browser.wait_text(".screen", "line-1");
    browser.wait_text(".screen", "to the end");
    browser.wait_text(".player", "Play");
    browser.set(".player [name=speed]", "0.5");
    browser.press("Play");
    browser.wait_text(".player", "Pause");
    browser.wait("!document.querySelector('.screen').innerText.includes('to the end')");
    browser.press("Pause");
    browser.wait_text(".player", "Play");
    browser.set(".player [type=range]", "2");
    browser.wait_text(".screen", "to the end");
    browser.press("All recordings");
    browser.wait_text("main h1", "Recordings");
    browser.set("[name=account]", "dave");
    browser.press("Find");
    rows(1);
    browser.press("Remove");
    browser.press("Remove");
    browser.wait_text("#toasts", "The recording is gone");
    assert_eq!(world.get("/recordings?account=dave")["items"], json!([]));

    // The trail: by what, whom, where and when, and further back.
    show(&browser, "audit", "admin");
    let first = "document.querySelectorAll('tbody tr').length";
    browser.wait(&format!("{first} >= 100"));
    let before = browser.run(&format!("return {first}"), &[]);
    browser.press("Older");
    browser.wait(&format!("{first} > {before}"));
    let only = |field: &str, value: &str, column: usize, text: &str| {
        browser.set(&format!("[name={field}]"), value);
        browser.press("Find");
        let cells = format!("[...document.querySelectorAll('tbody td:nth-child({column})')]");
        browser.wait(&format!("{cells}.length > 0 && {cells}.every((cell) => cell.innerText.includes('{text}'))"));
        browser.set(&format!("[name={field}]"), "");
    };
    only("kind", "session-ended", 2, "session-ended");
    only("account", "dave", 3, "dave");
    only("workspace", "alice", 4, "alice");
    let none = |field: &str, value: &str| {
        browser.set(&format!("[name={field}]"), value);
        browser.press("Find");
        browser.wait_text("main", "Nothing is like that.");
        browser.set(&format!("[name={field}]"), "");
    };
    none("since", "2099-01-01T00:00");
    none("until", "2001-01-01T00:00");

    // Deleted for a while and had back; deleted for good, with who could log in to it.
    show(&browser, "workspaces/twin", "Limits and quota");
    browser.press("Delete");
    browser.set("dialog [name=typed]", "twin");
    browser.press("Delete");
    browser.wait_text("#deleted", "twin");
    assert!(!gateway.home("twin").exists());
    browser.press("Have back");
    browser.wait_text("#toasts", "twin is back");
    assert!(gateway.home("twin").join("file").exists());
    show(&browser, "workspaces/lab", "Limits and quota");
    browser.press("Delete");
    browser.wait_text("dialog", "its account keyed");
    browser.click("dialog [name=now]");
    browser.click("dialog [name=accounts]");
    browser.set("dialog [name=typed]", "lab");
    browser.press("Delete");
    browser.wait_text("#toasts", "lab is gone");
    assert_eq!((api.ask("GET", "/workspaces/lab", None).status, api.ask("GET", "/accounts/keyed", None).status), (404, 404));
    assert_ne!(gateway.exec("keyed", "true").status, Some(0));

    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser.resize(360, 740, true);
    browser.click(".menu");
    browser.wait("document.getElementById('nav').checkVisibility()");
    browser.keys(ESCAPE);
    browser.press("Log out");
    browser.wait("!!document.getElementById('token')");
    assert_eq!(browser.cookies(), Vec::<Value>::new());
    let left = browser.run("return [...window.had].filter((one) => !window.used.has(one)).sort()", &[]);
    assert_eq!(left, json!([]), "each control that there was is used");
}

/// Pages, and what each shows when it is there.
const PAGES: [(&str, &str); 13] = [
    ("overview", "Until a workspace is ready"),
    ("workspaces", "Have back"),
    ("workspaces/alice", "Take back"),
    ("workspaces/carol", "unpaid"),
    ("new", "Make tenant"),
    ("accounts", "dave"),
    ("sessions", "alice"),
    ("pool", "Templates"),
    ("capacity", "How many more fit"),
    ("recordings", "complete"),
    ("audit", "login-refused"),
    ("gateway", "ops"),
    ("nowhere", "There is no such page"),
];

/// How far two colours are apart, and what is behind something: the formulas of WCAG 2.
const COLOURS: &str = r#"
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const read = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3]));
    const ground = (node) => {
        const layers = [];
        for (let at = node; at; at = at.parentElement) {
            layers.push(read(getComputedStyle(at).backgroundColor));
            if (layers.at(-1)[3] === 1) break;
        }
        return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const light = (colour) => {
        const [r, g, b] = colour.slice(0, 3).map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const apart = (one, other) => {
        const [more, less] = [light(one), light(other)].sort((first, second) => second - first);
        return (more + 0.05) / (less + 0.05);
    };
    const faded = (node) => {
        let share = 1;
        for (let at = node; at; at = at.parentElement) share *= Number(getComputedStyle(at).opacity);
        return share;
    };
"#;

/// What of a page is too faint: texts, and edges of controls. What cannot be used now need not be read, and what a program has written to a
/// terminal is its own affair.
const FAINT: &str = r#"
    const faint = [];
    const told = (what, node, found, wanted) => found < wanted && faint.push(`${what} ${(node.textContent || node.name || node.tagName).trim().slice(0, 40)} <${node.className?.baseVal ?? node.className}> ${found.toFixed(2)}`);
    const seen = (node) => node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !node.closest(':disabled, .screen');
    const text = (what, node, style, behind) => {
        const colour = read(node instanceof SVGElement ? style.fill : style.color);
        const mixed = over([...colour.slice(0, 3), colour[3] * faded(node)], behind);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
        told(what, node, apart(mixed, behind), large ? 3 : 4.5);
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let count = 0;
    while (texts.nextNode()) {
        const node = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !seen(node) || node.closest('option, noscript, title')) continue;
        count += 1;
        text('text', node, getComputedStyle(node), ground(node));
    }
    for (const node of document.querySelectorAll('td')) {
        const style = getComputedStyle(node, '::before');
        if (seen(node) && !['none', 'normal', '""'].includes(style.content)) text('label', node, style, ground(node));
    }
    for (const node of document.querySelectorAll('input, select, textarea, .button')) {
        if (!seen(node)) continue;
        const behind = ground(node.parentElement);
        if (node.matches('input, select, textarea') && !node.matches('[type=checkbox], [type=range]')) {
            text('field', node, getComputedStyle(node), ground(node));
            if (node.placeholder && !node.value) text('placeholder', node, getComputedStyle(node, '::placeholder'), ground(node));
        }
        if (node.matches('[type=checkbox], [type=range], .is-quiet')) continue;
        const edge = over(read(getComputedStyle(node).borderTopColor), behind);
        told('edge', node, Math.max(apart(edge, behind), apart(ground(node), behind)), 3);
    }
    return { count, faint };
"#;

#[test]
fn each_page_can_be_read_is_reached_by_keys_and_fits_a_small_phone() {
    let world = World::start();
    let World { gateway, api, .. } = &world;
    gateway.exec("bob", "true").good();
    gateway.terminal("bob", "echo recorded").end();
    for name in ["carol", "gone"] {
        api.good(201, "POST", "/workspaces", Some(&json!({ "name": name, "env": { "PLAN": "small" } })));
    }
    api.good(200, "POST", "/workspaces/gone/start", None);
    api.good(200, "DELETE", "/workspaces/gone", None);
    api.good(200, "POST", "/workspaces/carol/suspend", Some(&json!({ "reason": "unpaid" })));
    let terminal = gateway.terminal("alice", "");
    wait_for("alice to be in", || world.get("/sessions")["items"][0]["account"] == "alice");
    api.good(201, "POST", "/workspaces/alice/links", Some(&json!({ "port": 8080, "visitor": "dora" })));
    api.good(200, "POST", "/workspaces/alice/tasks", Some(&json!({ "back-up": {} })));
    assert_ne!(run(gateway.ssh_by_password("alice", &["wrong"]).arg("true")).status, Some(0));
    let session = world.get("/sessions")["items"][0]["id"].to_string();
    let recording = world.get("/recordings?account=bob")["items"][0]["id"].as_str().unwrap().to_owned();
    let (watch, replay) = (format!("sessions/{session}"), format!("recordings/{recording}"));
    let more = [(watch.as_str(), "alice"), (replay.as_str(), "bob")];

    let browser = world.browser();
    let look = |what: &str| {
        let faint = browser.run(&format!("{COLOURS}{FAINT}"), &[]);
        assert!(faint["count"].as_u64().unwrap() > 3, "{what}: {faint}");
        assert_eq!(faint["faint"], json!([]), "{what}");
    };
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        look(&format!("login, {scheme}"));
    }
    world.log_in(&browser);
    for (page, text) in PAGES.into_iter().chain(more) {
        show(&browser, page, text);
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            look(&format!("{page}, {scheme}"));
        }
        // Around the page by Tab alone, until what had the focus first has it again.
        browser.run("window.came = new Set(); window.there = new Set(document.querySelectorAll('a[href], button, input, select, textarea')); window.last = null; document.activeElement.blur(); window.scrollTo(0, 0)", &[]);
        let mut left = 0;
        for _ in 0..200 {
            browser.keys(TAB);
            let focus = "const it = document.activeElement; if (it === document.body) return 'left'; const same = it === window.last; window.last = it; if (same && it.type === 'datetime-local') return 'shown'; if (window.came.has(it)) return 'again'; window.came.add(it);
                const style = getComputedStyle(it);
                const shown = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 && apart(read(style.outlineColor), ground(it.parentElement)) >= 3;
                const box = it.getBoundingClientRect();
                const top = it.closest('.top, .nav') || it.matches('.skip') ? 0 : document.querySelector('.top').getBoundingClientRect().bottom;
                const inside = box.bottom > top && box.top < innerHeight;
                return shown && inside ? 'shown' : `hidden: ${it.outerHTML.slice(0, 120)}`";
            let focus = browser.run(&format!("{COLOURS}{focus}"), &[]);
            match focus.as_str().unwrap() {
                "shown" => {}
                "left" if left < 2 => left += 1,
                "left" | "again" => break,
                hidden => panic!("{page}: its focus cannot be seen, {hidden}"),
            }
        }
        let missed = "return [...document.querySelectorAll('a[href], button, input, select, textarea')]
            .filter((it) => window.there.has(it) && it.checkVisibility({ visibilityProperty: true }) && !it.disabled && !window.came.has(it)).map((it) => it.outerHTML.slice(0, 120))";
        assert_eq!(browser.run(missed, &[]), json!([]), "{page}: not reached by Tab");
    }

    // A phone: nothing goes sideways, and what was read is read there too.
    browser.resize(360, 740, true);
    let fits = |what: &str| {
        let wide = browser.run("const box = document.querySelector('dialog[open]')?.getBoundingClientRect(); return [document.documentElement.scrollWidth, innerWidth, box ? box.right <= 360 && box.left >= 0 : true]", &[]);
        assert_eq!(wide, json!([360, 360, true]), "{what} goes sideways");
    };
    for (page, text) in PAGES.into_iter().chain(more) {
        show(&browser, page, text);
        fits(page);
        look(&format!("{page} on a phone"));
    }
    // What is asked fits as well, and is read in either light.
    show(&browser, "workspaces/alice", "Take back");
    for (name, close) in [("Suspend", "Cancel"), ("Delete", "Cancel"), ("Stop", "Cancel")] {
        browser.press(name);
        browser.wait("!!document.querySelector('dialog[open]')");
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            fits(name);
            look(&format!("{name}, {scheme}"));
        }
        browser.press(close);
        browser.wait("!document.querySelector('dialog')");
    }
    browser.press("Log out");
    browser.wait("!!document.getElementById('token')");
    fits("login");
    terminal.close();
}
