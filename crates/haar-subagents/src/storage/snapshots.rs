//! Snapshots of a guest's disks: taken, listed, deleted, rolled back.
//!
//! | id | what it is |
//! | --- | --- |
//! | `guests/<guest>/disk-<n>@<name>` | a snapshot of one disk |
//! | `guests/<guest>@<name>` | of the whole guest: it is there when every disk has one of that name |
//!
//! Nothing is remembered beside the disks. A name that stands is a conflict, unless it is asked for again by the
//! order that took it. A rollback deletes what is newer only when told so; a snapshot that is being downloaded is
//! not deleted. The caller of what changes something has the guest's turn. What reads needs no turn and settles
//! nothing: of an act that has not ended it shows nothing.
//! Deliberately absent: stopping the writes of a guest that runs. The caller says by `quiet` that it did.

use haar_api::rpc::{Fault, FaultCode, Snapshot, SnapshotExtra, SnapshotRequest, SnapshotWant};

use super::backend::Taken;
use super::folders::Folders;
use super::found::{self, Found, names_in};
use super::in_use;
use super::names::{self, Dataset};
use super::owner::{self, Standing};
use super::pending::{self, Act, Pending};
use super::space::{self, Grant};

/// A disk and its snapshots, oldest first.
pub(super) struct Disk {
    pub(super) found: Found,
    pub(super) taken: Vec<Taken>,
}

impl Disk {
    fn find(&self, name: &str) -> Option<&Taken> {
        self.taken.iter().find(|taken| taken.name == name)
    }
}

/// Takes a snapshot of one disk, or of all disks of a guest.
pub(super) fn take(
    folders: &Folders,
    cloud: &str,
    request: &SnapshotRequest,
) -> Result<Vec<Snapshot>, Fault> {
    let (dataset, want) = parse_new(request)?;
    let disks = open(folders, cloud, &dataset)?;
    if !check_new(&disks, &request.dest, &want.order)? {
        for disk in &disks {
            check_quiet(disk, want.quiet)?;
        }
        let _room = keep_room(folders, request, &disks)?;
        run(folders, &dataset, Act::Take, &request.dest, &disks, |disk| {
            disk.found.volumes.take(&disk.found.spot, &request.dest, &want.order)
        })?;
    }
    answer(&dataset, &request.dest, &look(folders, cloud, &dataset)?, request.recursive)
}

/// Whether such a snapshot may be taken: its name is free, or this order's own, and there is room. Changes nothing.
///
/// For whoever has QEMU take it in the disks of a guest that runs: QEMU asks nobody for room.
pub(super) fn verify(
    folders: &Folders,
    cloud: &str,
    request: &SnapshotRequest,
) -> Result<Vec<Snapshot>, Fault> {
    let (dataset, want) = parse_new(request)?;
    let disks = look(folders, cloud, &dataset)?;
    if !check_new(&disks, &request.dest, &want.order)? {
        drop(keep_room(folders, request, &disks)?);
    }
    Ok(Vec::new())
}

fn parse_new(request: &SnapshotRequest) -> Result<(Dataset, SnapshotWant), Fault> {
    let (dataset, None) = names::parse_snapshot(&request.id)? else {
        let text = format!("{:?} is not a valid dataset to snapshot; the name goes into dest", request.id);
        return Err(Fault::new(FaultCode::Invalid, text));
    };
    names::check_snapshot_name(&request.dest)?;
    let want = request.haar.clone().unwrap_or_default();
    names::check_order(&want.order)?;
    Ok((dataset, want))
}

/// What a snapshot keeps, the guest may need again; kept until dropped.
fn keep_room<'a>(
    folders: &'a Folders,
    request: &SnapshotRequest,
    disks: &[Disk],
) -> Result<Grant<'a>, Fault> {
    let kept = disks.iter().map(|disk| disk.found.looks.own_bytes.min(disk.found.looks.used_bytes)).sum();
    space::keep(folders, &format!("{}@{}", request.id, request.dest), kept)
}

/// Every snapshot of a dataset and below it; of every guest when none is named.
pub(super) fn list(
    folders: &Folders,
    cloud: &str,
    request: &SnapshotRequest,
) -> Result<Vec<Snapshot>, Fault> {
    if !request.id.is_empty() {
        let (dataset, name) = names::parse_snapshot(&request.id)?;
        let disks = look(folders, cloud, &dataset)?;
        return match name {
            Some(name) => answer(&dataset, &name, &disks, true),
            None => Ok(all(&dataset, &disks)),
        };
    }
    let mut snapshots = Vec::new();
    for guest in names_in(&folders.disks())? {
        let dataset = Dataset::Guest(guest.clone());
        // A damaged disk is its own guest's concern.
        if folders.is_ours(&guest, cloud)
            && let Ok(disks) = look(folders, cloud, &dataset)
        {
            snapshots.extend(all(&dataset, &disks));
        }
    }
    Ok(snapshots)
}

/// The snapshot named.
pub(super) fn get(folders: &Folders, cloud: &str, request: &SnapshotRequest) -> Result<Vec<Snapshot>, Fault> {
    let (dataset, name) = parse(&request.id)?;
    answer(&dataset, &name, &look(folders, cloud, &dataset)?, request.recursive)
}

/// Deletes a snapshot; of a guest, from every disk that has it. Answers what was deleted.
pub(super) fn delete(
    folders: &Folders,
    cloud: &str,
    request: &SnapshotRequest,
) -> Result<Vec<Snapshot>, Fault> {
    let (dataset, name) = parse(&request.id)?;
    let mut disks = open(folders, cloud, &dataset)?;
    disks.retain(|disk| disk.find(&name).is_some());
    if disks.is_empty() {
        return Err(not_found(&request.id));
    }
    for disk in &disks {
        check_unread(folders, disk, &name)?;
        check_deletable(disk)?;
    }
    let deleted = answer(&dataset, &name, &disks, request.recursive)?;
    run(folders, &dataset, Act::Forget, &name, &disks, |disk| pending::forget(&disk.found, &name))?;
    Ok(deleted)
}

/// Rolls one disk, or all disks of a guest, back to a snapshot.
pub(super) fn roll_back(
    folders: &Folders,
    cloud: &str,
    request: &SnapshotRequest,
) -> Result<Vec<Snapshot>, Fault> {
    let (dataset, name) = parse(&request.id)?;
    let disks = open(folders, cloud, &dataset)?;
    let answer = answer(&dataset, &name, &disks, request.recursive)?;
    for disk in &disks {
        let newer = disk.taken.iter().skip_while(|taken| taken.name != name).skip(1);
        let newer: Vec<&str> = newer.map(|taken| taken.name.as_str()).collect();
        if !newer.is_empty() && !request.destroy_more_recent {
            let text = format!(
                "{} has more recent snapshots ({}); delete them, or roll back with destroyMoreRecent",
                disk.found.volume(),
                newer.join(", ")
            );
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        for newer in newer {
            check_unread(folders, disk, newer)?;
        }
        check_off(disk, "roll back")?;
        // Before anything newer is deleted for it.
        if let Some(taken) = disk.find(&name) {
            disk.found.volumes.check_roll_back(&disk.found.spot, taken)?;
        }
    }
    run(folders, &dataset, Act::RollBack, &name, &disks, |disk| pending::roll_back(&disk.found, &name))?;
    Ok(answer)
}

/// The disks of a dataset, for who changes them: what was interrupted is settled first.
fn open(folders: &Folders, cloud: &str, dataset: &Dataset) -> Result<Vec<Disk>, Fault> {
    let guest = check_ours(folders, cloud, dataset)?;
    pending::settle(folders, guest)?;
    disks_of(folders, dataset)
}

/// The same for who only reads: a snapshot that is half taken or half deleted is not among them.
pub(super) fn look(folders: &Folders, cloud: &str, dataset: &Dataset) -> Result<Vec<Disk>, Fault> {
    let guest = check_ours(folders, cloud, dataset)?;
    let mut disks = disks_of(folders, dataset)?;
    // Asked after the disks: what an act has left half done, its record still says.
    if let Some(pending) = pending::look(folders, guest)?.filter(|pending| pending.act != Act::RollBack) {
        for disk in disks.iter_mut().filter(|disk| pending.disks.contains(&disk.found.spot.index)) {
            disk.taken.retain(|taken| taken.name != pending.name);
        }
    }
    Ok(disks)
}

/// The guest of a dataset, whose disks must be this cloud's.
fn check_ours<'a>(folders: &Folders, cloud: &str, dataset: &'a Dataset) -> Result<&'a str, Fault> {
    let (Dataset::Guest(guest) | Dataset::Disk(guest, _)) = dataset;
    match owner::look(folders, guest)? {
        Standing::Absent => return Err(Fault::new(FaultCode::NotFound, format!("guests/{guest} not found"))),
        Standing::Owned(owner) => owner.check_same_cloud(cloud)?,
        Standing::Unclear(why) => return Err(owner::unclear(guest, &why)),
    }
    Ok(guest)
}

/// The disks of a dataset and their snapshots; all of them must be sound.
fn disks_of(folders: &Folders, dataset: &Dataset) -> Result<Vec<Disk>, Fault> {
    let found = match dataset {
        Dataset::Guest(guest) => found::list_guest(folders, guest)?,
        Dataset::Disk(guest, index) => found::find(folders, guest, *index)?.into_iter().collect(),
    };
    if found.is_empty() {
        let text = match dataset {
            Dataset::Guest(guest) => format!("guests/{guest} has no disks; a snapshot of it is not found"),
            Dataset::Disk(guest, index) => format!("{} not found", names::volume_name(guest, *index)),
        };
        return Err(Fault::new(FaultCode::NotFound, text));
    }
    let mut disks = Vec::new();
    for found in found {
        found.check_sound(false)?;
        let taken = found.volumes.snapshots(&found.spot)?;
        disks.push(Disk { found, taken });
    }
    Ok(disks)
}

/// Reads an id that must name a snapshot.
pub(super) fn parse(id: &str) -> Result<(Dataset, String), Fault> {
    match names::parse_snapshot(id)? {
        (dataset, Some(name)) => Ok((dataset, name)),
        (_, None) => {
            let text = format!("{id:?} is not a snapshot; a snapshot's id ends in @<name>");
            Err(Fault::new(FaultCode::Invalid, text))
        }
    }
}

/// The snapshot every one of these disks must have.
pub(super) fn find_all<'a>(id: &str, name: &str, disks: &'a [Disk]) -> Result<Vec<&'a Taken>, Fault> {
    disks.iter().map(|disk| disk.find(name).ok_or_else(|| not_found(id))).collect()
}

fn check_unread(folders: &Folders, disk: &Disk, name: &str) -> Result<(), Fault> {
    let id = format!("{}@{name}", disk.found.volume());
    if !folders.readers().is_reading(&id) {
        return Ok(());
    }
    Err(Fault::new(
        FaultCode::Conflict,
        format!("snapshot {id} is being downloaded; ask again when that has ended"),
    ))
}

/// Whether nothing is to be done because this order did it; a conflict when another one did.
fn check_new(disks: &[Disk], name: &str, order: &str) -> Result<bool, Fault> {
    let standing: Vec<_> = disks.iter().filter_map(|disk| Some((disk, disk.find(name)?))).collect();
    let Some((first, taken)) = standing.first() else { return Ok(false) };
    if !order.is_empty()
        && standing.len() == disks.len()
        && standing.iter().all(|(_, taken)| taken.order == order)
    {
        return Ok(true);
    }
    let text = format!(
        "snapshot {}@{name} exists since {} s after 1970; delete it first or use another name",
        first.found.volume(),
        taken.created_s
    );
    Err(Fault::new(FaultCode::Conflict, text))
}

/// Before anything is written: an act that fails on the second disk has begun on the first.
fn check_off(disk: &Disk, act: &str) -> Result<(), Fault> {
    in_use::refuse(disk.found.volumes.is_held(&disk.found.spot)?, &disk.found.path, act)
}

fn check_deletable(disk: &Disk) -> Result<(), Fault> {
    if disk.found.volumes.snapshots_apart() { Ok(()) } else { check_off(disk, "delete the snapshot") }
}

/// A guest that runs may be snapshotted when it was made still and the disk need not be changed for it.
fn check_quiet(disk: &Disk, quiet: bool) -> Result<(), Fault> {
    if !quiet {
        return check_off(disk, "take a snapshot");
    }
    if disk.found.volumes.snapshots_apart() || !disk.found.volumes.is_held(&disk.found.spot)? {
        return Ok(());
    }
    let text = format!(
        "QEMU holds {}; while a guest runs, only QEMU itself can take a snapshot inside a qcow2 file: shut the \
         guest off, or keep its disks on the reflink back end",
        disk.found.path.display()
    );
    Err(Fault::new(FaultCode::Conflict, text))
}

fn run(
    folders: &Folders,
    dataset: &Dataset,
    act: Act,
    name: &str,
    disks: &[Disk],
    each: impl Fn(&Disk) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let (Dataset::Guest(guest) | Dataset::Disk(guest, _)) = dataset;
    let indices = disks.iter().map(|disk| disk.found.spot.index).collect();
    let pending = Pending { v: 1, act, name: name.to_owned(), disks: indices };
    pending::run(folders, guest, &pending, || {
        disks.iter().try_for_each(|disk| {
            pending::touch(folders, guest);
            each(disk)
        })
    })
}

/// A snapshot that all the disks have, alone or with those of the single disks.
fn answer(dataset: &Dataset, name: &str, disks: &[Disk], recursive: bool) -> Result<Vec<Snapshot>, Fault> {
    let taken = find_all(&names::snapshot_id(dataset, name), name, disks)?;
    let mut snapshots = vec![to_wire(dataset, name, &taken)];
    if recursive && let Dataset::Guest(guest) = dataset {
        for (disk, taken) in disks.iter().zip(taken) {
            snapshots.push(to_wire(&Dataset::Disk(guest.clone(), disk.found.spot.index), name, &[taken]));
        }
    }
    Ok(snapshots)
}

/// Everything there is: the guest's own first, then disk by disk.
fn all(dataset: &Dataset, disks: &[Disk]) -> Vec<Snapshot> {
    let mut snapshots = Vec::new();
    if let (Dataset::Guest(_), Some(first)) = (dataset, disks.first()) {
        for taken in &first.taken {
            let of_all: Option<Vec<_>> = disks.iter().map(|disk| disk.find(&taken.name)).collect();
            snapshots.extend(of_all.map(|of_all| to_wire(dataset, &taken.name, &of_all)));
        }
    }
    for disk in disks {
        let of_disk = Dataset::Disk(disk.found.spot.guest.clone(), disk.found.spot.index);
        snapshots.extend(disk.taken.iter().map(|taken| to_wire(&of_disk, &taken.name, &[taken])));
    }
    snapshots
}

fn to_wire(dataset: &Dataset, name: &str, taken: &[&Taken]) -> Snapshot {
    let size_bytes = taken.iter().map(|taken| taken.size_bytes).sum();
    Snapshot {
        id: names::snapshot_id(dataset, name),
        size: space::mib_rounded_up(size_bytes),
        haar: Some(SnapshotExtra {
            size_bytes,
            created_s: taken.iter().map(|taken| taken.created_s).max().unwrap_or_default(),
            order: taken.first().map(|taken| taken.order.clone()).unwrap_or_default(),
        }),
    }
}

fn not_found(id: &str) -> Fault {
    Fault::new(FaultCode::NotFound, format!("snapshot {id} not found"))
}
