//! ZFS where it does not do as it is told: unmounted, busy, shared with another storage.

use std::process::Command;

use haar_api::rpc::{self, FaultCode};
use haar_subagents::storage::Backend;

use crate::harness::*;
use crate::snapshots::{ask, content, disk, new, write};
use crate::zfs::Zfs;

/// Runs `zfs`; zfs-fuse answers an unmount a moment before it is done.
fn zfs(words: &[&str]) {
    let begun = std::time::Instant::now();
    loop {
        let output = Command::new("zfs").args(words).output().unwrap();
        if output.status.success() {
            return;
        }
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("dataset is busy") && begun.elapsed() < LIMIT, "{words:?}: {told}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The dataset of a disk.
fn dataset(pool: &Zfs, made: &rpc::Disk) -> String {
    let mount = std::path::Path::new(&made.source).parent().unwrap();
    let name = mount.file_name().unwrap().to_str().unwrap();
    let all = pool.names();
    all.iter().find(|full| full.ends_with(name)).expect("each disk has a dataset").clone()
}

#[tokio::test]
async fn a_dataset_that_is_not_mounted_costs_its_own_guest_and_no_data() {
    let Some(pool) = Zfs::mount_for_files() else { return };
    let agent = Agent::start_with(pool.folder(), Backend::Zfs).await;
    let asked = guest("1.1", &[("", 4)]);
    let made = agent.guest("CreateGuestDisks", &asked).await.unwrap().disks;
    write(&made[0], 5, 0);
    let other = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[("", 4)]) };
    agent.guest("CreateGuestDisks", &other).await.unwrap();
    agent.stop().await;
    zfs(&["unmount", &dataset(&pool, &made[0])]);
    // ZFS mounts on no folder that something lies in.
    let folder = std::path::Path::new(&made[0].source).parent().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("in the way"), "").unwrap();

    let agent = Agent::start_with(pool.folder(), Backend::Zfs).await;
    let refused = agent.guest("CreateGuestDisks", &provisioned(asked.clone())).await;
    fails(refused, FaultCode::Unavailable, "run zfs mount");
    agent.guest("CreateGuestDisks", &provisioned(other)).await.expect("the others go on");
    let listed: rpc::VolumeResponse =
        agent.call("ListVolumes", &rpc::VolumeRequest::default()).await.unwrap();
    let damages: Vec<_> = listed.volumes.iter().map(|volume| &volume.haar.as_ref().unwrap().damage).collect();
    assert_eq!(damages, ["", ""], "none of them is told as lost");
    agent.stop().await;
    std::fs::remove_file(folder.join("in the way")).unwrap();
    let agent = Agent::start_with(pool.folder(), Backend::Zfs).await;
    agent.guest("CreateGuestDisks", &provisioned(asked)).await.unwrap();
    assert_eq!(content(&made[0])[0], 5);
}

#[tokio::test]
async fn another_storages_datasets_are_left_alone() {
    let Some(pool) = Zfs::mount_for_files() else { return };
    let agent = Agent::start_with(pool.folder(), Backend::Zfs).await;
    agent.store_image().await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap().disks;
    let before = content(&made[0]);
    let read = format!("{}/haar-read-x", pool.names()[0]);
    let mountpoint = format!("mountpoint={}", agent.root.join("zfs/read-x").display());
    zfs(&["create", "-o", &mountpoint, &read]);

    let second = pool.folder().join("second");
    std::fs::create_dir(&second).unwrap();
    let other = Agent::start_with(&second, Backend::Zfs).await;
    let wanted = other.import(IMAGE, "sound.qcow2", "qcow2", &qcow2_image());
    fails(other.fetch(&wanted).await, FaultCode::Conflict, "another storage");
    other.stop().await;
    assert!(pool.names().contains(&read), "{:?}", pool.names());
    assert!(content(&made[0]) == before);
    let again = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[(IMAGE, 0)]) };
    agent.guest("CreateGuestDisks", &again).await.expect("the image is still there to clone");
}

#[tokio::test]
async fn a_dataset_that_cannot_be_destroyed_yet_is_not_forgotten() {
    let Some(pool) = Zfs::mount_for_files() else { return };
    let agent = Agent::start_with(pool.folder(), Backend::Zfs).await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 4)])).await.unwrap().disks;
    ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await.unwrap();
    let (theirs, of_disk) = (format!("{}/clone", pool.names()[0]), dataset(&pool, &made[0]));
    zfs(&["clone", &format!("{of_disk}@s"), &theirs]);
    for _ in 0..2 {
        let refused = agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await;
        fails(refused, FaultCode::Failed, "dependent clones");
    }
    assert!(pool.names().contains(&of_disk));
    zfs(&["destroy", &theirs]);
    agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
    assert!(!pool.names().contains(&of_disk));
    assert!(agent.names("disks").is_empty());
}
