//! What is wrong with settings of which every value is of the right type: values that cannot work, alone or together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::Settings;
use super::problem::Problem;
use super::services::check_services;
use super::volumes::check_volumes;
use crate::auth::Method;
use crate::engine::INIT_OPEN_FILES;
use crate::home::{DriverKind, SMALLEST_IMAGE, Skeleton};
use crate::telemetry;
use crate::units::{Size, Span};
use crate::workspace::{Recording, Template};

/// The least memory that a shell and an editor start in.
const LEAST_MEMORY: Size = Size::mib(16);

/// The fewest processes that a login, its shell and a pipe are.
const FEWEST_PIDS: u32 = 8;

/// The fewest open files that common programs expect, and the most: what remains below init's own is for several who send at the limit at once.
const FEWEST_OPEN_FILES: u32 = 64;
const MOST_OPEN_FILES: u32 = INIT_OPEN_FILES - 24_288;

/// The fewest files that a shell, an editor and their settings are.
const FEWEST_INODES: u64 = 64;

/// The least that an image has for each of its files, in bytes: a block.
const IMAGE_BYTES_PER_INODE: u64 = 4096;

/// Most secrets that a template's workspaces have made up for them.
const MOST_SECRETS: usize = 32;

/// The longest span: what is longer is a mistake, and near where clocks overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

impl Settings {
    /// Everything that is wrong with them. Reads no file and asks nobody.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let all = &mut problems;
        self.check_spans(all);
        self.check_ssh(all);
        self.check_auth(all);
        self.check_places(all);
        all.extend(self.urls.flaws().into_iter().map(|(key, why)| Problem::error(key, why)));
        all.extend(self.http.oidc.flaws().into_iter().map(|(key, why)| Problem::error(key, why)));
        all.extend(self.audit.flaws().into_iter().map(|(key, why)| Problem::error(key, why)));
        all.extend(self.recording.flaws().into_iter().map(|(key, why)| Problem::error(key, why)));
        if matches!(self.recording.target(), Ok(Some(_))) && self.recording.key.is_none() {
            let message = "is not set: whoever can read the bucket can read what was on everybody's screen; \
                           mend: openssl rand -hex 32 > FILE, and keep a copy elsewhere";
            all.push(Problem::warning("recording.key_file", message));
        }
        self.check_listeners(all);
        self.check_backup(all);
        for (name, template) in &self.template {
            check_template(&format!("template.{name}"), template, all);
            self.check_quota(&format!("template.{name}"), template.disk, template.inodes, all);
            for (number, volume) in template.volume.iter().enumerate() {
                self.check_quota(&format!("template.{name}.volume.{number}"), volume.disk, volume.inodes, all);
            }
        }
        for (key, path) in self.clone().paths_mut() {
            require(all, path.is_absolute(), key, "must be a path, and is empty or relative");
        }
        if let Err(why) = telemetry::filter(&self.log.filter) {
            all.push(Problem::error("log.filter", format!("{why}; write for example \"info\" or \"warn,innkeeper::ssh=debug\"")));
        }
        problems
    }

    fn check_spans(&self, all: &mut Vec<Problem>) {
        let (ssh, idle, limits) = (&self.ssh, &self.idle, &self.limits);
        let spans = [
            ("ssh.login_grace", ssh.login_grace, false),
            ("ssh.keepalive_interval", ssh.keepalive_interval, false),
            ("ssh.drain_timeout", ssh.drain_timeout, true),
            ("session.keep_lost", self.session.keep_lost, true),
            ("auth.webhook.timeout", self.auth.webhook.timeout, false),
            ("engine.timeout", self.engine.timeout, false),
            ("idle.timeout", idle.timeout, true),
            ("idle.sweep_every", idle.sweep_every, false),
            ("idle.max_lifetime", idle.max_lifetime, true),
            ("idle.warn", idle.warn, true),
            ("idle.stop_grace", idle.stop_grace, true),
            ("backup.every", self.backup.every, true),
            ("backup.keep_for", self.backup.keep_for, true),
            ("backup.verify_every", self.backup.verify_every, true),
            ("recording.keep", self.recording.keep, true),
            ("limits.queue_timeout", limits.queue_timeout, false),
            ("limits.start_timeout", limits.start_timeout, false),
            ("limits.upgrade_timeout", limits.upgrade_timeout, false),
        ];
        let capacity = &self.capacity;
        let within = Span::secs(1)..=Span::secs(60 * 60);
        require(all, within.contains(&capacity.sample_every), "capacity.sample_every", "must be from 1s to 1h");
        let price = capacity.host_price;
        require(all, price.is_finite() && price >= 0.0, "capacity.host_price", "must be a number that is not negative");
        let is_currency = (1..=8).contains(&capacity.currency.len()) && capacity.currency.bytes().all(|byte| byte.is_ascii_alphanumeric());
        require(all, is_currency, "capacity.currency", "must be letters such as \"EUR\"");
        for (key, span, may_be_zero) in spans {
            require(all, may_be_zero || span > Span::secs(0), key, "must be longer than 0s");
            require(all, span.get() <= LONGEST, key, "must not be longer than ten years");
        }
    }

    fn check_ssh(&self, all: &mut Vec<Problem>) {
        let ssh = &self.ssh;
        let at_least_one = [
            ("ssh.max_auth_tries", ssh.max_auth_tries),
            ("ssh.max_startups_per_source", ssh.max_startups_per_source),
            ("ssh.max_connections_per_source", ssh.max_connections_per_source),
            ("ssh.max_sessions", ssh.max_sessions),
            ("ssh.max_forwards", ssh.max_forwards),
            ("ssh.max_listeners", ssh.max_listeners),
            ("ssh.keepalive_max", ssh.keepalive_max),
        ];
        for (key, number) in at_least_one {
            require(all, number >= 1, key, "must be at least 1");
        }
        if let Err(why) = max_startups(&ssh.max_startups) {
            all.push(Problem::error("ssh.max_startups", format!("{why}; write `start:rate:full`, for example \"100:30:500\"")));
        }
        for name in &ssh.accept_env {
            let plain = name.strip_suffix('*').unwrap_or(name);
            let fits = !name.is_empty() && !plain.contains(['*', '=', '\0']) && !plain.contains(char::is_whitespace);
            require(all, fits, "ssh.accept_env", &format!("{name:?} is not the name of a variable, nor the start of one and a `*`"));
        }
    }

    fn check_auth(&self, all: &mut Vec<Problem>) {
        let (methods, webhook) = (&self.auth.methods, &self.auth.webhook);
        require(all, !methods.is_empty(), "auth.methods", "is empty, so that nobody could log in; write for example [\"accounts\"]");
        let distinct = methods.iter().collect::<HashSet<_>>().len();
        require(all, distinct == methods.len(), "auth.methods", "names a method twice");
        let used = methods.contains(&Method::Webhook);
        match webhook_url(&webhook.url) {
            _ if webhook.url.is_empty() && !used => {}
            Err(why) => all.push(Problem::error("auth.webhook.url", why)),
            Ok(_) if !used => all.push(Problem::warning("auth.webhook.url", "is not used: `auth.methods` has no \"webhook\"")),
            Ok(url) if url.scheme() == "http" && !is_this_machine(&url) => {
                let message = "sends passwords over the network unencrypted; write https://, unless that network is yours alone";
                all.push(Problem::warning("auth.webhook.url", message));
            }
            Ok(_) => {}
        }
        let in_time = webhook.timeout <= self.ssh.login_grace;
        require(all, in_time, "auth.webhook.timeout", "must not be longer than `ssh.login_grace`");
        for (key, file, other, needed) in [
            ("auth.webhook.client_cert_file", &webhook.client_cert_file, "client_key_file", &webhook.client_key_file),
            ("auth.webhook.client_key_file", &webhook.client_key_file, "client_cert_file", &webhook.client_cert_file),
        ] {
            require(all, file.is_none() || needed.is_some(), key, &format!("needs `{other}` beside it"));
        }
    }

    fn check_places(&self, all: &mut Vec<Problem>) {
        let (pool, limits) = (&self.pool, &self.limits);
        for name in pool.template.names().iter().filter(|name| !self.template.contains_key(name)) {
            let known: Vec<&str> = self.template.keys().map(|name| name.as_str()).collect();
            let message = format!("there is no [template.{name}]; there is: {}", known.join(", "));
            all.push(Problem::error("pool.template", message));
        }
        require(all, limits.containers >= 1, "limits.containers", "must be at least 1");
        for path in &self.mounts.allow {
            let fits = path.is_absolute() && path.components().nth(1).is_some();
            require(
                all,
                fits,
                "mounts.allow",
                &format!("{path:?} must be an absolute path, and not / itself, for example \"/srv/drives\""),
            );
        }
        require(all, limits.sessions_per_account >= 1, "limits.sessions_per_account", "must be at least 1");
        if pool.size >= limits.containers && limits.containers >= 1 {
            let message = format!("leaves no place for anybody else: `limits.containers` is {}", limits.containers);
            all.push(Problem::warning("pool.size", message));
        }
    }

    /// Whether the driver of homes can give what a template wants for a home or a volume. `key` is the section that says so.
    fn check_quota(&self, key: &str, size: Size, files: Option<u64>, all: &mut Vec<Problem>) {
        let (disk, inodes) = (format!("{key}.disk"), format!("{key}.inodes"));
        require(all, size > Size::bytes(0), &disk, "must be more than 0B");
        if let Some(wanted) = files {
            require(all, wanted >= FEWEST_INODES, &inodes, &format!("must be at least {FEWEST_INODES}"));
        }
        match (self.home.driver, files) {
            (DriverKind::Loop, wanted) => {
                let least = Size::bytes(SMALLEST_IMAGE);
                require(all, size >= least, &disk, &format!("must be at least {least}: `home.driver` is \"loop\""));
                let fits = wanted.is_none_or(|wanted| wanted <= size.get() / IMAGE_BYTES_PER_INODE);
                require(all, fits, &inodes, &format!("must not be more than one for each {IMAGE_BYTES_PER_INODE} bytes of `disk`"));
            }
            (DriverKind::Btrfs, Some(_)) => {
                let message =
                    "cannot be limited: `home.driver` is \"btrfs\", which limits bytes only; leave it out, or choose \"loop\" or \"xfs\"";
                all.push(Problem::error(&inodes, message));
            }
            (DriverKind::Directory, Some(_)) => {
                let message = "is reported and not enforced: `home.driver` is \"directory\"";
                all.push(Problem::warning(&inodes, message));
            }
            (DriverKind::Btrfs | DriverKind::Directory, None) | (DriverKind::Xfs, _) => {}
        }
    }

    fn check_backup(&self, all: &mut Vec<Problem>) {
        let backup = &self.backup;
        require(all, backup.threads >= 1, "backup.threads", "must be at least 1");
        require(all, (1..=100).contains(&backup.verify_percent), "backup.verify_percent", "must be from 1 to 100");
        let keeps = backup.keep_last >= 1 || backup.keep_for > Span::secs(0);
        require(all, keeps, "backup.keep_last", "is 0, and so is `backup.keep_for`: every backup would be taken out again");
        match backup.target() {
            Err(why) => all.push(Problem::error("backup.target", why)),
            Ok(Some(_)) if backup.key.is_none() => {
                let message = "is not set: whoever can read the target can read every home in it; \
                               mend: head -c 32 /dev/urandom | base64 > FILE, and keep a copy elsewhere";
                all.push(Problem::warning("backup.key_file", message));
            }
            Ok(_) => {}
        }
        for (key, s3) in [("backup.s3.endpoint", &backup.s3), ("recording.s3.endpoint", &self.recording.s3)] {
            require(all, s3.is_usable(), key, "is not `https://host:port`, or has a name or password in it");
        }
    }

    fn check_listeners(&self, all: &mut Vec<Problem>) {
        require(
            all,
            !self.ssh.listen.is_empty(),
            "ssh.listen",
            "is empty, so that nobody could connect; write for example [\"0.0.0.0:2200\"]",
        );
        let http = (!self.http.listen.is_empty()).then_some(("http.listen", &self.http.listen));
        let urls = (!self.urls.listen.is_empty()).then_some(("urls.listen", &self.urls.listen));
        let urls = urls.into_iter().chain(self.urls.fixed.iter().map(|fixed| ("urls.fixed", &fixed.listen)));
        let mut taken = BTreeSet::new();
        for (key, text) in self.ssh.listen.iter().map(|text| ("ssh.listen", text)).chain(http).chain(urls) {
            match text.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 && !taken.insert(address) => {
                    all.push(Problem::error(key, format!("{text:?} is listened on twice")));
                }
                Ok(_) => {}
                Err(_) => {
                    let example = "write an IP address and a port, for example \"0.0.0.0:2200\" or \"[::]:2200\"";
                    all.push(Problem::error(key, format!("{text:?} is not an address; {example}")));
                }
            }
        }
    }
}

fn check_template(key: &str, template: &Template, all: &mut Vec<Problem>) {
    let under = |name: &str| format!("{key}.{name}");
    let image_fits = !template.image.is_empty() && !template.image.contains(|c: char| c.is_whitespace() || c.is_control());
    require(all, image_fits, &under("image"), "must name an image, for example \"innkeeper/user:latest\"");
    // As Docker does: not less than a hundredth, which is the smallest share that the kernel gives.
    require(all, template.cpus.is_finite() && template.cpus >= 0.01, &under("cpus"), "must be at least 0.01");
    require(all, template.memory >= LEAST_MEMORY, &under("memory"), &format!("must be at least {LEAST_MEMORY}"));
    require(all, template.pids >= FEWEST_PIDS, &under("pids"), &format!("must be at least {FEWEST_PIDS}"));
    let open_files_fit = (FEWEST_OPEN_FILES..=MOST_OPEN_FILES).contains(&template.open_files);
    require(all, open_files_fit, &under("open_files"), &format!("must be between {FEWEST_OPEN_FILES} and {MOST_OPEN_FILES}"));
    require(all, template.keep_max.get() <= LONGEST, &under("keep_max"), "must not be longer than ten years");
    check_env(&under("env"), &template.env, all);
    let distinct = template.secrets.iter().collect::<HashSet<_>>().len();
    require(all, distinct == template.secrets.len(), &under("secrets"), "names a secret twice");
    require(all, distinct <= MOST_SECRETS, &under("secrets"), &format!("has more than {MOST_SECRETS} secrets"));
    check_services(&under("service"), &template.service, all);
    check_volumes(&under("volume"), template, all);
    let told = template.recording != Recording::Off || !template.watch;
    require(all, told, &under("watch"), "takes `recording = \"terminals\"` beside it: who is watched is told so as who is recorded is");
    let plain = template.home.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..");
    let home_fits = template.home.starts_with('/') && plain && !template.home.contains(|c: char| c.is_control() || c == ':');
    require(all, home_fits, &under("home"), "must be an absolute path without `..`, for example \"/home/user\"");
    check_skeleton(&under("skeleton"), template.skeleton.as_ref(), all);
}

/// What a home or a volume starts with, as far as can be told without looking for it.
pub(super) fn check_skeleton(key: &str, skeleton: Option<&Skeleton>, all: &mut Vec<Problem>) {
    let fits = !matches!(skeleton, Some(Skeleton::Path(path)) if !path.is_absolute());
    let form = "must be the absolute path of a directory or an archive, for example \"/etc/skel\", or \"workspace:NAME@SNAPSHOT\"";
    require(all, fits, key, form);
}

/// Variables of an environment.
pub(super) fn check_env(key: &str, env: &BTreeMap<String, String>, all: &mut Vec<Problem>) {
    for (name, value) in env {
        let fits = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        require(all, fits, key, &format!("{name:?} is not the name of a variable, or its value has a zero byte"));
    }
}

pub(super) fn require(all: &mut Vec<Problem>, holds: bool, key: &str, message: &str) {
    if !holds {
        all.push(Problem::error(key, message));
    }
}

/// The base address of a webhook.
fn webhook_url(text: &str) -> Result<reqwest::Url, String> {
    let example = "write for example \"https://login.example.com/ssh\"";
    if text.is_empty() {
        return Err(format!("is not set, and `auth.methods` has \"webhook\"; {example}"));
    }
    let url = reqwest::Url::parse(text).map_err(|why| format!("is not an address: {why}; {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("must begin with http:// or https:// and a host; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must have no name and no password in it; set `auth.webhook.token_file`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("must have no `?` and no `#` in it: `/password` and `/pubkey` are added; {example}"));
    }
    Ok(url)
}

fn is_this_machine(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether it is of the form `start:rate:full`.
fn max_startups(text: &str) -> Result<(), &'static str> {
    let numbers: Option<Vec<usize>> = text.split(':').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([0, _, _]) => Err("start must be at least 1"),
        Some([_, rate, _]) if *rate > 100 => Err("rate is a percentage and must not be above 100"),
        Some([start, _, full]) if full < start => Err("full must not be below start"),
        Some([_, _, _]) => Ok(()),
        _ => Err("is not three numbers"),
    }
}
