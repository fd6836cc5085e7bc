//! What the storage's benches have in common: a sub-agent of their own, an image in it, and figures.

use std::error::Error;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use haar_api::rpc;
use haar_subagents::kit::{self, Listen};
use haar_subagents::storage::{self, Backend, Config};
use sha2::{Digest as _, Sha256};
use tokio::task::AbortHandle;
use uuid::Uuid;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

pub(crate) const LIMIT: Duration = Duration::from_secs(300);
pub(crate) const GIB: u64 = 1 << 30;
const CLOUD: &str = "bench";

/// A storage sub-agent; it ends with the value.
pub(crate) struct Agent {
    pub(crate) socket: PathBuf,
    /// Where it takes images from.
    pub(crate) import: PathBuf,
    running: AbortHandle,
}

impl Agent {
    pub(crate) async fn start(folder: &Path, backend: Backend) -> Outcome<Self> {
        let (import, socket) = (folder.join("import"), folder.join("run/storage.sock"));
        std::fs::create_dir_all(&import)?;
        let config = Config {
            listen: Listen::Unix(socket.clone()),
            root: folder.join("storage"),
            image_dirs: vec![import.clone()],
            image_service: None,
            backend,
            cloud: CLOUD.to_owned(),
        };
        let running = tokio::spawn(storage::run(config, std::future::pending())).abort_handle();
        let agent = Self { socket, import, running };
        let began = Instant::now();
        while !agent.socket.exists() {
            if agent.running.is_finished() || began.elapsed() > LIMIT {
                return Err("the storage sub-agent did not start".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(agent)
    }

    /// Has it take a qcow2 file as an image; the image's id.
    pub(crate) async fn fetch(&self, file: &Path) -> Outcome<String> {
        let (mut hash, mut content) = (Sha256::new(), File::open(file)?);
        let (mut piece, mut file_bytes) = (vec![0; 1 << 20], 0);
        loop {
            let taken = content.read(&mut piece)?;
            if taken == 0 {
                break;
            }
            hash.update(&piece[..taken]);
            file_bytes += taken as u64;
        }
        let want = rpc::ImageWant {
            format: "qcow2".to_owned(),
            sha256: hex::encode(hash.finalize()),
            file_bytes,
            authorization: String::new(),
        };
        let request = rpc::ImageRequest {
            id: Uuid::new_v4().to_string(),
            source: format!("file://{}", file.display()),
            haar: Some(want),
            ..Default::default()
        };
        let began = Instant::now();
        loop {
            let answer: rpc::ImageResponse =
                kit::call(&self.socket, "ImageStore.RequestImage", &request, LIMIT).await?;
            let image = answer.images.unwrap_or_default().into_iter().next().ok_or("no image is answered")?;
            match image.status.as_str() {
                "complete" => return Ok(request.id),
                "error" => return Err(image.haar.unwrap_or_default().error.into()),
                _ if began.elapsed() > LIMIT => return Err("the image was not taken in time".into()),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A guest with one disk of so many GiB, of an image.
pub(crate) fn guest(image: &str, gib: u64) -> rpc::GuestRequest {
    let life = "1.1".to_owned();
    let haar = rpc::GuestExtra { cloud: CLOUD.to_owned(), order: life.clone(), life, ..Default::default() };
    let disk = rpc::Disk { image: image.to_owned(), size: gib * 1024, ..Default::default() };
    let guest = rpc::Guest {
        id: Uuid::new_v4().to_string(),
        disks: vec![disk],
        haar: Some(haar),
        ..Default::default()
    };
    rpc::GuestRequest { guest: Some(guest), ..Default::default() }
}

/// What a program prints.
pub(crate) fn run(program: &str, words: &[&str]) -> Outcome<String> {
    let output = Command::new(program).args(words).output()?;
    let said = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        return Err(format!("{program} {words:?}: {said}{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(said)
}

pub(crate) fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| "the temporary folder's path is not UTF-8".into())
}

pub(crate) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// To a hundredth, for readers.
pub(crate) fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
