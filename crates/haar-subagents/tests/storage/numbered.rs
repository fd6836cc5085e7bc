//! The cases T59 to T63, T66 and T67 of the fact sheet's table, and its defects S1 to S4, by their numbers.
//!
//! T59, T60, T64 and T65 ask the libvirt sub-agent; here the envelope of T59 and T60 is shown on this one.

use haar_api::rpc::{self, FaultCode};
use serde_json::{Value, json};

use crate::harness::*;
use crate::http::{Answer, http};
use crate::snapshots::{ask, disk, new};

const CALLS: &str = "POST /_mistify_RPC_";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn raw(agent: &Agent, line: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    http(&agent.socket, line, fields, body.as_bytes()).await
}

#[tokio::test]
async fn t59_to_t63_the_envelope() {
    let agent = Agent::start().await;
    agent.store_image().await;
    let get =
        |id: &str| json!({"method": "ImageStore.GetImage", "params": [{"id": id}], "id": 7}).to_string();
    let call = |method: &str| json!({"method": method, "params": [{"id": IMAGE}], "id": 7}).to_string();
    let no_params = json!({"method": "ImageStore.GetImage", "id": 7}).to_string();
    let plain: &[(&str, &str)] = &[("content-type", "text/plain")];
    for (case, line, fields, body, status) in [
        ("T59", CALLS, JSON, get(IMAGE), 200),
        ("T60", CALLS, JSON, get(OTHER_IMAGE), 200),
        ("T61", "GET /_mistify_RPC_", JSON, String::new(), 405),
        ("T62", CALLS, plain, get(IMAGE), 415),
        ("T63 unknown method", CALLS, JSON, call("ImageStore.Nope"), 400),
        ("T63 other case", CALLS, JSON, call("imagestore.GetImage"), 400),
        ("T63 no params", CALLS, JSON, no_params, 400),
    ] {
        let answer = raw(&agent, line, fields, &body).await;
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        if status != 200 {
            assert!(answer.fields["content-type"].starts_with("text/plain"), "{case}");
            continue;
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["id"], 7, "{case}");
        let found = case == "T59";
        assert_eq!((body["result"].is_null(), body["error"].is_string()), (!found, !found), "{case}: {body}");
        if found {
            assert_eq!(body["result"]["images"][0]["id"], IMAGE);
        } else {
            assert!(body["error"].as_str().unwrap().contains("not_found"), "{body}");
        }
    }
}

#[tokio::test]
async fn t66_create_guest_disks() {
    let agent = Agent::start().await;
    let call = async |disks: Value| {
        let params = json!([{"guest": {"id": GUEST, "disks": disks}, "action": "create"}]);
        let body = json!({"method": "ImageStore.CreateGuestDisks", "params": params, "id": 1}).to_string();
        let answer = raw(&agent, CALLS, JSON, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice::<Value>(&answer.body).unwrap()
    };
    let refused = call(json!([{}])).await;
    assert!(refused["error"].is_string() && refused["result"].is_null(), "{refused}");
    assert!(agent.names("disks").is_empty());
    let made = call(json!([{"size": 10}])).await;
    let made_disk = &made["result"]["guest"]["disks"][0];
    assert_eq!(made_disk["volume"], disk(0));
    assert_eq!(made_disk["size"], 10);
    assert!(std::path::Path::new(made_disk["source"].as_str().unwrap()).is_file());
    assert_eq!(call(json!([{"size": 10}])).await, made, "a repeat succeeds unchanged");
    // A negative size is no size.
    let params = json!([{"guest": {"id": GUEST, "disks": [{"size": -1}]}}]);
    let body = json!({"method": "ImageStore.CreateGuestDisks", "params": params, "id": 1}).to_string();
    assert_eq!(raw(&agent, CALLS, JSON, &body).await.status, 400);
}

#[tokio::test]
async fn t67_download() {
    let agent = Agent::start().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
    ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await.unwrap();
    let id = |id: &str| json!({"id": id}).to_string();
    let long = format!("{}@{}", disk(0), "x".repeat(300));
    for (case, body, status, words) in [
        ("missing id", id(""), 400, "id is missing"),
        ("no id at all", "{}".to_owned(), 400, "id is missing"),
        ("bad body", "{".to_owned(), 400, "no snapshot request"),
        ("no object", "[]".to_owned(), 400, "no snapshot request"),
        ("a number", r#"{"id": 5}"#.to_owned(), 400, "no snapshot request"),
        ("huge body", format!("{{\"id\": \"{}\"}}", "x".repeat(1 << 20)), 400, "cannot be read"),
        ("unknown snapshot", id(&format!("{}@t", disk(0))), 404, "not found"),
        ("unknown disk", id(&format!("{}@s", disk(5))), 404, "not found"),
        ("unknown guest", id(&format!("guests/{OTHER_GUEST}@s")), 404, "not found"),
        ("no snapshot", id(&disk(0)), 400, "not a snapshot"),
        ("invalid name", id(&format!("{}@a/b", disk(0))), 400, "not a valid snapshot name"),
        ("empty name", id(&format!("{}@", disk(0))), 400, "not a valid snapshot name"),
        ("long name", id(&long), 400, "not a valid snapshot name"),
        ("no dataset", id("../../etc/passwd@s"), 400, "not a valid dataset"),
    ] {
        let answer = raw(&agent, "POST /snapshots/download", &[], &body).await;
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert!(answer.text().contains(words), "{case}: {}", answer.text());
    }
    let found = raw(&agent, "POST /snapshots/download", &[], &id(&format!("{}@s", disk(0)))).await;
    assert_eq!((found.status, found.body.len() as u64), (200, MIB));
    assert_eq!(raw(&agent, "GET /snapshots/download", &[], "").await.status, 405);
}

/// The original compared KiB with MB, and promised a thousand times what there was.
#[tokio::test]
async fn s1_room_is_counted_in_one_unit() {
    let agent = Agent::start().await;
    let room: rpc::CapacityResponse = agent.call("Capacity", &rpc::Nothing {}).await.unwrap();
    let most_mib = room.total_bytes / MIB;
    let refused = agent.guest("VerifyDisks", &guest("1.1", &[("", most_mib + 4096)])).await;
    fails(refused, FaultCode::NoSpace, "left to promise");
    agent.guest("VerifyDisks", &guest("1.1", &[("", most_mib / 2)])).await.expect("what is there is given");
    for sizes in [&[("", u64::MAX / MIB), ("", u64::MAX / MIB)][..], &[("", u64::MAX)]] {
        fails(agent.guest("VerifyDisks", &guest("1.1", sizes)).await, FaultCode::Invalid, "limit");
    }
}

/// In the original a delete could not end after a create that had failed.
#[tokio::test]
async fn s2_disks_that_are_not_there_are_deleted() {
    let agent = Agent::start().await;
    let asked = guest("1.1", &[(OTHER_IMAGE, 0)]);
    fails(agent.guest("CreateGuestDisks", &asked).await, FaultCode::NotFound, "request it first");
    for _ in 0..2 {
        assert!(agent.guest("DeleteGuestsDisks", &asked).await.unwrap().disks.is_empty());
    }
}

/// The original forgot it.
#[tokio::test]
async fn s3_a_stored_image_has_a_type() {
    let agent = Agent::start().await;
    assert_eq!(agent.store_image().await.kind, "kvm");
    let bytes = raw_image(MIB);
    let wanted = agent.import(OTHER_IMAGE, "other.raw", "raw", &bytes);
    let container = rpc::ImageRequest { kind: "container".to_owned(), ..wanted };
    assert_eq!(agent.fetch(&container).await.unwrap().kind, "container");
}

/// The original left failed downloads lying, and never looked at what really stood.
#[tokio::test]
async fn s4_what_failed_is_removed_and_what_stands_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_in(folder.path()).await;
    let mut wrong = agent.import(IMAGE, "image.raw", "raw", &raw_image(MIB));
    wrong.haar.as_mut().unwrap().sha256 = "0".repeat(64);
    fails(agent.fetch(&wrong).await, FaultCode::BadImage, "SHA-256");
    assert!(agent.names("images").is_empty());
    let image = agent.store_image().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
    agent.stop().await;

    let images = folder.path().join("storage/images");
    for name in [format!(".part-{OTHER_IMAGE}"), format!("{OTHER_IMAGE}.expanded")] {
        std::fs::write(images.join(name), "half").unwrap();
    }
    std::fs::remove_dir_all(folder.path().join(format!("storage/disks/{GUEST}"))).unwrap();
    let agent = Agent::start_in(folder.path()).await;
    assert_eq!(agent.names("images"), [format!("{IMAGE}.json"), format!("{IMAGE}.qcow2")]);
    let listed: rpc::ImageResponse = agent.call("ListImages", &rpc::ImageRequest::default()).await.unwrap();
    assert_eq!(listed.images, Some(vec![image]));
    let volumes: rpc::VolumeResponse =
        agent.call("ListVolumes", &rpc::VolumeRequest::default()).await.unwrap();
    assert!(volumes.volumes.is_empty(), "{volumes:?}");
}
