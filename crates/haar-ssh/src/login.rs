//! Logging in: the private keys and agents of a pool, one after the other.
//!
//! Promises: a key that cannot be read does not keep the others from being tried; what was tried is told.
//! Deliberately absent: passwords.

use std::path::Path;
use std::sync::Arc;

use russh::MethodKind;
use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey};
use tokio::net::UnixStream;

use crate::connection::Client;
use crate::error::Obstacle;
use crate::key::{self, Login};
use crate::options::Options;
use crate::{Error, Result};

/// The most keys of an agent to be tried: servers count attempts, and usually take six.
const AGENT_KEYS: usize = 5;

/// What the server says to one login.
enum Verdict {
    Accepted,
    Refused,
    /// It takes no public keys, or none any more.
    NoFurther,
    /// It is gone.
    Gone,
}

/// Logs in with whatever the server accepts first.
pub(crate) async fn log_in(handle: &mut Handle<Client>, options: &Options) -> Result<()> {
    let mut tried = Vec::new();
    let mut unusable = None;
    for login in &options.logins {
        let verdict = match attempt(handle, options, login, &mut tried).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tried.push(error.to_string());
                unusable.get_or_insert(error);
                continue;
            }
        };
        match verdict {
            Verdict::Accepted => return Ok(()),
            Verdict::Refused => {}
            Verdict::NoFurther => break,
            Verdict::Gone if tried.len() > 1 => break,
            Verdict::Gone => {
                let target = options.target.clone();
                return Err(Error::Unreachable { target, obstacle: Obstacle::Closed });
            }
        }
    }
    match unusable {
        // The server was never asked, so it is not the one to blame.
        Some(error) if tried.len() == 1 => Err(error),
        _ => {
            if tried.is_empty() {
                tried.push("nothing, as there is no login to try".to_owned());
            }
            Err(Error::LoginRefused { target: options.target.clone(), tried })
        }
    }
}

async fn attempt(
    handle: &mut Handle<Client>,
    options: &Options,
    login: &Login,
    tried: &mut Vec<String>,
) -> Result<Verdict> {
    match login {
        Login::Key(text) => with_key(handle, options, "given as text", text, tried).await,
        Login::KeyFile(path) => {
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|error| Error::local("read the private key", path, error))?;
            with_key(handle, options, &path.display().to_string(), &text, tried).await
        }
        Login::Agent => match std::env::var_os("SSH_AUTH_SOCK") {
            Some(path) => with_agent(handle, options, Path::new(&path), tried).await,
            None => {
                Err(Error::Agent { why: "SSH_AUTH_SOCK is not set; start one with `ssh-agent`".to_owned() })
            }
        },
        Login::AgentAt(path) => with_agent(handle, options, path, tried).await,
    }
}

async fn with_key(
    handle: &mut Handle<Client>,
    options: &Options,
    name: &str,
    text: &str,
    tried: &mut Vec<String>,
) -> Result<Verdict> {
    let key = key::parse(name, text)?;
    tried.push(format!("the key {name}"));
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let result = handle.authenticate_publickey(options.target.user.as_str(), key).await;
    Ok(result.map_or(Verdict::Gone, |result| verdict(handle, &result)))
}

async fn with_agent(
    handle: &mut Handle<Client>,
    options: &Options,
    path: &Path,
    tried: &mut Vec<String>,
) -> Result<Verdict> {
    let fault = |what: &str, error: &dyn std::fmt::Display| Error::Agent {
        why: format!("{what} on {}: {error}", path.display()),
    };
    let mut agent: AgentClient<UnixStream> =
        AgentClient::connect_uds(path).await.map_err(|error| fault("nobody answers", &error))?;
    if let Some(binding) = handle.agent_session_binding() {
        // Agents of before OpenSSH 8.9 do not know this and need it not.
        let _ = agent.bind_session(&binding.clone(), false).await;
    }
    let identities = agent.request_identities().await.map_err(|error| fault("it lists no keys", &error))?;
    let keys: Vec<PublicKey> = identities.iter().filter_map(plain_key).collect();
    if keys.is_empty() {
        return Err(fault("it holds no key", &"add one with `ssh-add`"));
    }
    let mut last = Verdict::Refused;
    for key in keys.into_iter().take(AGENT_KEYS) {
        tried.push(format!("the agent's key {}", key.fingerprint(HashAlg::Sha256)));
        let hash = if key.algorithm().is_rsa() { rsa_hash(handle).await } else { None };
        let user = options.target.user.as_str();
        last = match handle.authenticate_publickey_with(user, key, hash, &mut agent).await {
            Ok(result) => verdict(handle, &result),
            // The agent does not sign with this one, for example because nobody confirmed it.
            Err(_) if !handle.is_closed() => Verdict::Refused,
            Err(_) => Verdict::Gone,
        };
        if !matches!(last, Verdict::Refused) {
            break;
        }
    }
    Ok(last)
}

fn plain_key(identity: &AgentIdentity) -> Option<PublicKey> {
    match identity {
        AgentIdentity::PublicKey { key, .. } => Some(key.clone()),
        AgentIdentity::Certificate { .. } => None,
    }
}

/// What to sign with an RSA key: what the server knows, else what every server of this decade knows.
async fn rsa_hash(handle: &Handle<Client>) -> Option<HashAlg> {
    handle.best_supported_rsa_hash().await.ok().flatten().flatten().or(Some(HashAlg::Sha256))
}

fn verdict(handle: &Handle<Client>, result: &AuthResult) -> Verdict {
    match result {
        AuthResult::Success => Verdict::Accepted,
        AuthResult::Failure { remaining_methods, .. }
            if remaining_methods.contains(&MethodKind::PublicKey) =>
        {
            Verdict::Refused
        }
        AuthResult::Failure { remaining_methods, .. }
            if remaining_methods.is_empty() && handle.is_closed() =>
        {
            Verdict::Gone
        }
        AuthResult::Failure { .. } => Verdict::NoFurther,
    }
}
