//! Images from one file: what `docker save` writes, and a layout in a tar.

use haar_api::rpc::{FaultCode, ImageRequest, ImageWant};
use haar_subagents::container::oci::Digest;
use serde_json::json;

use crate::harness::*;
use crate::make_image::{self, E, gzip, layer};
use crate::plain;

fn sample() -> make_image::Image {
    make_image::image(&[layer(&[E::File("a", b"1")]), layer(&[E::File("b", b"2")])], &json!({"Cmd": ["/a"]}))
}

/// The layout in a tar.
fn layout_tar(image: &make_image::Image) -> Vec<u8> {
    let index = image.index().to_string();
    let names: Vec<String> =
        image.blobs.iter().map(|(digest, _)| format!("blobs/sha256/{}", digest.hex())).collect();
    let mut entries = vec![E::File("./index.json", index.as_bytes())];
    entries.extend(names.iter().zip(&image.blobs).map(|(name, (_, bytes))| E::File(name, bytes)));
    layer(&entries)
}

fn request(world: &World, name: &str, bytes: &[u8], sha256: &str) -> ImageRequest {
    let path = world.path().join("import").join(name);
    std::fs::write(&path, bytes).unwrap();
    ImageRequest {
        id: IMAGE.to_owned(),
        source: format!("file://{}", path.display()),
        haar: Some(ImageWant { sha256: sha256.to_owned(), ..ImageWant::default() }),
        ..ImageRequest::default()
    }
}

#[tokio::test]
async fn every_kind_of_archive_gives_the_same_files() {
    for archive in [
        sample().docker_save(),
        gzip(&sample().docker_save()),
        layout_tar(&sample()),
        gzip(&layout_tar(&sample())),
    ] {
        let world = World::new();
        let agent = Agent::start(&world).await;
        let digest = Digest::of(&archive);
        let loaded = agent.load(&request(&world, "image.tar", &archive, digest.hex())).await.unwrap();
        assert_eq!(loaded.haar.unwrap().sha256, digest.hex());
        let folder = world.path().join("container/images").join(IMAGE);
        assert_eq!(std::fs::read(folder.join("rootfs/b")).unwrap(), b"2");
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["image.json", "rootfs"], "nothing else is kept");
    }
}

#[tokio::test]
async fn t52_a_containers_image_asked_for_by_its_id_alone_comes_from_the_image_service() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = format!("http://{}", listener.local_addr().unwrap());
    std::fs::write(world.path().join("image-service"), service).unwrap();
    let archive = gzip(&sample().docker_save());
    let given = archive.clone();
    let download = axum::routing::get(move || std::future::ready(given.clone()));
    let router = axum::Router::new().route(&format!("/images/{IMAGE}/download"), download);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let agent = Agent::start(&world).await;
    let request =
        ImageRequest { id: IMAGE.to_owned(), kind: "container".to_owned(), ..ImageRequest::default() };
    let loaded = agent.load(&request).await.unwrap();
    assert_eq!(loaded.haar.unwrap().sha256, Digest::of(&archive).hex());
    let file = world.path().join("container/images").join(IMAGE).join("rootfs/b");
    assert_eq!(std::fs::read(&file).unwrap(), b"2");

    // Who does not ask again is answered when the image is there, or cannot be.
    let asked = async |method: &str, id: &str| {
        plain::call(&world.socket(), &format!("MDocker.{method}"), &json!({"id": id})).await
    };
    asked("DeleteImage", IMAGE).await.unwrap();
    let (one, two) = tokio::join!(asked("LoadImage", IMAGE), asked("LoadImage", IMAGE));
    for answer in [one.unwrap(), two.unwrap()] {
        assert_eq!(answer["images"][0]["status"], "complete");
        assert_eq!(std::fs::read(&file).unwrap(), b"2");
    }
    fails(asked("LoadImage", "2a7c3f52-6f3e-4d69-9a57-1f2d9c0a3c99").await, FaultCode::NotFound, "404");
}

#[tokio::test]
async fn an_archive_that_is_not_of_its_pin_is_refused() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let request = request(&world, "image.tar", &sample().docker_save(), &"0".repeat(64));
    fails(agent.load(&request).await, FaultCode::BadImage, "wrong one");
}

#[tokio::test]
async fn a_changed_layer_of_a_saved_image_is_refused() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let mut image = sample();
    image.layers[1] = layer(&[E::File("b", b"changed")]);
    fails(
        agent.load(&request(&world, "image.tar", &image.docker_save(), "")).await,
        FaultCode::BadImage,
        "unpacked",
    );
}

#[tokio::test]
async fn names_in_an_archives_list_lead_to_its_own_members_only() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    for hostile in ["/etc/passwd", "../../../../etc/passwd", "never"] {
        let list = json!([{"Config": hostile, "Layers": [hostile]}]).to_string();
        let archive =
            layer(&[E::File("manifest.json", list.as_bytes()), E::Symlink("etc/passwd", "/etc/passwd")]);
        fails(agent.load(&request(&world, "image.tar", &archive, "")).await, FaultCode::BadImage, "lacks");
    }
}

#[tokio::test]
async fn one_of_several_images_is_chosen_by_its_tag() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let mut index = sample().index();
    let one = index["manifests"][0].clone();
    index["manifests"].as_array_mut().unwrap().push(one);
    index["manifests"][1]["annotations"]["org.opencontainers.image.ref.name"] = "second".into();
    let mut request = world.request(&sample());
    std::fs::write(world.path().join("import/layout/index.json"), index.to_string()).unwrap();
    fails(agent.load(&request).await, FaultCode::Invalid, "latest, second");
    request.source.push_str("#second");
    agent.load(&request).await.unwrap();
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    for bytes in
        [b"".to_vec(), b"text".repeat(1000), gzip(b"text"), vec![0x1f, 0x8b], layer(&[E::File("a", b"1")])]
    {
        fails(agent.load(&request(&world, "image.tar", &bytes, "")).await, FaultCode::BadImage, "");
    }
}
