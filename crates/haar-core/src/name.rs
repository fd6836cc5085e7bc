//! Names: DNS labels that are no UUIDs, so that a path can take either.

use serde::{Deserialize, Serialize};

/// A DNS label: 1 to 63 of `a-z`, `0-9`, `-`, with no dash at either end, and no UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// No text.
    #[error("the name is empty; give 1 to 63 letters, digits or dashes")]
    Empty,
    /// More than 63 bytes.
    #[error("the name has {0} characters; at most 63 are allowed")]
    TooLong(usize),
    /// A character outside the set.
    #[error("the name `{name}` has the character {character:?}; only a-z, 0-9 and - are allowed")]
    Character {
        /// The text.
        name: String,
        /// The first character at fault.
        character: char,
    },
    /// A dash at an end.
    #[error("the name `{0}` begins or ends with a dash")]
    Dash(String),
    /// Looks like an id.
    #[error("the name `{0}` is a UUID; names and ids must be told apart")]
    Uuid(String),
}

impl Name {
    /// The project every record belongs to unless said otherwise.
    pub fn default_project() -> Name {
        Name("default".to_owned())
    }

    /// Checks the text.
    ///
    /// # Errors
    /// [`BadName`] says what is wrong with it.
    pub fn new(text: impl Into<String>) -> Result<Name, BadName> {
        let text = text.into();
        if text.is_empty() {
            return Err(BadName::Empty);
        }
        if text.len() > 63 {
            return Err(BadName::TooLong(text.chars().count()));
        }
        let bad = text.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'));
        if let Some(character) = bad {
            return Err(BadName::Character { name: text, character });
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(BadName::Dash(text));
        }
        if uuid::Uuid::try_parse(&text).is_ok() {
            return Err(BadName::Uuid(text));
        }
        Ok(Name(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one of these names that was probably meant: off by a typing error or two, or beginning with this one.
    /// Of very many names only the first [`MOST_COMPARED`] are looked at.
    pub fn closest<'a>(&self, names: impl Iterator<Item = &'a Name>) -> Option<&'a Name> {
        let wanted = self.0.as_bytes();
        let most = (wanted.len() / 2).min(MOST_ERRORS);
        let rank = |name: &'a Name| {
            let text = name.0.as_bytes();
            let errors =
                if text.len().abs_diff(wanted.len()) <= most { errors(wanted, text) } else { usize::MAX };
            let errors = if text.starts_with(wanted) { errors.min(MOST_ERRORS) } else { errors };
            (errors <= most || text.starts_with(wanted)).then_some((errors, name))
        };
        names.take(MOST_COMPARED).filter_map(rank).min().map(|(_, name)| name)
    }
}

/// More typing errors than these make another word.
const MOST_ERRORS: usize = 2;
/// So many names are compared for one tip.
const MOST_COMPARED: usize = 1024;

/// How many letters were left out, added, mistaken for another, or swapped with the next.
pub fn errors(one: &[u8], other: &[u8]) -> usize {
    let mut before = vec![0; other.len() + 1];
    let mut last: Vec<usize> = (0..=other.len()).collect();
    let mut this = Vec::with_capacity(other.len() + 1);
    for (row, letter) in one.iter().enumerate() {
        this.clear();
        this.push(row + 1);
        for (column, against) in other.iter().enumerate() {
            let mistaken = last[column] + usize::from(letter != against);
            let mut fewest = mistaken.min(last[column + 1] + 1).min(this[column] + 1);
            let is_swap = row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *against;
            if is_swap {
                fewest = fewest.min(before[column - 1] + 1);
            }
            this.push(fewest);
        }
        // The row before the last is room for the next.
        std::mem::swap(&mut before, &mut last);
        std::mem::swap(&mut last, &mut this);
    }
    last[other.len()]
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Name::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Name::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_and_no_uuid() {
        assert_eq!(Name::new("web-1").map(|n| n.to_string()), Ok("web-1".to_owned()));
        assert_eq!(Name::new(""), Err(BadName::Empty));
        assert_eq!(Name::new("a".repeat(64)), Err(BadName::TooLong(64)));
        assert!(matches!(Name::new("Web"), Err(BadName::Character { character: 'W', .. })));
        assert!(matches!(Name::new("a/b"), Err(BadName::Character { character: '/', .. })));
        assert!(matches!(Name::new("-a"), Err(BadName::Dash(_))));
        assert!(matches!(Name::new("6f1a2c9e0d6b4f7c8a1b2c3d4e5f6071"), Err(BadName::Uuid(_))));
    }

    #[test]
    fn the_name_that_was_probably_meant_is_found() {
        let names: Vec<Name> =
            ["db", "debian-12", "web", "web-2", "x"].map(|name| Name::new(name).unwrap()).into();
        let meant = |text: &str| Name::new(text).unwrap().closest(names.iter()).map(Name::as_str);
        for (typed, name) in
            [("wbe", "web"), ("weeb", "web"), ("debain-21", "debian-12"), ("debian", "debian-12")]
        {
            assert_eq!(meant(typed), Some(name), "{typed}");
        }
        for typed in ["mail", "y", "xyz", "database"] {
            assert_eq!(meant(typed), None, "{typed}");
        }
    }
}
