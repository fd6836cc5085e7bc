//! What the fuzz targets of this crate begin with, replayed: `ok-…` is taken, `no-…` is refused with its place, each
//! at once.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::time::{Duration, Instant};

use haar_agent::Config;
use haar_agent::local::Plan;

/// Long for a few kilobytes, also on a host that is busy.
const AT_ONCE: Duration = Duration::from_secs(5);

fn replay(folder: &str, reads: impl Fn(&Path) -> Result<(), String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut counts = [0, 0];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_meant = path.file_name().unwrap().to_str().unwrap().starts_with("ok-");
        let began = Instant::now();
        let read = reads(&path);
        assert!(began.elapsed() < AT_ONCE, "{}: {:?}", path.display(), began.elapsed());
        assert_eq!(read.is_ok(), is_meant, "{}: {read:?}", path.display());
        assert!(read.err().is_none_or(|words| words.contains(path.to_str().unwrap())), "the file is named");
        counts[usize::from(is_meant)] += 1;
    }
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
}

#[test]
fn files_of_actions_are_taken_or_refused() {
    replay("actions", |path| Plan::read(path).map(drop).map_err(|error| error.to_string()));
}

#[test]
fn configurations_are_taken_or_refused() {
    replay("config", |path| Config::read(path).map(drop).map_err(|error| error.to_string()));
}
