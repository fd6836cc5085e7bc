//! The reflink and zfs back ends where they differ: what their clones cost, what they need, and living beside qcow2.

use std::os::unix::fs::MetadataExt as _;

use haar_api::rpc::{self, FaultCode};
use haar_subagents::storage::{self, Backend};

use crate::btrfs::Btrfs;
use crate::harness::*;
use crate::http::http;
use crate::mounted::each;
use crate::snapshots::{ask, content, disk, new, of, write};
use crate::zfs::Zfs;

#[tokio::test]
async fn a_file_system_that_cannot_share_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let config = storage::Config { backend: Backend::Reflink, ..config(folder.path()) };
    let error = storage::run(config, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, storage::Error::CannotShare { .. }), "{error:?}");
    assert!(error.to_string().contains("choose the back end qcow2"), "{error}");
    assert!(std::fs::read_dir(folder.path().join("storage/disks")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_raw_clone_shares_with_its_image() {
    let Some(btrfs) = Btrfs::mount() else { return };
    let agent = Agent::start_with(btrfs.folder(), Backend::Reflink).await;
    let bytes = raw_image(64 * MIB);
    agent.fetch(&agent.import(OTHER_IMAGE, "large.raw", "raw", &bytes)).await.unwrap();
    agent.store_image().await;
    let room: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    let asked = guest("1.1", &[(OTHER_IMAGE, 80), (IMAGE, 0), ("", 1)]);
    let made = agent.guest("CreateGuestDisks", &asked).await.unwrap();
    for made in &made.disks {
        assert_eq!(made.haar.as_ref().unwrap().format, "raw");
        assert!(made.source.ends_with(".raw"));
    }
    assert!(content(&made.disks[0])[..bytes.len()] == bytes);
    assert!(content(&made.disks[1]) == raw_image(4 * MIB), "an image in qcow2 was made raw");
    let after: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    assert!(room.free_bytes - after.free_bytes < 16 * MIB, "{room:?} {after:?}");
    assert_eq!(after.disks_bytes, 0, "what is shared is held by the image");
    assert_eq!(agent.guest("CreateGuestDisks", &asked).await.unwrap(), made, "asking twice is asking once");
    let inode = std::path::Path::new(&made.disks[0].source).metadata().unwrap().ino();

    // The clone needs the image no more.
    let named = rpc::ImageRequest { id: OTHER_IMAGE.into(), ..Default::default() };
    agent.image("DeleteImage", &named).await.unwrap();
    assert!(content(&made.disks[0])[..bytes.len()] == bytes);
    let again =
        agent.guest("CreateGuestDisks", &provisioned(guest("1.1", &[("", 80), ("", 0), ("", 1)]))).await;
    assert_eq!(again.unwrap().disks[0].size, 80);
    assert_eq!(std::path::Path::new(&made.disks[0].source).metadata().unwrap().ino(), inode);
}

#[tokio::test]
async fn a_disk_stays_with_the_back_end_that_made_it() {
    let Some(btrfs) = Btrfs::mount() else { return };
    let agent = Agent::start_with(btrfs.folder(), Backend::Qcow2).await;
    agent.store_image().await;
    let before = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap();
    agent.stop().await;

    let agent = Agent::start_with(btrfs.folder(), Backend::Reflink).await;
    let kept = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap();
    assert_eq!(kept, before);
    let other = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[(IMAGE, 0)]) };
    fails(agent.guest("CreateGuestDisks", &other).await, FaultCode::NotFound, "request it first");
    agent.store_image().await;
    let made = agent.guest("CreateGuestDisks", &other).await.unwrap();
    assert_eq!(made.disks[0].haar.as_ref().unwrap().format, "raw");
    assert!(content(&made.disks[0]) == content(&before.disks[0]));
    let listed: rpc::VolumeResponse =
        agent.call("ListVolumes", &rpc::VolumeRequest::default()).await.unwrap();
    let formats: Vec<_> =
        listed.volumes.iter().map(|volume| volume.haar.as_ref().unwrap().format.as_str()).collect();
    assert_eq!(formats, ["qcow2", "raw"]);
}

#[tokio::test]
async fn images_nobody_uses_are_pruned_after_a_while() {
    for (agent, _mount) in each().await {
        agent.store_image().await;
        let unused = agent.import(OTHER_IMAGE, "other.raw", "raw", &raw_image(MIB));
        agent.fetch(&unused).await.unwrap();
        agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap();
        let prune = async |keep_newer_s| {
            let request = rpc::PruneRequest { keep_newer_s };
            let pruned: rpc::ImageResponse = agent.call("PruneImages", &request).await.unwrap();
            pruned.images.unwrap().into_iter().map(|image| image.id).collect::<Vec<_>>()
        };
        assert!(prune(None).await.is_empty(), "a guest may be about to be made of it");
        assert_eq!(prune(Some(0)).await, [OTHER_IMAGE]);
        assert!(prune(Some(0)).await.is_empty());
        assert!(agent.names("images").iter().all(|name| name.starts_with(IMAGE)));
        agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
        assert_eq!(prune(Some(0)).await, [IMAGE]);
        assert!(agent.names("images").is_empty());
    }
}

#[tokio::test]
async fn an_image_that_was_just_asked_for_is_not_pruned() {
    let agent = Agent::start().await;
    let wanted = agent.import(IMAGE, "sound.qcow2", "qcow2", &qcow2_image());
    agent.fetch(&wanted).await.unwrap();
    let facts = agent.root.join(format!("images/{IMAGE}.json"));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    let prune = async || {
        let pruned: rpc::ImageResponse =
            agent.call("PruneImages", &rpc::PruneRequest::default()).await.unwrap();
        pruned.images.unwrap().len()
    };
    std::fs::File::open(&facts).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(agent.image("RequestImage", &wanted).await.unwrap().status, "complete");
    assert_eq!(prune().await, 0, "a guest is about to be made of it");
    std::fs::File::open(&facts).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(prune().await, 1);
}

#[tokio::test]
async fn an_image_is_uploaded_whole_or_not_at_all() {
    let agent = Agent::start().await;
    let bytes = qcow2_image();
    let sha256 = request(IMAGE, "", "", &bytes).haar.unwrap().sha256;
    let line = |id: &str, format: &str, sha256: &str| {
        format!("PUT /images/{id}/data?format={format}&sha256={sha256}")
    };
    let good = line(IMAGE, "qcow2", &sha256);
    for (case, line, body, status, words) in [
        ("another hash", line(IMAGE, "qcow2", &"0".repeat(64)), &bytes[..], 400, "SHA-256"),
        ("no hash", line(IMAGE, "qcow2", ""), &bytes, 400, "64 lower-case"),
        ("no format", line(IMAGE, "", &sha256), &bytes, 400, "qcow2 or raw"),
        ("the wrong format", line(IMAGE, "raw", &sha256), &bytes, 400, "it is a qcow2 image"),
        ("half of it", good.clone(), &bytes[..bytes.len() / 2], 400, "SHA-256"),
        ("no id", line("x", "qcow2", &sha256), &bytes, 400, "UUID"),
        ("a path", line("..%2f..%2fx", "qcow2", &sha256), &bytes, 400, "UUID"),
    ] {
        let answer = http(&agent.socket, &line, &[], body).await;
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert!(answer.text().contains(words), "{case}: {}", answer.text());
        assert!(agent.names("images").is_empty(), "{case}");
    }
    // The sender goes away in the middle.
    let length = bytes.len().to_string();
    let fields = [("content-length", length.as_str())];
    let stream = crate::http::begin(&agent.socket, &good, &fields, &bytes[..bytes.len() / 2]).await;
    until("some of it has come", || !agent.names("images").is_empty()).await;
    drop(stream);
    until("and it is gone again", || agent.names("images").is_empty()).await;

    let deadline = tokio::time::Instant::now() + LIMIT;
    let stored = loop {
        let answer = http(&agent.socket, &good, &[], &bytes).await;
        if answer.status != 409 {
            break answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "the upload that broke off never ended");
    };
    assert_eq!(stored.status, 201, "{}", stored.text());
    let image: rpc::Image = serde_json::from_slice(&stored.body).unwrap();
    assert_eq!((image.id.as_str(), image.status.as_str()), (IMAGE, "complete"));
    assert_eq!(http(&agent.socket, &good, &[], &bytes).await.status, 200, "asking twice is asking once");
    agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap();
    let other = line(IMAGE, "raw", &"1".repeat(64));
    assert_eq!(http(&agent.socket, &other, &[], b"x").await.status, 409);
}

#[tokio::test]
async fn zfs_without_a_dataset_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let config = storage::Config { backend: Backend::Zfs, ..config(folder.path()) };
    let error = storage::run(config, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, storage::Error::NoZfs(_)), "{error:?}");
    let words = error.to_string();
    assert!(words.contains("zfs create -o mountpoint=") && words.contains("qcow2"), "{words}");
}

#[tokio::test]
async fn each_zfs_disk_is_a_dataset_and_goes_with_it() {
    let Some(zfs) = Zfs::mount_for_files() else { return };
    let agent = Agent::start_with(zfs.folder(), Backend::Zfs).await;
    let bytes = raw_image(64 * MIB);
    agent.fetch(&agent.import(OTHER_IMAGE, "large.raw", "raw", &bytes)).await.unwrap();
    agent.store_image().await;
    let datasets = || zfs.names().iter().filter(|name| name.contains("haar-disk-")).count();
    let room: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    let asked = guest("1.1", &[(OTHER_IMAGE, 80), (IMAGE, 0), ("", 20)]);
    let made = agent.guest("CreateGuestDisks", &asked).await.unwrap();
    for made in &made.disks {
        assert_eq!(made.haar.as_ref().unwrap().format, "raw");
        assert!(!std::path::Path::new(&made.source).is_symlink());
    }
    assert!(content(&made.disks[0])[..bytes.len()] == bytes);
    assert!(content(&made.disks[1]) == raw_image(4 * MIB), "an image in qcow2 was made raw");
    assert_eq!(agent.guest("CreateGuestDisks", &asked).await.unwrap(), made, "asking twice is asking once");
    // The pool holds back what was promised, and no more is promised than it has.
    let after: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    assert!(room.free_bytes - after.free_bytes >= 104 * MIB, "{room:?} {after:?}");
    assert!(after.total_bytes + 8 * MIB > room.total_bytes, "{room:?} {after:?}");
    let other = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[("", 2000)]) };
    fails(agent.guest("CreateGuestDisks", &other).await, FaultCode::NoSpace, "left to promise");
    assert_eq!(datasets(), 3);
    let image = rpc::ImageRequest { id: OTHER_IMAGE.into(), ..Default::default() };
    fails(agent.image("DeleteImage", &image).await, FaultCode::Conflict, "is the base of 1 disks");

    agent.stop().await;
    let agent = Agent::start_with(zfs.folder(), Backend::Zfs).await;
    assert_eq!(agent.guest("CreateGuestDisks", &asked).await.unwrap(), made, "all of it is on the disk");
    agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
    assert_eq!((datasets(), agent.names("disks").len()), (0, 0));
    agent.image("DeleteImage", &image).await.unwrap();
    assert_eq!(agent.names("zfs"), [format!("image-{IMAGE}")]);
}

#[tokio::test]
async fn half_of_a_zfs_disk_is_gone_after_the_start_and_strangers_stay() {
    let Some(zfs) = Zfs::mount_for_files() else { return };
    let agent = Agent::start_with(zfs.folder(), Backend::Zfs).await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 4), ("", 4)])).await.unwrap().disks;
    write(&made[0], 5, 0);
    let disks = agent.root.join("disks");
    let other = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[("", 4)]) };
    agent.guest("CreateGuestDisks", &other).await.unwrap();
    agent.stop().await;
    let before = zfs.names();
    // As when killed while one guest's disk, and another guest, were being removed; and a clone for a download.
    std::fs::rename(disks.join(GUEST).join("disk-1.zfs"), disks.join(GUEST).join(".disk-1.zfs")).unwrap();
    std::fs::rename(disks.join(OTHER_GUEST), disks.join(".gone-x")).unwrap();
    let parent = before[0].clone();
    for name in ["haar-read-x", "stranger"] {
        let mountpoint = disks.with_file_name("zfs").join(name.trim_start_matches("haar-"));
        let (name, mountpoint) = (format!("{parent}/{name}"), format!("mountpoint={}", mountpoint.display()));
        let words = ["create", "-o", &mountpoint, &name];
        assert!(std::process::Command::new("zfs").args(words).status().unwrap().success());
    }
    let agent = Agent::start_with(zfs.folder(), Backend::Zfs).await;
    let names = zfs.names();
    assert_eq!(names.iter().filter(|name| name.contains("haar-disk-")).count(), 1, "{names:?}");
    assert!(names.contains(&format!("{parent}/stranger")) && names.len() == 3, "{names:?}");
    assert_eq!(agent.names("disks"), [GUEST]);
    assert!(content(&made[0])[0] == 5);
    // A snapshot of somebody else is neither shown nor deleted.
    let dataset = names.iter().find(|name| name.contains("haar-disk-")).unwrap();
    let theirs = format!("{dataset}@nightly");
    assert!(std::process::Command::new("zfs").args(["snapshot", &theirs]).status().unwrap().success());
    ask(&agent, "CreateSnapshot", &new(&disk(0), "ours")).await.unwrap();
    let listed = ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(zfs.names().contains(&theirs));
    // Nor is anything of ours deleted for a rollback that theirs stands in the way of.
    let later = format!("{dataset}@later");
    assert!(std::process::Command::new("zfs").args(["snapshot", &later]).status().unwrap().success());
    ask(&agent, "CreateSnapshot", &new(&disk(0), "newer")).await.unwrap();
    let back = rpc::SnapshotRequest { destroy_more_recent: true, ..of(&format!("{}@ours", disk(0))) };
    fails(ask(&agent, "RollbackSnapshot", &back).await, FaultCode::Conflict, "not Haar's (later)");
    assert_eq!(ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap().len(), 2);
    assert!(std::process::Command::new("zfs").args(["destroy", &later]).status().unwrap().success());
    ask(&agent, "RollbackSnapshot", &back).await.unwrap();
}
