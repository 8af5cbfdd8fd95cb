//! What a request is for: pure.

use std::fmt::Display;

use hyper::http::uri::PathAndQuery;
use hyper::{Request, Uri, header};

use super::Config;
use crate::name::WorkspaceName;

/// A port of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The port on its loopback.
    pub port: u16,
}

/// A request's target, and how it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addressed {
    pub(super) target: Target,
    /// What stands before the application's own path: nothing, or `/@alice/8080`.
    pub(super) prefix: String,
    /// The path and query that the application gets.
    pub(super) path: PathAndQuery,
    /// The host as it was named, with its port.
    pub(super) authority: String,
}

/// Why a request is for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Astray {
    /// It is not well formed.
    Malformed,
    /// Nothing is there, as far as anybody is told.
    Nowhere,
}

impl Target {
    /// From the first label of a host's name.
    fn of_label(label: &str) -> Option<Self> {
        let (port, workspace) = label.split_once("--")?;
        Self::of(workspace, port)
    }

    fn of(workspace: &str, port: &str) -> Option<Self> {
        // As it is written, so that each target has one name.
        let number: u16 = port.parse().ok().filter(|number: &u16| *number != 0 && number.to_string() == port)?;
        Some(Self { workspace: WorkspaceName::try_from(workspace.to_owned()).ok()?, port: number })
    }

    /// Its address, without a slash at the end.
    pub fn url(&self, config: &Config) -> String {
        Self::address(&self.workspace, self.port, config)
    }

    /// The address of a port of a workspace, without a slash at the end.
    pub(super) fn address(workspace: &WorkspaceName, port: impl Display, config: &Config) -> String {
        let scheme = if config.tls_cert.is_some() || config.behind_tls { "https" } else { "http" };
        let Config { domain, port: behind, .. } = config;
        let listens = config.listen.rsplit_once(':').map(|(_, port)| port);
        let reached = if behind.is_empty() { listens } else { behind.strip_prefix(':') };
        let is_usual = |port: &&str| matches!((scheme, *port), ("http", "80") | ("https", "443"));
        let at = reached.filter(|port| !is_usual(port)).map(|port| format!(":{port}")).unwrap_or_default();
        if config.paths {
            format!("{scheme}://{domain}{at}/@{workspace}/{port}")
        } else {
            format!("{scheme}://{port}--{workspace}.{domain}{at}")
        }
    }
}

impl Addressed {
    /// Of a request, where `fixed` is the target of the address that it came to.
    pub(super) fn of<B>(request: &Request<B>, config: &Config, fixed: Option<&Target>) -> Result<Self, Astray> {
        let authority = authority(request)?;
        let whole = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        if let Some(target) = fixed {
            return Ok(Self { target: target.clone(), prefix: String::new(), path: whole, authority });
        }
        let host = host_of(&authority);
        let domain = config.domain.as_str();
        if let Some(label) = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')) {
            let target = Target::of_label(label).ok_or(Astray::Nowhere)?;
            return Ok(Self { target, prefix: String::new(), path: whole, authority });
        }
        if !config.paths || host != domain {
            return Err(Astray::Nowhere);
        }
        let text = whole.as_str();
        let mut parts = text.strip_prefix("/@").ok_or(Astray::Nowhere)?.splitn(3, '/');
        let (workspace, port) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let port = port.split('?').next().unwrap_or_default();
        let target = Target::of(workspace, port).ok_or(Astray::Nowhere)?;
        let prefix = format!("/@{workspace}/{port}");
        let rest = text.get(prefix.len()..).unwrap_or_default();
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        Ok(Self { target, prefix, path: rest.parse().map_err(|_| Astray::Malformed)?, authority })
    }
}

/// The host that a request is for, with its port: told once, and in one way.
fn authority<B>(request: &Request<B>) -> Result<String, Astray> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (host, None) => host,
        (_, Some(_)) => return Err(Astray::Malformed),
    };
    let host = host.map(|host| host.to_str().map_err(|_| Astray::Malformed)).transpose()?;
    let text = match (request.uri().authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => return Err(Astray::Malformed),
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host,
        (None, None) => return Err(Astray::Malformed),
    };
    let text = text.to_ascii_lowercase();
    let is_host =
        text.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some_and(|authority| authority.as_str() == text)) && !text.contains('@');
    if is_host { Ok(text) } else { Err(Astray::Malformed) }
}

/// Without the port, and the dot of a name that is written out.
fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(paths: bool) -> Config {
        Config { domain: "example.org".to_owned(), paths, listen: "0.0.0.0:443".to_owned(), ..Config::default() }
    }

    fn of(host: &str, uri: &str, paths: bool) -> Result<(String, u16, String, String), Astray> {
        let request = Request::builder().uri(uri).header("host", host).body(()).unwrap();
        Addressed::of(&request, &config(paths), None)
            .map(|at| (at.target.workspace.to_string(), at.target.port, at.prefix, at.path.as_str().to_owned()))
    }

    fn found(workspace: &str, port: u16, prefix: &str, path: &str) -> Result<(String, u16, String, String), Astray> {
        Ok((workspace.to_owned(), port, prefix.to_owned(), path.to_owned()))
    }

    #[test]
    fn a_host_names_a_port_and_a_workspace() {
        assert_eq!(of("8080--alice.example.org", "/a?b", false), found("alice", 8080, "", "/a?b"));
        assert_eq!(of("8080--Alice.Example.ORG.:8443", "/", false), found("alice", 8080, "", "/"));
        assert_eq!(of("1--a--b.example.org", "/", false), found("a--b", 1, "", "/"));
        for host in [
            "example.org",
            "alice.example.org",
            "0--alice.example.org",
            "080--alice.example.org",
            "65536--alice.example.org",
            "80----.example.org",
            "80--a.b.example.org",
            "80--alice.example.org.evil.net",
            "80--alice.notexample.org",
            "80--alice",
        ] {
            assert_eq!(of(host, "/", false), Err(Astray::Nowhere), "{host}");
        }
    }

    #[test]
    fn a_path_names_them_where_that_is_on() {
        assert_eq!(of("example.org", "/@alice/8080/x/y?z", true), found("alice", 8080, "/@alice/8080", "/x/y?z"));
        assert_eq!(of("example.org", "/@alice/8080", true), found("alice", 8080, "/@alice/8080", "/"));
        assert_eq!(of("example.org", "/@alice/8080?z", true), found("alice", 8080, "/@alice/8080", "/?z"));
        for (path, paths) in [
            ("/@alice/8080/", false),
            ("/", true),
            ("/@alice", true),
            ("/@alice/x/", true),
            ("/@alice/08080/", true),
            ("/alice/8080/", true),
        ] {
            assert_eq!(of("example.org", path, paths), Err(Astray::Nowhere), "{path}");
        }
    }

    #[test]
    fn two_hosts_are_none() {
        let request =
            Request::builder().uri("/").header("host", "80--alice.example.org").header("host", "80--bob.example.org").body(()).unwrap();
        assert_eq!(Addressed::of(&request, &config(false), None), Err(Astray::Malformed));
        let request = Request::builder().uri("http://80--bob.example.org/").header("host", "80--alice.example.org").body(()).unwrap();
        assert_eq!(Addressed::of(&request, &config(false), None), Err(Astray::Malformed));
        for host in ["", "a b", "user@80--alice.example.org", "80--alice.example.org/x"] {
            assert_eq!(of(host, "/", false), Err(Astray::Malformed), "{host:?}");
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        let target = Target { workspace: "alice".parse().unwrap(), port: 8080 };
        assert_eq!(target.url(&config(false)), "http://8080--alice.example.org:443");
        assert_eq!(target.url(&Config { behind_tls: true, ..config(false) }), "https://8080--alice.example.org");
        assert_eq!(target.url(&Config { port: ":8443".to_owned(), ..config(true) }), "http://example.org:8443/@alice/8080");
    }
}
