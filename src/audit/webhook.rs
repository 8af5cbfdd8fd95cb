//! Sends what is in the trail to an address of the administrator's, in order and at least once.
//!
//! It follows the files, so that whatever could not be sent is sent when the address answers again, after a restart too. Requests are signed
//! as <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md> says.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::chain::Parts;
use super::config::Webhook;
use super::files::{Files, read_file};
use crate::telemetry::Metrics;

/// Most events in one request, and most bytes, but for one event.
const BATCH: usize = 100;
const BYTES: usize = 256 * 1024;
/// How often it is looked whether there is more.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// Pauses after a failure: they double.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// The file with the number of the last event that was taken.
const CURSOR: &str = "webhook";

/// Events that go together.
#[derive(Default)]
struct Batch {
    first: u64,
    last: u64,
    events: Vec<String>,
}

/// Sends until it is told to stop.
pub async fn run(config: Webhook, root: &Path, metrics: Metrics, stop: CancellationToken) {
    let files = Files::of(root);
    let client = reqwest::Client::builder().timeout(DEADLINE).redirect(reqwest::redirect::Policy::none()).build();
    let client = match client {
        Ok(client) => client,
        Err(why) => return warn!(%why, "the audit webhook cannot be used"),
    };
    let mut sent = files.small(CURSOR).and_then(|text| text.trim().parse().ok()).unwrap_or_default();
    let mut pause = PAUSE;
    let mut failed = false;
    while !stop.is_cancelled() {
        let wait = match step(&files, &client, &config, &mut sent).await {
            Ok(true) => {
                if std::mem::take(&mut failed) {
                    info!("the audit webhook answers again");
                }
                pause = PAUSE;
                continue;
            }
            Ok(false) => LOOK,
            Err(why) => {
                metrics.audit_failures.inc();
                if !std::mem::replace(&mut failed, true) {
                    warn!(why, "the audit webhook does not take events, it is tried again");
                }
                let wait = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                wait
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// Sends the next events, if there are any.
async fn step(files: &Files, client: &reqwest::Client, config: &Webhook, sent: &mut u64) -> Result<bool, String> {
    let (looked, after) = (files.clone(), *sent);
    let batch = tokio::task::spawn_blocking(move || next(&looked, after)).await.map_err(|why| why.to_string())?;
    let batch = batch.map_err(|why| format!("the trail cannot be read: {why}"))?;
    if batch.events.is_empty() {
        return Ok(false);
    }
    if batch.first > after + 1 {
        warn!(from = after + 1, to = batch.first - 1, "events were removed before the audit webhook took them");
    }
    let at = SystemTime::now();
    let body =
        format!(r#"{{"type":"audit.events","timestamp":"{}","data":[{}]}}"#, humantime::format_rfc3339_seconds(at), batch.events.join(","));
    let id = format!("audit_{}_{}", batch.first, batch.last);
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut request = client.post(&config.url).header("content-type", "application/json");
    request = request.header("webhook-id", &id).header("webhook-timestamp", seconds);
    if let Some(secret) = &config.secret {
        request = request.header("webhook-signature", signature(secret, &id, seconds, &body));
    }
    let answer = request.body(body).send().await.map_err(|why| why.without_url().to_string())?;
    if !answer.status().is_success() {
        return Err(format!("it answers {}", answer.status()));
    }
    *sent = batch.last;
    let (noted, last) = (files.clone(), batch.last);
    let noted = tokio::task::spawn_blocking(move || noted.replace(CURSOR, last.to_string().as_bytes())).await;
    noted.map_err(|why| why.to_string())?.map_err(|why| format!("cannot note what was taken: {why}"))?;
    Ok(true)
}

/// The events after the one with this number.
fn next(files: &Files, after: u64) -> io::Result<Batch> {
    let mut batch = Batch::default();
    let mut bytes = 0;
    for path in files.from(after + 1)? {
        let more = read_file(&path, &mut |line| {
            let Some(parts) = Parts::of(&line.bytes).filter(|parts| line.whole && parts.seq > after) else { return true };
            if batch.events.len() >= BATCH || bytes + line.bytes.len() > BYTES && !batch.events.is_empty() {
                return false;
            }
            bytes += line.bytes.len();
            if batch.events.is_empty() {
                batch.first = parts.seq;
            }
            batch.last = parts.seq;
            batch.events.push(String::from_utf8_lossy(&line.bytes).into_owned());
            true
        })?;
        if !more {
            break;
        }
    }
    Ok(batch)
}

fn signature(secret: &SecretString, id: &str, seconds: u64, body: &str) -> String {
    let secret = secret.expose_secret();
    // The specification's own form of a secret is base64; any other text stands for its bytes.
    let key = secret.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok()).unwrap_or_else(|| secret.as_bytes().to_vec());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_specifications() {
        // The example of its reference implementations' tests.
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
