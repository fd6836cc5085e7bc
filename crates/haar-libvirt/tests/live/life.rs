//! A guest's life, its console, and a libvirtd that goes away.

use haar_api::rpc::{FaultCode, GuestRequest, Nic};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Agent, code, in_life, spawn, until};
use crate::libvirtd::{OwnLibvirtd, guest_on_qcow2, system};

#[tokio::test]
async fn a_real_guest_goes_through_its_whole_life() {
    let Some((_libvirtd, agent)) = system("whole life").await else { return };
    let mut guest = guest_on_qcow2(&agent, "1.5");
    let nic =
        |last: u8| Nic { network: "br0".into(), mac: format!("02:00:00:00:00:0{last}"), ..Nic::default() };
    guest.nics = vec![nic(1), nic(2)];
    assert_eq!(agent.call("Libvirt.CreateGuest", &guest).await.unwrap().state, "shutoff");

    let running = agent.call("Libvirt.Run", &guest).await.unwrap();
    let extra = running.haar.clone().unwrap();
    assert_eq!((running.state.as_str(), extra.state_reason.as_str()), ("running", "booted"));
    let devices: Vec<_> = running.nics.iter().map(|nic| nic.device.as_str()).collect();
    assert_eq!(devices, ["vnet0", "vnet1"]);
    assert_eq!(agent.call("Libvirt.Run", &guest).await.unwrap(), running);
    // Both without an operating system to hear them: asked, answered, still running.
    for method in ["Libvirt.Shutdown", "Libvirt.Restart", "Libvirt.Status"] {
        assert_eq!(agent.call(method, &guest).await.unwrap().state, "running", "{method}");
    }
    let listed = agent.list().await.unwrap();
    let listed = listed.iter().find(|listed| listed.id == guest.id).unwrap();
    assert_eq!(listed.haar.as_ref().unwrap().claim, guest.haar.as_ref().unwrap().claim);

    let off = agent.call("Libvirt.Poweroff", &guest).await.unwrap();
    assert_eq!((off.state.as_str(), off.haar.unwrap().state_reason.as_str()), ("shutoff", "destroyed"));
    agent.call("Libvirt.Run", &guest).await.unwrap();
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert_eq!(code(agent.call("Libvirt.Status", &guest).await), FaultCode::NotFound);
    for file in [&extra.console_socket, &extra.console_log] {
        assert!(!std::fs::exists(file).unwrap(), "{file} was left behind");
    }
    assert!(std::fs::exists(&guest.disks[0].source).unwrap(), "disks are not this program's to remove");
}

#[tokio::test]
async fn a_client_may_join_the_console_leave_and_join_again() {
    let Some((_libvirtd, agent)) = system("console").await else { return };
    let guest = guest_on_qcow2(&agent, "1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let running = agent.call("Libvirt.Run", &guest).await.unwrap();
    let extra = running.haar.unwrap();
    assert!(std::fs::exists(&extra.console_log).unwrap(), "the log is there from the start");
    for _ in 0..2 {
        let mut client = tokio::net::UnixStream::connect(&extra.console_socket).await.unwrap();
        client.write_all(b"\r").await.unwrap();
        let mut byte = [0_u8];
        // The guest says nothing: an open connection is one without an end.
        let read = tokio::time::timeout(std::time::Duration::from_millis(200), client.read(&mut byte)).await;
        assert!(!matches!(read, Ok(Ok(0))), "the console hung up");
    }
}

#[tokio::test]
async fn another_life_leaves_a_running_guest_alone() {
    let Some((_libvirtd, agent)) = system("lives").await else { return };
    let guest = guest_on_qcow2(&agent, "1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    agent.call("Libvirt.Run", &guest).await.unwrap();
    let other = in_life(&guest, "1.6");
    for method in ["Libvirt.CreateGuest", "Libvirt.Delete", "Libvirt.Poweroff"] {
        assert_eq!(code(agent.call(method, &other).await), FaultCode::Conflict, "{method}");
    }
    assert_eq!(agent.call("Libvirt.Status", &guest).await.unwrap().state, "running");
    let args = [("any_life".to_owned(), "true".to_owned())].into();
    agent
        .request("Libvirt.Delete", &GuestRequest { guest: Some(other), args, ..GuestRequest::default() })
        .await
        .unwrap();
    assert_eq!(code(agent.call("Libvirt.Status", &guest).await), FaultCode::NotFound);
}

#[tokio::test]
async fn a_lost_disk_is_never_started_over() {
    let Some((_libvirtd, agent)) = system("lost disk").await else { return };
    let mut guest = guest_on_qcow2(&agent, "1.5");
    guest.haar.as_mut().unwrap().provisioned = true;
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    std::fs::remove_file(&guest.disks[0].source).unwrap();
    for method in ["Libvirt.Run", "Libvirt.CreateGuest"] {
        assert_eq!(code(agent.call(method, &guest).await), FaultCode::Lost, "{method}");
    }
    assert!(!std::fs::exists(&guest.disks[0].source).unwrap());
}

#[tokio::test]
async fn a_guest_suspended_for_a_while_goes_on_by_itself_also_when_the_sub_agent_falls() {
    let Some((libvirtd, mut agent)) = system("suspended for a while").await else { return };
    let guest = guest_on_qcow2(&agent, "1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    agent.call("Libvirt.Run", &guest).await.unwrap();
    let named = agent.folder.path().join(format!("run/frozen/{}.suspended", guest.id));
    let suspend = async |agent: &Agent, limit: Option<&str>| {
        let args = limit.map(|limit| ("resume_after_s".to_owned(), limit.to_owned())).into_iter().collect();
        let asked = GuestRequest { guest: Some(guest.clone()), args, ..GuestRequest::default() };
        agent.request("Libvirt.Suspend", &asked).await.map(|suspended| suspended.state)
    };
    for wrong in ["0", "61", "soon"] {
        assert_eq!(suspend(&agent, Some(wrong)).await.unwrap_err().code, FaultCode::Invalid);
    }
    let runs = async |agent: &Agent| agent.call("Libvirt.Status", &guest).await.unwrap().state == "running";

    assert_eq!(suspend(&agent, Some("1")).await.unwrap(), "paused");
    until("it goes on in time", async || runs(&agent).await).await;

    assert_eq!(suspend(&agent, Some("60")).await.unwrap(), "paused");
    assert!(named.exists());
    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    agent.child = spawn(libvirtd.sub_agent(), &["--uri", &libvirtd.uri()], agent.folder.path());
    agent.listens().await;
    until("the next one lets it go on", async || runs(&agent).await && !named.exists()).await;

    // Who says no limit means none, before or after one who does.
    for limits in [[Some("60"), None], [None, Some("60")]] {
        for limit in limits {
            assert_eq!(suspend(&agent, limit).await.unwrap(), "paused");
        }
        assert!(!named.exists(), "{limits:?}");
        assert_eq!(agent.call("Libvirt.Resume", &guest).await.unwrap().state, "running");
    }
    suspend(&agent, Some("60")).await.unwrap();
    agent.call("Libvirt.Resume", &guest).await.unwrap();
    assert!(!named.exists());
}

#[tokio::test]
async fn a_killed_libvirtd_costs_the_calls_meanwhile_and_no_guest() {
    let Some(mut libvirtd) = OwnLibvirtd::new("killed libvirtd") else { return };
    let agent = Agent::start(&libvirtd.uri()).await;
    let guest = guest_on_qcow2(&agent, "1.5");
    assert_eq!(code(agent.call("Libvirt.CreateGuest", &guest).await), FaultCode::Unavailable);

    libvirtd.order("start");
    until("libvirtd answers", async || agent.list().await.is_ok()).await;
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    // Console folders are the sub-agent's and lie outside the namespace's own folders.
    assert_eq!(agent.call("Libvirt.Run", &guest).await.unwrap().state, "running");

    libvirtd.order("kill");
    until("libvirtd is gone", async || agent.list().await.is_err()).await;
    let fault = agent.call("Libvirt.Status", &guest).await.unwrap_err();
    assert_eq!(fault.code, FaultCode::Unavailable);
    assert!(fault.message.contains("libvirtd -d"), "{fault}");

    libvirtd.order("start");
    until("libvirtd answers again", async || agent.list().await.is_ok()).await;
    let status = agent.call("Libvirt.Status", &guest).await.unwrap();
    assert_eq!(status.state, "running", "the guest ran on");
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert!(agent.list().await.unwrap().is_empty());
    assert!(agent.host().await.unwrap().qemu.contains('.'));
}

#[tokio::test]
async fn a_shutdown_bears_a_libvirtd_that_is_started_again_and_pulls_the_plug_at_last() {
    let Some((mut libvirtd, agent)) = system("shutdown and libvirtd").await else { return };
    let guest = guest_on_qcow2(&agent, "1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    agent.call("Libvirt.Run", &guest).await.unwrap();
    let ask = async || {
        let asked = serde_json::json!({"guest": guest, "args": {"limit_s": "10"}});
        let answer = agent.raw("Libvirt.Shutdown", &asked).await.unwrap();
        (answer["guest"]["state"].as_str().unwrap_or_default().to_owned(), answer["retry"] == 1)
    };
    // Nobody inside hears the button.
    assert_eq!(ask().await, ("running".to_owned(), true));
    libvirtd.order("kill");
    until("libvirtd is gone", async || agent.list().await.is_err()).await;
    assert!(ask().await.1, "asked again, and no end");
    libvirtd.order("start");
    until("the guest is off", async || ask().await == ("shutoff".to_owned(), false)).await;
    let off = agent.call("Libvirt.Status", &guest).await.unwrap();
    assert_eq!(off.haar.unwrap().state_reason, "destroyed");
}
