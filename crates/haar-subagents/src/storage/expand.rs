//! An image as a raw file, or a device, for back ends whose clones share its extents.
//!
//! Made once, when the image is stored, so that every clone takes no time; the image as it came stays beside it,
//! for its hash is what it is known by. Promised: whole or not there; room is given before it is written.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use haar_api::image_check;
use haar_api::rpc::{Fault, FaultCode};

use super::backend::RawSize;
use super::folders::{Folders, io_fault};
use super::images::Facts;
use super::names::check_id;
use super::qemu_img;
use super::space::{Grant, MIB, held_bytes, mib_rounded_up};

/// Makes the raw file of the image whose bytes stand in `from`, where the back end of new disks needs one; gives
/// up when `check` refuses to go on.
pub(super) fn expand(
    folders: &Folders,
    facts: &Facts,
    from: &Path,
    check: &dyn Fn() -> Result<(), Fault>,
) -> Result<(), Fault> {
    let Some(path) = facts.raw_base(folders) else { return Ok(()) };
    let data_bytes = data_bytes(from, &facts.format)?;
    let mut grant = Grant::new(folders, &format!("{}.raw", facts.id));
    grant.raise_to(data_bytes)?;
    let grant = RefCell::new(grant);
    let size = RawSize { size_bytes: mib_rounded_up(facts.virtual_bytes) * MIB, data_bytes };
    folders.backends().of_new().make_raw_base(&path, size, &|to| {
        let is_device = fs::metadata(to).is_ok_and(|to| to.file_type().is_block_device());
        let is_wanted = || {
            // What is on the disk by now is no longer free: it must not count twice for as long as this takes. Of a
            // device all of it is held back.
            let written = fs::metadata(to).map(|to| if is_device { data_bytes } else { held_bytes(&to) });
            if let Ok(written) = written {
                grant.borrow_mut().wrote(written);
            }
            check().is_ok()
        };
        // A new device stands there already, with nothing but zeros.
        let into: &[&str] = if is_device { &["-n", "--target-is-zero"] } else { &[] };
        let words = [&["convert", "-q"], into, &["-f", &facts.format, "-O", "raw"]].concat();
        let mut words: Vec<&OsStr> = words.into_iter().map(AsRef::as_ref).collect();
        words.extend([from.as_os_str(), to.as_os_str()]);
        let converted =
            qemu_img::run_while(&words, folders.conversions()?.into(), qemu_img::LONG_LIMIT, is_wanted);
        converted.map_err(|fault| check().err().unwrap_or(fault))?;
        if is_device {
            return Ok(());
        }
        let mode = fs::set_permissions(to, Permissions::from_mode(0o444));
        mode.map_err(|error| io_fault("keep", to, &error))
    })
}

/// Removes raw files whose image is not there: a kill came between the two.
pub(super) fn remove_strays(folders: &Folders) -> Result<(), Fault> {
    for volumes in folders.backends().all() {
        for (id, path) in volumes.raw_bases(&folders.images())? {
            if check_id("image", &id).is_err() || super::images::find(folders, &id)?.is_some() {
                continue;
            }
            match volumes.forget_raw_base(&path) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "removed the raw file of an image that is not there");
                }
                // A disk may be a clone of it. The others go.
                Err(fault) => {
                    tracing::warn!(path = %path.display(), %fault, "the raw file of an absent image stays");
                }
            }
        }
    }
    Ok(())
}

/// Bytes that the image has when it is written out, at most. Counted by ourselves: a small file can name so many
/// extents that a list of them fills the memory.
fn data_bytes(image: &Path, format: &str) -> Result<u64, Fault> {
    let file = File::open(image).map_err(|error| io_fault("open", image, &error))?;
    if format == "raw" {
        return file.metadata().map(|file| file.len()).map_err(|error| io_fault("look at", image, &error));
    }
    image_check::qcow2_data_bytes(&file).map_err(|flaw| Fault::new(FaultCode::BadImage, flaw.to_string()))
}
