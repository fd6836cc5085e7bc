//! A sub-agent that is killed in the middle of its work, as a process of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use haar_api::rpc::{self, FaultCode};
use haar_subagents::kit;
use haar_subagents::storage::{self, Backend};

use crate::harness::*;
use crate::web::{Manner, Web};

const FOLDER: &str = "HAAR_TEST_STORAGE_FOLDER";
pub(crate) const BACKEND: &str = "HAAR_TEST_STORAGE_BACKEND";

/// This test binary again, running nothing but the sub-agent; killed with the test.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(folder: &Path, environment: &[(&str, &str)]) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::the_sub_agent_as_a_process", "--ignored"])
            .env(FOLDER, folder)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Process(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "started as a process by the other test here"]
async fn the_sub_agent_as_a_process() {
    let folder = std::env::var_os(FOLDER).expect("only another test starts this one");
    let backend = std::env::var(BACKEND).map_or(Backend::Auto, |word| word.parse().unwrap());
    let config = storage::Config { backend, ..config(folder.as_ref()) };
    storage::run(config, std::future::pending()).await.unwrap();
}

#[tokio::test]
async fn killed_in_mid_fetch_it_starts_clean_and_fetches_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/storage.sock");
    let bytes = qcow2_image();
    let web = Web::serve(bytes.clone(), Manner::Gated).await;
    let wanted = request(IMAGE, &web.address, "qcow2", &bytes);
    let part = folder.path().join(format!("storage/images/.part-{IMAGE}"));

    let process = Process::start(folder.path(), &[]);
    until_answers(&socket).await;
    let _: rpc::ImageResponse = kit::call(&socket, "ImageStore.RequestImage", &wanted, LIMIT).await.unwrap();
    let half = bytes.len() as u64 / 2;
    until("half has come", || part.metadata().is_ok_and(|metadata| metadata.len() == half)).await;
    drop(process);
    assert!(part.exists() && socket.exists(), "a kill leaves things behind");

    // Half removed and half made disks of the same moment.
    for name in [".new-x", ".gone-y"] {
        std::fs::create_dir(folder.path().join("storage/disks").join(name)).unwrap();
    }
    let agent = Agent::start_in(folder.path()).await;
    assert!(!part.exists());
    assert!(agent.names("disks").is_empty());
    fails(agent.image("GetImage", &wanted).await, FaultCode::NotFound, "request it first");
    web.behave(Manner::Whole);
    agent.fetch(&wanted).await.unwrap();
}
