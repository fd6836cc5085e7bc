//! A container's log: at most two files of a fixed size, the older beside the newer.
//!
//! The container has the file itself open, so that it prints on whoever else has died. Hence the file is never renamed:
//! its end is copied, and it begins anew. What is printed while it is copied may be lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of the log; as much again is kept of what was before.
const MOST_BYTES: u64 = 16 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks after a container's log for as long as this process lives.
pub(super) fn keep(folder: PathBuf) {
    std::thread::spawn(move || {
        loop {
            // What is wrong may be right the next time; nobody could be told.
            let _ = turn(&folder);
            std::thread::sleep(LOOK_EVERY);
        }
    });
}

/// Has the log begin anew when it is long, and keeps its end.
pub(super) fn turn(folder: &Path) -> io::Result<()> {
    turn_beyond(folder, MOST_BYTES)
}

fn turn_beyond(folder: &Path, most: u64) -> io::Result<()> {
    let path = folder.join("log");
    let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
    if length < most {
        return Ok(());
    }
    let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
    let kept = keep_end(&mut file, length - most, folder);
    // Also when nothing could be kept of it: a full disk is what this is against.
    file.set_len(0)?;
    kept
}

fn keep_end(file: &mut File, from: u64, folder: &Path) -> io::Result<()> {
    let (part, old) = (folder.join(".log"), folder.join("log.1"));
    let mut copy = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
    file.seek(SeekFrom::Start(from))?;
    // Whoever prints faster than this copies is not followed for ever.
    let most = file.metadata()?.len().saturating_sub(from);
    let copied = io::copy(&mut file.take(most), &mut copy).and_then(|_| fs::rename(&part, &old));
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_log_is_kept_and_it_goes_on_anew() {
        let temp = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(temp.path().join(name)).unwrap();
        let path = temp.path().join("log");
        fs::write(&path, "short").unwrap();
        turn_beyond(temp.path(), 10).unwrap();
        assert_eq!(read("log"), "short");
        let mut printing = OpenOptions::new().append(true).open(&path).unwrap();
        io::Write::write_all(&mut printing, b" and then 0123456789").unwrap();
        turn_beyond(temp.path(), 10).unwrap();
        assert_eq!((read("log").as_str(), read("log.1").as_str()), ("", "0123456789"));
        io::Write::write_all(&mut printing, b"next").unwrap();
        assert_eq!(read("log"), "next");
        assert!(!temp.path().join(".log").exists());
    }

    #[test]
    fn a_log_that_cannot_be_kept_is_cut_all_the_same() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("log"), "0123456789ab").unwrap();
        fs::create_dir(temp.path().join(".log")).unwrap();
        assert!(turn_beyond(temp.path(), 10).is_err());
        assert_eq!(fs::metadata(temp.path().join("log")).unwrap().len(), 0);
    }
}
