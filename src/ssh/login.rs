//! Who is let in: turns what a client claims into questions for the authenticator, and keeps strangers from learning who exists.
//!
//! What is typed in place of an account may name a terminal beside it, as `alice+work` does. It is taken apart here, and nobody is asked about
//! anything but the account.
//!
//! Knows nothing of channels. A login is granted in one place only, [`Login::granted`], and only after a password or a verified signature.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PublicKey};
use tokio::time::Instant;

use super::connection::Connection;
use crate::audit::{Actor, Event, What};
use crate::auth::{Attempt, AuthError, Grant, KeyProof, OfferedKey, Verdict};
use crate::name::{AccountName, TerminalName, printable};

/// A refused password is answered after the next multiple of this, counted from its arrival. Longer than a password hash or a login
/// service usually takes, so that one that is unknown and one that is known take the same time.
const PASSWORD_STEP: Duration = Duration::from_millis(500);

/// The same for keys, of which a client may offer several before the right one. A look-up takes less than a hash.
pub(super) const OFFER_STEP: Duration = Duration::from_millis(50);

/// Keys that may be offered on one connection. Each is a question to the authenticator; an agent rarely holds more.
pub(super) const MAX_OFFERS: usize = 20;

/// Longest password, in bytes. A longer one is refused unasked: hashing it would be work for nothing.
const MAX_PASSWORD: usize = 1024;

/// RSA keys shorter than this can be forged, longer ones only serve to keep the gateway computing. In bits.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// What is left of the login deadline for telling the client that there was no verdict.
const TIME_TO_TELL: Duration = Duration::from_secs(1);

/// How long an authenticator may take where no login deadline is set.
const WITHOUT_DEADLINE: Duration = Duration::from_secs(60);

/// One connection's way to a grant.
pub(super) struct Login {
    connection: Arc<Connection>,
    tries: usize,
    offers: usize,
    entered: Option<Entered>,
}

/// Somebody who is logged in.
#[derive(Clone)]
pub(super) struct Entered {
    /// What she may do, and where.
    pub(super) grant: Arc<Grant>,
    /// When it was granted.
    pub(super) at: Instant,
    /// The terminal that she named beside her account.
    pub(super) terminal: Option<TerminalName>,
}

/// What the client is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Yes: logged in, or for an offered key, that its signature would do.
    Yes,
    /// No, and she may try again.
    No,
    /// No, and that was the last try.
    TooManyTries,
    /// There is no verdict.
    Unavailable,
}

impl Login {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, tries: 0, offers: 0, entered: None }
    }

    /// Who is logged in, if anybody is.
    pub(super) fn entered(&self) -> Option<&Entered> {
        self.entered.as_ref()
    }

    /// A password was typed.
    pub(super) async fn password(&mut self, typed: &str, password: &[u8]) -> Answer {
        let arrived = Instant::now();
        let (user, terminal) = TerminalName::split(typed);
        if let Some(answer) = self.count_try() {
            return answer;
        }
        let answer = match self.attempt(user) {
            Some(attempt) if password.len() <= MAX_PASSWORD => {
                let verdict = self.ask(self.connection.shared.authenticator.password(&attempt, password)).await;
                self.conclude(verdict, &attempt.account, terminal, "password", None)
            }
            _ => self.refused(user, "password"),
        };
        settle(answer, arrived, PASSWORD_STEP).await
    }

    /// A key is offered: would its signature do? Whatever the answer, nobody is logged in by it.
    pub(super) async fn key_offered(&mut self, typed: &str, key: &PublicKey, algorithm: &Algorithm) -> Answer {
        let arrived = Instant::now();
        let (user, _) = TerminalName::split(typed);
        self.offers += 1;
        if self.offers > MAX_OFFERS {
            return Answer::TooManyTries;
        }
        let answer = match (self.attempt(user), usable(key, algorithm)) {
            (Some(attempt), Some(offered)) => {
                let question = self.connection.shared.authenticator.public_key(&attempt, &offered, KeyProof::Offered);
                match self.ask(question).await {
                    Ok(Verdict::Granted(_)) => Answer::Yes,
                    Ok(Verdict::Denied) => Answer::No,
                    Err(why) => self.unavailable(&why, &attempt.account, "publickey"),
                }
            }
            _ => Answer::No,
        };
        tracing::debug!(account = %printable(user), key = %fingerprint(key), %algorithm, ?answer, "key offered");
        settle(answer, arrived, OFFER_STEP).await
    }

    /// A key's signature over this connection was verified: may its holder enter? Asked anew, for exactly this account and key.
    pub(super) async fn key_verified(&mut self, typed: &str, key: &PublicKey, algorithm: &Algorithm) -> Answer {
        let arrived = Instant::now();
        let (user, terminal) = TerminalName::split(typed);
        if let Some(answer) = self.count_try() {
            return answer;
        }
        let answer = match (self.attempt(user), usable(key, algorithm)) {
            (Some(attempt), Some(verified)) => {
                let question = self.connection.shared.authenticator.public_key(&attempt, &verified, KeyProof::Verified);
                let verdict = self.ask(question).await;
                self.conclude(verdict, &attempt.account, terminal, "publickey", Some(fingerprint(key)))
            }
            _ => self.refused(user, "publickey"),
        };
        settle(answer, arrived, OFFER_STEP).await
    }

    fn count_try(&mut self) -> Option<Answer> {
        self.tries += 1;
        (self.tries > self.connection.live.config.max_auth_tries).then_some(Answer::TooManyTries)
    }

    /// The attempt, unless the name is none that anybody could have.
    fn attempt(&self, user: &str) -> Option<Attempt> {
        Some(Attempt {
            account: AccountName::parse(user).ok()?,
            connection: self.connection.id,
            remote: self.connection.remote,
            client_version: self.connection.identification.get().cloned().unwrap_or_default(),
        })
    }

    /// Asks, and gives up in time to say so before the login deadline.
    async fn ask(&self, question: impl Future<Output = Result<Verdict, AuthError>>) -> Result<Verdict, AuthError> {
        let until = match self.connection.deadline {
            Some(deadline) => deadline.checked_sub(TIME_TO_TELL).unwrap_or(deadline),
            None => Instant::now() + WITHOUT_DEADLINE,
        };
        let verdict = tokio::time::timeout_at(until, question).await.unwrap_or(Err(AuthError::TimedOut));
        // An answer that makes no sense may be about this account only.
        let down = matches!(verdict, Err(AuthError::Unreachable(_) | AuthError::TimedOut | AuthError::Status(_)));
        self.connection.shared.login_service_down.store(down, Ordering::Relaxed);
        verdict
    }

    fn conclude(
        &mut self,
        verdict: Result<Verdict, AuthError>,
        account: &AccountName,
        terminal: Option<TerminalName>,
        method: &'static str,
        key: Option<String>,
    ) -> Answer {
        match verdict {
            Ok(Verdict::Granted(grant)) => self.granted(*grant, terminal, method, key),
            Ok(Verdict::Denied) => self.refused(account.as_str(), method),
            Err(why) => self.unavailable(&why, account, method),
        }
    }

    fn granted(&mut self, grant: Grant, terminal: Option<TerminalName>, method: &'static str, key: Option<String>) -> Answer {
        let remote = self.connection.remote;
        self.count(method, "granted");
        tracing::info!(account = %grant.account, workspace = %grant.workspace, method, key, %remote, "logged in");
        self.connection.shared.keeper.logged_in(&grant);
        let grant = Arc::new(grant);
        // A connection logs in once.
        let _ = self.connection.who.set(grant.clone());
        self.connection.record(What::Login { method: method.to_owned(), key });
        self.entered = Some(Entered { grant, at: Instant::now(), terminal });
        Answer::Yes
    }

    fn refused(&self, user: &str, method: &'static str) -> Answer {
        self.count(method, "denied");
        let account: String = user.chars().take(AccountName::MAX_BYTES).collect();
        self.record_refusal(&account, method, "denied");
        tracing::info!(account = %printable(&account), method, remote = %self.connection.remote, "login denied");
        if self.tries >= self.connection.live.config.max_auth_tries { Answer::TooManyTries } else { Answer::No }
    }

    fn unavailable(&self, why: &AuthError, account: &AccountName, method: &'static str) -> Answer {
        self.count(method, why.label());
        self.record_refusal(account.as_str(), method, why.label());
        tracing::error!(%account, method, error = %printable(&why.to_string()), "no verdict on a login");
        Answer::Unavailable
    }

    fn record_refusal(&self, account: &str, method: &str, reason: &str) {
        let what = What::LoginRefused { method: method.to_owned(), reason: reason.to_owned() };
        let Connection { shared, remote, id, .. } = &*self.connection;
        shared.audit.record(Event::now(Actor::account(account), what).from(remote.ip(), id));
    }

    fn count(&self, method: &str, outcome: &str) {
        self.connection.shared.metrics.logins.with_label_values(&[method, outcome]).inc();
    }
}

/// Waits, where the answer is no, until its time tells nothing.
async fn settle(answer: Answer, arrived: Instant, step: Duration) -> Answer {
    if matches!(answer, Answer::No | Answer::TooManyTries) {
        tokio::time::sleep_until(arrived + next_multiple(arrived.elapsed(), step)).await;
    }
    answer
}

fn next_multiple(elapsed: Duration, step: Duration) -> Duration {
    step * u32::try_from(elapsed.as_nanos() / step.as_nanos() + 1).unwrap_or(u32::MAX)
}

/// The key in the form that authenticators know, if its kind and this signature algorithm can be trusted at all.
fn usable(key: &PublicKey, algorithm: &Algorithm) -> Option<OfferedKey> {
    let sound = match key.key_data() {
        // Without a hash it is SHA-1, whatever the client announced.
        KeyData::Rsa(rsa) => matches!(algorithm, Algorithm::Rsa { hash: Some(_) }) && RSA_BITS.contains(&rsa.key_size()),
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => true,
        _ => false,
    };
    let mut bare = key.clone();
    bare.set_comment("");
    sound.then(|| bare.to_openssh().ok()).flatten().map(OfferedKey)
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_to_a_step() {
        let step = Duration::from_millis(500);
        for (elapsed, expect) in [(0, 500), (1, 500), (499, 500), (500, 1000), (1_700, 2000)] {
            assert_eq!(next_multiple(Duration::from_millis(elapsed), step), Duration::from_millis(expect));
        }
    }
}
