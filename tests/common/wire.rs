//! An SSH client that says whatever it is told to, in any order: enough of the protocol to be let in, and no manners.
//!
//! curve25519-sha256 and aes256-gcm@openssh.com only; who the server is, is not checked.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;

pub const DISCONNECT: u8 = 1;
pub const SERVICE_REQUEST: u8 = 5;
pub const KEXINIT: u8 = 20;
pub const NEWKEYS: u8 = 21;
pub const USERAUTH_REQUEST: u8 = 50;
pub const USERAUTH_SUCCESS: u8 = 52;
pub const GLOBAL_REQUEST: u8 = 80;
pub const CHANNEL_OPEN: u8 = 90;
pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
pub const CHANNEL_OPEN_FAILURE: u8 = 92;
pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
pub const CHANNEL_DATA: u8 = 94;
pub const CHANNEL_REQUEST: u8 = 98;
pub const CHANNEL_SUCCESS: u8 = 99;
pub const CHANNEL_FAILURE: u8 = 100;

const VERSION: &str = "SSH-2.0-wire";

/// One direction's cipher.
struct Cipher {
    key: LessSafeKey,
    nonce: [u8; 12],
}

/// A connection. Without ciphers, it speaks plainly.
pub struct Wire {
    pub stream: TcpStream,
    seal: Option<Cipher>,
    open: Option<Cipher>,
    version: String,
}

/// A message that is being put together.
#[derive(Clone)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn new(number: u8) -> Self {
        Self(vec![number])
    }

    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub fn string(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let mut message = self.u32(u32::try_from(bytes.len()).unwrap());
        message.0.extend(bytes);
        message
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

impl Wire {
    /// Connects, and says who it is.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        let mut wire = Self { stream, seal: None, open: None, version: String::new() };
        wire.stream.write_all(format!("{VERSION}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            wire.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        wire.version = String::from_utf8_lossy(&line).trim_end().to_owned();
        Ok(wire)
    }

    /// Connects, and exchanges keys.
    pub fn encrypted(port: u16) -> io::Result<Self> {
        let mut wire = Self::connect(port)?;
        wire.exchange()?;
        Ok(wire)
    }

    /// Connects, and logs in with a password.
    pub fn logged_in(port: u16, account: &str, password: &str) -> io::Result<Self> {
        let mut wire = Self::encrypted(port)?;
        wire.send(&Message::new(SERVICE_REQUEST).string("ssh-userauth"))?;
        wire.send(&password_request(account, password))?;
        wire.until(USERAUTH_SUCCESS)?;
        Ok(wire)
    }

    /// The offer of algorithms.
    pub fn kexinit() -> Message {
        let mut message = Message::new(KEXINIT).raw(&[7; 16]);
        for list in [
            "curve25519-sha256,kex-strict-c-v00@openssh.com",
            "ssh-ed25519",
            "aes256-gcm@openssh.com",
            "aes256-gcm@openssh.com",
            "hmac-sha2-256-etm@openssh.com",
            "hmac-sha2-256-etm@openssh.com",
            "none",
            "none",
            "",
            "",
        ] {
            message = message.string(list);
        }
        message.byte(0).u32(0)
    }

    pub fn exchange(&mut self) -> io::Result<()> {
        let ours = Self::kexinit();
        self.send(&ours)?;
        let theirs = self.receive()?;
        let secret = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
        let public = secret.compute_public_key().unwrap();
        self.send(&Message::new(30).string(public.as_ref()))?;
        let reply = self.until(31)?;
        let mut rest = &reply[1..];
        let (host_key, server_public) = (take(&mut rest), take(&mut rest));
        let shared = agree_ephemeral(secret, UnparsedPublicKey::new(&X25519, server_public), io::Error::other("agreement"), |shared| {
            Ok::<_, io::Error>(shared.to_vec())
        })?;
        let shared = Message(Vec::new()).string(mpint(&shared)).0;
        let hash = Message(Vec::new())
            .string(VERSION)
            .string(&self.version)
            .string(&ours.0)
            .string(&theirs)
            .string(host_key)
            .string(public.as_ref())
            .string(server_public)
            .raw(&shared);
        let hash = digest(&SHA256, &hash.0);
        let derive = |letter: u8| {
            let input = Message(shared.clone()).raw(hash.as_ref()).byte(letter).raw(hash.as_ref());
            digest(&SHA256, &input.0).as_ref().to_vec()
        };
        let cipher = |nonce: u8, key: u8| Cipher {
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &derive(key)).unwrap()),
            nonce: derive(nonce)[..12].try_into().unwrap(),
        };
        self.send(&Message::new(NEWKEYS))?;
        self.until(NEWKEYS)?;
        self.seal = Some(cipher(b'A', b'C'));
        self.open = Some(cipher(b'B', b'D'));
        Ok(())
    }

    /// Sends a message in a packet of its own.
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        let packet = self.packet(message);
        self.stream.write_all(&packet)
    }

    /// The packet of a message, for sending many at once.
    pub fn packet(&mut self, message: &Message) -> Vec<u8> {
        let payload = &message.0;
        let (block, ahead) = if self.seal.is_some() { (16, 0) } else { (8, 4) };
        let mut padding = block - (ahead + 1 + payload.len()) % block;
        if padding < 4 {
            padding += block;
        }
        let length = u32::try_from(1 + payload.len() + padding).unwrap().to_be_bytes();
        let mut body = vec![u8::try_from(padding).unwrap()];
        body.extend(payload);
        body.extend(vec![0; padding]);
        if let Some(cipher) = &mut self.seal {
            let nonce = cipher.next();
            cipher.key.seal_in_place_append_tag(nonce, Aad::from(length), &mut body).unwrap();
        }
        [length.to_vec(), body].concat()
    }

    /// The next message.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let tag = if self.open.is_some() { 16 } else { 0 };
        let size = u32::from_be_bytes(length) as usize;
        if size > 1 << 20 {
            return Err(io::Error::other(format!("a packet of {size} bytes")));
        }
        let mut body = vec![0; size + tag];
        self.stream.read_exact(&mut body)?;
        if let Some(cipher) = &mut self.open {
            let nonce = cipher.next();
            cipher.key.open_in_place(nonce, Aad::from(length), &mut body).map_err(|_| io::Error::other("a forged packet"))?;
            body.truncate(size);
        }
        let padding = usize::from(body[0]);
        Ok(body[1..size - padding].to_vec())
    }

    /// The next message of this number; others are passed over, a disconnection is an error.
    pub fn until(&mut self, number: u8) -> io::Result<Vec<u8>> {
        loop {
            let message = self.receive()?;
            match message[0] {
                found if found == number => return Ok(message),
                DISCONNECT => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "disconnected")),
                _ => {}
            }
        }
    }

    /// Opens a session channel: the server's number of it, or `None` if it refuses.
    pub fn open_session(&mut self, number: u32) -> io::Result<Option<u32>> {
        self.send(&Message::new(CHANNEL_OPEN).string("session").u32(number).u32(1 << 20).u32(32 * 1024))?;
        loop {
            let message = self.receive()?;
            match message[0] {
                CHANNEL_OPEN_CONFIRMATION => return Ok(Some(u32::from_be_bytes(message[5..9].try_into().unwrap()))),
                CHANNEL_OPEN_FAILURE => return Ok(None),
                DISCONNECT => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "disconnected")),
                _ => {}
            }
        }
    }

    /// Reads until the server has closed the connection.
    pub fn closed(&mut self) -> io::Result<()> {
        let mut sink = [0; 4096];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(why) if matches!(why.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => return Ok(()),
                Err(why) => return Err(why),
            }
        }
    }
}

impl Cipher {
    fn next(&mut self) -> Nonce {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let counter = u64::from_be_bytes(self.nonce[4..].try_into().unwrap()).wrapping_add(1);
        self.nonce[4..].copy_from_slice(&counter.to_be_bytes());
        nonce
    }
}

/// A try to log in with a password.
pub fn password_request(account: &str, password: &str) -> Message {
    Message::new(USERAUTH_REQUEST).string(account).string("ssh-connection").string("password").byte(0).string(password)
}

/// A request on a channel.
pub fn channel_request(channel: u32, kind: &str, wants_reply: bool) -> Message {
    Message::new(CHANNEL_REQUEST).u32(channel).string(kind).byte(u8::from(wants_reply))
}

fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
    let (string, after) = rest[4..].split_at(length);
    *rest = after;
    string
}

/// A positive number without needless zeros, and with one where its first bit is set.
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let bytes: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    if bytes.first().is_some_and(|first| first & 0x80 != 0) { [vec![0], bytes].concat() } else { bytes }
}
