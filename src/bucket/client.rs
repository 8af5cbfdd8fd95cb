//! What is asked of the service.
//!
//! Addresses are path-style, which MinIO, Ceph, R2 and AWS all understand. A request's address carries its signature, so no address is
//! ever told. An object is there whole or not at all; the service is asked to compare what it received with its hash.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::header::{CONTENT_LENGTH, RANGE};
use reqwest::{Body, Client, RequestBuilder, Response, StatusCode};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::actions::list_objects_v2::ListObjectsV2Response;
use rusty_s3::{Credentials, S3Action, UrlStyle};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use super::config::Place;

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may take to begin, where nothing is sent, and how long it may pause.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a request may take that carries no data. Data has the time that [`SLOWEST`] needs besides.
const REQUEST: Duration = Duration::from_secs(60);

/// The least bytes a second that are waited for.
const SLOWEST: u64 = 64 * 1024;

/// How long a signature is good for. Longer than the longest request, clocks a little apart included.
const SIGNED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Pauses before a request is made again that the network or the service failed.
const PAUSES: &[Duration] =
    &[Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];

/// The longest list that is read, in bytes: it has a thousand names. And about as much as is read of an error.
const LONGEST_LIST: u64 = 4 << 20;
const LONGEST_ERROR: usize = 64 << 10;

/// Bytes of a file that are sent at once.
const PIECE: usize = 64 * 1024;

/// The header with the hash of what is sent.
const CHECKSUM: &str = "x-amz-checksum-sha256";

/// A bucket, or a part of one. To be used within one runtime only: its connections are that one's.
pub struct Bucket {
    client: Client,
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    prefix: String,
    section: &'static str,
}

/// Why something cannot be had of a bucket.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct BucketError {
    /// What kind of trouble it is.
    pub kind: Kind,
    /// What to tell a person: what failed, and the mend.
    pub message: String,
}

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such bucket, or there can be none.
    NoBucket,
    /// There is no such object.
    Missing,
    /// It is not what was asked for, or not as long.
    Damaged,
    /// The service does not accept the credentials.
    Denied,
    /// The service has no room.
    Full,
    /// It is refused for what it is.
    Refused,
    /// The service does not answer, or not as such services do.
    Unreachable,
    /// A file of this machine's cannot be read or written.
    Local,
}

/// What a request came to, and if it failed whether it is worth making again.
type Tried<T> = Result<T, (BucketError, bool)>;

impl Bucket {
    /// Nothing is asked of the service yet. `section` is the configuration's that has the place, for what is told.
    pub fn new(place: &Place, section: &'static str) -> Result<Self, BucketError> {
        let wrong = |why: String| BucketError { kind: Kind::NoBucket, message: why };
        let endpoint = place.endpoint.parse().map_err(|why| wrong(format!("{section}.endpoint is not an address: {why}")))?;
        let bucket = rusty_s3::Bucket::new(endpoint, UrlStyle::Path, place.bucket.clone(), place.region.clone())
            .map_err(|why| wrong(format!("{section}.endpoint or the bucket's name cannot be used: {why}")))?;
        let client = Client::builder()
            // No time for reading: the library counts that of sending as well.
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|why| BucketError { kind: Kind::Unreachable, message: format!("cannot prepare to speak TLS: {why}") })?;
        let credentials = Credentials::new(place.access_key.clone(), place.secret_key.clone());
        Ok(Self { client, bucket, credentials, prefix: place.prefix.clone(), section })
    }

    /// Where it is, as a configuration has it.
    pub fn location(&self) -> String {
        format!("s3://{}/{}", self.bucket.name(), self.prefix)
    }

    /// What an object of this name is called in the bucket.
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether there is nothing.
    pub async fn is_empty(&self) -> Result<bool, BucketError> {
        let answer = self.request("list", self.bucket.name(), LONGEST_LIST, || Ok(self.list_one())).await?;
        Ok(self.listing(&answer)?.contents.is_empty())
    }

    /// Asks once whether the bucket is there and may be read.
    pub async fn look(&self) -> Result<(), BucketError> {
        self.sent("list", self.bucket.name(), SILENCE, Ok(self.list_one())).await.map(drop).map_err(|(why, _)| why)
    }

    /// Asks for the name of one object, if there is any.
    fn list_one(&self) -> RequestBuilder {
        let mut action = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
        action.with_prefix(self.prefix.clone());
        action.with_max_keys(1);
        self.client.get(action.sign(SIGNED_FOR)).timeout(REQUEST)
    }

    /// The objects whose names begin so, and how long each is, in bytes. The names are without what all have in common.
    pub async fn list(&self, begin: &str) -> Result<Vec<(String, u64)>, BucketError> {
        let prefix = self.full_name(begin);
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut action = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
            action.with_prefix(prefix.clone());
            if let Some(token) = token.take() {
                action.with_continuation_token(token);
            }
            let url = action.sign(SIGNED_FOR);
            let answer = self.request("list", &prefix, LONGEST_LIST, || Ok(self.client.get(url.clone()).timeout(REQUEST))).await?;
            let listing = self.listing(&answer)?;
            for object in listing.contents {
                let name = object.key.strip_prefix(&self.prefix).map(str::to_owned);
                found.extend(name.map(|name| (name, object.size.unwrap_or(u64::MAX))));
            }
            match listing.next_continuation_token {
                Some(next) => token = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// An object, or a part of it, which is then as long as was asked for. Kept in memory: `longest` is how long it may take, in bytes.
    pub async fn get(&self, name: &str, part: Option<(u64, u64)>, longest: u64) -> Result<Bytes, BucketError> {
        let name = self.full_name(name);
        let url = self.bucket.get_object(Some(&self.credentials), &name).sign(SIGNED_FOR);
        let longest = part.map_or(longest, |(_, length)| length);
        let make = || {
            let request = self.client.get(url.clone()).timeout(time_for(longest));
            Ok(match part {
                Some((offset, length)) if length > 0 => {
                    request.header(RANGE, format!("bytes={offset}-{}", offset.saturating_add(length).saturating_sub(1)))
                }
                _ => request,
            })
        };
        let data = self.request("read", &name, longest, make).await?;
        match part {
            Some((_, length)) if data.len() as u64 != length => {
                let message = format!("{name} is shorter than it was, or the service does not serve parts");
                Err(BucketError { kind: Kind::Damaged, message })
            }
            _ => Ok(data),
        }
    }

    /// Writes an object of this length to a file, which is empty.
    pub async fn fetch(&self, name: &str, length: u64, into: File) -> Result<(), BucketError> {
        let name = self.full_name(name);
        let url = self.bucket.get_object(Some(&self.credentials), &name).sign(SIGNED_FOR);
        // What has arrived is in the file: a failure halfway is told, and not tried again.
        let make = || self.client.get(url.clone()).timeout(time_for(length));
        let mut response = self.again(|| self.sent("read", &name, SILENCE, Ok(make()))).await?;
        let wrong = || BucketError { kind: Kind::Damaged, message: format!("{name} is not as long as it was") };
        let mut into = tokio::fs::File::from_std(into);
        let mut left = length;
        while let Some(piece) = self.piece("read", &name, &mut response).await? {
            left = left.checked_sub(piece.len() as u64).ok_or_else(wrong)?;
            into.write_all(&piece).await.map_err(|why| local(&name, &why))?;
        }
        into.flush().await.map_err(|why| local(&name, &why))?;
        if left == 0 { Ok(()) } else { Err(wrong()) }
    }

    /// Makes an object, or replaces it.
    pub async fn put(&self, name: &str, content: Bytes) -> Result<(), BucketError> {
        let (hash, length) = (BASE64.encode(Sha256::digest(&content)), content.len() as u64);
        self.write(name, &hash, length, || Ok(content.clone().into())).await
    }

    /// Makes an object of a file that nobody changes, or replaces it. Says how long it is, in bytes.
    pub async fn put_file(&self, name: &str, path: &Path) -> Result<u64, BucketError> {
        let (of, path) = (self.full_name(name), path.to_owned());
        let opened = path.clone();
        let hashed = tokio::task::spawn_blocking(move || hash_of(&opened)).await.map_err(|why| local(&of, &io::Error::other(why)))?;
        let (hash, length) = hashed.map_err(|why| local(&of, &why))?;
        self.write(name, &hash, length, || {
            let file = tokio::fs::File::from_std(File::open(&path)?);
            let pieces = ReaderStream::with_capacity(file, PIECE);
            Ok(Body::wrap(StreamBody::new(pieces.map_ok(Frame::data))))
        })
        .await?;
        Ok(length)
    }

    async fn write(&self, name: &str, hash: &str, length: u64, body: impl Fn() -> io::Result<Body>) -> Result<(), BucketError> {
        let name = self.full_name(name);
        let mut action = self.bucket.put_object(Some(&self.credentials), &name);
        action.headers_mut().insert(CHECKSUM, hash.to_owned());
        let url = action.sign(SIGNED_FOR);
        let time = time_for(length);
        self.again(async || {
            let make = || {
                let request = self.client.put(url.clone()).header(CHECKSUM, hash).timeout(time);
                Ok(request.header(CONTENT_LENGTH, length).body(body()?))
            };
            self.sent("write", &name, time, make()).await.map(drop)
        })
        .await
    }

    /// How long an object is, in bytes.
    pub async fn length(&self, name: &str) -> Result<u64, BucketError> {
        let name = self.full_name(name);
        let url = self.bucket.head_object(Some(&self.credentials), &name).sign(SIGNED_FOR);
        let make = || self.client.head(url.clone()).timeout(REQUEST);
        let response = self.again(|| self.sent("look at", &name, SILENCE, Ok(make()))).await?;
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        length.ok_or_else(|| BucketError { kind: Kind::Damaged, message: format!("the service does not say how long {name} is") })
    }

    /// Removes an object; one that is not there is removed.
    pub async fn delete(&self, name: &str) -> Result<(), BucketError> {
        let name = self.full_name(name);
        let url = self.bucket.delete_object(Some(&self.credentials), &name).sign(SIGNED_FOR);
        let make = || self.client.delete(url.clone()).timeout(REQUEST);
        match self.again(|| self.sent("remove", &name, SILENCE, Ok(make()))).await {
            Err(why) if why.kind != Kind::Missing => Err(why),
            _ => Ok(()),
        }
    }

    /// Makes a request until it is answered, and reads the answer.
    async fn request(
        &self,
        what: &str,
        name: &str,
        longest: u64,
        make: impl Fn() -> io::Result<RequestBuilder>,
    ) -> Result<Bytes, BucketError> {
        self.again(async || {
            let mut response = self.sent(what, name, SILENCE, make()).await?;
            let mut all = BytesMut::new();
            while let Some(piece) = self.piece(what, name, &mut response).await.map_err(|why| (why, true))? {
                if (all.len() + piece.len()) as u64 > longest {
                    return Err((
                        BucketError { kind: Kind::Damaged, message: format!("{name}: the answer is longer than it may be") },
                        false,
                    ));
                }
                all.extend_from_slice(&piece);
            }
            Ok(all.freeze())
        })
        .await
    }

    /// The next of what is answered; `None` at its end.
    async fn piece(&self, what: &str, name: &str, response: &mut Response) -> Result<Option<Bytes>, BucketError> {
        match timeout(SILENCE, response.chunk()).await {
            Ok(read) => read.map_err(|why| self.unreachable(what, name, &why.without_url())),
            Err(late) => Err(self.unreachable(what, name, &late)),
        }
    }

    /// Does something until it works or is not worth trying again.
    async fn again<T, F: Future<Output = Tried<T>>>(&self, attempt: impl Fn() -> F) -> Result<T, BucketError> {
        let mut pauses = PAUSES.iter();
        loop {
            match (attempt().await, pauses.next()) {
                (Ok(done), _) => return Ok(done),
                (Err((_, true)), Some(pause)) => tokio::time::sleep(*pause).await,
                (Err((error, _)), _) => return Err(error),
            }
        }
    }

    /// Sends a request, and gives the answer if it is a good one that begins within this time.
    async fn sent(&self, what: &str, name: &str, patience: Duration, request: io::Result<RequestBuilder>) -> Tried<Response> {
        let request = request.map_err(|why| (local(name, &why), false))?;
        match timeout(patience, request.send()).await {
            Ok(Ok(response)) if response.status().is_success() => Ok(response),
            Ok(Ok(response)) => Err(self.refused(what, name, response).await),
            Ok(Err(why)) => Err((self.unreachable(what, name, &why.without_url()), true)),
            Err(late) => Err((self.unreachable(what, name, &late), true)),
        }
    }

    fn unreachable(&self, what: &str, name: &str, why: &(dyn std::error::Error + 'static)) -> BucketError {
        let place = self.bucket.object_url("").host_str().unwrap_or_default().to_owned();
        let causes = std::iter::successors(Some(why), |why| why.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let section = self.section;
        let message = format!("cannot {what} {name} at {place}: {text}; is `{section}.endpoint` right, and does the service run?");
        BucketError { kind: Kind::Unreachable, message }
    }

    /// What the service said, and whether it is worth asking again.
    async fn refused(&self, what: &str, name: &str, mut response: Response) -> (BucketError, bool) {
        let status = response.status();
        let mut body = Vec::new();
        while body.len() < LONGEST_ERROR
            && let Ok(Some(piece)) = self.piece(what, name, &mut response).await
        {
            body.extend_from_slice(&piece);
        }
        let code = code_of(&body);
        let (bucket, section) = (self.bucket.name(), self.section);
        let says = format!("{status} {code}");
        let (kind, message) = match (status, code.as_str()) {
            (StatusCode::NOT_FOUND, "NoSuchBucket") => {
                (Kind::NoBucket, format!("there is no bucket {bucket:?} at `{section}.endpoint`; make it, or name another"))
            }
            (StatusCode::NOT_FOUND, _) => (Kind::Missing, format!("{name} is not in bucket {bucket:?} ({says})")),
            (_, "RequestTimeTooSkewed") => (Kind::Denied, format!("{says}: this machine's clock is wrong; set it")),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => (
                Kind::Denied,
                format!(
                    "cannot {what} {name} in bucket {bucket:?}: {says}; are `{section}.access_key` and `secret_key` right, and may they?"
                ),
            ),
            (StatusCode::INSUFFICIENT_STORAGE, _) | (_, "QuotaExceeded" | "XMinioStorageFull") => {
                (Kind::Full, format!("bucket {bucket:?} has no room: {says}; make room there, or keep less"))
            }
            _ => {
                let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                let kind = if status.is_client_error() && !busy { Kind::Refused } else { Kind::Unreachable };
                (kind, format!("cannot {what} {name} in bucket {bucket:?}: {says}"))
            }
        };
        let again = status.is_server_error() && kind == Kind::Unreachable
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        (BucketError { kind, message }, again)
    }

    fn listing(&self, answer: &[u8]) -> Result<ListObjectsV2Response, BucketError> {
        let text = std::str::from_utf8(answer).ok();
        text.and_then(|text| ListObjectsV2::parse_response(text).ok()).ok_or_else(|| {
            let (section, bucket) = (self.section, self.bucket.name());
            let message = format!("what `{section}.endpoint` answers for bucket {bucket:?} is not a list of objects");
            BucketError { kind: Kind::Unreachable, message }
        })
    }
}

fn local(name: &str, why: &io::Error) -> BucketError {
    BucketError { kind: Kind::Local, message: format!("{name}: a file on this machine: {why}") }
}

fn time_for(bytes: u64) -> Duration {
    REQUEST + Duration::from_secs(bytes / SLOWEST)
}

/// A file's hash, as the service is told it, and its length.
fn hash_of(path: &Path) -> io::Result<(String, u64)> {
    let (mut file, mut hash, mut length, mut piece) = (File::open(path)?, Sha256::new(), 0, vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((BASE64.encode(hash.finalize()), length)),
            read => {
                hash.update(&piece[..read]);
                length += read as u64;
            }
        }
    }
}

/// The code in an error's answer, if there is one that looks like one.
fn code_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let plain = !code.is_empty() && code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    if plain { code.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_words_are_not_repeated_unless_they_are_a_code() {
        assert_eq!(code_of(b"<?xml?><Error><Code>AccessDenied</Code><Message>x</Message></Error>"), "AccessDenied");
        for strange in ["", "<Code></Code>", "<Code>a b</Code>", "<Code>\x1b[2J</Code>", "<Code>never ends"] {
            assert_eq!(code_of(strange.as_bytes()), "");
        }
    }
}
