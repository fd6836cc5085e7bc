//! The zfs back end where ZFS makes volumes: disks are block devices. On a host without them against a `zfs` of the
//! test's own, whose volumes are sparse files on loop devices; what is no volume is the real ZFS's. Needs root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use haar_api::rpc::{self, FaultCode};
use haar_subagents::storage::Backend;

use crate::harness::*;
use crate::http::http;
use crate::snapshots::{Held, ask, content, disk, new, of, write};
use crate::zfs::{Zfs, has_volumes};

const DEVICES: &str = "/dev/zvol";

/// A pool whose volumes are files. Its devices go with it.
struct Volumes {
    pool: Zfs,
    folder: tempfile::TempDir,
}

impl Volumes {
    /// None, and said, where they cannot be had.
    fn mount() -> Option<Self> {
        let pool = Zfs::mount()?;
        if !Command::new("losetup").arg("--find").output().is_ok_and(|output| output.status.success()) {
            may_be_left_out("there is no loop device to be had; run as root with loop devices");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::var("PATH").unwrap();
        let real = path.split(':').map(|folder| Path::new(folder).join("zfs")).find(|path| path.is_file());
        let store = folder.path().join("store");
        let script = include_str!("volumes.sh")
            .replace("real=REAL", &format!("real={}", real.unwrap().display()))
            .replace("store=STORE", &format!("store={}", store.display()));
        let program = folder.path().join("bin/zfs");
        for made in [&store, &folder.path().join("bin"), &Path::new(DEVICES).join(pool.pool())] {
            std::fs::create_dir_all(made).unwrap();
        }
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Some(Volumes { pool, folder })
    }

    async fn agent(&self) -> Agent {
        let programs = self.folder.path().join("bin");
        Agent::start_before(self.pool.folder(), Backend::Zfs, programs.to_str().unwrap()).await
    }

    fn zfs(&self, words: &[&str]) -> String {
        let output = Command::new(self.folder.path().join("bin/zfs")).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn get(&self, property: &str, dataset: &str) -> String {
        self.zfs(&["get", "-H", "-o", "value", property, dataset])
    }

    /// What begins so, without what all names begin with.
    fn names(&self, prefix: &str) -> Vec<String> {
        let listed =
            self.zfs(&["list", "-H", "-r", "-d", "1", "-t", "volume", "-o", "name,type", self.pool.pool()]);
        let before = format!("{}/haar-", self.pool.pool());
        let names = listed.lines().map(|line| line.split('\t').next().unwrap().replace(&before, ""));
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// From now on ZFS has no room for what has this among its words.
    fn refuse(&self, words: &str) {
        std::fs::write(self.folder.path().join("store/refused"), words).unwrap();
    }

    fn refuse_no_more(&self) {
        std::fs::remove_file(self.folder.path().join("store/refused")).unwrap();
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        let devices = Path::new(DEVICES).join(self.pool.pool());
        for volume in std::fs::read_dir(self.folder.path().join("store")).into_iter().flatten().flatten() {
            // By their files: a test may have removed a device's name.
            let words = ["--noheadings", "--output", "NAME", "--associated"];
            let found = Command::new("losetup").args(words).arg(volume.path().join("data")).output();
            for device in found.iter().flat_map(|found| found.stdout.split(u8::is_ascii_whitespace)) {
                let _ = Command::new("losetup").arg("-d").arg(OsStr::from_bytes(device)).output();
            }
        }
        let _ = std::fs::remove_dir_all(&devices);
        // Others may have volumes.
        let _ = std::fs::remove_dir(DEVICES);
    }
}

/// The dataset of a disk that is a volume.
fn dataset(made: &rpc::Disk) -> &str {
    made.source.strip_prefix("/dev/zvol/").unwrap_or_else(|| panic!("{} is no volume", made.source))
}

fn is_device(made: &rpc::Disk) -> bool {
    std::fs::metadata(&made.source).unwrap().file_type().is_block_device()
}

async fn download(agent: &Agent, id: &str, fields: &[(&str, &str)]) -> crate::http::Answer {
    http(&agent.socket, "POST /snapshots/download", fields, &serde_json::to_vec(&of(id)).unwrap()).await
}

fn resize(size: u64) -> rpc::VolumeRequest {
    rpc::VolumeRequest { id: disk(0), size }
}

#[tokio::test]
async fn new_disks_are_volumes_that_the_pool_keeps_room_for() {
    let Some(volumes) = Volumes::mount() else {
        return;
    };
    let agent = volumes.agent().await;
    agent.store_image().await;
    let asked = guest("1.1", &[(IMAGE, 8), (IMAGE, 0), ("", 2)]);
    let made = agent.guest("CreateGuestDisks", &asked).await.unwrap();
    for (disk, size) in made.disks.iter().zip([8, 4, 2]) {
        assert!(is_device(disk), "{}", disk.source);
        let extra = disk.haar.as_ref().unwrap();
        assert_eq!((extra.format.as_str(), disk.size, extra.size_bytes), ("raw", size, size * MIB));
        assert_eq!(volumes.get("refreservation", dataset(disk)), "auto");
        assert_eq!(volumes.get("volmode", dataset(disk)), "dev", "nothing on the host looks into it");
        let mount = agent.root.join("zfs").join(dataset(disk).rsplit_once("haar-").unwrap().1);
        assert_eq!(volumes.get("haar:mount", dataset(disk)), mount.to_str().unwrap());
    }
    let image = raw_image(4 * MIB);
    let bytes = content(&made.disks[0]);
    assert!(bytes.len() as u64 == 8 * MIB && bytes.starts_with(&image));
    assert!(bytes[image.len()..].iter().all(|byte| *byte == 0));
    assert!(content(&made.disks[1]) == image);
    let base = format!("{}/haar-image-{IMAGE}", volumes.pool.pool());
    assert_eq!(volumes.get("type", &format!("{base}@base")), "snapshot");
    assert_eq!(
        (volumes.get("refreservation", &base), volumes.get("readonly", &base)),
        ("none".into(), "on".into())
    );
    assert_eq!(volumes.names("").len(), 4, "what was made to try is gone: {:?}", volumes.names(""));

    let too_large = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[("", 2000)]) };
    fails(agent.guest("CreateGuestDisks", &too_large).await, FaultCode::NoSpace, "left to promise");
    let named = rpc::ImageRequest { id: IMAGE.into(), ..Default::default() };
    fails(agent.image("DeleteImage", &named).await, FaultCode::Conflict, "is the base of 2 disks");
    agent.stop().await;
    let agent = volumes.agent().await;
    let kept = agent.guest("CreateGuestDisks", &provisioned(asked)).await.unwrap();
    assert_eq!(kept.disks, made.disks, "all of it is on the disk");
    agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
    agent.image("DeleteImage", &named).await.unwrap();
    assert!(volumes.names("").is_empty() && agent.names("zfs").is_empty() && agent.names("disks").is_empty());
}

#[tokio::test]
async fn a_volume_is_snapshotted_grown_rolled_back_and_downloaded() {
    let Some(volumes) = Volumes::mount() else {
        return;
    };
    let agent = volumes.agent().await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 4)])).await.unwrap().disks;
    write(&made[0], 7, 1);
    let before = content(&made[0]);
    let taken = ask(&agent, "CreateSnapshot", &new(&disk(0), "first")).await.unwrap();
    assert_eq!((taken[0].size, taken[0].haar.as_ref().unwrap().size_bytes), (4, 4 * MIB));
    let grown: rpc::VolumeResponse = agent.call("ResizeVolume", &resize(6)).await.unwrap();
    assert_eq!((grown.volumes[0].size, volumes.get("refreservation", dataset(&made[0]))), (6, "auto".into()));
    write(&made[0], 9, 5);
    write(&made[0], 9, 1);
    ask(&agent, "CreateSnapshot", &new(&disk(0), "second")).await.unwrap();

    let held = Held::of(&made[0]).await;
    let back = of(&format!("{}@first", disk(0)));
    let back = rpc::SnapshotRequest { destroy_more_recent: true, ..back };
    fails(ask(&agent, "RollbackSnapshot", &back).await, FaultCode::Conflict, "shut the guest off");
    fails(
        ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await,
        FaultCode::Conflict,
        "shut the guest off",
    );
    let refused: Result<rpc::VolumeResponse, _> = agent.call("ResizeVolume", &resize(7)).await;
    fails(refused, FaultCode::Conflict, "shut the guest off");
    fails(
        agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await,
        FaultCode::Unavailable,
        "QEMU holds it",
    );
    let want = Some(rpc::SnapshotWant { quiet: true, ..Default::default() });
    let quiet = rpc::SnapshotRequest { haar: want, ..new(&disk(0), "quiet") };
    ask(&agent, "CreateSnapshot", &quiet)
        .await
        .expect("a snapshot needs only that nothing is written meanwhile");
    let whole = download(&agent, &format!("{}@first", disk(0)), &[]).await;
    assert!(whole.status == 200 && whole.body == before, "{}", whole.status);
    drop(held);
    // Who only looks at it is no guest.
    let looked_at = std::fs::File::open(&made[0].source).unwrap();
    let range = [("range", "bytes=1048570-3145735")];
    let part = download(&agent, &format!("{}@first", disk(0)), &range).await;
    assert!(part.status == 206 && part.body == before[1_048_570..=3_145_735], "{}", part.status);
    until("clones go with their readers", || volumes.names("read-").is_empty()).await;

    assert_eq!(ask(&agent, "RollbackSnapshot", &back).await.unwrap(), taken);
    drop(looked_at);
    assert!(content(&made[0]) == before, "the disk is what it was, and as large");
    let left = ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap();
    assert!(left.len() == 1 && left[0].id.ends_with("@first"), "{left:?}");
    let seen: rpc::VolumeResponse = agent.call("GetVolume", &resize(0)).await.unwrap();
    assert_eq!((seen.volumes[0].size, seen.volumes[0].device.as_str()), (4, made[0].source.as_str()));
    ask(&agent, "DeleteSnapshot", &of(&format!("{}@first", disk(0)))).await.unwrap();
    assert!(content(&made[0]) == before, "a deletion changes nothing that stands");
    agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
    assert!(volumes.names("").is_empty() && agent.names("zfs").is_empty());
}

#[tokio::test]
async fn a_volume_without_room_is_not_made_and_does_not_grow() {
    let Some(volumes) = Volumes::mount() else {
        return;
    };
    let agent = volumes.agent().await;
    volumes.refuse("create -V 4194304");
    let wanted = agent.import(IMAGE, "sound.qcow2", "qcow2", &qcow2_image());
    fails(agent.fetch(&wanted).await, FaultCode::NoSpace, "out of space");
    assert!(volumes.names("").is_empty() && agent.names("zfs").is_empty());
    volumes.refuse_no_more();
    agent.fetch(&wanted).await.unwrap();

    let asked = guest("1.1", &[(IMAGE, 8), ("", 2)]);
    // The clone is made, and its room is not to be had.
    for act in ["volsize=8388608", "create -V 2097152"] {
        volumes.refuse(act);
        fails(agent.guest("CreateGuestDisks", &asked).await, FaultCode::NoSpace, "out of space");
        assert!(volumes.names("disk-").is_empty() && agent.names("disks").is_empty(), "{act}");
        assert_eq!(agent.names("zfs"), [format!("image-{IMAGE}")], "{act}");
    }
    volumes.refuse_no_more();
    agent.guest("CreateGuestDisks", &asked).await.unwrap();
    volumes.refuse("volsize=9437184");
    let refused: Result<rpc::VolumeResponse, _> = agent.call("ResizeVolume", &resize(9)).await;
    fails(refused, FaultCode::NoSpace, "out of space");
    let seen: rpc::VolumeResponse = agent.call("GetVolume", &resize(0)).await.unwrap();
    assert_eq!(seen.volumes[0].size, 8);
    volumes.refuse("@s");
    fails(ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await, FaultCode::NoSpace, "out of space");
    assert!(ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_disk_stays_a_file_or_a_volume_as_it_was_made() {
    let Some(volumes) = Volumes::mount() else {
        return;
    };
    if has_volumes() {
        return may_be_left_out("this host's ZFS makes volumes, so no new disk is a file");
    }
    std::fs::remove_dir(Path::new(DEVICES).join(volumes.pool.pool())).unwrap();
    std::fs::remove_dir(DEVICES).unwrap();
    let agent = Agent::start_with(volumes.pool.folder(), Backend::Zfs).await;
    agent.store_image().await;
    let file = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap().disks;
    assert!(Path::new(&file[0].source).is_file());
    agent.stop().await;

    std::fs::create_dir_all(DEVICES).unwrap();
    let agent = volumes.agent().await;
    let kept =
        agent.guest("CreateGuestDisks", &provisioned(guest("1.1", &[(IMAGE, 0)]))).await.unwrap().disks;
    assert_eq!(kept, file);
    let other = |disks: &[(&str, u64)]| rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", disks) };
    let mixed = agent.guest("CreateGuestDisks", &other(&[("", 2), (IMAGE, 0)])).await.unwrap().disks;
    assert!(is_device(&mixed[0]));
    assert!(Path::new(&mixed[1].source).is_file(), "an image stays what it was made as");
    assert!(content(&mixed[1]) == content(&file[0]));
    write(&mixed[0], 5, 0);
    let both = of(&format!("guests/{OTHER_GUEST}@s"));
    ask(&agent, "CreateSnapshot", &new(&format!("guests/{OTHER_GUEST}"), "s")).await.unwrap();
    for made in &mixed {
        write(made, 6, 0);
    }
    ask(&agent, "RollbackSnapshot", &both).await.unwrap();
    assert_eq!((content(&mixed[0])[0], content(&mixed[1])[0]), (5, content(&file[0])[0]));
    assert_eq!(download(&agent, &both.id, &[]).await.status, 200);
    agent.stop().await;

    // ZFS takes the command and no device comes of it: new disks are files again, and the volume is still one.
    std::fs::write(volumes.folder.path().join("store/no-devices"), "").unwrap();
    let agent = volumes.agent().await;
    assert!(volumes.names("read-").is_empty(), "what was made to try is gone");
    let kept =
        agent.guest("CreateGuestDisks", &provisioned(other(&[("", 2), (IMAGE, 0)]))).await.unwrap().disks;
    assert_eq!((kept[0].source.as_str(), kept[1].source.as_str()), (&*mixed[0].source, &*mixed[1].source));
    agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
    let file = agent.guest("CreateGuestDisks", &guest("1.2", &[("", 2)])).await.unwrap().disks;
    assert!(Path::new(&file[0].source).is_file());
}

#[tokio::test]
async fn half_of_a_volume_is_gone_after_the_start_and_strangers_stay() {
    let Some(volumes) = Volumes::mount() else {
        return;
    };
    let agent = volumes.agent().await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 4), ("", 4)])).await.unwrap().disks;
    write(&made[0], 5, 0);
    let other = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[("", 4)]) };
    agent.guest("CreateGuestDisks", &other).await.unwrap();
    let (disks, root) = (agent.root.join("disks"), agent.root.clone());
    agent.stop().await;
    // As when killed while a disk, and another guest, were being removed; and a clone for a download.
    std::fs::rename(disks.join(GUEST).join("disk-1.zfs"), disks.join(GUEST).join(".disk-1.zfs")).unwrap();
    std::fs::rename(disks.join(OTHER_GUEST), disks.join(".gone-x")).unwrap();
    // And while one was being made: the link to its device was there, and no volume yet.
    let half = root.join("zfs/disk-half");
    std::fs::create_dir(&half).unwrap();
    symlink("/dev/zvol/none", half.join("disk.raw")).unwrap();
    symlink(half.join("disk.raw"), disks.join(GUEST).join(".disk-2.zfs")).unwrap();
    let elsewhere = PathBuf::from("/another/storage/zfs/read-y");
    for (name, of) in [("read-x", root.join("zfs/read-x")), ("read-y", elsewhere)] {
        let (mark, name) =
            (format!("haar:mount={}", of.display()), format!("{}/haar-{name}", volumes.pool.pool()));
        volumes.zfs(&["create", "-V", "1048576", "-o", &mark, &name]);
    }
    let agent = volumes.agent().await;
    assert_eq!(volumes.names("read-"), ["read-y"], "another storage's is left alone");
    assert_eq!(volumes.names("disk-").len(), 1);
    assert_eq!((agent.names("disks"), agent.names("zfs").len()), (vec![GUEST.to_owned()], 1));
    assert!(content(&made[0])[0] == 5);
    let (theirs, later) = (format!("{}@nightly", dataset(&made[0])), format!("{}@later", dataset(&made[0])));
    volumes.zfs(&["snapshot", &theirs]);
    ask(&agent, "CreateSnapshot", &new(&disk(0), "ours")).await.unwrap();
    volumes.zfs(&["snapshot", &later]);
    assert_eq!(ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap().len(), 1);
    let back = of(&format!("{}@ours", disk(0)));
    fails(ask(&agent, "RollbackSnapshot", &back).await, FaultCode::Conflict, "not Haar's (later)");
}

#[tokio::test]
async fn a_device_that_is_not_there_is_not_taken_for_lost() {
    let Some(volumes) = Volumes::mount() else {
        return;
    };
    let agent = volumes.agent().await;
    let asked = guest("1.1", &[("", 4)]);
    let made = agent.guest("CreateGuestDisks", &asked).await.unwrap().disks;
    write(&made[0], 5, 0);
    let other = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[("", 4)]) };
    agent.guest("CreateGuestDisks", &other).await.unwrap();
    agent.stop().await;
    let device = std::fs::read_link(&made[0].source).unwrap();
    std::fs::remove_file(&made[0].source).unwrap();
    let agent = volumes.agent().await;
    let refused = agent.guest("CreateGuestDisks", &provisioned(asked.clone())).await;
    fails(refused, FaultCode::Unavailable, "udevadm trigger");
    agent.guest("CreateGuestDisks", &provisioned(other)).await.expect("the others go on");
    let listed: rpc::VolumeResponse =
        agent.call("ListVolumes", &rpc::VolumeRequest::default()).await.unwrap();
    assert!(listed.volumes.iter().all(|volume| volume.haar.as_ref().unwrap().damage.is_empty()));
    symlink(device, &made[0].source).unwrap();
    agent.guest("CreateGuestDisks", &provisioned(asked.clone())).await.unwrap();
    assert_eq!(content(&made[0])[0], 5);
    // Somebody destroyed it: that is another thing.
    volumes.zfs(&["destroy", dataset(&made[0])]);
    let refused = agent.guest("CreateGuestDisks", &provisioned(asked)).await;
    fails(refused, FaultCode::Lost, "its volume is gone");
}

#[tokio::test]
async fn a_rollback_of_volumes_that_was_cut_in_two_is_finished_at_once_or_never() {
    let Some(volumes) = Volumes::mount() else {
        return;
    };
    for (age_s, first_byte) in [(0, 1), (600, 2)] {
        let agent = volumes.agent().await;
        let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 4), ("", 4)])).await.unwrap().disks;
        for made in &made {
            write(made, 1, 0);
        }
        ask(&agent, "CreateSnapshot", &new(&format!("guests/{GUEST}"), "before")).await.unwrap();
        for made in &made {
            write(made, 2, 0);
        }
        let record = agent.root.join(format!("disks/{GUEST}/pending.json"));
        agent.stop().await;
        std::fs::write(&record, r#"{"v":1,"act":"roll_back","name":"before","disks":[0,1]}"#).unwrap();
        let written = SystemTime::now() - Duration::from_secs(age_s);
        std::fs::File::open(&record).unwrap().set_modified(written).unwrap();
        let agent = volumes.agent().await;
        assert!(!record.exists());
        assert!(made.iter().all(|made| content(made)[0] == first_byte), "after {age_s} s");
        agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
    }
}

#[tokio::test]
async fn on_zfs_of_the_kernel_a_disk_is_a_volume_from_its_making_to_its_end() {
    let Some(pool) = Zfs::mount() else { return };
    if !has_volumes() {
        return may_be_left_out(
            "this host's ZFS makes no volumes (zfs-fuse has none); install zfsutils-linux and the \
             kernel's module, then this is run on real ones",
        );
    }
    let agent = Agent::start_with(pool.folder(), Backend::Zfs).await;
    agent.store_image().await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 8), ("", 2)])).await.unwrap().disks;
    assert!(made.iter().all(is_device), "{made:?}");
    assert!(content(&made[0]).starts_with(&raw_image(4 * MIB)));
    write(&made[0], 7, 1);
    let before = content(&made[0]);
    ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await.unwrap();
    let grown: rpc::VolumeResponse = agent.call("ResizeVolume", &resize(12)).await.unwrap();
    assert_eq!(grown.volumes[0].size, 12);
    write(&made[0], 9, 1);
    let held = Held::of(&made[0]).await;
    let back = of(&format!("{}@s", disk(0)));
    fails(ask(&agent, "RollbackSnapshot", &back).await, FaultCode::Conflict, "shut the guest off");
    let whole = download(&agent, &back.id, &[]).await;
    assert!(whole.status == 200 && whole.body == before, "{}", whole.status);
    drop(held);
    ask(&agent, "RollbackSnapshot", &back).await.unwrap();
    assert!(content(&made[0]) == before, "the disk is what it was, and as large");
    agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
    agent.stop().await;
    let _again = Agent::start_with(pool.folder(), Backend::Zfs).await;
    let left: Vec<String> = pool.names().into_iter().filter(|name| name.contains("haar-")).collect();
    assert!(left.iter().all(|name| name.contains(&format!("haar-image-{IMAGE}"))), "{left:?}");
}
