//! The original's defects of `mistify-wire` §4.3, by their numbers, that need no hypervisor to show mended.

use haar_api::rpc::{Disk, FaultCode, Guest, GuestRequest};
use serde_json::json;

use crate::agent;
use crate::harness::{Agent, code};
use crate::life::foreign;

#[tokio::test]
async fn v1_hostile_text_stays_text() {
    let agent = agent().await;
    let words = "'\"><![CDATA[</domain><devices><disk/>&lt;";
    let source = format!("/dev/{words}");
    let guest = Guest {
        id: format!("g {}", "<&'\">"),
        disks: vec![Disk { source: source.clone(), ..Disk::default() }],
        metadata: [(words.to_owned(), words.to_owned())].into(),
        nics: vec![],
        ..foreign()
    };
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let listed = agent.list().await.unwrap();
    let listed = listed.iter().find(|listed| listed.id == guest.id).unwrap();
    assert_eq!((listed.disks.len(), &listed.disks[0].source), (1, &source));
    assert_eq!(listed.metadata, guest.metadata);
    let mut hostile = foreign();
    hostile.nics[0].network = "br0'/><virtualport type='x'/><bridge name='".into();
    assert_eq!(code(agent.call("Libvirt.CreateGuest", &hostile).await), FaultCode::Invalid);
}

#[tokio::test]
async fn v7_a_null_guest_and_an_empty_id_are_told() {
    let agent = agent().await;
    for method in [
        "CreateGuest",
        "Create",
        "Delete",
        "Run",
        "Reboot",
        "Restart",
        "Shutdown",
        "Poweroff",
        "Status",
        "Suspend",
        "Resume",
    ] {
        let method = format!("Libvirt.{method}");
        assert_eq!(
            code(agent.request(&method, &GuestRequest::default()).await),
            FaultCode::Invalid,
            "{method}"
        );
        assert_eq!(agent.call(&method, &Guest::default()).await.unwrap_err().message, "invalid argument");
    }
    for kind in ["CPU", "Disk", "Nic"] {
        let fault = agent.raw(&format!("Libvirt.{kind}Metrics"), &json!({"guest": null})).await.unwrap_err();
        assert_eq!(fault.code, FaultCode::Invalid, "{kind}");
    }
}

#[tokio::test]
async fn v13_uri_connections_and_switch_are_flags() {
    for wrong in [["--connections", "0"], ["--switch", "hub"], ["--uri", "nowhere:///"]] {
        let mut arguments = vec!["--uri", "test:///default"];
        arguments.extend(wrong);
        if wrong[0] == "--uri" {
            arguments.drain(..2);
            let agent = Agent::start_with(&arguments).await;
            assert_eq!(agent.list().await.unwrap_err().code, FaultCode::Unavailable);
        } else {
            let refused = std::process::Command::new(env!("CARGO_BIN_EXE_haar-libvirt"))
                .args(["--port", "1"])
                .args(&arguments)
                .output()
                .unwrap();
            assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
        }
    }
    let one =
        Agent::start_with(&["--uri", "test:///default", "--connections", "1", "--switch", "bridge"]).await;
    assert_eq!(one.list().await.unwrap().len(), 1);
    let mut tagged = foreign();
    tagged.nics[0].vlans = Some(vec![7]);
    assert_eq!(code(one.call("Libvirt.CreateGuest", &tagged).await), FaultCode::Invalid);
    // How the seed's controller writes that there are no VLANs.
    tagged.nics[0].vlans = Some(vec![1]);
    "test".clone_into(&mut tagged.kind);
    one.call("Libvirt.CreateGuest", &tagged).await.unwrap();
}
