//! A guest's disks: made once, kept, and removed only for whom they belong to (design §11.1).
//!
//! | stands | asked | answer |
//! | --- | --- | --- |
//! | nothing | create | made, unless `provisioned`: then `lost` |
//! | same life | create | kept as they are; a missing one is made, unless `provisioned`: then `lost` |
//! | same life, one damaged | create | kept and `failed`, if `provisioned` `lost` |
//! | another life | create | `conflict` |
//! | same life, or `any_life` | delete | removed |
//! | another life | delete | kept and `conflict` |
//! | nothing | delete | fine |
//!
//! The caller has the guest's turn (one call at a time) and the books (one promise at a time).

use std::fs;
use std::path::{Path, PathBuf};

use haar_api::rpc::{Disk, DiskExtra, Fault, FaultCode, Guest};
use uuid::Uuid;

use super::backend::{Base, Spot};
use super::folders::{Folders, io_fault, make_passable, sync_folder, write_json};
use super::found::{self, Damage, Found};
use super::images;
use super::names::{MAX_DISKS, check_id, device_name};
use super::owner::{self, Owner, Standing};
use super::space::{self, MIB};

/// The largest disk: 64 TiB.
pub(super) const MOST_BYTES: u64 = 64 << 40;

/// A disk to be made: its full size and what it is cloned from.
#[derive(Debug)]
struct Plan {
    size_bytes: u64,
    base: Option<Base>,
}

/// Checks what is asked for, copies sizes from images, and checks the room for what does not exist yet.
pub(super) fn verify(folders: &Folders, guest: &mut Guest) -> Result<(), Fault> {
    let plans = plan(folders, guest)?;
    check_room(folders, &guest.id, &plans)
}

/// Makes it so that the guest has its disks.
pub(super) fn create(folders: &Folders, cloud: &str, guest: &mut Guest) -> Result<(), Fault> {
    check_id("guest", &guest.id)?;
    let asked = Owner::of(guest, cloud)?;
    clear_empty(folders, cloud, &guest.id)?;
    match owner::look(folders, &guest.id)? {
        Standing::Absent if asked.provisioned => return Err(lost(&guest.id, 0)),
        Standing::Absent => {
            let plans = plan(folders, guest)?;
            check_room(folders, &guest.id, &plans)?;
            make_all(folders, &asked, &plans)?;
        }
        Standing::Owned(standing) => {
            standing.check_same_life(&asked)?;
            complete(folders, &standing, &asked, guest)?;
        }
        Standing::Unclear(why) => return Err(owner::unclear(&guest.id, &why)),
    }
    describe(folders, &asked.life, guest)
}

/// Makes it so that the guest has no disks, if they are this life's or any life's may go.
pub(super) fn delete(folders: &Folders, cloud: &str, guest: &mut Guest, any_life: bool) -> Result<(), Fault> {
    check_id("guest", &guest.id)?;
    let asked = Owner::of(guest, cloud)?;
    remove_left(folders, &guest.id)?;
    match owner::look(folders, &guest.id)? {
        Standing::Absent => {}
        Standing::Owned(standing) => {
            standing.check_same_cloud(cloud)?;
            if !any_life {
                standing.check_same_life(&asked)?;
            }
            remove_all(folders, &guest.id)?;
        }
        // Named by its id for deletion, it must not stay for ever because its record was damaged.
        Standing::Unclear(_) if any_life && folders.guest(&guest.id).is_dir() => {
            remove_all(folders, &guest.id)?;
        }
        Standing::Unclear(why) => return Err(owner::unclear(&guest.id, &why)),
    }
    guest.disks.clear();
    Ok(())
}

/// Removes a guest's folder: first its name in one step, then what is inside. Refused while a disk is in use. What
/// cannot be removed then is tried again by every deletion, and by the next start.
pub(super) fn remove_all(folders: &Folders, guest: &str) -> Result<(), Fault> {
    let folder = folders.guest(guest);
    if !folder.is_symlink() {
        found::list_guest(folders, guest)?.iter().try_for_each(|found| check_removable(folders, found))?;
    }
    let gone = folders.disks().join(format!(".gone-{}", Uuid::new_v4()));
    let failed = |error| io_fault("remove", &folder, &error);
    fs::rename(&folder, &gone).map_err(failed)?;
    sync_folder(&folders.disks()).map_err(failed)?;
    remove_gone(folders, gone, guest)
}

/// Tries again what is left of guests that were deleted. A fault is one of this guest's.
pub(super) fn remove_left(folders: &Folders, guest: &str) -> Result<(), Fault> {
    let left = std::mem::take(&mut *folders.left());
    let mut outcome = Ok(());
    for (gone, of) in left {
        match remove_gone(folders, gone, &of) {
            Err(fault) if of == guest => outcome = Err(fault),
            Err(fault) => tracing::warn!(guest = of, %fault, "the disks of a deleted guest are still there"),
            Ok(()) => {}
        }
    }
    outcome
}

fn remove_gone(folders: &Folders, gone: PathBuf, guest: &str) -> Result<(), Fault> {
    let removed = folders.backends().discard(&gone).and_then(|()| {
        // A symlink put there goes as a link; what it points at is not followed.
        let removed = if gone.is_symlink() { fs::remove_file(&gone) } else { fs::remove_dir_all(&gone) };
        removed.map_err(|error| io_fault("remove", &gone, &error))
    });
    if removed.is_err() {
        folders.left().insert(gone, guest.to_owned());
    }
    removed
}

/// Refuses to remove a disk that QEMU holds, or of which a snapshot is being downloaded. No conflict: it is this
/// guest's disk, and it passes.
pub(super) fn check_removable(folders: &Folders, found: &Found) -> Result<(), Fault> {
    let busy = |text: String| Err(Fault::new(FaultCode::Unavailable, text));
    // Whether a disk that cannot be read is held cannot be asked, and must not keep it for ever.
    if found.damage.is_none() && found.volumes.is_held(&found.spot).unwrap_or(false) {
        let text = format!(
            "cannot delete {}: QEMU holds it; shut the guest off and ask again",
            found.path.display()
        );
        return busy(text);
    }
    if folders.readers().is_read(&found.volume()) {
        let text =
            format!("a snapshot of {} is being downloaded; ask again when that has ended", found.volume());
        return busy(text);
    }
    Ok(())
}

/// Removes a folder of no placement's that has no disks: all that is left of a volume that was deleted or not made.
fn clear_empty(folders: &Folders, cloud: &str, guest: &str) -> Result<(), Fault> {
    match owner::look(folders, guest)? {
        Standing::Owned(standing)
            if standing.life.is_empty()
                && !standing.provisioned
                && standing.cloud == cloud
                && found::list_guest(folders, guest)?.is_empty() =>
        {
            remove_all(folders, guest)
        }
        _ => Ok(()),
    }
}

/// What a disk of this size, cloned from this image, is made of.
pub(super) fn plan_clone(folders: &Folders, image: &str, size_mib: u64) -> Result<(u64, Base), Fault> {
    let facts = images::require(folders, image)?;
    let least_mib = space::mib_rounded_up(facts.virtual_bytes);
    if size_mib != 0 && size_mib < least_mib {
        let text =
            format!("a disk of {size_mib} MiB is smaller than image {image}; it needs at least {least_mib}");
        return Err(Fault::new(FaultCode::Invalid, text));
    }
    let size_mib = if size_mib == 0 { least_mib } else { size_mib };
    Ok((size_bytes(size_mib)?, facts.base(folders)?))
}

fn least_mib(folders: &Folders, image: &str) -> Result<u64, Fault> {
    Ok(space::mib_rounded_up(images::require(folders, image)?.virtual_bytes))
}

/// Makes one disk in its guest's folder.
pub(super) fn make_one(
    folders: &Folders,
    guest: &str,
    index: usize,
    size_bytes: u64,
    base: Option<&Base>,
) -> Result<(), Fault> {
    folders.backends().of_new().make(&folders.spot(guest, index), size_bytes, base)
}

/// Makes an owned folder with these disks, whole or not at all.
pub(super) fn make_folder(
    folders: &Folders,
    owner: &Owner,
    fill: impl FnOnce(&Path) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let hidden = folders.disks().join(format!(".new-{}", Uuid::new_v4()));
    let made = fill_and_rename(folders, owner, &hidden, fill);
    if made.is_err() {
        match folders.backends().discard(&hidden) {
            Ok(()) => drop(fs::remove_dir_all(&hidden)),
            Err(fault) => tracing::warn!(%fault, "half of a guest's disks stay until the next start"),
        }
    }
    made
}

fn fill_and_rename(
    folders: &Folders,
    owner: &Owner,
    hidden: &Path,
    fill: impl FnOnce(&Path) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let folder = folders.guest(&owner.guest);
    let failed = |error| io_fault("make", &folder, &error);
    make_passable(hidden).map_err(failed)?;
    fill(hidden)?;
    write_json(&hidden.join("owner.json"), owner).map_err(failed)?;
    fs::rename(hidden, &folder).map_err(failed)?;
    sync_folder(&folders.disks()).map_err(failed)
}

fn make_all(folders: &Folders, owner: &Owner, plans: &[Plan]) -> Result<(), Fault> {
    make_folder(folders, owner, |hidden| {
        for (index, plan) in plans.iter().enumerate() {
            let spot = Spot { folder: hidden.to_owned(), ..folders.spot(&owner.guest, index) };
            folders.backends().of_new().make(&spot, plan.size_bytes, plan.base.as_ref())?;
        }
        Ok(())
    })
}

/// The folder is ours: keep what is there, make what is missing unless it once held data.
fn complete(folders: &Folders, standing: &Owner, asked: &Owner, guest: &mut Guest) -> Result<(), Fault> {
    check_count(guest)?;
    let provisioned = standing.provisioned || asked.provisioned;
    let missing = missing(folders, guest, provisioned)?;
    if let Some(&first) = missing.first() {
        if provisioned {
            return Err(lost(&guest.id, first));
        }
        let plans = plan(folders, guest)?;
        check_room(folders, &guest.id, &plans)?;
        for index in missing {
            let plan = &plans[index];
            make_one(folders, &guest.id, index, plan.size_bytes, plan.base.as_ref())?;
        }
    }
    let owner = Owner { provisioned, ..asked.clone() };
    if owner != *standing {
        let path = folders.guest(&guest.id).join("owner.json");
        write_json(&path, &owner).map_err(|error| io_fault("write", &path, &error))?;
    }
    Ok(())
}

/// The disks that are not there; a damaged one is there and refused.
fn missing(folders: &Folders, guest: &Guest, provisioned: bool) -> Result<Vec<usize>, Fault> {
    let mut missing = Vec::new();
    for index in 0..guest.disks.len() {
        match found::find(folders, &guest.id, index)? {
            Some(found) => found.check_sound(provisioned)?,
            None => missing.push(index),
        }
    }
    Ok(missing)
}

fn check_count(guest: &Guest) -> Result<(), Fault> {
    if (1..=MAX_DISKS).contains(&guest.disks.len()) {
        return Ok(());
    }
    let text = format!("a guest has 1 to {MAX_DISKS} disks, {} were asked for", guest.disks.len());
    Err(Fault::new(FaultCode::Invalid, text))
}

/// Settles every disk's size, in the guest too.
fn plan(folders: &Folders, guest: &mut Guest) -> Result<Vec<Plan>, Fault> {
    check_id("guest", &guest.id)?;
    check_count(guest)?;
    // The seed gives a disk its image's size, whatever was asked for; of others a wrong size is told.
    let grows = guest.haar.is_none();
    let mut plans = Vec::new();
    for (index, disk) in guest.disks.iter_mut().enumerate() {
        let of_disk = |fault: Fault| Fault::new(fault.code, format!("disk {index}: {}", fault.message));
        if grows && !disk.image.is_empty() {
            disk.size = disk.size.max(least_mib(folders, &disk.image).map_err(of_disk)?);
        }
        let plan = plan_one(folders, disk).map_err(of_disk)?;
        disk.size = plan.size_bytes / MIB;
        plans.push(plan);
    }
    Ok(plans)
}

fn plan_one(folders: &Folders, disk: &Disk) -> Result<Plan, Fault> {
    if !disk.image.is_empty() {
        let (size_bytes, base) = plan_clone(folders, &disk.image, disk.size)?;
        return Ok(Plan { size_bytes, base: Some(base) });
    }
    if disk.size == 0 {
        return Err(Fault::new(FaultCode::Invalid, "a disk needs an image or a size in MiB"));
    }
    Ok(Plan { size_bytes: size_bytes(disk.size)?, base: None })
}

/// MiB as bytes, up to the 64 TiB a disk may have.
pub(super) fn size_bytes(size_mib: u64) -> Result<u64, Fault> {
    const MOST_MIB: u64 = MOST_BYTES / MIB;
    if size_mib > MOST_MIB {
        let text = format!("a disk of {size_mib} MiB is over the limit of {MOST_MIB} MiB");
        return Err(Fault::new(FaultCode::Invalid, text));
    }
    Ok(size_mib * MIB)
}

fn check_room(folders: &Folders, guest: &str, plans: &[Plan]) -> Result<(), Fault> {
    let mut wanted = 0_u64;
    for (index, plan) in plans.iter().enumerate() {
        if found::find(folders, guest, index)?.is_none() {
            wanted = wanted.saturating_add(plan.size_bytes);
        }
    }
    if wanted == 0 { Ok(()) } else { space::check_promise(folders, wanted) }
}

/// Writes into the guest what its disks now are.
fn describe(folders: &Folders, life: &str, guest: &mut Guest) -> Result<(), Fault> {
    for (index, disk) in guest.disks.iter_mut().enumerate() {
        let found = found::find(folders, &guest.id, index)?.ok_or_else(|| lost(&guest.id, index))?;
        check_base(&found)?;
        if disk.bus.is_empty() {
            "virtio".clone_into(&mut disk.bus);
        }
        disk.device = device_name(index);
        disk.size = space::mib_rounded_up(found.looks.size_bytes);
        disk.volume = found.volume();
        disk.source = found.path.to_string_lossy().into_owned();
        disk.haar = Some(extra(&found, life));
    }
    Ok(())
}

/// A disk as Haar describes it.
pub(super) fn extra(found: &Found, life: &str) -> DiskExtra {
    DiskExtra {
        format: found.volumes.format().to_owned(),
        size_bytes: found.looks.size_bytes,
        used_bytes: found.looks.used_bytes,
        life: life.to_owned(),
        // What may be whole is not told as lost.
        damage: match &found.damage {
            Some(Damage::Broken(words)) => words.clone(),
            Some(Damage::Unreachable(_)) | None => String::new(),
        },
    }
}

fn check_base(found: &Found) -> Result<(), Fault> {
    match &found.looks.base {
        Some(base) if found.volumes.leans_on_base() && !Path::new(base).exists() => {
            let text =
                format!("{} is there but its base image {base} is gone; request that image", found.volume());
            Err(Fault::new(FaultCode::NotFound, text))
        }
        _ => Ok(()),
    }
}

fn lost(guest: &str, index: usize) -> Fault {
    let text = format!(
        "disk {index} of guest {guest} once held data and is gone; restore it, or recreate the guest to begin anew"
    );
    Fault::new(FaultCode::Lost, text)
}
