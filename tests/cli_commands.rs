//! The program itself, run as people and scripts run it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const COMMANDS: [&[&str]; 38] = [
    &[],
    &["account"],
    &["serve"],
    &["check"],
    &["config"],
    &["config", "default"],
    &["config", "docs"],
    &["config", "show"],
    &["healthcheck"],
    &["workspace"],
    &["workspace", "list"],
    &["workspace", "services"],
    &["workspace", "logs"],
    &["workspace", "upgrade"],
    &["workspace", "create"],
    &["workspace", "start"],
    &["workspace", "stop"],
    &["workspace", "restart"],
    &["session"],
    &["session", "list"],
    &["session", "watch"],
    &["session", "end"],
    &["pool"],
    &["pool", "show"],
    &["pool", "resize"],
    &["pool", "pause"],
    &["pool", "resume"],
    &["pool", "drain"],
    &["token"],
    &["token", "create"],
    &["token", "list"],
    &["token", "revoke"],
    &["template"],
    &["template", "list"],
    &["top"],
    &["man"],
    &["clean"],
    &["completions"],
];

/// The program, with nothing of this process's environment but what it needs to run.
fn innkeeper(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    innkeeper(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn file(directory: &TempDir, config: &str) -> String {
    let path = directory.path().join("config.toml");
    fs::write(&path, config).unwrap();
    path.display().to_string()
}

#[test]
fn help_is_there_for_every_command() {
    for command in COMMANDS {
        let output = run(&[command, &["--help"]].concat());
        let help = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(output.stderr.is_empty() && help.contains("Usage: innkeeper") && help.contains("--config <FILE>"), "{command:?}: {help}");
        // The first line says what it does.
        assert!(help.lines().next().unwrap().split(' ').count() > 3, "{command:?}: {help}");
    }
    assert!(stdout(&run(&["--help"])).contains("Exit status: 0 done, 1 failed, 64"));
    assert_eq!(stdout(&run(&["--version"])), format!("innkeeper {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_64_and_says_what_is_right() {
    let nothing = run(&[]);
    assert_eq!(nothing.status.code(), Some(64));
    assert!(stderr(&nothing).contains("Usage: innkeeper") && nothing.stdout.is_empty());
    let typo = run(&["chekc"]);
    assert_eq!(typo.status.code(), Some(64));
    assert!(stderr(&typo).contains("'check'"), "{}", stderr(&typo));
    assert_eq!(run(&["check", "--onlin"]).status.code(), Some(64));
    assert_eq!(run(&["completions", "tcsh"]).status.code(), Some(64));
}

#[test]
fn an_unusable_configuration_is_64_for_whoever_needs_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "[idle]\ntiemout = '5m'\ntimeout = 'soon'\n");
    for command in ["serve", "healthcheck", "clean"] {
        let output = run(&[command, "--config", &path]);
        assert_eq!(output.status.code(), Some(64), "{command}");
        assert!(output.stdout.is_empty());
        let expected = format!(
            "innkeeper: {path}:2:1: idle.tiemout: unknown key `tiemout`, did you mean `timeout`?\n\
             innkeeper: {path}:3:1: idle.timeout: \"soon\" is not a duration (expected number at 0); write for example \"30s\", \"5m\", \"1h 30m\"\n"
        );
        assert_eq!(stderr(&output), expected, "{command}");
    }
    assert_eq!(run(&["config", "show", "--config", &path]).status.code(), Some(64));
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let output = run(&["check", "--config", "/nowhere/config.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stdout(&output).contains("/nowhere/config.toml: cannot be read: No such file"), "{}", stdout(&output));
    let output = innkeeper(&["config", "show"]).env("INNKEEPER_CONFIG", "/nowhere/config.toml").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("/nowhere/config.toml"));
}

#[test]
fn check_says_what_is_wrong_to_people() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "[pool]\nsize = 20\n");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(0));
    let expected =
        format!("! {path}:2:1: warning: pool.size: leaves no place for anybody else: `limits.containers` is 12\n✓ {path} can be used\n");
    assert_eq!(stdout(&output), expected);

    let path = file(&directory, "[pool]\nsize = 'x'\n");
    let output = run(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stdout(&output).starts_with("✗ ") && stdout(&output).ends_with(&format!("✗ {path} cannot be used\n")));
}

#[test]
fn check_says_what_is_wrong_to_programs() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "[pool]\nsize = 'x'\n");
    let output = innkeeper(&["check", "--json", "--config", &path]).env("INNKEEPER__IDEL", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["usable"], false);
    assert_eq!(report["file"], path.as_str());
    let problem = &report["problems"][0];
    assert_eq!((&problem["key"], &problem["severity"]), (&"pool.size".into(), &"error".into()));
    assert_eq!(problem["origin"]["file"], serde_json::json!({ "path": path, "line": 2, "column": 1 }));
    assert_eq!(report["problems"][1]["origin"]["variable"], "INNKEEPER__IDEL");
    assert!(report["problems"][1]["message"].as_str().unwrap().contains("INNKEEPER__IDLE"));
}

#[test]
fn check_looks_at_skeletons() {
    let directory = tempfile::tempdir().unwrap();
    let config = |skeleton: &str| file(&directory, &format!("[template.default]\nskeleton = '{skeleton}'\n"));
    let output = run(&["check", "--config", &config(directory.path().to_str().unwrap())]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).contains("template.default.skeleton"), "{}", stdout(&output));
    let others = [("workspace:alice@v1", 1), ("workspace:alice", 64), ("workspace:../x@v1", 64)];
    for (wrong, status) in [("/nowhere/skeleton", 1), ("/dev/null", 1), ("/etc/hostname", 1), ("relative", 64)].into_iter().chain(others) {
        let output = run(&["check", "--config", &config(wrong)]);
        assert_eq!(output.status.code(), Some(status), "{wrong}: {}", stdout(&output));
    }
}

#[test]
fn check_online_tries_this_machine() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "state_dir = '/proc/nowhere'\n[ssh]\nlisten = ['127.0.0.1:0', '{}', '192.0.2.1:22']\n[http]\nlisten = ''",
        taken.local_addr().unwrap()
    );
    let path = file(&directory, &config);
    let output = run(&["check", "--online", "--json", "--config", &path]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["usable"], true);
    let state = |name: &str| {
        let tried = report["tried"].as_array().unwrap().iter().find(|tried| tried["name"].as_str().unwrap().starts_with(name));
        tried.unwrap_or_else(|| panic!("{name}: {report:#}"))["state"].as_str().unwrap()
    };
    assert_eq!(state("state_dir"), "failed");
    assert_eq!(state("ssh.listen 127.0.0.1:0"), "fine");
    assert_eq!(state(&format!("ssh.listen {}", taken.local_addr().unwrap())), "doubtful");
    assert_eq!(state("ssh.listen 192.0.2.1:22"), "failed");
}

#[test]
fn variables_are_in_effect_and_secrets_are_not_shown() {
    let output = innkeeper(&["config", "show"])
        .env("INNKEEPER__IDLE__TIMEOUT", "17m")
        .env("INNKEEPER__AUTH__WEBHOOK__TOKEN", "hunter2")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("timeout = \"17m\"") && stdout(&output).contains("token = \"***\""));
    assert!(!stdout(&output).contains("hunter2"));

    let output = innkeeper(&["config", "show"]).env("INNKEEPER__IDLE__TIEMOUT", "17m").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(stderr(&output), "innkeeper: INNKEEPER__IDLE__TIEMOUT: unknown key `tiemout`, did you mean INNKEEPER__IDLE__TIMEOUT?\n");
}

#[test]
fn the_default_file_is_usable() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["config", "default"]);
    let path = file(&directory, stdout(&output));
    assert_eq!(stdout(&run(&["check", "--config", &path])), format!("✓ {path} can be used\n"));
}

#[test]
fn completions_are_scripts_that_their_shell_reads() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("healthcheck"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("innkeeper.bash");
    fs::write(&script, &run(&["completions", "bash"]).stdout).unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(innkeeper c); COMP_CWORD=1; _innkeeper innkeeper c innkeeper; echo ${COMPREPLY[*]}";
    let output = Command::new("bash").args(["-c", ask]).arg(&script).output().unwrap();
    assert_eq!(stdout(&output), "capacity check config clean completions\n", "{}", stderr(&output));
}

#[test]
fn healthcheck_is_1_where_nobody_answers() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = innkeeper(&["healthcheck"]).env("INNKEEPER__HTTP__LISTEN", free.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("no answer from http://{free}/healthz")), "{}", stderr(&output));
    let output = innkeeper(&["healthcheck"]).env("INNKEEPER__HTTP__LISTEN", "").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("http.listen is empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_is_0_where_the_gateway_answers() {
    use innkeeper::{http, telemetry};
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pages = http::Pages::new(telemetry::Metrics::new().unwrap(), Vec::new());
    let server = tokio::spawn(http::serve(listener, pages, None, None, tokio_util::sync::CancellationToken::new()));
    // A proxy in the environment is for other people's addresses.
    let mut command = innkeeper(&["healthcheck"]);
    command.env("INNKEEPER__HTTP__LISTEN", address.to_string()).env("http_proxy", "http://127.0.0.1:1");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    server.abort();
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    for arguments in [&["config", "docs"][..], &["completions", "bash"], &["--help"]] {
        let mut child = innkeeper(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut complaint = String::new();
        child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        assert_eq!((child.wait().unwrap().code(), complaint.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, "");
    let plain = run(&["check", "--config", &path]);
    assert_eq!(stdout(&plain), format!("✓ {path} can be used\n"));

    // `script` runs a command at a terminal.
    let at_terminal = |variables: &[(&str, &str)]| {
        let command = format!("{} check --config {path}", env!("CARGO_BIN_EXE_innkeeper"));
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        stdout(&output).to_owned()
    };
    assert!(at_terminal(&[]).contains("\x1b[32m✓\x1b[0m"), "{:?}", at_terminal(&[]));
    assert!(!at_terminal(&[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(Path::new(&path).exists());
}
