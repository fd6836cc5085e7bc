//! A file system of a few MiB that fills up. Needs root for the mount; says so when it is left out.

use std::path::{Path, PathBuf};

use haar_api::rpc::{self, FaultCode};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::*;
use crate::snapshots::{Held, ask, disk, new, of, write};
use crate::web::{Manner, Web};

/// A tmpfs that goes with the test.
struct Small {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let options = format!("size={size}");
        let none: Option<&Path> = None;
        match mount(none, &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())) {
            Ok(()) => Some(Small { path, _folder: folder }),
            Err(errno) => {
                left_out(&format!("a tmpfs cannot be mounted ({errno}); run as root"));
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn an_image_that_does_not_fit_is_refused_before_the_first_byte() {
    let Some(small) = Small::mount("4m") else { return };
    let agent = Agent::start_in(&small.path).await;
    let bytes = raw_image(8 * MIB);
    let web = Web::serve(bytes.clone(), Manner::Gated).await;
    let wanted = request(IMAGE, &web.address, "raw", &bytes);
    // The gate stays shut: the answer cannot come from running full.
    fails(agent.fetch(&wanted).await, FaultCode::NoSpace, "8388608 bytes");
    assert!(agent.names("images").is_empty());
}

#[tokio::test]
async fn a_disk_that_fills_up_during_a_fetch_is_freed_again() {
    let Some(small) = Small::mount("16m") else { return };
    let agent = Agent::start_in(&small.path).await;
    let before: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    let bytes = raw_image(8 * MIB);
    let web = Web::serve(bytes.clone(), Manner::Gated).await;
    let wanted = request(IMAGE, &web.address, "raw", &bytes);
    half_has_come(&agent, &wanted).await;
    // Somebody else's file, which no count of ours can foresee.
    let filler = small.path.join("filler");
    let full = std::fs::write(&filler, vec![1; 16 << 20]).expect_err("the disk must be full");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    web.open_gate();
    fails(agent.fetch(&wanted).await, FaultCode::NoSpace, "No space left");
    assert!(agent.names("images").is_empty());
    std::fs::remove_file(&filler).unwrap();
    let after: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    assert_eq!(after, before);
}

/// Has the image fetched from a gated source as far as it goes.
async fn half_has_come(agent: &Agent, wanted: &rpc::ImageRequest) {
    let half = wanted.haar.as_ref().unwrap().file_bytes / 2;
    let part = agent.root.join(format!("images/.part-{}", wanted.id));
    agent.image("RequestImage", wanted).await.unwrap();
    until("half has come", || part.metadata().is_ok_and(|metadata| metadata.len() == half)).await;
}

#[tokio::test]
async fn an_image_takes_no_room_that_was_promised_to_guests() {
    let Some(small) = Small::mount("16m") else { return };
    let agent = Agent::start_in(&small.path).await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 10)])).await.unwrap();
    let large = raw_image(8 * MIB);
    for manner in [Manner::Whole, Manner::Unmeasured] {
        let web = Web::serve(large.clone(), manner).await;
        let mut wanted = request(IMAGE, &web.address, "raw", &large);
        if manner == Manner::Unmeasured {
            wanted.haar.as_mut().unwrap().file_bytes = 0;
        }
        fails(agent.fetch(&wanted).await, FaultCode::NoSpace, "promised to disks");
        assert!(agent.names("images").is_empty());
        let room: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
        assert!(room.free_bytes > 14 * MIB, "{room:?}");
    }
    let web = Web::serve(raw_image(3 * MIB), Manner::Unmeasured).await;
    let mut wanted = request(IMAGE, &web.address, "raw", &raw_image(3 * MIB));
    wanted.haar.as_mut().unwrap().file_bytes = 0;
    agent.fetch(&wanted).await.expect("the rest is there to take");
}

#[tokio::test]
async fn an_image_of_unknown_length_leaves_the_reserve_alone() {
    let Some(small) = Small::mount("16m") else { return };
    let agent = Agent::start_in(&small.path).await;
    // Within the last twentieth of the disk.
    let bytes = raw_image(16 * MIB - MIB / 2);
    let web = Web::serve(bytes.clone(), Manner::Unmeasured).await;
    let mut wanted = request(IMAGE, &web.address, "raw", &bytes);
    wanted.haar.as_mut().unwrap().file_bytes = 0;
    fails(agent.fetch(&wanted).await, FaultCode::NoSpace, "5 % kept back");
    assert!(agent.names("images").is_empty());
}

#[tokio::test]
async fn a_guests_disk_takes_no_room_that_was_given_to_an_image_on_its_way() {
    let Some(small) = Small::mount("16m") else { return };
    let agent = Agent::start_in(&small.path).await;
    let bytes = raw_image(8 * MIB);
    let web = Web::serve(bytes.clone(), Manner::Gated).await;
    let wanted = request(IMAGE, &web.address, "raw", &bytes);
    half_has_come(&agent, &wanted).await;
    fails(
        agent.guest("CreateGuestDisks", &guest("1.1", &[("", 8)])).await,
        FaultCode::NoSpace,
        "left to promise",
    );
    web.open_gate();
    agent.fetch(&wanted).await.unwrap();
    let named = rpc::ImageRequest { id: IMAGE.to_owned(), ..Default::default() };
    agent.image("DeleteImage", &named).await.unwrap();
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 8)])).await.expect("what it took is free again");
}

#[tokio::test]
async fn no_more_is_promised_than_there_is() {
    let Some(small) = Small::mount("64m") else { return };
    let agent = Agent::start_in(&small.path).await;
    let other = |size| rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[("", size)]) };
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 40)])).await.unwrap();
    // The first disk holds next to nothing yet; what was promised to it is not promised again.
    fails(agent.guest("VerifyDisks", &other(40)).await, FaultCode::NoSpace, "left to promise");
    fails(agent.guest("CreateGuestDisks", &other(40)).await, FaultCode::NoSpace, "1 disks");
    assert_eq!(agent.names("disks"), [GUEST]);
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 40)])).await.expect("what exists needs no room");
    agent.guest("CreateGuestDisks", &other(10)).await.expect("the rest is there to give");
}

/// Writes the whole disk anew, as a guest would.
fn write_all(made: &rpc::Disk) {
    for mib in 0..made.size {
        write(made, 5, mib);
    }
}

#[tokio::test]
async fn every_snapshot_needs_room_and_what_was_written_since_counts_once() {
    let Some(small) = Small::mount("64m") else { return };
    let agent = Agent::start_in(&small.path).await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 20)])).await.unwrap().disks;
    write_all(&made[0]);
    ask(&agent, "CreateSnapshot", &new(&disk(0), "first")).await.expect("there is room for twice the disk");
    write_all(&made[0]);
    // 40 MiB are held, 20 of them by the disk itself: nobody else has a claim on what is left but 5 %.
    let other = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[("", 15)]) };
    agent.guest("CreateGuestDisks", &other).await.expect("the disk holds what it was promised");
    for method in ["VerifySnapshot", "CreateSnapshot"] {
        let refused = ask(&agent, method, &new(&disk(0), "second")).await;
        fails(refused, FaultCode::NoSpace, "left to promise");
    }
    agent.guest("DeleteGuestsDisks", &other).await.unwrap();
    let held = Held::of(&made[0]).await;
    assert!(ask(&agent, "VerifySnapshot", &new(&disk(0), "second")).await.unwrap().is_empty());
    let taken = ask(&agent, "VerifySnapshot", &new(&disk(0), "first")).await;
    fails(taken, FaultCode::Conflict, "exists");
    drop(held);
    assert_eq!(ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap().len(), 1, "it only asks");
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_leaves_nothing_half_made() {
    // There is room in bytes but not for one more file name, which no count of promises can foresee.
    let Some(small) = Small::mount("64m,nr_inodes=64") else { return };
    let agent = Agent::start_in(&small.path).await;
    let fillers = small.path.join("fillers");
    std::fs::create_dir(&fillers).unwrap();
    let free = || nix::sys::statvfs::statvfs(&small.path).unwrap().files_free();
    for number in 0.. {
        // Enough for the guest's folder and its first disk.
        if free() == 2 {
            break;
        }
        std::fs::write(fillers.join(number.to_string()), "").unwrap();
    }
    let asked = guest("1.1", &[("", 1), ("", 1)]);
    fails(agent.guest("CreateGuestDisks", &asked).await, FaultCode::NoSpace, "qemu-img");
    assert!(agent.names("disks").is_empty(), "{:?}", agent.names("disks"));
    assert_eq!(free(), 2);
    std::fs::remove_dir_all(&fillers).unwrap();
    agent.guest("CreateGuestDisks", &asked).await.expect("with room again they are made");
}
