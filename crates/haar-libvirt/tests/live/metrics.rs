//! What is counted of a guest that really runs, and a guest that is paused.

use std::time::Duration;

use haar_api::rpc::{FaultCode, Nic};
use serde_json::{Value, json};

use crate::harness::{Agent, code, until};
use crate::libvirtd::{guest_on_qcow2, system};

async fn measured(agent: &Agent, method: &str, guest: &haar_api::rpc::Guest) -> Value {
    agent.raw(method, &json!({"guest": guest, "type": "any"})).await.unwrap()
}

fn cpu_seconds(answer: &Value) -> (f64, f64) {
    let list = answer["cpu"].as_array().expect("a list of CPUs");
    let sum = |name: &str| list.iter().map(|cpu| cpu[name].as_f64().unwrap()).sum();
    (sum("cpu_time"), sum("vcpu_time"))
}

#[tokio::test]
async fn v14_a_running_guest_is_measured_in_the_seeds_units() {
    let Some((_libvirtd, agent)) = system("metrics").await else { return };
    let mut guest = guest_on_qcow2(&agent, "1.5");
    guest.nics = vec![
        Nic { name: "eth0".into(), network: "br0".into(), mac: "02:00:00:00:00:01".into(), ..Nic::default() },
        Nic { network: "br0".into(), mac: "02:00:00:00:00:02".into(), ..Nic::default() },
    ];
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    for kind in ["CPU", "Disk", "Nic"] {
        let off = agent.raw(&format!("Libvirt.{kind}Metrics"), &json!({"guest": guest})).await.unwrap_err();
        assert_eq!(off.code, FaultCode::Invalid, "{kind}: {off}");
    }
    agent.call("Libvirt.Run", &guest).await.unwrap();

    let (before, _) = cpu_seconds(&measured(&agent, "Libvirt.CPUMetrics", &guest).await);
    // The firmware looks for a boot sector, and finds none.
    until("the guest read from its disk and used CPU time", async || {
        let disks = measured(&agent, "Libvirt.DiskMetrics", &guest).await;
        let (cpu, vcpu) = cpu_seconds(&measured(&agent, "Libvirt.CPUMetrics", &guest).await);
        disks["disk"]["vda"]["read_ops"].as_i64().unwrap() > 0 && cpu > before && vcpu > 0.0
    })
    .await;
    let disks = measured(&agent, "Libvirt.DiskMetrics", &guest).await;
    let (disk, names) = (&disks["disk"]["vda"], disks["disk"].as_object().unwrap());
    assert_eq!((names.len(), &disks["type"], &disks["guest"]), (1, &json!("disk"), &Value::Null), "no seed");
    assert_eq!(disk["disk"], "vda");
    assert!(disk["read_bytes"].as_i64().unwrap() >= 512, "{disk}");
    let seconds = disk["read_time"].as_f64().unwrap();
    assert!(seconds > 0.0 && seconds < 60.0, "{disk}");
    let (cpu, vcpu) = cpu_seconds(&measured(&agent, "Libvirt.CPUMetrics", &guest).await);
    assert!(cpu < 600.0 && vcpu <= cpu * 1.1, "seconds: {cpu} {vcpu}");

    let nics = measured(&agent, "Libvirt.NicMetrics", &guest).await;
    assert_eq!(nics["nic"]["eth0"]["name"], "eth0");
    assert_eq!(nics["nic"]["vnet1"]["name"], "vnet1", "{nics}");
    assert_eq!(nics["nic"]["eth0"].as_object().unwrap().len(), 9);
}

#[tokio::test]
async fn a_suspended_guest_stands_still_until_it_is_resumed() {
    let Some((_libvirtd, agent)) = system("suspend").await else { return };
    let guest = guest_on_qcow2(&agent, "1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    for method in ["Libvirt.Suspend", "Libvirt.Resume"] {
        assert_eq!(code(agent.call(method, &guest).await), FaultCode::Invalid, "{method}");
    }
    agent.call("Libvirt.Run", &guest).await.unwrap();
    for (method, state, reason) in [
        ("Libvirt.Resume", "running", "booted"),
        ("Libvirt.Suspend", "paused", "user"),
        ("Libvirt.Suspend", "paused", "user"),
    ] {
        let answer = agent.call(method, &guest).await.unwrap();
        assert_eq!((answer.state.as_str(), answer.haar.unwrap().state_reason.as_str()), (state, reason));
    }
    let (_, before) = cpu_seconds(&measured(&agent, "Libvirt.CPUMetrics", &guest).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (_, after) = cpu_seconds(&measured(&agent, "Libvirt.CPUMetrics", &guest).await);
    assert!(after - before < 0.05, "a paused guest used {} s", after - before);
    assert_eq!(agent.call("Libvirt.Resume", &guest).await.unwrap().state, "running");
}
