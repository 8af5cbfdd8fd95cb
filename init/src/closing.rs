//! Closing descriptors that came from somebody else, without waiting for what they refer to.
//!
//! Whoever is the last to close a TCP socket with `SO_LINGER` waits until its peer has read what is in it, for as long as its sender liked,
//! whatever the socket's flags say. It need not even be the socket that is closed: those that were sent over a Unix socket and are still in
//! its queue go with it, and so do those in the queue of a connection that nobody has accepted yet, and those beside bytes that are read
//! without room for them. So what comes from a container is received with room for everything, and emptied before it is closed.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown, SocketFlags, SocketType, accept_with,
    connect_unspec, recvmsg, shutdown,
};

/// Most descriptors that the kernel takes beside one message (`SCM_MAX_FD`).
const MOST: usize = 253;

/// Most pieces taken out of one queue. What a Unix socket of the usual size holds are fewer, also when each is empty.
const PIECES: usize = 1024;

/// Most descriptors that are looked into of one that is closed: its queue may have sockets whose queues have some. A user can have no more
/// under way than she may have open.
const INSIDE: usize = 4096;

/// Bytes of a queue that are thrown away at once.
const PIECE: usize = 64 * 1024;

/// A descriptor that came from somebody else. Dropping it does not wait.
#[derive(Debug)]
pub struct Foreign(OwnedFd);

/// What was received at once.
#[derive(Debug)]
pub struct Piece<D> {
    /// How many bytes.
    pub length: usize,
    /// Whether there was no room for all of it.
    pub truncated: bool,
    /// What came beside them, closed on exec.
    pub descriptors: Vec<D>,
}

// === impl Foreign ===

impl From<OwnedFd> for Foreign {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Foreign {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let mut inside = Vec::new();
        calm(&self.0, &mut inside);
        abandon(inside);
    }
}

/// Receives what is there, without waiting, and every descriptor beside it.
pub fn receive<D: From<OwnedFd>>(socket: impl AsFd, buffer: &mut [u8]) -> Result<Piece<D>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST), ScmCredentials(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [std::io::IoSliceMut::new(buffer)], &mut beside, flags);
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some.map(D::from));
        }
    }
    let received = received?;
    let truncated = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Piece { length: received.bytes, truncated, descriptors })
}

/// Closes what nobody wants: a connection among it is reset.
pub fn throw_away(descriptors: Vec<Foreign>) {
    for one in &descriptors {
        // Also if who sent it lets it linger again in this moment: there is nothing left to wait for.
        let _ = connect_unspec(one);
    }
}

/// The same for those that were inside another, and inside those.
fn abandon(mut left: Vec<OwnedFd>) {
    let mut seen = 0;
    while let Some(one) = left.pop() {
        seen += 1;
        let mut inside = Vec::new();
        if seen <= INSIDE {
            calm(&one, &mut inside);
        }
        let _ = connect_unspec(&one);
        left.append(&mut inside);
    }
}

/// Makes it something that closes at once, and takes out what it has in its queue.
fn calm(descriptor: &OwnedFd, inside: &mut Vec<OwnedFd>) {
    // What is no socket says so.
    let Ok(family) = socket_domain(descriptor) else { return };
    let _ = set_socket_linger(descriptor, None);
    if family != AddressFamily::UNIX {
        return;
    }
    // From here on nothing more can be put there.
    let _ = shutdown(descriptor, Shutdown::Both);
    let is_stream = socket_type(descriptor).is_ok_and(|kind| kind == SocketType::STREAM);
    let mut buffer = Vec::new();
    for _ in 0..PIECES {
        buffer.resize(PIECE, 0);
        match receive::<OwnedFd>(descriptor, &mut buffer) {
            // The end of a stream; of others it may be an empty message.
            Ok(Piece { length: 0, descriptors, .. }) if is_stream && descriptors.is_empty() => return,
            Ok(piece) => inside.extend(piece.descriptors),
            Err(Errno::INTR) => {}
            // It listens. Having been shut down, it does not wait for anybody to come.
            Err(Errno::INVAL) => match accept_with(descriptor, SocketFlags::CLOEXEC) {
                Ok(waiting) => inside.push(waiting),
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg, socketpair};

    use super::*;

    /// A connection that whoever closes it last waits for, and its other end, which reads nothing.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        while std::io::Write::write(&mut &near, &[0; 1 << 16]).is_ok() {}
        set_socket_linger(&near, Some(Duration::from_secs(20))).unwrap();
        (near.into(), far)
    }

    fn put(socket: impl AsFd, bytes: &[u8], descriptor: OwnedFd) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let fds = [descriptor.as_fd()];
        assert!(beside.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(socket, &[std::io::IoSlice::new(bytes)], &mut beside, SendFlags::DONTWAIT).unwrap();
    }

    fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn nothing_is_waited_for_wherever_it_is() {
        let since = Instant::now();
        let mut others = Vec::new();
        let mut linger = || {
            let (near, far) = lingering();
            others.push(far);
            near
        };
        // Itself, and beside what is read.
        drop(Foreign(linger()));
        let (ours, theirs) = pair(SocketType::STREAM);
        put(&theirs, b"x", linger());
        let piece = receive::<Foreign>(&ours, &mut [0; 9]).unwrap();
        assert_eq!((piece.length, piece.descriptors.len()), (1, 1));
        throw_away(piece.descriptors);
        // Behind other bytes, in each kind of queue; and two deep.
        for kind in [SocketType::STREAM, SocketType::SEQPACKET, SocketType::DGRAM] {
            let (ours, theirs) = pair(kind);
            for bytes in [&b"before"[..], b""] {
                rustix::net::send(&theirs, bytes, SendFlags::empty()).unwrap();
            }
            put(&theirs, b"x", linger());
            let (outer, sender) = pair(SocketType::STREAM);
            put(&sender, b"x", ours);
            drop(theirs);
            drop(Foreign(outer));
        }
        // In a connection that nobody has accepted.
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(dir.path().join("socket")).unwrap();
        let new = || rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let (listener, caller) = (new(), new());
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 4).unwrap();
        rustix::net::connect(&caller, &address).unwrap();
        put(&caller, b"x", linger());
        drop(caller);
        drop(Foreign(listener));
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }

    #[test]
    fn what_was_written_still_arrives() {
        let (ours, theirs) = pair(SocketType::STREAM);
        rustix::net::send(&ours, b"last words", SendFlags::empty()).unwrap();
        rustix::net::send(&theirs, b"unread", SendFlags::empty()).unwrap();
        drop(Foreign(ours));
        let mut buffer = [0; 99];
        assert_eq!(rustix::net::recv(&theirs, &mut buffer[..], RecvFlags::empty()).unwrap().0, 10);
    }
}
