//! The original's defects of `mistify-wire` §4.3, by their numbers, that only a real libvirtd can show mended. V1, V6,
//! V9 and V11's parameters are beside the code; V4 with a real operating system and V11's frames are in `booted`; V5's
//! screen is in `screen`, V14 in `metrics`.

use haar_api::rpc::{FaultCode, Guest, Nic};

use crate::harness::{Agent, code, until};
use crate::libvirtd::{guest_on_qcow2, system};

const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/// As the seed's agent sends it, on two networks of the kernel's bridge `br0`.
fn foreign(like: &Guest) -> Guest {
    let nic = |mac: &str| Nic {
        name: format!("eth{}", &mac[16..]),
        network: "br0".into(),
        mac: mac.into(),
        model: "virtio".into(),
        ..Nic::default()
    };
    // QEMU opens it as raw, and is told nothing of formats.
    let disks = like
        .disks
        .iter()
        .map(|disk| haar_api::rpc::Disk { source: disk.source.clone(), ..haar_api::rpc::Disk::default() });
    Guest { haar: None, disks: disks.collect(), nics: MACS.map(nic).into(), ..like.clone() }
}

#[tokio::test]
async fn t64_t65_v2_v3_v10_networks_come_and_go_with_the_guest_whatever_state_they_are_in() {
    let Some((libvirtd, agent)) = system("T64, T65").await else { return };
    let guest = foreign(&agent.guest("1.5"));
    for _ in 0..2 {
        // V2: asked again it meets its own active networks; and it says the state.
        assert_eq!(agent.call("Libvirt.CreateGuest", &guest).await.unwrap().state, "shutoff");
        for mac in MACS {
            let words = libvirtd.virsh(&["net-info", mac]);
            for line in ["Active:         yes", "Persistent:     yes", "Autostart:      yes"] {
                assert!(words.contains(line), "{words}");
            }
        }
    }
    // V3: fewer nics asked about than there are, in another order, before and after the start.
    let one = Guest { nics: vec![guest.nics[1].clone()], ..guest.clone() };
    let running = agent.call("Libvirt.Run", &one).await.unwrap();
    assert_eq!((running.nics[0].device.as_str(), running.nics[0].name.as_str()), ("vnet1", "eth2"));
    let again = agent.call("Libvirt.Run", &guest).await.unwrap();
    let devices: Vec<_> = again.nics.iter().map(|nic| nic.device.as_str()).collect();
    assert_eq!((again.state.as_str(), devices), ("running", vec!["vnet0", "vnet1"]));

    // V10: one of the networks was stopped by somebody.
    agent.call("Libvirt.Poweroff", &guest).await.unwrap();
    libvirtd.virsh(&["net-destroy", MACS[0]]);
    let deleted = agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert_eq!(deleted.id, guest.id);
    assert_eq!(libvirtd.virsh(&["net-list", "--all", "--name"]).trim(), "");
    assert_eq!(libvirtd.virsh(&["list", "--all", "--name"]).trim(), "");
}

#[tokio::test]
async fn v2_a_guest_that_cannot_be_made_leaves_no_network() {
    let Some((libvirtd, agent)) = system("V2").await else { return };
    let mut guest = foreign(&agent.guest("1.5"));
    guest.nics[1].network = "no bridge's name".into();
    assert_eq!(code(agent.call("Libvirt.CreateGuest", &guest).await), FaultCode::Invalid);
    guest.nics[1].network = "br0".into();
    guest.memory = 0;
    assert_eq!(code(agent.call("Libvirt.CreateGuest", &guest).await), FaultCode::Invalid);
    assert_eq!(libvirtd.virsh(&["net-list", "--all", "--name"]).trim(), "");
    // What was there before stays.
    guest.memory = 64;
    agent
        .call("Libvirt.CreateGuest", &Guest { nics: vec![guest.nics[0].clone()], ..guest.clone() })
        .await
        .unwrap();
    agent.call("Libvirt.CreateGuest", &Guest { memory: 0, ..guest }).await.unwrap_err();
    assert_eq!(libvirtd.virsh(&["net-list", "--all", "--name"]).trim(), MACS[0]);
}

#[tokio::test]
async fn v11_without_ebtables_a_guest_runs_and_is_held_to_nothing() {
    let Some((libvirtd, held)) = system("V11 without ebtables").await else { return };
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/false", folder.path().join("ebtables")).unwrap();
    let mut command = libvirtd.sub_agent();
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", folder.path().display()));
    let free = Agent::start_by(command, &["--uri", &libvirtd.uri()]).await;
    for (agent, filters) in [(&held, 1), (&free, 0)] {
        let mut guest = guest_on_qcow2(agent, "1.5");
        guest.nics = foreign(&guest).nics[..1].to_vec();
        for (method, state) in [("Libvirt.CreateGuest", "shutoff"), ("Libvirt.Run", "running")] {
            let told = agent.call(method, &guest).await.unwrap();
            let filtered = told.nics[0].haar.as_ref().map(|extra| extra.filtered);
            assert_eq!((told.state.as_str(), filtered), (state, Some(filters == 1)));
        }
        let words = libvirtd.virsh(&["dumpxml", &guest.id]);
        assert_eq!(words.matches("<filterref filter='haar-1-guest'").count(), filters, "{words}");
        let known = || libvirtd.virsh(&["nwfilter-list"]).matches("haar-1-").count();
        for state in ["running", "shutoff"] {
            agent.raw("Libvirt.Prune", &serde_json::json!({})).await.unwrap();
            assert_eq!(known(), filters, "what a guest that is {state} names stays, and nothing else");
            agent.call("Libvirt.Poweroff", &guest).await.unwrap();
        }
        if filters > 0 {
            libvirtd.virsh(&["nwfilter-undefine", "haar-1-guest"]);
        }
        assert_eq!(agent.call("Libvirt.Run", &guest).await.unwrap().state, "running", "made again");
        agent.call("Libvirt.Delete", &guest).await.unwrap();
        agent.raw("Libvirt.Prune", &serde_json::json!({})).await.unwrap();
        assert_eq!(known(), 0);
    }
}

#[tokio::test]
async fn v11_where_filters_cannot_be_made_just_now_nobody_is_made_without() {
    let Some((libvirtd, agent)) = system("V11 without filters").await else { return };
    let mut guest = guest_on_qcow2(&agent, "1.5");
    guest.nics = foreign(&guest).nics[..1].to_vec();
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    // A stranger's filter has the number of ours.
    let ours = libvirtd.virsh(&["nwfilter-dumpxml", "haar-1-guest"]);
    let file = agent.folder.path().join("filter.xml");
    std::fs::write(&file, ours.replace("haar-1-guest", "a-strangers")).unwrap();
    libvirtd.virsh(&["nwfilter-undefine", "haar-1-guest"]);
    libvirtd.virsh(&["nwfilter-define", file.to_str().unwrap()]);
    assert_eq!(code(agent.call("Libvirt.CreateGuest", &guest).await), FaultCode::Unavailable);
    assert_eq!(code(agent.call("Libvirt.Status", &guest).await), FaultCode::NotFound);
    libvirtd.virsh(&["nwfilter-undefine", "a-strangers"]);
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
}

#[tokio::test]
async fn v8_a_dead_connection_is_replaced_and_closed() {
    let Some((mut libvirtd, agent)) = system("V8").await else { return };
    let guest = guest_on_qcow2(&agent, "1.5");
    let open = || {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", agent.child.id())).unwrap();
        let sockets = folder.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        sockets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let before = open();
    for _ in 0..3 {
        libvirtd.order("kill");
        until("libvirtd is gone", async || agent.list().await.is_err()).await;
        libvirtd.order("start");
        until("libvirtd answers again", async || agent.list().await.is_ok()).await;
        assert_eq!(agent.call("Libvirt.Status", &guest).await.unwrap().state, "shutoff");
    }
    until("the dead connections are closed", async || open() <= before + 2).await;
}
