//! The keys of which a server must show one.
//!
//! Promises: a key that is not among them is refused, with what was expected and what was found. Deliberately
//! absent: any way to accept a key because it was seen first.

use std::borrow::Cow;

use russh::keys::{Algorithm, HashAlg, PublicKey};
use russh::{Preferred, cipher};

use crate::options::Target;
use crate::{Error, Result};

/// Pinned host keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKeys {
    keys: Vec<PublicKey>,
}

impl HostKeys {
    /// Pins keys, each as a line in OpenSSH's form: `ssh-ed25519 AAAA…`, with or without a comment.
    ///
    /// Lines of the long outdated kind `ssh-dss` are passed over, as some servers still tell them.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a line that is no such key, and when there is no usable key at all: RSA alone
    /// does not do.
    pub fn pinned<'line>(lines: impl IntoIterator<Item = &'line str>) -> Result<Self> {
        let mut keys: Vec<PublicKey> = Vec::new();
        for line in lines.into_iter().map(str::trim) {
            if line.is_empty() || line.starts_with("ssh-dss ") {
                continue;
            }
            let key = PublicKey::from_openssh(line).map_err(|error| Error::BadInput {
                what: "host key",
                value: line.to_owned(),
                why: format!("it is no public key in OpenSSH's form ({error})"),
            })?;
            if !keys.iter().any(|known| known.key_data() == key.key_data()) {
                keys.push(key);
            }
        }
        if keys.iter().all(|key| key.algorithm().is_rsa()) {
            let value = keys.iter().map(fingerprint).collect::<Vec<_>>().join(", ");
            let why = "at least one key of the kinds ssh-ed25519 and ecdsa-sha2 is needed".to_owned();
            return Err(Error::BadInput { what: "list of host keys", value, why });
        }
        Ok(Self { keys })
    }

    /// The pinned keys' fingerprints, each with its kind.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(fingerprint).collect()
    }

    /// Looks whether a key is one of ours.
    pub(crate) fn check(&self, target: &Target, shown: &PublicKey) -> Result<()> {
        if self.keys.iter().any(|key| key.key_data() == shown.key_data()) {
            return Ok(());
        }
        Err(Error::HostKey {
            target: target.clone(),
            expected: self.fingerprints(),
            found: fingerprint(shown),
        })
    }

    /// What to negotiate: a server has keys of several kinds and shows the kind we like most, so the pinned
    /// kinds come first. The others follow only to be able to say which key was found instead.
    pub(crate) fn preferred(&self) -> Preferred {
        let mut algorithms: Vec<Algorithm> = Vec::new();
        let known = Preferred::DEFAULT.key.iter().cloned();
        for algorithm in self.keys.iter().map(PublicKey::algorithm).chain(known) {
            if !algorithm.clone().is_rsa() && !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        Preferred { key: Cow::Owned(algorithms), cipher: Cow::Borrowed(CIPHERS), ..Preferred::DEFAULT }
    }
}

/// AES in hardware is some times faster than ChaCha20 without, at both ends.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPair;

    #[test]
    fn a_pinned_key_passes_whatever_its_comment_and_another_is_refused_with_both_fingerprints() {
        let (ours, other) = (KeyPair::generate().unwrap().public, KeyPair::generate().unwrap().public);
        let keys = HostKeys::pinned([format!("{ours} root@web\n").as_str(), "", "ssh-dss AAAA"]).unwrap();
        let target = Target::new("web", "root");
        keys.check(&target, &PublicKey::from_openssh(&ours).unwrap()).unwrap();
        let shown = PublicKey::from_openssh(&other).unwrap();
        let Err(Error::HostKey { expected, found, .. }) = keys.check(&target, &shown) else {
            panic!("a stranger's key must be refused");
        };
        assert_eq!(expected, keys.fingerprints());
        assert_eq!(found, fingerprint(&shown));
        assert!(found.starts_with("ssh-ed25519 SHA256:"), "{found}");
    }

    #[test]
    fn no_key_and_half_a_key_are_refused() {
        assert!(HostKeys::pinned([]).is_err());
        let Err(Error::BadInput { value, .. }) = HostKeys::pinned(["ssh-ed25519 AAAA"]) else {
            panic!("half a key must be refused");
        };
        assert_eq!(value, "ssh-ed25519 AAAA");
    }

    #[test]
    fn the_pinned_kind_is_asked_for_first() {
        let keys = HostKeys::pinned([KeyPair::generate().unwrap().public.as_str()]).unwrap();
        assert_eq!(keys.preferred().key.first(), Some(&Algorithm::Ed25519));
        assert!(keys.preferred().key.iter().all(|algorithm| !algorithm.clone().is_rsa()));
    }
}
