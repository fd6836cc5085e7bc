//! Logging in to Keystone: what is asked, and what a token tells.
//!
//! A token's life is counted on our own clock from the moment it came, so that two clocks that differ do
//! no harm. A token that was given to us is used to get one of our own.

use std::time::{Duration, Instant};

use haar_cloud::{Error, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::catalog::{self, Catalog};
use crate::settings::{Credential, Domain, Identity, Named, Scope, Secret, Settings};

/// A token is replaced so long before it runs out, since services hand it on to each other.
const MARGIN: Duration = Duration::from_secs(300);

/// Keystone's address with its version.
pub(super) fn keystone(auth_url: &str) -> String {
    let url = auth_url.trim_end_matches('/');
    let url = url.strip_suffix("/v2.0").unwrap_or(url);
    if url.ends_with("/v3") { url.to_owned() } else { format!("{url}/v3") }
}

/// The body of the login.
pub(super) fn request(settings: &Settings) -> Value {
    let identity = match &settings.identity {
        Identity::Password { user, password } => {
            let mut user = named(user);
            user["password"] = password.reveal().into();
            json!({"methods": ["password"], "password": {"user": user}})
        }
        Identity::ApplicationCredential { credential, secret } => {
            let mut credential = match credential {
                Credential::Id(id) => json!({"id": id}),
                Credential::Name(name, user) => json!({"name": name, "user": named(user)}),
            };
            credential["secret"] = secret.reveal().into();
            json!({"methods": ["application_credential"], "application_credential": credential})
        }
        Identity::Token(token) => json!({"methods": ["token"], "token": {"id": token.reveal()}}),
    };
    let scope = match (&settings.identity, &settings.scope) {
        // It brings its project, and Keystone refuses to be told one.
        (Identity::ApplicationCredential { .. }, _) | (_, Scope::Default) => None,
        (_, Scope::Project(project)) => Some(json!({"project": named(project)})),
        (_, Scope::Trust(id)) => Some(json!({"OS-TRUST:trust": {"id": id}})),
    };
    match scope {
        Some(scope) => json!({"auth": {"identity": identity, "scope": scope}}),
        None => json!({"auth": {"identity": identity}}),
    }
}

fn named(named: &Named) -> Value {
    match named {
        Named::Id(id) => json!({"id": id}),
        Named::Name { name, domain: Domain::Id(id) } => json!({"name": name, "domain": {"id": id}}),
        Named::Name { name, domain: Domain::Name(domain) } => {
            json!({"name": name, "domain": {"name": domain}})
        }
    }
}

/// What a token tells.
#[derive(Deserialize)]
pub(super) struct Told {
    project: Option<Project>,
    #[serde(default)]
    catalog: Vec<catalog::Told>,
    issued_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

/// A login that works.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) token: Secret,
    pub(super) project: String,
    pub(super) catalog: Catalog,
    since: Instant,
    life: Option<Duration>,
}

impl Session {
    /// What a token is good for.
    ///
    /// # Errors
    /// [`Error::Auth`] for one without a project, and what [`Catalog::new`] says.
    pub(super) fn new(token: String, told: Told, settings: &Settings) -> Result<Self> {
        let Some(project) = told.project else {
            let message = "it is for no project: set OS_PROJECT_ID, or OS_PROJECT_NAME and its domain";
            return Err(Error::Auth { message: message.to_owned() });
        };
        let region = settings.region.as_deref();
        let catalog = Catalog::new(told.catalog, region, &settings.interface, &project.id)?;
        let life = told.expires_at.zip(told.issued_at).map(|(end, begin)| end.duration_since(begin));
        Ok(Self {
            token: Secret::new(token),
            project: project.id,
            catalog,
            since: Instant::now(),
            life: life.and_then(|life| Duration::try_from(life).ok()),
        })
    }

    /// Whether it is better replaced.
    pub(super) fn runs_out(&self) -> bool {
        // One of a short life must be used all the same.
        self.life.is_some_and(|life| self.since.elapsed() > life.saturating_sub(MARGIN.min(life / 2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[(&str, &str)]) -> Settings {
        let set = [&[("OS_AUTH_URL", "http://k:5000/"), ("OS_REGION_NAME", "r")], set].concat();
        let value =
            |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::read(value).unwrap()
    }

    #[test]
    fn keystones_address_may_have_its_version_or_not() {
        for url in
            ["http://k:5000", "http://k:5000/", "http://k:5000/v3", "http://k:5000/v3/", "http://k:5000/v2.0"]
        {
            assert_eq!(keystone(url), "http://k:5000/v3");
        }
        assert_eq!(keystone("https://k/identity"), "https://k/identity/v3");
    }

    #[test]
    fn a_password_comes_with_user_and_project_in_their_domains() {
        let set = [
            ("OS_USERNAME", "u"),
            ("OS_PASSWORD", "s"),
            ("OS_PROJECT_NAME", "p"),
            ("OS_PROJECT_DOMAIN_NAME", "D"),
        ];
        let wanted = json!({"auth": {
            "identity": {"methods": ["password"], "password": {
                "user": {"name": "u", "domain": {"id": "default"}, "password": "s"}}},
            "scope": {"project": {"name": "p", "domain": {"name": "D"}}}}});
        assert_eq!(request(&settings(&set)), wanted);
    }

    #[test]
    fn an_application_credential_names_no_project() {
        let set = [
            ("OS_APPLICATION_CREDENTIAL_ID", "c"),
            ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
            ("OS_PROJECT_NAME", "p"),
        ];
        let wanted = json!({"auth": {"identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": "c", "secret": "s"}}}});
        assert_eq!(request(&settings(&set)), wanted);
    }

    #[test]
    fn a_token_for_no_project_says_what_to_set() {
        let told = serde_json::from_value(json!({"catalog": []})).unwrap();
        let set = [("OS_TOKEN", "t")];
        let error = Session::new("t".to_owned(), told, &settings(&set)).unwrap_err().to_string();
        assert!(error.contains("OS_PROJECT_ID"), "{error}");
    }

    #[test]
    fn a_token_of_a_short_life_is_used_for_half_of_it() {
        let told = |seconds: i64| {
            let begin = Timestamp::from_second(1000).unwrap();
            let end = Timestamp::from_second(1000 + seconds).unwrap();
            let told = json!({"project": {"id": "p"}, "issued_at": begin.to_string(), "expires_at": end.to_string(),
                "catalog": [{"type": "compute", "endpoints": [{"interface": "public", "url": "u", "region": "r"}]}]});
            serde_json::from_value(told).unwrap()
        };
        let session =
            |seconds| Session::new("t".to_owned(), told(seconds), &settings(&[("OS_TOKEN", "t")])).unwrap();
        assert!(!session(60).runs_out());
        assert!(session(0).runs_out());
    }
}
