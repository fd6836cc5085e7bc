//! Guest disks: made once, kept, lost, and whose they are.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use haar_api::rpc::{self, FaultCode};

use crate::harness::*;

fn disk_path(agent: &Agent, index: usize) -> PathBuf {
    agent.root.join(format!("disks/{GUEST}/disk-{index}.qcow2"))
}

/// Marks a disk's file, so that a remade one would be noticed.
fn mark(agent: &Agent, index: usize) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    disk_path(agent, index).metadata().unwrap().ino()
}

#[tokio::test]
async fn disks_are_cloned_grown_described_and_kept() {
    let agent = Agent::start().await;
    agent.store_image().await;
    let asked = guest("3.7", &[(IMAGE, 10), ("", 20), (IMAGE, 0)]);
    let verified = agent.guest("VerifyDisks", &asked).await.unwrap();
    assert_eq!(verified.disks[2].size, 4, "the image's size is copied");
    assert!(agent.names("disks").is_empty(), "verifying makes nothing");

    let made = agent.guest("CreateGuestDisks", &asked).await.unwrap();
    let sizes: Vec<u64> = made.disks.iter().map(|disk| disk.size).collect();
    assert_eq!(sizes, [10, 20, 4]);
    let disk = &made.disks[0];
    assert_eq!((disk.bus.as_str(), disk.device.as_str()), ("virtio", "vda"));
    assert_eq!(disk.volume, format!("guests/{GUEST}/disk-0"));
    assert_eq!(disk.source, disk_path(&agent, 0).canonicalize().unwrap().to_str().unwrap());
    let extra = disk.haar.clone().unwrap();
    assert_eq!((extra.format.as_str(), extra.size_bytes, extra.life.as_str()), ("qcow2", 10 * MIB, "3.7"));
    assert_eq!(made.disks[1].device, "vdb");

    let info = qemu_img(&["info", "-f", "qcow2", "--output=json", &disk.source]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"], 10 * MIB);
    assert_eq!(info["backing-filename-format"], "qcow2", "the base's format is never probed");
    let base = agent.root.canonicalize().unwrap().join(format!("images/{IMAGE}.qcow2"));
    assert_eq!(info["full-backing-filename"], base.to_str().unwrap());

    let marks: Vec<u64> = (0..3).map(|index| mark(&agent, index)).collect();
    let again = agent.guest("CreateGuestDisks", &asked).await.unwrap();
    assert_eq!(again.disks, made.disks, "asking twice is asking once");
    assert_eq!(marks, (0..3).map(|index| mark(&agent, index)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_clone_holds_next_to_nothing_however_large_its_image() {
    let agent = Agent::start().await;
    let bytes = raw_image(16 * MIB);
    agent.fetch(&agent.import(IMAGE, "large.raw", "raw", &bytes)).await.unwrap();
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap();
    assert_eq!(made.disks[0].size, 16);
    let length = disk_path(&agent, 0).metadata().unwrap().len();
    assert!(length < MIB, "the overlay has {length} bytes");
    let used = made.disks[0].haar.clone().unwrap().used_bytes;
    assert!(used > 0 && used < MIB, "and holds {used}");
    let (source, copy) = (&made.disks[0].source, agent.image_dir.join("copy"));
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", source, copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(copy).unwrap(), bytes, "and reads as the image");
}

#[tokio::test]
async fn qemus_user_can_pass_and_nobody_else_can_read() {
    let agent = Agent::start().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    for folder in ["", "images", "disks"] {
        assert_eq!(mode(agent.root.join(folder)) & 0o011, 0o011, "{folder:?}");
    }
    assert_eq!(mode(agent.root.join("disks").join(GUEST)), 0o711);
    assert_eq!(mode(disk_path(&agent, 0)), 0o600);
    assert_eq!(mode(agent.root.join(format!("disks/{GUEST}/owner.json"))), 0o600);
    assert_eq!(mode(agent.socket.clone()), 0o600);
}

#[tokio::test]
async fn a_disk_that_held_data_is_never_made_again() {
    let agent = Agent::start().await;
    agent.store_image().await;
    let asked = guest("1.1", &[(IMAGE, 0), ("", 1)]);
    let never_made = agent.guest("CreateGuestDisks", &provisioned(asked.clone())).await;
    fails(never_made, FaultCode::Lost, "disk 0");
    assert!(agent.names("disks").is_empty(), "and nothing was made");

    agent.guest("CreateGuestDisks", &asked).await.unwrap();
    std::fs::remove_file(disk_path(&agent, 1)).unwrap();
    agent.guest("CreateGuestDisks", &asked).await.expect("before the first success it is made again");
    agent.guest("CreateGuestDisks", &provisioned(asked.clone())).await.expect("all are there");

    std::fs::remove_file(disk_path(&agent, 1)).unwrap();
    fails(agent.guest("CreateGuestDisks", &provisioned(asked.clone())).await, FaultCode::Lost, "disk 1");
    // The record beside the disks remembers, even when a later order does not.
    fails(agent.guest("CreateGuestDisks", &asked).await, FaultCode::Lost, "disk 1");
    assert!(!disk_path(&agent, 1).exists());
    assert!(disk_path(&agent, 0).exists(), "what is left is left alone");
}

#[tokio::test]
async fn another_life_neither_takes_nor_removes_disks() {
    let agent = Agent::start().await;
    agent.guest("CreateGuestDisks", &guest("1.5", &[("", 1)])).await.unwrap();
    let before = mark(&agent, 0);
    let newer = guest("1.9", &[("", 1)]);
    fails(agent.guest("CreateGuestDisks", &newer).await, FaultCode::Conflict, "1.5");
    fails(agent.guest("DeleteGuestsDisks", &newer).await, FaultCode::Conflict, "1.5");
    let untrue = agent.guest_with("DeleteGuestsDisks", &newer, &[("any_life", "yes")]).await;
    fails(untrue, FaultCode::Conflict, "1.5");
    assert_eq!(mark(&agent, 0), before);

    let undone = agent.guest("DeleteGuestsDisks", &guest("1.5", &[("", 1)])).await.unwrap();
    assert!(undone.disks.is_empty());
    assert!(agent.names("disks").is_empty(), "the own life's undo removes them");
    agent.guest("DeleteGuestsDisks", &guest("1.5", &[])).await.expect("absent is fine");

    agent.guest("CreateGuestDisks", &guest("1.5", &[("", 1)])).await.unwrap();
    agent.guest_with("DeleteGuestsDisks", &newer, &[("any_life", "true")]).await.unwrap();
    assert!(agent.names("disks").is_empty(), "a guest's delete removes every life");
}

#[tokio::test]
async fn another_clouds_disks_are_not_touched() {
    let agent = Agent::start().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
    let mut stranger = guest("1.1", &[("", 1)]);
    stranger.haar.as_mut().unwrap().cloud = "cloud-b".to_owned();
    for method in ["CreateGuestDisks", "DeleteGuestsDisks"] {
        let refused = agent.guest_with(method, &stranger, &[("any_life", "true")]).await;
        fails(refused, FaultCode::Conflict, "cloud-b");
    }
    // The same when the record beside the disks names the other cloud.
    let record = agent.root.join(format!("disks/{GUEST}/owner.json"));
    let text = std::fs::read_to_string(&record).unwrap().replace(CLOUD, "cloud-c");
    std::fs::write(&record, text).unwrap();
    let ours = guest("1.1", &[("", 1)]);
    for method in ["CreateGuestDisks", "DeleteGuestsDisks"] {
        let refused = agent.guest_with(method, &ours, &[("any_life", "true")]).await;
        fails(refused, FaultCode::Conflict, "cloud-c");
    }
    assert!(disk_path(&agent, 0).exists());
}

#[tokio::test]
async fn disks_without_a_readable_owner_are_left_to_an_operator() {
    let agent = Agent::start().await;
    let asked = guest("1.1", &[("", 1)]);
    agent.guest("CreateGuestDisks", &asked).await.unwrap();
    let record = agent.root.join(format!("disks/{GUEST}/owner.json"));
    std::fs::write(&record, "{").unwrap();
    for method in ["CreateGuestDisks", "DeleteGuestsDisks"] {
        fails(agent.guest(method, &asked).await, FaultCode::Conflict, "operator");
    }
    assert!(disk_path(&agent, 0).exists());
    agent.guest_with("DeleteGuestsDisks", &asked, &[("any_life", "true")]).await.unwrap();
    assert!(agent.names("disks").is_empty(), "but the guest's delete can end");
}

#[tokio::test]
async fn a_folder_that_is_a_symlink_leads_nowhere() {
    let agent = Agent::start().await;
    let precious = agent.image_dir.join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), "x").unwrap();
    std::os::unix::fs::symlink(&precious, agent.root.join("disks").join(GUEST)).unwrap();
    fails(agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await, FaultCode::Conflict, "folder");
    let asked = guest("1.1", &[]);
    agent.guest_with("DeleteGuestsDisks", &asked, &[("any_life", "true")]).await.unwrap();
    assert!(precious.join("file").exists());
}

#[tokio::test]
async fn impossible_disks_are_refused_with_the_reason() {
    let agent = Agent::start().await;
    agent.store_image().await;
    for (disks, code, words) in [
        (&[][..], FaultCode::Invalid, "1 to 24"),
        (&[("", 1); 25], FaultCode::Invalid, "1 to 24"),
        (&[("", 1), ("", 0)], FaultCode::Invalid, "disk 1: a disk needs"),
        (&[(IMAGE, 3)], FaultCode::Invalid, "at least 4"),
        (&[(OTHER_IMAGE, 0)], FaultCode::NotFound, "request it first"),
        (&[("../../etc", 0)], FaultCode::Invalid, "UUID"),
        (&[("", 1 << 30)], FaultCode::Invalid, "limit"),
        (&[("", u64::MAX)], FaultCode::Invalid, "limit"),
        (&[("", 60 << 20)], FaultCode::NoSpace, "left to promise"),
        (&[("", 64 << 20); 24], FaultCode::NoSpace, "left to promise"),
    ] {
        for method in ["VerifyDisks", "CreateGuestDisks"] {
            fails(agent.guest(method, &guest("1.1", disks)).await, code, words);
        }
    }
    assert!(agent.names("disks").is_empty(), "{:?}", agent.names("disks"));
}

#[tokio::test]
async fn hostile_ids_reach_no_path() {
    let agent = Agent::start().await;
    let before = agent.names("");
    for id in [
        "",
        "..",
        "../images",
        "/etc",
        "a/b",
        "a\0b",
        "AAAAAAAA-AAAA-4AAA-8AAA-AAAAAAAAAAAA",
        &"a".repeat(5000),
    ] {
        let hostile = rpc::Guest { id: id.to_owned(), ..guest("1.1", &[("", 1)]) };
        for method in ["VerifyDisks", "CreateGuestDisks", "DeleteGuestsDisks"] {
            let refused = agent.guest_with(method, &hostile, &[("any_life", "true")]).await;
            fails(refused, FaultCode::Invalid, "UUID");
        }
    }
    assert_eq!(agent.names(""), before);
    assert!(agent.names("disks").is_empty());
}

#[tokio::test]
async fn a_seeds_agent_without_extras_gets_disks_too() {
    let agent = Agent::start().await;
    let mut plain = guest("", &[("", 1)]);
    plain.haar = None;
    let made = agent.guest("CreateGuestDisks", &plain).await.unwrap();
    assert_eq!(made.disks[0].volume, format!("guests/{GUEST}/disk-0"));
    agent.guest("DeleteGuestsDisks", &plain).await.unwrap();
    assert!(agent.names("disks").is_empty());
    let nobody: Result<rpc::GuestResponse, _> =
        agent.call("CreateGuestDisks", &rpc::GuestRequest::default()).await;
    fails(nobody, FaultCode::Invalid, "no guest");
}

#[tokio::test]
async fn many_calls_for_one_guest_make_its_disks_once() {
    let agent = std::sync::Arc::new(Agent::start().await);
    agent.store_image().await;
    let mut calls = Vec::new();
    for _ in 0..12 {
        let agent = std::sync::Arc::clone(&agent);
        calls.push(tokio::spawn(async move {
            agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0), ("", 2)])).await.unwrap();
            mark(&agent, 0)
        }));
    }
    let mut marks = Vec::new();
    for call in calls {
        marks.push(call.await.unwrap());
    }
    marks.dedup();
    assert_eq!(marks.len(), 1, "the disk was made more than once");
    assert_eq!(agent.names("disks"), [GUEST]);
}

#[tokio::test]
async fn a_guests_creates_and_deletes_never_meet() {
    let agent = std::sync::Arc::new(Agent::start().await);
    for _ in 0..12 {
        let mut calls = Vec::new();
        for number in 0..40 {
            let agent = std::sync::Arc::clone(&agent);
            calls.push(tokio::spawn(async move {
                let method = if number % 2 == 0 { "CreateGuestDisks" } else { "DeleteGuestsDisks" };
                agent.guest(method, &guest("1.1", &[("", 1), ("", 1)])).await
            }));
        }
        for call in calls {
            call.await.unwrap().expect("each finds the guest with all its disks or with none");
        }
    }
}

#[tokio::test]
async fn a_clone_whose_base_is_gone_says_so() {
    let agent = Agent::start().await;
    agent.store_image().await;
    let asked = guest("1.1", &[(IMAGE, 0)]);
    agent.guest("CreateGuestDisks", &asked).await.unwrap();
    std::fs::remove_file(agent.root.join(format!("images/{IMAGE}.qcow2"))).unwrap();
    fails(agent.guest("CreateGuestDisks", &asked).await, FaultCode::NotFound, "request that image");
    agent.store_image().await;
    agent.guest("CreateGuestDisks", &asked).await.expect("the same content came back");
}

/// Spoils the file of a disk.
fn spoiled(path: &std::path::Path, how: &str) {
    let write = |bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    match how {
        "emptied" => write(b""),
        "overwritten" => write(&[0; 4096]),
        "cut" => write(&std::fs::read(path).unwrap()[..50]),
        "without its base's name" => write(&std::fs::read(path).unwrap()[..120]),
        "of an impossible size" => {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[24..32].copy_from_slice(&u64::MAX.to_be_bytes());
            write(&bytes);
        }
        _ => {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }
    }
}

#[tokio::test]
async fn a_damaged_disk_costs_its_own_guest_and_no_other() {
    let agent = Agent::start().await;
    agent.store_image().await;
    let asked = guest("1.1", &[(IMAGE, 0)]);
    let everything = rpc::VolumeRequest::default();
    let other_guest = |disks| rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", disks) };
    for how in
        ["emptied", "overwritten", "cut", "without its base's name", "of an impossible size", "a folder"]
    {
        agent.guest("CreateGuestDisks", &asked).await.unwrap();
        agent.guest("CreateGuestDisks", &other_guest(&[("", 1)])).await.unwrap();
        spoiled(&disk_path(&agent, 0), how);

        let listed: rpc::VolumeResponse = agent.call("ListVolumes", &everything).await.expect(how);
        let damages: Vec<_> =
            listed.volumes.iter().map(|volume| !volume.haar.as_ref().unwrap().damage.is_empty()).collect();
        assert_eq!(damages, [true, false], "{how}: {listed:?}");
        assert_eq!(listed.volumes[0].haar.as_ref().unwrap().life, "1.1");
        let _: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.expect(how);
        agent.guest("CreateGuestDisks", &other_guest(&[("", 1), (IMAGE, 0)])).await.expect(how);
        agent.guest("DeleteGuestsDisks", &other_guest(&[])).await.expect(how);

        fails(agent.guest("CreateGuestDisks", &asked).await, FaultCode::Failed, "disk-0.qcow2");
        let held_data = provisioned(asked.clone());
        fails(agent.guest("CreateGuestDisks", &held_data).await, FaultCode::Lost, "backup");
        assert!(disk_path(&agent, 0).exists(), "what is left is left alone");
        let named = rpc::ImageRequest { id: IMAGE.to_owned(), ..Default::default() };
        fails(agent.image("DeleteImage", &named).await, FaultCode::Conflict, "may be the base");
        agent.guest("DeleteGuestsDisks", &asked).await.expect(how);
    }
}

#[tokio::test]
async fn an_unreadable_owner_or_a_file_for_a_folder_hides_no_other_guest() {
    let agent = Agent::start().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
    std::fs::write(agent.root.join("disks").join(OTHER_GUEST), "no folder").unwrap();
    let record = agent.root.join(format!("disks/{GUEST}/owner.json"));
    std::fs::remove_file(&record).unwrap();
    std::fs::create_dir(&record).unwrap();
    let listed: rpc::VolumeResponse =
        agent.call("ListVolumes", &rpc::VolumeRequest::default()).await.unwrap();
    assert_eq!(listed.volumes.len(), 1);
    assert_eq!(listed.volumes[0].haar.as_ref().unwrap().life, "", "whose it is cannot be told");
}

#[tokio::test]
async fn an_image_stays_in_use_when_the_folder_is_moved_behind_a_symlink() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("storage"), folder.path().join("elsewhere"));
    let agent = Agent::start_in(folder.path()).await;
    agent.store_image().await;
    let asked = guest("1.1", &[(IMAGE, 0)]);
    agent.guest("CreateGuestDisks", &asked).await.unwrap();
    agent.stop().await;
    std::fs::rename(&old, &new).unwrap();
    std::os::unix::fs::symlink(&new, &old).unwrap();

    let agent = Agent::start_in(folder.path()).await;
    let kept = agent.guest("CreateGuestDisks", &asked).await.unwrap();
    assert!(kept.disks[0].source.starts_with(new.canonicalize().unwrap().to_str().unwrap()));
    let named = rpc::ImageRequest { id: IMAGE.to_owned(), ..Default::default() };
    fails(agent.image("DeleteImage", &named).await, FaultCode::Conflict, "1 disks");
    assert!(new.join(format!("images/{IMAGE}.qcow2")).exists());
}
