//! The folder of a deployment's files: one for each place, so that deployments of one name do not meet.
//!
//! Where places once shared a folder, a record of this place that is still there is used on.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Store;
use crate::name::ResourceName;
use crate::{Provider, Result};

/// How many digits tell places apart; a record says in full which it is of.
const DIGITS: usize = 8;

/// The folder beneath `base` for the deployment `name` in a cloud. `before` is the one that places once shared:
/// it is taken if the deployment's record lies there, and is of this place or of one that was not noted.
///
/// # Errors
/// [`Error::BadInput`](crate::Error::BadInput) for a provider whose name could lead out of the folder.
pub fn folder_of(
    base: &Path,
    before: &Path,
    provider: &dyn Provider,
    name: &ResourceName,
) -> Result<PathBuf> {
    let Some(place) = provider.place() else { return Ok(before.to_owned()) };
    let digest = hex::encode(Sha256::digest(&place));
    let own = base.join(format!("{}-{}", provider.kind(), &digest[..DIGITS]));
    let store = |folder: &Path| Store::new(folder, provider.kind(), name);
    if store(&own)?.path().exists() {
        return Ok(own);
    }
    Ok(match store(before)?.load() {
        Ok(None) => own,
        Ok(Some(record)) if record.place().is_some_and(|of| of != place) => own,
        // One that cannot be read is told by whoever needs it.
        Ok(Some(_)) | Err(_) => before.to_owned(),
    })
}
