//! An image as a raw file, for back ends whose clones share its extents.
//!
//! Made once, when the image is stored, so that every clone takes no time; the image as it came stays beside it,
//! for its hash is what it is known by. Promised: whole or not there; room is given before it is written.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode};
use serde::Deserialize;

use super::folders::{Folders, io_fault, sync_folder};
use super::images::{EXPANDED, Facts};
use super::names::check_id;
use super::qemu_img;
use super::space::Grant;

/// The largest image on a slow disk.
const LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// Makes the raw file of the image whose bytes stand in `from`; gives up when `stopping`.
pub(super) fn expand(
    folders: &Folders,
    facts: &Facts,
    from: &Path,
    stopping: &AtomicBool,
) -> Result<(), Fault> {
    let key = format!("{}.{EXPANDED}", facts.id);
    let (hidden, path) = (folders.images().join(format!(".{key}")), folders.image(&facts.id, EXPANDED));
    let mut grant = Grant::new(folders, &key);
    grant.raise_to(data_bytes(from, &facts.format)?)?;
    let _ = fs::remove_file(&hidden);
    let words = ["convert", "-q", "-f", &facts.format, "-O", "raw"].map(AsRef::as_ref);
    let words = [&words[..], &[from.as_os_str(), hidden.as_os_str()]].concat();
    let made = qemu_img::run_while(&words, Stdio::null(), LIMIT, || !stopping.load(Ordering::Relaxed))
        .and_then(|_| {
            let keep = || {
                fs::set_permissions(&hidden, Permissions::from_mode(0o444))?;
                File::open(&hidden)?.sync_all()?;
                fs::rename(&hidden, &path)?;
                sync_folder(&folders.images())
            };
            keep().map_err(|error| io_fault("keep", &path, &error))
        });
    if made.is_err() {
        let _ = fs::remove_file(&hidden);
    }
    made
}

/// Removes raw files whose image is not there: a kill came between the two.
pub(super) fn remove_strays(folders: &Folders) -> Result<(), Fault> {
    for name in super::found::names_in(&folders.images())? {
        let Some(id) = name.strip_suffix(EXPANDED).and_then(|name| name.strip_suffix('.')) else { continue };
        if check_id("image", id).is_ok() && super::images::find(folders, id)?.is_none() {
            let path = folders.images().join(&name);
            tracing::info!(path = %path.display(), "removed the raw file of an image that is not there");
            fs::remove_file(&path).map_err(|error| io_fault("remove", &path, &error))?;
        }
    }
    Ok(())
}

/// Bytes of the image that are not known to be zero.
fn data_bytes(image: &Path, format: &str) -> Result<u64, Fault> {
    #[derive(Deserialize)]
    struct Extent {
        length: u64,
        zero: bool,
    }
    let words = ["map", "--output=json", "-f", format].map(AsRef::as_ref);
    let words = [&words[..], &[image.as_os_str()]].concat();
    let text = qemu_img::run(&words, Stdio::null(), qemu_img::LIMIT)?;
    let extents: Vec<Extent> = serde_json::from_slice(&text).map_err(|error| {
        Fault::new(FaultCode::Failed, format!("qemu-img map answered what cannot be read: {error}"))
    })?;
    Ok(extents.iter().filter(|extent| !extent.zero).map(|extent| extent.length).sum())
}
