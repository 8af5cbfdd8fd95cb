//! The frames in which Docker sends output and errors over one connection: a byte that says which, three of nothing, the length in four
//! bytes, and so many bytes. Parts of a frame are passed on as they come, so that a frame's length costs no memory.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, stream};
use tokio::io::{AsyncRead, ReadBuf};

/// How much is read at once, in bytes; what one stream holds at most. One that waits holds nothing.
const READ: usize = 16 * 1024;

/// Which of a process's two outputs some bytes are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes frames apart, however they are cut into pieces.
#[derive(Debug, Default)]
pub struct Demux {
    header: [u8; 8],
    /// How many bytes of the header are here.
    have: usize,
    /// Where the rest of the frame belongs, and how long it is.
    rest: Option<(Source, u32)>,
}

/// A frame that is from neither output: the stream is out of step, nothing after it means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("output of unknown kind {0}")]
pub struct BadFrame(u8);

impl Demux {
    /// Takes the next bytes of one output off the front of `input`. `None`: all of it was taken, and more is needed.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<(Source, Bytes)>, BadFrame> {
        while !input.is_empty() {
            if let Some((source, left)) = self.rest.take() {
                let here = input.len().min(left as usize);
                let part = input.split_to(here);
                // `here` is at most `left`.
                let left = left - u32::try_from(here).unwrap_or(left);
                self.rest = (left > 0).then_some((source, left));
                return Ok(Some((source, part)));
            }
            let wanted = input.len().min(self.header.len() - self.have);
            input.copy_to_slice(&mut self.header[self.have..self.have + wanted]);
            self.have += wanted;
            if self.have == self.header.len() {
                self.have = 0;
                let [kind, _, _, _, length @ ..] = self.header;
                let source = match kind {
                    1 => Source::Stdout,
                    2 => Source::Stderr,
                    other => return Err(BadFrame(other)),
                };
                let length = u32::from_be_bytes(length);
                self.rest = (length > 0).then_some((source, length));
            }
        }
        Ok(None)
    }

    /// Whether the stream may end here: between two frames.
    pub fn is_between_frames(&self) -> bool {
        self.have == 0 && self.rest.is_none()
    }
}

/// The outputs of a process without a terminal. Ends after the first error.
pub fn demultiplex(output: impl AsyncRead + Send + 'static) -> impl Stream<Item = io::Result<(Source, Bytes)>> + Send {
    let pieces = Box::pin(raw(output));
    stream::unfold(Some((pieces, Demux::default(), Bytes::new())), |state| async move {
        let (mut pieces, mut demux, mut input) = state?;
        loop {
            match demux.next(&mut input) {
                Ok(Some(part)) => return Some((Ok(part), Some((pieces, demux, input)))),
                Ok(None) => {}
                Err(bad) => return Some((Err(io::Error::new(io::ErrorKind::InvalidData, bad)), None)),
            }
            match pieces.next().await {
                Some(Ok(piece)) => input = piece,
                Some(Err(error)) => return Some((Err(error), None)),
                None if demux.is_between_frames() => return None,
                None => return Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
            }
        }
    })
}

/// The output of a process with a terminal: its bytes as they are.
pub fn raw(output: impl AsyncRead + Send + 'static) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(Box::pin(output)), |output| async move {
        let mut output = output?;
        match piece(output.as_mut()).await {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => Some((Ok(piece), Some(output))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// What can be read now, as soon as anything can; empty at the end. It is read onto the stack and copied from there, so that a session that
/// says nothing, as most do most of the time, has no buffer.
async fn piece(mut output: Pin<&mut impl AsyncRead>) -> io::Result<Bytes> {
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); READ];
        let mut space = ReadBuf::uninit(&mut space);
        let read = output.as_mut().poll_read(cx, &mut space);
        read.map_ok(|()| Bytes::copy_from_slice(space.filled()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn frame(source: Source, payload: &[u8]) -> Vec<u8> {
        let kind = if source == Source::Stdout { 1 } else { 2 };
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 0, 0], &length[..], payload].concat()
    }

    /// All of both outputs, from pieces cut anywhere.
    fn taken_apart(wire: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<u8>, bool), BadFrame> {
        let (mut demux, mut out, mut err) = (Demux::default(), Vec::new(), Vec::new());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).chain([0, wire.len()]).collect();
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let mut input = Bytes::copy_from_slice(&wire[pair[0]..pair[1]]);
            while let Some((source, part)) = demux.next(&mut input)? {
                assert!(!part.is_empty());
                if source == Source::Stdout { out.extend(part) } else { err.extend(part) }
            }
            assert!(input.is_empty());
        }
        Ok((out, err, demux.is_between_frames()))
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_comes_out_whole(
            parts in vec((any::<bool>(), vec(any::<u8>(), 0..40)), 0..12),
            cuts in vec(any::<usize>(), 0..30),
        ) {
            let (mut wire, mut out, mut err) = (Vec::new(), Vec::new(), Vec::new());
            for (is_out, payload) in &parts {
                let (source, expected) = if *is_out { (Source::Stdout, &mut out) } else { (Source::Stderr, &mut err) };
                wire.extend(frame(source, payload));
                expected.extend(payload);
            }
            prop_assert_eq!(taken_apart(&wire, &cuts), Ok((out, err, true)));
        }

        #[test]
        fn garbage_is_an_error_or_output_never_a_panic(wire in vec(any::<u8>(), 0..64), cuts in vec(any::<usize>(), 0..8)) {
            match taken_apart(&wire, &cuts) {
                Ok((out, err, _)) => prop_assert!(out.len() + err.len() <= wire.len()),
                Err(BadFrame(kind)) => prop_assert!(kind != 1 && kind != 2),
            }
        }
    }

    #[test]
    fn a_frame_of_four_gibibytes_is_passed_on_as_it_comes() {
        let mut demux = Demux::default();
        let mut input = Bytes::from_static(b"\x02\0\0\0\xff\xff\xff\xffhello");
        assert_eq!(demux.next(&mut input), Ok(Some((Source::Stderr, Bytes::from_static(b"hello")))));
        assert!(!demux.is_between_frames());
    }

    #[tokio::test]
    async fn an_end_within_a_frame_is_an_error() {
        let wire: &[u8] = b"\x01\0\0\0\0\0\0\x05hel";
        let parts: Vec<_> = demultiplex(wire).collect().await;
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].as_ref().unwrap(), &(Source::Stdout, Bytes::from_static(b"hel")));
        assert_eq!(parts[1].as_ref().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
