//! The REST's guests, jobs and labels on their disk: one record each, each with its version.
//!
//! A record that cannot be read is put aside under its key and named in the log; the others are used. Records of a
//! newer release stop the start. Deliberately absent: any meaning of what is stored.

use std::path::Path;

use haar_store::{Disk, Fence, Kind, Op, Options, RedbDisk};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::runners::{Change, GuestRecord, JobRecord, Records};

/// Of records.
const VERSION: u32 = 1;
/// redb's default would be a gigabyte.
const CACHE_BYTES: usize = 4 << 20;

const GUEST: Kind = Kind(1);
const JOB: Kind = Kind(2);
const LABEL: Kind = Kind(3);
/// What could not be read, by its kind and key.
const ASIDE: Kind = Kind(255);

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk says no.
    #[error("reading or writing the store of the agent's REST failed")]
    Disk(#[from] haar_store::Error),
    /// A newer release wrote it.
    #[error(
        "a record of the agent's REST has version {0}, this release reads up to {VERSION}; run the newer release"
    )]
    TooNew(u32),
}

#[derive(Serialize)]
struct Written<'a, T> {
    v: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct Label {
    value: String,
}

enum Unreadable {
    TooNew(u32),
    Corrupt(serde_json::Error),
}

fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(&Written { v: VERSION, record }).expect("records hold only what JSON can say")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    let version: Version = serde_json::from_slice(bytes).map_err(Unreadable::Corrupt)?;
    if version.v > VERSION {
        return Err(Unreadable::TooNew(version.v));
    }
    serde_json::from_slice(bytes).map_err(Unreadable::Corrupt)
}

/// The store.
pub(crate) struct Store {
    disk: Box<dyn Disk>,
    fence: Fence,
}

impl Store {
    /// Opens or makes the file and reads every record.
    ///
    /// # Errors
    /// [`Error`] when the file as a whole cannot be used.
    pub(crate) fn open(path: &Path) -> Result<(Store, Records), Error> {
        let options = Options { cache_bytes: CACHE_BYTES, ..Options::default() };
        Store::on(Box::new(RedbDisk::open(path, options)?))
    }

    /// Reads every record of a disk.
    pub(crate) fn on(mut disk: Box<dyn Disk>) -> Result<(Store, Records), Error> {
        let mut records = Records::default();
        let mut aside = Vec::new();
        let mut newest = None;
        let fence = disk.load(&[ASIDE], &mut |kind, key, value| match take(&mut records, kind, key, value) {
            Ok(()) => {}
            Err(Unreadable::TooNew(version)) => newest = newest.max(Some(version)),
            Err(Unreadable::Corrupt(error)) => {
                let key_text = readable(key);
                tracing::warn!(kind = kind.0, key = key_text, %error, "a record of the agent's REST cannot be read and is put aside");
                aside.push((kind, key.to_vec(), value.to_vec()));
            }
        })?;
        if let Some(version) = newest {
            return Err(Error::TooNew(version));
        }
        let mut store = Store { disk, fence };
        let moves = aside.into_iter().flat_map(|(kind, key, value)| {
            let kept = [&[kind.0], key.as_slice()].concat();
            [Op::Put { kind: ASIDE, key: kept, value }, Op::Delete { kind, key }]
        });
        store.write(&moves.collect::<Vec<_>>())?;
        Ok((store, records))
    }

    /// Makes the changes durable, all or none. After a failure the disk is opened again and read: what it then
    /// says counts.
    ///
    /// # Errors
    /// [`Error::Disk`] when the second try fails too; nobody may act on the changes.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.write(&changes.iter().map(op).collect::<Vec<_>>())
    }

    fn write(&mut self, ops: &[Op]) -> Result<(), Error> {
        if ops.is_empty() {
            return Ok(());
        }
        let new = Fence { epoch: 1, revision: self.fence.revision + 1 };
        match self.disk.commit(ops, self.fence, new) {
            Err(error) if error.needs_reopen() => {
                tracing::error!(error = &error as &dyn std::error::Error, "the store failed, opened again");
                self.disk.reopen()?;
                let found = self.disk.load(&[GUEST, JOB, LABEL, ASIDE], &mut |_, _, _| {})?;
                if found != new {
                    self.disk.commit(ops, self.fence, new)?;
                }
            }
            other => other?,
        }
        self.fence = new;
        Ok(())
    }
}

fn take(records: &mut Records, kind: Kind, key: &[u8], value: &[u8]) -> Result<(), Unreadable> {
    match kind {
        GUEST => {
            let record: GuestRecord = decode(value)?;
            let id = Uuid::from_slice(key).map_err(|error| Unreadable::Corrupt(other_key(&error)))?;
            if Uuid::parse_str(&record.guest.id) != Ok(id) {
                return Err(Unreadable::Corrupt(other_key(&"it is another guest's")));
            }
            records.guests.insert(id, record);
        }
        JOB => {
            let job: JobRecord = decode(value)?;
            if job.seq.to_be_bytes() != key {
                return Err(Unreadable::Corrupt(other_key(&"it is another job's")));
            }
            records.jobs.insert(job.seq, job);
        }
        _ => {
            let label: Label = decode(value)?;
            records.labels.insert(String::from_utf8_lossy(key).into_owned(), label.value);
        }
    }
    Ok(())
}

fn other_key(why: &dyn std::fmt::Display) -> serde_json::Error {
    serde::de::Error::custom(format!("key and record do not belong together: {why}"))
}

fn readable(key: &[u8]) -> String {
    Uuid::from_slice(key).map_or_else(|_| String::from_utf8_lossy(key).into_owned(), |id| id.to_string())
}

fn op(change: &Change) -> Op {
    match change {
        Change::PutGuest(id, record) => {
            Op::Put { kind: GUEST, key: id.as_bytes().to_vec(), value: encode(record.as_ref()) }
        }
        Change::DropGuest(id) => Op::Delete { kind: GUEST, key: id.as_bytes().to_vec() },
        Change::PutJob(job) => {
            Op::Put { kind: JOB, key: job.seq.to_be_bytes().to_vec(), value: encode(job.as_ref()) }
        }
        Change::DropJob(seq) => Op::Delete { kind: JOB, key: seq.to_be_bytes().to_vec() },
        Change::Label(key, Some(value)) => {
            let value = encode(&Label { value: value.clone() });
            Op::Put { kind: LABEL, key: key.as_bytes().to_vec(), value }
        }
        Change::Label(key, None) => Op::Delete { kind: LABEL, key: key.as_bytes().to_vec() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_store::{FailingDisk, Fault, Faults, MemoryDisk, MemoryMedium};

    fn label(key: &str, value: &str) -> Change {
        Change::Label(key.into(), Some(value.into()))
    }

    fn opened(medium: &MemoryMedium) -> Result<(Store, Records), Error> {
        Store::on(Box::new(MemoryDisk::on(medium.clone(), haar_store::Limits::NONE)))
    }

    #[test]
    fn a29_a_corrupt_guest_is_put_aside_and_the_others_are_read() {
        let mut disk = MemoryDisk::new();
        let medium = disk.medium();
        let golden = include_bytes!("../../tests/mistify/golden/record-guest-v1.json");
        let id: Uuid = "3f2b8c14-5d0e-4a57-9a43-6f1f7a1d2b90".parse().unwrap();
        let put = |key: Vec<u8>, value: &[u8]| Op::Put { kind: GUEST, key, value: value.to_vec() };
        let ops = [
            put(id.as_bytes().to_vec(), golden),
            put(vec![1; 16], b"{\"v\":1,\"guest\":"),
            put(vec![2; 16], golden),
        ];
        disk.commit(&ops, Fence::default(), Fence { epoch: 1, revision: 1 }).unwrap();
        let (_, records) = opened(&medium).unwrap();
        assert_eq!(records.guests.keys().collect::<Vec<_>>(), [&id]);
        let mut aside = Vec::new();
        let mut disk = MemoryDisk::on(medium, haar_store::Limits::NONE);
        disk.load(&[], &mut |kind, key, _| aside.push((kind, key.to_vec()))).unwrap();
        assert_eq!(aside.iter().filter(|(kind, _)| *kind == ASIDE).count(), 2);
        assert_eq!(aside.iter().filter(|(kind, _)| *kind == GUEST).count(), 1);
    }

    #[test]
    fn records_of_version_1_are_read_as_they_were_written() {
        let golden = include_bytes!("../../tests/mistify/golden/record-guest-v1.json");
        let record: GuestRecord = decode(golden).ok().unwrap();
        assert_eq!(record.guest.metadata["foo"], "bar");
        assert_eq!(encode(&record), golden.trim_ascii_end());
        let golden = include_bytes!("../../tests/mistify/golden/record-job-v1.json");
        let record: JobRecord = decode(golden).ok().unwrap();
        assert_eq!(encode(&record), golden.trim_ascii_end());
    }

    #[test]
    fn a_newer_record_stops_the_start() {
        let mut disk = MemoryDisk::new();
        let medium = disk.medium();
        let put = Op::Put { kind: LABEL, key: b"a".to_vec(), value: b"{\"v\":2}".to_vec() };
        disk.commit(&[put], Fence::default(), Fence { epoch: 1, revision: 1 }).unwrap();
        assert!(matches!(opened(&medium), Err(Error::TooNew(2))));
    }

    #[test]
    fn a_commit_that_failed_is_made_good_whether_or_not_it_took_effect() {
        for fault in [Fault::BeforeEffect, Fault::AfterEffect, Fault::Full] {
            let memory = MemoryDisk::new();
            let medium = memory.medium();
            let faults = Faults::scripted([None, Some(fault)]);
            let (mut store, _) = Store::on(Box::new(FailingDisk::new(memory, faults))).unwrap();
            for value in ["1", "2", "3"] {
                store.commit(&[label("a", value)]).unwrap();
            }
            assert_eq!(opened(&medium).unwrap().1.labels["a"], "3");
        }
    }
}
