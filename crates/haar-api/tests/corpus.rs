//! What the fuzz targets of this crate begin with, replayed: `ok-…` is read, `no-…` is refused, each at once.

#![expect(clippy::unwrap_used, reason = "a test ends where it does not understand the world")]

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use haar_api::agent::{Guest, go};
use haar_api::{image_check, rpc};

/// Long for a few kilobytes, also on a host that is busy.
const AT_ONCE: Duration = Duration::from_secs(5);

fn replay(folder: &str, reads: impl Fn(&Path, &[u8]) -> Result<(), String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut counts = [0, 0];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let is_meant = path.file_name().unwrap().to_str().unwrap().starts_with("ok-");
        let began = Instant::now();
        let read = reads(&path, &bytes);
        assert!(began.elapsed() < AT_ONCE, "{}: {:?}", path.display(), began.elapsed());
        assert_eq!(read.is_ok(), is_meant, "{}: {read:?}", path.display());
        counts[usize::from(is_meant)] += 1;
    }
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
}

/// What is read is written and read again as the same.
fn guest(bytes: &[u8]) -> Result<(), String> {
    let guest: Guest = go::from_slice(bytes).map_err(|error| error.to_string())?;
    assert_eq!(go::from_slice::<Guest>(&go::to_vec(&guest).unwrap()).unwrap(), guest);
    Ok(())
}

#[test]
fn bodies_of_the_agents_rest_are_read_or_refused() {
    let words = |error: serde_json::Error| error.to_string();
    replay("guest", |_, bytes| guest(bytes));
    replay("snapshot", |_, bytes| go::from_slice::<rpc::SnapshotRequest>(bytes).map(drop).map_err(words));
    replay("image-request", |_, bytes| go::from_slice::<rpc::ImageRequest>(bytes).map(drop).map_err(words));
}

#[test]
fn images_are_sound_or_refused() {
    let words = |flaw: image_check::Flaw| flaw.to_string();
    replay("qcow2", |path, _| image_check::check_qcow2(&File::open(path).unwrap()).map(drop).map_err(words));
    replay("raw", |path, _| image_check::check_raw(&File::open(path).unwrap()).map(drop).map_err(words));
}
