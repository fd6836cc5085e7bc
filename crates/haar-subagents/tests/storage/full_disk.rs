//! A file system of a few MiB that fills up. Needs root for the mount; says so when it is left out.

use std::path::{Path, PathBuf};

use haar_api::rpc::{self, FaultCode};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::*;
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
                eprintln!("left out: a tmpfs cannot be mounted ({errno}); run as root");
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
    let Some(small) = Small::mount("4m") else { return };
    let agent = Agent::start_in(&small.path).await;
    let before: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    let bytes = raw_image(8 * MIB);
    let web = Web::serve(bytes.clone(), Manner::Unmeasured).await;
    let mut wanted = request(IMAGE, &web.address, "raw", &bytes);
    wanted.haar.as_mut().unwrap().file_bytes = 0;
    fails(agent.fetch(&wanted).await, FaultCode::NoSpace, "No space left");
    assert!(agent.names("images").is_empty());
    let after: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    assert_eq!(after, before);
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
