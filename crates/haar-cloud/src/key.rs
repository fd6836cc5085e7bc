//! The deployment's key pair: ed25519, in OpenSSH's form.
//!
//! Kept is the private key alone; the public half is read from it. Deliberately absent: keys with a
//! passphrase, since no person types anything when servers are used.

use haar_ssh::KeyPair;

use crate::{Error, Result};

/// A new pair.
pub(crate) fn generate() -> Result<KeyPair> {
    KeyPair::generate().map_err(|error| unusable("new key pair", &error))
}

/// The public half, as it stands in `authorized_keys`.
pub(crate) fn public_of(private_key: &str) -> Result<String> {
    let pair =
        KeyPair::from_private(private_key).map_err(|error| unusable("private key on record", &error))?;
    Ok(pair.public.trim().to_owned())
}

fn unusable(what: &'static str, error: &haar_ssh::Error) -> Error {
    // Never the key itself.
    Error::BadInput { what, value: "(not shown)".to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_half_is_read_from_the_private_one_and_a_bad_key_is_not_shown() {
        let pair = generate().unwrap();
        assert_eq!(public_of(&pair.private).unwrap(), pair.public.trim());
        let error = public_of("hush").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
    }
}
