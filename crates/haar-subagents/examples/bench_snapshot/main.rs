//! Measures snapshot, rollback and clone of a disk of 20 GiB with 1 GiB of data beside those of a 1 GiB disk with
//! as much, over the sub-agent's socket, on each back end.
//!
//! The yardstick is the small disk: what costs the same on both is constant in the disk's size. Every rollback is
//! checked by what it brings back. One JSON line per back end and act; times are medians, flushes included. Needs
//! `qemu-img`, `qemu-io`, 30 GiB of room; for reflink root and `btrfs-progs`, for zfs root and `zfs-fuse` or the
//! kernel's ZFS; a back end whose parts are missing is left out, and said.

mod mounts;

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use haar_api::rpc;
use haar_subagents::kit::{self, Listen};
use haar_subagents::storage::{self, Backend, Config};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use self::mounts::{Btrfs, Zfs};

type Outcome<T> = Result<T, Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(300);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const CLOUD: &str = "bench";
const ROUNDS: usize = 15;

/// What was measured on one disk, in milliseconds.
#[derive(Default)]
struct Times {
    clones: Vec<f64>,
    snapshots: Vec<f64>,
    rollbacks: Vec<f64>,
}

impl Times {
    fn medians(self) -> [f64; 3] {
        [median(self.clones), median(self.snapshots), median(self.rollbacks)]
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    measure("qcow2", Backend::Qcow2, folder.path()).await?;
    match Btrfs::mount() {
        Ok(btrfs) => measure("reflink", Backend::Reflink, btrfs.path()).await?,
        Err(error) => eprintln!("reflink is left out: {error}"),
    }
    match Zfs::mount() {
        Ok(zfs) => measure("zfs", Backend::Zfs, &zfs.path()).await?,
        Err(error) => eprintln!("zfs is left out: {error}"),
    }
    Ok(())
}

async fn measure(name: &str, backend: Backend, folder: &Path) -> Outcome<()> {
    let (import, socket) = (folder.join("import"), folder.join("run/storage.sock"));
    std::fs::create_dir_all(&import)?;
    let config = Config {
        listen: Listen::Unix(socket.clone()),
        root: folder.join("storage"),
        image_dirs: vec![import.clone()],
        backend,
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
    let (mut small, mut large) =
        (Disk::of(&socket, &import, 1).await?, Disk::of(&socket, &import, 20).await?);
    // In turns, so that what else the machine does falls on both.
    for _ in 0..ROUNDS {
        small.made_anew(&socket).await?;
        large.made_anew(&socket).await?;
    }
    small.filled()?;
    large.filled()?;
    for round in 0..ROUNDS {
        small.kept_and_brought_back(&socket, round).await?;
        large.kept_and_brought_back(&socket, round).await?;
    }
    let (small, large) = (small.removed(&socket).await?.medians(), large.removed(&socket).await?.medians());
    for (act, value, yardstick) in
        [("clone", large[0], small[0]), ("snapshot", large[1], small[1]), ("rollback", large[2], small[2])]
    {
        let line = json!({
            "name": format!("disk_{act}_of_20_gib"), "value": rounded(value), "unit": "ms", "backend": name,
            "yardstick": "the same of a 1 GiB disk with as much data", "yardstick_value": rounded(yardstick),
            "ratio": rounded(value / yardstick), "runs": ROUNDS - 1,
            "read": "median of one call over the socket, 1 GiB of data in the disk, flushes included",
        });
        println!("{line}");
    }
    agent.abort();
    Ok(())
}

/// A guest's disk of one size, and what its acts took.
struct Disk {
    guest: rpc::GuestRequest,
    id: String,
    path: PathBuf,
    format: String,
    times: Times,
}

impl Disk {
    /// The image is there; the disk is not yet.
    async fn of(socket: &Path, import: &Path, gib: u64) -> Outcome<Self> {
        let image = Uuid::new_v4().to_string();
        let file = base(import, gib)?;
        fetch(socket, &image, &file).await?;
        std::fs::remove_file(&file)?;
        let guest = guest(&image, gib);
        let id = guest.guest.as_ref().map(|guest| guest.id.clone()).ok_or("the guest has an id")?;
        Ok(Self { guest, id, path: PathBuf::new(), format: String::new(), times: Times::default() })
    }

    async fn made_anew(&mut self, socket: &Path) -> Outcome<()> {
        if !self.format.is_empty() {
            let _: rpc::GuestResponse =
                kit::call(socket, "ImageStore.DeleteGuestsDisks", &self.guest, LIMIT).await?;
        }
        let began = Instant::now();
        let made: rpc::GuestResponse =
            kit::call(socket, "ImageStore.CreateGuestDisks", &self.guest, LIMIT).await?;
        self.times.clones.push(milliseconds(began.elapsed()));
        let disk =
            made.guest.and_then(|guest| guest.disks.into_iter().next()).ok_or("no disk is answered")?;
        self.format = disk.haar.unwrap_or_default().format;
        self.path = disk.source.into();
        Ok(())
    }

    /// 1 GiB of its own in it.
    fn filled(&self) -> Outcome<()> {
        write(&self.path, &self.format, 1, GIB)
    }

    /// A snapshot, a change, and back.
    async fn kept_and_brought_back(&mut self, socket: &Path, round: usize) -> Outcome<()> {
        let (name, dataset) = (format!("s{round}"), format!("guests/{}/disk-0", self.id));
        let new = rpc::SnapshotRequest { id: dataset.clone(), dest: name.clone(), ..Default::default() };
        self.times.snapshots.push(act(socket, "CreateSnapshot", &new).await?);
        write(&self.path, &self.format, 2, 16 * MIB)?;
        let taken = rpc::SnapshotRequest { id: format!("{dataset}@{name}"), ..Default::default() };
        self.times.rollbacks.push(act(socket, "RollbackSnapshot", &taken).await?);
        check(&self.path, &self.format)?;
        act(socket, "DeleteSnapshot", &taken).await.map(drop)
    }

    async fn removed(self, socket: &Path) -> Outcome<Times> {
        let delete =
            rpc::GuestRequest { guest: Some(rpc::Guest { id: self.id, ..unnamed() }), ..Default::default() };
        let _: rpc::GuestResponse = kit::call(socket, "ImageStore.DeleteGuestsDisks", &delete, LIMIT).await?;
        Ok(self.times)
    }
}

/// Milliseconds of a call.
async fn act(socket: &Path, method: &str, request: &rpc::SnapshotRequest) -> Outcome<f64> {
    let began = Instant::now();
    let _: rpc::SnapshotResponse = kit::call(socket, &format!("ImageStore.{method}"), request, LIMIT).await?;
    Ok(milliseconds(began.elapsed()))
}

fn guest(image: &str, gib: u64) -> rpc::GuestRequest {
    let disk = rpc::Disk { image: image.to_owned(), size: gib * 1024, ..Default::default() };
    let guest = rpc::Guest { id: Uuid::new_v4().to_string(), disks: vec![disk], ..unnamed() };
    rpc::GuestRequest { guest: Some(guest), ..Default::default() }
}

fn unnamed() -> rpc::Guest {
    let life = "1.1".to_owned();
    let haar = rpc::GuestExtra { cloud: CLOUD.to_owned(), order: life.clone(), life, ..Default::default() };
    rpc::Guest { haar: Some(haar), ..Default::default() }
}

/// A qcow2 file of so many GiB with 1 GiB of content.
fn base(import: &Path, gib: u64) -> Outcome<PathBuf> {
    let (raw, file) = (import.join("raw"), import.join(format!("base-{gib}.qcow2")));
    let written = File::create(&raw)?;
    written.set_len(gib * GIB)?;
    let piece: Vec<u8> = (0..MIB).map(|at| (at % 251) as u8 + 1).collect();
    for at in 0..1024 {
        written.write_all_at(&piece, at * MIB)?;
    }
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", text(&raw)?, text(&file)?])?;
    std::fs::remove_file(&raw)?;
    Ok(file)
}

async fn fetch(socket: &Path, image: &str, file: &Path) -> Outcome<()> {
    let mut hash = Sha256::new();
    let (read, length) = (File::open(file)?, file.metadata()?.len());
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let taken = read.read_at(&mut piece, at)?;
        hash.update(&piece[..taken]);
        at += taken as u64;
    }
    let request = rpc::ImageRequest {
        id: image.to_owned(),
        source: format!("file://{}", file.display()),
        haar: Some(rpc::ImageWant {
            format: "qcow2".to_owned(),
            sha256: hex::encode(hash.finalize()),
            file_bytes: length,
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
            _ if began.elapsed() > LIMIT => return Err("the image was not taken in time".into()),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Writes as a guest would, and has it on the disk: what is measured next flushes only its own.
fn write(disk: &Path, format: &str, byte: u8, bytes: u64) -> Outcome<()> {
    run("qemu-io", &["-f", format, "-c", &format!("write -q -P {byte} 0 {bytes}"), text(disk)?])?;
    Ok(File::open(disk)?.sync_all()?)
}

/// Whether the disk is what it was before the last write.
fn check(disk: &Path, format: &str) -> Outcome<()> {
    run("qemu-io", &["-f", format, "-r", "-c", &format!("read -q -P 1 0 {}", 16 * MIB), text(disk)?])
}

fn run(program: &str, words: &[&str]) -> Outcome<()> {
    let output = Command::new(program).args(words).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || said.contains("verification failed") {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {words:?}: {said}{errors}").into());
    }
    Ok(())
}

fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| "the temporary folder's path is not UTF-8".into())
}

/// The first of them warms up and does not count.
fn median(times: Vec<f64>) -> f64 {
    let mut times: Vec<f64> = times.into_iter().skip(1).collect();
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
