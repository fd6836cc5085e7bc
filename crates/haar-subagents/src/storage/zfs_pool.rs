//! The dataset that the storage's folder lies on, and the program `zfs`, by its arguments and never through a shell.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use haar_api::rpc::{Fault, FaultCode};

use super::backend::Taken;
use super::qemu_img;
use crate::kit::program;

/// Before each of our datasets' names.
const PREFIX: &str = "haar-";
/// The property of a volume that says where it would be mounted, were it a file system.
pub(super) const MARK: &str = "haar:mount";
/// ZFS itself counts what a volume holds no more often than this.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// The value of a property that a dataset does not have.
const NOTHING: &str = "-";
const BUSY_LIMIT: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Where datasets are made.
#[derive(Debug)]
pub(super) struct Pool {
    root: PathBuf,
    /// The dataset; none where the folder lies on another file system.
    parent: Option<String>,
    /// Locked by this process. A program that outlives it keeps the lock, and the next start waits for that.
    work: File,
    /// Bytes that our volumes hold, as last counted.
    counted: Mutex<Option<(Instant, BTreeMap<String, u64>)>>,
}

impl Pool {
    /// The pool that this folder lies on.
    pub(super) fn of(root: &Path, work: File) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Pool { root: root.to_owned(), parent: dataset_of(root, &mounts), work, counted: Mutex::default() }
    }

    /// Whether the folder lies on a dataset and the program answers for it.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let parent = self.parent()?;
        self.run(&["get", "-H", "-o", "value", "type", parent]).map(drop)
    }

    fn parent(&self) -> Result<&str, Fault> {
        self.parent.as_deref().ok_or_else(|| {
            let text = format!(
                "{} does not lie on a mounted ZFS dataset; make one there (zfs create -o mountpoint={} POOL/haar), \
                 or choose the back end qcow2",
                self.root.display(),
                self.root.display()
            );
            Fault::new(FaultCode::Unavailable, text)
        })
    }

    /// The full name of one of our datasets.
    pub(super) fn dataset(&self, name: &str) -> Result<String, Fault> {
        Ok(format!("{}/{PREFIX}{name}", self.parent()?))
    }

    /// Makes a dataset, or a clone of a snapshot, mounted there.
    pub(super) fn make(
        &self,
        name: &str,
        mount: &Path,
        properties: &[&str],
        snapshot: Option<&str>,
    ) -> Result<(), Fault> {
        let (dataset, mountpoint) = (self.dataset(name)?, format!("mountpoint={}", mount.display()));
        let mut words = vec![if snapshot.is_some() { "clone" } else { "create" }, "-o", &mountpoint];
        words.extend(properties.iter().flat_map(|property| ["-o", property]));
        words.extend(snapshot);
        words.push(&dataset);
        self.run(&words).map(drop)
    }

    /// Destroys a dataset with its snapshots; an absent one is fine, and one of another storage's folder is refused.
    pub(super) fn destroy(&self, name: &str) -> Result<(), Fault> {
        let dataset = self.dataset(name)?;
        let Some(mut mountpoint) = self.property(&dataset, "mountpoint")? else { return Ok(()) };
        if mountpoint == NOTHING {
            // A volume.
            mountpoint = self.property(&dataset, MARK)?.unwrap_or(mountpoint);
        }
        if Path::new(&mountpoint) != self.mount(name) {
            let text = format!(
                "{dataset} belongs to another storage's folder, by its mountpoint {mountpoint}; give each storage a \
                 dataset of its own"
            );
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        absent(self.run(&["destroy", "-r", &dataset])).map(drop)
    }

    /// Whether a dataset is mounted; none when there is none.
    pub(super) fn is_mounted(&self, name: &str) -> Result<Option<bool>, Fault> {
        Ok(self.property(&self.dataset(name)?, "mounted")?.map(|mounted| mounted == "yes"))
    }

    /// Whether there is such a dataset or volume.
    pub(super) fn exists(&self, name: &str) -> Result<bool, Fault> {
        Ok(self.property(&self.dataset(name)?, "type")?.is_some())
    }

    /// Whether a dataset has this snapshot, as far as can be told.
    pub(super) fn has_snapshot(&self, name: &str, snapshot: &str) -> bool {
        let found =
            self.dataset(name).and_then(|dataset| self.property(&format!("{dataset}@{snapshot}"), "type"));
        matches!(found, Ok(Some(_)))
    }

    fn property(&self, dataset: &str, property: &str) -> Result<Option<String>, Fault> {
        let value = absent(self.run(&["get", "-H", "-o", "value", property, dataset]))?;
        Ok(value.map(|value| value.trim_end_matches('\n').to_owned()))
    }

    /// Where one of our datasets is mounted: what is elsewhere is another storage's.
    pub(super) fn mount(&self, name: &str) -> PathBuf {
        self.root.join("zfs").join(name)
    }

    /// Our datasets: name without prefix, and whether it is mounted.
    pub(super) fn list(&self) -> Result<Vec<(String, bool)>, Fault> {
        let parent = self.parent()?;
        let words =
            ["list", "-H", "-r", "-d", "1", "-t", "filesystem", "-o", "name,mounted,mountpoint", parent];
        let text = self.run(&words)?;
        let ours = |line: &str| {
            let mut words = line.splitn(3, '\t');
            let (name, mounted, mountpoint) = (words.next()?, words.next()?, words.next()?);
            let name = name.strip_prefix(parent)?.strip_prefix('/')?.strip_prefix(PREFIX)?;
            (Path::new(mountpoint) == self.mount(name)).then(|| (name.to_owned(), mounted == "yes"))
        };
        Ok(text.lines().filter_map(ours).collect())
    }

    /// Our volumes: name without prefix.
    pub(super) fn list_volumes(&self) -> Result<Vec<String>, Fault> {
        let columns = format!("name,{MARK}");
        let parent = self.parent()?;
        let text = self.run(&["list", "-H", "-r", "-d", "1", "-t", "volume", "-o", &columns, parent])?;
        let ours = parse_columns(&text, parent);
        let ours = ours.filter(|(name, mark)| Path::new(mark) == self.mount(name));
        Ok(ours.map(|(name, _)| name.to_owned()).collect())
    }

    /// Bytes that one of our volumes holds, as ZFS counted them a few seconds ago; 0 where that cannot be told.
    pub(super) fn volume_bytes(&self, name: &str) -> u64 {
        // What is counted is read whole or not at all.
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.as_ref().is_none_or(|(at, _)| at.elapsed() > COUNT_EVERY) {
            let volumes = self.count_volumes().unwrap_or_else(|fault| {
                tracing::warn!(%fault, "it cannot be told what volumes hold");
                BTreeMap::new()
            });
            *counted = Some((Instant::now(), volumes));
        }
        counted.as_ref().and_then(|(_, volumes)| volumes.get(name).copied()).unwrap_or_default()
    }

    fn count_volumes(&self) -> Result<BTreeMap<String, u64>, Fault> {
        let parent = self.parent()?;
        let columns = "name,referenced";
        let text = self.run(&["list", "-H", "-p", "-r", "-d", "1", "-t", "volume", "-o", columns, parent])?;
        let counted = |(name, bytes): (&str, &str)| Some((name.to_owned(), bytes.parse().ok()?));
        Ok(parse_columns(&text, parent).filter_map(counted).collect())
    }

    /// Runs `zfs`; answers what it printed. Must be called on a thread of tokio's that may block.
    pub(super) fn run(&self, words: &[&str]) -> Result<String, Fault> {
        let begun = Instant::now();
        // These two go through what the disk holds.
        let is_long = words.first().is_some_and(|act| matches!(*act, "destroy" | "rollback"));
        let limit = if is_long { qemu_img::LONG_LIMIT } else { qemu_img::LIMIT };
        loop {
            let work = self.work.try_clone().map_err(|error| {
                Fault::new(FaultCode::Unavailable, format!("zfs cannot be started: {error}"))
            })?;
            let ran = program::run("zfs", words, work.into(), limit, || true);
            match ran.map_err(|error| qemu_img::fault(&error)) {
                Ok(text) => return Ok(String::from_utf8_lossy(&text).into_owned()),
                Err(fault) if is_settling(&fault.message, begun) => std::thread::sleep(BUSY_PAUSE),
                Err(fault) => return Err(full(fault)),
            }
        }
    }
}

/// Destroys a dataset; for who cannot wait on the runtime. Answers why not.
pub(super) fn destroy_blocking(dataset: &str) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let ended = Command::new("zfs").args(["destroy", dataset]).stdin(Stdio::null()).output();
        let output = ended.map_err(|error| format!("zfs cannot be run: {error}"))?;
        let words = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => return Ok(()),
            false if is_settling(&words, begun) => std::thread::sleep(BUSY_PAUSE),
            false => return Err(words.trim().to_owned()),
        }
    }
}

/// Whether to ask again: zfs-fuse answers an unmount a moment before it is done.
fn is_settling(words: &str, begun: Instant) -> bool {
    words.contains("dataset is busy") && begun.elapsed() < BUSY_LIMIT
}

/// Lines of two columns, of which the first is the name of one of our datasets: without what all of them begin with.
fn parse_columns<'a>(text: &'a str, parent: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.lines().filter_map(move |line| {
        let (name, value) = line.split_once('\t')?;
        Some((name.strip_prefix(parent)?.strip_prefix('/')?.strip_prefix(PREFIX)?, value))
    })
}

/// What `zfs` answered; none when the dataset is not there.
fn absent(answer: Result<String, Fault>) -> Result<Option<String>, Fault> {
    match answer {
        Err(fault) if fault.message.contains("does not exist") => Ok(None),
        answer => answer.map(Some),
    }
}

fn full(fault: Fault) -> Fault {
    let full = ["out of space", "size is greater than available space"];
    let code =
        if full.iter().any(|words| fault.message.contains(words)) { FaultCode::NoSpace } else { fault.code };
    Fault { code, ..fault }
}

/// The ZFS dataset mounted where the folder lies, by the kernel's list of mounts.
fn dataset_of(folder: &Path, mounts: &str) -> Option<String> {
    let mut found: Option<(usize, Option<&str>)> = None;
    for line in mounts.lines() {
        let (head, tail) = line.split_once(" - ")?;
        let place = unescaped(head.split(' ').nth(4)?);
        let mut kind = tail.split(' ');
        let (kind, source) = (kind.next()?, kind.next()?);
        let depth = Path::new(&place).components().count();
        // Of two mounts on one place the later one is seen.
        if folder.starts_with(&place) && found.is_none_or(|(deepest, _)| depth >= deepest) {
            found = Some((depth, matches!(kind, "zfs" | "fuse.zfs").then_some(source)));
        }
    }
    found?.1.map(unescaped)
}

/// The list writes spaces and the like in octal.
fn unescaped(word: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(word.to_owned(), |word, (code, plain)| word.replace(code, plain))
}

/// Our snapshots of a dataset with their numbers, from lines of name, property and value.
pub(super) fn parse_snapshots(text: &str, dataset: &str) -> Vec<(u64, Taken)> {
    let mut found = std::collections::BTreeMap::<&str, std::collections::BTreeMap<&str, &str>>::new();
    for line in text.lines() {
        let mut words = line.split('\t');
        let (Some(name), Some(property), Some(value)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let name = name.strip_prefix(dataset).and_then(|name| name.strip_prefix('@'));
        if let Some(name) = name {
            found.entry(name).or_default().insert(property, value);
        }
    }
    let taken = |(name, properties): (&str, std::collections::BTreeMap<&str, &str>)| {
        let number_of = |property: &str| properties.get(property)?.parse::<u64>().ok();
        let order = properties.get("haar:order").filter(|order| **order != "-");
        let taken = Taken {
            name: name.to_owned(),
            size_bytes: number_of("haar:size")?,
            created_s: number_of("creation")?,
            order: order.map(|order| (*order).to_owned()).unwrap_or_default(),
            identity: (*properties.get("guid")?).to_owned(),
        };
        Some((number_of("haar:number")?, taken))
    };
    found.into_iter().filter_map(taken).collect()
}

/// The snapshots of a dataset that are newer than this one, whoever took them, from lines of name and `createtxg`.
pub(super) fn newer_snapshots(text: &str, dataset: &str, than: &str) -> Vec<String> {
    let number_of = |line: &str| -> Option<(u64, String)> {
        let (name, number) = line.split_once('\t')?;
        let name = name.strip_prefix(dataset)?.strip_prefix('@')?;
        Some((number.trim().parse().ok()?, name.to_owned()))
    };
    let mut all: Vec<_> = text.lines().filter_map(number_of).collect();
    all.sort();
    all.into_iter().map(|(_, name)| name).skip_while(|name| name != than).skip(1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dataset_is_that_of_the_innermost_mount() {
        let mounts = "\
            22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            43 22 0:39 / /tank rw,relatime shared:1 - zfs tank rw\n\
            44 43 0:40 / /tank/a\\040b rw,relatime - fuse.zfs tank/a\\040b rw,user_id=0\n\
            45 43 0:41 / /tank/other rw,relatime - ext4 /dev/loop0 rw\n";
        for (folder, dataset) in [
            ("/tank/storage", Some("tank")),
            ("/tank/a b/storage", Some("tank/a b")),
            ("/tank/other/storage", None),
            ("/tankard", None),
            ("/", None),
        ] {
            assert_eq!(dataset_of(Path::new(folder), mounts).as_deref(), dataset, "{folder}");
        }
    }

    #[test]
    fn only_what_is_named_like_ours_is_ours() {
        let text = "p\t1\np/haar-disk-a\t2\np/other\t3\np/haar-x\t/a b\nq/haar-disk-b\t4\n";
        assert_eq!(parse_columns(text, "p").collect::<Vec<_>>(), [("disk-a", "2"), ("x", "/a b")]);
    }

    #[test]
    fn newer_is_what_was_taken_later_whatever_its_name() {
        let text = "p/d\t7\np/d@m\t122\np/d@a\t17\np/d@z\t12\n";
        assert_eq!(newer_snapshots(text, "p/d", "z"), ["a", "m"]);
        assert!(newer_snapshots(text, "p/d", "m").is_empty());
    }

    #[test]
    fn only_our_snapshots_are_listed() {
        let text = "p/d\tguid\t1\np/d@a\tguid\t7\np/d@a\tcreation\t1795253103\np/d@a\thaar:number\t2\n\
                    p/d@a\thaar:order\t1.2\np/d@a\thaar:size\t4096\n\
                    p/d@auto\tguid\t8\np/d@auto\tcreation\t1795253104\np/d@auto\thaar:number\t-\n";
        let taken = Taken {
            name: "a".to_owned(),
            size_bytes: 4096,
            created_s: 1_795_253_103,
            order: "1.2".to_owned(),
            identity: "7".to_owned(),
        };
        assert_eq!(parse_snapshots(text, "p/d"), [(2, taken)]);
    }
}
