//! The OpenID Connect provider: where browsers are sent, and who it says has come back.
//!
//! What it answers is bounded in time and size, and believed about people only once its signature, issuer, audience, time and nonce are right;
//! the library sees to those.

use std::time::Duration;

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AccessToken, AdditionalClaims, AsyncHttpClient, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdTokenClaims, IdTokenFields, IssuerUrl, Nonce,
    OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, StandardErrorResponse, StandardTokenResponse,
    TokenResponse, UserInfoClaims,
};
use reqwest::{Client as Http, Url, redirect};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::{Claim, Config};
use super::pending::Pending;

/// A provider that the configuration names.
pub(super) struct Provider {
    config: Config,
    http: Http,
    /// What it has said of itself, and when.
    found: Mutex<Option<(Instant, CoreProviderMetadata)>>,
}

/// Somebody whom it vouches for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

/// Why nobody has been vouched for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProviderError {
    /// It cannot be asked, or answers what is no answer.
    #[error("the provider: {0}")]
    Broken(String),
    /// What it says of her is not enough, or not right.
    #[error("what the provider says of her: {0}")]
    Unfit(String),
}

/// What it may say beside what the standard names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Others(Map<String, Value>);

impl AdditionalClaims for Others {}

/// The library's client, with claims of ours: its other types are those of the standard.
type Client = openidconnect::Client<
    Others,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
    EndpointMaybeSet,
>;

type Fields = IdTokenFields<Others, EmptyExtraTokenFields, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

/// How long one answer may take, and how long it may be, in bytes.
const DEADLINE: Duration = Duration::from_secs(10);
const LONGEST: usize = 256 * 1024;

/// How long what it said of itself is gone by, and how soon it is asked again where a signature is by a key that it did not name.
const KNOWN: Duration = Duration::from_secs(3600);
const KNOWN_AT_LEAST: Duration = Duration::from_secs(30);

/// The longest name that is taken, in bytes, and the most groups.
const LONGEST_NAME: usize = 256;
const MOST_GROUPS: usize = 1000;

/// Where it sends browsers back to.
pub(in crate::http::dashboard) const BACK: &str = "/dashboard/oidc/callback";

// === impl Provider ===

impl Provider {
    /// One that is not asked yet.
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let mut http = Http::builder()
            .user_agent(concat!("innkeeper/", env!("CARGO_PKG_VERSION")))
            // The secret goes where the provider's own description says: not after a redirect, not through a proxy of the environment.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(DEADLINE);
        if config.issuer.starts_with("http://") {
            // Without this the system's certificates are loaded, which fails in an image that has none.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|why| format!("http.oidc: no HTTP client: {why}"))?;
        Ok(Self { config, http, found: Mutex::default() })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether browsers reach us by TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.config.public_url.starts_with("https://")
    }

    /// Where a browser is sent to log in there, and what must be known when it comes back.
    pub(super) async fn begin(&self) -> Result<(Url, Pending), ProviderError> {
        let client = self.client(KNOWN).await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = client.authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random);
        for scope in &self.config.scopes {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        let (url, state, nonce) = request.set_pkce_challenge(challenge).url();
        let pending = Pending::new(state.into_secret(), nonce.secret().clone(), verifier.into_secret());
        Ok((url, pending))
    }

    /// Who has come back with this code from a login that began so.
    pub(super) async fn end(&self, code: String, pending: Pending) -> Result<Person, ProviderError> {
        let client = self.client(KNOWN).await?;
        let verifier = PkceCodeVerifier::new(pending.verifier);
        let request = client.exchange_code(AuthorizationCode::new(code)).set_pkce_verifier(verifier);
        let answer = request.request_async(self).await;
        let answer = answer.map_err(|why| ProviderError::Broken(chain(&why)))?;
        let token = answer.id_token().ok_or_else(|| ProviderError::Broken("no ID token in its answer".to_owned()))?;
        let nonce = Nonce::new(pending.nonce);
        let claims = match token.claims(&client.id_token_verifier(), &nonce) {
            Ok(claims) => claims,
            // It may have taken a new key since.
            Err(openidconnect::ClaimsVerificationError::SignatureVerification(_)) => {
                let client = self.client(KNOWN_AT_LEAST).await?;
                token.claims(&client.id_token_verifier(), &nonce).map_err(|why| ProviderError::Unfit(chain(&why)))?
            }
            Err(why) => return Err(ProviderError::Unfit(chain(&why))),
        };
        match self.person(&Said::of(claims)) {
            Ok(person) => Ok(person),
            // Some say it only where they are asked for it.
            Err(why) => match self.more(&client, answer.access_token(), claims).await? {
                Some(said) => self.person(&said),
                None => Err(why),
            },
        }
    }

    async fn more(
        &self,
        client: &Client,
        token: &AccessToken,
        claims: &IdTokenClaims<Others, CoreGenderClaim>,
    ) -> Result<Option<Said>, ProviderError> {
        let Ok(request) = client.user_info(token.clone(), Some(claims.subject().clone())) else { return Ok(None) };
        let said: UserInfoClaims<Others, CoreGenderClaim> =
            request.request_async(self).await.map_err(|why| ProviderError::Broken(chain(&why)))?;
        Ok(Some(Said {
            subject: said.subject().to_string(),
            email: said.email().map(|email| email.to_string()),
            email_verified: said.email_verified() == Some(true),
            username: said.preferred_username().map(|name| name.to_string()),
            others: said.additional_claims().0.clone(),
        }))
    }

    fn person(&self, said: &Said) -> Result<Person, ProviderError> {
        let unfit = |why: &str| ProviderError::Unfit(why.to_owned());
        let name = match self.config.claim {
            Claim::Email if said.email.is_some() && !said.email_verified => return Err(unfit("her address is not verified")),
            Claim::Email => said.email.clone().ok_or_else(|| unfit("no email"))?,
            Claim::PreferredUsername => said.username.clone().ok_or_else(|| unfit("no preferred_username"))?,
            Claim::Sub => said.subject.clone(),
        };
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(unfit("her name is empty, too long, or has control characters"));
        }
        let groups = match said.others.get(&self.config.groups_claim) {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).take(MOST_GROUPS).map(str::to_owned).collect(),
            Some(Value::String(one)) => vec![one.clone()],
            _ => Vec::new(),
        };
        Ok(Person { name, groups })
    }

    /// The client for what it has said of itself, no longer ago than this. Of a provider that is silent, those who wait for their turn to ask
    /// it wait no longer than the one who asks.
    async fn client(&self, known: Duration) -> Result<Client, ProviderError> {
        let silent = |_| ProviderError::Broken("it does not answer in time".to_owned());
        tokio::time::timeout(DEADLINE, self.client_in_turn(known)).await.map_err(silent)?
    }

    async fn client_in_turn(&self, known: Duration) -> Result<Client, ProviderError> {
        let broken = |why: String| ProviderError::Broken(why);
        let mut found = self.found.lock().await;
        let metadata = match found.as_ref().filter(|(at, _)| at.elapsed() < known) {
            Some((_, metadata)) => metadata.clone(),
            None => {
                let issuer = IssuerUrl::new(self.config.issuer.clone()).map_err(|why| broken(why.to_string()))?;
                let metadata = CoreProviderMetadata::discover_async(issuer, self).await.map_err(|why| broken(chain(&why)))?;
                *found = Some((Instant::now(), metadata.clone()));
                metadata
            }
        };
        drop(found);
        let secret = self.config.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose_secret().to_owned()));
        let back = format!("{}{BACK}", self.config.public_url.trim_end_matches('/'));
        let back = RedirectUrl::new(back).map_err(|why| broken(why.to_string()))?;
        let token_url = metadata.token_endpoint().cloned().ok_or_else(|| broken("it names no token endpoint".to_owned()))?;
        let client = openidconnect::Client::from_provider_metadata(metadata, ClientId::new(self.config.client_id.clone()), secret);
        Ok(client.set_token_uri(token_url).set_redirect_uri(back))
    }
}

/// What it says of somebody.
struct Said {
    subject: String,
    email: Option<String>,
    email_verified: bool,
    username: Option<String>,
    others: Map<String, Value>,
}

impl Said {
    fn of(claims: &IdTokenClaims<Others, CoreGenderClaim>) -> Self {
        Self {
            subject: claims.subject().to_string(),
            email: claims.email().map(|email| email.to_string()),
            email_verified: claims.email_verified() == Some(true),
            username: claims.preferred_username().map(|name| name.to_string()),
            others: claims.additional_claims().0.clone(),
        }
    }
}

/// Why an HTTP request to it came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    #[error("its answer is longer than {LONGEST} bytes")]
    TooLong,
    #[error(transparent)]
    Parts(#[from] axum::http::Error),
}

impl<'c> AsyncHttpClient<'c> for Provider {
    type Error = HttpError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let mut answer = self.http.execute(request.try_into()?).await?;
            let mut response = axum::http::Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                headers.clone_from(answer.headers());
            }
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                if body.len() + chunk.len() > LONGEST {
                    return Err(HttpError::TooLong);
                }
                body.extend_from_slice(&chunk);
            }
            Ok(response.body(body)?)
        })
    }
}

/// An error with what caused it. The library's say least where they begin.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    crate::name::printable(&causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}
