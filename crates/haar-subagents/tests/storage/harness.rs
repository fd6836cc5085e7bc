//! A sub-agent in a temp folder, images, and the calls, so that a case is a few lines.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use haar_api::rpc::{self, Fault, FaultCode};
use haar_subagents::kit::{self, CallError, Listen};
use haar_subagents::storage::{self, Backend, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use crate::killed::{BACKEND, Process};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const CLOUD: &str = "cloud-a";
pub(crate) const IMAGE: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const OTHER_IMAGE: &str = "22222222-2222-4222-8222-222222222222";
pub(crate) const GUEST: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
pub(crate) const OTHER_GUEST: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
pub(crate) const MIB: u64 = 1 << 20;

/// A sub-agent; it ends with the test.
pub(crate) struct Agent {
    pub(crate) root: PathBuf,
    pub(crate) socket: PathBuf,
    /// A folder that `file://` sources may lie in.
    pub(crate) image_dir: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), storage::Error>>,
    folder: Option<tempfile::TempDir>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn config(folder: &Path) -> Config {
    Config {
        listen: Listen::Unix(folder.join("run/storage.sock")),
        root: folder.join("storage"),
        image_dirs: vec![folder.join("import")],
        image_service: None,
        backend: Backend::Auto,
        cloud: CLOUD.to_owned(),
    }
}

impl Agent {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Self::start_in(folder.path()).await;
        agent.folder = Some(folder);
        agent
    }

    /// Starts in a folder that outlives it.
    pub(crate) async fn start_in(folder: &Path) -> Self {
        Self::start_with(folder, Backend::Auto).await
    }

    /// The same with this back end for new disks.
    pub(crate) async fn start_with(folder: &Path, backend: Backend) -> Self {
        Self::start_as(folder, Config { backend, ..config(folder) }).await
    }

    /// The same with other words.
    pub(crate) async fn start_as(folder: &Path, config: Config) -> Self {
        let image_dir = folder.join("import");
        std::fs::create_dir_all(&image_dir).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let socket = folder.join("run/storage.sock");
        let mut task = tokio::spawn(storage::run(config, async move {
            let _ = stopped.await;
        }));
        tokio::select! {
            () = until_answers(&socket) => {}
            ended = &mut task => panic!("the sub-agent did not start: {ended:?}"),
        }
        Agent { root: folder.join("storage"), socket, image_dir, stop: Some(stop), task, folder: None }
    }

    /// The same as a process, with these programs before all others; stopping kills it.
    pub(crate) async fn start_before(folder: &Path, backend: Backend, programs: &str) -> Self {
        let image_dir = folder.join("import");
        std::fs::create_dir_all(&image_dir).unwrap();
        let (path, backend) = (std::env::var("PATH").unwrap(), backend.to_string());
        let path = format!("{programs}:{path}");
        let process = Process::start(folder, &[(BACKEND, &backend), ("PATH", &path)]);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let _process = process;
            let _ = stopped.await;
            Ok(())
        });
        let socket = folder.join("run/storage.sock");
        until_answers(&socket).await;
        Agent { root: folder.join("storage"), socket, image_dir, stop: Some(stop), task, folder: None }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.task).await.unwrap().unwrap();
    }

    pub(crate) async fn call<P, R>(&self, method: &str, params: &P) -> Result<R, Fault>
    where
        P: Serialize + Sync,
        R: DeserializeOwned,
    {
        match kit::call(&self.socket, &format!("ImageStore.{method}"), params, LIMIT).await {
            Ok(result) => Ok(result),
            Err(CallError::Fault(fault)) => Err(fault),
            Err(error) => panic!("{method} did not reach the sub-agent: {error:?}"),
        }
    }

    pub(crate) async fn image(&self, method: &str, request: &rpc::ImageRequest) -> Result<rpc::Image, Fault> {
        let response: rpc::ImageResponse = self.call(method, request).await?;
        Ok(response.images.unwrap().remove(0))
    }

    /// Requests until the image is complete or the fetch failed.
    pub(crate) async fn fetch(&self, request: &rpc::ImageRequest) -> Result<rpc::Image, Fault> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let image = self.image("RequestImage", request).await?;
            match image.status.as_str() {
                "complete" => return Ok(image),
                "error" => return Err(Fault::parse(&image.haar.unwrap().error)),
                _ => assert!(tokio::time::Instant::now() < deadline, "the fetch never ended: {image:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn guest(&self, method: &str, guest: &rpc::Guest) -> Result<rpc::Guest, Fault> {
        self.guest_with(method, guest, &[]).await
    }

    pub(crate) async fn guest_with(
        &self,
        method: &str,
        guest: &rpc::Guest,
        args: &[(&str, &str)],
    ) -> Result<rpc::Guest, Fault> {
        let args = args.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let request = rpc::GuestRequest { guest: Some(guest.clone()), action: String::new(), args };
        let response: rpc::GuestResponse = self.call(method, &request).await?;
        Ok(response.guest.unwrap())
    }

    /// A file inside the folder of allowed sources, as a request.
    pub(crate) fn import(&self, id: &str, name: &str, format: &str, bytes: &[u8]) -> rpc::ImageRequest {
        let path = self.image_dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        request(id, &format!("file://{}", path.display()), format, bytes)
    }

    /// Stores [`IMAGE`], a sound qcow2 image of 4 MiB.
    pub(crate) async fn store_image(&self) -> rpc::Image {
        self.fetch(&self.import(IMAGE, "sound.qcow2", "qcow2", &qcow2_image())).await.unwrap()
    }

    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A request for these bytes.
pub(crate) fn request(id: &str, source: &str, format: &str, bytes: &[u8]) -> rpc::ImageRequest {
    rpc::ImageRequest {
        id: id.to_owned(),
        source: source.to_owned(),
        haar: Some(rpc::ImageWant {
            format: format.to_owned(),
            sha256: hex::encode(Sha256::digest(bytes)),
            file_bytes: bytes.len() as u64,
            authorization: String::new(),
        }),
        ..Default::default()
    }
}

/// A guest of this life with disks of these images and sizes (MiB).
pub(crate) fn guest(life: &str, disks: &[(&str, u64)]) -> rpc::Guest {
    let disk = |(image, size): &(&str, u64)| rpc::Disk {
        image: (*image).to_owned(),
        size: *size,
        ..Default::default()
    };
    rpc::Guest {
        id: GUEST.to_owned(),
        disks: disks.iter().map(disk).collect(),
        haar: Some(rpc::GuestExtra {
            cloud: CLOUD.to_owned(),
            life: life.to_owned(),
            order: life.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn provisioned(mut guest: rpc::Guest) -> rpc::Guest {
    guest.haar.as_mut().unwrap().provisioned = true;
    guest
}

pub(crate) fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img").args(arguments).output();
    let output = output.expect("this test needs qemu-img: install qemu-utils");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The bytes of a sound qcow2 image of 4 MiB full of content.
pub(crate) fn qcow2_image() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let qcow2 = folder.path().join("qcow2");
    std::fs::write(&raw, raw_image(4 * MIB)).unwrap();
    let (raw, image) = (raw.to_str().unwrap(), qcow2.to_str().unwrap());
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", raw, image]);
    std::fs::read(&qcow2).unwrap()
}

/// Bytes of a raw disk, none of them zero.
pub(crate) fn raw_image(length: u64) -> Vec<u8> {
    (0..length).map(|number| (number / 3 % 250) as u8 + 1).collect()
}

/// Waits for an answer. That somebody takes connections proves nothing: a program that a killed process was just
/// starting holds its socket for a moment more.
pub(crate) async fn until_answers(socket: &Path) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let none = rpc::ImageRequest::default();
        match kit::call::<_, rpc::ImageResponse>(socket, "ImageStore.ListImages", &none, LIMIT).await {
            Ok(_) | Err(CallError::Fault(_)) => return,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "no answer: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Tells that this test is left out, where `cargo xtask test` collects it; with `HAAR_LIVE=1` nothing may be.
pub(crate) fn left_out(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("HAAR_LIVE").is_none_or(|live| live != "1"), "{name} must run: {reason}");
    may_be_left_out(reason);
}

/// The same for what not every host can do, root or not.
pub(crate) fn may_be_left_out(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("left out: {reason}");
    if let Some(path) = std::env::var_os("HAAR_LEFT_OUT") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("{name}: {reason}\n").as_bytes()).unwrap();
    }
}

#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(outcome: Result<T, Fault>, code: FaultCode, words: &str) {
    let fault = outcome.expect_err("this must fail");
    assert_eq!(fault.code, code, "{fault}");
    assert!(fault.message.contains(words), "{:?} should say {words:?}", fault.message);
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
