//! What a template's containers run beside sessions: as it is written in a configuration, and as init is told.
//!
//! Pure. What the image says of itself is handed in; who is told when is not known here.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use crate::attach;
use crate::engine::ImageProgram;
use crate::name::{ServiceName, WorkspaceName};
use crate::store::Variables;
use crate::units::Span;

/// A program that a container runs beside sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// Its name, of `a-z`, `0-9` and `-`. No two of a template have the same.
    pub name: ServiceName,
    /// Program and arguments. No shell is between. Either this or `image`.
    pub command: Vec<String>,
    /// Whether it is the program that the image is for: its ENTRYPOINT and CMD.
    pub image: bool,
    /// Environment, beside the template's and the image's. Everybody in the container can read it.
    pub env: BTreeMap<String, String>,
    /// Where it starts. Default: the image's WORKDIR for the image's program, the home for a `command`.
    pub directory: Option<String>,
    /// When it is started again after it has ended, with a pause that doubles each time, from 1 s to 1 min.
    pub restart: Restart,
    /// How it is found out whether it does its work. Without this section nobody knows.
    pub ready: Option<Readiness>,
}

/// When a service that has ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Always.
    #[default]
    Always,
    /// Unless it ended with status 0.
    OnFailure,
    /// Never.
    Never,
}

/// How it is found out whether a service does its work. One of `port`, `command` and `image` says by what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Readiness {
    /// It does if something accepts connections on this port of the container's loopback.
    pub port: Option<u16>,
    /// It does if this program, with these arguments, ends with status 0.
    pub command: Vec<String>,
    /// It does if the image's HEALTHCHECK says so. What is not set beside it is then as the image has it.
    pub image: bool,
    /// How often it is looked. Whole seconds, as below. Default: 10s; 30s where an image does not say.
    pub every: Option<Span>,
    /// How long a look may take. Default: 5s; 30s where an image does not say.
    pub timeout: Option<Span>,
    /// How many looks in a row must fail until it is not ready. Default: 3.
    pub retries: Option<u32>,
    /// For how long after its start looks that fail do not count. Default: 10s; 0s where an image does not say.
    pub grace: Option<Span>,
    /// Whether a service that is not ready is started again.
    pub restart: bool,
}

/// What init is told, and what could not be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) services: Vec<attach::Service>,
    pub(super) flaws: Vec<Flaw>,
}

/// What of a template's services the image does not have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    /// The service is not run.
    #[error("service {0}: the image names no program: it has no ENTRYPOINT and no CMD")]
    NoProgram(ServiceName),
    /// Nobody knows whether it is ready.
    #[error("service {0}: the image has no HEALTHCHECK")]
    NoCheck(ServiceName),
    /// It is not run.
    #[error("service {0}: what the image says of it is longer than {LONGEST_OF_IMAGE} bytes")]
    TooLong(ServiceName),
    /// It is not run.
    #[error("service {0}: with those before it, it would be given more than {LONGEST_OF_WORKSPACE} bytes of the workspace's variables")]
    TooManyVariables(ServiceName),
}

/// What is taken where nobody says anything: seconds, and looks.
struct Pace {
    every: u32,
    timeout: u32,
    retries: u32,
    grace: u32,
}

/// Most that is taken from an image, in bytes. Beside it, the 64 KiB that a template's services may have
/// (`config/services.rs`) fit into one message to init (192 KiB).
const LONGEST_OF_IMAGE: usize = 64 * 1024;

/// Most that all services together are given of their workspace's own variables, in bytes: what is left of that message, nearly. A workspace may
/// have as much for a service of its only one.
const LONGEST_OF_WORKSPACE: usize = 52 * 1024;

/// A pace at which a web service that hangs is noticed within half a minute, and one that takes a while to start is not bothered.
const OURS: Pace = Pace { every: 10, timeout: 5, retries: 3, grace: 10 };

/// What Docker takes where a HEALTHCHECK says nothing.
const DOCKERS: Pace = Pace { every: 30, timeout: 30, retries: 3, grace: 0 };

// === impl Service ===

impl Service {
    /// Whether anything of it is the image's to say.
    pub(super) fn asks_image(&self) -> bool {
        self.image || self.ready.as_ref().is_some_and(|ready| ready.image)
    }

    fn told(
        &self,
        image: &ImageProgram,
        workspace: &WorkspaceName,
        variables: &Variables,
        flaws: &mut Vec<Flaw>,
    ) -> Option<attach::Service> {
        let (command, directory) = if self.image { (&image.command, Some(&image.directory)) } else { (&self.command, None) };
        if command.is_empty() {
            flaws.push(Flaw::NoProgram(self.name.clone()));
            return None;
        }
        let ready = self.ready.as_ref().and_then(|ready| {
            let told = ready.told(image);
            if told.is_none() {
                flaws.push(Flaw::NoCheck(self.name.clone()));
            }
            told
        });
        let check = self.ready.as_ref().filter(|ready| ready.image).and(image.check.as_ref());
        let of_image = self.image.then_some(command).into_iter().chain(check.map(|check| &check.command)).flatten();
        if of_image.map(|word| word.len() + 8).sum::<usize>() > LONGEST_OF_IMAGE {
            flaws.push(Flaw::TooLong(self.name.clone()));
            return None;
        }
        let own = [("INNKEEPER_WORKSPACE".to_owned(), workspace.to_string())];
        let mut env = self.env.clone();
        env.extend(variables.env.iter().map(|(name, value)| (name.to_string(), value.clone())));
        env.extend(variables.secrets.iter().map(|(name, value)| (name.to_string(), value.expose_secret().to_owned())));
        let env = env.into_iter().chain(own).map(|(name, value)| attach::Variable { name, value }).collect();
        Some(attach::Service {
            name: self.name.to_string(),
            command: command.clone(),
            env,
            directory: self.directory.as_ref().or(directory).cloned(),
            restart: match self.restart {
                Restart::Always => attach::Restart::Always,
                Restart::OnFailure => attach::Restart::OnFailure,
                Restart::Never => attach::Restart::Never,
            },
            ready,
        })
    }
}

// === impl Readiness ===

impl Readiness {
    /// `None`: the image has no HEALTHCHECK.
    fn told(&self, image: &ImageProgram) -> Option<attach::Ready> {
        let (by, pace) = match (self.port, self.image) {
            (Some(port), _) => (attach::Check::Port(port), OURS),
            (None, false) => (attach::Check::Command(self.command.clone()), OURS),
            (None, true) => {
                let check = image.check.as_ref()?;
                let pace = Pace {
                    every: check.every.map_or(DOCKERS.every, at_least_a_second),
                    timeout: check.timeout.map_or(DOCKERS.timeout, at_least_a_second),
                    retries: check.retries.unwrap_or(DOCKERS.retries),
                    grace: check.grace.map_or(DOCKERS.grace, whole_seconds),
                };
                (attach::Check::Command(check.command.clone()), pace)
            }
        };
        Some(attach::Ready {
            by,
            every: self.every.map_or(pace.every, |every| whole_seconds(every.get())),
            timeout: self.timeout.map_or(pace.timeout, |timeout| whole_seconds(timeout.get())),
            retries: self.retries.unwrap_or(pace.retries),
            grace: self.grace.map_or(pace.grace, |grace| whole_seconds(grace.get())),
            restart: self.restart,
        })
    }
}

// === impl Plan ===

impl Plan {
    /// What init is told so that a workspace's container runs these, given what its image says and which variables the workspace has.
    pub(super) fn of(services: &[Service], image: &ImageProgram, workspace: &WorkspaceName, variables: &Variables) -> Self {
        let (mut flaws, mut told, mut bytes) = (Vec::new(), Vec::new(), 0);
        let own = variables.env.iter().map(|(name, value)| name.as_str().len() + value.len());
        let secret = variables.secrets.iter().map(|(name, value)| name.as_str().len() + value.expose_secret().len());
        // What each costs beside its bytes, generously.
        let each: usize = own.chain(secret).map(|length| length + 16).sum();
        for service in services {
            if bytes + each > LONGEST_OF_WORKSPACE {
                flaws.push(Flaw::TooManyVariables(service.name.clone()));
            } else if let Some(service) = service.told(image, workspace, variables, &mut flaws) {
                bytes += each;
                told.push(service);
            }
        }
        Self { services: told, flaws }
    }
}

/// Rounded up: a check that is allowed more than it was given is better than one that is never good.
fn whole_seconds(span: Duration) -> u32 {
    let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// HEALTHCHECKs may say milliseconds.
fn at_least_a_second(span: Duration) -> u32 {
    whole_seconds(span).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ImageCheck;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn image(check: Option<ImageCheck>) -> ImageProgram {
        ImageProgram { command: words("/run -v"), directory: "/srv".to_owned(), check }
    }

    fn plan(services: &[Service], image: &ImageProgram) -> Plan {
        Plan::of(services, image, &"alice".parse().unwrap(), &Variables::default())
    }

    #[test]
    fn a_workspaces_variables_go_before_the_services_and_secrets_before_those() {
        let written = parsed("command = ['serve']\nenv = { A = 'service', B = 'service', C = 'service' }");
        let named = |name: &str| name.parse().unwrap();
        let mut variables = Variables::default();
        variables.env.extend([(named("B"), "workspace".to_owned()), (named("C"), "workspace".to_owned())]);
        variables.secrets.insert(named("C"), "secret".to_owned().into());
        let told =
            |variables: &Variables| Plan::of(&[written.clone(), written.clone()], &image(None), &"alice".parse().unwrap(), variables);
        let env: Vec<_> = told(&variables).services[0].env.iter().map(|v| format!("{}={}", v.name, v.value)).collect();
        assert_eq!(env, ["A=service", "B=workspace", "C=secret", "INNKEEPER_WORKSPACE=alice"]);
        variables.secrets.insert(named("LONG"), "x".repeat(48 * 1024).into());
        let Plan { services, flaws } = told(&variables);
        assert_eq!((services.len(), flaws), (1, vec![Flaw::TooManyVariables("main".parse().unwrap())]));
    }

    fn parsed(toml: &str) -> Service {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn a_command_is_told_as_it_is_written() {
        let written = parsed("name = 'web'\ncommand = ['serve', 'a b']\nenv = { PORT = '80' }\nrestart = 'on-failure'\nready.port = 80");
        let Plan { services, flaws } = plan(&[written], &image(None));
        assert_eq!(flaws, []);
        let service = &services[0];
        assert_eq!((service.name.as_str(), service.command.as_slice()), ("web", &["serve".to_owned(), "a b".to_owned()][..]));
        let env: Vec<_> = service.env.iter().map(|variable| format!("{}={}", variable.name, variable.value)).collect();
        assert_eq!(env, ["PORT=80", "INNKEEPER_WORKSPACE=alice"]);
        assert_eq!((service.directory.as_ref(), service.restart), (None, attach::Restart::OnFailure));
        let ready = attach::Ready { by: attach::Check::Port(80), every: 10, timeout: 5, retries: 3, grace: 10, restart: false };
        assert_eq!(service.ready.as_ref(), Some(&ready));
    }

    #[test]
    fn the_images_program_is_as_the_image_has_it_unless_something_else_is_said() {
        let check = ImageCheck { command: words("ask me"), every: Some(Duration::from_millis(200)), ..ImageCheck::default() };
        let image = image(Some(check));
        let service = plan(&[parsed("image = true\nready = { image = true, grace = '1m' }")], &image).services.remove(0);
        assert_eq!((service.name.as_str(), service.command, service.directory.as_deref()), ("main", words("/run -v"), Some("/srv")));
        let by = attach::Check::Command(words("ask me"));
        assert_eq!(service.ready, Some(attach::Ready { by, every: 1, timeout: 30, retries: 3, grace: 60, restart: false }));
        assert_eq!(plan(&[parsed("image = true\ndirectory = '/x'")], &image).services[0].directory.as_deref(), Some("/x"));
    }

    #[test]
    fn what_the_image_does_not_have_spoils_nothing_else() {
        let bare = ImageProgram { command: Vec::new(), directory: "/".to_owned(), check: None };
        let services = [parsed("image = true"), parsed("name = 'web'\ncommand = ['serve']\nready.image = true")];
        let Plan { services, flaws } = plan(&services, &bare);
        assert_eq!(flaws, [Flaw::NoProgram("main".parse().unwrap()), Flaw::NoCheck("web".parse().unwrap())]);
        assert_eq!((services.len(), services[0].ready.as_ref()), (1, None));
        let long = ImageProgram { command: vec!["x".repeat(LONGEST_OF_IMAGE)], ..image(None) };
        assert_eq!(plan(&[parsed("image = true")], &long).flaws, [Flaw::TooLong("main".parse().unwrap())]);
    }
}
