//! Lines to a syslog as well. Nothing waits for one: what it does not take at once is not in it, and the trail itself has it.

use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::SystemTime;

/// Facility `authpriv` (10), severity `informational` (6): RFC 5424, section 6.2.1.
const PRIORITY: u8 = 10 * 8 + 6;
/// Where the host's syslog listens.
const LOCAL: &str = "/dev/log";
/// What stands before an address of another host's.
const UDP: &str = "udp://";

/// Where lines go.
pub(super) enum Syslog {
    Local(UnixDatagram),
    Far(UdpSocket, String),
}

/// What a configuration names.
pub(super) enum Place<'a> {
    Nowhere,
    Local,
    Udp(&'a str),
}

// === impl Place ===

impl<'a> Place<'a> {
    pub(super) fn of(text: &'a str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::Nowhere),
            "local" => Ok(Self::Local),
            other => match other.strip_prefix(UDP) {
                Some(address) if address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) => {
                    Ok(Self::Udp(address))
                }
                _ => Err(format!("{other:?} is neither `local` nor `udp://HOST:PORT`")),
            },
        }
    }
}

// === impl Syslog ===

impl Syslog {
    pub(super) fn open(text: &str) -> io::Result<Option<Self>> {
        match Place::of(text).map_err(io::Error::other)? {
            Place::Nowhere => Ok(None),
            Place::Local => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                Ok(Some(Self::Local(socket)))
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
            Self::Local(socket) => socket.send_to(format!("<{PRIORITY}>innkeeper[{pid}]: {line}").as_bytes(), LOCAL),
            Self::Far(socket, host) => {
                let at = humantime::format_rfc3339_micros(SystemTime::now());
                socket.send(format!("<{PRIORITY}>1 {at} {host} innkeeper {pid} audit - {line}").as_bytes())
            }
        };
    }
}
