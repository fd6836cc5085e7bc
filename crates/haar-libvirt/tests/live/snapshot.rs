//! Snapshots inside the disks of a guest that runs.

use std::process::Command;

use haar_api::rpc::{Disk, FaultCode};
use serde_json::{Value, json};

use crate::libvirtd::{guest_on_qcow2, system};

fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn names(disk: &Disk) -> Vec<String> {
    let info: Value =
        serde_json::from_str(&qemu_img(&["info", "-U", "--output=json", &disk.source])).unwrap();
    let snapshots = info["snapshots"].as_array().cloned().unwrap_or_default();
    snapshots.iter().map(|snapshot| snapshot["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn all_disks_of_a_running_guest_are_snapshot_at_once_or_none() {
    let Some((_libvirtd, agent)) = system("snapshots").await else { return };
    let mut guest = guest_on_qcow2(&agent, "1.5");
    guest.disks.push(guest_on_qcow2(&agent, "1.5").disks.remove(0));
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let ask = async |method: &str, name: &str, devices: &[&str]| {
        agent.raw(method, &json!({"guest": guest, "name": name, "devices": devices})).await
    };
    let refused =
        async |name: &str, devices: &[&str]| ask("Libvirt.Snapshot", name, devices).await.unwrap_err().code;
    assert_eq!(refused("s1", &[]).await, FaultCode::Invalid, "it is off");
    agent.call("Libvirt.Run", &guest).await.unwrap();
    for (name, devices, code) in [("", vec![], FaultCode::Invalid), ("s1", vec!["vdz"], FaultCode::NotFound)]
    {
        assert_eq!(refused(name, &devices).await, code);
    }
    let taken = ask("Libvirt.Snapshot", "s1", &[]).await.unwrap();
    assert_eq!(ask("Libvirt.Snapshot", "s1", &[]).await.unwrap(), taken, "asked twice it is once");
    assert_eq!((taken["disks"].as_array().unwrap().len(), &taken["file_systems"]), (2, &json!(0)));
    assert_eq!(taken["disks"][1], json!({"device": "vdb", "source": guest.disks[1].source}));
    for disk in &guest.disks {
        assert_eq!(names(disk), ["s1"]);
    }
    ask("Libvirt.Snapshot", "one", &["vdb"]).await.unwrap();
    assert_eq!(refused("one", &[]).await, FaultCode::Conflict);
    assert_eq!((names(&guest.disks[0]), names(&guest.disks[1]).len()), (vec!["s1".to_owned()], 2));
    for _ in 0..2 {
        ask("Libvirt.DropSnapshot", "one", &[]).await.unwrap();
    }
    assert_eq!(names(&guest.disks[1]), ["s1"]);
    assert_eq!(agent.call("Libvirt.Status", &guest).await.unwrap().state, "running");

    agent.call("Libvirt.Poweroff", &guest).await.unwrap();
    for disk in &guest.disks {
        qemu_img(&["check", "-q", &disk.source]);
        qemu_img(&["snapshot", "-a", "s1", &disk.source]);
    }
}
