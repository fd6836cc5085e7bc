//! Private keys: making a pair, and reading those to log in with.
//!
//! Keys are ed25519 where we make them; ECDSA keys are read too. Deliberately absent: RSA private keys, whose
//! only library for Rust lets its time of signing tell of the key (RUSTSEC-2023-0071), and which can still be used
//! through an ssh agent; and asking for passphrases.

use std::fmt;
use std::path::PathBuf;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, decode_secret_key};

use crate::{Error, Result};

/// What to log in with.
#[derive(Clone)]
pub enum Login {
    /// A private key as text, in OpenSSH's form or PKCS#8.
    Key(String),
    /// A file with such a key; read anew for each connection.
    KeyFile(PathBuf),
    /// The ssh agent that `SSH_AUTH_SOCK` names.
    Agent,
    /// The ssh agent on this socket.
    AgentAt(PathBuf),
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_) => formatter.write_str("Key(…)"),
            Self::KeyFile(path) => formatter.debug_tuple("KeyFile").field(path).finish(),
            Self::Agent => formatter.write_str("Agent"),
            Self::AgentAt(path) => formatter.debug_tuple("AgentAt").field(path).finish(),
        }
    }
}

/// A fresh key pair in OpenSSH's forms.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The private half: a PEM text that begins with `-----BEGIN OPENSSH PRIVATE KEY-----`.
    pub private: String,
    /// The public half: one line that begins with `ssh-ed25519`.
    pub public: String,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Makes an ed25519 pair.
    ///
    /// # Errors
    /// [`Error::KeyUnusable`] if the library cannot write down what it made.
    pub fn generate() -> Result<Self> {
        let unusable = |why: russh::keys::ssh_key::Error| Error::KeyUnusable {
            name: "just made".to_owned(),
            why: why.to_string(),
        };
        let key =
            PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(unusable)?;
        let private = key.to_openssh(LineEnding::LF).map_err(unusable)?.to_string();
        let public = key.public_key().to_openssh().map_err(unusable)?;
        Ok(Self { private, public })
    }

    /// The public half of a private key, in OpenSSH's form.
    ///
    /// # Errors
    /// [`Error::KeyEncrypted`] and [`Error::KeyUnusable`].
    pub fn from_private(private: &str) -> Result<Self> {
        let key = parse("given as text", private)?;
        let public = key.public_key().to_openssh().map_err(|error| Error::KeyUnusable {
            name: "given as text".to_owned(),
            why: error.to_string(),
        })?;
        Ok(Self { private: private.to_owned(), public })
    }
}

/// Reads a private key; `name` is for messages.
pub(crate) fn parse(name: &str, text: &str) -> Result<PrivateKey> {
    use russh::keys::Error as KeyError;
    let unusable = |why: String| Error::KeyUnusable { name: name.to_owned(), why };
    match decode_secret_key(text, None) {
        Ok(key) if key.is_encrypted() => Err(Error::KeyEncrypted { name: name.to_owned() }),
        Ok(key) if key.algorithm().is_rsa() => Err(unusable(RSA.to_owned())),
        Ok(key) => Ok(key),
        Err(_) if ENCRYPTED.iter().any(|words| text.contains(words)) => {
            Err(Error::KeyEncrypted { name: name.to_owned() })
        }
        Err(KeyError::KeyIsEncrypted) => Err(Error::KeyEncrypted { name: name.to_owned() }),
        Err(KeyError::UnsupportedKeyType { key_type_string, .. }) if key_type_string == "RSA" => {
            Err(unusable(RSA.to_owned()))
        }
        Err(KeyError::UnknownAlgorithm(kind)) if kind.to_string() == RSA_IN_PKCS8 => {
            Err(unusable(RSA.to_owned()))
        }
        Err(KeyError::CouldNotReadKey) => {
            Err(unusable("it is no private key in OpenSSH's form or PKCS#8".to_owned()))
        }
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// What protected keys say in other forms than OpenSSH's.
const ENCRYPTED: &[&str] = &["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];

const RSA: &str = "it is an RSA key, which only an ssh agent may use here: add it to one (`ssh-add`) and log in by that, or use an ed25519 key";
/// What PKCS#8 calls an RSA key.
const RSA_IN_PKCS8: &str = "1.2.840.113549.1.1.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_pair_belongs_together_and_its_private_half_is_not_shown() {
        let pair = KeyPair::generate().unwrap();
        assert!(pair.private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert!(pair.public.starts_with("ssh-ed25519 AAAA"));
        assert_eq!(KeyPair::from_private(&pair.private).unwrap(), pair);
        assert_ne!(KeyPair::generate().unwrap(), pair);
        assert!(!format!("{pair:?} {:?}", Login::Key(pair.private.clone())).contains("PRIVATE"));
    }

    #[test]
    fn what_is_no_key_and_what_is_rsa_is_said() {
        let text = |private| KeyPair::from_private(private).unwrap_err().to_string();
        assert!(text("hello").contains("no private key"), "{}", text("hello"));
        let rsa = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert!(text(rsa).contains("ssh agent"), "{}", text(rsa));
    }
}
