//! Lists of files to copy to a server: `~/.s3cfg,~/a:/etc/a`.
//!
//! Items are parted by commas. One with exactly one colon is `LOCAL:REMOTE`; any other text, also one with
//! more colons, is both. A leading `~/` is the home on its own side. Nothing is trimmed and nothing can be
//! escaped; a missing local file is skipped by who copies. That is the seed's way; kept from it too is that
//! after `~/` on the remote side every further `~` and `/` is dropped. Refused is what would write over a
//! folder, over a home, to a place nobody meant, or one file over another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A place on one side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Beneath the home of whoever is meant there.
    Home(String),
    /// As it is; what is not absolute begins where a login begins.
    Path(String),
}

impl Place {
    /// The path, once the home is known.
    #[must_use]
    pub fn resolve(&self, home: &Path) -> PathBuf {
        match self {
            Self::Home(rest) => home.join(rest),
            Self::Path(path) => PathBuf::from(path),
        }
    }
}

/// One file to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it is here.
    pub local: Place,
    /// Where it goes.
    pub remote: Place,
}

/// A list of files to copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyList {
    text: String,
    items: Vec<Item>,
}

impl CopyList {
    /// Reads a list. No text is no file, and so is an empty item, as after a last comma.
    ///
    /// # Errors
    /// [`Error::BadInput`] names the item.
    pub fn parse(text: &str) -> Result<Self> {
        let mut items = Vec::new();
        let mut targets = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let item = parse_item(part).map_err(|why| bad(part, why))?;
            match targets.insert(item.remote.clone(), part) {
                None => items.push(item),
                // The same once more is nothing more.
                Some(first) if first == part => {}
                Some(first) => return Err(bad(part, format!("`{first}` goes to the same place"))),
            }
        }
        Ok(Self { text: text.to_owned(), items })
    }

    /// The files, in the order of the list.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Those that are not on this machine, which who copies leaves out.
    #[must_use]
    pub fn missing(&self, home: &Path) -> Vec<PathBuf> {
        let local = self.items.iter().map(|item| item.local.resolve(home));
        // Who may not look is told so by the copying.
        local.filter(|path| matches!(path.try_exists(), Ok(false))).collect()
    }

    /// The list as it was given: two servers match when these are equal.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn bad(part: &str, why: impl Into<String>) -> Error {
    Error::BadInput { what: "the file to copy", value: part.to_owned(), why: why.into() }
}

fn parse_item(part: &str) -> std::result::Result<Item, String> {
    let (local, remote) = match part.split_once(':') {
        Some((local, remote)) if !remote.contains(':') => (local, remote),
        _ => (part, part),
    };
    if part.contains('\0') {
        return Err("no path has a zero byte in it".to_owned());
    }
    if local.is_empty() || remote.is_empty() {
        return Err("a side of the colon is empty: write LOCAL:REMOTE, or one path for both".to_owned());
    }
    let local = match local.strip_prefix("~/") {
        Some(rest) => Place::Home(rest.trim_start_matches('/').to_owned()),
        None => Place::Path(local.to_owned()),
    };
    Ok(Item { local, remote: remote_place(remote)? })
}

fn remote_place(remote: &str) -> std::result::Result<Place, String> {
    let last = remote.rsplit('/').next().unwrap_or_default();
    if matches!(last, "" | "." | "..") || remote == "~" {
        return Err("the server's side is a folder: name the file in it".to_owned());
    }
    match remote.strip_prefix("~/") {
        Some(rest) => match rest.trim_start_matches(['~', '/']) {
            "" => Err("the server's side is the home itself: name the file in it".to_owned()),
            rest if rest.split('/').any(|step| step == "..") => {
                Err("the server's side leads out of the home: give the whole path".to_owned())
            }
            rest => Ok(Place::Home(rest.to_owned())),
        },
        None if remote.starts_with('~') => {
            Err("only `~/`, the home of who logs in, is known: give the whole path".to_owned())
        }
        None => Ok(Place::Path(remote.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Item {
        let list = CopyList::parse(text).unwrap();
        assert_eq!(list.items().len(), 1, "{text}");
        list.items()[0].clone()
    }

    fn path(text: &str) -> Place {
        Place::Path(text.to_owned())
    }

    fn home(text: &str) -> Place {
        Place::Home(text.to_owned())
    }

    #[test]
    fn two_colons_are_no_sign_of_two_sides() {
        assert_eq!(only("a:b:c"), Item { local: path("a:b:c"), remote: path("a:b:c") });
    }

    #[test]
    fn nothing_is_trimmed_or_quoted() {
        assert_eq!(only(" it's a.txt:/b c"), Item { local: path(" it's a.txt"), remote: path("/b c") });
    }

    #[test]
    fn signs_of_home_that_are_too_many_are_dropped_as_they_always_were() {
        assert_eq!(only("~//a"), Item { local: home("a"), remote: home("a") });
        assert_eq!(only("x:~/~/a").remote, home("a"));
    }

    #[test]
    fn empty_items_and_repeated_ones_are_nothing_more() {
        assert!(CopyList::parse("").unwrap().items().is_empty());
        assert_eq!(CopyList::parse("a,,b,a,").unwrap().items().len(), 2);
        assert_eq!(CopyList::parse("a,,a,").unwrap().as_str(), "a,,a,");
    }

    #[test]
    fn what_is_missing_here_can_be_told() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("there"), "").unwrap();
        let list = CopyList::parse("~/there,~/none:/etc/x").unwrap();
        assert_eq!(list.missing(home.path()), [home.path().join("none")]);
    }

    #[test]
    fn what_would_write_over_a_folder_or_a_home_is_refused() {
        let texts =
            ["~/", "x:~", "x:~/", "x:~/~", "x:/etc/", "x:.", "x:/a/..", "x:~/../y/z", "x:~bob/y", "~bob/y"];
        for text in texts {
            let error = CopyList::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn a_side_that_is_empty_is_refused() {
        for text in ["a:", ":a", ":"] {
            assert!(CopyList::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_files_for_one_place_are_refused() {
        let error = CopyList::parse("a:~/x,b:~/x").unwrap_err().to_string();
        assert!(error.contains("`b:~/x`") && error.contains("`a:~/x`"), "{error}");
    }
}
