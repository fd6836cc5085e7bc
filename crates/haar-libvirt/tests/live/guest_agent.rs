//! Debian's own QEMU guest agent inside: it freezes a real file system, and that is thawed whatever falls.

use serde_json::{Value, json};

use crate::agent_image::agent_image;
use crate::booted::{Shell, ask, guest_of, told};
use crate::harness::{spawn, until};

/// Begins to write to the guest's disk.
const WRITE: &str = "rm -f /tmp/written; (echo more >/root/more; touch /tmp/written) & writer=$!";
/// Waits until the kernel holds the writer up, which it does not while nothing is frozen.
const IS_HELD: &str = "until grep -q '^State:.D' /proc/$writer/status || [ -e /tmp/written ]; do usleep 20000; done; [ ! -e /tmp/written ]";
const WENT_ON: &str = "until [ -e /tmp/written ]; do usleep 20000; done";

#[tokio::test]
async fn a_real_agent_freezes_the_guests_file_system_and_it_is_thawed_also_when_the_sub_agent_falls() {
    const TEST: &str = "a guest agent of Debian's";
    let Some(image) = agent_image(&format!("haar-libvirt {TEST}")) else { return };
    let Some((libvirtd, mut agent, guest)) = guest_of(TEST, &image).await else { return };
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let running = agent.call("Libvirt.Run", &guest).await.unwrap();
    let mut shell = Shell::of(&running).await;
    // What the shell keeps of each line must not wait for a thaw.
    shell.succeeds("ln -sf /tmp/history /root/.ash_history").await;
    let none = || json!({});
    until("its agent answers", async || {
        ask(&agent, &guest, "Libvirt.Ping", none()).await == told("answers", 0)
    })
    .await;
    // In its own words, past the program under test.
    let status = || {
        let command = r#"{"execute":"guest-fsfreeze-status"}"#;
        let said = libvirtd.virsh(&["qemu-agent-command", &guest.id, command]);
        serde_json::from_str::<Value>(&said).unwrap()["return"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(), "thawed");

    assert_eq!(ask(&agent, &guest, "Libvirt.Freeze", none()).await, told("answers", 1));
    assert_eq!(status(), "frozen");
    shell.succeeds(WRITE).await;
    shell.succeeds(IS_HELD).await;
    // A frozen one answers, can be frozen again and snapshot, and stays frozen.
    assert_eq!(ask(&agent, &guest, "Libvirt.Ping", none()).await, told("answers", 0));
    assert_eq!(ask(&agent, &guest, "Libvirt.Freeze", none()).await, told("answers", 1));
    let asked = json!({"guest": guest, "name": "frozen", "devices": ["vda"]});
    assert_eq!(agent.raw("Libvirt.Snapshot", &asked).await.unwrap()["file_systems"], 1);
    assert_eq!(status(), "frozen");
    shell.succeeds("[ ! -e /tmp/written ]").await;
    assert_eq!(ask(&agent, &guest, "Libvirt.Thaw", none()).await, told("answers", 1));
    shell.succeeds(WENT_ON).await;
    assert_eq!(status(), "thawed");
    assert_eq!(ask(&agent, &guest, "Libvirt.Thaw", none()).await, told("answers", 0), "nothing was frozen");

    // For a snapshot, and no longer.
    let asked = json!({"guest": guest, "name": "s1", "devices": ["vda"]});
    assert_eq!(agent.raw("Libvirt.Snapshot", &asked).await.unwrap()["file_systems"], 1);
    assert_eq!(status(), "thawed");
    // Nobody asks for it.
    let limit = json!({"thaw_after_s": "1"});
    assert_eq!(ask(&agent, &guest, "Libvirt.Freeze", limit).await, told("answers", 1));
    until("it is thawed in time", async || status() == "thawed").await;

    let named = agent.folder.path().join(format!("run/frozen/{}.frozen", guest.id));
    assert_eq!(ask(&agent, &guest, "Libvirt.Freeze", none()).await, told("answers", 1));
    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    shell.succeeds(WRITE).await;
    shell.succeeds(IS_HELD).await;
    assert!(status() == "frozen" && named.exists());
    agent.child = spawn(libvirtd.sub_agent(), &["--uri", &libvirtd.uri()], agent.folder.path());
    agent.listens().await;
    shell.succeeds(WENT_ON).await;
    until("its file is gone", async || !named.exists()).await;
    assert_eq!(status(), "thawed");
}
