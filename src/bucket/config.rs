//! Which service, which bucket, and who we are there.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// An S3 service: AWS, MinIO, Ceph, R2.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its address, `https://host:port`. Default: that of AWS in `region`.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The access key. Default: `AWS_ACCESS_KEY_ID`.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub access_key: Option<SecretString>,
    /// File with the access key, instead of `access_key`.
    pub access_key_file: Option<PathBuf>,
    /// The secret key. Default: `AWS_SECRET_ACCESS_KEY`.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub secret_key: Option<SecretString>,
    /// File with the secret key, instead of `secret_key`.
    pub secret_key_file: Option<PathBuf>,
}

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket's name.
    pub bucket: String,
    /// What every object's name begins with: empty, or ends with a slash.
    pub prefix: String,
}

/// A place in a bucket, and all that is needed to get there. Holds secrets, so that it cannot be printed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Place {
    pub(super) endpoint: String,
    pub(super) region: String,
    pub(super) bucket: String,
    /// Empty, or ends with a slash.
    pub(super) prefix: String,
    pub(super) access_key: String,
    pub(super) secret_key: String,
}

impl Config {
    /// Whether the service's address can be one.
    pub fn is_usable(&self) -> bool {
        self.endpoint.as_ref().is_none_or(|endpoint| {
            let url = endpoint.parse::<reqwest::Url>().ok();
            url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none())
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".to_owned(),
            access_key: None,
            access_key_file: None,
            secret_key: None,
            secret_key_file: None,
        }
    }
}

impl Location {
    /// Reads `s3://bucket/prefix`; `None`: it is something else.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let rest = text.strip_prefix("s3://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.is_empty() || !bucket.chars().all(plain) {
            return Some(Err(format!("{bucket:?} is not the name of a bucket; write for example \"s3://bucket/innkeeper\"")));
        }
        let prefix = prefix.trim_matches('/');
        if !prefix.chars().all(|c| plain(c) || c == '/') {
            return Some(Err("the prefix may have letters, digits, `-`, `.`, `_` and `/`".to_owned()));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Some(Ok(Self { bucket: bucket.to_owned(), prefix }))
    }
}

impl Place {
    /// How to get there: keys that the section does not have are those of the environment. An error names what is missing.
    pub fn new(config: &Config, at: Location, section: &str) -> Result<Self, String> {
        let secret = |set: &Option<SecretString>, key: &str, variable: &str| {
            let set = set.as_ref().map(|secret| secret.expose_secret().to_owned());
            set.or_else(|| std::env::var(variable).ok())
                .ok_or_else(|| format!("there is no {section}.{key}: set `{key}_file`, or {variable}"))
        };
        let region = config.region.clone();
        let endpoint = config.endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let access_key = secret(&config.access_key, "access_key", "AWS_ACCESS_KEY_ID")?;
        let secret_key = secret(&config.secret_key, "secret_key", "AWS_SECRET_ACCESS_KEY")?;
        let Location { bucket, prefix } = at;
        Ok(Self { endpoint, region, bucket, prefix, access_key, secret_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_or_the_mend_is_named() {
        let at = |bucket: &str, prefix: &str| Some(Ok(Location { bucket: bucket.to_owned(), prefix: prefix.to_owned() }));
        assert_eq!(Location::parse("s3://b"), at("b", ""));
        assert_eq!(Location::parse("s3://b/"), at("b", ""));
        assert_eq!(Location::parse("s3://b/a/c/"), at("b", "a/c/"));
        assert_eq!(Location::parse("/var/b"), None);
        for wrong in ["s3://", "s3:///x", "s3://a b", "s3://b/a?c"] {
            assert!(Location::parse(wrong).unwrap().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_services_address_has_no_name_or_password_in_it() {
        let with = |endpoint: &str| Config { endpoint: Some(endpoint.to_owned()), ..Config::default() };
        assert!(Config::default().is_usable() && with("http://127.0.0.1:9000").is_usable());
        for wrong in ["s3.example.org", "ftp://x", "https://a:b@x", "https://a@x"] {
            assert!(!with(wrong).is_usable(), "{wrong}");
        }
    }
}
