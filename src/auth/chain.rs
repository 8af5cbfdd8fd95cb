//! The configured ways to log in, tried in order as if they were one.
//!
//! The first to grant wins. A "no" is only said when every one of them said no: a service that could not be asked is not overruled by an
//! accounts file that does not know the name.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::accounts::{Accounts, AccountsError};
use super::webhook::{Webhook, WebhookSetupError};
use super::{Attempt, AuthError, Authenticator, Config, KeyProof, Method, OfferedKey, Verdict};
use crate::telemetry::Metrics;

/// What is wrong with the `[auth]` section or a file it names.
#[derive(Debug, thiserror::Error)]
pub enum AuthSetupError {
    /// Nobody could log in.
    #[error("auth.methods: is empty, so nobody could log in; name \"accounts\", \"webhook\" or both")]
    NoMethods,
    /// The same one twice.
    #[error("auth.methods: names {0:?} twice")]
    Twice(Method),
    /// The HTTP service.
    #[error(transparent)]
    Webhook(#[from] WebhookSetupError),
    /// The accounts file.
    #[error("auth.accounts.file: {0}")]
    Accounts(#[from] AccountsError),
}

/// All authenticators of a configuration, in its order.
pub struct Authenticators {
    chain: Vec<Box<dyn Authenticator>>,
    metrics: Metrics,
}

// === impl Authenticators ===

impl Authenticators {
    /// Makes what the configuration names. Reads files, contacts nobody.
    ///
    /// `default_accounts` is the accounts file when the section names none; `login_grace` is how long a login may take in all.
    pub fn new(config: &Config, default_accounts: &Path, login_grace: Duration, metrics: Metrics) -> Result<Self, AuthSetupError> {
        if config.methods.is_empty() {
            return Err(AuthSetupError::NoMethods);
        }
        let mut chain: Vec<Box<dyn Authenticator>> = Vec::new();
        for (place, method) in config.methods.iter().enumerate() {
            if config.methods[..place].contains(method) {
                return Err(AuthSetupError::Twice(*method));
            }
            chain.push(match method {
                Method::Accounts => Box::new(Accounts::open(config.accounts.file.as_deref().unwrap_or(default_accounts))?),
                Method::Webhook => {
                    let is_last = place + 1 == config.methods.len();
                    Box::new(Webhook::new(&config.webhook, patience(login_grace, is_last))?)
                }
            });
        }
        Ok(Self::of(chain, metrics))
    }

    /// Those given, in this order.
    pub fn of(chain: Vec<Box<dyn Authenticator>>, metrics: Metrics) -> Self {
        Self { chain, metrics }
    }

    /// Takes the time of one answer, and tells of a failure that a later grant would hide.
    fn told(&self, attempt: &Attempt, by: &dyn Authenticator, since: Instant, answer: &Result<Verdict, AuthError>) {
        self.metrics.auth_seconds.with_label_values(&[by.name()]).observe(since.elapsed().as_secs_f64());
        if let Err(error) = answer {
            warn!(connection = %attempt.connection, account = %attempt.account, authenticator = by.name(), %error, "no verdict");
        }
    }
}

#[async_trait::async_trait]
impl Authenticator for Authenticators {
    fn name(&self) -> &'static str {
        "all"
    }

    async fn password(&self, attempt: &Attempt, password: &[u8]) -> Result<Verdict, AuthError> {
        let mut outcome = Ok(Verdict::Denied);
        for authenticator in &self.chain {
            let since = Instant::now();
            let answer = authenticator.password(attempt, password).await;
            self.told(attempt, authenticator.as_ref(), since, &answer);
            if let Some(granted) = fold(&mut outcome, answer) {
                return Ok(granted);
            }
        }
        outcome
    }

    async fn public_key(&self, attempt: &Attempt, key: &OfferedKey, proof: KeyProof) -> Result<Verdict, AuthError> {
        let mut outcome = Ok(Verdict::Denied);
        for authenticator in &self.chain {
            let since = Instant::now();
            let answer = authenticator.public_key(attempt, key, proof).await;
            self.told(attempt, authenticator.as_ref(), since, &answer);
            if let Some(granted) = fold(&mut outcome, answer) {
                return Ok(granted);
            }
        }
        outcome
    }

    /// Only when every one of them is.
    async fn ready(&self) -> Result<(), AuthError> {
        for authenticator in &self.chain {
            authenticator.ready().await?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Authenticators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.chain.iter().map(|authenticator| authenticator.name())).finish()
    }
}

/// A grant ends the search; of failures, the first is kept, whatever is said after it.
fn fold(outcome: &mut Result<Verdict, AuthError>, answer: Result<Verdict, AuthError>) -> Option<Verdict> {
    match answer {
        Ok(granted @ Verdict::Granted(_)) => return Some(granted),
        Ok(Verdict::Denied) => {}
        Err(error) => {
            if outcome.is_ok() {
                *outcome = Err(error);
            }
        }
    }
    None
}

/// How long the service is asked: a fifth of the login's time is left for the handshake and for telling the person what is wrong, and half of
/// the rest for whoever is asked afterwards.
fn patience(login_grace: Duration, is_last: bool) -> Duration {
    let whole = login_grace * 4 / 5;
    if is_last { whole } else { whole / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AccountsConfig, Grant};
    use crate::name::{AccountName, ConnectionId};

    /// Says the same to everything.
    struct Says(Result<Verdict, AuthError>);

    #[async_trait::async_trait]
    impl Authenticator for Says {
        fn name(&self) -> &'static str {
            "says"
        }
        async fn password(&self, _: &Attempt, _: &[u8]) -> Result<Verdict, AuthError> {
            self.0.clone()
        }
        async fn public_key(&self, _: &Attempt, _: &OfferedKey, _: KeyProof) -> Result<Verdict, AuthError> {
            self.0.clone()
        }
        async fn ready(&self) -> Result<(), AuthError> {
            self.0.clone().map(|_| ())
        }
    }

    fn no() -> Result<Verdict, AuthError> {
        Ok(Verdict::Denied)
    }

    fn yes(account: &str) -> Result<Verdict, AuthError> {
        Ok(Verdict::Granted(Box::new(Grant::plain(AccountName::parse(account).unwrap()))))
    }

    fn down(status: u16) -> Result<Verdict, AuthError> {
        Err(AuthError::Status(status))
    }

    /// What the chain answers, in a word, to a password and to a key alike.
    async fn check(answers: Vec<Result<Verdict, AuthError>>, expect: &str) {
        let chain = answers.into_iter().map(|answer| Box::new(Says(answer)) as Box<dyn Authenticator>).collect();
        let chain = Authenticators::of(chain, Metrics::new().unwrap());
        let attempt = Attempt {
            account: AccountName::parse("alice").unwrap(),
            connection: ConnectionId::random(),
            remote: "127.0.0.1:1".parse().unwrap(),
            client_version: String::new(),
        };
        let password = chain.password(&attempt, b"x").await;
        let key = chain.public_key(&attempt, &OfferedKey("k".into()), KeyProof::Verified).await;
        for answer in [password, key] {
            let said = match answer {
                Ok(Verdict::Granted(grant)) => grant.account.to_string(),
                Ok(Verdict::Denied) => "no".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(said, expect);
        }
        assert!(chain.metrics.auth_seconds.with_label_values(&["says"]).get_sample_count() >= 2);
    }

    #[tokio::test]
    async fn the_first_grant_wins_and_a_failure_is_not_a_no() {
        check(vec![yes("a"), yes("b")], "a").await;
        check(vec![no(), yes("b")], "b").await;
        check(vec![down(500), yes("b")], "b").await;
        check(vec![no(), no()], "no").await;
        check(vec![down(500), no()], "answered with status 500").await;
        check(vec![no(), down(500)], "answered with status 500").await;
        check(vec![down(500), down(502)], "answered with status 500").await;
    }

    #[test]
    fn a_section_that_cannot_work_names_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("broken.toml");
        std::fs::write(&broken, "account = 1").unwrap();
        let problem = |methods: &[Method], file: Option<&Path>| {
            let accounts = AccountsConfig { file: file.map(Path::to_owned) };
            let config = Config { methods: methods.to_vec(), accounts, ..Config::default() };
            let built = Authenticators::new(&config, &dir.path().join("none"), Duration::from_secs(30), Metrics::new().unwrap());
            built.map(|chain| format!("{chain:?}")).unwrap_or_else(|error| error.to_string())
        };
        assert!(problem(&[], None).starts_with("auth.methods: "));
        assert!(problem(&[Method::Accounts, Method::Accounts], None).starts_with("auth.methods: "));
        assert!(problem(&[Method::Webhook], None).starts_with("auth.webhook.url: "));
        assert!(problem(&[Method::Accounts], Some(&broken)).starts_with("auth.accounts.file: "));
        assert_eq!(problem(&[Method::Accounts], None), "[\"accounts\"]");
    }

    #[test]
    fn time_is_left_for_those_who_come_after() {
        let grace = Duration::from_secs(30);
        assert_eq!((patience(grace, true).as_secs(), patience(grace, false).as_secs()), (24, 12));
    }
}
