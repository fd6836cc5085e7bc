//! Fetching, verifying, listing and deleting images.

use std::os::unix::fs::PermissionsExt as _;

use haar_api::rpc::{self, FaultCode};

use crate::harness::*;
use crate::web::{Manner, Web};

#[tokio::test]
async fn a_fetched_image_is_verified_read_only_and_listed() {
    let agent = Agent::start().await;
    let bytes = qcow2_image();
    let web = Web::serve(bytes.clone(), Manner::Whole).await;
    let mut wanted = request(IMAGE, &web.address, "qcow2", &bytes);
    wanted.haar.as_mut().unwrap().authorization = "Bearer word".to_owned();

    let image = agent.fetch(&wanted).await.unwrap();
    assert_eq!((image.size, image.status.as_str(), image.kind.as_str()), (4, "complete", "kvm"));
    let extra = image.haar.clone().unwrap();
    assert_eq!((extra.virtual_bytes, extra.file_bytes), (4 * MIB, bytes.len() as u64));
    assert_eq!(extra.done_bytes, extra.file_bytes);

    let path = agent.root.join(format!("images/{IMAGE}.qcow2"));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o444);
    assert_eq!(agent.names("images"), [format!("{IMAGE}.json"), format!("{IMAGE}.qcow2")]);
    assert!(web.heads()[0].contains("authorization: Bearer word"), "{:?}", web.heads());

    assert_eq!(agent.image("GetImage", &wanted).await.unwrap(), image);
    assert_eq!(agent.image("ListImages", &rpc::ImageRequest::default()).await.unwrap(), image);
    assert_eq!(agent.fetch(&wanted).await.unwrap(), image, "asking twice is asking once");
    assert_eq!(web.heads().len(), 1, "and fetches nothing again");
}

#[tokio::test]
async fn a_request_answers_at_once_and_tells_how_far_it_is() {
    let agent = Agent::start().await;
    let bytes = qcow2_image();
    let web = Web::serve(bytes.clone(), Manner::Gated).await;
    let wanted = request(IMAGE, &web.address, "qcow2", &bytes);

    let first = agent.image("RequestImage", &wanted).await.unwrap();
    assert!(matches!(first.status.as_str(), "pending" | "downloading"), "{first:?}");
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let image = agent.image("RequestImage", &wanted).await.unwrap();
        let extra = image.haar.unwrap();
        if extra.done_bytes == bytes.len() as u64 / 2 {
            assert_eq!((image.status.as_str(), extra.file_bytes), ("downloading", bytes.len() as u64));
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "stuck at {}", extra.done_bytes);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(agent.image("GetImage", &wanted).await.unwrap().status, "downloading");
    let clone = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await;
    fails(clone, FaultCode::NotFound, "request it first");

    web.open_gate();
    agent.fetch(&wanted).await.unwrap();
    assert_eq!(web.heads().len(), 1, "every request shared one fetch");
}

#[tokio::test]
async fn s08_a_fetch_that_failed_is_told_and_then_tried_again() {
    let agent = Agent::start().await;
    let bytes = qcow2_image();
    let web = Web::serve(bytes.clone(), Manner::Broken).await;
    let wanted = request(IMAGE, &web.address, "qcow2", &bytes);

    fails(agent.fetch(&wanted).await, FaultCode::Unavailable, "cannot fetch the image");
    for (status, code) in
        [(404, FaultCode::NotFound), (403, FaultCode::Invalid), (503, FaultCode::Unavailable)]
    {
        web.behave(Manner::Status(status));
        fails(agent.fetch(&wanted).await, code, &status.to_string());
    }
    assert!(agent.names("images").is_empty(), "{:?}", agent.names("images"));
    web.behave(Manner::Whole);
    agent.fetch(&wanted).await.unwrap();
}

#[tokio::test]
async fn an_image_of_unknown_length_is_fetched_too() {
    let agent = Agent::start().await;
    let bytes = qcow2_image();
    let web = Web::serve(bytes.clone(), Manner::Unmeasured).await;
    let mut wanted = request(IMAGE, &web.address, "qcow2", &bytes);
    wanted.haar.as_mut().unwrap().file_bytes = 0;
    assert_eq!(agent.fetch(&wanted).await.unwrap().haar.unwrap().file_bytes, bytes.len() as u64);
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_refused() {
    let agent = Agent::start().await;
    let bytes = qcow2_image();
    let import = |format: &str, content: &[u8]| agent.import(IMAGE, "image", format, content);

    let mut wrong_hash = import("qcow2", &bytes);
    wrong_hash.haar.as_mut().unwrap().sha256 = "0".repeat(64);
    fails(agent.fetch(&wrong_hash).await, FaultCode::BadImage, "SHA-256");

    let mut wrong_size = import("qcow2", &bytes);
    wrong_size.haar.as_mut().unwrap().file_bytes += 1;
    fails(agent.fetch(&wrong_size).await, FaultCode::BadImage, "were asked for");

    fails(agent.fetch(&import("raw", &bytes)).await, FaultCode::BadImage, "it is a qcow2 image");
    fails(agent.fetch(&import("qcow2", &raw_image(MIB))).await, FaultCode::BadImage, "format raw");
    fails(agent.fetch(&import("qcow2", &bytes[..bytes.len() / 2])).await, FaultCode::BadImage, "truncated");
    fails(agent.fetch(&import("qcow2", b"")).await, FaultCode::BadImage, "empty");
    assert!(agent.names("images").is_empty(), "{:?}", agent.names("images"));
}

#[tokio::test]
async fn more_than_was_announced_is_refused_while_it_comes() {
    let agent = Agent::start().await;
    let bytes = raw_image(2 * MIB);
    let web = Web::serve(bytes.clone(), Manner::Unmeasured).await;
    let mut wanted = request(IMAGE, &web.address, "raw", &bytes);
    wanted.haar.as_mut().unwrap().file_bytes = MIB;
    fails(agent.fetch(&wanted).await, FaultCode::BadImage, "more than");
    assert!(agent.names("images").is_empty());
}

#[tokio::test]
async fn requests_that_cannot_be_verified_or_reach_out_of_bounds_are_invalid() {
    let agent = Agent::start().await;
    let bytes = raw_image(MIB);
    let outside = agent.root.join("outside.raw");
    std::fs::write(&outside, &bytes).unwrap();
    std::os::unix::fs::symlink(&outside, agent.image_dir.join("link.raw")).unwrap();
    let link = agent.image_dir.join("link.raw");
    for path in [&outside, &link] {
        let wanted = request(IMAGE, &format!("file://{}", path.display()), "raw", &bytes);
        fails(agent.fetch(&wanted).await, FaultCode::Invalid, "image_dirs");
    }
    let sound = agent.import(IMAGE, "a.raw", "raw", &bytes);
    let spoiled = |spoil: &dyn Fn(&mut rpc::ImageRequest)| {
        let mut wanted = sound.clone();
        spoil(&mut wanted);
        wanted
    };
    for (wanted, words) in [
        (spoiled(&|wanted| wanted.haar = None), "SHA-256"),
        (spoiled(&|wanted| wanted.haar.as_mut().unwrap().sha256.clear()), "64"),
        (spoiled(&|wanted| wanted.haar.as_mut().unwrap().sha256 = "A".repeat(64)), "lower-case"),
        (spoiled(&|wanted| wanted.haar.as_mut().unwrap().format = "vmdk".into()), "qcow2 or raw"),
        (spoiled(&|wanted| wanted.haar.as_mut().unwrap().format = "../x".into()), "qcow2 or raw"),
        (spoiled(&|wanted| wanted.source = "/etc/passwd".into()), "address"),
        (spoiled(&|wanted| wanted.source = "ftp://host/x".into()), "address"),
        (spoiled(&|wanted| wanted.id = "../../x".into()), "UUID"),
        (spoiled(&|wanted| wanted.id.clear()), "UUID"),
    ] {
        fails(agent.image("RequestImage", &wanted).await, FaultCode::Invalid, words);
    }
    for method in ["GetImage", "DeleteImage"] {
        let hostile = rpc::ImageRequest { id: "../disks".into(), ..Default::default() };
        fails(agent.image(method, &hostile).await, FaultCode::Invalid, "UUID");
    }
}

#[tokio::test]
async fn an_id_stands_for_one_content() {
    let agent = Agent::start().await;
    agent.store_image().await;
    let other = agent.import(IMAGE, "other.raw", "raw", &raw_image(MIB));
    fails(agent.fetch(&other).await, FaultCode::Conflict, "use another id");
}

#[tokio::test]
async fn an_image_goes_only_when_no_disk_is_backed_by_it() {
    let agent = Agent::start().await;
    agent.store_image().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 0)])).await.unwrap();
    let named = rpc::ImageRequest { id: IMAGE.to_owned(), ..Default::default() };
    fails(agent.image("DeleteImage", &named).await, FaultCode::Conflict, "1 disks");
    assert!(agent.root.join(format!("images/{IMAGE}.qcow2")).exists());

    agent.guest("DeleteGuestsDisks", &guest("1.1", &[])).await.unwrap();
    assert_eq!(agent.image("DeleteImage", &named).await.unwrap().id, IMAGE);
    assert!(agent.names("images").is_empty());
    fails(agent.image("GetImage", &named).await, FaultCode::NotFound, IMAGE);
    let again: rpc::ImageResponse = agent.call("DeleteImage", &named).await.unwrap();
    assert_eq!(again.images, Some(vec![]), "an absent image is fine");
}

#[tokio::test]
async fn images_and_disks_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_in(folder.path()).await;
    let image = agent.store_image().await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 8)])).await.unwrap();
    agent.stop().await;
    let agent = Agent::start_in(folder.path()).await;
    assert_eq!(agent.image("GetImage", &request(IMAGE, "", "", b"")).await.unwrap(), image);
    let kept = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 8)])).await.unwrap();
    assert_eq!(kept.disks, made.disks);
}

#[tokio::test]
async fn an_image_whose_facts_are_damaged_is_fetched_anew_and_hides_no_other() {
    let agent = Agent::start().await;
    let image = agent.store_image().await;
    let plain = agent.import(OTHER_IMAGE, "plain.raw", "raw", &raw_image(MIB));
    let other = agent.fetch(&plain).await.unwrap();
    let asked = guest("1.1", &[(IMAGE, 0)]);
    agent.guest("CreateGuestDisks", &asked).await.unwrap();
    std::fs::write(agent.root.join(format!("images/{IMAGE}.json")), "{").unwrap();

    let listed: rpc::ImageResponse = agent.call("ListImages", &rpc::ImageRequest::default()).await.unwrap();
    assert_eq!(listed.images, Some(vec![other]));
    fails(agent.image("GetImage", &named(IMAGE)).await, FaultCode::NotFound, "request it first");
    assert_eq!(agent.store_image().await, image);
    agent.guest("CreateGuestDisks", &asked).await.expect("its clone is kept");
}

fn named(id: &str) -> rpc::ImageRequest {
    rpc::ImageRequest { id: id.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn no_image_is_fetched_from_a_link_local_address() {
    let agent = Agent::start().await;
    let bytes = raw_image(MIB);
    let straight = request(IMAGE, "http://169.254.169.254/latest", "raw", &bytes);
    fails(agent.image("RequestImage", &straight).await, FaultCode::Invalid, "link-local");
    let web = Web::serve(bytes.clone(), Manner::Leads("http://[fe80::1]/latest")).await;
    fails(
        agent.fetch(&request(IMAGE, &web.address, "raw", &bytes)).await,
        FaultCode::Unavailable,
        "link-local",
    );
}
