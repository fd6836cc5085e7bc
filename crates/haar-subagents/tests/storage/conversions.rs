//! Images that are made raw: the room they take meanwhile, and what a kill or damage leaves.

use std::path::Path;

use haar_api::rpc;
use haar_subagents::kit;
use haar_subagents::storage::Backend;

use crate::btrfs::Btrfs;
use crate::harness::*;
use crate::killed::{BACKEND, Process};
use crate::snapshots::content;
use crate::snapshots_killed::Gated;
use crate::zfs::Zfs;

/// A compressed image of so many MiB, that a source may be read from; it takes next to no room itself.
fn compressed(folder: &Path, mib: usize) -> rpc::ImageRequest {
    let import = folder.join("import");
    std::fs::create_dir_all(&import).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let (raw, image) = (temp.path().join("raw"), import.join("compressed.qcow2"));
    std::fs::write(&raw, vec![7; mib << 20]).unwrap();
    let (raw, image) = (raw.to_str().unwrap(), image.to_str().unwrap());
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", raw, image]);
    request(IMAGE, &format!("file://{image}"), "qcow2", &std::fs::read(image).unwrap())
}

async fn asked(socket: &Path, wanted: &rpc::ImageRequest) {
    let _: rpc::ImageResponse = kit::call(socket, "ImageStore.RequestImage", wanted, LIMIT).await.unwrap();
}

#[tokio::test]
async fn what_is_written_of_a_raw_image_counts_once() {
    let Some(btrfs) = Btrfs::mount() else { return };
    let wanted = compressed(btrfs.folder(), 300);
    let gated = Gated::after(btrfs.folder(), "convert*");
    let _process = Process::start(btrfs.folder(), &[("PATH", &gated.path), (BACKEND, "reflink")]);
    let socket = btrfs.folder().join("run/storage.sock");
    until_answers(&socket).await;
    gated.shut();
    asked(&socket, &wanted).await;
    gated.reached().await;
    // All of the image is on the disk, and the program that wrote it has not ended.
    let fits = rpc::GuestRequest { guest: Some(guest("1.1", &[("", 450)])), ..Default::default() };
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        match kit::call::<_, rpc::GuestResponse>(&socket, "ImageStore.VerifyDisks", &fits, LIMIT).await {
            Ok(_) => break,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "never noticed: {error:?}"),
        }
    }
    gated.open();
}

#[tokio::test]
async fn a_conversion_that_outlives_the_sub_agent_is_ended_by_the_next() {
    let Some(btrfs) = Btrfs::mount() else { return };
    let wanted = compressed(btrfs.folder(), 4);
    let gated = Gated::before(btrfs.folder(), "convert*");
    let process = Process::start(btrfs.folder(), &[("PATH", &gated.path), (BACKEND, "reflink")]);
    let socket = btrfs.folder().join("run/storage.sock");
    until_answers(&socket).await;
    gated.shut();
    asked(&socket, &wanted).await;
    gated.reached().await;
    drop(process);
    let input = btrfs.folder().join("storage/conversions").canonicalize().unwrap();
    let strays = || {
        let processes = std::fs::read_dir("/proc").unwrap().map(|process| process.unwrap().path());
        processes.filter(|path| std::fs::read_link(path.join("fd/0")).is_ok_and(|file| file == input)).count()
    };
    assert!(strays() > 0, "a kill leaves it behind");
    let agent = Agent::start_with(btrfs.folder(), Backend::Reflink).await;
    assert_eq!(strays(), 0);
    agent.fetch(&wanted).await.unwrap();
}

#[tokio::test]
async fn an_image_whose_facts_are_damaged_is_stored_again_beside_its_clones() {
    let Some(zfs) = Zfs::mount() else { return };
    let mut agent = Agent::start_with(zfs.folder(), Backend::Zfs).await;
    agent.store_image().await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap().disks;
    let before = content(&made[0]);
    for restart in [false, true] {
        std::fs::write(agent.root.join(format!("images/{IMAGE}.json")), "{").unwrap();
        if restart {
            agent.stop().await;
            agent = Agent::start_with(zfs.folder(), Backend::Zfs).await;
        }
        agent.store_image().await;
        let other = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[(IMAGE, 0)]) };
        let clone = agent.guest("CreateGuestDisks", &other).await.unwrap().disks;
        assert!(content(&clone[0]) == before, "restart: {restart}");
        agent.guest("DeleteGuestsDisks", &other).await.unwrap();
    }
}
