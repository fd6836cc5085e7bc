//! A guest's life, and what is refused.

use haar_api::rpc::{Disk, FaultCode, Guest, GuestRequest, Nic};

use crate::agent;
use crate::harness::{code, in_life};

pub(crate) fn foreign() -> Guest {
    let nic =
        |mac: &str| Nic { network: "br0".into(), mac: mac.into(), model: "virtio".into(), ..Nic::default() };
    let disk = |n: usize| Disk { source: format!("/dev/zvol/p/guests/g/disk-{n}"), ..Disk::default() };
    Guest {
        id: uuid::Uuid::new_v4().to_string(),
        memory: 64,
        cpu: 1,
        disks: vec![disk(0), disk(1)],
        nics: vec![nic("02:00:00:00:00:01"), nic("02:00:00:00:00:02")],
        ..Guest::default()
    }
}

#[tokio::test]
async fn a_guest_goes_through_its_whole_life() {
    let agent = agent().await;
    let guest = agent.guest("1.5");
    let defined = agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    assert_eq!(defined.state, "shutoff");
    assert_eq!((defined.disks[0].bus.as_str(), defined.disks[0].device.as_str()), ("virtio", "vda"));
    for (method, state, reason) in [
        ("Libvirt.Run", "running", "booted"),
        ("Libvirt.Run", "running", "booted"),
        ("Libvirt.Poweroff", "shutoff", "destroyed"),
        ("Libvirt.Poweroff", "shutoff", "destroyed"),
        ("Libvirt.Run", "running", "booted"),
        ("Libvirt.Shutdown", "shutoff", "shutdown"),
        ("Libvirt.Shutdown", "shutoff", "shutdown"),
    ] {
        let answer = agent.call(method, &guest).await.unwrap();
        let extra = answer.haar.clone().unwrap();
        assert_eq!((answer.state.as_str(), extra.state_reason.as_str()), (state, reason), "{method}");
        assert!(extra.console_socket.ends_with(&format!("{}.console", guest.id)), "{extra:?}");
        assert_eq!(agent.call("Libvirt.Status", &guest).await.unwrap(), answer);
    }
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert_eq!(code(agent.call("Libvirt.Status", &guest).await), FaultCode::NotFound);
    assert!(std::fs::exists(&guest.disks[0].source).unwrap(), "disks are not this program's to remove");
}

#[tokio::test]
async fn create_guest_twice_is_once_and_a_change_takes_hold_while_it_is_off() {
    let agent = agent().await;
    let mut guest = agent.guest("1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    guest.memory = 128;
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let memory = async || {
        let listed = agent.list().await.unwrap();
        let own: Vec<_> = listed.iter().filter(|listed| listed.id == guest.id).collect();
        assert_eq!(own.len(), 1);
        own[0].memory
    };
    assert_eq!(memory().await, 128);
    agent.call("Libvirt.Run", &guest).await.unwrap();
    let larger = Guest { memory: 256, ..guest.clone() };
    assert_eq!(agent.call("Libvirt.CreateGuest", &larger).await.unwrap().state, "running");
    assert_eq!(memory().await, 128, "what runs is left alone");
}

#[tokio::test]
async fn another_life_is_a_conflict_and_left_alone() {
    let agent = agent().await;
    let guest = agent.guest("1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    agent.call("Libvirt.Run", &guest).await.unwrap();
    let other = in_life(&guest, "1.6");
    for method in
        ["CreateGuest", "Create", "Delete", "Run", "Poweroff", "Shutdown", "Reboot", "Restart", "Status"]
    {
        assert_eq!(
            code(agent.call(&format!("Libvirt.{method}"), &other).await),
            FaultCode::Conflict,
            "{method}"
        );
    }
    assert_eq!(agent.call("Libvirt.Status", &guest).await.unwrap().state, "running");
    let any = [("any_life".to_owned(), "true".to_owned())].into();
    let request = GuestRequest { guest: Some(other), args: any, ..GuestRequest::default() };
    agent.request("Libvirt.Delete", &request).await.unwrap();
    assert_eq!(code(agent.call("Libvirt.Status", &guest).await), FaultCode::NotFound);
}

#[tokio::test]
async fn a_strangers_domain_is_listed_without_haar_and_never_touched() {
    let agent = agent().await;
    let listed = agent.list().await.unwrap();
    // The driver comes with one domain, named `test`.
    let stranger = listed.iter().find(|guest| guest.id == "test").unwrap();
    assert_eq!((stranger.state.as_str(), &stranger.haar), ("running", &None));
    assert!(stranger.memory > 0);
    let named_so = Guest { id: "test".into(), haar: None, ..agent.guest("1.5") };
    let of_haar = agent.guest("1.5");
    agent.call("Libvirt.CreateGuest", &of_haar).await.unwrap();
    let foreign = Guest { haar: None, ..of_haar.clone() };
    for guest in [&named_so, &foreign] {
        for method in [
            "CreateGuest",
            "Create",
            "Delete",
            "Run",
            "Poweroff",
            "Shutdown",
            "Reboot",
            "Restart",
            "Status",
            "Suspend",
            "Resume",
        ] {
            let outcome = agent.call(&format!("Libvirt.{method}"), guest).await;
            assert_eq!(code(outcome), FaultCode::Conflict, "{method} of {}", guest.id);
        }
        for method in ["Freeze", "Thaw", "Ping", "Vnc", "CPUMetrics"] {
            let outcome = agent.raw(&format!("Libvirt.{method}"), &serde_json::json!({"guest": guest})).await;
            assert_eq!(outcome.unwrap_err().code, FaultCode::Conflict, "{method} of {}", guest.id);
        }
    }
    let states: Vec<_> =
        agent.list().await.unwrap().into_iter().map(|guest| (guest.id, guest.state)).collect();
    for (id, state) in [("test", "running"), (of_haar.id.as_str(), "shutoff")] {
        assert!(states.contains(&(id.into(), state.into())), "{states:?}");
    }
}

#[tokio::test]
async fn the_list_gives_back_what_was_kept() {
    let agent = agent().await;
    let mut guest = agent.guest("1.5");
    // Also what XML cannot carry.
    let labels = [
        ("a&b", "<c>\n"),
        ("", ""),
        ("a\nb", "c"),
        ("crlf", "a\r\nb\tc\0"),
        ("esc", "\u{1b}[2J\u{85}\u{fffe}ü"),
    ];
    guest.metadata = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let listed = agent.list().await.unwrap();
    let listed = listed.iter().find(|listed| listed.id == guest.id).unwrap();
    let (kept, sent) = (listed.haar.clone().unwrap(), guest.haar.clone().unwrap());
    assert_eq!(
        (&kept.cloud, &kept.life, &kept.order, &kept.name, &kept.claim, &kept.seed),
        (&sent.cloud, &sent.life, &sent.order, &sent.name, &sent.claim, &sent.seed)
    );
    assert_eq!(listed.metadata, guest.metadata);
    assert_eq!(listed.disks[0].source, guest.disks[0].source);
}

#[tokio::test]
async fn a_provisioned_guest_is_defined_again_unless_a_disk_is_gone() {
    let agent = agent().await;
    let mut guest = agent.guest("1.5");
    guest.haar.as_mut().unwrap().provisioned = true;
    assert_eq!(agent.call("Libvirt.CreateGuest", &guest).await.unwrap().state, "shutoff");
    std::fs::remove_file(&guest.disks[0].source).unwrap();
    assert_eq!(code(agent.call("Libvirt.CreateGuest", &guest).await), FaultCode::Lost);
    assert_eq!(code(agent.call("Libvirt.Run", &guest).await), FaultCode::Lost);
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert_eq!(code(agent.call("Libvirt.CreateGuest", &guest).await), FaultCode::Lost);
    assert_eq!(code(agent.call("Libvirt.Status", &guest).await), FaultCode::NotFound, "nothing was defined");
    guest.haar.as_mut().unwrap().provisioned = false;
    assert_eq!(code(agent.call("Libvirt.CreateGuest", &guest).await), FaultCode::NotFound);
}

#[tokio::test]
async fn a_foreign_callers_guest_gets_a_network_per_mac_and_leaves_none() {
    let agent = agent().await;
    let guest = foreign();
    for _ in 0..2 {
        let defined = agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
        assert_eq!(defined.kind, "kvm");
        let devices: Vec<_> = defined.disks.iter().map(|d| (d.bus.as_str(), d.device.as_str())).collect();
        assert_eq!(devices, [("virtio", "vda"), ("virtio", "vdb")]);
        assert_eq!((defined.state.as_str(), defined.haar), ("shutoff", None));
    }
    let by_id = Guest { id: guest.id.clone(), ..Guest::default() };
    assert_eq!(agent.call("Libvirt.Status", &by_id).await.unwrap().state, "shutoff");
    // The domain starts only when both networks are there and active.
    assert_eq!(agent.call("Libvirt.Run", &by_id).await.unwrap().state, "running");
    assert_eq!(agent.call("Libvirt.Reboot", &by_id).await.unwrap().id, guest.id);
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert_eq!(code(agent.call("Libvirt.Status", &by_id).await), FaultCode::NotFound);
    agent.call("Libvirt.Delete", &guest).await.unwrap();
}

#[tokio::test]
async fn a_network_that_another_guest_hangs_on_stays() {
    let agent = agent().await;
    let (one, other) = (foreign(), foreign());
    for guest in [&one, &other] {
        agent.call("Libvirt.CreateGuest", guest).await.unwrap();
    }
    agent.call("Libvirt.Delete", &one).await.unwrap();
    assert_eq!(agent.call("Libvirt.Run", &other).await.unwrap().state, "running");
}

#[tokio::test]
async fn a_guest_gets_no_mac_that_somebody_elses_domain_has() {
    let agent = agent().await;
    let stranger = foreign();
    agent.call("Libvirt.CreateGuest", &stranger).await.unwrap();
    let mut guest = agent.guest("1.5");
    guest.nics = vec![Nic { network: "br0".into(), mac: stranger.nics[1].mac.clone(), ..Nic::default() }];
    let fault = agent.call("Libvirt.CreateGuest", &guest).await.unwrap_err();
    assert_eq!(fault.code, FaultCode::Conflict);
    assert!(fault.message.contains(&stranger.id) && fault.message.contains("02:00:00:00:00:02"), "{fault}");
    assert_eq!(code(agent.call("Libvirt.Status", &guest).await), FaultCode::NotFound, "nothing was defined");
    guest.nics[0].mac = "02:00:00:00:00:03".into();
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    // What is there is not asked again.
    agent.call("Libvirt.Delete", &stranger).await.unwrap();
    let late = Guest { nics: guest.nics.clone(), ..foreign() };
    agent.call("Libvirt.CreateGuest", &late).await.unwrap();
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
}

#[tokio::test]
async fn create_defines_and_starts() {
    let agent = agent().await;
    let guest = Guest { nics: vec![], ..foreign() };
    for _ in 0..2 {
        assert_eq!(agent.call("Libvirt.Create", &guest).await.unwrap().state, "running");
    }
}

#[tokio::test]
async fn a_callers_mistake_is_told_not_suffered() {
    let agent = agent().await;
    for method in
        ["CreateGuest", "Create", "Delete", "Run", "Reboot", "Restart", "Shutdown", "Poweroff", "Status"]
    {
        let method = format!("Libvirt.{method}");
        let null = agent.request(&method, &GuestRequest::default()).await;
        assert_eq!(code(null), FaultCode::Invalid, "{method}");
        let empty = agent.call(&method, &Guest::default()).await.unwrap_err();
        assert_eq!(empty.message, "invalid argument", "{method}");
        if !matches!(method.as_str(), "Libvirt.CreateGuest" | "Libvirt.Create" | "Libvirt.Delete") {
            let unknown = agent.call(&method, &agent.guest("1.5")).await;
            assert_eq!(code(unknown), FaultCode::NotFound, "{method}");
        }
    }
    let guest = agent.guest("1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    assert_eq!(code(agent.call("Libvirt.Reboot", &guest).await), FaultCode::Invalid);
    assert_eq!(code(agent.call("Libvirt.Restart", &guest).await), FaultCode::Invalid);
}

#[tokio::test]
async fn the_host_is_described() {
    let host = agent().await.host().await.unwrap();
    assert_eq!(host.accel, "test");
    assert_eq!(host.libvirt.split('.').count(), 3, "{host:?}");
    assert!(host.cpus > 0 && host.memory_mib > 0, "{host:?}");
}

#[tokio::test]
async fn a_signal_ends_the_program_well() {
    let mut agent = agent().await;
    let killed = std::process::Command::new("kill").arg(agent.child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert!(agent.child.wait().unwrap().success());
    assert!(!agent.socket().exists(), "the socket goes with the program");
}
