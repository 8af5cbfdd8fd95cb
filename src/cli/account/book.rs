//! Where accounts are changed: by the gateway that runs, which records who did it, or in the file itself where none does.

use std::path::Path;

use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::AccountError;
use crate::auth::accounts::edit::{self, NewAccount};
use crate::auth::accounts::{Account, AuthorizedKey, Hash};
use crate::cli::{asking, block_on, output};
use crate::name::{AccountName, TemplateName, WorkspaceName};

/// Who changes accounts.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum Book<'a> {
    /// This command, in this file.
    File(&'a Path),
    /// The gateway at this socket, in the file that it goes by.
    Gateway(&'a Path),
}

/// An account that is to be made.
pub(super) struct New {
    pub(super) password: Option<SecretString>,
    pub(super) keys: Vec<AuthorizedKey>,
    pub(super) workspace: Option<WorkspaceName>,
    pub(super) template: Option<TemplateName>,
}

/// An account as it is listed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) password: bool,
    #[serde(rename(deserialize = "key_list"))]
    pub(super) keys: Vec<ListedKey>,
    pub(super) workspace: String,
    pub(super) template: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ListedKey {
    pub(super) algorithm: String,
    pub(super) fingerprint: String,
    pub(super) comment: String,
}

impl<'a> Book<'a> {
    /// The gateway, if one runs that goes by the accounts file.
    pub(in crate::cli) fn open(file: &'a Path, socket: &'a Path) -> Self {
        if asking::is_there(socket) && block_on(asking::get(socket, "/api/v1/accounts?limit=1")).is_ok_and(|answer| answer.is_ok()) {
            Self::Gateway(socket)
        } else {
            Self::File(file)
        }
    }

    pub(super) fn list(self) -> Result<Vec<Listed>, AccountError> {
        match self {
            Self::File(file) => Ok(edit::list(file)?.iter().map(|(name, account)| Listed::of(name, account)).collect()),
            Self::Gateway(socket) => {
                let all = asked(asking::list(socket, "/api/v1/accounts"))?;
                output::understood(all).map_err(AccountError::Gateway)
            }
        }
    }

    pub(super) fn has(self, name: &AccountName) -> Result<bool, AccountError> {
        Ok(self.list()?.iter().any(|one| one.name == name.as_str()))
    }

    pub(super) fn add(self, name: &AccountName, new: New) -> Result<(), AccountError> {
        let New { password, keys, workspace, template } = new;
        match self {
            Self::File(file) => {
                let password = password.map(|password| Hash::of(password.expose_secret().as_bytes())).transpose()?;
                Ok(edit::add(file, name, &NewAccount { password, keys, workspace, template })?)
            }
            Self::Gateway(socket) => {
                let password = password.as_ref().map(ExposeSecret::expose_secret);
                let (first, more) = keys.split_at(keys.len().min(AT_ONCE));
                let body = json!({
                    "name": name.as_str(), "password": password, "keys": texts(first), "workspace": workspace, "template": template,
                });
                asked(asking::act(socket, Method::POST, "/api/v1/accounts", Some(&body)))?;
                self.add_keys(name, more).map(drop)
            }
        }
    }

    /// Says how many were new.
    pub(super) fn add_keys(self, name: &AccountName, keys: &[AuthorizedKey]) -> Result<usize, AccountError> {
        match self {
            Self::File(file) => Ok(edit::add_keys(file, name, keys)?),
            Self::Gateway(socket) => {
                let mut added = 0;
                for some in keys.chunks(AT_ONCE) {
                    let body = json!({ "keys": texts(some) });
                    let answer = asked(asking::act(socket, Method::POST, &format!("{}/keys", path(name)), Some(&body)))?;
                    added += output::understood::<usize>(answer["added"].clone()).map_err(AccountError::Gateway)?;
                }
                Ok(added)
            }
        }
    }

    pub(super) fn remove_key(self, name: &AccountName, fingerprint: &str) -> Result<(), AccountError> {
        match self {
            Self::File(file) => Ok(edit::remove_key(file, name, fingerprint)?),
            Self::Gateway(socket) => {
                let path = format!("{}/keys/{}", path(name), encoded(fingerprint));
                asked(asking::act(socket, Method::DELETE, &path, None)).map(drop)
            }
        }
    }

    pub(super) fn set_password(self, name: &AccountName, password: &SecretString) -> Result<(), AccountError> {
        match self {
            Self::File(file) => Ok(edit::set_password(file, name, &Hash::of(password.expose_secret().as_bytes())?)?),
            Self::Gateway(socket) => {
                let body = json!({ "password": password.expose_secret() });
                asked(asking::act(socket, Method::PUT, &format!("{}/password", path(name)), Some(&body))).map(drop)
            }
        }
    }

    pub(super) fn remove(self, name: &AccountName) -> Result<(), AccountError> {
        match self {
            Self::File(file) => Ok(edit::remove(file, name)?),
            Self::Gateway(socket) => asked(asking::act(socket, Method::DELETE, &path(name), None)).map(drop),
        }
    }

    /// Where it is.
    pub(super) fn place(self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Gateway(_) => "the gateway's accounts file".to_owned(),
        }
    }
}

/// Keys that the gateway takes at once.
const AT_ONCE: usize = 100;

fn asked(asking: impl Future<Output = anyhow::Result<Value>>) -> Result<Value, AccountError> {
    block_on(asking).and_then(|answer| answer).map_err(AccountError::Gateway)
}

/// An account's path: a name may have any character.
fn path(name: &AccountName) -> String {
    format!("/api/v1/accounts/{}", encoded(name.as_str()))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn texts(keys: &[AuthorizedKey]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

impl Listed {
    fn of(name: &AccountName, account: &Account) -> Self {
        let key = |key: &AuthorizedKey| ListedKey {
            algorithm: key.algorithm().to_owned(),
            fingerprint: key.fingerprint(),
            comment: key.comment().to_owned(),
        };
        Self {
            name: name.as_str().to_owned(),
            password: account.password.is_some(),
            keys: account.keys.iter().map(key).collect(),
            workspace: account.workspace.as_ref().map_or_else(|| WorkspaceName::for_account(name).to_string(), WorkspaceName::to_string),
            template: account.template.as_ref().map(TemplateName::to_string),
        }
    }
}
