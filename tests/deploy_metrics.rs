//! What is in `deploy/` for Prometheus and Grafana, tried with a Prometheus that scrapes a gateway in use.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gateway::{Gateway, run, wait_for};
use serde_json::Value;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// A Prometheus of our own, ended with the test.
struct Prometheus {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes this address every second, by the project's own configuration.
    fn start(target: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap();
        let text = text.replace("15s", "1s").replace("127.0.0.1:2280", target);
        let text = text.replace("alerts.yml", deploy("prometheus/alerts.yml").to_str().unwrap());
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, text).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display())).arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}")).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), address, _dir: dir }
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--get", &format!("http://{}{path}", self.address)]);
        for (name, value) in query {
            command.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        serde_json::from_slice(&run(&mut command).stdout).ok()
    }

    /// The series that an expression gives now.
    #[track_caller]
    fn ask(&self, expression: &str) -> Vec<Value> {
        let answer = self.get("/api/v1/query", &[("query", expression)]).unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The gateway's metrics that an expression names, as they are registered.
fn named(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let bare = |word: &str| {
        let name = word.strip_prefix("innkeeper_")?;
        Some(["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned())
    };
    words.filter_map(bare).collect()
}

#[test]
fn rules_are_what_promtool_takes() {
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"], ["check", "config", "prometheus.yml"]] {
        run(Command::new("promtool").args(arguments).current_dir(deploy("prometheus"))).good();
    }
}

#[test]
fn every_rule_and_panel_reads_what_a_gateway_says() {
    let gateway = Gateway::start("[pool]\nsize = 1\n\n[capacity]\nsample_every = \"1s\"\n");
    gateway.exec("alice", "true").good();
    gateway.exec("bob", "true").good();
    let _held = gateway.hold("alice", "echo up; sleep 1000");
    let prometheus = Prometheus::start(&format!("127.0.0.1:{}", gateway.http_port));
    wait_for("a scrape", || {
        prometheus
            .get("/api/v1/query", &[("query", "innkeeper_sessions_open")])
            .is_some_and(|answer| !answer["data"]["result"][0].is_null())
    });
    // What is in homes is measured now and then, and waits for nobody.
    wait_for("homes to be measured", || !prometheus.ask("innkeeper_workspace_disk_used_bytes").is_empty());
    // Two scrapes make a rate.
    wait_for("a rate", || !prometheus.ask("rate(innkeeper_sweeps_total[1m])").is_empty());
    assert_eq!(prometheus.ask("up{job=\"innkeeper\"}")[0]["value"][1], "1");
    let rules = prometheus.get("/api/v1/rules", &[]).unwrap();
    let rules: Vec<(String, String)> = rules["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| (rule["name"].as_str().unwrap().to_owned(), rule["query"].as_str().unwrap().to_owned()))
        .collect();
    assert!(rules.len() > 10, "{rules:?}");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(deploy("grafana/innkeeper.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        panel["targets"].as_array().unwrap().iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    });
    // What Grafana puts in for them.
    let panels = panels.map(|(title, text)| (title, text.replace("$instance", ".*").replace("$__rate_interval", "1m")));
    let source = include_str!("../src/telemetry/metrics.rs").to_owned() + include_str!("../src/telemetry/containers.rs");
    let mut empty = Vec::new();
    for (name, expression) in rules.iter().cloned().map(|(name, query)| (format!("alert {name}"), query)).chain(panels) {
        for metric in named(&expression) {
            assert!(source.contains(&format!("\"{metric}\"")), "{name}: there is no metric innkeeper_{metric}");
            // What is not there before it is counted has not increased when it is.
            let counted = name.starts_with("alert ") && metric.ends_with("_total");
            assert!(!counted || !prometheus.ask(&format!("innkeeper_{metric}")).is_empty(), "{name}: innkeeper_{metric} is not there yet");
        }
        if prometheus.ask(&expression).is_empty() && !name.starts_with("alert ") {
            empty.push(format!("{name}: {expression}"));
        }
    }
    // Nothing was stopped, waited or was asked for by URL here, and services there are none.
    let quiet = ["service", "url_requests", "stops_total", "queue_seconds"];
    empty.retain(|text| !quiet.iter().any(|word| text.contains(word)));
    assert!(empty.is_empty(), "panels that show nothing of a gateway in use:\n{}", empty.join("\n"));
    // An alert that is quiet now fires when the gateway goes away.
    drop(gateway);
    wait_for("the gateway to be missed", || !prometheus.ask("ALERTS{alertname=\"InnkeeperDown\"}").is_empty());
}
