//! The accounts file, where people log in by it.

use std::path::{Path, PathBuf};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::once::{Key, Made};
use super::page::{Page, Part, page};
use super::problem::{Code, Problem};
use super::take::{AccountNamed, Body, IfMatch, KeyNamed, Query};
use super::{Api, Asked};
use crate::auth::accounts::edit::{self, EditError, NewAccount};
use crate::auth::accounts::{Account, AuthorizedKey, Hash, MAX_PASSWORD_BYTES};
use crate::name::{AccountName, TemplateName, TerminalName, WorkspaceName, printable};

/// An account as it is answered: nothing that opens it.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
pub(super) struct Shown {
    name: String,
    /// The workspace it lands in.
    #[schema(value_type = String)]
    workspace: WorkspaceName,
    #[schema(value_type = Option<String>)]
    template: Option<TemplateName>,
    /// Whether a password opens it.
    password: bool,
    /// How many keys do.
    keys: usize,
    /// Which they are.
    key_list: Vec<KnownKey>,
}

/// A public key of an account.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountKey)]
pub(super) struct KnownKey {
    algorithm: String,
    fingerprint: String,
    comment: String,
}

/// An account that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct AccountMade {
    name: String,
    /// The workspace it lands in.
    #[schema(value_type = String)]
    workspace: WorkspaceName,
    /// A password that was made up; shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

/// What came of another password.
#[derive(Serialize, ToSchema)]
pub(super) struct PasswordSet {
    /// One that was made up; shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

/// What came of more keys.
#[derive(Serialize, ToSchema)]
pub(super) struct KeysAdded {
    /// How many were new.
    added: usize,
}

/// Which accounts are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those whose name begins so.
    prefix: Option<String>,
    /// Only those that land in this workspace.
    #[param(value_type = Option<String>)]
    workspace: Option<WorkspaceName>,
    /// Only those whose workspace is of this template, as far as the account says so.
    #[param(value_type = Option<String>)]
    template: Option<TemplateName>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// More keys for an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoreKeys {
    /// Public keys, as in an `authorized_keys` file.
    keys: Vec<String>,
}

/// An account that is to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAccount)]
pub(super) struct New {
    /// The name to log in with.
    #[schema(min_length = 1, max_length = 256)]
    pub(super) name: String,
    /// Its password.
    #[schema(value_type = Option<String>)]
    pub(super) password: Option<SecretString>,
    /// Whether a password is made up, which the answer shows this once.
    #[serde(default)]
    #[schema(required = false)]
    pub(super) generate_password: bool,
    /// Public keys, as in an `authorized_keys` file.
    #[serde(default)]
    #[schema(required = false)]
    pub(super) keys: Vec<String>,
    /// The workspace to land in, instead of one of its own.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
    pub(super) workspace: Option<WorkspaceName>,
    /// The template of the workspace, instead of the default one.
    #[schema(value_type = Option<String>)]
    pub(super) template: Option<TemplateName>,
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Password {
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
    /// Whether one is made up, which the answer shows this once.
    #[serde(default)]
    #[schema(required = false)]
    generate_password: bool,
}

/// An account that can be made, and is not yet.
pub(super) struct Ready {
    pub(super) name: AccountName,
    pub(super) password: Option<SecretString>,
    made_up: bool,
    keys: Vec<AuthorizedKey>,
    pub(super) workspace: Option<WorkspaceName>,
    template: Option<TemplateName>,
}

/// Most keys of an account that is made at once.
const MOST_KEYS: usize = 100;
/// Random bytes of a password: 24 letters and digits.
const RANDOM: usize = 15;

/// All accounts of the accounts file.
#[utoipa::path(get, path = "/accounts", tag = "accounts", params(Which), responses((status = 200, body = Page<Shown>)), security(("token" = ["read"]), ("token" = ["provision"])))]
pub(super) async fn list_accounts(State(api): Asked, Query(which): Query<Which>) -> Result<Json<Page<Shown>>, Problem> {
    let Which { prefix, workspace, template, limit, cursor } = which;
    let all = on_file(&api, edit::list).await?;
    let wanted = |one: &Shown| {
        prefix.as_ref().is_none_or(|prefix| one.name.starts_with(prefix))
            && workspace.as_ref().is_none_or(|workspace| one.workspace == *workspace)
            && template.as_ref().is_none_or(|template| one.template.as_ref() == Some(template))
    };
    let all = all.iter().map(|(name, account)| Shown::of(name, account)).filter(wanted).collect();
    Ok(Json(page(all, limit, cursor.as_deref(), |one: &Shown| one.name.clone())?))
}

/// Makes an account.
#[utoipa::path(post, path = "/accounts", tag = "accounts", params(("Idempotency-Key" = Option<String>, Header)), request_body = New,
    responses((status = 201, body = AccountMade)), security(("token" = ["provision"])))]
pub(super) async fn create_account(State(api): Asked, key: Key, Body(new, bytes): Body<New>) -> Result<Response, Problem> {
    let ready = Ready::try_from(new)?;
    if ready.password.is_none() && ready.keys.is_empty() {
        return Err(Problem::refused("nothing would open it: give password, generate_password or keys"));
    }
    let (free, asked) = ((api.clone(), ready.name.clone()), api.clone());
    key.once(api, bytes, async move { is_free(&free.0, &free.1).await }, move |again| async move {
        let body = AccountMade { name: ready.name.as_str().to_owned(), workspace: ready.lands_in(), password: None };
        let body = serde_json::to_value(body).unwrap_or_default();
        let password = ready.shown_once();
        ready.make(&asked, again).await?;
        Ok(with_password(body, password))
    })
    .await
}

/// An account.
#[utoipa::path(get, path = "/accounts/{account}", tag = "accounts", params(("account" = String, Path)),
    responses((status = 200, body = Shown, headers(("ETag" = String)))), security(("token" = ["read"]), ("token" = ["provision"])))]
pub(super) async fn show_account(State(api): Asked, AccountNamed(name): AccountNamed) -> Result<impl IntoResponse, Problem> {
    let all = on_file(&api, edit::list).await?;
    let account = all.get(&name).ok_or_else(|| unknown(&name))?;
    Ok(([(ETAG, tag(account))], Json(Shown::of(&name, account))))
}

/// Removes an account; its workspace and what is in it stay.
#[utoipa::path(delete, path = "/accounts/{account}", tag = "accounts", params(("account" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204)), security(("token" = ["admin"])))]
pub(super) async fn remove_account(State(api): Asked, AccountNamed(name): AccountNamed, unchanged: IfMatch) -> Result<StatusCode, Problem> {
    let _alone = api.accounts.lock().await;
    check(&api, &name, &unchanged).await?;
    on_file(&api, move |file| edit::remove(file, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives an account another password.
#[utoipa::path(put, path = "/accounts/{account}/password", tag = "accounts", params(("account" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = Password, responses((status = 200, body = PasswordSet, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn set_password(
    State(api): Asked,
    AccountNamed(name): AccountNamed,
    unchanged: IfMatch,
    Body(Password { password, generate_password }, _): Body<Password>,
) -> Result<impl IntoResponse, Problem> {
    let made_up = generate_password;
    let password = chosen(password, generate_password)?.ok_or_else(|| Problem::refused("give password or generate_password"))?;
    let _alone = api.accounts.lock().await;
    check(&api, &name, &unchanged).await?;
    let (kept, named) = (password.clone(), name.clone());
    on_file(&api, move |file| {
        let hash = Hash::of(kept.expose_secret().as_bytes())?;
        edit::set_password(file, &named, &hash).map_err(MakeError::Edit)
    })
    .await?;
    let password = made_up.then(|| password.expose_secret().to_owned());
    Ok(([(ETAG, tag_of(&api, &name).await?)], Json(PasswordSet { password })))
}

/// Has more keys open an account; those that it has already stay as they are.
#[utoipa::path(post, path = "/accounts/{account}/keys", tag = "accounts", params(("account" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = MoreKeys, responses((status = 200, body = KeysAdded, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn add_keys(
    State(api): Asked,
    AccountNamed(name): AccountNamed,
    unchanged: IfMatch,
    Body(MoreKeys { keys }, _): Body<MoreKeys>,
) -> Result<impl IntoResponse, Problem> {
    let keys = parsed(&keys)?;
    if keys.is_empty() {
        return Err(Problem::refused("give at least one key"));
    }
    let _alone = api.accounts.lock().await;
    check(&api, &name, &unchanged).await?;
    let named = name.clone();
    let added = on_file(&api, move |file| edit::add_keys(file, &named, &keys)).await?;
    Ok(([(ETAG, tag_of(&api, &name).await?)], Json(KeysAdded { added })))
}

/// The keys that open an account.
#[utoipa::path(get, path = "/accounts/{account}/keys", tag = "accounts", params(("account" = String, Path), Part),
    responses((status = 200, body = Page<KnownKey>, headers(("ETag" = String)))), security(("token" = ["read"]), ("token" = ["provision"])))]
pub(super) async fn list_keys(
    State(api): Asked,
    AccountNamed(name): AccountNamed,
    Query(Part { limit, cursor }): Query<Part>,
) -> Result<impl IntoResponse, Problem> {
    let all = on_file(&api, edit::list).await?;
    let account = all.get(&name).ok_or_else(|| unknown(&name))?;
    let keys = account.keys.iter().map(KnownKey::of).collect();
    Ok(([(ETAG, tag(account))], Json(page(keys, limit, cursor.as_deref(), |one: &KnownKey| one.fingerprint.clone())?)))
}

/// Has a key open an account no more. Whoever is in by it stays in.
#[utoipa::path(delete, path = "/accounts/{account}/keys/{fingerprint}", tag = "accounts",
    params(("account" = String, Path), ("fingerprint" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn remove_key(
    State(api): Asked,
    AccountNamed(name): AccountNamed,
    KeyNamed(fingerprint): KeyNamed,
    unchanged: IfMatch,
) -> Result<impl IntoResponse, Problem> {
    let _alone = api.accounts.lock().await;
    check(&api, &name, &unchanged).await?;
    let named = name.clone();
    on_file(&api, move |file| edit::remove_key(file, &named, &fingerprint)).await?;
    Ok((StatusCode::NO_CONTENT, [(ETAG, tag_of(&api, &name).await?)]))
}

fn parsed(keys: &[String]) -> Result<Vec<AuthorizedKey>, Problem> {
    if keys.len() > MOST_KEYS {
        return Err(Problem::refused(format!("give at most {MOST_KEYS} keys at once")));
    }
    keys.iter().map(|key| key.parse().map_err(|why| Problem::refused(format!("key: {why}")))).collect()
}

/// Whether an account of that name can be made.
pub(super) async fn is_free(api: &Api, name: &AccountName) -> Result<(), Problem> {
    let all = on_file(api, edit::list).await?;
    if all.contains_key(name) { Err(Problem::new(Code::Exists, format!("there is an account {name} already"))) } else { Ok(()) }
}

/// The answer with a password that is shown this once.
pub(super) fn with_password(again: Value, password: Option<SecretString>) -> Made {
    let mut body = again.clone();
    if let Some(password) = password {
        body["password"] = password.expose_secret().into();
    }
    Made { status: StatusCode::CREATED, body, again, named: None }
}

async fn check(api: &Api, name: &AccountName, unchanged: &IfMatch) -> Result<(), Problem> {
    unchanged.check(&tag_of(api, name).await?)
}

/// The `ETag` that an account has now.
async fn tag_of(api: &Api, name: &AccountName) -> Result<String, Problem> {
    let all = on_file(api, edit::list).await?;
    Ok(tag(all.get(name).ok_or_else(|| unknown(name))?))
}

fn unknown(name: &AccountName) -> Problem {
    Problem::new(Code::NotFound, format!("there is no account {name}"))
}

/// Differs whenever the account does. Nothing of its hash can be told from it.
fn tag(account: &Account) -> String {
    let mut digest = Sha256::new();
    for part in [
        account.password.as_ref().map(Hash::expose),
        account.workspace.as_ref().map(ToString::to_string),
        account.template.as_ref().map(ToString::to_string),
        Some(account.keys.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    ] {
        digest.update([u8::from(part.is_some())]);
        digest.update(part.unwrap_or_default());
        digest.update([0]);
    }
    format!("\"{}\"", &HEXLOWER.encode(&digest.finalize())[..32])
}

/// Does something with the accounts file, which may wait for the disk and for others.
async fn on_file<T: Send + 'static, E: Into<FileProblem>>(
    api: &Api,
    work: impl FnOnce(&Path) -> Result<T, E> + Send + 'static,
) -> Result<T, Problem> {
    let none = || Problem::new(Code::NotFound, "there are no accounts here: auth.methods does not name \"accounts\"");
    let file: PathBuf = api.gateway.accounts_file().ok_or_else(none)?;
    let done = tokio::task::spawn_blocking(move || work(&file).map_err(|why| why.into().0)).await;
    done.unwrap_or_else(|why| Err(Problem::new(Code::Store, why.to_string())))
}

/// Why the file was not changed, as it is answered.
struct FileProblem(Problem);

impl From<EditError> for FileProblem {
    fn from(why: EditError) -> Self {
        let code = match &why {
            EditError::Exists(..) => Code::Exists,
            EditError::Unknown(..) | EditError::NoKey(..) => Code::NotFound,
            EditError::Busy(_) => Code::Unavailable,
            EditError::File(_) | EditError::Write { .. } => Code::Store,
        };
        Self(Problem::new(code, why.to_string()))
    }
}

/// A password, given or made up.
fn chosen(given: Option<SecretString>, make_up: bool) -> Result<Option<SecretString>, Problem> {
    match (given, make_up) {
        (Some(_), true) => Err(Problem::refused("give password or generate_password, not both")),
        (None, true) => Ok(Some(BASE32_NOPAD.encode(&rand::random::<[u8; RANDOM]>()).to_ascii_lowercase().into())),
        (Some(password), false) if password.expose_secret().is_empty() => Err(Problem::refused("the password is empty")),
        (Some(password), false) if password.expose_secret().len() > MAX_PASSWORD_BYTES => {
            Err(Problem::refused(format!("the password is longer than {MAX_PASSWORD_BYTES} bytes")))
        }
        (given, false) => Ok(given),
    }
}

// === impl Ready ===

impl TryFrom<New> for Ready {
    type Error = Problem;

    fn try_from(new: New) -> Result<Self, Problem> {
        let name = AccountName::parse(&new.name)?;
        if TerminalName::split(name.as_str()).1.is_some() {
            return Err(Problem::refused("nobody could log in by that name: what follows the last + is taken for the name of a terminal"));
        }
        if printable(&new.name) != new.name {
            return Err(Problem::refused("the name has characters that cannot be seen, or that a terminal would obey"));
        }
        let keys = parsed(&new.keys)?;
        Ok(Self {
            name,
            made_up: new.generate_password,
            password: chosen(new.password, new.generate_password)?,
            keys,
            workspace: new.workspace,
            template: new.template,
        })
    }
}

impl Ready {
    /// Where whoever logs in lands.
    pub(super) fn lands_in(&self) -> WorkspaceName {
        self.workspace.clone().unwrap_or_else(|| WorkspaceName::for_account(&self.name))
    }

    /// Whether anything opens it.
    pub(super) fn opens(&self) -> bool {
        self.password.is_some() || !self.keys.is_empty()
    }

    /// The password, if it was made up here and has to be shown.
    pub(super) fn shown_once(&self) -> Option<SecretString> {
        self.password.clone().filter(|_| self.made_up)
    }

    /// Makes it. With `again` an earlier process may have: then it gets this password, as nobody has been told the other.
    pub(super) async fn make(self, api: &Api, again: bool) -> Result<(), Problem> {
        let _alone = api.accounts.lock().await;
        let Self { name, password, keys, workspace, template, .. } = self;
        on_file(api, move |file| {
            let password = password.map(|password| Hash::of(password.expose_secret().as_bytes())).transpose()?;
            let there = again && edit::list(file)?.contains_key(&name);
            match password {
                Some(hash) if there => edit::set_password(file, &name, &hash),
                None if there => Ok(()),
                password => edit::add(file, &name, &NewAccount { password, keys, workspace, template }),
            }
            .map_err(MakeError::Edit)
        })
        .await
    }
}

/// Why an account was not made.
enum MakeError {
    Edit(EditError),
    Hash(crate::auth::accounts::HashError),
}

impl From<crate::auth::accounts::HashError> for MakeError {
    fn from(why: crate::auth::accounts::HashError) -> Self {
        Self::Hash(why)
    }
}

impl From<EditError> for MakeError {
    fn from(why: EditError) -> Self {
        Self::Edit(why)
    }
}

impl From<MakeError> for FileProblem {
    fn from(why: MakeError) -> Self {
        match why {
            MakeError::Edit(why) => why.into(),
            MakeError::Hash(why) => Self(Problem::new(Code::Store, why.to_string())),
        }
    }
}

// === impl Shown, KnownKey ===

impl KnownKey {
    fn of(key: &AuthorizedKey) -> Self {
        Self { algorithm: key.algorithm().to_owned(), fingerprint: key.fingerprint(), comment: key.comment().to_owned() }
    }
}

impl Shown {
    fn of(name: &AccountName, account: &Account) -> Self {
        Self {
            name: name.as_str().to_owned(),
            workspace: account.workspace.clone().unwrap_or_else(|| WorkspaceName::for_account(name)),
            template: account.template.clone(),
            password: account.password.is_some(),
            keys: account.keys.len(),
            key_list: account.keys.iter().map(KnownKey::of).collect(),
        }
    }
}
