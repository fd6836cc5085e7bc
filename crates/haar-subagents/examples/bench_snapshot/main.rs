//! Measures snapshot, rollback and clone of a disk of 20 GiB with 1 GiB of data beside those of a 1 GiB disk with
//! as much, over the sub-agent's socket, on each back end.
//!
//! The yardstick is the small disk: what costs the same on both is constant in the disk's size. Every rollback is
//! checked by what it brings back. One JSON line per back end and act; times are medians, flushes included. Needs
//! `qemu-img`, `qemu-io`, 30 GiB of room; for reflink root and `btrfs-progs`, for zfs root and `zfs-fuse` or the
//! kernel's ZFS; a back end whose parts are missing is left out, and said.

mod mounts;
#[path = "../storage/mod.rs"]
mod storage;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use haar_api::rpc;
use haar_subagents::kit;
use haar_subagents::storage::Backend;
use serde_json::json;

use self::mounts::{Btrfs, Zfs};
use self::storage::{Agent, GIB, LIMIT, Outcome, guest, median, milliseconds, rounded, run, text};

const MIB: u64 = 1 << 20;
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
        // The first of each warms up and does not count.
        [self.clones, self.snapshots, self.rollbacks].map(|mut times| median(times.split_off(1)))
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
    let agent = Agent::start(folder, backend).await?;
    let socket = &agent.socket;
    let (mut small, mut large) = (Disk::of(&agent, 1).await?, Disk::of(&agent, 20).await?);
    // In turns, so that what else the machine does falls on both.
    for _ in 0..ROUNDS {
        small.made_anew(socket).await?;
        large.made_anew(socket).await?;
    }
    small.filled()?;
    large.filled()?;
    for round in 0..ROUNDS {
        small.kept_and_brought_back(socket, round).await?;
        large.kept_and_brought_back(socket, round).await?;
    }
    let (small, large) = (small.removed(socket).await?.medians(), large.removed(socket).await?.medians());
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
    async fn of(agent: &Agent, gib: u64) -> Outcome<Self> {
        let file = base(&agent.import, gib)?;
        let image = agent.fetch(&file).await?;
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
        let _: rpc::GuestResponse =
            kit::call(socket, "ImageStore.DeleteGuestsDisks", &self.guest, LIMIT).await?;
        Ok(self.times)
    }
}

/// Milliseconds of a call.
async fn act(socket: &Path, method: &str, request: &rpc::SnapshotRequest) -> Outcome<f64> {
    let began = Instant::now();
    let _: rpc::SnapshotResponse = kit::call(socket, &format!("ImageStore.{method}"), request, LIMIT).await?;
    Ok(milliseconds(began.elapsed()))
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

/// Writes as a guest would, and has it on the disk: what is measured next flushes only its own.
fn write(disk: &Path, format: &str, byte: u8, bytes: u64) -> Outcome<()> {
    run("qemu-io", &["-f", format, "-c", &format!("write -q -P {byte} 0 {bytes}"), text(disk)?])?;
    Ok(File::open(disk)?.sync_all()?)
}

/// Whether the disk is what it was before the last write.
fn check(disk: &Path, format: &str) -> Outcome<()> {
    let read = format!("read -q -P 1 0 {}", 16 * MIB);
    let said = run("qemu-io", &["-f", format, "-r", "-c", &read, text(disk)?])?;
    if said.contains("verification failed") { Err(said.into()) } else { Ok(()) }
}
