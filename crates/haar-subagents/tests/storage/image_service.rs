//! Images that are asked for by their id alone, as the originals' controller does.

use std::io::Write as _;

use haar_api::rpc::{self, Fault, FaultCode};
use haar_subagents::storage::Config;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::*;
use crate::plain;
use crate::web::{Manner, Web};

async fn beside(web: &Web) -> (tempfile::TempDir, Agent) {
    let folder = tempfile::tempdir().unwrap();
    let service = web.address.strip_suffix("/image").unwrap().parse().unwrap();
    let agent =
        Agent::start_as(folder.path(), Config { image_service: Some(service), ..config(folder.path()) });
    let agent = agent.await;
    (folder, agent)
}

fn wanted() -> rpc::ImageRequest {
    rpc::ImageRequest { id: IMAGE.to_owned(), kind: "kvm".to_owned(), ..Default::default() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn t52_an_image_asked_for_by_its_id_alone_comes_from_the_image_service() {
    for (format, bytes) in [("qcow2", qcow2_image()), ("raw", raw_image(4 * MIB))] {
        for given in [bytes.clone(), gzip(&bytes)] {
            let web = Web::serve(given, Manner::Whole).await;
            let (_folder, agent) = beside(&web).await;
            let image = agent.fetch(&wanted()).await.unwrap();
            assert_eq!((image.size, image.kind.as_str()), (4, "kvm"));
            let extra = image.haar.unwrap();
            assert_eq!((extra.format.as_str(), extra.sha256), (format, hex::encode(Sha256::digest(&bytes))));
            assert!(
                web.heads()[0].starts_with(&format!("GET /images/{IMAGE}/download HTTP")),
                "{:?}",
                web.heads()
            );
            agent.fetch(&wanted()).await.unwrap();
            assert_eq!(web.heads().len(), 1, "what is here is not fetched again");

            // The originals give a disk its image's size, whatever its flavor says.
            let foreign = rpc::Guest { haar: None, ..guest("", &[(IMAGE, 1)]) };
            assert_eq!(agent.guest("CreateGuestDisks", &foreign).await.unwrap().disks[0].size, 4);
        }
    }
}

#[tokio::test]
async fn what_an_image_service_gives_is_checked_and_nothing_else_is_taken_unverified() {
    let half = gzip(&qcow2_image());
    let web = Web::serve(half[..half.len() / 2].to_vec(), Manner::Whole).await;
    let (_folder, agent) = beside(&web).await;
    fails(agent.fetch(&wanted()).await, FaultCode::BadImage, "no whole gzip");
    web.behave(Manner::Status(404));
    fails(agent.fetch(&wanted()).await, FaultCode::NotFound, "404");
    web.behave(Manner::Broken);
    fails(agent.fetch(&wanted()).await, FaultCode::Unavailable, "cannot fetch");
    let elsewhere = rpc::ImageRequest { source: web.address.clone(), ..wanted() };
    fails(agent.fetch(&elsewhere).await, FaultCode::Invalid, "SHA-256");
    let plain = rpc::ImageRequest { haar: Some(rpc::ImageWant::default()), ..wanted() };
    fails(agent.fetch(&plain).await, FaultCode::Invalid, "format");
    assert!(agent.names("images").is_empty(), "{:?}", agent.names("images"));

    let alone = Agent::start().await;
    fails(alone.fetch(&wanted()).await, FaultCode::Invalid, "image service");
}

/// As the originals' callers ask, who go on as soon as they are answered.
async fn plainly(agent: &Agent) -> Result<Value, Fault> {
    plain::call(&agent.socket, "ImageStore.RequestImage", &json!({"id": IMAGE})).await
}

#[tokio::test]
async fn who_does_not_ask_again_is_answered_when_the_image_is_there() {
    let web = Web::serve(qcow2_image(), Manner::Gated).await;
    let (_folder, agent) = beside(&web).await;
    let fetching = || async {
        until("the fetch has begun", || !web.heads().is_empty()).await;
        assert_eq!(agent.image("GetImage", &wanted()).await.unwrap().status, "downloading");
        web.open_gate();
    };
    let (one, two, ()) = tokio::join!(plainly(&agent), plainly(&agent), fetching());
    for answer in [one.unwrap(), two.unwrap(), plainly(&agent).await.unwrap()] {
        assert_eq!(
            (&answer["images"][0]["status"], &answer["images"][0]["size"]),
            (&json!("complete"), &json!(4))
        );
    }
    assert_eq!(web.heads().len(), 1, "they share the fetch");
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait_and_a_deleted_image_to_them_too() {
    let web = Web::serve(qcow2_image(), Manner::Status(404)).await;
    let (_folder, agent) = beside(&web).await;
    let (one, two) = tokio::join!(plainly(&agent), plainly(&agent));
    fails(one, FaultCode::NotFound, "404");
    fails(two, FaultCode::NotFound, "404");

    web.behave(Manner::Gated);
    let begun = web.heads().len();
    let deleting = async {
        until("the fetch has begun again", || web.heads().len() > begun).await;
        agent.call::<_, Value>("DeleteImage", &wanted()).await.unwrap();
    };
    let (waited, ()) = tokio::join!(plainly(&agent), deleting);
    fails(waited, FaultCode::Unavailable, "deleted");

    web.behave(Manner::Whole);
    assert_eq!(plainly(&agent).await.unwrap()["images"][0]["status"], "complete", "it is tried again");
}
