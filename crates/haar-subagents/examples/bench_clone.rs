//! Measures a guest disk's clone: `ImageStore.CreateGuestDisks` over its socket, beside bare `qemu-img create -b`.
//!
//! Both clone the same base of 1 and of 20 GiB, in turns, on the same file system, and every clone's size is
//! checked. Ours besides connects, checks room and owner, and flushes what it made; `qemu-img` flushes nothing.
//! One JSON line per size; times are medians. Needs `qemu-img` and, for the promise, 20 GiB of room.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use haar_api::rpc;
use haar_subagents::kit::{self, Listen};
use haar_subagents::storage::{self, Backend, Config};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(60);
const GIB: u64 = 1 << 30;
const CLOUD: &str = "bench";
/// What the base holds, so that it is no empty file.
const CONTENT_BYTES: u64 = 64 << 20;
const ROUNDS: usize = 21;

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let (import, socket) = (folder.path().join("import"), folder.path().join("run/storage.sock"));
    std::fs::create_dir_all(&import)?;
    let config = Config {
        listen: Listen::Unix(socket.clone()),
        root: folder.path().join("storage"),
        image_dirs: vec![import.clone()],
        backend: Backend::Auto,
        cloud: CLOUD.to_owned(),
    };
    let agent = tokio::spawn(storage::run(config, std::future::pending()));
    let began = Instant::now();
    while !socket.exists() {
        if agent.is_finished() || began.elapsed() > LIMIT {
            return Err("the storage sub-agent did not start".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for gib in [1, 20] {
        println!("{}", measure(folder.path(), &import, &socket, gib).await?);
    }
    agent.abort();
    Ok(())
}

/// One figure: the medians of both ways for a base of so many GiB.
async fn measure(folder: &Path, import: &Path, socket: &Path, gib: u64) -> Outcome<Value> {
    let image = Uuid::new_v4().to_string();
    let file = base(import, gib)?;
    fetch(socket, &image, &file).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // In turns, so that what else the machine does meets both alike; the first round warms up.
        let (one, other) = (clone(socket, &image, gib).await?, bare_clone(folder, &file, gib)?);
        if round > 0 {
            ours.push(one);
            bare.push(other);
        }
    }
    let (ours, bare) = (median(ours), median(bare));
    Ok(json!({
        "name": "disk_clone", "value": rounded(ours), "unit": "ms", "virtual_gib": gib,
        "yardstick": "qemu-img create -b of the same base", "yardstick_value": rounded(bare),
        "ratio": rounded(ours / bare), "runs": ROUNDS - 1,
        "read": "median of one call over the socket, flushes included; the bare program flushes nothing",
    }))
}

/// A qcow2 file of so many GiB with some content.
fn base(import: &Path, gib: u64) -> Outcome<PathBuf> {
    let (raw, file) = (import.join("raw"), import.join(format!("base-{gib}.qcow2")));
    let content: Vec<u8> = (0..CONTENT_BYTES).map(|at| (at % 251) as u8).collect();
    std::fs::write(&raw, content)?;
    std::fs::File::options().write(true).open(&raw)?.set_len(gib * GIB)?;
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", text(&raw)?, text(&file)?])?;
    std::fs::remove_file(&raw)?;
    Ok(file)
}

async fn fetch(socket: &Path, image: &str, file: &Path) -> Outcome<()> {
    let bytes = std::fs::read(file)?;
    let request = rpc::ImageRequest {
        id: image.to_owned(),
        source: format!("file://{}", file.display()),
        haar: Some(rpc::ImageWant {
            format: "qcow2".to_owned(),
            sha256: hex::encode(Sha256::digest(&bytes)),
            file_bytes: bytes.len() as u64,
            authorization: String::new(),
        }),
        ..Default::default()
    };
    let began = Instant::now();
    loop {
        let answer: rpc::ImageResponse =
            kit::call(socket, "ImageStore.RequestImage", &request, LIMIT).await?;
        let image = answer.images.unwrap_or_default().into_iter().next().ok_or("no image is answered")?;
        match image.status.as_str() {
            "complete" => return Ok(()),
            "error" => return Err(image.haar.unwrap_or_default().error.into()),
            _ if began.elapsed() > LIMIT => return Err("the image was not taken in a minute".into()),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Clones by the sub-agent and removes the clone again; milliseconds of the clone.
async fn clone(socket: &Path, image: &str, gib: u64) -> Outcome<f64> {
    let disk = rpc::Disk { image: image.to_owned(), size: gib * 1024, ..Default::default() };
    let life = "1.1".to_owned();
    let guest = rpc::Guest {
        id: Uuid::new_v4().to_string(),
        disks: vec![disk],
        haar: Some(rpc::GuestExtra {
            cloud: CLOUD.to_owned(),
            order: life.clone(),
            life,
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = rpc::GuestRequest { guest: Some(guest), ..Default::default() };
    let began = Instant::now();
    let answer: rpc::GuestResponse =
        kit::call(socket, "ImageStore.CreateGuestDisks", &request, LIMIT).await?;
    let took = began.elapsed();
    let disks = answer.guest.map(|guest| guest.disks).unwrap_or_default();
    let source = disks.first().map(|disk| disk.source.clone()).ok_or("no disk is answered")?;
    check_size(Path::new(&source), gib)?;
    let _: rpc::GuestResponse = kit::call(socket, "ImageStore.DeleteGuestsDisks", &request, LIMIT).await?;
    Ok(milliseconds(took))
}

/// Clones by `qemu-img` alone and removes the clone again; milliseconds of the clone.
fn bare_clone(folder: &Path, base: &Path, gib: u64) -> Outcome<f64> {
    let clone = folder.join("bare.qcow2");
    let size = format!("{gib}G");
    let began = Instant::now();
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(base)?, text(&clone)?, &size])?;
    let took = began.elapsed();
    check_size(&clone, gib)?;
    std::fs::remove_file(&clone)?;
    Ok(milliseconds(took))
}

fn check_size(disk: &Path, gib: u64) -> Outcome<()> {
    let facts: Value =
        serde_json::from_str(&qemu_img(&["info", "--output=json", "-f", "qcow2", text(disk)?])?)?;
    if facts["virtual-size"] != gib * GIB {
        return Err(
            format!("{} has {} bytes instead of {gib} GiB", disk.display(), facts["virtual-size"]).into()
        );
    }
    Ok(())
}

fn qemu_img(words: &[&str]) -> Outcome<String> {
    let output = Command::new("qemu-img").args(words).output()?;
    if !output.status.success() {
        return Err(format!("qemu-img {words:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| "the temporary folder's path is not UTF-8".into())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// To a hundredth, for readers.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
