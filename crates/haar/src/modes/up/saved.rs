//! Saving the cloud for the command line: for root, and under sudo for the user who called.
//!
//! A name that means another cloud is not taken over: then the cloud is saved under a name of its own. Clouds are
//! told apart by their id, for one address may have been another cloud's before. That saving fails ends nothing.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::unistd::User;
use serde::{Deserialize, Serialize};

use crate::cli::credentials::{self, Credentials, CredentialsError, SavedCloud};

/// Whose file it is.
struct Place {
    path: PathBuf,
    owner: Option<User>,
}

impl Place {
    fn whom(&self) -> &str {
        self.owner.as_ref().map_or("root", |user| user.name.as_str())
    }
}

/// Where a cloud is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedFor {
    /// For whom.
    pub(super) user: String,
    /// In which file.
    pub(super) file: PathBuf,
    /// Under which name.
    pub(super) name: String,
}

impl std::fmt::Display for SavedFor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "for {} in {}", self.user, self.file.display())?;
        if self.name != credentials::DEFAULT_CLOUD {
            write!(f, " as cloud `{0}`: use --cloud {0}", self.name)?;
        }
        Ok(())
    }
}

/// A cloud as it is to be saved.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToSave<'a> {
    /// The name it shall have.
    pub(super) name: &'a str,
    pub(super) url: &'a str,
    pub(super) token: &'a str,
    /// The cloud's id.
    pub(super) cloud: &'a str,
    /// Its data folder.
    pub(super) data: &'a Path,
}

/// Saves the cloud. Gives where, the caller's own file last, and what was in the way elsewhere.
pub(super) fn save(cloud: ToSave<'_>) -> (Vec<SavedFor>, Vec<String>) {
    match places() {
        Ok(places) => save_for(&places, cloud),
        Err(error) => (Vec::new(), vec![format!("the token is saved for nobody: {error}")]),
    }
}

fn save_for(places: &[Place], cloud: ToSave<'_>) -> (Vec<SavedFor>, Vec<String>) {
    let (mut saved, mut warnings) = (Vec::new(), Vec::new());
    for place in places {
        let user = place.whom().to_owned();
        match save_in(place, cloud) {
            Ok(name) => saved.push(SavedFor { user, file: place.path.clone(), name }),
            Err(error) => warnings.push(format!("the token is not saved for {user}: {error:#}")),
        }
    }
    (saved, warnings)
}

fn places() -> Result<Vec<Place>, CredentialsError> {
    let mut places = vec![Place { path: credentials::path()?, owner: None }];
    let caller = std::env::var("SUDO_USER").ok().filter(|user| user != "root");
    if let Some(caller) = caller
        && let Ok(Some(user)) = User::from_name(&caller)
    {
        let path = user.dir.join(".config/haar/credentials.toml");
        if path != places[0].path {
            places.push(Place { path, owner: Some(user) });
        }
    }
    Ok(places)
}

fn save_in(place: &Place, cloud: ToSave<'_>) -> anyhow::Result<String> {
    let mut all = Credentials::load(&place.path)?;
    let means_another = |known: &SavedCloud| match &known.id {
        Some(id) => id != cloud.cloud,
        None => known.url != cloud.url,
    };
    let named = match all.clouds.get(cloud.name) {
        Some(known) if means_another(known) => format!("haar-{}", &cloud.cloud[..8]),
        _ => cloud.name.to_owned(),
    };
    let fresh = SavedCloud {
        url: cloud.url.to_owned(),
        token: cloud.token.to_owned(),
        id: Some(cloud.cloud.to_owned()),
        data: Some(cloud.data.to_owned()),
    };
    all.clouds.insert(named.clone(), fresh);
    let made = missing_folders(&place.path);
    all.save(&place.path)?;
    give(place, &made)?;
    Ok(named)
}

/// Gives the file, and folders that were made for it, to whose it is.
fn give(place: &Place, made: &[PathBuf]) -> anyhow::Result<()> {
    let Some(user) = &place.owner else { return Ok(()) };
    for path in made.iter().map(PathBuf::as_path).chain([place.path.as_path()]) {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .with_context(|| format!("cannot give {} to {}", path.display(), user.name))?;
    }
    Ok(())
}

/// The folders on the way that saving will make.
fn missing_folders(path: &Path) -> Vec<PathBuf> {
    path.ancestors().skip(1).take_while(|folder| !folder.exists()).map(Path::to_owned).collect()
}

/// Forgets this cloud under every name; gives what was in the way.
pub(in crate::modes) fn forget(cloud: &str) -> Vec<String> {
    let places = match places() {
        Ok(places) => places,
        Err(error) => return vec![error.to_string()],
    };
    let forgotten = places.iter().map(|place| (place, forget_in(place, cloud)));
    let failed = forgotten.filter_map(|(place, outcome)| Some((place, outcome.err()?)));
    failed.map(|(place, error)| format!("its token is still saved for {}: {error:#}", place.whom())).collect()
}

fn forget_in(place: &Place, cloud: &str) -> anyhow::Result<()> {
    let mut all = Credentials::load(&place.path)?;
    let before = all.clouds.len();
    all.clouds.retain(|_, known| known.id.as_deref() != Some(cloud));
    if all.clouds.len() != before {
        all.save(&place.path)?;
        give(place, &[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = "3f2b8c14-5d0e-4a57-9a43-6f1f7a1d2b90";
    const OWN: &str = "7a1d2b90-5d0e-4a57-9a43-6f1f3f2b8c14";

    fn cloud<'a>(url: &'a str, token: &'a str, cloud: &'a str) -> ToSave<'a> {
        ToSave { name: "default", url, token, cloud, data: Path::new("/srv/haar") }
    }

    #[test]
    fn a_name_that_means_another_cloud_is_not_taken_over_even_at_the_same_address() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { path: folder.path().join("haar/credentials.toml"), owner: None };
        assert_eq!(save_in(&place, cloud("http://a:1", "one", OWN)).unwrap(), "default");
        assert_eq!(save_in(&place, cloud("http://a:2", "two", OWN)).unwrap(), "default");
        assert_eq!(save_in(&place, cloud("http://a:2", "three", DEMO)).unwrap(), "haar-3f2b8c14");
        let all = Credentials::load(&place.path).unwrap();
        assert_eq!(
            (all.clouds["default"].url.as_str(), all.clouds["default"].token.as_str()),
            ("http://a:2", "two")
        );
        assert_eq!(all.clouds["haar-3f2b8c14"].token, "three");
        assert_eq!(all.clouds["default"].data.as_deref(), Some(Path::new("/srv/haar")));

        forget_in(&place, DEMO).unwrap();
        let all = Credentials::load(&place.path).unwrap();
        assert_eq!(all.clouds.keys().collect::<Vec<_>>(), ["default"]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_a_warning_and_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let broken = Place { path: folder.path().join("credentials.toml"), owner: None };
        std::fs::write(&broken.path, "clouds = 7\n").unwrap();
        let good = Place { path: folder.path().join("good/credentials.toml"), owner: None };
        let (saved, warnings) = save_for(&[broken, good], cloud("http://a:1", "one", OWN));
        assert_eq!(saved.len(), 1);
        assert!(warnings[0].contains("credentials.toml"), "{warnings:?}");
    }
}
