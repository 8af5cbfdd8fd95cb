//! An account and a workspace in one request: what a site asks for when somebody signs up.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::response::Response;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Asked;
use super::accounts::{self, Ready, is_free, with_password};
use super::once::Key;
use super::problem::Problem;
use super::take::Body;
use super::wire::Limits;
use crate::address::PublicAddress;
use crate::name::{TemplateName, VariableName, WorkspaceName};
use crate::workspace::NewWorkspace;

/// Somebody who signs up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTenant)]
pub(super) struct New {
    /// The name to log in with.
    #[schema(min_length = 1, max_length = 256)]
    account: String,
    /// Its password; one is made up and shown this once where neither this nor `keys` is given.
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
    /// Public keys, as in an `authorized_keys` file.
    #[serde(default)]
    #[schema(required = false)]
    keys: Vec<String>,
    /// The name of the workspace, instead of one made from the account's.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
    workspace: Option<WorkspaceName>,
    /// Its template; `default` unless said otherwise.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9-]{0,31}$", example = "default")]
    template: Option<TemplateName>,
    /// Limits of its own.
    limits: Option<Limits>,
    /// Its variables.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>, required = false)]
    env: std::collections::BTreeMap<VariableName, String>,
}

/// What somebody who has signed up needs to know.
#[derive(Serialize, ToSchema)]
pub(super) struct Tenant {
    account: String,
    #[schema(value_type = String)]
    workspace: WorkspaceName,
    /// Where to log in.
    ssh: String,
    /// The same as a command.
    command: String,
    /// Where what the workspace serves on its loopback is reached, with `{port}` in place of the port; `null` where workspaces have no URLs. Who has
    /// no link to it opens nothing, but where a port is public.
    web: Option<String>,
    /// A password that was made up; shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    /// Whether it runs already; otherwise it is being made ready.
    ready: bool,
}

/// How long the answer waits for the workspace to run: with one in the pool it does after a fraction of this.
const READY: Duration = Duration::from_millis(700);
/// Where to log in when nobody has said.
const NOWHERE: &str = "localhost";

/// Makes an account and its workspace, and begins to make that ready.
#[utoipa::path(post, path = "/tenants", tag = "accounts", params(("Idempotency-Key" = Option<String>, Header)), request_body = New,
    responses((status = 201, body = Tenant)), security(("token" = ["provision"])))]
pub(super) async fn create_tenant(
    State(api): Asked,
    headers: HeaderMap,
    key: Key,
    Body(new, bytes): Body<New>,
) -> Result<Response, Problem> {
    let New { account, password, keys, workspace, template, limits, env } = new;
    let generate_password = password.is_none() && keys.is_empty();
    let wanted = NewWorkspace { template: template.clone().unwrap_or_default(), limits: limits.unwrap_or_default().into(), env };
    let account = Ready::try_from(accounts::New { name: account, password, generate_password, keys, workspace, template })?;
    debug_assert!(account.opens());
    let workspace = account.lands_in();
    let (public, listens) = api.gateway.ssh_address();
    let port = public.as_ref().and_then(PublicAddress::port).unwrap_or(listens);
    let reached = public.or_else(|| asked_at(&headers));
    let web = api.gateway.urls().pattern_of(&workspace);
    let (free, asked) = ((Arc::clone(&api), account.name.clone(), workspace.clone(), wanted.clone()), Arc::clone(&api));
    let free = async move {
        is_free(&free.0, &free.1).await?;
        Ok(free.0.operations.can_make(&free.2, &free.3).await?)
    };
    key.once(api, bytes, free, move |again| async move {
        // The workspace first: an account without one lands in an empty one of its template, as any other does.
        asked.operations.make_workspace(&workspace, wanted, again).await?;
        let (name, password) = (account.name.clone(), account.shown_once());
        account.make(&asked, again).await?;
        let ready = match asked.operations.start(&workspace).await {
            Ok(starting) => matches!(tokio::time::timeout(READY, starting.done).await, Ok(Ok(Ok(_)))),
            Err(_) => false,
        };
        let typed = name.as_str();
        let (host, url_host) = reached.map_or_else(|| (NOWHERE.to_owned(), NOWHERE.to_owned()), |at| (at.host(), at.url_host()));
        let tenant = Tenant {
            account: typed.to_owned(),
            workspace,
            ssh: format!("ssh://{}@{url_host}:{port}", percent(typed)),
            command: format!("ssh -p {port} -l {} {host}", quoted(typed)),
            web,
            password: None,
            ready,
        };
        Ok(with_password(serde_json::to_value(tenant).unwrap_or_default(), password))
    })
    .await
}

/// The name by which this gateway was asked, if it is one.
fn asked_at(headers: &HeaderMap) -> Option<PublicAddress> {
    headers.get(HOST)?.to_str().ok()?.parse().ok()
}

/// A name as a part of a URL.
fn percent(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A name as a word of a shell.
fn quoted(name: &str) -> String {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte)) && !name.starts_with('-');
    if plain { name.to_owned() } else { format!("'{}'", name.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_harmless_where_they_are_put() {
        assert_eq!(quoted("alice"), "alice");
        assert_eq!(quoted("a b';rm"), "'a b'\\'';rm'");
        assert_eq!(percent("a@b/c"), "a%40b%2Fc");
        let from = |value: &'static str| asked_at(&HeaderMap::from_iter([(HOST, axum::http::HeaderValue::from_static(value))]));
        assert_eq!(from("example.org:2280").map(|at| at.host()).as_deref(), Some("example.org"));
        assert_eq!(from("-oProxyCommand=x"), None);
    }
}
