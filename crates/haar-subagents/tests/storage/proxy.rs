//! What goes through the proxy of the environment, and what must not. The sub-agent is a process of its own here,
//! for its environment's sake.

use std::path::Path;

use haar_api::rpc::{self, Fault};
use haar_subagents::kit;

use crate::harness::*;
use crate::killed::Process;
use crate::web::{Manner, Web};

/// Requests until the image is complete, or answers the fault.
async fn fetch(socket: &Path, wanted: &rpc::ImageRequest) -> Result<(), Fault> {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let answer: rpc::ImageResponse =
            kit::call(socket, "ImageStore.RequestImage", wanted, LIMIT).await.unwrap();
        let image = answer.images.unwrap().remove(0);
        match image.status.as_str() {
            "complete" => return Ok(()),
            "error" => return Err(Fault::parse(&image.haar.unwrap().error)),
            _ => assert!(tokio::time::Instant::now() < deadline, "the fetch never ended: {image:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn neither_this_host_nor_a_token_goes_through_the_proxy_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/storage.sock");
    let bytes = raw_image(MIB);
    let proxy = Web::serve(bytes.clone(), Manner::Whole).await;
    let web = Web::serve(bytes.clone(), Manner::Whole).await;
    let proxy_address = proxy.address.trim_end_matches("/image");
    let _process = Process::start(
        folder.path(),
        &[
            ("http_proxy", proxy_address),
            ("HTTP_PROXY", proxy_address),
            ("ALL_PROXY", proxy_address),
            ("NO_PROXY", ""),
            ("no_proxy", ""),
        ],
    );
    until_answers(&socket).await;

    fetch(&socket, &request(IMAGE, &web.address, "raw", &bytes)).await.unwrap();
    assert_eq!((proxy.heads().len(), web.heads().len()), (0, 1), "this host is asked directly");

    let far = "http://images.invalid/image";
    let mut secret = request(OTHER_IMAGE, far, "raw", &bytes);
    secret.haar.as_mut().unwrap().authorization = "Bearer word".to_owned();
    fetch(&socket, &secret).await.expect_err("there is no such host");
    assert_eq!(proxy.heads(), Vec::<String>::new(), "a token is shown to no proxy");

    fetch(&socket, &request(OTHER_IMAGE, far, "raw", &bytes)).await.expect("the rest goes through it");
    assert!(proxy.heads()[0].starts_with("GET http://images.invalid/image"), "{:?}", proxy.heads());
}
