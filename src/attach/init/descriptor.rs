//! Descriptors that came out of a container, read and written without ever waiting in the kernel.
//!
//! What a descriptor refers to is shared with whoever sent it, and so are its flags: a container could take `O_NONBLOCK` off again and have a
//! thread of the gateway wait for it. So no call here relies on that flag. Pipes are asked with `RWF_NOWAIT` and sockets with `MSG_DONTWAIT`,
//! which are the call's own; a descriptor of another kind is not taken at all (a terminal has no such call, and therefore stays with init).
//! Closing one could wait as well, for which see [`innkeeper_init::closing`]: all of them are [`Foreign`], and whoever speaks on a Unix
//! socket can send others, which nobody wants.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use innkeeper_init::closing::{self, Foreign};
use rustix::fs::{FileType, fstat};
use rustix::io::{ReadWriteFlags, ioctl_fionread, preadv2, pwritev2};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketType, send, shutdown};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::attach::AttachError;

/// Most bytes that are read at once. As much as a pipe of the usual size holds.
const PIECE: usize = 64 * 1024;

/// How much a process may write before it is read, in bytes: four pieces, so that it and the gateway need not take turns.
const ROOM: usize = 256 * 1024;

/// The offset that stands for "where the pipe is".
const HERE: u64 = u64::MAX;

/// One end of a pipe.
pub(super) struct Pipe(AsyncFd<Foreign>);

/// A connected socket that is a stream. Both halves of it are the same socket.
#[derive(Clone)]
pub(super) struct Socket {
    descriptor: Arc<AsyncFd<Foreign>>,
    is_tcp: bool,
}

// === impl Pipe ===

impl Pipe {
    /// The end that is read from.
    pub(super) fn reading(descriptor: Foreign) -> Result<Self, AttachError> {
        let pipe = Self::new(descriptor, Interest::READABLE)?;
        // Who may not make it larger has the usual size.
        let _ = rustix::pipe::fcntl_setpipe_size(pipe.0.get_ref(), ROOM);
        Ok(pipe)
    }

    /// The end that is written to.
    pub(super) fn writing(descriptor: Foreign) -> Result<Self, AttachError> {
        Self::new(descriptor, Interest::WRITABLE)
    }

    fn new(descriptor: Foreign, interest: Interest) -> Result<Self, AttachError> {
        let is_pipe = fstat(&descriptor).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if !is_pipe {
            return Err(AttachError::Init("a descriptor that is no pipe".to_owned()));
        }
        register(descriptor, interest).map(Self)
    }

    /// What is there, once there is something; empty at the end.
    pub(super) fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        poll_piece(&self.0, cx, read, false)
    }

    /// What is there now: `WouldBlock` says that it is empty.
    pub(super) fn piece_now(&self) -> io::Result<Bytes> {
        piece(self.0.get_ref(), read).map(|(piece, _)| piece)
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            let over = ready.ready().is_write_closed();
            let write = |pipe: &AsyncFd<Foreign>| Ok(pwritev2(pipe.get_ref(), &[IoSlice::new(data)], HERE, ReadWriteFlags::NOWAIT)?);
            match ready.try_io(write) {
                Ok(written) => return Poll::Ready(written),
                Err(_) if over => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(_) => {}
            }
        }
    }
}

/// Reads what there is, up to [`PIECE`], and says whether that was all. The buffer is made for what is there, so that who waits holds none.
fn piece(descriptor: &Foreign, read: impl FnOnce(&Foreign, &mut [u8]) -> io::Result<usize>) -> io::Result<(Bytes, bool)> {
    let there = ioctl_fionread(descriptor).ok().and_then(|there| usize::try_from(there).ok());
    let mut buffer = vec![0; there.unwrap_or(1).clamp(1, PIECE)];
    let length = read(descriptor, &mut buffer)?;
    buffer.truncate(length);
    Ok((buffer.into(), there == Some(length)))
}

/// A piece, once there is one; empty at the end. `each_is_told` says that whatever is written is told, also while there is something to read:
/// a pipe whose writer waits for room does not tell of what it writes then.
fn poll_piece(
    descriptor: &AsyncFd<Foreign>,
    cx: &mut Context<'_>,
    read: impl Fn(&Foreign, &mut [u8]) -> io::Result<usize>,
    each_is_told: bool,
) -> Poll<io::Result<Bytes>> {
    loop {
        let mut ready = ready!(descriptor.poll_read_ready(cx))?;
        let over = ready.ready().is_read_closed();
        match ready.try_io(|descriptor| piece(descriptor.get_ref(), &read)) {
            Ok(read) => {
                // Asking again would cost as much as reading. What has come since is told anew, and so is the end.
                if each_is_told && matches!(read, Ok((_, true))) {
                    ready.clear_ready();
                }
                return Poll::Ready(read.map(|(piece, _)| piece));
            }
            // Whoever is at the other end can open a pipe again that was closed, and use a socket anew. It would be told as ready for ever.
            Err(_) if over => return Poll::Ready(Ok(Bytes::new())),
            Err(_) => {}
        }
    }
}

fn read(pipe: &Foreign, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(preadv2(pipe, &mut [IoSliceMut::new(buffer)], HERE, ReadWriteFlags::NOWAIT)?)
}

/// Has the runtime say when the descriptor is ready.
#[allow(deprecated, reason = "what makes it unsound is a type that closes its descriptor or has another later, which a `Foreign` cannot")]
pub(super) fn polled(descriptor: Foreign, interest: Interest) -> io::Result<AsyncFd<Foreign>> {
    AsyncFd::with_interest(descriptor, interest)
}

fn register(descriptor: Foreign, interest: Interest) -> Result<AsyncFd<Foreign>, AttachError> {
    polled(descriptor, interest).map_err(|why| AttachError::Init(format!("a descriptor that cannot be polled: {why}")))
}

/// Reads what there is, and throws away what came beside it.
fn receive(socket: &Foreign, buffer: &mut [u8]) -> io::Result<usize> {
    let piece = closing::receive::<Foreign>(socket, buffer)?;
    closing::throw_away(piece.descriptors);
    Ok(piece.length)
}

/// A pipe to write to that `shutdown` closes.
pub(super) struct PipeWriter(pub(super) Option<Pipe>);

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &self.0 {
            Some(pipe) => pipe.poll_write(cx, data),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}

// === impl Socket ===

impl Socket {
    /// Takes a stream socket of the container's, of these kinds.
    pub(super) fn new(descriptor: Foreign, families: &[AddressFamily]) -> Result<Self, AttachError> {
        let is_stream = socket_type(&descriptor).is_ok_and(|kind| kind == SocketType::STREAM);
        let family = socket_domain(&descriptor).ok().filter(|family| is_stream && families.contains(family));
        let family = family.ok_or_else(|| AttachError::Init("a descriptor that is no stream socket".to_owned()))?;
        let is_tcp = matches!(family, AddressFamily::INET | AddressFamily::INET6);
        let both = Interest::READABLE | Interest::WRITABLE;
        let descriptor = Arc::new(register(descriptor, if is_tcp { both | Interest::PRIORITY } else { both })?);
        Ok(Self { descriptor, is_tcp })
    }

    /// Whether a read that was given less than it had room for has taken all there was. Over TCP it has, but for urgent data, before which a
    /// read ends: of that the kernel tells apart, with or before what comes behind it. A Unix socket ends a read before descriptors as well.
    fn tells_each(&self) -> bool {
        self.is_tcp && self.descriptor.try_io(Interest::PRIORITY, |_| Ok(())).is_err()
    }

    /// What is there, once there is something; empty at the end.
    pub(super) fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        poll_piece(&self.descriptor, cx, receive, true)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.descriptor.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            let (over, room) = (ready.ready().is_read_closed(), space.len());
            match ready.try_io(|socket| receive(socket.get_ref(), space)) {
                Ok(received) => {
                    // Asking again would cost as much as reading. What was told since then is not forgotten by this.
                    if matches!(received, Ok(length) if (1..room).contains(&length)) && self.tells_each() {
                        ready.clear_ready();
                    }
                    return Poll::Ready(received.map(|length| buffer.advance(length)));
                }
                Err(_) if over => return Poll::Ready(Ok(())),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.descriptor.poll_write_ready(cx))?;
            let over = ready.ready().is_write_closed();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match ready.try_io(|socket| Ok(send(socket.get_ref(), data, flags)?)) {
                Ok(sent) => return Poll::Ready(sent),
                Err(_) if over => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Its peer may have closed it already.
        let _ = shutdown(self.descriptor.get_ref(), Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::{OFlags, fcntl_setfl};
    use rustix::net::{SocketFlags, socketpair};
    use rustix::pipe::pipe;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_pipe_that_was_closed_once_is_over() {
        use std::os::fd::AsRawFd;
        let open = |of: &OwnedFd, write: bool| {
            std::fs::OpenOptions::new().read(!write).write(write).open(format!("/proc/self/fd/{}", of.as_raw_fd()))
        };
        let all = vec![0; 1 << 20];

        let (read, write) = pipe().unwrap();
        let ours = Pipe::writing(write.try_clone().unwrap().into()).unwrap();
        drop(read);
        std::future::poll_fn(|cx| ours.0.poll_write_ready(cx).map(|_| ())).await;
        let _again = open(&write, false).unwrap();
        let mut ours = PipeWriter(Some(ours));
        assert_eq!(ours.write_all(&all).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);

        let (read, write) = pipe().unwrap();
        let ours = Pipe::reading(read.try_clone().unwrap().into()).unwrap();
        rustix::io::write(&write, b"last").unwrap();
        drop(write);
        assert_eq!(std::future::poll_fn(|cx| ours.poll_piece(cx)).await.unwrap(), "last");
        let _again = open(&read, true).unwrap();
        assert_eq!(std::future::poll_fn(|cx| ours.poll_piece(cx)).await.unwrap(), "");
    }

    #[tokio::test]
    async fn nothing_waits_in_the_kernel_whatever_the_flags_say() {
        let (read, write) = pipe().unwrap();
        fcntl_setfl(&read, OFlags::empty()).unwrap();
        let read = Pipe::reading(read.into()).unwrap();
        assert_eq!(read.piece_now().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut write = PipeWriter(Some(Pipe::writing(write.into()).unwrap()));
        let sent = vec![7; 1 << 20];
        let (written, got) = tokio::join!(
            async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await
            },
            async {
                let mut all = Vec::new();
                loop {
                    let piece = std::future::poll_fn(|cx| read.poll_piece(cx)).await.unwrap();
                    if piece.is_empty() {
                        break all;
                    }
                    all.extend_from_slice(&piece);
                }
            }
        );
        written.unwrap();
        assert!(got == sent);
    }

    #[tokio::test]
    async fn a_socket_ends_one_way_at_a_time() {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let [mut ours, mut theirs] = [ours, theirs].map(|end| Socket::new(end.into(), &[AddressFamily::UNIX]).unwrap());
        let mut text = String::new();
        ours.write_all(b"there").await.unwrap();
        ours.shutdown().await.unwrap();
        theirs.read_to_string(&mut text).await.unwrap();
        theirs.write_all(b" and back").await.unwrap();
        drop(theirs);
        ours.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "there and back");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_waited_for_that_is_there_urgent_data_in_between_or_not() {
        for round in 0..200_usize {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, _) = listener.accept().unwrap();
            let mut ours = Socket::new(OwnedFd::from(ours).into(), &[AddressFamily::INET]).unwrap();
            let writing = std::thread::spawn(move || {
                for step in 0..20 {
                    let urgent = (round + step) % 3 == 0;
                    send(&theirs, b"abc", SendFlags::empty()).unwrap();
                    if urgent {
                        send(&theirs, b"!", SendFlags::OOB).unwrap();
                    }
                    send(&theirs, b"defg", SendFlags::empty()).unwrap();
                    if (round + step) % 5 == 0 {
                        std::thread::sleep(std::time::Duration::from_micros(200));
                    }
                }
                theirs
            });
            let mut all = vec![0; 20 * 7];
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), ours.read_exact(&mut all)).await;
            assert!(read.is_ok_and(|read| read.is_ok()), "round {round}");
            // Urgent bytes are out of band, but for such as a later one took the place of.
            let theirs = writing.join().unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            ours.read_to_end(&mut rest).await.unwrap();
            all.extend(rest);
            all.retain(|byte| *byte != b'!');
            assert_eq!(String::from_utf8(all).unwrap(), "abcdefg".repeat(20), "round {round}");
        }
    }

    #[test]
    fn what_is_something_else_is_not_taken() {
        let file = || Foreign::from(OwnedFd::from(tempfile::tempfile().unwrap()));
        assert!(Pipe::reading(file()).is_err());
        assert!(Socket::new(file(), &[AddressFamily::UNIX]).is_err());
        let whole = || -> Foreign { socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap().0.into() };
        assert!(Socket::new(whole(), &[AddressFamily::UNIX]).is_err());
        assert!(Pipe::writing(whole()).is_err());
    }
}
