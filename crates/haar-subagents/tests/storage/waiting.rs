//! Who waits for a program or for the books keeps nobody else from being answered.

use haar_api::rpc;
use haar_subagents::kit;

use crate::harness::*;
use crate::http::http;
use crate::killed::Process;
use crate::snapshots_killed::Gated;

#[tokio::test]
async fn a_deletion_that_waits_its_turn_stops_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_in(folder.path()).await;
    agent.store_image().await;
    let socket = agent.socket.clone();
    agent.stop().await;
    let gated = Gated::before(folder.path(), "create*");
    let _process = Process::start(folder.path(), &[("PATH", &gated.path)]);
    until_answers(&socket).await;

    gated.shut();
    let (to_create, to_delete, to_send) = (socket.clone(), socket.clone(), socket.clone());
    let request = rpc::GuestRequest { guest: Some(guest("1.1", &[("", 1)])), ..Default::default() };
    let creating = tokio::spawn(async move {
        kit::call::<_, rpc::GuestResponse>(&to_create, "ImageStore.CreateGuestDisks", &request, LIMIT).await
    });
    gated.reached().await;
    let named = rpc::ImageRequest { id: IMAGE.to_owned(), ..Default::default() };
    let deleting = tokio::spawn(async move {
        kit::call::<_, rpc::ImageResponse>(&to_delete, "ImageStore.DeleteImage", &named, LIMIT).await
    });
    let sending = tokio::spawn(async move {
        let bytes = raw_image(MIB);
        let sha256 = crate::harness::request(OTHER_IMAGE, "", "", &bytes).haar.unwrap().sha256;
        let line = format!("PUT /images/{OTHER_IMAGE}/data?format=raw&sha256={sha256}");
        http(&to_send, &line, &[], &bytes).await.status
    });
    // The books are held by a program that is stuck; whoever needs none is answered.
    for _ in 0..20 {
        let none = rpc::ImageRequest::default();
        kit::call::<_, rpc::ImageResponse>(&socket, "ImageStore.ListImages", &none, LIMIT).await.unwrap();
    }
    assert!(!creating.is_finished() && !deleting.is_finished());
    gated.open();
    creating.await.unwrap().unwrap();
    deleting.await.unwrap().unwrap();
    assert_eq!(sending.await.unwrap(), 201);
}
