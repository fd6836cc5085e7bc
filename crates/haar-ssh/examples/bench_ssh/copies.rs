//! One file of 1 GiB to the server and back, by sftp.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use serde_json::json;

use crate::programs::Programs;
use crate::sshd::{Setup, Sshd};
use crate::{Outcome, rounded};

const MIB: usize = 1 << 20;
const SIZE_MIB: usize = 1024;
const ROUNDS: usize = 5;
/// Three files at a time, and as much for the file system to be at its ease.
const ROOM_GIB: u64 = 8;

/// Refuses a folder for temporary files in which this bench would be in the way.
pub(crate) fn has_room() -> Outcome<()> {
    let folder = std::env::temp_dir();
    let found = statvfs(&folder)?;
    let free_gib = (found.blocks_available() * found.fragment_size()) >> 30;
    if free_gib < ROOM_GIB {
        let folder = folder.display();
        return Err(format!(
            "{folder} has {free_gib} GiB free and the copies need {ROOM_GIB}: make room, or set TMPDIR"
        )
        .into());
    }
    Ok(())
}

/// One figure for each direction.
pub(crate) async fn measure() -> Outcome<()> {
    let sshd = Sshd::start(&Setup::default())?;
    let (sent, arrived) = (sshd.path("sent"), sshd.path("arrived"));
    make(&sent)?;
    for direction in [Direction::Up, Direction::Down] {
        figure(&sshd, direction, &sent, &arrived).await?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

async fn figure(sshd: &Sshd, direction: Direction, sent: &Path, arrived: &Path) -> Outcome<()> {
    let programs = Programs::on(sshd)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // In turns, so that what else the machine does meets both alike; the first round warms up.
        let one = copied(sshd, direction, sent, arrived).await?;
        let other = copied_by_sftp(&programs, direction, sent, arrived)?;
        if round > 0 {
            ours.push(rate(one));
            theirs.push(rate(other));
        }
    }
    let name = match direction {
        Direction::Up => "ssh_upload",
        Direction::Down => "ssh_download",
    };
    let (ours, theirs) = (median(ours), median(theirs));
    let line = json!({
        "name": name, "value": ours.round(), "unit": "MiB/s", "mib": SIZE_MIB,
        "yardstick": "OpenSSH's sftp in batch mode", "yardstick_value": theirs.round(),
        "ratio": rounded(ours / theirs), "runs": ROUNDS,
        "read": "median of copies over loopback, a login each included; nothing is flushed to the disk",
    });
    println!("{line}");
    Ok(())
}

async fn copied(sshd: &Sshd, direction: Direction, sent: &Path, arrived: &Path) -> Outcome<Duration> {
    let pool = sshd.pool();
    let began = Instant::now();
    match direction {
        Direction::Up => pool.files().upload(sent, text(arrived)?).await?,
        Direction::Down => pool.files().download(text(sent)?, arrived).await?,
    }
    let took = began.elapsed();
    pool.close();
    check(sent, arrived)?;
    Ok(took)
}

fn copied_by_sftp(
    programs: &Programs,
    direction: Direction,
    sent: &Path,
    arrived: &Path,
) -> Outcome<Duration> {
    let verb = match direction {
        Direction::Up => "put",
        Direction::Down => "get",
    };
    let began = Instant::now();
    programs.sftp(&format!("{verb} {} {}", text(sent)?, text(arrived)?))?;
    let took = began.elapsed();
    check(sent, arrived)?;
    Ok(took)
}

/// A file whose content no compression makes smaller.
fn make(path: &Path) -> Outcome<()> {
    let mut file = BufWriter::new(File::create_new(path)?);
    let (mut state, mut piece) = (0x9e37_79b9_7f4a_7c15_u64, Vec::with_capacity(MIB));
    for _ in 0..SIZE_MIB {
        piece.clear();
        while piece.len() < MIB {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            piece.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&piece)?;
    }
    Ok(file.into_inner()?.sync_all()?)
}

/// Compares the whole of two files, and removes the second: what it still had to write to the disk then
/// meets no later copy.
fn check(sent: &Path, arrived: &Path) -> Outcome<()> {
    let (mut one, mut other) = (File::open(sent)?, File::open(arrived)?);
    let size = other.metadata()?.len();
    let (mut wanted, mut found) = (vec![0; MIB], vec![0; MIB]);
    if size != (SIZE_MIB * MIB) as u64 {
        return Err(format!("a copy of {SIZE_MIB} MiB has {size} bytes").into());
    }
    for at in 0..SIZE_MIB {
        one.read_exact(&mut wanted)?;
        other.read_exact(&mut found)?;
        if wanted != found {
            return Err(format!("a copy differs from what was sent in its MiB {at}").into());
        }
    }
    Ok(std::fs::remove_file(arrived)?)
}

fn rate(took: Duration) -> f64 {
    SIZE_MIB as f64 / took.as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| "the temporary folder's path is not UTF-8".into())
}
