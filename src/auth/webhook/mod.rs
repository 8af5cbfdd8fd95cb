//! An HTTP service is asked who may log in, in ContainerSSH's webhook protocol.
//!
//! Only status 200 with an answer of the protocol is a verdict, and 401 and 403 are a final no. Anything else is the service's fault and is
//! tried again, with short jittered pauses, until the deadline of the question. It knows nothing of what a grant is used for.

mod client;
mod remembered;
mod wire;

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
pub use client::WebhookSetupError;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use self::client::Addresses;
use self::remembered::Remembered;
use self::wire::Question;
use super::{Attempt, AuthError, Authenticator, KeyProof, OfferedKey, Verdict, WebhookConfig};
use crate::name::printable;

/// The service, with connections to it that are kept open.
pub struct Webhook {
    client: Client,
    addresses: Addresses,
    /// How long one try may take.
    try_timeout: Duration,
    /// How long one question may take, with all its tries.
    patience: Duration,
    remembered: Remembered,
}

// === impl Webhook ===

impl Webhook {
    /// A client for the service, which is not contacted yet. Each question is given up after `patience`.
    pub fn new(config: &WebhookConfig, patience: Duration) -> Result<Self, WebhookSetupError> {
        let addresses = client::addresses(config)?;
        let client = client::client(config, &addresses.base)?;
        Ok(Self { client, addresses, try_timeout: config.timeout.get(), patience, remembered: Remembered::new() })
    }

    /// Asks until there is a verdict or the patience ends; then the last failure is the answer.
    async fn ask(&self, url: &Url, question: &Question<'_>, attempt: &Attempt) -> Result<Verdict, AuthError> {
        let body = Bytes::from(serde_json::to_vec(question).map_err(|error| AuthError::Garbage(error.to_string()))?);
        let deadline = Instant::now() + self.patience;
        let mut failures = 0;
        let mut failure = AuthError::TimedOut;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match timeout(self.try_timeout.min(remaining), self.ask_once(url, body.clone(), attempt)).await {
                Ok(Ok(verdict)) => return Ok(verdict),
                Ok(Err(error)) => failure = error,
                // A try that had less than its time says nothing; what was wrong before still is.
                Err(_) if remaining < self.try_timeout => return Err(failure),
                Err(_) => failure = AuthError::TimedOut,
            }
            let pause = pause(failures);
            failures += 1;
            debug!(connection = %attempt.connection, failures, error = %failure, "no verdict from the login service");
            if Instant::now() + pause >= deadline {
                return Err(failure);
            }
            sleep(pause).await;
        }
    }

    async fn ask_once(&self, url: &Url, body: Bytes, attempt: &Attempt) -> Result<Verdict, AuthError> {
        let response = self.client.post(url.clone()).body(body).send().await.map_err(|error| broken(&error))?;
        match response.status() {
            StatusCode::OK => wire::verdict(&bounded_body(response).await?, &attempt.account),
            no @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                info!(connection = %attempt.connection, status = no.as_u16(), "refused by status; if nobody gets in, check auth.webhook.token");
                Ok(Verdict::Denied)
            }
            other => Err(AuthError::Status(other.as_u16())),
        }
    }
}

#[async_trait::async_trait]
impl Authenticator for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn password(&self, attempt: &Attempt, password: &[u8]) -> Result<Verdict, AuthError> {
        self.ask(&self.addresses.password, &Question::password(attempt, password), attempt).await
    }

    async fn public_key(&self, attempt: &Attempt, key: &OfferedKey, proof: KeyProof) -> Result<Verdict, AuthError> {
        if let Some(grant) = self.remembered.grant(&attempt.account, key).await {
            return Ok(Verdict::Granted(Box::new(grant)));
        }
        let verdict = self.ask(&self.addresses.public_key, &Question::public_key(attempt, key), attempt).await?;
        if let (KeyProof::Verified, Verdict::Granted(grant)) = (proof, &verdict) {
            self.remembered.remember(&attempt.account, key, grant).await;
        }
        Ok(verdict)
    }

    /// Any HTTP status will do: that the base address itself is no page of the service says nothing.
    async fn ready(&self) -> Result<(), AuthError> {
        match timeout(self.try_timeout, self.client.get(self.addresses.base.clone()).send()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(broken(&error)),
            Err(_) => Err(AuthError::TimedOut),
        }
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.addresses.base.as_str()).finish_non_exhaustive()
    }
}

/// Reads the body as it comes and stops at the bound, so that a gigabyte costs no more than a megabyte.
async fn bounded_body(mut response: Response) -> Result<Vec<u8>, AuthError> {
    if response.content_length().is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(AuthError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(AuthError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn broken(error: &reqwest::Error) -> AuthError {
    let not_http = causes(error).any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse));
    if error.is_timeout() {
        AuthError::TimedOut
    } else if not_http {
        AuthError::Garbage("not HTTP".to_owned())
    } else {
        AuthError::Unreachable(reason(error))
    }
}

/// The innermost cause, "connection refused" say: what reqwest puts around it repeats the address.
fn reason(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| "the request failed".to_owned(), |cause| printable(&cause.to_string()))
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// How long to wait after so many failures before the next try: doubling to a bound, each between half and the whole of it, so that the
/// logins a broken service has gathered do not all return at once.
fn pause(failures: u32) -> Duration {
    let longest = MAX_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(failures.min(16)));
    longest.mul_f64(rand::random_range(0.5..=1.0))
}

/// Most of an answer that is read. A grant is a few hundred bytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// A service that restarts is often back in a moment; nobody notices this pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Long enough not to hammer a service that is down, short enough to notice soon that it is back.
const MAX_PAUSE: Duration = Duration::from_secs(2);
