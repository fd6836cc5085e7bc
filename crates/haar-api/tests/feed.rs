//! Feed, hello and report against their golden files, and what an older reader makes of newer items.
//!
//! Set `HAAR_REWRITE=1` to write the golden files anew.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;

use haar_api::feed::*;
use haar_api::v1::{FenceText, GuestRestart, ImageFormat, InventoryView, ResourcesView};
use haar_core::fence::Fence;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x1000 + n)
}

fn fence(revision: u64) -> FenceText {
    FenceText(Fence::new(1, revision))
}

const RESOURCES: ResourcesView = ResourcesView { cpu: 1, memory: 1024, disk: 10240 };

fn feed() -> Feed {
    Feed {
        version: VERSION,
        fence: fence(41),
        cloud: id(1).into(),
        hypervisor: id(2).into(),
        guests: vec![Item::Known(FeedGuest {
            id: id(3).into(),
            name: "web".parse().unwrap(),
            project: "default".parse().unwrap(),
            order: fence(40),
            life: fence(38),
            goal: GoalWord::Running,
            deed: Some(FeedDeed { kind: DeedWord::Reboot, fence: fence(40) }),
            provisioned: true,
            restart: GuestRestart::OnFailure,
            job: Some(id(4).into()),
            flavor: id(5).into(),
            image: id(6).into(),
            resources: RESOURCES,
            network: id(7).into(),
            subnet: id(8).into(),
            mac: "02:1a:2b:3c:4d:5e".parse().unwrap(),
            address: "10.77.0.12".parse().unwrap(),
            prefix: 24,
            gateway: Some("10.77.0.1".parse().unwrap()),
            dns: vec!["10.77.0.1".parse().unwrap()],
            ssh_keys: vec!["ssh-ed25519 AAAA ana@lab".to_owned()],
            user_data: Some("ab".repeat(32)),
        })],
        images: vec![Item::Known(FeedImage {
            id: id(6).into(),
            format: ImageFormat::Qcow2,
            sha256: "5f".repeat(32),
            file_bytes: 421_527_552,
            url: None,
        })],
        catalogue: Some(vec![id(6).into()]),
        networks: vec![Item::Known(FeedNetwork {
            id: id(7).into(),
            bridge: "hr0000-00001007".to_owned(),
            gateways: vec![AddressWithPrefix { address: "10.77.0.1".parse().unwrap(), prefix: 24 }],
            nat: true,
        })],
        streams: vec![Item::Known(FeedStream {
            ticket: "t1".to_owned(),
            guest: id(3).into(),
            kind: StreamKind::Log,
            tail: Some(65536),
            follow: true,
        })],
    }
}

fn report() -> Report {
    let guest = ReportGuest {
        id: id(3).into(),
        life: fence(38),
        order: fence(40),
        version: 5,
        phase: ReportPhase::Failed {
            stage: StageWord::Disks,
            code: "no_space".to_owned(),
            message: "200 MiB left in the disks' folder".to_owned(),
        },
        power: PowerWord::Absent,
        provisioned: false,
        deed: None,
        steps: vec![ReportStep { stage: StageWord::Image, state: StepWord::Done, message: String::new() }],
        claim: ReportClaim {
            name: "web".parse().unwrap(),
            project: "default".parse().unwrap(),
            resources: RESOURCES,
            flavor: id(5).into(),
            image: id(6).into(),
            network: id(7).into(),
            subnet: id(8).into(),
            mac: "02:1a:2b:3c:4d:5e".parse().unwrap(),
            address: "10.77.0.12".parse().unwrap(),
        },
    };
    Report {
        version: VERSION,
        incarnation: 2,
        seen: fence(41),
        guests: vec![Item::Known(guest)],
        complete: Some(ReportComplete {
            epoch: 1,
            holds: vec![id(3).into()],
            strangers: vec!["test-old".to_owned()],
            inventory: InventoryView {
                host: "lab1".to_owned(),
                accel: "tcg".to_owned(),
                ..Default::default()
            },
            total: ResourcesView { cpu: 8, memory: 16_384, disk: 40_960 },
        }),
        unsupported: vec![ReportUnsupported { id: id(9), reason: "unknown goal".to_owned() }],
    }
}

fn matches_golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    if std::env::var_os("HAAR_REWRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, text, "{name} is another wire; rewrite it only when that is meant");
    assert_eq!(&serde_json::from_str::<T>(&golden).unwrap(), value);
}

#[test]
fn the_feed_keeps_its_form() {
    matches_golden("feed.json", &feed());
}

#[test]
fn the_report_keeps_its_form() {
    matches_golden("report.json", &report());
}

#[test]
fn hello_and_welcome_keep_their_form() {
    let hello = Hello { version: VERSION, lot: 7, inventory: InventoryView::default(), total: RESOURCES };
    matches_golden("hello.json", &hello);
    let welcome = Welcome {
        version: VERSION,
        cloud: id(1).into(),
        hypervisor: id(2).into(),
        name: "lab1".to_owned(),
        incarnation: 2,
        fence: fence(41),
        ttl_ms: 30_000,
    };
    matches_golden("welcome.json", &welcome);
}

#[test]
fn an_unknown_goal_spoils_only_its_own_guest() {
    let mut value = serde_json::to_value(feed()).unwrap();
    let mut newer = value["guests"][0].clone();
    newer["id"] = serde_json::json!(id(20));
    newer["goal"] = serde_json::json!("hibernated");
    value["guests"].as_array_mut().unwrap().push(newer);
    value["shelves"] = serde_json::json!([1, 2]);

    let read: Feed = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(read.guests[0], feed().guests[0]);
    let Item::Unsupported(unsupported) = &read.guests[1] else { panic!("{:?}", read.guests[1]) };
    assert_eq!(unsupported.id, Some(id(20)));
    assert!(unsupported.reason.contains("hibernated"), "{}", unsupported.reason);
    assert_eq!(serde_json::to_value(&read).unwrap()["guests"], value["guests"]);
}
