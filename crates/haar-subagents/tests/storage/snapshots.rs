//! Snapshots on every back end: what is written afterwards does not reach them, and a rollback brings it back.

use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use haar_api::rpc::{self, Fault, FaultCode};
use haar_subagents::storage::Backend;

use crate::btrfs::Btrfs;
use crate::harness::*;
use crate::mounted::each;

pub(crate) fn disk(index: usize) -> String {
    format!("guests/{GUEST}/disk-{index}")
}

pub(crate) fn of(id: &str) -> rpc::SnapshotRequest {
    rpc::SnapshotRequest { id: id.to_owned(), ..Default::default() }
}

pub(crate) fn new(id: &str, dest: &str) -> rpc::SnapshotRequest {
    rpc::SnapshotRequest { dest: dest.to_owned(), recursive: true, ..of(id) }
}

pub(crate) async fn ask(
    agent: &Agent,
    method: &str,
    request: &rpc::SnapshotRequest,
) -> Result<Vec<rpc::Snapshot>, Fault> {
    let response: rpc::SnapshotResponse = agent.call(method, request).await?;
    Ok(response.snapshots)
}

fn ids(snapshots: &[rpc::Snapshot]) -> Vec<String> {
    snapshots.iter().map(|snapshot| snapshot.id.replace(&format!("guests/{GUEST}"), "G")).collect()
}

/// Writes one byte over a mebibyte of a disk, as a guest would.
pub(crate) fn write(made: &rpc::Disk, byte: u8, at_mib: u64) {
    let format = &made.haar.as_ref().unwrap().format;
    let command = format!("write -P {byte} {} 1M", at_mib * MIB);
    let output = Command::new("qemu-io").args(["-f", format, "-c", &command, &made.source]).output();
    let output = output.expect("this test needs qemu-io: install qemu-utils");
    assert!(output.status.success(), "{output:?}");
}

/// The bytes a guest would read.
pub(crate) fn content(made: &rpc::Disk) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let format = &made.haar.as_ref().unwrap().format;
    qemu_img(&["convert", "-f", format, "-O", "raw", &made.source, raw.to_str().unwrap()]);
    std::fs::read(raw).unwrap()
}

/// A guest whose QEMU holds a disk.
pub(crate) struct Held(Child);

impl Held {
    pub(crate) async fn of(made: &rpc::Disk) -> Self {
        let format = &made.haar.as_ref().unwrap().format;
        let child = Command::new("qemu-io")
            .args(["-f", format, &made.source])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (files, held) = (format!("/proc/{}/fd", child.id()), Held(child));
        let source = Path::new(&made.source).canonicalize().unwrap();
        let metadata = source.metadata().unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        // Of a device, to have it open is to hold it; a file it has open some time before.
        let is_held = || match metadata.file_type().is_block_device() {
            true => std::fs::read_dir(&files)
                .unwrap()
                .flatten()
                .any(|file| std::fs::read_link(file.path()).is_ok_and(|open| open == source)),
            false => std::fs::read_to_string("/proc/locks").unwrap().contains(&format!(":{inode} ")),
        };
        until("QEMU holds the disk", is_held).await;
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_disk_is_rolled_back_to_what_it_was() {
    for (agent, _mount) in each().await {
        agent.store_image().await;
        let made = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 8)])).await.unwrap().disks;
        write(&made[0], 7, 1);
        let before = content(&made[0]);
        let taken = ask(&agent, "CreateSnapshot", &new(&disk(0), "first")).await.unwrap();
        assert_eq!(ids(&taken), ["G/disk-0@first"]);
        let extra = taken[0].haar.clone().unwrap();
        assert_eq!((taken[0].size, extra.size_bytes), (8, 8 * MIB));
        assert!(extra.created_s > 1_500_000_000);

        write(&made[0], 9, 1);
        write(&made[0], 9, 7);
        assert_ne!(content(&made[0]), before);
        let back = of(&format!("{}@first", disk(0)));
        assert_eq!(ask(&agent, "RollbackSnapshot", &back).await.unwrap(), taken);
        assert!(content(&made[0]) == before, "the disk is not what it was");
        write(&made[0], 5, 0);
        ask(&agent, "RollbackSnapshot", &back).await.expect("and again: the snapshot stays");
        assert!(content(&made[0]) == before);
        let described = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 8)])).await.unwrap();
        assert_eq!(described.disks[0].source, made[0].source, "the path stays the same");

        assert_eq!(ask(&agent, "DeleteSnapshot", &back).await.unwrap(), taken);
        fails(ask(&agent, "RollbackSnapshot", &back).await, FaultCode::NotFound, "not found");
        assert!(content(&made[0]) == before, "a deletion changes nothing that stands");
        agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
        assert!(agent.names("disks").is_empty());
    }
}

#[tokio::test]
async fn a_guests_disks_are_snapshotted_together() {
    for (agent, _mount) in each().await {
        let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 2), ("", 3)])).await.unwrap().disks;
        let all = format!("guests/{GUEST}");
        let taken = ask(&agent, "CreateSnapshot", &new(&all, "s1")).await.unwrap();
        assert_eq!(ids(&taken), ["G@s1", "G/disk-0@s1", "G/disk-1@s1"]);
        assert_eq!(taken.iter().map(|snapshot| snapshot.size).collect::<Vec<_>>(), [5, 2, 3]);
        ask(&agent, "CreateSnapshot", &new(&disk(1), "alone")).await.unwrap();
        let listed = ask(&agent, "ListSnapshots", &of(&all)).await.unwrap();
        assert_eq!(ids(&listed), ["G@s1", "G/disk-0@s1", "G/disk-1@s1", "G/disk-1@alone"]);
        assert_eq!(ask(&agent, "ListSnapshots", &of("")).await.unwrap(), listed);
        let of_disk = ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap();
        assert_eq!(ids(&of_disk), ["G/disk-0@s1"]);
        let whole = of(&format!("{all}@s1"));
        assert_eq!(ids(&ask(&agent, "GetSnapshot", &whole).await.unwrap()), ["G@s1"]);
        let with_parts = rpc::SnapshotRequest { recursive: true, ..whole.clone() };
        assert_eq!(ask(&agent, "GetSnapshot", &with_parts).await.unwrap(), taken);

        for made in &made {
            write(made, 3, 0);
        }
        fails(
            ask(&agent, "RollbackSnapshot", &whole).await,
            FaultCode::Conflict,
            "more recent snapshots (alone)",
        );
        assert!(content(&made[0])[0] == 3, "a refusal changes nothing");
        let destroying = rpc::SnapshotRequest { destroy_more_recent: true, ..whole.clone() };
        ask(&agent, "RollbackSnapshot", &destroying).await.unwrap();
        assert!(made.iter().all(|made| content(made)[0] == 0));
        let listed = ask(&agent, "ListSnapshots", &of(&all)).await.unwrap();
        assert_eq!(ids(&listed), ["G@s1", "G/disk-0@s1", "G/disk-1@s1"]);

        let whole_gone = rpc::SnapshotRequest { recursive: true, ..whole.clone() };
        assert_eq!(ask(&agent, "DeleteSnapshot", &whole_gone).await.unwrap(), taken);
        assert!(ask(&agent, "ListSnapshots", &of(&all)).await.unwrap().is_empty());
        fails(ask(&agent, "DeleteSnapshot", &whole).await, FaultCode::NotFound, "not found");
    }
}

#[tokio::test]
async fn a_name_is_taken_once_and_by_one_order() {
    for (agent, _mount) in each().await {
        agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1), ("", 1)])).await.unwrap();
        let ordered = |order: &str| {
            let haar = Some(rpc::SnapshotWant { order: order.to_owned(), quiet: false });
            rpc::SnapshotRequest { haar, ..new(&format!("guests/{GUEST}"), "s") }
        };
        let taken = ask(&agent, "CreateSnapshot", &ordered("1.7")).await.unwrap();
        assert_eq!(taken[0].haar.as_ref().unwrap().order, "1.7");
        assert_eq!(
            ask(&agent, "CreateSnapshot", &ordered("1.7")).await.unwrap(),
            taken,
            "asking twice is once"
        );
        for other in ["1.8", ""] {
            fails(ask(&agent, "CreateSnapshot", &ordered(other)).await, FaultCode::Conflict, "exists");
        }
        fails(ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await, FaultCode::Conflict, "exists");
        fails(ask(&agent, "CreateSnapshot", &ordered("1/8")).await, FaultCode::Invalid, "epoch.revision");
        // QEMU numbers snapshots inside a file; a number is a name like any other.
        ask(&agent, "CreateSnapshot", &new(&disk(0), "1")).await.unwrap();
        ask(&agent, "DeleteSnapshot", &of(&format!("{}@1", disk(0)))).await.unwrap();
        let left = ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap();
        assert_eq!(ids(&left), ["G/disk-0@s"]);
    }
}

#[tokio::test]
async fn a_running_guest_is_not_touched() {
    for (agent, mount) in each().await {
        let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1), ("", 1)])).await.unwrap().disks;
        let all = format!("guests/{GUEST}");
        ask(&agent, "CreateSnapshot", &new(&all, "before")).await.unwrap();
        let held = Held::of(&made[1]).await;
        fails(
            ask(&agent, "CreateSnapshot", &new(&all, "s")).await,
            FaultCode::Conflict,
            "shut the guest off",
        );
        let back = of(&format!("{all}@before"));
        fails(ask(&agent, "RollbackSnapshot", &back).await, FaultCode::Conflict, "shut the guest off");
        let grown = rpc::VolumeRequest { id: disk(1), size: 2 };
        let refused: Result<rpc::VolumeResponse, _> = agent.call("ResizeVolume", &grown).await;
        fails(refused, FaultCode::Conflict, "shut the guest off");
        let listed = ask(&agent, "ListSnapshots", &of(&all)).await.unwrap();
        assert_eq!(listed.len(), 3, "nothing was begun: {listed:?}");
        let quiet = rpc::SnapshotRequest {
            haar: Some(rpc::SnapshotWant { quiet: true, ..Default::default() }),
            ..new(&all, "quiet")
        };
        let outcome = ask(&agent, "CreateSnapshot", &quiet).await;
        if mount.is_some() {
            assert_eq!(outcome.unwrap().len(), 3, "a clone needs only that nothing is written meanwhile");
        } else {
            fails(outcome, FaultCode::Conflict, "reflink");
        }
        drop(held);
        ask(&agent, "CreateSnapshot", &new(&all, "after")).await.expect("shut off it is free again");
    }
}

#[tokio::test]
async fn a_snapshot_needs_the_room_to_write_the_disk_anew() {
    for (agent, mount) in each().await {
        if mount.is_none() {
            continue;
        }
        let size = 600;
        let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", size)])).await.unwrap().disks;
        let file = std::fs::OpenOptions::new().write(true).open(&made[0].source).unwrap();
        for at in 0..size {
            file.write_all_at(&vec![5; 1 << 20], at * MIB).unwrap();
        }
        file.sync_all().unwrap();
        let refused = ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await;
        fails(refused, FaultCode::NoSpace, "left to promise");
        assert!(ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_is_written_over_what_a_snapshot_keeps_is_no_room_for_the_next() {
    let Some(btrfs) = Btrfs::mount() else { return };
    let agent = Agent::start_with(btrfs.folder(), Backend::Reflink).await;
    let size = 320;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", size)])).await.unwrap().disks;
    let file = std::fs::OpenOptions::new().write(true).open(&made[0].source).unwrap();
    for name in ["first", "second"] {
        for at in 0..size {
            file.write_all_at(&vec![5; 1 << 20], at * MIB).unwrap();
        }
        file.sync_all().unwrap();
        let outcome = ask(&agent, "CreateSnapshot", &new(&disk(0), name)).await;
        if name == "first" {
            outcome.expect("there is room for twice the disk");
        } else {
            fails(outcome, FaultCode::NoSpace, "left to promise");
        }
    }
}

#[tokio::test]
async fn hostile_names_are_refused_and_leave_nothing() {
    for (agent, _mount) in each().await {
        agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
        let before = agent.names(&format!("disks/{GUEST}"));
        let long = "x".repeat(300);
        for dest in ["", ".", "..", "../x", "a/b", "a\0b", "a b", "a@b", "ä", "$(x)", "a\nb", &long] {
            let refused = ask(&agent, "CreateSnapshot", &new(&disk(0), dest)).await;
            fails(refused, FaultCode::Invalid, "not a valid snapshot name");
            if !dest.is_empty() && !dest.contains('@') {
                for method in ["GetSnapshot", "DeleteSnapshot", "RollbackSnapshot", "ListSnapshots"] {
                    let refused = ask(&agent, method, &of(&format!("{}@{dest}", disk(0)))).await;
                    fails(refused, FaultCode::Invalid, "not a valid snapshot name");
                }
            }
        }
        for id in ["../x", "guests", "guests/../x", "pool/guests/x", "/etc/passwd", "a\0b", &long] {
            for method in ["CreateSnapshot", "GetSnapshot", "ListSnapshots"] {
                fails(ask(&agent, method, &new(id, "s")).await, FaultCode::Invalid, "not a valid dataset");
            }
        }
        for method in ["GetSnapshot", "DeleteSnapshot", "RollbackSnapshot"] {
            fails(ask(&agent, method, &of(&disk(0))).await, FaultCode::Invalid, "not a snapshot");
            fails(
                ask(&agent, method, &of(&format!("{}@s", disk(9)))).await,
                FaultCode::NotFound,
                "not found",
            );
            let absent = of(&format!("guests/{OTHER_GUEST}@s"));
            fails(ask(&agent, method, &absent).await, FaultCode::NotFound, "not found");
        }
        fails(ask(&agent, "CreateSnapshot", &new(&disk(7), "s")).await, FaultCode::NotFound, "not found");
        let existing = format!("{}@s", disk(0));
        fails(ask(&agent, "CreateSnapshot", &new(&existing, "s")).await, FaultCode::Invalid, "dest");
        assert_eq!(agent.names(&format!("disks/{GUEST}")), before);
    }
}

#[tokio::test]
async fn another_clouds_snapshots_are_not_touched() {
    let agent = Agent::start().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
    ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await.unwrap();
    let record = agent.root.join(format!("disks/{GUEST}/owner.json"));
    let text = std::fs::read_to_string(&record).unwrap().replace(CLOUD, "cloud-c");
    std::fs::write(&record, text).unwrap();
    for method in ["GetSnapshot", "DeleteSnapshot", "RollbackSnapshot"] {
        let refused = ask(&agent, method, &of(&format!("{}@s", disk(0)))).await;
        fails(refused, FaultCode::Conflict, "cloud-c");
    }
    fails(ask(&agent, "CreateSnapshot", &new(&disk(0), "t")).await, FaultCode::Conflict, "cloud-c");
    assert!(ask(&agent, "ListSnapshots", &of("")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_disk_grows_and_rolls_back_to_its_old_size() {
    for (agent, _mount) in each().await {
        agent.guest("CreateGuestDisks", &guest("1.1", &[("", 2)])).await.unwrap();
        ask(&agent, "CreateSnapshot", &new(&disk(0), "small")).await.unwrap();
        let resize = |size| rpc::VolumeRequest { id: disk(0), size };
        for _ in 0..2 {
            let grown: rpc::VolumeResponse = agent.call("ResizeVolume", &resize(5)).await.unwrap();
            assert_eq!(grown.volumes[0].size, 5);
        }
        for (size, words) in [(4, "cannot shrink"), (0, "size"), (u64::MAX, "limit")] {
            let refused: Result<rpc::VolumeResponse, _> = agent.call("ResizeVolume", &resize(size)).await;
            fails(refused, FaultCode::Invalid, words);
        }
        let too_large: Result<rpc::VolumeResponse, _> = agent.call("ResizeVolume", &resize(60 << 20)).await;
        fails(too_large, FaultCode::NoSpace, "left to promise");
        let absent = rpc::VolumeRequest { id: disk(3), size: 5 };
        let absent: Result<rpc::VolumeResponse, _> = agent.call("ResizeVolume", &absent).await;
        fails(absent, FaultCode::NotFound, "disk-3");
        ask(&agent, "RollbackSnapshot", &of(&format!("{}@small", disk(0)))).await.unwrap();
        let seen: rpc::VolumeResponse = agent.call("GetVolume", &resize(0)).await.unwrap();
        assert_eq!(seen.volumes[0].size, 2);
    }
}
