//! Fetches that end because their image is deleted.

use std::time::Duration;

use haar_api::rpc::{self, FaultCode};

use crate::harness::*;
use crate::http::begin;
use crate::web::{Manner, Web};

async fn delete(agent: &Agent, id: &str) {
    let named = rpc::ImageRequest { id: id.to_owned(), ..Default::default() };
    let deleted: rpc::ImageResponse = agent.call("DeleteImage", &named).await.unwrap();
    assert_eq!(deleted.images, Some(vec![]), "there was nothing whole");
    fails(agent.image("GetImage", &named).await, FaultCode::NotFound, "request it first");
}

/// Waits until so many bytes of an image have come.
async fn until_came(agent: &Agent, id: &str, bytes: u64) {
    let named = rpc::ImageRequest { id: id.to_owned(), ..Default::default() };
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let came = agent.image("GetImage", &named).await.ok().and_then(|image| image.haar);
        if came.is_some_and(|came| came.done_bytes >= bytes) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "they never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_fetch_in_the_midst_of_its_stream_ends_and_begins_anew_when_asked() {
    let agent = Agent::start().await;
    let bytes = qcow2_image();
    let web = Web::serve(bytes.clone(), Manner::Gated).await;
    // So that what has come would be gone on with.
    web.tell_version("one");
    let wanted = request(IMAGE, &web.address, "qcow2", &bytes);
    agent.image("RequestImage", &wanted).await.unwrap();
    until_came(&agent, IMAGE, bytes.len() as u64 / 2).await;
    delete(&agent, IMAGE).await;
    assert!(agent.names("images").is_empty(), "{:?}", agent.names("images"));

    web.open_gate();
    agent.fetch(&wanted).await.unwrap();
    assert_eq!(web.heads().len(), 2);
    assert!(!web.heads()[1].contains("range:"), "nothing was left of it");
}

#[tokio::test]
async fn a_fetch_ends_before_its_source_has_said_a_word_and_before_its_turn() {
    let agent = Agent::start().await;
    let bytes = raw_image(MIB);
    let web = Web::serve(bytes.clone(), Manner::Silent).await;
    // More than run at once.
    let ids: Vec<String> = (1..=5).map(|number| IMAGE.replace("1111-4", &format!("{number:04}-4"))).collect();
    for id in &ids {
        agent.image("RequestImage", &request(id, &web.address, "raw", &bytes)).await.unwrap();
    }
    let deadline = tokio::time::Instant::now() + LIMIT;
    while web.heads().len() < 4 {
        assert!(tokio::time::Instant::now() < deadline, "they are not fetched at once");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let waiting = rpc::ImageRequest { id: ids[4].clone(), ..Default::default() };
    assert_eq!(agent.image("GetImage", &waiting).await.unwrap().status, "pending");
    for id in ids.iter().rev() {
        delete(&agent, id).await;
    }
    assert_eq!(web.heads().len(), 4, "the last was never asked for");
    assert!(agent.names("images").is_empty(), "{:?}", agent.names("images"));
}

#[tokio::test]
async fn an_upload_ends_too_and_its_sender_is_told() {
    let agent = Agent::start().await;
    let bytes = raw_image(2 * MIB);
    let sha256 = request(IMAGE, "", "", &bytes).haar.unwrap().sha256;
    let line = format!("PUT /images/{IMAGE}/data?format=raw&sha256={sha256}");
    let length = bytes.len().to_string();
    let half = &bytes[..bytes.len() / 2];
    let mut stream = begin(&agent.socket, &line, &[("content-length", &length)], half).await;
    until_came(&agent, IMAGE, half.len() as u64).await;
    delete(&agent, IMAGE).await;
    assert!(agent.names("images").is_empty(), "{:?}", agent.names("images"));
    // Whoever sends is heard out, for a while.
    tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes[half.len()..]).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    assert!(answer.contains("deleted before it was whole"), "{answer}");
}
