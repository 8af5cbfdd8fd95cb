//! Reading a recording back, from its beginning on, up to its end or to where it breaks off.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use secrecy::SecretString;
use zstd::stream::read::Decoder;

use super::files::read_head;
use super::seal::Opener;

/// The longest line of a recording, in bytes: what a terminal was sent at once, each byte of it escaped.
const LONGEST: u64 = 1024 * 1024;

/// A recording that is read.
pub struct Reader {
    lines: BufReader<Box<dyn Read + Send>>,
}

/// Why no more of a recording is read.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It ends here, though it was not at its end.
    #[error("it is cut here: the gateway was killed, or the disk took no more")]
    Cut,
    /// It is encrypted, and there is no key.
    #[error("it is encrypted, and recording.key_file is not set")]
    NoKey,
    /// It is not as it was written.
    #[error("{0}")]
    Damaged(io::Error),
}

impl Reader {
    pub(super) fn open(mut file: File, key: Option<&SecretString>) -> Result<Self, Broken> {
        let (meta, head) = read_head(&mut file)?;
        let from = BufReader::new(file);
        let plain: Box<dyn Read + Send> = match (meta.salt, key) {
            (None, _) => Box::new(Decoder::with_buffer(from)?),
            (Some(_), None) => return Err(Broken::NoKey),
            (Some(salt), Some(key)) => Box::new(Decoder::new(Opener::new(from, key, salt.as_bytes(), &head)?)?),
        };
        Ok(Self { lines: BufReader::new(plain) })
    }

    /// The next line, the first being the header; `None`: that was all of it.
    pub fn line(&mut self) -> Result<Option<String>, Broken> {
        let mut line = Vec::new();
        (&mut self.lines).take(LONGEST).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            return Err(Broken::Cut);
        }
        String::from_utf8(line).map(Some).map_err(|_| Broken::Damaged(io::Error::other("a line of it is not text")))
    }
}

impl From<io::Error> for Broken {
    fn from(why: io::Error) -> Self {
        if why.kind() == io::ErrorKind::UnexpectedEof { Self::Cut } else { Self::Damaged(why) }
    }
}
