//! The `[http.oidc]` section.

use std::path::PathBuf;

use reqwest::Url;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Logging in at the dashboard through an OpenID Connect provider, beside tokens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The provider, as its own `/.well-known/openid-configuration` names it; empty: none.
    pub issuer: String,
    /// What the dashboard is called at the provider.
    pub client_id: String,
    /// File of the secret that the provider has given for it. Without one the dashboard is a public client; PKCE is used in either case.
    pub client_secret_file: Option<PathBuf>,
    /// Where browsers find the dashboard, without `/dashboard/`: `https://admin.example.org`. The provider must be told to send them back to
    /// `<public_url>/dashboard/oidc/callback`.
    pub public_url: String,
    /// What the button of the login page says.
    pub label: String,
    /// Scopes that are asked for beside `openid`.
    pub scopes: Vec<String>,
    /// What of somebody's claims is her name here: `email`, which must be verified, `preferred_username`, or `sub`.
    pub claim: Claim,
    /// Names of people to whom everything is open.
    pub admins: Vec<String>,
    /// Names of people who may look on.
    pub readers: Vec<String>,
    /// The claim that lists somebody's groups.
    pub groups_claim: String,
    /// Groups to whom everything is open.
    pub admin_groups: Vec<String>,
    /// Groups who may look on.
    pub reader_groups: Vec<String>,
    /// The secret, as it was read.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) client_secret: Option<SecretString>,
}

/// What of somebody's claims is her name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Her address, if the provider says that it has been verified.
    Email,
    /// What she is called at the provider. Only where people cannot choose it themselves.
    PreferredUsername,
    /// The provider's own identifier for her.
    Sub,
}

impl Config {
    /// What is wrong with it, by the key.
    pub fn flaws(&self) -> Vec<(&'static str, String)> {
        let mut flaws = Vec::new();
        if self.issuer.is_empty() {
            return flaws;
        }
        for (key, text) in [("http.oidc.issuer", &self.issuer), ("http.oidc.public_url", &self.public_url)] {
            let fits = Url::parse(text).is_ok_and(|url| {
                let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
                bare && url.has_host() && (url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url))
            });
            if !fits {
                let example = "https:// and a host, for example \"https://admin.example.org\" (http:// only to this host itself)";
                flaws.push((key, format!("{text:?} must begin with {example}")));
            }
        }
        if self.client_id.is_empty() {
            flaws.push(("http.oidc.client_id", "is not set; the provider gives one".to_owned()));
        }
        if [&self.admins, &self.readers, &self.admin_groups, &self.reader_groups].into_iter().all(Vec::is_empty) {
            let mend = "lets nobody in: name people in `admins` or `readers`, or groups in `admin_groups` or `reader_groups`";
            flaws.push(("http.oidc.admins", mend.to_owned()));
        }
        flaws
    }

    /// What is open to somebody with this name in these groups, in the words of a token's scopes.
    pub(super) fn opens(&self, name: &str, groups: &[String]) -> Option<&'static str> {
        let is_in = |listed: &[String]| groups.iter().any(|group| listed.contains(group));
        let is_named = |listed: &[String]| listed.iter().any(|listed| self.is_same(listed, name));
        if is_named(&self.admins) || is_in(&self.admin_groups) {
            Some("admin")
        } else if is_named(&self.readers) || is_in(&self.reader_groups) {
            Some("read")
        } else {
            None
        }
    }

    /// Addresses are the same whatever the case of their letters; other names are not.
    fn is_same(&self, one: &str, other: &str) -> bool {
        if self.claim == Claim::Email { one.eq_ignore_ascii_case(other) } else { one == other }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            client_id: String::new(),
            client_secret_file: None,
            public_url: String::new(),
            label: "Log in with OpenID Connect".to_owned(),
            scopes: vec!["email".to_owned(), "profile".to_owned()],
            claim: Claim::Email,
            admins: Vec::new(),
            readers: Vec::new(),
            groups_claim: "groups".to_owned(),
            admin_groups: Vec::new(),
            reader_groups: Vec::new(),
            client_secret: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn people_and_groups_have_what_they_were_given_and_others_nothing() {
        let config = Config {
            admins: names(&["Ann@example.org"]),
            readers: names(&["ben@example.org", "ann@example.org"]),
            admin_groups: names(&["ops"]),
            reader_groups: names(&["Staff"]),
            ..Config::default()
        };
        let opens = |name: &str, groups: &[&str]| config.opens(name, &names(groups));
        assert_eq!(opens("ann@example.org", &[]), Some("admin"));
        assert_eq!(opens("ben@example.org", &["staff"]), Some("read"));
        assert_eq!(opens("ben@example.org", &["ops"]), Some("admin"));
        assert_eq!(opens("cat@example.org", &["Staff"]), Some("read"));
        assert_eq!(opens("cat@example.org", &["staff"]), None, "groups are taken as they are written");
        assert_eq!(opens("", &[]), None);
        let by_name = Config { claim: Claim::PreferredUsername, ..config };
        assert_eq!(by_name.opens("ann@example.org", &[]), Some("read"), "so are names that are no addresses");
    }

    #[test]
    fn what_cannot_work_is_said_by_its_key() {
        let good = Config {
            issuer: "https://login.example.org/realms/one".to_owned(),
            client_id: "innkeeper".to_owned(),
            public_url: "https://admin.example.org".to_owned(),
            admins: names(&["ann@example.org"]),
            ..Config::default()
        };
        assert_eq!(good.flaws(), []);
        assert_eq!(Config::default().flaws(), []);
        let local = Config { issuer: "http://127.0.0.1:9400".to_owned(), public_url: "http://localhost:2280".to_owned(), ..good.clone() };
        assert_eq!(local.flaws(), []);
        for (wrong, key) in [
            (Config { issuer: "http://login.example.org".to_owned(), ..good.clone() }, "http.oidc.issuer"),
            (Config { public_url: String::new(), ..good.clone() }, "http.oidc.public_url"),
            (Config { public_url: "https://me:secret@admin.example.org".to_owned(), ..good.clone() }, "http.oidc.public_url"),
            (Config { client_id: String::new(), ..good.clone() }, "http.oidc.client_id"),
            (Config { admins: Vec::new(), ..good.clone() }, "http.oidc.admins"),
        ] {
            assert_eq!(wrong.flaws().iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key]);
        }
    }
}
