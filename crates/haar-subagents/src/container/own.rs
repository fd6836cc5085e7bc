//! What the present layer of an image has laid.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::BuildHasher as _;

/// What the present layer has laid, as hashes of a folder's inode and a name in it: the names themselves would fill the
/// memory. Two of them are the same by chance only, for nobody knows the hash's key.
#[derive(Debug, Default)]
pub(super) struct Own {
    keys: HashSet<u64>,
    hash: RandomState,
}

impl Own {
    fn key(&self, folder: u64, name: &OsStr) -> u64 {
        self.hash.hash_one((folder, name))
    }

    pub(super) fn insert(&mut self, folder: u64, name: &OsStr) {
        self.keys.insert(self.key(folder, name));
    }

    pub(super) fn contains(&self, folder: u64, name: &OsStr) -> bool {
        self.keys.contains(&self.key(folder, name))
    }

    /// Forgets what is removed, for its folder's inode may be another's later.
    pub(super) fn forget(&mut self, folder: u64, name: &OsStr) {
        self.keys.remove(&self.key(folder, name));
    }

    /// Forgets all: another layer begins.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_its_own_folder_until_it_is_forgotten() {
        let (mut own, name) = (Own::default(), OsStr::new("a"));
        own.insert(1, name);
        assert!(own.contains(1, name) && !own.contains(2, name) && !own.contains(1, OsStr::new("b")));
        own.forget(1, name);
        assert!(!own.contains(1, name));
        own.insert(2, name);
        own.clear();
        assert!(!own.contains(2, name));
    }
}
