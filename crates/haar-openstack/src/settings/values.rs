//! What the environment or a file says, by key, and what a login makes of it.

use std::collections::BTreeMap;
use std::path::Path;

use haar_cloud::env::Login;
use haar_cloud::{Error, Result};

use super::{Credential, Domain, Identity, Named, Scope, Secret};

pub(super) fn is_yes(word: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&word.to_ascii_lowercase().as_str())
}

/// Every key that is read, with what it is called in the environment besides `OS_` and the key.
const KEYS: &[(&str, &[&str])] = &[
    ("auth_url", &[]),
    ("username", &[]),
    ("user_id", &["OS_USERID"]),
    ("password", &[]),
    ("token", &["OS_AUTH_TOKEN"]),
    ("user_domain_id", &[]),
    ("user_domain_name", &[]),
    ("project_id", &["OS_TENANT_ID"]),
    ("project_name", &["OS_TENANT_NAME"]),
    ("project_domain_id", &[]),
    ("project_domain_name", &[]),
    ("domain_id", &[]),
    ("domain_name", &[]),
    ("default_domain", &["OS_DEFAULT_DOMAIN_ID"]),
    ("trust_id", &[]),
    ("application_credential_id", &[]),
    ("application_credential_name", &[]),
    ("application_credential_secret", &[]),
    ("region_name", &[]),
    ("interface", &["OS_ENDPOINT_TYPE"]),
    ("cacert", &[]),
    ("insecure", &[]),
    ("pool_name", &[]),
];

/// The value of a key in the environment.
pub(super) fn of_env(variable: &impl Fn(&str) -> Option<String>, key: &str) -> Option<String> {
    let (_, others) = KEYS.iter().find(|(known, _)| *known == key)?;
    variable(&format!("OS_{}", key.to_ascii_uppercase()))
        .or_else(|| others.iter().find_map(|name| variable(name)))
}

/// Values by key, wherever they come from.
pub(super) struct Values {
    /// Said of them when one lacks.
    origin: String,
    values: BTreeMap<String, String>,
}

impl Values {
    /// What the environment has.
    pub(super) fn from_env(variable: &impl Fn(&str) -> Option<String>) -> Self {
        let value = |(key, _): &(&str, _)| Some(((*key).to_owned(), of_env(variable, key)?));
        let values: BTreeMap<_, _> = KEYS.iter().filter_map(value).collect();
        let is_who =
            |key: &&String| ["user", "password", "token", "credential"].iter().any(|word| key.contains(word));
        let names: Vec<String> =
            values.keys().filter(is_who).map(|key| format!("OS_{}", key.to_ascii_uppercase())).collect();
        Self { origin: format!("the environment ({})", names.join(", ")), values }
    }

    /// What a file says of a cloud.
    pub(super) fn of_file(file: &Path, cloud: &str) -> Self {
        Self { origin: format!("cloud {cloud} of {}", file.display()), values: BTreeMap::new() }
    }

    /// Where they come from.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Adds a value, where there is one and none was there.
    pub(super) fn extend(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.values.entry(key.to_owned()).or_insert(value);
        }
    }

    /// A value, where there is one.
    pub(super) fn get(&self, key: &str) -> Option<String> {
        self.values.get(key).cloned()
    }

    /// A value that must be there.
    pub(super) fn need(&self, key: &'static str) -> Result<String> {
        self.get(key).ok_or_else(|| Error::BadInput {
            what: "the login",
            value: self.origin.clone(),
            why: format!("it has no {key}"),
        })
    }

    /// Who we are.
    pub(super) fn identity(&self, login: &Login) -> Result<Identity> {
        // A file says by what it holds which login it means, unless it says so outright.
        let auth_type = self.get("auth_type").unwrap_or_default();
        let is_credential = self.get("application_credential_secret").is_some();
        match (auth_type.trim_start_matches("v3"), login) {
            ("applicationcredential", _) | ("", Login::ApplicationCredential) => self.credential(),
            ("token", _) | ("", Login::Token) => Ok(Identity::Token(Secret::new(self.need("token")?))),
            ("password", _) | ("", Login::Password) => self.password(),
            ("", Login::Cloud { .. }) if is_credential => self.credential(),
            ("", Login::Cloud { .. }) if self.get("password").is_none() && self.get("token").is_some() => {
                Ok(Identity::Token(Secret::new(self.need("token")?)))
            }
            ("", Login::Cloud { .. }) => self.password(),
            (other, _) => Err(Error::BadInput {
                what: "the auth_type",
                value: other.to_owned(),
                why: "password, token and v3applicationcredential are known".to_owned(),
            }),
        }
    }

    fn password(&self) -> Result<Identity> {
        Ok(Identity::Password { user: self.user()?, password: Secret::new(self.need("password")?) })
    }

    fn credential(&self) -> Result<Identity> {
        let secret = Secret::new(self.need("application_credential_secret")?);
        let credential = match self.get("application_credential_id") {
            Some(id) => Credential::Id(id),
            None => Credential::Name(self.need("application_credential_name")?, self.user()?),
        };
        Ok(Identity::ApplicationCredential { credential, secret })
    }

    fn user(&self) -> Result<Named> {
        match self.get("user_id") {
            Some(id) => Ok(Named::Id(id)),
            None => Ok(Named::Name { name: self.need("username")?, domain: self.domain("user") }),
        }
    }

    /// What we want to work in.
    pub(super) fn scope(&self) -> Scope {
        if let Some(trust) = self.get("trust_id") {
            return Scope::Trust(trust);
        }
        match (self.get("project_id"), self.get("project_name")) {
            (Some(id), _) => Scope::Project(Named::Id(id)),
            (None, Some(name)) => Scope::Project(Named::Name { name, domain: self.domain("project") }),
            (None, None) => Scope::Default,
        }
    }

    /// The domain of a user or project; a project's is that of the user where nothing else is said.
    fn domain(&self, of: &str) -> Domain {
        for prefix in [of, "", "user"] {
            let key = |what: &str| format!("{prefix}_domain_{what}").trim_start_matches('_').to_owned();
            let id = self.get(&key("id")).map(Domain::Id);
            if let Some(domain) = id.or_else(|| self.get(&key("name")).map(Domain::Name)) {
                return domain;
            }
        }
        Domain::Id(self.get("default_domain").unwrap_or_else(|| "default".to_owned()))
    }

    /// Which addresses of services count.
    pub(super) fn interface(&self) -> Result<String> {
        let word = self.get("interface").unwrap_or_else(|| "public".to_owned());
        let interface = word.trim_end_matches("URL").to_owned();
        if ["public", "internal", "admin"].contains(&interface.as_str()) {
            return Ok(interface);
        }
        let why = "public, internal and admin are known".to_owned();
        Err(Error::BadInput { what: "the interface", value: word, why })
    }
}
