//! The variables that are a workspace's own: those that anybody may see, and its secrets. They are given to each process when it starts, and
//! never to a container, where the engine would show them.
//!
//! Of a name twice, what is further to the right counts: template, grant, workspace, the client's own where `ssh.accept_env` lets it set one,
//! secrets. A secret is last: what a program relies on is not for a client to choose.

use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret, SecretString};

use super::EnsureError;
use super::directory::Directory;
use super::house::House;
use crate::name::{TemplateName, VariableName, WorkspaceName};
use crate::store::{StoreError, Variables};

/// How many random bytes a secret is that nobody has asked more of: what a key of an HMAC or a session cookie should have.
pub(super) const SECRET_BYTES: usize = 32;

impl House {
    /// The variables of a workspace. Secrets that its template wants are made up the first time, once and for all its containers.
    pub(super) async fn variables(&self, name: &WorkspaceName, template: &TemplateName) -> Result<Variables, StoreError> {
        let rules = self.rules.load();
        let wanted: &[VariableName] = rules.templates.get(template).map_or(&[], |template| &template.secrets);
        let made_up = wanted.iter().map(|name| (name.clone(), make_up(SECRET_BYTES))).collect();
        self.parts.store.variables(name, made_up).await
    }
}

// === impl Directory ===

impl Directory {
    /// The variables of a workspace that may be known outside it.
    pub(super) async fn public_variables(&self, name: &WorkspaceName) -> Result<Vec<(String, String)>, EnsureError> {
        let variables = self.house.parts.store.variables(name, Vec::new()).await.map_err(|why| EnsureError::Settings(why.to_string()))?;
        Ok(variables.env.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// The secrets of a workspace, for a process in it.
    pub(super) async fn secret_variables(&self, name: &WorkspaceName) -> Result<Vec<(String, String)>, StoreError> {
        let template = self.drivers.get(name).map(|handle| handle.seen.borrow().record.template.clone()).unwrap_or_default();
        let variables = self.house.variables(name, &template).await?;
        Ok(variables.secrets.into_iter().map(|(name, value)| (name.into(), value.expose_secret().to_owned())).collect())
    }
}

/// A value that nobody can guess, of letters, digits, `-` and `_`.
pub(super) fn make_up(bytes: usize) -> SecretString {
    let mut random = vec![0; bytes];
    rand::fill(&mut random[..]);
    BASE64URL_NOPAD.encode(&random).into()
}
