//! V5: a guest's labels are kept and its screen is there, on a unix socket for root alone.

use std::os::unix::fs::PermissionsExt as _;

use haar_api::rpc::FaultCode;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::libvirtd::{guest_on_qcow2, system};

#[tokio::test]
async fn v5_labels_are_kept_and_the_screen_is_shown_when_asked() {
    let Some((libvirtd, agent)) = system("V5").await else { return };
    let mut guest = guest_on_qcow2(&agent, "1.5");
    guest.metadata = [("role".to_owned(), "web".to_owned())].into();
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    assert!(libvirtd.virsh(&["dumpxml", &guest.id]).contains("key=\"role\">web</haar:label>"));
    let asked = json!({"guest": guest});
    assert_eq!(agent.raw("Libvirt.Vnc", &asked).await.unwrap_err().code, FaultCode::Invalid, "it is off");
    for _ in 0..2 {
        agent.call("Libvirt.Run", &guest).await.unwrap();
        let socket = agent.raw("Libvirt.Vnc", &asked).await.unwrap()["socket"].as_str().unwrap().to_owned();
        let folder = agent.folder.path().join("run/vnc");
        assert_eq!(socket, folder.join(format!("{}.vnc", guest.id)).to_str().unwrap());
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        // The socket lies in the mounts of this libvirtd; its namespace is reached through its first process.
        let seen = libvirtd.inside(std::path::Path::new(&std::fs::read_link(&socket).unwrap()));
        assert_eq!(mode(&seen), 0o600);
        let mut screen = tokio::net::UnixStream::connect(&seen).await.unwrap();
        let mut greeting = [0_u8; 4];
        screen.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"RFB ");
        agent.call("Libvirt.Poweroff", &guest).await.unwrap();
    }
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert_eq!(std::fs::read_dir(agent.folder.path().join("run/vnc")).unwrap().count(), 0);
}
