//! What a login needs: where the cloud is, who we are, in which project and region.
//!
//! From the variables of an openrc file, or from a cloud of `clouds.yaml` where `OS_CLOUD` names one. Which
//! way counts is [`haar_cloud::env::login`]'s to say. Secrets are never shown by `Debug`. Deliberately
//! absent: asking for anything on a terminal.

use std::fmt;
use std::path::PathBuf;

use haar_cloud::env::{self, Login};
use haar_cloud::{Error, Result};

mod clouds;
mod values;

use values::Values;

/// Where a cloud is, and how to log in to it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Keystone's address, with or without `/v3`.
    pub auth_url: String,
    /// Who we are.
    pub identity: Identity,
    /// What we want to work in.
    pub scope: Scope,
    /// The region; `None` is good for a cloud that has only one.
    pub region: Option<String>,
    /// Which of a service's addresses is used: `public`, `internal` or `admin`.
    pub interface: String,
    /// Certificates (PEM) that are trusted in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The network that external addresses come from, where a deployment names none.
    pub external_network: Option<String>,
    /// How many things of a list are asked for at once; `None` leaves it to the cloud.
    pub page_size: Option<u32>,
    /// Where this machine tells which server it is.
    pub machine: Machine,
    /// Where the login was read, for whoever has to mend it: a file and its cloud, or variables.
    pub origin: String,
}

/// Who we are.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A user with a password.
    Password {
        /// The user.
        user: Named,
        /// The password.
        password: Secret,
    },
    /// An application credential, which brings its project.
    ApplicationCredential {
        /// Its id, or its name and its user.
        credential: Credential,
        /// Its secret.
        secret: Secret,
    },
    /// A token that somebody else got.
    Token(Secret),
}

/// What tells an application credential from all others.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Its id.
    Id(String),
    /// Its name, which is unique for its user.
    Name(String, Named),
}

/// A user or project: by id, or by a name in a domain.
#[derive(Debug, Clone)]
pub enum Named {
    /// By id.
    Id(String),
    /// By name.
    Name {
        /// The name.
        name: String,
        /// The domain it is unique in.
        domain: Domain,
    },
}

/// A domain.
#[derive(Debug, Clone)]
pub enum Domain {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// What a token is good for.
#[derive(Debug, Clone)]
pub enum Scope {
    /// A project.
    Project(Named),
    /// What a trust allows.
    Trust(String),
    /// What the user, or the application credential, has by itself.
    Default,
}

/// Where this machine tells which server it is.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The folder with the facts of its firmware.
    pub firmware: PathBuf,
    /// The file in which cloud-init notes what instance it is, whether told by a service or by a disk.
    pub cloud_init: PathBuf,
    /// The address of the cloud's metadata service.
    pub metadata_url: String,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            firmware: "/sys/class/dmi/id".into(),
            cloud_init: "/var/lib/cloud/data/instance-id".into(),
            metadata_url: "http://169.254.169.254".to_owned(),
        }
    }
}

/// A text that is not shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

impl Settings {
    /// Reads the environment, and `clouds.yaml` where it names a cloud.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_env() -> Result<Self> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// The same with variables from a function.
    ///
    /// # Errors
    /// [`Error::MissingEnv`] and [`Error::NoCloudsFile`] name what lacks; [`Error::BadInput`] says what in
    /// the file or in a variable cannot be used.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let login = env::login(variable, |file| file.is_file())?;
        let mut values = match &login {
            Login::Cloud { name, file } => clouds::read(name, file)?,
            _ => Values::from_env(&variable),
        };
        // What says nothing of who we are may come from beside the file.
        for key in ["region_name", "cacert", "interface", "pool_name"] {
            if values.get(key).is_none() {
                values.extend(key, values::of_env(&variable, key));
            }
        }
        Self::from_values(&values, &login, variable("HOME"))
    }

    fn from_values(values: &Values, login: &Login, home: Option<String>) -> Result<Self> {
        if values.get("insecure").is_some_and(|word| values::is_yes(&word)) {
            return Err(Error::BadInput {
                what: "the wish not to check certificates",
                value: "insecure".to_owned(),
                why: "they are always checked; name the cloud's own authority in OS_CACERT or `cacert`"
                    .to_owned(),
            });
        }
        Ok(Self {
            auth_url: values.need("auth_url")?,
            identity: values.identity(login)?,
            scope: values.scope(),
            region: values.get("region_name"),
            interface: values.interface()?,
            ca_file: values.get("cacert").map(|path| at_home(&path, home)),
            external_network: values.get("pool_name"),
            page_size: None,
            machine: Machine::default(),
            origin: values.origin().to_owned(),
        })
    }
}

/// A path that may begin with `~/`, as in other readers of these files.
fn at_home(path: &str, home: Option<String>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Settings> {
        Settings::read(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    const PASSWORD: &[(&str, &str)] = &[
        ("OS_AUTH_URL", "http://k:5000"),
        ("OS_USERNAME", "u"),
        ("OS_PASSWORD", "hush"),
        ("OS_REGION_NAME", "r"),
        ("OS_TENANT_NAME", "p"),
        ("OS_USER_DOMAIN_NAME", "d"),
    ];

    #[test]
    fn older_names_count_too_and_a_project_is_in_the_domain_of_its_user() {
        let settings = read(PASSWORD).unwrap();
        let Scope::Project(Named::Name { name, domain: Domain::Name(domain) }) = &settings.scope else {
            panic!("{settings:?}")
        };
        assert_eq!((name.as_str(), domain.as_str()), ("p", "d"));
        assert_eq!((settings.interface.as_str(), settings.region.as_deref()), ("public", Some("r")));
    }

    #[test]
    fn a_file_of_certificates_may_lie_at_home() {
        for (cacert, home, expected) in [
            ("~/ca.pem", Some("/srv/al"), "/srv/al/ca.pem"),
            ("/etc/~/ca.pem", Some("/srv/al"), "/etc/~/ca.pem"),
            ("~/ca.pem", None, "~/ca.pem"),
        ] {
            let mut set = [PASSWORD, &[("OS_CACERT", cacert)]].concat();
            set.extend(home.map(|home| ("HOME", home)));
            assert_eq!(read(&set).unwrap().ca_file.unwrap().to_str(), Some(expected));
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        assert!(!format!("{:?}", read(PASSWORD).unwrap()).contains("hush"));
    }

    #[test]
    fn an_application_credential_by_name_belongs_to_its_user() {
        let set = [
            ("OS_AUTH_URL", "http://k"),
            ("OS_APPLICATION_CREDENTIAL_NAME", "c"),
            ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
            ("OS_USERNAME", "u"),
        ];
        let identity = read(&set).unwrap().identity;
        assert!(
            matches!(
                &identity,
                Identity::ApplicationCredential { credential: Credential::Name(name, Named::Name { .. }), .. }
                    if name == "c"
            ),
            "{identity:?}"
        );
    }

    #[test]
    fn certificates_are_checked_also_for_those_who_wish_otherwise() {
        let set = [PASSWORD, &[("OS_INSECURE", "true")]].concat();
        assert!(read(&set).unwrap_err().to_string().contains("OS_CACERT"));
        assert!(read(&[PASSWORD, &[("OS_INSECURE", "false")]].concat()).is_ok());
    }

    #[test]
    fn an_unknown_interface_is_refused_and_the_older_form_is_known() {
        let interface =
            |word: &str| read(&[PASSWORD, &[("OS_INTERFACE", word)]].concat()).map(|read| read.interface);
        assert_eq!(interface("internalURL").unwrap(), "internal");
        assert!(interface("secret").is_err());
    }
}
