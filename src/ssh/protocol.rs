//! What the protocol library is told: algorithms, limits and timers.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac, server};

use super::Config;
use super::login::{MAX_OFFERS, OFFER_STEP};

/// How the gateway introduces itself. No version: who scans for one need not find it.
const IDENTIFICATION: &str = "SSH-2.0-innkeeper";

/// What a client may send on one channel before more is asked for, in bytes. Over a line with a round trip of 100 ms: 20 MB/s.
pub(super) const WINDOW: u32 = 2 << 20;

/// Messages from a client that wait for a channel's task, which always takes them at once. With 32 KiB each: 1 MiB.
const CHANNEL_QUEUE: usize = 32;

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

const KEX_POST_QUANTUM: &[kex::Name] =
    &[kex::MLKEM768X25519_SHA256, kex::EXTENSION_SUPPORT_AS_SERVER, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER];

/// AES-GCM first: with AES instructions, as nearly everywhere, it is more than twice as fast as ChaCha20.
const CIPHERS: &[cipher::Name] =
    &[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_128_GCM, cipher::AES_256_CTR, cipher::AES_128_CTR];

const MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM];

/// Signatures that users may make (told to clients as `server-sig-algs`), and with ed25519 first the host's. SHA-1 is not among them.
const SIGNATURES: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::SkEd25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::SkEcdsaSha2NistP256,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// The ways to log in that are offered.
pub(super) fn methods() -> MethodSet {
    MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password][..])
}

/// The library's configuration.
pub(super) fn configuration(config: &Config, keys: Vec<PrivateKey>) -> server::Config {
    let keepalive = config.keepalive_interval.unless_zero();
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
        methods: methods(),
        // Rejections are made to take equally long in `login`; this covers those that the library makes itself, such as a wrong signature.
        auth_rejection_time: OFFER_STEP,
        // OpenSSH begins with the method "none" to learn which there are.
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys,
        certificates: Vec::new(),
        limits: russh::Limits::default(),
        window_size: WINDOW,
        maximum_packet_size: 32 * 1024,
        channel_buffer_size: CHANNEL_QUEUE,
        event_buffer_size: 10,
        preferred: Preferred {
            kex: Cow::Borrowed(if config.post_quantum_only { KEX_POST_QUANTUM } else { KEX }),
            key: Cow::Borrowed(SIGNATURES),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        // The library counts "none" and refused offers too. `login` counts what matters and ends the connection; this is the last resort.
        max_auth_attempts: config.max_auth_tries + MAX_OFFERS + 2,
        // A live client answers keepalives, so only one that is gone or reads nothing is ever silent for this long. Without keepalives it
        // must not be set, as an idle session is silent too; the kernel's own timers remain.
        inactivity_timeout: keepalive
            .map(|interval| interval * (u32::try_from(config.keepalive_max).unwrap_or(u32::MAX).saturating_add(2))),
        keepalive_interval: keepalive,
        keepalive_max: config.keepalive_max,
        nodelay: true,
    }
}
