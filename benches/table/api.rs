//! What the API takes of whoever asks it, a dashboard or a billing system: lists with much in them, and a tenant made from the pool.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Run;
use crate::crowd::{self, Crowd};
use crate::gateway::{Gateway, Setup};
use crate::report::{Row, round};
use crate::samples::Samples;
use crate::wait;

/// How long 99 of 100 answers may take, and a tenant with a container ready for her, in milliseconds.
const LIST: f64 = 50.0;
const TENANT: f64 = 50.0;

/// What the dashboard's pages ask, each at once, and lists that none of them asks for. `{one}` is somebody with sessions.
const PAGES: [(&str, &[&str]); 12] = [
    ("overview", &["overview"]),
    ("workspaces", &["workspaces?limit=1000", "deleted?limit=1000"]),
    (
        "one workspace",
        &[
            "workspaces/{one}",
            "workspaces/{one}/usage?span=hour",
            "workspaces/{one}/sessions?limit=1000",
            "workspaces/{one}/links?limit=1000",
        ],
    ),
    ("sessions", &["sessions?limit=1000"]),
    ("pool and templates", &["pool", "templates", "queue"]),
    ("capacity", &["capacity"]),
    ("recordings", &["recordings?limit=100"]),
    ("audit", &["audit?limit=100"]),
    ("accounts", &["accounts?limit=1000"]),
    ("leases", &["leases"]),
    ("tokens", &["tokens"]),
    ("a hundred workspaces", &["workspaces?limit=100"]),
];

/// What a browser fetches before the first page.
const FILES: [&str; 7] = ["", "style.css", "start.js", "app.js", "api.js", "views/overview.js", "views/workspaces.js"];

/// How long a new tenant's place in the pool may take to be filled again before the next is measured.
const REFILL: Duration = Duration::from_secs(2);

/// Somebody who may ask everything.
pub struct Asker {
    base: String,
    token: String,
    client: Client,
    runtime: Runtime,
}

impl Asker {
    /// With a token of her own.
    pub fn new(gateway: &Gateway) -> Result<Self> {
        let token = gateway.innkeeper(&["token", "create", "bench", "--scope", "admin"])?;
        let base = format!("http://127.0.0.1:{}", gateway.http_port);
        Ok(Self { base, token, client: Client::builder().no_proxy().build()?, runtime: crowd::runtime()? })
    }

    /// How long an answer took until its last byte, and what it was.
    pub fn ask(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<(Duration, String)> {
        wait::go_on()?;
        self.runtime.block_on(async {
            let mut request = self.client.request(method.clone(), format!("{}/api/v1/{path}", self.base)).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.json(body);
            }
            let began = Instant::now();
            let answer = request.send().await?;
            let status = answer.status();
            let text = answer.text().await?;
            let took = began.elapsed();
            ensure!(status.is_success(), "{method} {path}: {status} {text}");
            Ok((took, text))
        })
    }

    /// How long it took until the last byte of the last answer, all asked for at once.
    fn all(&self, paths: &[String]) -> Result<Duration> {
        wait::go_on()?;
        self.runtime.block_on(async {
            let began = Instant::now();
            let answers = paths.iter().map(async |path| {
                let answer = self.client.get(format!("{}/{path}", self.base)).bearer_auth(&self.token).send().await?;
                let status = answer.status();
                let bytes = answer.bytes().await?;
                ensure!(status.is_success() && !bytes.is_empty(), "{path}: {status}");
                Ok(())
            });
            try_join_all(answers).await?;
            Ok(began.elapsed())
        })
    }
}

/// Its rows of the table.
pub fn lists(run: &Run) -> Result<Vec<Row>> {
    let (workspaces, sessions) = (run.repetitions(1000, 100), run.repetitions(500, 50));
    let accounts: Vec<String> = (0..5).map(|number| format!("seated{number}")).collect();
    let setup = Setup { name: "lists", template: "pids = 4096\n", ..Setup::default() };
    let gateway = Gateway::start(&run.place, setup, &accounts)?;
    let asker = Asker::new(&gateway)?;
    run.progress(&format!("lists: {workspaces} workspaces"));
    for number in accounts.len()..workspaces {
        asker.ask(&Method::POST, "workspaces", Some(&json!({ "name": format!("known{number:04}") })))?;
    }
    let crowd = Crowd { name: "lists", port: gateway.port, accounts: &accounts, size: sessions, command: None };
    let runtime = crowd::runtime()?;
    let seats = crowd.arrive(run, &runtime, &crowd::key(run)?)?;
    let mut slowest: Option<(f64, &str)> = None;
    let mut notes = Vec::new();
    let files = FILES.map(|file| format!("dashboard/{file}"));
    let mut pages = vec![("the dashboard's files", files.to_vec())];
    for (name, asks) in PAGES {
        pages.push((name, asks.iter().map(|path| format!("api/v1/{}", path.replace("{one}", &accounts[0]))).collect()));
    }
    for (name, asks) in &pages {
        let mut times = Samples::default();
        for _ in 0..run.repetitions(300, 30) {
            times.push(asker.all(asks)?);
        }
        let worst = times.quantile(0.99);
        notes.push(format!("{name} {}", round(worst)));
        if slowest.is_none_or(|(before, _)| worst > before) {
            slowest = Some((worst, name));
        }
    }
    ensure!(seats.iter().all(|one| !one.connection.is_closed()), "somebody was thrown out");
    let (worst, name) = slowest.unwrap_or_default();
    let what = format!("{workspaces} workspaces, {sessions} sessions: slowest page or list, 99th percentile ({name})");
    Ok(vec![Row::new(what, worst, "ms").at_most(LIST).note(notes.join(", "))])
}

/// Its rows of the table.
pub fn provision(run: &Run) -> Result<Vec<Row>> {
    run.progress("provision");
    let gateway = Gateway::start(&run.place, Setup { name: "provision", pool: 2, ..Setup::default() }, &["first".to_owned()])?;
    let asker = Asker::new(&gateway)?;
    let key = run.place.public_key()?;
    let (mut times, mut ready) = (Samples::default(), 0);
    for number in 0..run.repetitions(20, 5) {
        gateway.until_pool_is_full()?;
        wait::pause(REFILL)?;
        let tenant = json!({ "account": format!("tenant{number}"), "keys": [key] });
        let (took, answer) = asker.ask(&Method::POST, "tenants", Some(&tenant))?;
        times.push(took);
        // With one from the pool it runs when the answer comes.
        let answer: Value = serde_json::from_str(&answer)?;
        ready += usize::from(answer["ready"] == true);
    }
    let note = format!("{}, {ready} of them running when the answer came", times.spread());
    Ok(vec![Row::new("a tenant made by one call, with a container ready", times.median(), "ms").at_most(TENANT).note(note)])
}
