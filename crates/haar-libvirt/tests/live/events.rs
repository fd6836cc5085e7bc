//! What happens to domains behind the sub-agent's back is told, and so is that nobody was listening.

use haar_api::rpc::Guest;
use serde_json::{Value, json};

use crate::harness::{Agent, LIMIT, until};
use crate::libvirtd::{OwnLibvirtd, guest_on_qcow2, system};

/// Asks until this has happened to this domain; answers the last cursor.
async fn until_told(agent: &Agent, mut cursor: String, id: &str, what: &str) -> String {
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        assert!(std::time::Instant::now() < deadline, "{id} {what} was not told");
        let answer = agent.raw("Libvirt.Changes", &json!({"cursor": cursor, "wait_s": 20})).await.unwrap();
        assert_eq!(answer["all"], false, "{answer}");
        cursor = answer["cursor"].as_str().unwrap().to_owned();
        if answer["changes"].as_array().unwrap().contains(&json!({"id": id, "what": what})) {
            return cursor;
        }
    }
}

async fn cursor(agent: &Agent) -> String {
    let first: Value = agent.raw("Libvirt.Changes", &json!({})).await.unwrap();
    assert_eq!(first["all"], true);
    first["cursor"].as_str().unwrap().to_owned()
}

/// Events are heard when one is.
async fn until_heard(libvirtd: &OwnLibvirtd, agent: &Agent) {
    until("events are heard", async || {
        let since = cursor(agent).await;
        libvirtd.virsh(&["define", &stranger(agent)]);
        let asked = json!({"cursor": since, "wait_s": 1});
        let told = agent.raw("Libvirt.Changes", &asked).await.unwrap();
        !told["changes"].as_array().unwrap().is_empty()
    })
    .await;
}

/// A domain that Haar did not make.
fn stranger(agent: &Agent) -> String {
    let path = agent.folder.path().join("stranger.xml");
    let xml = "<domain type='qemu'><name>stranger</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
        <uuid>11111111-2222-4333-8444-555555555555</uuid><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";
    std::fs::write(&path, xml).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn state(agent: &Agent, guest: &Guest) -> (String, String) {
    let answer = agent.call("Libvirt.Status", guest).await.unwrap();
    (answer.state, answer.haar.unwrap().state_reason)
}

#[tokio::test]
async fn v12_a_restart_is_a_reset_and_what_happens_behind_its_back_is_told_and_served() {
    let Some((mut libvirtd, agent)) = system("events").await else { return };
    until_heard(&libvirtd, &agent).await;
    let guest = guest_on_qcow2(&agent, "1.5");
    let mut told = cursor(&agent).await;
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    told = until_told(&agent, told, &guest.id, "defined").await;
    agent.call("Libvirt.Run", &guest).await.unwrap();
    told = until_told(&agent, told, &guest.id, "started").await;
    // V12: a restart is a reset, at once and whatever runs inside; here nothing hears an ACPI button.
    agent.call("Libvirt.Restart", &guest).await.unwrap();
    told = until_told(&agent, told, &guest.id, "reset").await;
    libvirtd.virsh(&["suspend", &guest.id]);
    told = until_told(&agent, told, &guest.id, "suspended").await;
    assert_eq!(state(&agent, &guest).await.0, "paused");

    libvirtd.kill_qemu(&guest.id);
    told = until_told(&agent, told, &guest.id, "stopped").await;
    assert_eq!(state(&agent, &guest).await, ("shutoff".into(), "crashed".into()));

    // A stranger's are told too, and it is listed without `haar`; nobody touches it.
    libvirtd.virsh(&["start", "stranger"]);
    told = until_told(&agent, told, "stranger", "started").await;
    let listed = agent.list().await.unwrap();
    let stranger = listed.iter().find(|listed| listed.id == "stranger").unwrap();
    assert_eq!((stranger.state.as_str(), &stranger.haar), ("running", &None));

    libvirtd.order("kill");
    until("it is said that events were lost", async || {
        let asked = json!({"cursor": told, "wait_s": 1});
        agent.raw("Libvirt.Changes", &asked).await.unwrap()["all"] == true
    })
    .await;
    libvirtd.order("start");
    until("libvirtd answers again", async || agent.list().await.is_ok()).await;
    until_heard(&libvirtd, &agent).await;
    assert_eq!(libvirtd.virsh(&["domstate", "stranger"]).trim(), "running");
}
