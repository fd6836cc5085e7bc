//! The seed's volume methods: disks by the back end's name, for tools and strangers.
//!
//! They see every disk and change only what no placement owns (life is empty): a guest's disks go the way of
//! `DeleteGuestsDisks`.

use haar_api::rpc::{Fault, FaultCode, ImageRequest, Volume, VolumeRequest};

use super::backend::{Base, Spot};
use super::folders::Folders;
use super::found::{self, Damage, Found};
use super::names::{self, Dataset};
use super::owner::{self, Owner, Standing};
use super::{disks, pending, space};

/// Every disk, or those of the guest or the one disk named.
pub(super) fn list(folders: &Folders, request: &VolumeRequest) -> Result<Vec<Volume>, Fault> {
    let found = match request.id.as_str() {
        "" => found::list(folders)?,
        name => match names::parse_dataset(name)? {
            Dataset::Guest(guest) => found::list_guest(folders, &guest)?,
            Dataset::Disk(guest, index) => found::find(folders, &guest, index)?.into_iter().collect(),
        },
    };
    found.iter().map(|disk| to_wire(folders, disk)).collect()
}

/// The disk named.
pub(super) fn get(folders: &Folders, request: &VolumeRequest) -> Result<Volume, Fault> {
    let (guest, index) = parse_disk(&request.id)?;
    let found = found::find(folders, &guest, index)?.ok_or_else(|| not_found(&request.id))?;
    to_wire(folders, &found)
}

/// Makes an empty disk; one of the same size is kept.
pub(super) fn create(folders: &Folders, cloud: &str, request: &VolumeRequest) -> Result<Volume, Fault> {
    let (guest, index) = parse_disk(&request.id)?;
    if request.size == 0 {
        return Err(Fault::new(FaultCode::Invalid, "a volume needs a size in MiB"));
    }
    make(folders, cloud, &guest, index, disks::size_bytes(request.size)?, None)
}

/// Clones an image into the disk named by `dest`; a clone of that image is kept.
pub(super) fn clone_image(folders: &Folders, cloud: &str, request: &ImageRequest) -> Result<Volume, Fault> {
    let (guest, index) = parse_disk(&request.dest)?;
    let (size_bytes, base) = disks::plan_clone(folders, &request.id, 0)?;
    make(folders, cloud, &guest, index, size_bytes, Some(&base))
}

/// Grows a disk of a guest that is shut off; one that has the size is kept. The one change that a placement's
/// disk takes from here: its size is asked for by its name.
pub(super) fn resize(folders: &Folders, cloud: &str, request: &VolumeRequest) -> Result<Volume, Fault> {
    let (guest, index) = parse_disk(&request.id)?;
    let invalid = |text: String| Err(Fault::new(FaultCode::Invalid, text));
    if request.size == 0 {
        return invalid("a volume needs a size in MiB".to_owned());
    }
    let size_bytes = disks::size_bytes(request.size)?;
    match owner::look(folders, &guest)? {
        Standing::Absent => return Err(not_found(&request.id)),
        Standing::Owned(standing) => standing.check_same_cloud(cloud)?,
        Standing::Unclear(why) => return Err(owner::unclear(&guest, &why)),
    }
    pending::settle(folders, &guest)?;
    let found = found::find(folders, &guest, index)?.ok_or_else(|| not_found(&request.id))?;
    found.check_sound(false)?;
    let present_bytes = found.looks.size_bytes;
    if size_bytes < present_bytes {
        return invalid(format!(
            "{} has {present_bytes} bytes and cannot shrink to {size_bytes}: what its guest wrote beyond would be lost",
            request.id
        ));
    }
    if size_bytes > present_bytes {
        let _room = space::keep(folders, &request.id, size_bytes - present_bytes)?;
        found.volumes.grow(&found.spot, size_bytes)?;
    }
    get(folders, request)
}

/// Removes a disk, or all disks under a guest's name; absent is fine.
pub(super) fn delete(folders: &Folders, cloud: &str, request: &VolumeRequest) -> Result<(), Fault> {
    let dataset = names::parse_dataset(&request.id)?;
    let (Dataset::Guest(guest) | Dataset::Disk(guest, _)) = &dataset;
    disks::remove_left(folders, guest)?;
    match owner::look(folders, guest)? {
        Standing::Absent => return Ok(()),
        Standing::Owned(standing) => check_free(&standing, cloud)?,
        Standing::Unclear(why) => return Err(owner::unclear(guest, &why)),
    }
    let Dataset::Disk(guest, index) = dataset else { return disks::remove_all(folders, guest) };
    let Some(found) = found::find(folders, &guest, index)? else { return Ok(()) };
    disks::check_removable(folders, &found)?;
    found.volumes.remove(&found.spot)?;
    if found::list_guest(folders, &guest)?.is_empty() {
        return disks::remove_all(folders, &guest);
    }
    Ok(())
}

fn make(
    folders: &Folders,
    cloud: &str,
    guest: &str,
    index: usize,
    size_bytes: u64,
    base: Option<&Base>,
) -> Result<Volume, Fault> {
    let standing = owner::look(folders, guest)?;
    match &standing {
        Standing::Absent => {}
        Standing::Owned(standing) => check_free(standing, cloud)?,
        Standing::Unclear(why) => return Err(owner::unclear(guest, why)),
    }
    match found::find(folders, guest, index)? {
        Some(found) => check_same(&found, size_bytes, base)?,
        None => {
            space::check_promise(folders, size_bytes)?;
            let spot = folders.spot(guest, index);
            let make = |spot: &Spot| folders.backends().of_new().make(spot, size_bytes, base);
            if standing == Standing::Absent {
                disks::make_folder(folders, &nobody(guest, cloud), |hidden| {
                    make(&Spot { folder: hidden.to_owned(), ..spot })
                })?;
            } else {
                make(&spot)?;
            }
        }
    }
    let found = found::find(folders, guest, index)?;
    to_wire(folders, &found.ok_or_else(|| not_found(&names::volume_name(guest, index)))?)
}

/// The owner of what a volume call makes.
fn nobody(guest: &str, cloud: &str) -> Owner {
    Owner {
        v: 1,
        guest: guest.to_owned(),
        cloud: cloud.to_owned(),
        life: String::new(),
        order: String::new(),
        provisioned: false,
    }
}

fn check_free(standing: &Owner, cloud: &str) -> Result<(), Fault> {
    standing.check_same_cloud(cloud)?;
    if standing.life.is_empty() {
        return Ok(());
    }
    let text = format!(
        "the disks of guest {} belong to its placement {}; change them through the guest",
        standing.guest, standing.life
    );
    Err(Fault::new(FaultCode::Conflict, text))
}

fn check_same(found: &Found, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault> {
    if let Some(Damage::Broken(words)) = &found.damage {
        return Err(Fault::new(FaultCode::Conflict, format!("{words}; delete it first")));
    }
    found.check_sound(false)?;
    let wanted_base = base.and_then(|base| base.path.file_name());
    if found.looks.size_bytes == size_bytes && found.base_name() == wanted_base {
        return Ok(());
    }
    let text = format!("{} exists with another size or base image; delete it first", found.volume());
    Err(Fault::new(FaultCode::Conflict, text))
}

fn parse_disk(name: &str) -> Result<(String, usize), Fault> {
    match names::parse_dataset(name)? {
        Dataset::Disk(guest, index) => Ok((guest, index)),
        Dataset::Guest(_) => {
            let text = format!("{name:?} names a guest's disks; one disk is guests/<guest id>/disk-<index>");
            Err(Fault::new(FaultCode::Invalid, text))
        }
    }
}

fn to_wire(folders: &Folders, found: &Found) -> Result<Volume, Fault> {
    let life = match owner::look(folders, &found.spot.guest)? {
        Standing::Owned(owner) => owner.life,
        Standing::Absent | Standing::Unclear(_) => String::new(),
    };
    Ok(Volume {
        id: found.volume(),
        size: space::mib_rounded_up(found.looks.size_bytes),
        device: found.path.to_string_lossy().into_owned(),
        haar: Some(disks::extra(found, &life)),
    })
}

fn not_found(name: &str) -> Fault {
    Fault::new(FaultCode::NotFound, format!("there is no volume {name:?}"))
}
