//! Sockets to listen on in the container.
//!
//! A path is where the container's user says, so what is there is hers: a socket that nobody listens on is replaced, and anything else,
//! a file, a link, a device, is left as it is.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use innkeeper_init::protocol::{Address, Endpoint, Failure};
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::dial::{literal, place};
use crate::failure;
use crate::jobs::Refusal;
use crate::login;

/// Most connections that wait to be accepted on a Unix socket.
const BACKLOG: i32 = 128;

/// Stack of a thread that removes files, in bytes.
const STACK: usize = 64 * 1024;

/// The ports of X11 displays that programs are given: those that sshd takes first.
const DISPLAYS: std::ops::Range<u16> = 6010..6100;

/// The port of display 0.
const DISPLAY_0: u16 = 6000;

/// An entry of an X authority file for displays of any host.
const FAMILY_WILD: u16 = 0xffff;

/// What is listened on. Its files are removed with it.
pub(crate) struct Bound {
    /// One, or one of each family.
    pub(crate) sockets: Vec<OwnedFd>,
    /// Where it is.
    pub(crate) on: Address,
    files: Files,
}

/// Files to be removed, and then the directory that was made for them. What has taken the place of either meanwhile is somebody's own.
#[derive(Default)]
struct Files {
    file: Option<PathBuf>,
    /// Which file it is, where others may put theirs.
    made: Option<FileId>,
    directory: Option<PathBuf>,
}

/// A file's device, its number there, and when it was made: the number of one that is gone is given to the next.
type FileId = (u64, u64, i64, i64);

/// Listens there.
pub(crate) fn bind(on: &Endpoint, home: &str) -> Result<Bound, Refusal> {
    match on {
        Endpoint::At { address: Address::Tcp { host, port } } => tcp(host, *port),
        Endpoint::At { address: Address::Unix { path } } => {
            let place = place(path, home);
            let socket = unix(&place).map_err(|why| (failure::of(why), format!("{path}: {why}")))?;
            let (on, made) = (address(&place), socket_at(&place));
            Ok(Bound { sockets: vec![socket], on, files: Files { file: Some(place), made, directory: None } })
        }
        Endpoint::Agent => {
            let mut files = private(home)?;
            let place = files.directory.clone().unwrap_or_default().join("agent");
            let socket = unix(&place).map_err(|why| (failure::of(why), format!("an agent's socket: {why}")))?;
            files.file = Some(place.clone());
            Ok(Bound { sockets: vec![socket], on: address(&place), files })
        }
        Endpoint::X11 { protocol, cookie } => x11(protocol, cookie, home),
    }
}

fn address(path: &Path) -> Address {
    Address::Unix { path: path.to_string_lossy().into_owned() }
}

fn tcp(host: &str, port: u16) -> Result<Bound, Refusal> {
    let any = [IpAddr::from([0; 16]), IpAddr::from([0; 4])];
    let addresses = if host.is_empty() || host == "*" { any.into() } else { literal(host).unwrap_or_default() };
    let both = host.eq_ignore_ascii_case("localhost");
    let mut why = (Failure::Invalid, "an address to listen on is none of a name".to_owned());
    let mut sockets = Vec::new();
    let mut chosen = port;
    for address in addresses {
        match listen_at(SocketAddr::new(address, chosen)) {
            Ok((socket, port)) => {
                sockets.push(socket);
                chosen = port;
                // All addresses of one family are those of both, where there are both.
                if !both {
                    break;
                }
            }
            // What has the second family already had it before; the first one counts.
            Err(_) if !sockets.is_empty() => {}
            Err(error) => {
                why = (failure::of_io(&error), format!("{address}: {error}"));
                if !matches!(why.0, Failure::Other) {
                    break;
                }
            }
        }
    }
    if sockets.is_empty() {
        return Err(why);
    }
    Ok(Bound { sockets, on: Address::Tcp { host: host.to_owned(), port: chosen }, files: Files::default() })
}

fn listen_at(address: SocketAddr) -> std::io::Result<(OwnedFd, u16)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    Ok((listener.into(), port))
}

fn x11(protocol: &str, cookie: &[u8], home: &str) -> Result<Bound, Refusal> {
    let mut listening = DISPLAYS.map(|port| listen_at(SocketAddr::new([127, 0, 0, 1].into(), port)));
    let (socket, port) = listening.find_map(Result::ok).ok_or((Failure::Taken, "no display is free".to_owned()))?;
    let entry = authority(port - DISPLAY_0, protocol, cookie).ok_or((Failure::Invalid, "the cookie is too long".to_owned()))?;
    let mut files = private(home)?;
    let path = files.directory.clone().unwrap_or_default().join("authority");
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| file.write_all(&entry));
    written.map_err(|why| (failure::of_io(&why), format!("an authority file: {why}")))?;
    let host = path.to_string_lossy().into_owned();
    files.file = Some(path);
    Ok(Bound { sockets: vec![socket], on: Address::Tcp { host, port }, files })
}

/// One entry of the file in which X11's programs look for their cookie.
fn authority(display: u16, protocol: &str, cookie: &[u8]) -> Option<Vec<u8>> {
    let mut entry = FAMILY_WILD.to_be_bytes().to_vec();
    for field in [&b""[..], display.to_string().as_bytes(), protocol.as_bytes(), cookie] {
        entry.extend(u16::try_from(field.len()).ok()?.to_be_bytes());
        entry.extend(field);
    }
    Some(entry)
}

/// A directory that only this user can enter and nobody can guess, where the container has a place for one.
fn private(home: &str) -> Result<Files, Refusal> {
    let mut why = (Failure::Other, String::new());
    // The last is a file system of the engine's, where the others can only be read.
    for place in [PathBuf::from("/tmp"), login::home_here(home), PathBuf::from("/dev/shm")] {
        let mut random = [0; 16];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(|why| (failure::of(why), "no random name".to_owned()))?;
        let directory = place.join(format!("innkeeper-{:032x}", u128::from_ne_bytes(random)));
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Ok(Files { file: None, made: None, directory: Some(directory) }),
            Err(error) => why = (failure::of_io(&error), format!("{}: {error}", place.display())),
        }
    }
    Err(why)
}

fn unix(path: &Path) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let listener = socket()?;
    // Decides the mode of what is bound. The alternative, a mask, is the whole process's.
    fchmod(&listener, Mode::RUSR | Mode::WUSR)?;
    match rustix::net::bind(&listener, &address) {
        Err(Errno::ADDRINUSE) => {
            let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            if !is_socket || connect(socket()?, &address) != Err(Errno::CONNREFUSED) {
                return Err(Errno::ADDRINUSE);
            }
            rustix::fs::unlink(path)?;
            rustix::net::bind(&listener, &address)?;
        }
        done => done?,
    }
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

// === impl Bound ===

impl Bound {
    /// Listens no more. The files go in their own time: their file system may not answer.
    pub(crate) fn close(self) {
        let Self { sockets, files, .. } = self;
        drop(sockets);
        // Where there is no thread to be had, they go at once.
        let _ = std::thread::Builder::new().stack_size(STACK).spawn(move || drop(files));
    }
}

// === impl Files ===

impl Drop for Files {
    fn drop(&mut self) {
        let is_there = |directory: &PathBuf| fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir());
        if self.directory.as_ref().is_some_and(|directory| !is_there(directory)) {
            return;
        }
        if let Some(file) = self.file.take()
            && self.made.is_none_or(|made| socket_at(&file) == Some(made))
        {
            let _ = fs::remove_file(file);
        }
        if let Some(directory) = self.directory.take() {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Which socket is there, if it is one.
fn socket_at(path: &Path) -> Option<FileId> {
    let found = fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_socket())?;
    Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn at(path: &Path) -> Endpoint {
        Endpoint::At { address: address(path) }
    }

    fn refused(on: &Endpoint) -> Failure {
        bind(on, "/").err().map(|(why, _)| why).unwrap()
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "mine").unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("link")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        let live = UnixListener::bind(path("live")).unwrap();
        for taken in ["file", "link", "directory", "live"] {
            assert_eq!(refused(&at(&path(taken))), Failure::Taken, "{taken}");
        }
        assert_eq!(fs::read(path("file")).unwrap(), b"mine");
        assert!(!path("nowhere").exists());
        assert_eq!(refused(&at(&path("missing/socket"))), Failure::NotFound);
        drop(live);
        let bound = bind(&at(&path("live")), "/").unwrap();
        assert_eq!(fs::symlink_metadata(path("live")).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(path("live")).unwrap();
        drop(bound);
        assert!(!path("live").exists());
    }

    #[test]
    fn what_has_taken_the_place_of_a_socket_is_left_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        for thing in ["file", "link", "directory", "socket"] {
            let bound = bind(&at(&path), "/").unwrap();
            fs::remove_file(&path).unwrap();
            let other = directory.path().join("other");
            match thing {
                "file" => fs::write(&path, "mine").unwrap(),
                "link" => std::os::unix::fs::symlink(&other, &path).unwrap(),
                "directory" => fs::create_dir(&path).unwrap(),
                _ => drop(UnixListener::bind(&path).unwrap()),
            }
            drop(bound);
            let found = fs::symlink_metadata(&path).unwrap_or_else(|why| panic!("{thing}: {why}"));
            if found.is_dir() { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
        }
    }

    #[test]
    fn a_private_directory_that_leads_elsewhere_by_now_is_not_followed() {
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("agent"), "mine").unwrap();
        let bound = bind(&Endpoint::Agent, "/").unwrap();
        let Address::Unix { path } = &bound.on else { panic!("{:?}", bound.on) };
        let made = Path::new(path).parent().unwrap().to_owned();
        fs::remove_dir_all(&made).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &made).unwrap();
        drop(bound);
        assert_eq!(fs::read(elsewhere.path().join("agent")).unwrap(), b"mine");
        fs::remove_file(made).unwrap();
    }

    #[test]
    fn an_agent_has_a_directory_of_its_own_and_a_display_a_file() {
        let bound = bind(&Endpoint::Agent, "/").unwrap();
        let Address::Unix { path } = &bound.on else { panic!("{:?}", bound.on) };
        let directory = Path::new(path).parent().unwrap().to_owned();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        drop(bound);
        assert!(!directory.exists());

        let bound = bind(&Endpoint::X11 { protocol: "MIT-MAGIC-COOKIE-1".into(), cookie: vec![7; 16] }, "/").unwrap();
        let Address::Tcp { host, port } = &bound.on else { panic!("{:?}", bound.on) };
        assert!(DISPLAYS.contains(port));
        let entry = fs::read(host).unwrap();
        assert_eq!(&entry[..8], [0xff, 0xff, 0, 0, 0, 2, b'1', b'0' + (port % 10) as u8], "{port}");
        assert!(entry.ends_with(&[7; 16]));
        let file = host.clone();
        drop(bound);
        assert!(!Path::new(&file).exists());
    }

    #[test]
    fn a_port_is_chosen_or_taken() {
        let tcp = |host: &str, port| Endpoint::At { address: Address::Tcp { host: host.to_owned(), port } };
        for host in ["", "*", "localhost", "127.0.0.1"] {
            let bound = bind(&tcp(host, 0), "/").unwrap();
            let Address::Tcp { port, .. } = bound.on else { panic!() };
            assert_ne!(port, 0);
            assert_eq!(refused(&tcp(host, port)), Failure::Taken, "{host}");
        }
        assert_eq!(refused(&tcp("a.test", 0)), Failure::Invalid);
    }
}
