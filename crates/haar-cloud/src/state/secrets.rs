//! The secrets of a deployment, in a file of their own.
//!
//! So the record can be shown, copied into a report, or backed up, and gives nothing away. `Debug` shows
//! no secret either.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What must not be shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    version: u32,
    private_key: Option<String>,
    #[serde(default)]
    admin_passwords: BTreeMap<String, String>,
}

impl Secrets {
    /// The private key that opens the servers, as PEM.
    #[must_use]
    pub fn private_key(&self) -> Option<&str> {
        self.private_key.as_deref()
    }

    /// Keeps the private key. Noted before its public half is given to a cloud, it is never lost.
    pub fn set_private_key(&mut self, pem: &str) {
        self.private_key = Some(pem.to_owned());
    }

    /// Forgets the private key, once the cloud has lost its public half.
    pub fn forget_private_key(&mut self) {
        self.private_key = None;
    }

    /// The administrator's password that a cloud made up for a server.
    #[must_use]
    pub fn admin_password(&self, server_id: &str) -> Option<&str> {
        self.admin_passwords.get(server_id).map(String::as_str)
    }

    /// Keeps a password, or forgets it.
    pub fn set_admin_password(&mut self, server_id: &str, password: Option<&str>) {
        match password {
            Some(password) => {
                self.admin_passwords.insert(server_id.to_owned(), password.to_owned());
            }
            None => {
                self.admin_passwords.remove(server_id);
            }
        }
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self { version: super::VERSION, private_key: None, admin_passwords: BTreeMap::new() }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Secrets")
            .field("private_key", &self.private_key.as_ref().map(|_| "hidden"))
            .field("admin_passwords", &self.admin_passwords.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let mut secrets = Secrets::default();
        secrets.set_private_key("hush");
        secrets.set_admin_password("1", Some("hush"));
        let text = format!("{secrets:?}");
        assert!(!text.contains("hush") && text.contains("hidden"), "{text}");
    }

    #[test]
    fn a_password_goes_with_its_server() {
        let mut secrets = Secrets::default();
        secrets.set_admin_password("1", Some("p"));
        assert_eq!(secrets.admin_password("1"), Some("p"));
        secrets.set_admin_password("1", None);
        assert_eq!(secrets, Secrets::default());
    }
}
