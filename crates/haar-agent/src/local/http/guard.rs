//! Who may reach the REST from elsewhere: TLS on the way, and a token with every request.
//!
//! The files are read once, at the start. The token goes as `Authorization: Bearer …`, or as the password of
//! `Basic`, which a client that knows no tokens sends for `https://any:TOKEN@host/`. Deliberately absent: making
//! certificates, which is for whoever runs the place; and reading renewed ones without a restart.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Characters of a token: fewer could be guessed.
const LEAST_TOKEN: usize = 32;

/// Why the files cannot guard anything.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A file cannot be read.
    #[error("cannot read {path} for the agent's REST")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others on this machine could read a secret.
    #[error("{0} is a secret that others can read; close it: chmod 0600 {0}")]
    Open(PathBuf),
    /// No certificate or key in PEM.
    #[error("{path} holds no {what} in PEM: {why}")]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// What the reader says.
        why: String,
    },
    /// Key and certificate do not fit, or are of a kind that is not known.
    #[error("the certificate {0} and its key cannot be used: {1}")]
    Unfit(PathBuf, String),
    /// A token that could be guessed.
    #[error("the token in {0} is shorter than 32 characters; make one: openssl rand -hex 32")]
    ShortToken(PathBuf),
}

/// What stands before an address that other machines reach.
#[derive(Clone)]
pub struct Guard {
    acceptor: TlsAcceptor,
    token: [u8; 32],
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

impl Guard {
    /// Reads a certificate with its chain, its key, and the token, each from a file.
    ///
    /// # Errors
    /// [`GuardError`] names the file and what is wrong with it.
    pub fn read(certificate: &Path, key: &Path, token: &Path) -> Result<Guard, GuardError> {
        let text = secret(token)?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if text.len() < LEAST_TOKEN {
            return Err(GuardError::ShortToken(token.to_owned()));
        }
        let chain = certificates(certificate)?;
        let not_pem = |error: rustls::pki_types::pem::Error| GuardError::NotPem {
            path: key.to_owned(),
            what: "private key",
            why: error.to_string(),
        };
        let secret_key = PrivateKeyDer::from_pem_slice(&secret(key)?).map_err(not_pem)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unfit = |error: rustls::Error| GuardError::Unfit(certificate.to_owned(), error.to_string());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_no_client_auth()
            .with_single_cert(chain, secret_key)
            .map_err(unfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Guard { acceptor: TlsAcceptor::from(Arc::new(config)), token: Sha256::digest(text).into() })
    }

    /// The handshake; none in time is none at all.
    pub(crate) async fn greet<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let greeted = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await;
        greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether a request carries the token. Digests are compared: how long that takes tells nothing of the token.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let word = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, rest)) = word.and_then(|word| word.split_once(' ')) else { return false };
        let given = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => rest.trim().to_owned(),
            "basic" => password(rest.trim()).unwrap_or_default(),
            _ => return false,
        };
        <[u8; 32]>::from(Sha256::digest(given)) == self.token
    }
}

fn password(encoded: &str) -> Option<String> {
    let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, GuardError> {
    let bytes = read(path)?;
    let not_pem = |why: String| GuardError::NotPem { path: path.to_owned(), what: "certificate", why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| not_pem(error.to_string()))?;
    if found.is_empty() { Err(not_pem("there is none".to_owned())) } else { Ok(found) }
}

fn secret(path: &Path) -> Result<Vec<u8>, GuardError> {
    let failed = |source| GuardError::Read { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(GuardError::Open(path.to_owned()));
    }
    read(path)
}

fn read(path: &Path) -> Result<Vec<u8>, GuardError> {
    std::fs::read(path).map_err(|source| GuardError::Read { path: path.to_owned(), source })
}
