//! Fetches that broke off, and what becomes of what had come.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use haar_api::rpc::{self, FaultCode};
use haar_subagents::kit;

use crate::harness::*;
use crate::killed::Process;
use crate::web::{Manner, Web};

fn part(folder: &Path) -> PathBuf {
    folder.join(format!("storage/images/.part-{IMAGE}"))
}

fn note(folder: &Path) -> PathBuf {
    folder.join(format!("storage/images/.part-{IMAGE}.note"))
}

/// A server that breaks off after half of what is asked for.
async fn breaking(bytes: &[u8]) -> (Web, rpc::ImageRequest) {
    let web = Web::serve(bytes.to_vec(), Manner::Broken).await;
    web.tell_version("one");
    let wanted = request(IMAGE, &web.address, "qcow2", bytes);
    (web, wanted)
}

fn asked_from(web: &Web) -> Option<String> {
    let heads = web.heads();
    let line = heads.last().unwrap().lines().find_map(|line| line.strip_prefix("range: bytes="));
    line.map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_fetch_that_broke_off_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = qcow2_image();
    let (web, wanted) = breaking(&bytes).await;
    let agent = Agent::start_in(folder.path()).await;
    fails(agent.fetch(&wanted).await, FaultCode::Unavailable, "cannot fetch the image");
    let half = bytes.len() / 2;
    assert_eq!(part(folder.path()).metadata().unwrap().len(), half as u64);
    // And it may break off again.
    fails(agent.fetch(&wanted).await, FaultCode::Unavailable, "cannot fetch the image");
    assert_eq!(asked_from(&web), Some(format!("{half}-")));
    let more = part(folder.path()).metadata().unwrap().len();
    assert!(more > half as u64);
    web.behave(Manner::Whole);
    agent.fetch(&wanted).await.unwrap();
    assert_eq!(asked_from(&web), Some(format!("{more}-")));
    assert!(std::fs::read(folder.path().join(format!("storage/images/{IMAGE}.qcow2"))).unwrap() == bytes);
    assert_eq!(agent.names("images"), [format!("{IMAGE}.json"), format!("{IMAGE}.qcow2")]);
}

#[tokio::test]
async fn what_has_come_outlives_a_token_that_ran_out() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = qcow2_image();
    let (web, wanted) = breaking(&bytes).await;
    let agent = Agent::start_in(folder.path()).await;
    fails(agent.fetch(&wanted).await, FaultCode::Unavailable, "cannot fetch the image");
    web.behave(Manner::Status(403));
    fails(agent.fetch(&wanted).await, FaultCode::Invalid, "403");
    web.behave(Manner::Whole);
    agent.fetch(&wanted).await.unwrap();
    assert_eq!(asked_from(&web), Some(format!("{}-", bytes.len() / 2)));
}

#[tokio::test]
async fn killed_in_mid_fetch_it_goes_on_after_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/storage.sock");
    let bytes = qcow2_image();
    let (web, wanted) = breaking(&bytes).await;
    web.behave(Manner::Gated);
    let process = Process::start(folder.path(), &[]);
    until_answers(&socket).await;
    let _: rpc::ImageResponse = kit::call(&socket, "ImageStore.RequestImage", &wanted, LIMIT).await.unwrap();
    let half = bytes.len() as u64 / 2;
    let path = part(folder.path());
    until("half has come", || path.metadata().is_ok_and(|metadata| metadata.len() == half)).await;
    drop(process);

    let agent = Agent::start_in(folder.path()).await;
    assert!(path.exists(), "the start keeps it");
    web.behave(Manner::Whole);
    agent.fetch(&wanted).await.unwrap();
    assert_eq!(asked_from(&web), Some(format!("{half}-")));
    assert_eq!(agent.names("images"), [format!("{IMAGE}.json"), format!("{IMAGE}.qcow2")]);
}

#[tokio::test]
async fn another_version_or_another_image_begins_anew() {
    let bytes = qcow2_image();
    for case in ["version", "source", "image", "no parts", "lost bytes"] {
        let folder = tempfile::tempdir().unwrap();
        let (web, mut wanted) = breaking(&bytes).await;
        let agent = Agent::start_in(folder.path()).await;
        let _ = agent.fetch(&wanted).await.unwrap_err();
        web.behave(Manner::Whole);
        let mut ranged = true;
        match case {
            "version" => web.tell_version("two"),
            "source" => {
                wanted.source.push_str("?other");
                ranged = false;
            }
            "image" => {
                // What is left belongs to another content.
                let text = std::fs::read_to_string(note(folder.path())).unwrap();
                let of_another = text.replace(&wanted.haar.as_ref().unwrap().sha256, &"0".repeat(64));
                std::fs::write(note(folder.path()), of_another).unwrap();
                ranged = false;
            }
            "no parts" => web.behave(Manner::Unmeasured),
            _ => {
                // As after a power cut: the length was on the disk and the bytes were not.
                let length = part(folder.path()).metadata().unwrap().len();
                std::fs::write(part(folder.path()), vec![0; length.try_into().unwrap()]).unwrap();
            }
        }
        let first = web.heads().len();
        agent.fetch(&wanted).await.unwrap_or_else(|fault| panic!("{case}: {fault}"));
        assert_eq!(web.heads()[first].contains("range: bytes="), ranged, "{case}");
        let stored = std::fs::read(folder.path().join(format!("storage/images/{IMAGE}.qcow2"))).unwrap();
        assert!(stored == bytes, "{case}");
        assert_eq!(agent.names("images").len(), 2, "{case}");
    }
}

#[tokio::test]
async fn what_cannot_be_gone_on_with_is_removed() {
    let bytes = qcow2_image();
    for case in ["wrong bytes", "refused", "deleted", "no note", "old", "pruned"] {
        let folder = tempfile::tempdir().unwrap();
        let (web, mut wanted) = breaking(&bytes).await;
        let mut agent = Agent::start_in(folder.path()).await;
        let _ = agent.fetch(&wanted).await.unwrap_err();
        assert!(part(folder.path()).exists() && note(folder.path()).exists(), "{case}");
        let grow_old = || {
            let file = std::fs::File::options().append(true).open(part(folder.path())).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(25 * 60 * 60)).unwrap();
        };
        match case {
            "wrong bytes" => {
                web.behave(Manner::Whole);
                wanted.haar.as_mut().unwrap().sha256 = "0".repeat(64);
                fails(agent.fetch(&wanted).await, FaultCode::BadImage, "SHA-256");
            }
            "refused" => {
                web.behave(Manner::Status(404));
                fails(agent.fetch(&wanted).await, FaultCode::NotFound, "answered 404");
            }
            "deleted" => drop(agent.call::<_, rpc::ImageResponse>("DeleteImage", &wanted).await.unwrap()),
            "pruned" => {
                let prune = rpc::PruneRequest { keep_newer_s: None };
                let _: rpc::ImageResponse = agent.call("PruneImages", &prune).await.unwrap();
                assert!(part(folder.path()).exists(), "a fresh one stays");
                grow_old();
                let _: rpc::ImageResponse = agent.call("PruneImages", &prune).await.unwrap();
            }
            started => {
                agent.stop().await;
                if started == "old" {
                    grow_old();
                } else {
                    std::fs::remove_file(note(folder.path())).unwrap();
                }
                agent = Agent::start_in(folder.path()).await;
            }
        }
        assert!(agent.names("images").is_empty(), "{case}: {:?}", agent.names("images"));
    }
}
