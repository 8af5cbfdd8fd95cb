//! Configurations as people write them: what is taken, what is refused, and what is said about it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use innkeeper::config::{self, Loaded, Origin, Settings, Severity, Sources};
use innkeeper::units::{Size, Span};
use proptest::prelude::*;
use secrecy::ExposeSecret;
use tempfile::TempDir;

/// A directory with a configuration in it.
struct Setting {
    directory: TempDir,
}

impl Setting {
    fn new(config: &str) -> Self {
        let setting = Self { directory: tempfile::tempdir().unwrap() };
        setting.write("config.toml", config, 0o600);
        setting
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn sources(&self, variables: &[(&str, &str)]) -> Sources {
        Sources::new(Some(self.path("config.toml")), variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn load(&self) -> Loaded {
        self.sources(&[]).load().unwrap_or_else(|unusable| panic!("{unusable}"))
    }

    /// Every line said about it, with `config.toml` for the file's path.
    fn complaints(&self, variables: &[(&str, &str)]) -> Vec<String> {
        let problems = match self.sources(variables).load() {
            Ok(loaded) => loaded.warnings,
            Err(unusable) => unusable.problems,
        };
        let directory = format!("{}/", self.directory.path().display());
        problems.iter().map(|problem| problem.to_string().replace(&directory, "")).collect()
    }
}

#[track_caller]
fn check(config: &str, complaints: &[&str]) {
    assert_eq!(Setting::new(config).complaints(&[]), complaints);
}

#[test]
fn without_a_file_the_defaults_hold() {
    let loaded = Sources::new(None, []).load().unwrap();
    assert_eq!(config::effective(&loaded.settings), config::effective(&Sources::new(None, []).load().unwrap().settings));
    assert_eq!(loaded.settings.accounts_file(), Path::new("/var/lib/innkeeper/accounts.toml"));
    assert_eq!(loaded.settings.host_keys(), Path::new("/var/lib/innkeeper/host_keys"));
    assert_eq!(loaded.settings.homes(), Path::new("/var/lib/innkeeper/homes"));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn the_default_file_says_the_defaults() {
    let setting = Setting::new(&config::default_file());
    assert_eq!(setting.complaints(&[]), <[&str; 0]>::default());
    let changed = Settings::diff(&Sources::new(None, []).load().unwrap().settings, &setting.load().settings);
    assert_eq!(changed, <[&str; 0]>::default());
    // What is commented out has no value that would say the same; everything else is there.
    for key in
        ["instance =", "[auth.webhook]", "[template.default]", "\ncpus = 2.0\n", "\n# token =\n", "\n# root =\n", "[limits]", "[log]"]
    {
        assert!(config::default_file().contains(key), "{key}");
    }
}

#[test]
fn the_reference_page_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let current = fs::read_to_string(page).unwrap() == config::reference();
    assert!(current, "stale; mend: cargo run -- config docs > docs/configuration.md");
}

#[test]
fn what_is_in_effect_reads_back_as_the_same() {
    let setting = Setting::new(
        "[idle]\ntimeout = '90m'\n[template.big]\nmemory = '1536MiB'\nenv = { A = 'b', PATH = '/x' }\n[template.big.permit]\nsftp = false\n",
    );
    let first = setting.load().settings;
    let again = Setting::new(&config::effective(&first)).load().settings;
    assert_eq!(Settings::diff(&first, &again), <[&str; 0]>::default());
}

#[test]
fn values_arrive() {
    let settings = Setting::new(
        "instance = 'blue'\n[idle]\ntimeout = '1h 30m'\n[template.big]\nmemory = '64GiB'\ncpus = 16\n[pool]\ntemplate = 'big'\nsize = 1",
    )
    .load()
    .settings;
    assert_eq!(settings.instance.as_str(), "blue");
    assert_eq!(settings.idle.timeout, Span::secs(5400));
    let names: Vec<&str> = settings.template.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["big", "default"], "the default template is always there");
    let big = &settings.template[&settings.pool.template.names()[0]];
    assert_eq!((big.memory, big.cpus, big.pids), (Size::gib(64), 16.0, 512));
}

#[test]
fn unknown_keys_have_a_line_and_a_guess() {
    check("\n[idle]\n  tiemout = '5m'\n", &["config.toml:3:3: idle.tiemout: unknown key `tiemout`, did you mean `timeout`?"]);
    check("[shh]\nlisten = []", &["config.toml:1:2: shh: unknown key `shh`, did you mean `ssh`?"]);
    check(
        "colour = 'blue'\n[template.x]\ncpu = 1\n",
        &[
            "config.toml:1:1: colour: unknown key `colour`, `innkeeper config default` lists all there are",
            "config.toml:3:1: template.x.cpu: unknown key `cpu`, did you mean `cpus`?",
        ],
    );
}

#[test]
fn everything_wrong_is_said_at_once() {
    check(
        "instance = 'Bad'\n[idle]\ntimeout = 30\nsweep_every = '0s'\n[template.big]\nmemory = '1MiB'\nhome = 'home'\n[pool]\ntemplate = 'bgi'\n\
         [limits]\ncontainers = -1\n[ssh]\nlisten = ['localhost']\nmax_startups = '9:120:10'\n[log]\nformat = 'yaml'\nfilter = 'loud=very'",
        &[
            "config.toml:1:1: instance: instance name \"Bad\" has a character other than a-z, 0-9 and -",
            "config.toml:3:1: idle.timeout: invalid type: integer `30`, expected a string; write for example \"30s\", \"5m\", \"1h 30m\"",
            "config.toml:4:1: idle.sweep_every: must be longer than 0s",
            "config.toml:6:1: template.big.memory: must be at least 16MiB",
            "config.toml:7:1: template.big.home: must be an absolute path without `..`, for example \"/home/user\"",
            "config.toml:9:1: pool.template: there is no [template.bgi]; there is: big, default",
            "config.toml:11:1: limits.containers: invalid value: integer `-1`, expected usize; write a whole number that is not negative, \
             for example 10",
            "config.toml:13:1: ssh.listen: \"localhost\" is not an address; write an IP address and a port, for example \"0.0.0.0:2200\" or \
             \"[::]:2200\"",
            "config.toml:14:1: ssh.max_startups: rate is a percentage and must not be above 100; write `start:rate:full`, for example \
             \"100:30:500\"",
            "config.toml:16:1: log.format: unknown variant `yaml`, expected `text` or `json`",
            "config.toml:17:1: log.filter: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", \
             or a number 0-5; write for example \"info\" or \"warn,innkeeper::ssh=debug\"",
        ],
    );
}

#[test]
fn what_is_not_toml_has_a_place() {
    let said = Setting::new("[idle]\ntimeout = 5m\n").complaints(&[]);
    assert!(said.len() == 1 && said[0].starts_with("config.toml:2:11: not TOML: "), "{said:?}");
    let said = Setting::new("[idle]\n[idle]\n").complaints(&[]);
    assert!(said.len() == 1 && said[0].starts_with("config.toml:2:2: not TOML: duplicate key"), "{said:?}");
}

#[test]
fn sections_are_no_values() {
    check("pool = 3", &["config.toml:1:1: pool: is a section, not a value; write its keys below [pool]"]);
    check("[template]\nbig = 3", &["config.toml:2:1: template.big: is a section, not a value; write its keys below [template.big]"]);
}

#[test]
fn the_webhook_needs_a_place() {
    let with = |rest: &str| format!("[auth]\nmethods = ['webhook']\n[auth.webhook]\n{rest}");
    let complaint = |rest: &str| Setting::new(&with(rest)).complaints(&[]).join("\n");
    assert!(
        complaint("").starts_with("config.toml:3:7: auth.webhook.url: is not set, and `auth.methods` has \"webhook\"; write for example")
    );
    assert!(complaint("url = 'ftp://x/'").contains("must begin with http:// or https://"));
    assert!(complaint("url = 'https://u:hunter2@x/'").contains("set `auth.webhook.token_file`"));
    assert!(!complaint("url = 'https://u:hunter2@x/'").contains("hunter2"));
    assert!(
        complaint("url = 'http://login.example.com/'").contains("warning: auth.webhook.url: sends passwords over the network unencrypted")
    );
    assert_eq!(complaint("url = 'http://127.0.0.1:8000/ssh'"), "");
    assert_eq!(complaint("url = 'http://[::1]:8000/ssh'"), "");
    assert!(complaint("url = 'https://x/'\nclient_cert_file = 'x'").contains("client_cert_file: needs `client_key_file` beside it"));
    assert!(complaint("url = 'https://x/'\ntimeout = '5m'").contains("must not be longer than `ssh.login_grace`"));
    check(
        "[auth]\nmethods = []",
        &["config.toml:2:1: auth.methods: is empty, so that nobody could log in; write for example [\"accounts\"]"],
    );
}

#[test]
fn secrets_come_from_files_and_are_in_one_place_only() {
    let setting = Setting::new("[auth]\nmethods = ['webhook']\n[auth.webhook]\nurl = 'https://x/'\ntoken_file = 'token'\n");
    assert!(setting.complaints(&[])[0].starts_with("config.toml:5:1: auth.webhook.token_file: token: cannot be read: No such file"));
    setting.write("token", " \n", 0o600);
    assert_eq!(setting.complaints(&[]), ["config.toml:5:1: auth.webhook.token_file: token: is empty; put the secret into it"]);
    setting.write("token", " hunter2 \n", 0o600);
    let loaded = setting.load();
    assert_eq!(loaded.settings.auth.webhook.token.as_ref().unwrap().expose_secret(), "hunter2");
    assert_eq!(loaded.warnings, []);
    assert!(!format!("{loaded:?}").contains("hunter2"));

    setting.write("token", "hunter2", 0o644);
    let warning = &setting.load().warnings[0];
    assert_eq!((warning.severity, warning.key.as_str()), (Severity::Warning, "auth.webhook.token_file"));
    assert!(warning.message.contains("chmod 600"));

    let both = setting.complaints(&[("INNKEEPER__AUTH__WEBHOOK__TOKEN", "hunter3")]);
    assert_eq!(both, ["config.toml:5:1: auth.webhook.token_file: `auth.webhook.token` is set as well; take one of the two out"]);
}

#[test]
fn secrets_do_not_show_wherever_they_come_from() {
    let setting = Setting::new("[auth.webhook]\ntoken = 'hunter2'");
    assert_eq!(setting.complaints(&[]), <[&str; 0]>::default());
    assert!(!format!("{:?}", setting.load()).contains("hunter2"));
    let variable = [("INNKEEPER__AUTH__WEBHOOK__TOKEN", "hunter3")];
    let loaded = setting.sources(&variable).load().unwrap();
    assert_eq!(loaded.settings.auth.webhook.token.as_ref().unwrap().expose_secret(), "hunter3");
    assert!(!format!("{loaded:?}").contains("hunter3"));

    setting.write("config.toml", "[auth.webhook]\ntoken = 'hunter2'", 0o644);
    let exposed = setting.complaints(&[]);
    assert!(exposed[0].starts_with("config.toml:2:1: warning: auth.webhook.token: everybody on this machine can read it; mend: chmod 600"));
    assert_eq!(setting.complaints(&variable), <[&str; 0]>::default(), "the file's secret is not the one in use");
}

#[test]
fn services_are_checked_with_their_places() {
    let service = |rest: &str| format!("[[template.web.service]]\nname = 'web'\n{rest}");
    let settings =
        Setting::new(&service("command = ['serve', '-v']\nrestart = 'never'\n[template.web.service.ready]\nport = 80\nevery = '2s'"));
    let settings = settings.load().settings;
    let web = &settings.template.values().last().unwrap().service[0];
    assert_eq!((web.command.as_slice(), web.ready.as_ref().unwrap().port), (&["serve".to_owned(), "-v".to_owned()][..], Some(80)));
    assert_eq!(Setting::new(&config::effective(&settings)).load().settings.template, settings.template, "reads back as the same");

    let key = "template.web.service.0";
    check(&service(""), &[&format!("config.toml:1:1: {key}.command: must be set, or `image = true` for the image's own program")]);
    check(
        &service("image = true\ncommand = ['x']"),
        &[&format!("config.toml:3:1: {key}.image: and `command` are both set; take one of the two out")],
    );
    check(
        &service("comand = ['x']\nimage = true"),
        &[&format!("config.toml:3:1: {key}.comand: unknown key `comand`, did you mean `command`?")],
    );
    check(
        &service("image = true\ndirectory = 'srv'"),
        &[&format!("config.toml:4:1: {key}.directory: must be an absolute path, for example \"/srv/app\"")],
    );
    check(
        &service("image = true\n[template.web.service.ready]\nevery = '1500ms'\nimage = true\nport = 0\nretries = 0"),
        &[
            &format!("config.toml:4:23: {key}.ready: must have exactly one of `port`, `command` and `image = true`"),
            &format!("config.toml:5:1: {key}.ready.every: must be whole seconds, at least 1s and not longer than ten years"),
            &format!("config.toml:7:1: {key}.ready.port: must be from 1 to 65535"),
            &format!("config.toml:8:1: {key}.ready.retries: must be at least 1"),
        ],
    );
    check(
        &format!("{}\n{}", service("image = true"), service("image = true\nrestart = 'maybe'\nready = 3")),
        &[
            "config.toml:5:1: template.web.service.1.name: there is another service called web",
            "config.toml:6:1: template.web.service.1.image: is set in another service; the image has but one program",
            "config.toml:7:1: template.web.service.1.restart: unknown variant `maybe`, expected one of `always`, `on-failure`, `never`",
            "config.toml:8:1: template.web.service.1.ready: is a section, not a value; write its keys below [template.web.service.ready]",
        ],
    );
    check(
        "[template.web]\nservice = 3",
        &[
            "config.toml:2:1: template.web.service: is a list of sections; write the keys of each below a [[template.web.service]] of its own",
        ],
    );
    let long = Setting::new(&service(&format!("command = ['serve', '{}']", "x".repeat(65_536)))).complaints(&[]);
    assert!(
        long[0].starts_with("config.toml:1:16: template.web.service: is 65") && long[0].ends_with("must not be above 65536"),
        "{long:?}"
    );
}

#[test]
fn a_list_of_services_is_one_variable() {
    let setting = Setting::new("");
    let list = [("INNKEEPER__TEMPLATE__WEB__SERVICE", "[{ image = true, ready = { port = 80 } }]")];
    let settings = setting.sources(&list).load().unwrap().settings;
    assert_eq!(settings.template.values().last().unwrap().service[0].ready.as_ref().unwrap().port, Some(80));
    assert_eq!(
        setting.complaints(&[("INNKEEPER__TEMPLATE__WEB__SERVICE__0__IMAGE", "true")]),
        ["INNKEEPER__TEMPLATE__WEB__SERVICE__0__IMAGE: unknown key `0`: `template.web.service` is a list, and set as a whole"]
    );
    let wrong = setting.complaints(&[("INNKEEPER__TEMPLATE__WEB__SERVICE", "[{ imag = true }]")]);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].starts_with("INNKEEPER__TEMPLATE__WEB__SERVICE: template.web.service.0.imag: unknown key `imag`"), "{wrong:?}");
}

proptest! {
    #[test]
    fn no_file_and_no_variable_panics(text in "([a-z]{1,5}|idle|timeout|template|service|ready|auth|[\\[\\]={}.\"'\n 0-9])*", value in "\\PC*") {
        let setting = Setting::new(&text);
        setting.complaints(&[("INNKEEPER__IDLE", &value), ("INNKEEPER__TEMPLATE__X__CPUS", &value)]);
    }
}

#[test]
fn paths_are_not_empty() {
    check(
        "state_dir = ''\n[ssh]\nhost_keys = ''",
        &[
            "config.toml:1:1: state_dir: must be a path, and is empty or relative",
            "config.toml:3:1: ssh.host_keys: must be a path, and is empty or relative",
        ],
    );
}

#[test]
fn names_of_templates_are_checked() {
    check(
        "[template.big]\npids = 1\n[template.Big]\nx = 1",
        &[
            "config.toml:2:1: template.big.pids: must be at least 8",
            "config.toml:3:11: template.Big: template name \"Big\" has a character other than a-z, 0-9 and -",
            "config.toml:4:1: template.Big.x: unknown key `x`, `innkeeper config default` lists all there are",
        ],
    );
}

#[test]
fn a_secret_of_the_wrong_type_is_not_repeated() {
    check("[auth.webhook]\ntoken = 1234567", &["config.toml:2:1: auth.webhook.token: write text in quotes"]);
    let elsewhere = Setting::new("[auth]\nwebhook = 'hunter2'").complaints(&[]);
    assert!(!elsewhere.join("").contains("hunter2"), "{elsewhere:?}");
}

#[test]
fn variables_go_before_the_file() {
    let setting = Setting::new("[idle]\ntimeout = '5m'\nsweep_every = '7s'\n[ssh]\nlisten = ['127.0.0.1:1']\n");
    let variables = [
        ("INNKEEPER__IDLE__TIMEOUT", "9m"),
        ("INNKEEPER__SSH__LISTEN", "['127.0.0.1:2', '[::1]:2']"),
        ("INNKEEPER__TEMPLATE__BIG__ENV__EDITOR", "vi"),
        ("UNRELATED", "1"),
    ];
    let settings = setting.sources(&variables).load().unwrap().settings;
    assert_eq!((settings.idle.timeout, settings.idle.sweep_every), (Span::secs(540), Span::secs(7)));
    assert_eq!(settings.ssh.listen, ["127.0.0.1:2", "[::1]:2"]);
    assert_eq!(settings.template.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["big", "default"]);

    let unusable = setting.sources(&[("INNKEEPER__IDLE__TIMEOUT", "soon"), ("INNKEEPER__POOL__SIZE", "few")]).load().unwrap_err();
    let origins: Vec<&Origin> = unusable.problems.iter().map(|problem| &problem.origin).collect();
    let variable = |name: &str| Origin::Variable(name.to_owned());
    assert_eq!(origins, [&variable("INNKEEPER__IDLE__TIMEOUT"), &variable("INNKEEPER__POOL__SIZE")]);
}

#[test]
fn relative_paths_are_relative_to_where_they_are_written() {
    let setting = Setting::new("state_dir = 'state'\n[engine]\nsocket = '/run/x.sock'\n");
    let settings = setting.sources(&[("INNKEEPER__HOME__ROOT", "homes")]).load().unwrap().settings;
    assert_eq!(settings.state_dir, setting.path("state"));
    assert_eq!(settings.host_keys(), setting.path("state/host_keys"));
    assert_eq!(settings.homes(), std::env::current_dir().unwrap().join("homes"));
    assert_eq!(settings.engine.socket, Path::new("/run/x.sock"));
}

#[test]
fn a_reload_says_what_changed_and_what_waits_for_a_restart() {
    let setting = Setting::new("[pool]\nsize = 3\n");
    let running = setting.load();
    setting.write("config.toml", "[pool]\nsize = 4\n[http]\nlisten = ''\n[log]\nformat = 'json'\nfilter = 'debug'", 0o600);
    let reload = running.reload().unwrap();
    assert_eq!(reload.changed, ["http.listen", "log.filter", "log.format", "pool.size"]);
    assert_eq!(reload.needs_restart, ["http.listen", "log.format"]);
    assert_eq!(reload.loaded.settings.pool.size, 4);

    setting.write("config.toml", "[pool]\nsize = 'many'\n", 0o600);
    assert!(running.reload().unwrap_err().to_string().contains("pool.size"));
    assert_eq!(running.settings.pool.size, 3);
}
