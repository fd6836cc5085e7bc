//! Saving the cloud for the command line: for root, and under sudo for the user who called.
//!
//! A name that means another cloud is not taken over: then the cloud is saved under a name of its own.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::unistd::User;

use crate::cli::credentials::{self, Credentials, SavedCloud};

/// Whose file it is.
struct Place {
    path: PathBuf,
    owner: Option<User>,
}

/// Saves the cloud and says for whom, where, and under which name.
pub(super) fn save(name: &str, url: &str, token: &str, cloud: &str) -> anyhow::Result<Vec<String>> {
    let mut saved = Vec::new();
    for place in places()? {
        let whom = place.owner.as_ref().map_or("root", |user| user.name.as_str()).to_owned();
        let named = save_in(&place, name, url, token, cloud)?;
        let under = if named == credentials::DEFAULT_CLOUD {
            String::new()
        } else {
            format!(" as cloud `{named}`: use --cloud {named}")
        };
        saved.push(format!("for {whom} in {}{under}", place.path.display()));
    }
    Ok(saved)
}

fn places() -> anyhow::Result<Vec<Place>> {
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

fn save_in(place: &Place, name: &str, url: &str, token: &str, cloud: &str) -> anyhow::Result<String> {
    let mut all = Credentials::load(&place.path)?;
    let means_another = |name: &str| all.clouds.get(name).is_some_and(|known| known.url != url);
    let named = if means_another(name) { format!("haar-{}", &cloud[..8]) } else { name.to_owned() };
    all.clouds.insert(named.clone(), SavedCloud { url: url.to_owned(), token: token.to_owned() });
    let made = missing_folders(&place.path);
    all.save(&place.path)?;
    if let Some(user) = &place.owner {
        for path in made.iter().map(PathBuf::as_path).chain([place.path.as_path()]) {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .with_context(|| format!("cannot give {} to {}", path.display(), user.name))?;
        }
    }
    Ok(named)
}

/// The folders on the way that saving will make.
fn missing_folders(path: &Path) -> Vec<PathBuf> {
    path.ancestors().skip(1).take_while(|folder| !folder.exists()).map(Path::to_owned).collect()
}

/// Forgets every saved cloud at this address.
pub(in crate::modes) fn forget(url: &str) -> anyhow::Result<()> {
    for place in places()? {
        let mut all = Credentials::load(&place.path)?;
        let before = all.clouds.len();
        all.clouds.retain(|_, cloud| cloud.url != url);
        if all.clouds.len() != before {
            all.save(&place.path)?;
            if let Some(user) = &place.owner {
                chown(&place.path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                    .with_context(|| format!("cannot give {} to {}", place.path.display(), user.name))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_means_another_cloud_is_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { path: folder.path().join("haar/credentials.toml"), owner: None };
        let cloud = "3f2b8c14-5d0e-4a57-9a43-6f1f7a1d2b90";
        assert_eq!(save_in(&place, "default", "http://a:1", "one", cloud).unwrap(), "default");
        assert_eq!(save_in(&place, "default", "http://a:1", "two", cloud).unwrap(), "default");
        assert_eq!(save_in(&place, "default", "http://b:2", "three", cloud).unwrap(), "haar-3f2b8c14");
        let all = Credentials::load(&place.path).unwrap();
        assert_eq!(all.clouds["default"].token, "two");
        assert_eq!(all.clouds["haar-3f2b8c14"].url, "http://b:2");
    }
}
