//! The program itself, run as people and scripts run it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

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

/// Every command, as its words: what the program's own help lists, and what the help of that lists. Those that only have others below them too.
fn commands() -> Vec<Vec<String>> {
    let mut found = vec![Vec::<String>::new()];
    let mut at = 0;
    while at < found.len() {
        let words = found[at].clone();
        let help = run(&[words.iter().map(String::as_str).collect::<Vec<_>>(), vec!["--help"]].concat());
        let listed = stdout(&help).lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        // What goes on in a second line is indented further.
        let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next());
        found.extend(names.filter(|name| *name != "help").map(|name| [words.clone(), vec![name.to_owned()]].concat()));
        at += 1;
    }
    found
}

/// The same, as arguments.
fn arguments(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// The long options of a command, as its help lists them.
fn options(words: &[String]) -> Vec<String> {
    let help = run(&[arguments(words), vec!["--help"]].concat());
    let listed = stdout(&help).lines().skip_while(|line| *line != "Options:").skip(1);
    let option = |line: &str| Some(line.trim_start().split([' ', ',']).find(|word| word.starts_with("--"))?.to_owned());
    listed.filter(|line| line.trim_start().starts_with('-')).filter_map(option).collect()
}

#[test]
fn help_is_there_for_every_command() {
    let all = commands();
    assert!(all.len() > 70, "{all:?}");
    for command in &all {
        let command = arguments(command);
        let output = run(&[command.clone(), vec!["--help"]].concat());
        let help = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(output.stderr.is_empty() && help.contains("Usage: innkeeper") && help.contains("--config <FILE>"), "{command:?}: {help}");
        // The first line says what it does.
        assert!(help.lines().next().unwrap().split(' ').count() > 2, "{command:?}: {help}");
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
        assert!(stdout(&output).contains("INNKEEPER_COMPLETE"), "{shell}");
    }
}

/// A shell with nothing of this process's environment but a path on which the program and its own programs are.
fn shell(name: &str, arguments: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_innkeeper")).parent().unwrap().display().to_string();
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", format!("{program}:/usr/local/bin:/usr/bin:/bin"))
        .env("TERM", "dumb")
        .stdin(Stdio::null());
    command
}

/// What each shell offers after these words, the last one unfinished: it loads the script that the program prints for it.
fn completed(shell_name: &str, words: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, &run(&["completions", shell_name]).stdout).unwrap();
    let (script, line) = (script.display().to_string(), words.join(" "));
    let (last, count) = (words.last().unwrap(), words.len() - 1);
    let ask = match shell_name {
        "bash" => format!(
            "source {script}; COMP_WORDS=({line}); COMP_CWORD={count}; COMP_TYPE=9; \
             f=$(complete -p innkeeper | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f innkeeper '{last}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        ),
        "fish" => format!("source {script}; complete -C '{line}' | cut -f 1"),
        // Its own functions stand in for the line editor: they are given what the script offers.
        "zsh" => format!(
            "compdef() {{ f=$1 }}; _describe() {{ local offered=${{@[-1]}}; print -l -- ${{(P)offered}} }}; source {script}; words=({line}); [[ '{last}' == '' ]] && words+=(''); \
             CURRENT={} ; $f | sed 's/:.*//'",
            count + 1
        ),
        other => panic!("{other}"),
    };
    let options: &[&str] = match shell_name {
        "bash" => &["--norc", "-c", &ask],
        "fish" => &["--no-config", "-c", &ask],
        _ => &["-f", "-c", &ask],
    };
    let output = shell(shell_name, options).env("HOME", directory.path()).output().unwrap();
    assert!(output.stderr.is_empty(), "{shell_name}: {}", stderr(&output));
    let mut offered: Vec<String> = stdout(&output).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    offered.sort();
    offered
}

#[test]
fn every_shell_completes_commands_and_options() {
    for shell in ["bash", "fish", "zsh"] {
        let expected = ["capacity", "check", "clean", "completions", "config"];
        assert_eq!(completed(shell, &["innkeeper", "c"]), expected, "{shell}");
        assert_eq!(completed(shell, &["innkeeper", "workspace", "su"]), ["suspend"], "{shell}");
        assert_eq!(completed(shell, &["innkeeper", "workspace", "delete", "--b"]), ["--backups"], "{shell}");
        // Nobody answers who would know a name, and that is no reason to complain.
        assert_eq!(completed(shell, &["innkeeper", "--config", "/nowhere/config.toml", "workspace", "stop", "al"]), [""; 0], "{shell}");
    }
}

#[test]
fn every_command_and_option_is_in_the_manual() {
    let page = run(&["man"]);
    let seen = rendered(&page.stdout, "man");
    // As a person searches in it: whatever the width, the words of a heading or an option are on one line.
    for words in commands() {
        let name = format!("innkeeper {}", words.join(" "));
        let own = rendered(&run(&[vec!["man"], arguments(&words)].concat()).stdout, &name);
        let is_one = options(&words).iter().any(|option| option == "--help") && !own.contains("COMMANDS");
        if is_one {
            assert!(seen.lines().any(|line| line.trim() == name.trim()), "{name} has no heading");
        }
        let section = if is_one { seen.split(&format!("\n   {name}\n")).nth(1).unwrap_or_else(|| panic!("{name}")) } else { seen.as_str() };
        let section = section.split("\n   innkeeper ").next().unwrap();
        for option in options(&words) {
            assert!(own.contains(&option), "man {name}: {option}");
            assert!(!is_one || section.contains(&option), "{name}: {option}");
        }
    }
    let wrong = run(&["man", "workspace", "nothing"]);
    assert_eq!((wrong.status.code(), stderr(&wrong)), (Some(1), "innkeeper: there is no command workspace nothing\n"));
}

/// A manual page as it is read: neither of the programs that show one may find anything wrong with it.
fn rendered(page: &[u8], name: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("innkeeper.1");
    fs::write(&file, page).unwrap();
    let groff = Command::new("groff").args(["-man", "-Kutf8", "-Tutf8", "-ww", "-P-cbou", "-rLL=200n"]).arg(&file).output().unwrap();
    assert!(groff.status.success() && groff.stderr.is_empty(), "{name}: {}", stderr(&groff));
    let mandoc = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&file).output().unwrap();
    // It has no date, so that it is the same whenever it is built.
    let wrong: Vec<&str> = stdout(&mandoc).lines().filter(|line| !line.contains("missing date")).collect();
    assert_eq!((wrong, stderr(&mandoc)), (Vec::new(), ""), "{name}");
    // Whichever sign it takes for a dash.
    String::from_utf8(groff.stdout).unwrap().replace(['\u{2010}', '\u{2212}'], "-")
}

#[test]
fn with_json_what_goes_wrong_is_an_object_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, &format!("state_dir = '{}'\n", directory.path().display()));
    let output = run(&["workspace", "stop", "alice", "--json", "--config", &path]);
    let why: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice(), &why["exit"], &why["code"]), (Some(1), &b""[..], &1.into(), &Value::Null));
    assert!(why["error"].as_str().unwrap().contains("is `innkeeper serve` running?"), "{why}");
    let path = file(&directory, "[pool]\nsize = 'x'\n");
    let output = run(&["workspace", "stop", "alice", "--json", "--config", &path]);
    let why: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), &why["exit"]), (Some(64), &64.into()));
    // Where there is no such thing, nobody is left believing that there is.
    for words in [&["completions", "bash"][..], &["man"], &["serve"], &["config", "default"], &["workspace", "logs", "alice"]] {
        let output = run(&[words, &["--json"]].concat());
        assert!(output.status.code() == Some(64) && stderr(&output).contains("--json"), "{words:?}: {}", stderr(&output));
    }
    let shown = run(&["config", "show", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).unwrap()["pool"]["size"], 3);
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
