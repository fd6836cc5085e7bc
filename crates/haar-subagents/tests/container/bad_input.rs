//! Every field absent, null, of another type, huge and hostile: a refusal with words, and nothing made.

use haar_api::rpc::FaultCode;
use haar_subagents::kit::CallError;
use serde_json::{Value, json};

use crate::harness::*;
use crate::make_image::{self, E, layer};

/// Values that fit nowhere, or only where they are asked for.
fn hostile() -> Vec<Value> {
    let long = "x".repeat(100_000);
    let mut values = vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!([]),
        json!({}),
        json!([null]),
        json!([[]]),
        json!({"id": {}}),
        json!(""),
        json!("."),
        json!(".."),
        json!("../../etc"),
        json!("/etc/passwd"),
        json!("a/b"),
        json!("a\0b"),
        json!("-rf"),
        json!("--help"),
        json!("$(touch /tmp/haar-hostile)"),
        json!("`x`;x|x&x\n"),
        json!("%2e%2e"),
        json!(GUEST.to_uppercase()),
        json!("\u{202e}\u{0}"),
    ];
    values.push(json!(long));
    values.push(json!([long]));
    values
}

/// Calls and tells whether it was taken. What does not answer, or answers with words of a defect, fails the test.
async fn is_taken(agent: &Agent, method: &str, params: &Value) -> bool {
    match agent.try_call::<Value>(method, params).await {
        Ok(_) => true,
        Err(CallError::Fault(fault)) => {
            assert!(!fault.message.contains("defect"), "{method} {params}: {fault}");
            assert!(fault.message.len() < 4096, "{method}: the refusal repeats what it was given");
            false
        }
        Err(CallError::Refused { status, text }) => {
            assert!((400..500).contains(&status), "{method}: {status} {text}");
            false
        }
        Err(error) => panic!("{method} {params}: {error:?}"),
    }
}

#[tokio::test]
async fn a_hostile_guest_makes_nothing() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    agent
        .load(&world.request(&make_image::image(&[layer(&[E::File("a", b"1")])], &json!({"Cmd": ["/a"]}))))
        .await
        .unwrap();
    let sound = world.guest(GUEST);
    // Fields that a hostile value is refused in, whatever it is. Others are taken where the value fits.
    let strict = ["/id", "/image", "/nics/0/network", "/haar/cloud"];
    for place in [
        "/id",
        "/image",
        "/nics",
        "/nics/0",
        "/nics/0/network",
        "/nics/0/mac",
        "/nics/0/address",
        "/nics/0/netmask",
        "/nics/0/gateway",
        "/memory",
        "/cpu",
        "/haar",
        "/haar/cloud",
        "/haar/name",
        "/haar/life",
        "/haar/restart",
        "/haar/command",
        "/haar/entrypoint",
        "/haar/env",
        "/type",
        "/metadata",
        "/disks",
    ] {
        for value in hostile() {
            let mut guest = sound.clone();
            if guest.pointer(place).is_none() {
                let (parent, field) = place.rsplit_once('/').unwrap();
                guest.pointer_mut(parent).unwrap()[field] = Value::Null;
            }
            *guest.pointer_mut(place).unwrap() = value.clone();
            let taken = is_taken(&agent, "CreateContainer", &json!({"guest": guest})).await;
            let is_default = value.is_null() && place == "/haar/cloud";
            assert!(!(taken && strict.contains(&place)) || is_default, "{place} {value}");
            if taken {
                // As sound as it looked: it can be removed again.
                let mut id = json!({"id": GUEST});
                id["haar"] = json!({});
                let _: Value = agent.call("DeleteContainer", &json!({"guest": id})).await.unwrap();
            }
            assert_eq!(
                std::fs::read_dir(world.path().join("container/containers")).unwrap().count(),
                0,
                "{place} {value}"
            );
        }
    }
    assert!(!std::path::Path::new("/tmp/haar-hostile").exists());
    agent.end().await;
}

#[tokio::test]
async fn hostile_parameters_of_every_method_are_refused() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    for method in [
        "CreateContainer",
        "StartContainer",
        "StopContainer",
        "RestartContainer",
        "RebootContainer",
        "PauseContainer",
        "UnpauseContainer",
        "DeleteContainer",
    ] {
        for value in hostile() {
            assert!(!is_taken(&agent, method, &json!({"guest": value})).await, "{method} {value}");
            assert!(!is_taken(&agent, method, &json!({"guest": {"id": value}})).await, "{method} {value}");
            assert!(
                !is_taken(&agent, method, &json!({"guest": {"id": GUEST}, "action": value})).await
                    || method == "DeleteContainer"
            );
        }
        assert!(!is_taken(&agent, method, &json!({})).await, "{method} of nobody");
    }
    for value in hostile() {
        for method in ["GetContainer", "GetImage", "DeleteImage", "LoadImage"] {
            assert!(!is_taken(&agent, method, &json!({"id": value})).await, "{method} {value}");
        }
        for field in ["source", "type", "haar"] {
            let mut request = json!({"id": IMAGE, "source": "file:///never/there"});
            request[field] = value.clone();
            // A source inside no allowed folder begins and fails; it never ends well.
            let _ = is_taken(&agent, "LoadImage", &request).await;
        }
        is_taken(&agent, "ListContainers", &json!({"opts": value})).await;
        assert!(!is_taken(&agent, "SaveContainer", &json!({"id": value})).await, "{value}");
        for opts in [
            value.clone(),
            json!({"Repository": value}),
            json!({"Run": value}),
            json!({"Run": {"Cmd": value}}),
        ] {
            assert!(!is_taken(&agent, "SaveContainer", &json!({"id": GUEST, "opts": opts})).await, "{opts}");
        }
    }
    let images: haar_api::rpc::ImageResponse = agent.call("ListImages", &json!({})).await.unwrap();
    assert!(images.images.unwrap().iter().all(|image| image.status != "complete"));
}

#[tokio::test]
async fn a_source_outside_the_allowed_folders_is_not_read() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let image = make_image::image(&[layer(&[E::File("a", b"1")])], &json!({}));
    let outside = world.path().join("outside");
    image.write_layout(&outside);
    std::fs::write(world.path().join("outside.tar"), image.docker_save()).unwrap();
    std::os::unix::fs::symlink(&outside, world.path().join("import/link")).unwrap();
    std::os::unix::fs::symlink(world.path().join("outside.tar"), world.path().join("import/link.tar"))
        .unwrap();
    for path in ["outside", "outside.tar", "import/link", "import/link.tar", "import/../outside", "never"] {
        let source = format!("file://{}/{path}", world.path().display());
        let request = haar_api::rpc::ImageRequest { id: IMAGE.to_owned(), source, ..Default::default() };
        fails(agent.load(&request).await, FaultCode::Invalid, "not inside image_dirs");
    }
    // A layout inside whose blobs lie outside.
    let request = world.request(&image);
    let blobs = world.path().join("import/layout/blobs");
    std::fs::remove_dir_all(&blobs).unwrap();
    std::os::unix::fs::symlink(outside.join("blobs"), &blobs).unwrap();
    fails(agent.load(&request).await, FaultCode::Invalid, "not inside image_dirs");
}
