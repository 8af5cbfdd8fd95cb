//! The name, and the port, by which others reach something that listens here.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A host, and a port where one is named: `ssh.example.org`, `ssh.example.org:2222`, `[2001:db8::1]:22`. Safe as a word of a command, and in a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct PublicAddress {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// A name, or an IPv4 address.
    Name(String),
    V6(Ipv6Addr),
}

/// Why a text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a host's name or address, and a port where one is needed, such as \"ssh.example.org:22\" or \"[2001:db8::1]:22\"")]
pub struct AddressError;

/// Longest name of a host, in bytes, as in the DNS.
const LONGEST: usize = 253;

impl PublicAddress {
    /// The host, as a command takes it.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::V6(address) => address.to_string(),
        }
    }

    /// The host, as it stands in a URL.
    pub fn url_host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::V6(address) => format!("[{address}]"),
        }
    }

    /// The port, where one is named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl FromStr for PublicAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => {
                let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(AddressError)?) };
                (Host::V6(address.parse().map_err(|_| AddressError)?), port)
            }
            None => {
                let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
                let is_name = (1..=LONGEST).contains(&name.len())
                    && !name.starts_with(['-', '.'])
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
                (Host::Name(if is_name { name.to_owned() } else { return Err(AddressError) }), port)
            }
        };
        let number = |port: &str| port.parse::<u16>().ok().filter(|number| *number != 0 && number.to_string() == port).ok_or(AddressError);
        Ok(Self { host, port: port.map(number).transpose()? })
    }
}

impl TryFrom<String> for PublicAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<PublicAddress> for String {
    fn from(address: PublicAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url_host())?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_reach_is_told_in_commands_and_urls() {
        for (text, host, url_host, port) in [
            ("ssh.example.org", "ssh.example.org", "ssh.example.org", None),
            ("ssh.example.org:22", "ssh.example.org", "ssh.example.org", Some(22)),
            ("192.0.2.1:2200", "192.0.2.1", "192.0.2.1", Some(2200)),
            ("[2001:db8::1]", "2001:db8::1", "[2001:db8::1]", None),
            ("[2001:db8::1]:22", "2001:db8::1", "[2001:db8::1]", Some(22)),
        ] {
            let address: PublicAddress = text.parse().unwrap();
            assert_eq!((address.host().as_str(), address.url_host().as_str(), address.port()), (host, url_host, port));
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_a_shell_or_a_client_would_take_for_something_else_is_none() {
        for text in [
            "",
            ":22",
            "-oProxyCommand=x",
            "a;b",
            "a b",
            "a:0",
            "a:+22",
            "a:022",
            "a:65536",
            "a:",
            "2001:db8::1",
            "[::1",
            "[::1]22",
            "[x]:1",
            "a/b",
            "é",
        ] {
            assert_eq!(text.parse::<PublicAddress>(), Err(AddressError), "{text:?}");
        }
    }
}
