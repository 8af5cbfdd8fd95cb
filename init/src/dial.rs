//! Connecting to something in the container, or as the container would.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{Address, Failure};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::failure;
use crate::jobs::Refusal;
use crate::login;
use crate::resolve;

/// How often a Unix socket is tried whose listener has more callers than it takes.
const AGAIN: Duration = Duration::from_millis(20);

/// Connects there, in so much time.
pub(crate) fn dial(to: &Address, home: &str, until: Instant) -> Result<OwnedFd, Refusal> {
    match to {
        Address::Tcp { host, port } => tcp(host, *port, until),
        Address::Unix { path } => unix(&place(path, home), until).map_err(|why| (failure::of(why), format!("{path}: {why}"))),
    }
}

/// A path that is absolute, or below the home.
pub(crate) fn place(path: &str, home: &str) -> PathBuf {
    if Path::new(path).is_absolute() { path.into() } else { login::home_here(home).join(path) }
}

/// The addresses of a name that needs no looking up.
pub(crate) fn literal(host: &str) -> Option<Vec<IpAddr>> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if bare.eq_ignore_ascii_case("localhost") {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    bare.parse().ok().map(|address| vec![address])
}

fn tcp(host: &str, port: u16, until: Instant) -> Result<OwnedFd, Refusal> {
    let addresses = match literal(host) {
        Some(addresses) => addresses,
        None => resolve::resolve(host, until)?,
    };
    let mut why = (Failure::NotFound, format!("{host}: no address"));
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err((Failure::TimedOut, format!("{host}: it took too long")));
        }
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), left).and_then(prepared) {
            Ok(socket) => return Ok(socket),
            // The first that says something counts: a host may have no way to addresses of the other family at all.
            Err(error) if matches!(why.0, Failure::NotFound | Failure::Other) => {
                why = (failure::of_io(&error), format!("{address}: {error}"))
            }
            Err(_) => {}
        }
    }
    Err(why)
}

fn prepared(stream: TcpStream) -> io::Result<OwnedFd> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream.into())
}

/// Nothing at the path is opened: what is no socket refuses.
fn unix(path: &Path, until: Instant) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < until => std::thread::sleep(AGAIN),
            Err(Errno::AGAIN) => return Err(Errno::TIMEDOUT),
            // The kernel says the same of a socket that nobody listens on, and of a file.
            Err(Errno::CONNREFUSED) if fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket()) => return Err(Errno::NOTSOCK),
            Err(why) => return Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_looking_up() {
        assert_eq!(literal("LocalHost").unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        for host in ["127.0.0.1", "::1", "[::1]"] {
            assert_eq!(literal(host).unwrap().len(), 1);
        }
        assert_eq!(literal("db"), None);
    }
}
