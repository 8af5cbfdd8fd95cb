//! What a container's init needs from the host: a directory with the program and the socket that it dials, one for each container.
//!
//! A directory rather than files, so that the socket of a gateway that was started anew appears in containers that run. One each rather than
//! one for all, so that a container that floods its socket is in nobody's way but its own.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use innkeeper_init::closing::Foreign;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, openat, unlinkat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use sha2::{Digest, Sha256};

use crate::home::SlotId;

/// The program, as it was built with this gateway.
const PROGRAM: &[u8] = include_bytes!(env!("INNKEEPER_INIT"));

/// What it is called in a container's directory, and under which names people in the container call it.
const PROGRAM_NAME: &str = "innkeeper-init";
const OTHER_NAMES: [&str; 2] = ["innkeeper-keep", "innkeeper-status"];

/// What its socket is called there.
const SOCKET_NAME: &str = "socket";

/// Connections that may wait to be accepted. A container's init makes one; the others are for strangers, so that there is a place for it beside
/// as many of them as a container has processes to dial with.
pub(super) const BACKLOG: u16 = 1024;

/// All of them, below the state directory.
#[derive(Debug)]
pub(super) struct Directories {
    root: PathBuf,
    /// The program of this gateway; containers have a link to it, and keep theirs when another takes its place.
    program: PathBuf,
}

impl Directories {
    /// Opens them, and puts the program there if it is not.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let root = root.canonicalize()?;
        let program = root.join(format!("{PROGRAM_NAME}-{}", HEXLOWER.encode(&Sha256::digest(PROGRAM)[..8])));
        if fs::metadata(&program).map_or(true, |there| there.len() != PROGRAM.len() as u64) {
            // Whole or not at all: a kill in between leaves a file that nothing looks at, and the next start writes it anew.
            let unfinished = root.join(format!("{PROGRAM_NAME}.new"));
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&unfinished)?;
            io::Write::write_all(&mut file, PROGRAM)?;
            file.set_permissions(fs::Permissions::from_mode(0o755))?;
            file.sync_all()?;
            drop(file);
            fs::rename(&unfinished, &program)?;
        }
        let directories = Self { root, program };
        directories.forget_old_programs()?;
        Ok(directories)
    }

    /// Where a container's directory is.
    pub(super) fn path(&self, slot: &SlotId) -> PathBuf {
        self.root.join(slot.as_str())
    }

    /// Whether there is one, or something in its place.
    pub(super) fn exists(&self, slot: &SlotId) -> bool {
        fs::symlink_metadata(self.path(slot)).is_ok()
    }

    /// Makes a container's directory. A kill halfway leaves one that no container has: it is among [`Directories::all`].
    pub(super) fn make(&self, slot: &SlotId) -> io::Result<PathBuf> {
        let path = self.path(slot);
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        fs::hard_link(&self.program, path.join(PROGRAM_NAME))?;
        for name in OTHER_NAMES {
            symlink(PROGRAM_NAME, path.join(name))?;
        }
        Ok(path)
    }

    /// Removes it. It is root's, and nobody else could put anything there; a link in its place is not followed all the same.
    pub(super) fn remove(&self, slot: &SlotId) -> io::Result<()> {
        let path = self.path(slot);
        let directory = match open_directory(&path) {
            Err(why) if why.kind() == io::ErrorKind::NotADirectory => return fs::remove_file(path),
            opened => absent_is_fine(opened.map(Some))?,
        };
        let Some(directory) = directory else { return Ok(()) };
        for name in OTHER_NAMES.into_iter().chain([PROGRAM_NAME, SOCKET_NAME]) {
            absent_is_fine(unlinkat(&directory, name, AtFlags::empty()).map_err(Into::into))?;
        }
        absent_is_fine(fs::remove_dir(path))
    }

    /// Those that are there.
    pub(super) fn all(&self) -> io::Result<Vec<SlotId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            found.extend(entry?.file_name().to_str().and_then(SlotId::parse));
        }
        Ok(found)
    }

    /// Listens on its socket, in place of whoever did before.
    pub(super) fn listen(&self, slot: &SlotId) -> io::Result<Foreign> {
        let directory = open_directory(&self.path(slot))?;
        // Whatever it is, it goes by its name; a directory stays, and is an error.
        absent_is_fine(unlinkat(&directory, SOCKET_NAME, AtFlags::empty()).map_err(Into::into))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // Through the descriptor: the address of a Unix socket has room for 107 bytes, and a state directory may be deep.
        let short = format!("/proc/self/fd/{}/{SOCKET_NAME}", std::os::fd::AsRawFd::as_raw_fd(&directory));
        bind(&socket, &SocketAddrUnix::new(short.as_str())?)?;
        // The container's user dials it, whatever her number; nobody else sees the directory.
        chmodat(&directory, SOCKET_NAME, Mode::from_raw_mode(0o666), AtFlags::empty())?;
        listen(&socket, BACKLOG.into())?;
        // The socket is ours, but whoever waits in its queue when it is closed may have said something.
        Ok(socket.into())
    }

    /// Removes all of it: containers that are still there find nobody any more.
    pub(super) fn clean(root: &Path) -> io::Result<()> {
        if !root.is_dir() {
            return Ok(());
        }
        let directories = Self { root: root.to_owned(), program: PathBuf::new() };
        directories.all()?.iter().try_for_each(|slot| directories.remove(slot))?;
        directories.forget_old_programs()?;
        fs::remove_dir(root)
    }

    /// Removes programs of earlier gateways. Containers that have one keep it: it is a link.
    fn forget_old_programs(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let is_program = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PROGRAM_NAME));
            if is_program && path != self.program {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The directory that is there itself, for what is in it to be named by.
fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

fn absent_is_fine<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> SlotId {
        SlotId::parse("0123456789abcdef").unwrap()
    }

    #[test]
    fn a_directory_has_what_init_needs_and_goes_without_a_trace() {
        let tmp = tempfile::tempdir().unwrap();
        let deep = tmp.path().join("x".repeat(120)).join("run");
        let directories = Directories::open(&deep).unwrap();
        let path = directories.make(&slot()).unwrap();
        drop(directories.listen(&slot()).unwrap());
        let _again = directories.listen(&slot()).unwrap();
        assert_eq!(fs::read(path.join("innkeeper-keep")).unwrap(), PROGRAM);
        assert_eq!(directories.all().unwrap(), [slot()]);
        directories.remove(&slot()).unwrap();
        directories.remove(&slot()).unwrap();
        assert!(directories.all().unwrap().is_empty() && !directories.exists(&slot()));
        directories.make(&slot()).unwrap();
        Directories::clean(&deep).unwrap();
        Directories::clean(&deep).unwrap();
        assert!(!deep.exists());
    }

    #[test]
    fn what_is_in_a_sockets_place_goes_and_nothing_that_it_leads_to() {
        let tmp = tempfile::tempdir().unwrap();
        let directories = Directories::open(&tmp.path().join("run")).unwrap();
        let elsewhere = tmp.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for name in [SOCKET_NAME, PROGRAM_NAME] {
            fs::write(elsewhere.join(name), "whatever").unwrap();
        }
        let is_untouched =
            || [SOCKET_NAME, PROGRAM_NAME].iter().all(|name| fs::read(elsewhere.join(name)).is_ok_and(|all| all == b"whatever"));
        let path = directories.make(&slot()).unwrap();
        let socket = path.join(SOCKET_NAME);
        symlink(elsewhere.join(SOCKET_NAME), &socket).unwrap();
        drop(directories.listen(&slot()).unwrap());
        assert!(is_untouched());
        fs::remove_file(&socket).unwrap();
        rustix::fs::mknodat(CWD, &socket, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        drop(directories.listen(&slot()).unwrap());
        fs::remove_file(&socket).unwrap();
        fs::create_dir(&socket).unwrap();
        assert!(directories.listen(&slot()).is_err());
        fs::remove_dir(&socket).unwrap();

        directories.remove(&slot()).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(directories.exists(&slot()) && directories.listen(&slot()).is_err());
        directories.remove(&slot()).unwrap();
        assert!(is_untouched() && !directories.exists(&slot()));
    }

    #[test]
    fn a_program_that_was_cut_short_is_written_again() {
        let tmp = tempfile::tempdir().unwrap();
        let program = Directories::open(tmp.path()).unwrap().program;
        fs::write(&program, "short").unwrap();
        fs::write(tmp.path().join("innkeeper-init-0000"), "older").unwrap();
        Directories::open(tmp.path()).unwrap();
        assert_eq!(fs::read(&program).unwrap(), PROGRAM);
        assert!(!tmp.path().join("innkeeper-init-0000").exists());
    }
}
