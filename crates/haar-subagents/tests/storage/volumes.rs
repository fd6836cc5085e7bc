//! The seed's volume methods, and capacity.

use haar_api::rpc::{self, Fault, FaultCode};
use haar_subagents::kit;

use crate::harness::*;
use crate::http::begin;
use crate::killed::Process;
use crate::mounted::each;
use crate::snapshots::{Held, ask, new, of};
use crate::snapshots_killed::Gated;

fn named(id: &str, size: u64) -> rpc::VolumeRequest {
    rpc::VolumeRequest { id: id.to_owned(), size }
}

async fn volumes(
    agent: &Agent,
    method: &str,
    request: &rpc::VolumeRequest,
) -> Result<Vec<rpc::Volume>, Fault> {
    let response: rpc::VolumeResponse = agent.call(method, request).await?;
    Ok(response.volumes)
}

#[tokio::test]
async fn volumes_are_made_listed_and_removed_by_name() {
    let agent = Agent::start().await;
    let name = format!("guests/{OTHER_GUEST}/disk-3");
    let made = volumes(&agent, "CreateVolume", &named(&name, 5)).await.unwrap();
    assert_eq!((made[0].id.as_str(), made[0].size), (name.as_str(), 5));
    assert!(std::path::Path::new(&made[0].device).is_file());
    assert_eq!(volumes(&agent, "CreateVolume", &named(&name, 5)).await.unwrap(), made);
    fails(volumes(&agent, "CreateVolume", &named(&name, 6)).await, FaultCode::Conflict, "another size");
    fails(volumes(&agent, "CreateVolume", &named(&name, 0)).await, FaultCode::Invalid, "size");

    assert_eq!(volumes(&agent, "GetVolume", &named(&name, 0)).await.unwrap(), made);
    assert_eq!(volumes(&agent, "ListVolumes", &named("", 0)).await.unwrap(), made);
    let of_guest = named(&format!("guests/{OTHER_GUEST}"), 0);
    assert_eq!(volumes(&agent, "ListVolumes", &of_guest).await.unwrap(), made);
    fails(volumes(&agent, "GetVolume", &of_guest).await, FaultCode::Invalid, "one disk");

    for _ in 0..2 {
        volumes(&agent, "DeleteDataset", &named(&name, 0)).await.unwrap();
        assert!(agent.names("disks").is_empty(), "the last disk takes its folder with it");
    }
    fails(volumes(&agent, "GetVolume", &named(&name, 0)).await, FaultCode::NotFound, "disk-3");
}

#[tokio::test]
async fn a_volume_that_is_in_use_is_not_removed() {
    for (agent, _mount) in each().await {
        let name = format!("guests/{GUEST}/disk-0");
        let made = volumes(&agent, "CreateVolume", &named(&name, 2)).await.unwrap();
        let disk =
            rpc::Disk { source: made[0].device.clone(), haar: made[0].haar.clone(), ..rpc::Disk::default() };
        let held = Held::of(&disk).await;
        for id in [name.clone(), format!("guests/{GUEST}")] {
            let refused = volumes(&agent, "DeleteDataset", &named(&id, 0)).await;
            fails(refused, FaultCode::Unavailable, "QEMU holds it");
        }
        let everything =
            agent.guest_with("DeleteGuestsDisks", &guest("", &[]), &[("any_life", "true")]).await;
        fails(everything, FaultCode::Unavailable, "QEMU holds it");
        assert!(std::path::Path::new(&made[0].device).exists());
        drop(held);

        ask(&agent, "CreateSnapshot", &new(&name, "s")).await.unwrap();
        let body = serde_json::to_vec(&of(&format!("{name}@s"))).unwrap();
        // Large enough that it does not all fit into the socket.
        let larger = named(&name, 64);
        volumes(&agent, "ResizeVolume", &larger).await.unwrap();
        ask(&agent, "DeleteSnapshot", &of(&format!("{name}@s"))).await.unwrap();
        ask(&agent, "CreateSnapshot", &new(&name, "s")).await.unwrap();
        let mut stream = begin(&agent.socket, "POST /snapshots/download", &[], &body).await;
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut [0; 12]).await.unwrap();
        let refused = volumes(&agent, "DeleteDataset", &named(&name, 0)).await;
        fails(refused, FaultCode::Unavailable, "being downloaded");
        drop(stream);
        let deadline = tokio::time::Instant::now() + LIMIT;
        while volumes(&agent, "DeleteDataset", &named(&name, 0)).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "a client that went away still counts");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(agent.names("disks").is_empty());
    }
}

#[tokio::test]
async fn a_volume_that_cannot_be_made_keeps_no_guest_from_its_disks() {
    let agent = Agent::start().await;
    // What an earlier version left of a volume that was not made.
    let folder = agent.root.join("disks").join(GUEST);
    std::fs::create_dir(&folder).unwrap();
    let owner =
        format!(r#"{{"v":1,"guest":"{GUEST}","cloud":"{CLOUD}","life":"","order":"","provisioned":false}}"#);
    std::fs::write(folder.join("owner.json"), owner).unwrap();
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
    assert!(std::path::Path::new(&made.disks[0].source).is_file());

    let folder = tempfile::tempdir().unwrap();
    let failing = Gated::failing(folder.path(), "create*");
    let _process = Process::start(folder.path(), &[("PATH", &failing.path)]);
    let socket = folder.path().join("run/storage.sock");
    until_answers(&socket).await;
    let request = named(&format!("guests/{GUEST}/disk-0"), 1);
    let made: Result<rpc::VolumeResponse, _> =
        kit::call(&socket, "ImageStore.CreateVolume", &request, LIMIT).await;
    assert!(made.is_err());
    assert_eq!(std::fs::read_dir(folder.path().join("storage/disks")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_image_is_cloned_into_a_volume() {
    let agent = Agent::start().await;
    agent.store_image().await;
    let name = format!("guests/{OTHER_GUEST}/disk-0");
    let request = rpc::ImageRequest { id: IMAGE.into(), dest: name.clone(), ..Default::default() };
    let first: rpc::VolumeResponse = agent.call("CloneImage", &request).await.unwrap();
    assert_eq!((first.volumes[0].id.as_str(), first.volumes[0].size), (name.as_str(), 4));
    let again: rpc::VolumeResponse = agent.call("CloneImage", &request).await.unwrap();
    assert_eq!(first, again);
    let delete = rpc::ImageRequest { id: IMAGE.into(), ..Default::default() };
    fails(agent.image("DeleteImage", &delete).await, FaultCode::Conflict, &name);
}

#[tokio::test]
async fn a_placements_disks_are_seen_and_not_changed() {
    let agent = Agent::start().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
    let name = format!("guests/{GUEST}/disk-0");
    let seen = volumes(&agent, "GetVolume", &named(&name, 0)).await.unwrap();
    assert_eq!(seen[0].haar.as_ref().unwrap().life, "1.1");
    for id in [name, format!("guests/{GUEST}")] {
        let refused = volumes(&agent, "DeleteDataset", &named(&id, 0)).await;
        fails(refused, FaultCode::Conflict, "through the guest");
    }
    let second = named(&format!("guests/{GUEST}/disk-1"), 1);
    fails(volumes(&agent, "CreateVolume", &second).await, FaultCode::Conflict, "through the guest");
    for method in ["GetVolume", "CreateVolume", "DeleteDataset"] {
        for hostile in ["../x", "guests/../x", "images", ""] {
            fails(volumes(&agent, method, &named(hostile, 1)).await, FaultCode::Invalid, "no volume");
        }
    }
}

#[tokio::test]
async fn capacity_counts_bytes_and_keeps_a_reserve() {
    let agent = Agent::start().await;
    agent.store_image().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap();
    let capacity: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    assert!(capacity.images_bytes >= 4 * MIB, "{capacity:?}");
    assert!(capacity.disks_bytes > 0 && capacity.disks_bytes < MIB, "{capacity:?}");
    let all = capacity.free_bytes + capacity.disks_bytes;
    assert_eq!(capacity.total_bytes, all - all / 20);
}
