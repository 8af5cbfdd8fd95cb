//! The `[urls]` section.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Target;
use crate::name::WorkspaceName;
use crate::units::Span;

/// Workspace URLs: what a workspace serves on its loopback, reached by HTTP from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on; empty: there are none.
    pub listen: String,
    /// The name under which workspaces are: with `example.org`, port 8080 of `alice` is `8080--alice.example.org`. A wildcard of it must lead here.
    pub domain: String,
    /// Whether `/@alice/8080/` on `domain` itself reaches the same, for where no wildcard is to be had. Then all workspaces are one site to
    /// a browser, and what one serves can read what another shows: only where all of them trust each other.
    pub paths: bool,
    /// How others reach `listen` where something in front of it changes the port: `:8443`; empty: as it is.
    pub port: String,
    /// File with the certificate, and those that lead to its root, in PEM. Read again when it changes.
    pub tls_cert: Option<PathBuf>,
    /// File with its key, in PEM. Without the two it is plain HTTP: only behind something that encrypts, or on the loopback.
    pub tls_key: Option<PathBuf>,
    /// Whether something in front of `listen` encrypts, so that links begin with https.
    pub behind_tls: bool,
    /// How long a link is good for, if it is not said otherwise; from `1m` to `24h`.
    pub link_lifetime: Span,
    /// Ports that need no link, of every workspace.
    pub public: Vec<u16>,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address, or one IPv6 /64; 0: as many as `connections`, for where a proxy stands in front, which is one address.
    pub connections_per_address: usize,
    /// Requests at once to one workspace.
    pub requests_per_workspace: usize,
    /// Paths of applications, such as `"/healthz"`, that are asked for to see whether they live. A GET or HEAD of one neither wakes a workspace
    /// nor keeps it running: one that sleeps is answered with 503.
    pub probe_paths: Vec<String>,
    /// How long an application may take to begin an answer, from when it was last sent more of the request.
    pub answer_within: Span,
    /// Addresses that lead to one port of one workspace each.
    pub fixed: Vec<Fixed>,
}

/// An address that leads to one port of one workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// Address to listen on.
    pub listen: String,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Its port.
    pub port: u16,
    /// Whether it needs no link.
    #[serde(default)]
    pub public: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: String::new(),
            domain: String::new(),
            paths: false,
            port: String::new(),
            tls_cert: None,
            tls_key: None,
            behind_tls: false,
            link_lifetime: Span::secs(60 * 60),
            public: Vec::new(),
            connections: 2048,
            connections_per_address: 512,
            requests_per_workspace: 256,
            probe_paths: Vec::new(),
            answer_within: Span::secs(120),
            fixed: Vec::new(),
        }
    }
}

// === impl Config ===

impl Config {
    /// Shortest and longest life of a link, in seconds.
    pub const LIFETIME: std::ops::RangeInclusive<u64> = 60..=24 * 60 * 60;

    /// What is wrong with it, by the key.
    pub fn flaws(&self) -> Vec<(&'static str, String)> {
        let mut flaws = Vec::new();
        let mut require = |holds: bool, key, why: &str| {
            if !holds {
                flaws.push((key, why.to_owned()));
            }
        };
        let is_name = |text: &str| {
            text.len() <= 200
                && text.split('.').all(|label| {
                    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                })
        };
        require(
            self.domain.is_empty() || is_name(&self.domain),
            "urls.domain",
            "must be a host's name in lower case, such as \"example.org\"",
        );
        require(self.listen.is_empty() || !self.domain.is_empty(), "urls.domain", "is not set, and `urls.listen` is");
        require(self.tls_cert.is_some() == self.tls_key.is_some(), "urls.tls_key", "needs `urls.tls_cert`, and the other way round");
        require(Self::LIFETIME.contains(&self.link_lifetime.get().as_secs()), "urls.link_lifetime", "must be from 1m to 24h");
        require(!self.public.contains(&0), "urls.public", "has port 0");
        require(self.fixed.iter().all(|fixed| fixed.port != 0), "urls.fixed", "has port 0");
        require((1..=1_000_000).contains(&self.connections), "urls.connections", "must be from 1 to 1000000");
        require(self.connections_per_address <= 1_000_000, "urls.connections_per_address", "must be from 0 to 1000000");
        let is_path = |path: &String| {
            path.starts_with('/') && path.len() <= 255 && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
        };
        require(self.probe_paths.len() <= 32, "urls.probe_paths", "has more than 32 paths");
        require(self.probe_paths.iter().all(is_path), "urls.probe_paths", "must be paths without a query, such as \"/healthz\"");
        require((1..=100_000).contains(&self.requests_per_workspace), "urls.requests_per_workspace", "must be from 1 to 100000");
        let port = self.port.strip_prefix(':').map(str::parse::<u16>);
        require(self.port.is_empty() || matches!(port, Some(Ok(1..))), "urls.port", "must be a colon and a number, such as \":8443\"");
        flaws
    }

    /// Where a target is reached, without a slash at the end. `None`: nowhere.
    pub fn address_of(&self, target: &Target) -> Option<String> {
        let fixed = self.fixed.iter().find(|fixed| fixed.workspace == target.workspace && fixed.port == target.port);
        match fixed {
            Some(fixed) if self.listen.is_empty() => {
                let scheme = if self.tls_cert.is_some() || self.behind_tls { "https" } else { "http" };
                Some(format!("{scheme}://{}", self.reached_at(&fixed.listen)))
            }
            _ => (!self.listen.is_empty()).then(|| target.url(self)),
        }
    }

    /// Where any port of a workspace is reached, with `{port}` in its place. `None`: not by its name.
    pub fn pattern_of(&self, workspace: &WorkspaceName) -> Option<String> {
        (!self.listen.is_empty()).then(|| Target::address(workspace, "{port}", self))
    }

    /// How others name an address that is listened on: every address of this machine is none to go to.
    fn reached_at(&self, listen: &str) -> String {
        match listen.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_unspecified() => {
                let machine = rustix::system::uname();
                let host = if self.domain.is_empty() { machine.nodename().to_string_lossy() } else { self.domain.as_str().into() };
                format!("{host}:{}", address.port())
            }
            _ => listen.to_owned(),
        }
    }

    /// Whether there are any.
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty() || !self.fixed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_port_of_a_workspace_has_an_address_of_one_pattern() {
        let alice: WorkspaceName = "alice".parse().unwrap();
        let config = |paths, port: &str| Config {
            listen: "127.0.0.1:8080".to_owned(),
            domain: "example.org".to_owned(),
            behind_tls: true,
            port: port.to_owned(),
            paths,
            ..Config::default()
        };
        assert_eq!(config(false, ":443").pattern_of(&alice).as_deref(), Some("https://{port}--alice.example.org"));
        assert_eq!(config(true, "").pattern_of(&alice).as_deref(), Some("https://example.org:8080/@alice/{port}"));
        let target = Target { workspace: alice.clone(), port: 3000 };
        let address = config(false, "").pattern_of(&alice).unwrap().replace("{port}", "3000");
        assert_eq!(config(false, "").address_of(&target), Some(address));
        assert_eq!(Config::default().pattern_of(&alice), None);
    }

    #[test]
    fn a_port_of_its_own_has_an_address_that_leads_there() {
        let target = Target { workspace: "alice".parse().unwrap(), port: 8080 };
        let of = |listen: &str, domain: &str| {
            let fixed = vec![Fixed { listen: listen.to_owned(), workspace: target.workspace.clone(), port: 8080, public: false }];
            Config { domain: domain.to_owned(), fixed, ..Config::default() }.address_of(&target)
        };
        assert_eq!(of("192.0.2.1:9000", "example.org").as_deref(), Some("http://192.0.2.1:9000"));
        assert_eq!(of("[2001:db8::1]:9000", "").as_deref(), Some("http://[2001:db8::1]:9000"));
        for every in ["0.0.0.0:9000", "[::]:9000"] {
            assert_eq!(of(every, "example.org").as_deref(), Some("http://example.org:9000"));
            let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
            assert_eq!(of(every, ""), Some(format!("http://{machine}:9000")));
        }
    }
}
