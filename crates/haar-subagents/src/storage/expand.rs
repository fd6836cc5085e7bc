//! An image as a raw file, for back ends whose clones share its extents.
//!
//! Made once, when the image is stored, so that every clone takes no time; the image as it came stays beside it,
//! for its hash is what it is known by. Promised: whole or not there; room is given before it is written.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use haar_api::rpc::{Fault, FaultCode};
use serde::Deserialize;

use super::folders::{Folders, io_fault};
use super::images::Facts;
use super::names::check_id;
use super::qemu_img;
use super::space::Grant;

/// Makes the raw file of the image whose bytes stand in `from`, where the back end of new disks needs one; gives
/// up when `stopping`.
pub(super) fn expand(
    folders: &Folders,
    facts: &Facts,
    from: &Path,
    stopping: &AtomicBool,
) -> Result<(), Fault> {
    let Some(path) = facts.raw_base(folders) else { return Ok(()) };
    let mut grant = Grant::new(folders, &format!("{}.raw", facts.id));
    grant.raise_to(data_bytes(from, &facts.format)?)?;
    folders.backends().of_new().make_raw_base(&path, &|to| {
        let words = ["convert", "-q", "-f", &facts.format, "-O", "raw"].map(AsRef::as_ref);
        let words = [&words[..], &[from.as_os_str(), to.as_os_str()]].concat();
        qemu_img::run_while(&words, Stdio::null(), qemu_img::LONG_LIMIT, || {
            !stopping.load(Ordering::Relaxed)
        })?;
        let mode = fs::set_permissions(to, Permissions::from_mode(0o444));
        mode.map_err(|error| io_fault("keep", to, &error))
    })
}

/// Removes raw files whose image is not there: a kill came between the two.
pub(super) fn remove_strays(folders: &Folders) -> Result<(), Fault> {
    for volumes in folders.backends().all() {
        for (id, path) in volumes.raw_bases(&folders.images())? {
            if check_id("image", &id).is_ok() && super::images::find(folders, &id)?.is_none() {
                tracing::info!(path = %path.display(), "removed the raw file of an image that is not there");
                volumes.forget_raw_base(&path)?;
            }
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
