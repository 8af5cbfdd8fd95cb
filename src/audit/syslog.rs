//! Lines to a syslog as well. Nothing waits for one: what it does not take at once is not in it, and the trail itself has it.

use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Facility `authpriv` (10), severity `informational` (6): RFC 5424, section 6.2.1.
const PRIORITY: u8 = 10 * 8 + 6;
/// Where the host's syslog listens.
const LOCAL: &str = "/dev/log";
/// What stands before an address of another host's.
const UDP: &str = "udp://";
/// What stands before the path of a socket of this host's.
const UNIX: &str = "unix://";

/// Where lines go.
pub(super) enum Syslog {
    Local(UnixDatagram, PathBuf),
    Far(UdpSocket, String),
}

/// What a configuration names.
pub(super) enum Place<'a> {
    Nowhere,
    Local(&'a Path),
    Udp(&'a str),
}

// === impl Place ===

impl<'a> Place<'a> {
    pub(super) fn of(text: &'a str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::Nowhere),
            "local" => Ok(Self::Local(Path::new(LOCAL))),
            other => match (other.strip_prefix(UDP), other.strip_prefix(UNIX)) {
                (Some(address), _)
                    if address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
                {
                    Ok(Self::Udp(address))
                }
                (_, Some(path)) if path.starts_with('/') => Ok(Self::Local(Path::new(path))),
                _ => Err(format!("{other:?} is neither `local`, `unix:///PATH` nor `udp://HOST:PORT`")),
            },
        }
    }
}

// === impl Syslog ===

impl Syslog {
    pub(super) fn open(text: &str) -> io::Result<Option<Self>> {
        match Place::of(text).map_err(io::Error::other)? {
            Place::Nowhere => Ok(None),
            Place::Local(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                Ok(Some(Self::Local(socket, path.to_owned())))
            }
            Place::Udp(address) => {
                let unknown = || io::Error::other(format!("audit.syslog {text}: no such address"));
                let to = address.to_socket_addrs()?.next().ok_or_else(unknown)?;
                let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                socket.connect(to)?;
                socket.set_nonblocking(true)?;
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                Ok(Some(Self::Far(socket, if host.is_empty() { "-".to_owned() } else { host })))
            }
        }
    }

    pub(super) fn send(&mut self, line: &str) {
        let pid = std::process::id();
        // A syslog that is not there, or has no room, is not waited for.
        let _ = match self {
            // As libc's syslog(3) writes it, but for the time, which the other side has as well.
            Self::Local(socket, path) => socket.send_to(format!("<{PRIORITY}>innkeeper[{pid}]: {line}").as_bytes(), path),
            Self::Far(socket, host) => {
                let at = humantime::format_rfc3339_micros(SystemTime::now());
                socket.send(format!("<{PRIORITY}>1 {at} {host} innkeeper {pid} audit - {line}").as_bytes())
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_is_a_place_or_says_what_one_is() {
        let local = |text: &str| match Place::of(text) {
            Ok(Place::Local(path)) => path.display().to_string(),
            _ => panic!("{text}"),
        };
        assert_eq!((local("local").as_str(), local("unix:///run/log").as_str()), ("/dev/log", "/run/log"));
        assert!(matches!(Place::of(""), Ok(Place::Nowhere)) && matches!(Place::of("udp://logs:514"), Ok(Place::Udp("logs:514"))));
        for wrong in ["remote", "unix://log", "udp://logs", "udp://:514", "tcp://logs:514"] {
            assert!(Place::of(wrong).is_err_and(|why| why.contains("`unix:///PATH`")), "{wrong}");
        }
    }
}
