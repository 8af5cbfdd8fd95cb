//! The HTTP client of the webhook, made from the `[auth.webhook]` section.
//!
//! What is wrong with the section is found here, once, and said with the key that is wrong. Nothing here talks to the network.

use std::fs;
use std::path::Path;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Identity, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use tracing::warn;

use crate::auth::WebhookConfig;

/// What is wrong with the `[auth.webhook]` section.
#[derive(Debug, thiserror::Error)]
#[error("auth.webhook.{key}: {problem}")]
pub struct WebhookSetupError {
    /// The key within the section.
    pub key: &'static str,
    /// What is wrong, and the mend.
    pub problem: String,
}

/// The addresses that are asked.
pub(super) struct Addresses {
    pub(super) base: Url,
    pub(super) password: Url,
    pub(super) public_key: Url,
}

/// A client with everything the section says; it keeps its connections open.
pub(super) fn client(config: &WebhookConfig, base: &Url) -> Result<Client, WebhookSetupError> {
    let mut headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
    ]);
    if let Some(token) = token(config)? {
        headers.insert(AUTHORIZATION, bearer(config, &token)?);
    }
    let mut builder = Client::builder()
        .user_agent(concat!("innkeeper/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        // Passwords go where the configuration says and nowhere else: not after a redirect, not through a proxy of the environment.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS);
    if base.scheme() == "http" {
        // Without this the system's certificates are loaded, which fails in an image that has none.
        builder = builder.tls_certs_only([]);
    } else if let Some(path) = &config.ca_file {
        let authorities = Certificate::from_pem_bundle(&read("ca_file", path)?)
            .ok()
            .filter(|authorities| !authorities.is_empty())
            .ok_or_else(|| wrong("ca_file", format!("{} holds no certificate in PEM form", path.display())))?;
        builder = builder.tls_certs_only(authorities);
    }
    if let Some(identity) = identity(config)? {
        builder = builder.identity(identity);
    }
    // Every file was parsed on its own; what can still fail is that they do not fit together.
    builder.build().map_err(|error| {
        let key = if config.client_cert_file.is_some() { "client_cert_file" } else { "ca_file" };
        wrong(key, format!("cannot be used: {}", super::reason(&error)))
    })
}

/// The addresses below the configured one.
pub(super) fn addresses(config: &WebhookConfig) -> Result<Addresses, WebhookSetupError> {
    if config.url.is_empty() {
        return Err(wrong("url", "is not set; give the address of the login service, for example \"https://example.org/ssh\""));
    }
    if config.timeout.get().is_zero() {
        return Err(wrong("timeout", "is zero, which leaves no time for an answer; the default is 2s"));
    }
    let base = Url::parse(&config.url).map_err(|error| wrong("url", format!("is not an address: {error}")))?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err(wrong("url", "must begin with http:// or https:// and a host"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(wrong("url", "must not carry a user name or password; use token_file"));
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err(wrong("url", "must not have a part after ? or #; /password and /pubkey are added to it"));
    }
    if base.scheme() == "http" && !is_loopback(&base) {
        warn!(host = base.host_str(), "auth.webhook.url is not https: passwords travel unencrypted to the login service");
    }
    let below = |last: &str| {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(last);
        }
        url
    };
    Ok(Addresses { password: below("password"), public_key: below("pubkey"), base })
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn token(config: &WebhookConfig) -> Result<Option<SecretString>, WebhookSetupError> {
    match (&config.token, &config.token_file) {
        // Whoever loaded the configuration may have read the file already, and has refused a token written beside it.
        (Some(token), _) => Ok(Some(token.clone())),
        (None, Some(path)) => {
            let text =
                String::from_utf8(read("token_file", path)?).map_err(|_| wrong("token_file", format!("{} is not text", path.display())))?;
            Ok(Some(SecretString::from(text.trim().to_owned())))
        }
        (None, None) => Ok(None),
    }
}

fn bearer(config: &WebhookConfig, token: &SecretString) -> Result<HeaderValue, WebhookSetupError> {
    let key = if config.token_file.is_some() { "token_file" } else { "token" };
    if token.expose_secret().is_empty() {
        return Err(wrong(key, "is empty"));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
        .map_err(|_| wrong(key, "has a character that cannot be sent in a header; a token is one line of printable ASCII"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn identity(config: &WebhookConfig) -> Result<Option<Identity>, WebhookSetupError> {
    match (&config.client_cert_file, &config.client_key_file) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(wrong("client_key_file", "is not set, but client_cert_file is; mTLS needs both")),
        (None, Some(_)) => Err(wrong("client_cert_file", "is not set, but client_key_file is; mTLS needs both")),
        (Some(cert), Some(key)) => {
            let mut pem = read("client_key_file", key)?;
            pem.push(b'\n');
            pem.extend(read("client_cert_file", cert)?);
            let identity = Identity::from_pem(&pem).map_err(|_| {
                let problem = format!("{} is not a certificate, or {} not its key, in PEM form", cert.display(), key.display());
                wrong("client_cert_file", problem)
            })?;
            Ok(Some(identity))
        }
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, WebhookSetupError> {
    fs::read(path).map_err(|error| wrong(key, format!("cannot read {}: {error}", path.display())))
}

fn wrong(key: &'static str, problem: impl Into<String>) -> WebhookSetupError {
    WebhookSetupError { key, problem: problem.into() }
}

/// Connections kept open while nobody logs in. A burst opens more, which then close.
const MAX_IDLE_CONNECTIONS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    fn config(url: &str) -> WebhookConfig {
        WebhookConfig { url: url.into(), ..WebhookConfig::default() }
    }

    fn problem(config: &WebhookConfig) -> String {
        addresses(config).and_then(|addresses| client(config, &addresses.base)).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn addresses_are_below_the_configured_one() {
        for url in ["https://h/ssh", "https://h/ssh/"] {
            let addresses = addresses(&config(url)).unwrap();
            assert_eq!((addresses.password.as_str(), addresses.public_key.as_str()), ("https://h/ssh/password", "https://h/ssh/pubkey"));
        }
        assert_eq!(addresses(&config("http://[::1]:8000")).unwrap().password.as_str(), "http://[::1]:8000/password");
    }

    #[test]
    fn what_is_wrong_names_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = Some(file.path().to_owned());
        let base = config("https://127.0.0.1/ssh");
        for (config, expect) in [
            (config(""), "auth.webhook.url: is not set"),
            (WebhookConfig { timeout: Span::secs(0), ..base.clone() }, "auth.webhook.timeout"),
            (config("ftp://h/"), "auth.webhook.url"),
            (config("h/ssh"), "auth.webhook.url"),
            (config("https://u:p@h/ssh"), "token_file"),
            (config("https://h/ssh?x=1"), "auth.webhook.url"),
            (WebhookConfig { token: Some("a\nb".into()), ..base.clone() }, "auth.webhook.token: "),
            (WebhookConfig { token_file: path.clone(), ..base.clone() }, "auth.webhook.token_file: is empty"),
            (WebhookConfig { token_file: Some("/nonexistent".into()), ..base.clone() }, "cannot read /nonexistent"),
            (WebhookConfig { ca_file: path.clone(), ..base.clone() }, "auth.webhook.ca_file: "),
            (WebhookConfig { client_cert_file: path.clone(), ..base.clone() }, "auth.webhook.client_key_file: "),
            (WebhookConfig { client_key_file: path.clone(), ..base.clone() }, "auth.webhook.client_cert_file: "),
            (
                WebhookConfig { client_cert_file: path.clone(), client_key_file: path.clone(), ..base.clone() },
                "auth.webhook.client_cert_file",
            ),
        ] {
            let problem = problem(&config);
            assert!(problem.contains(expect), "{problem} does not contain {expect}");
        }
    }
}
