//! Measures a guest disk's clone: `ImageStore.CreateGuestDisks` over its socket, beside bare `qemu-img create -b`.
//!
//! Both clone the same base of 1 and of 20 GiB, in turns, on the same file system, and every clone's size is
//! checked. Ours besides connects, checks room and owner, and flushes what it made; `qemu-img` flushes nothing.
//! One JSON line per size; times are medians. Needs `qemu-img` and, for the promise, 20 GiB of room.

mod storage;

use std::path::{Path, PathBuf};
use std::time::Instant;

use haar_api::rpc;
use haar_subagents::kit;
use haar_subagents::storage::Backend;
use serde_json::{Value, json};

use self::storage::{Agent, GIB, LIMIT, Outcome, guest, median, milliseconds, rounded, run, text};

/// What the base holds, so that it is no empty file.
const CONTENT_BYTES: u64 = 64 << 20;
const ROUNDS: usize = 21;

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let agent = Agent::start(folder.path(), Backend::Auto).await?;
    for gib in [1, 20] {
        println!("{}", measure(folder.path(), &agent, gib).await?);
    }
    Ok(())
}

/// One figure: the medians of both ways for a base of so many GiB.
async fn measure(folder: &Path, agent: &Agent, gib: u64) -> Outcome<Value> {
    let file = base(&agent.import, gib)?;
    let image = agent.fetch(&file).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // In turns, so that what else the machine does meets both alike; the first round warms up.
        let (one, other) = (clone(&agent.socket, &image, gib).await?, bare_clone(folder, &file, gib)?);
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
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", text(&raw)?, text(&file)?])?;
    std::fs::remove_file(&raw)?;
    Ok(file)
}

/// Clones by the sub-agent and removes the clone again; milliseconds of the clone.
async fn clone(socket: &Path, image: &str, gib: u64) -> Outcome<f64> {
    let request = guest(image, gib);
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
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(base)?, text(&clone)?, &size],
    )?;
    let took = began.elapsed();
    check_size(&clone, gib)?;
    std::fs::remove_file(&clone)?;
    Ok(milliseconds(took))
}

fn check_size(disk: &Path, gib: u64) -> Outcome<()> {
    let facts: Value =
        serde_json::from_str(&run("qemu-img", &["info", "--output=json", "-f", "qcow2", text(disk)?])?)?;
    if facts["virtual-size"] != gib * GIB {
        return Err(
            format!("{} has {} bytes instead of {gib} GiB", disk.display(), facts["virtual-size"]).into()
        );
    }
    Ok(())
}
