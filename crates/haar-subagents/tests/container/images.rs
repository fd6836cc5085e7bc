//! Images: loaded, listed, deleted, and refused.

use haar_api::rpc::{FaultCode, Image, ImageResponse, ImageWant};
use serde_json::json;

use crate::harness::*;
use crate::make_image::{self, E, layer};

async fn images(agent: &Agent) -> Vec<Image> {
    agent.call::<ImageResponse>("ListImages", &json!({})).await.unwrap().images.unwrap()
}

#[tokio::test]
async fn an_image_of_a_layout_is_loaded_listed_and_deleted() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let layers = [layer(&[E::File("a", b"1"), E::File("b/c", b"2")]), layer(&[E::File(".wh.a", b"")])];
    let image = make_image::image(&layers, &json!({"Cmd": ["/x"]}));
    let loaded = agent.load(&world.request(&image)).await.unwrap();
    assert_eq!((loaded.kind.as_str(), loaded.status.as_str(), loaded.size), ("container", "complete", 1));
    assert_eq!(loaded.haar.as_ref().unwrap().sha256, image.manifest.hex());
    let rootfs = world.path().join("container/images").join(IMAGE).join("rootfs");
    assert!(!rootfs.join("a").exists() && rootfs.join("b/c").exists());

    assert_eq!(images(&agent).await, std::slice::from_ref(&loaded));
    let got: ImageResponse = agent.call("GetImage", &json!({"id": IMAGE})).await.unwrap();
    assert_eq!(got.images.unwrap(), [loaded]);
    // Asked again, even without a source, it is there.
    let again = agent.call::<ImageResponse>("LoadImage", &json!({"id": IMAGE})).await.unwrap();
    assert_eq!(again.images.unwrap()[0].status, "complete");
    for _ in 0..2 {
        let _: ImageResponse = agent.call("DeleteImage", &json!({"id": IMAGE})).await.unwrap();
    }
    assert!(images(&agent).await.is_empty() && !rootfs.exists());
    fails(
        agent.call::<ImageResponse>("GetImage", &json!({"id": IMAGE})).await,
        FaultCode::NotFound,
        "load it",
    );
}

#[tokio::test]
async fn a_blob_that_is_not_of_its_digest_is_refused_and_leaves_nothing() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    for index in 0..3 {
        let mut image = make_image::image(&[layer(&[E::File("a", b"1")])], &json!({}));
        let digest = image.blobs[index].0.clone();
        let request = world.request(&image);
        image.blobs[index].1.push(b' ');
        std::fs::write(
            world.path().join("import/layout/blobs/sha256").join(digest.hex()),
            &image.blobs[index].1,
        )
        .unwrap();
        fails(agent.load(&request).await, FaultCode::BadImage, "digest");
        assert_eq!(std::fs::read_dir(world.path().join("container/images")).unwrap().count(), 0, "{index}");
    }
}

#[tokio::test]
async fn a_layer_that_unpacks_to_something_else_is_refused() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let mut image = make_image::image(&[layer(&[E::File("a", b"1")])], &json!({}));
    // The blob's own digest is right, the one of what it unpacks to is another's.
    let other = make_image::image(&[layer(&[E::File("a", b"2")])], &json!({}));
    let text = |blob: &[u8]| String::from_utf8(blob.to_vec()).unwrap();
    let config = other.blobs[0].clone();
    let manifest = text(&image.blobs[2].1).replace(image.config.as_str(), config.0.as_str());
    let digest = haar_subagents::container::oci::Digest::of(manifest.as_bytes());
    image.blobs.extend([config, (digest.clone(), manifest.into_bytes())]);
    image.manifest = digest;
    fails(agent.load(&world.request(&image)).await, FaultCode::BadImage, "unpacked");
}

#[tokio::test]
async fn a_pin_is_kept_to_and_an_id_stands_for_one_content() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let image = make_image::image(&[layer(&[E::File("a", b"1")])], &json!({}));
    let mut request = world.request(&image);
    let want = |sha256: &str| Some(ImageWant { sha256: sha256.to_owned(), ..ImageWant::default() });
    request.haar = want(&"0".repeat(64));
    fails(agent.load(&request).await, FaultCode::BadImage, "wrong one");
    request.haar = want(image.manifest.hex());
    agent.load(&request).await.unwrap();
    request.haar = want(&"0".repeat(64));
    fails(agent.load(&request).await, FaultCode::Conflict, "another id");
}

#[tokio::test]
async fn an_image_with_unsafe_entries_is_refused() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let layers = [layer(&[E::Symlink("out", "/"), E::File("out/x", b"inside")])];
    agent.load(&world.request(&make_image::image(&layers, &json!({})))).await.unwrap();
    let rootfs = world.path().join("container/images").join(IMAGE).join("rootfs");
    assert_eq!(std::fs::read(rootfs.join("x")).unwrap(), b"inside", "the link's root is the image's");
    assert!(!std::path::Path::new("/x").exists());
    let _: ImageResponse = agent.call("DeleteImage", &json!({"id": IMAGE})).await.unwrap();

    let many: Vec<E<'_>> = (0..1001).map(|_| E::Folder("d")).collect();
    fails(
        agent.load(&world.request(&make_image::image(&[layer(&many)], &json!({})))).await,
        FaultCode::BadImage,
        "entries",
    );
    let large = vec![0; 65 << 20];
    let large = [layer(&[E::File("large", &large)])];
    fails(
        agent.load(&world.request(&make_image::image(&large, &json!({})))).await,
        FaultCode::BadImage,
        "bytes",
    );
}

#[tokio::test]
async fn a_restart_finds_what_was_complete_and_sweeps_what_was_not() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let image = make_image::image(&[layer(&[E::File("a", b"1")])], &json!({}));
    agent.load(&world.request(&image)).await.unwrap();
    agent.kill();
    let part = world.path().join("container/images/.part-x");
    std::fs::create_dir_all(part.join("rootfs/half")).unwrap();
    let agent = Agent::start(&world).await;
    assert_eq!(images(&agent).await.len(), 1);
    assert!(!part.exists());
    agent.end().await;
}
