//! Saved clouds: a TOML file of names, addresses and tokens, readable by its owner only.
//!
//! ```toml
//! [clouds.default]
//! url = "http://127.0.0.1:8600"
//! token = "…"
//! id = "3f2b8c14-…"
//! data = "/var/lib/haar"
//! ```
//! The id tells clouds apart that were at one address one after the other.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The cloud meant when none is named.
pub(crate) const DEFAULT_CLOUD: &str = "default";

/// Every saved cloud by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    /// By name.
    #[serde(default)]
    pub(crate) clouds: BTreeMap<String, SavedCloud>,
}

/// One saved cloud.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedCloud {
    /// The controller, as `http://host:port`.
    pub(crate) url: String,
    /// The bearer token.
    pub(crate) token: String,
    /// Which cloud it is; whoever saved it did not say so when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Its data folder on this machine, where `haar up` saved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<PathBuf>,
}

impl std::fmt::Debug for SavedCloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedCloud").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// There is no home to keep it in.
    #[error(
        "neither XDG_CONFIG_HOME nor HOME is set and the user has no home, so there is no place for credentials"
    )]
    NoHome,
    /// It cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path} is not a file of clouds; mend it or remove it, then log in again")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where it is wrong.
        source: Box<toml::de::Error>,
    },
    /// It cannot be put into words.
    #[error("the credentials cannot be written as TOML")]
    Write(#[from] toml::ser::Error),
}

/// `haar` in the user's folder of settings. A service has no `HOME`; then the user's own home counts.
pub(crate) fn folder() -> Result<PathBuf, CredentialsError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    let home = set("HOME").or_else(|| user().map(|user| user.dir));
    folder_of(set("XDG_CONFIG_HOME"), home)
}

fn folder_of(settings: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf, CredentialsError> {
    let settings = settings.or_else(|| home.map(|home| home.join(".config")));
    settings.map(|settings| settings.join("haar")).ok_or(CredentialsError::NoHome)
}

/// `credentials.toml` in [`folder`].
pub(crate) fn path() -> Result<PathBuf, CredentialsError> {
    folder().map(|folder| folder.join("credentials.toml"))
}

impl Credentials {
    /// Reads the file; none is the same as an empty one.
    pub(crate) fn load(path: &Path) -> Result<Credentials, CredentialsError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Credentials::default()),
            Err(source) => return Err(CredentialsError::File { path: path.to_owned(), source }),
        };
        toml::from_str(&text)
            .map_err(|source| CredentialsError::Syntax { path: path.to_owned(), source: Box::new(source) })
    }

    /// Writes the file anew, mode 0600, in one step: another program sees the old or the new one.
    pub(crate) fn save(&self, path: &Path) -> Result<(), CredentialsError> {
        let text = toml::to_string(self)?;
        let write = || -> io::Result<()> {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let fresh = path.with_extension(format!("toml.{}", std::process::id()));
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, path)
        };
        write().map_err(|source| CredentialsError::File { path: path.to_owned(), source })
    }
}

/// Whether others than the owner can read the file.
pub(crate) fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_saved_for_their_owner_only_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("haar/credentials.toml");
        assert_eq!(Credentials::load(&path).unwrap(), Credentials::default());

        let mut credentials = Credentials::default();
        let cloud = SavedCloud {
            url: "http://127.0.0.1:8600".to_owned(),
            token: "secret".to_owned(),
            id: None,
            data: None,
        };
        credentials.clouds.insert(DEFAULT_CLOUD.to_owned(), cloud.clone());
        credentials.save(&path).unwrap();
        assert_eq!(Credentials::load(&path).unwrap(), credentials);
        assert!(!is_open_to_others(&path));
        assert!(!format!("{cloud:?}").contains("secret"));

        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(is_open_to_others(&path));
        credentials.save(&path).unwrap();
        assert!(!is_open_to_others(&path));
    }

    #[test]
    fn settings_win_over_the_home_and_one_of_them_is_needed() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(folder_of(path("/s"), path("/h")).unwrap(), Path::new("/s/haar"));
        assert_eq!(folder_of(None, path("/h")).unwrap(), Path::new("/h/.config/haar"));
        assert!(matches!(folder_of(None, None), Err(CredentialsError::NoHome)));
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        fs::write(&path, "[clouds.default]\nurl = 7\n").unwrap();
        let error = Credentials::load(&path).unwrap_err();
        assert!(matches!(error, CredentialsError::Syntax { .. }), "{error}");
    }
}
