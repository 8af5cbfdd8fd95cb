//! Messages on a Unix socket that keeps them whole (`SOCK_SEQPACKET`), with file descriptors beside them.
//!
//! Nothing here waits: who calls it has polled, and `WouldBlock` says that there is nothing (yet), whatever the socket's own flags say.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use minicbor::{Decode, Encode};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::closing::{self, Foreign, Piece};
use crate::protocol::{MAX_DESCRIPTORS, MAX_MESSAGE};

/// Why a message did not arrive or leave.
#[derive(Debug)]
pub enum WireError {
    /// Nothing is there, or there is no room: to be tried again when the socket is ready.
    WouldBlock,
    /// The peer has closed its end.
    Closed,
    /// The peer has sent what is no message, or too much of it: it is not who it should be.
    Malformed(&'static str),
    /// The peer has said what is not known here, as one does that is newer ([`crate::protocol`]). It is to be passed over.
    Unknown {
        /// How long it was, in bytes.
        length: usize,
    },
    /// What is to be sent is longer than a message may be.
    TooLong,
    /// The socket broke.
    Io(io::Error),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("not ready"),
            Self::Closed => f.write_str("closed"),
            Self::Malformed(what) => write!(f, "no message: {what}"),
            Self::Unknown { .. } => f.write_str("not known here"),
            Self::TooLong => f.write_str("message too long"),
            Self::Io(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for WireError {}

/// A message and what came with it.
#[derive(Debug)]
pub struct Received<T, D = OwnedFd> {
    /// The message.
    pub message: T,
    /// How long it was, in bytes.
    pub length: usize,
    /// The descriptors, closed on exec. Of what kind they are is the peer's word.
    pub descriptors: Vec<D>,
}

/// The bytes of a message.
pub fn encode<T: Encode<()>>(message: &T) -> Result<Vec<u8>, WireError> {
    // Writing to memory does not fail, and these types have nothing that could.
    let bytes = minicbor::to_vec(message).map_err(|_| WireError::Malformed("not encoded"))?;
    if bytes.len() > MAX_MESSAGE { Err(WireError::TooLong) } else { Ok(bytes) }
}

/// The message of these bytes, all of them.
pub fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, WireError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let message = match decoder.decode() {
        Ok(message) => message,
        Err(why) if why.is_unknown_variant() && is_whole(bytes) => return Err(WireError::Unknown { length: bytes.len() }),
        Err(_) => return Err(WireError::Malformed("not decoded")),
    };
    if decoder.position() == bytes.len() { Ok(message) } else { Err(WireError::Malformed("more than one")) }
}

/// Whether they are one item, whatever it says.
fn is_whole(bytes: &[u8]) -> bool {
    let mut decoder = minicbor::Decoder::new(bytes);
    decoder.skip().is_ok() && decoder.position() == bytes.len()
}

/// Sends the bytes of one message with these descriptors, whole or not at all.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if descriptors.len() > MAX_DESCRIPTORS || !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(WireError::TooLong);
    }
    let mut send = || sendmsg(&socket, &[io::IoSlice::new(bytes)], &mut beside, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let sent = match send() {
        Err(Errno::TOOMANYREFS) => with_all_open_files(send),
        sent => sent,
    };
    match sent {
        Ok(_) => Ok(()),
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::TOOMANYREFS) => Err(WireError::WouldBlock),
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Err(WireError::Closed),
        Err(Errno::MSGSIZE) => Err(WireError::TooLong),
        Err(why) => Err(WireError::Io(why.into())),
    }
}

/// Does this while the process may have as many files open as it could allow itself.
///
/// The kernel counts the descriptors under way of everybody with a user's number, in all containers together, and refuses whoever's own limit
/// of open files they exceed. What runs in containers is held to the lower limit for good, so that none of it can bring the count to the higher.
fn with_all_open_files<T>(act: impl FnOnce() -> T) -> T {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let done = act();
    let _ = setrlimit(Resource::Nofile, limit);
    done
}

/// Receives one message into `buffer`, whose length is the longest that is taken. One with more descriptors than a message may have is none.
pub fn receive<T: for<'b> Decode<'b, ()>>(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received<T>, WireError> {
    receive_as(socket, buffer)
}

/// The same from somebody whose descriptors may be anything.
pub fn receive_foreign<T: for<'b> Decode<'b, ()>>(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received<T, Foreign>, WireError> {
    receive_as(socket, buffer)
}

fn receive_as<T: for<'b> Decode<'b, ()>, D: From<OwnedFd>>(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received<T, D>, WireError> {
    // Whatever is wrong with the message, its descriptors have been taken out by then, and are closed.
    let Piece { length, truncated, descriptors } = match closing::receive(socket, buffer) {
        Ok(piece) => piece,
        Err(Errno::AGAIN | Errno::INTR) => return Err(WireError::WouldBlock),
        Err(Errno::CONNRESET) => return Err(WireError::Closed),
        Err(why) => return Err(WireError::Io(why.into())),
    };
    if truncated {
        return Err(WireError::Malformed("too long"));
    }
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(WireError::Malformed("too many descriptors"));
    }
    if length == 0 {
        return Err(WireError::Closed);
    }
    let message = decode(buffer.get(..length).unwrap_or_default())?;
    Ok(Received { message, length, descriptors })
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::protocol::{Order, Process, Program, Report};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn take<T: for<'b> Decode<'b, ()>>(socket: &OwnedFd) -> Result<Received<T>, WireError> {
        receive(socket, &mut vec![0; MAX_MESSAGE])
    }

    #[test]
    fn a_message_arrives_whole_and_with_its_descriptors() {
        let (ours, theirs) = pair();
        let process = Process { program: Program::Command(vec![0xff; 128 * 1024]), ..Process::default() };
        let order = Order::Open { request: 7, process };
        send(&ours, &encode(&order).unwrap(), &[ours.as_fd(), theirs.as_fd()]).unwrap();
        send(&ours, &encode(&Order::List { request: 8 }).unwrap(), &[]).unwrap();
        let first = take::<Order>(&theirs).unwrap();
        assert_eq!((&first.message, first.descriptors.len()), (&order, 2));
        assert_eq!(take::<Order>(&theirs).unwrap().message, Order::List { request: 8 });
        assert!(matches!(take::<Order>(&theirs), Err(WireError::WouldBlock)));
        drop((ours, first.descriptors));
        assert!(matches!(take::<Order>(&theirs), Err(WireError::Closed)));
    }

    /// A peer of another age: its message has a field that is not known here, or lacks one that was added later.
    #[test]
    fn a_peer_of_another_age_is_understood() {
        let newer = minicbor::to_vec((3, (8, "added later"))).unwrap();
        assert_eq!(decode::<Order>(&newer).unwrap(), Order::List { request: 8 });
        let older = minicbor::to_vec((12, (4, 60))).unwrap();
        assert_eq!(decode::<Order>(&older).unwrap(), Order::KeepAnswer { lease: 4, seconds: 60, words: None });
    }

    /// A variant that was added later is no reason to hang up, wherever in a message it is; half a message is.
    #[test]
    fn what_only_a_newer_peer_says_is_told_apart_from_nonsense() {
        let order = minicbor::to_vec((200, (8, "added later", [[1]]))).unwrap();
        let within = minicbor::to_vec((7, (8, (9, ("a new kind of address",))))).unwrap();
        for newer in [&order, &within] {
            assert!(matches!(decode::<Order>(newer), Err(WireError::Unknown { length }) if length == newer.len()));
            for wrong in [&newer[..newer.len() - 1], &[&newer[..], b"\x00"].concat()] {
                assert!(matches!(decode::<Order>(wrong), Err(WireError::Malformed(_))), "{wrong:x?}");
            }
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (ours, theirs) = pair();
        let mut two = encode(&Order::List { request: 8 }).unwrap();
        two.extend_from_within(..);
        for bytes in [&b"\xff"[..], b"hello", &two] {
            send(&ours, bytes, &[]).unwrap();
            assert!(matches!(take::<Order>(&theirs), Err(WireError::Malformed(_))), "{bytes:?}");
        }
        let many = [ours.as_fd(); MAX_DESCRIPTORS + 1];
        assert!(matches!(send(&ours, b"x", &many), Err(WireError::TooLong)));
        send(&ours, &encode(&Report::Connected { request: 1 }).unwrap(), &[]).unwrap();
        assert!(matches!(receive::<Report>(&theirs, &mut [0; 2]), Err(WireError::Malformed("too long"))));
    }
}
