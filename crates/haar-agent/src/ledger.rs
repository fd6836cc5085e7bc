//! The ledger's records as bytes, and the one place that writes them.
//!
//! A stored record is the core's struct as JSON with a version `v`; golden files in `tests/golden/` hold each
//! version. When a shape changes, the old one is frozen here with its upgrade.

use std::path::Path;

use haar_core::node::{GuestRecord, LedgerChange, LedgerRecord, NodeRecord};
use haar_store::{Disk, Fence, Kind, Op, Options, RedbDisk};
use serde::{Deserialize, Serialize};

/// The version this release writes.
const VERSION: u32 = 1;
/// The ledger is small: thousands of guests are a few megabytes.
const CACHE_BYTES: usize = 8 << 20;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store beneath it.
    #[error("the ledger's store failed")]
    Store(#[from] haar_store::Error),
    /// A record is not what it should be.
    #[error("a record of the ledger (kind {kind}) cannot be read; restore the file or move it away")]
    Record {
        /// Its table.
        kind: u8,
        /// What does not hold.
        source: serde_json::Error,
    },
    /// A newer release wrote it.
    #[error(
        "a record of the ledger has version {found}, this release reads up to {VERSION}; run the newer release"
    )]
    TooNew {
        /// Its version.
        found: u32,
    },
    /// A record of a table that is not known.
    #[error("the ledger has a record of the unknown kind {0}; run the release that wrote it")]
    UnknownKind(u8),
}

#[derive(Serialize)]
struct Stored<'a, T> {
    v: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// A record as bytes.
pub fn encode(record: &LedgerRecord) -> Vec<u8> {
    let bytes = match record {
        LedgerRecord::Node(record) => serde_json::to_vec(&Stored { v: VERSION, record }),
        LedgerRecord::Guest(record) => serde_json::to_vec(&Stored { v: VERSION, record: record.as_ref() }),
    };
    bytes.expect("records hold only what JSON can say")
}

/// Bytes as a record.
///
/// # Errors
/// [`Error`] says what is wrong with it.
pub fn decode(kind: u8, bytes: &[u8]) -> Result<LedgerRecord, Error> {
    let unreadable = |source| Error::Record { kind, source };
    let version: Version = serde_json::from_slice(bytes).map_err(unreadable)?;
    if version.v > VERSION {
        return Err(Error::TooNew { found: version.v });
    }
    match kind {
        LedgerRecord::NODE_KIND => {
            serde_json::from_slice::<NodeRecord>(bytes).map(LedgerRecord::Node).map_err(unreadable)
        }
        LedgerRecord::GUEST_KIND => serde_json::from_slice::<GuestRecord>(bytes)
            .map(|record| LedgerRecord::Guest(Box::new(record)))
            .map_err(unreadable),
        kind => Err(Error::UnknownKind(kind)),
    }
}

/// The ledger on its disk.
pub(crate) struct Ledger {
    disk: Box<dyn Disk>,
    fence: Fence,
}

impl Ledger {
    /// Opens or makes the file and reads every record.
    pub(crate) fn open(path: &Path) -> Result<(Ledger, Vec<LedgerRecord>), Error> {
        let options = Options { cache_bytes: CACHE_BYTES, ..Options::default() };
        Ledger::on(Box::new(RedbDisk::open(path, options)?))
    }

    /// Reads every record of a disk.
    pub(crate) fn on(mut disk: Box<dyn Disk>) -> Result<(Ledger, Vec<LedgerRecord>), Error> {
        let mut records = Vec::new();
        let fence = disk.load(&[], &mut |kind, _, value| records.push(decode(kind.0, value)))?;
        let records = records.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok((Ledger { disk, fence }, records))
    }

    /// Makes the changes durable, all or none. After a failure the store is opened again and read: what it then
    /// says counts.
    ///
    /// # Errors
    /// [`Error::Store`] when the second try fails too; nobody may act on the changes.
    pub(crate) fn commit(&mut self, changes: &[LedgerChange]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let ops: Vec<Op> = changes.iter().map(op).collect();
        let new = Fence { epoch: 1, revision: self.fence.revision + 1 };
        match self.disk.commit(&ops, self.fence, new) {
            Err(error) if error.needs_reopen() => {
                tracing::error!(error = &error as &dyn std::error::Error, "the ledger failed, opened again");
                self.disk.reopen()?;
                let kinds = [Kind(LedgerRecord::NODE_KIND), Kind(LedgerRecord::GUEST_KIND)];
                let found = self.disk.load(&kinds, &mut |_, _, _| {})?;
                if found != new {
                    self.disk.commit(&ops, self.fence, new)?;
                }
            }
            other => other?,
        }
        self.fence = new;
        Ok(())
    }
}

fn op(change: &LedgerChange) -> Op {
    let (kind, key) = change.key();
    match change {
        LedgerChange::Put(record) => Op::Put { kind: Kind(kind), key, value: encode(record) },
        LedgerChange::Forget(_) => Op::Delete { kind: Kind(kind), key },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_core::fence::Fence as CoreFence;
    use haar_store::{FailingDisk, Fault, Faults, MemoryDisk};
    use uuid::Uuid;

    fn node(boots: u64) -> LedgerRecord {
        LedgerRecord::Node(NodeRecord {
            hypervisor: Uuid::from_u128(7).into(),
            cloud: Some(Uuid::from_u128(9).into()),
            lot: 42,
            incarnation: Some(3),
            seen: CoreFence::new(1, 17),
            boots,
            buried: 0,
        })
    }

    #[test]
    fn records_of_version_1_are_read_as_they_were_written() {
        let golden = include_bytes!("../tests/golden/ledger-node-v1.json");
        assert_eq!(decode(LedgerRecord::NODE_KIND, golden).unwrap(), node(5));
        assert_eq!(encode(&node(5)), golden.trim_ascii_end());
        let golden = include_bytes!("../tests/golden/ledger-guest-v1.json");
        let record = decode(LedgerRecord::GUEST_KIND, golden).unwrap();
        assert_eq!(encode(&record), golden.trim_ascii_end());
    }

    #[test]
    fn a_newer_record_is_refused() {
        let error = decode(LedgerRecord::NODE_KIND, br#"{"v":2}"#).unwrap_err();
        assert!(matches!(error, Error::TooNew { found: 2 }), "{error}");
    }

    #[test]
    fn a_damaged_ledger_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        let (mut ledger, _) = Ledger::open(&path).unwrap();
        ledger.commit(&[LedgerChange::Put(node(1))]).unwrap();
        drop(ledger);
        let whole = std::fs::read(&path).unwrap();
        let mut foreign = whole.clone();
        foreign[..64].fill(b'x');
        for bytes in [&whole[..whole.len() / 2], &foreign, b"no ledger at all"] {
            std::fs::write(&path, bytes).unwrap();
            let error = Ledger::open(&path).err().expect("a damaged ledger opened");
            assert!(matches!(error, Error::Store(_)), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "{error:?}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().1, [node(1)]);
    }

    #[test]
    fn a_commit_that_failed_is_made_good_whether_or_not_it_took_effect() {
        for fault in [Fault::BeforeEffect, Fault::AfterEffect, Fault::Full] {
            let memory = MemoryDisk::new();
            let medium = memory.medium();
            let faults = Faults::scripted([None, Some(fault)]);
            let (mut ledger, _) = Ledger::on(Box::new(FailingDisk::new(memory, faults))).unwrap();
            ledger.commit(&[LedgerChange::Put(node(1))]).unwrap();
            ledger.commit(&[LedgerChange::Put(node(2))]).unwrap();
            ledger.commit(&[LedgerChange::Put(node(3))]).unwrap();
            let disk = MemoryDisk::on(medium, haar_store::Limits::NONE);
            let (_, records) = Ledger::on(Box::new(disk)).unwrap();
            assert_eq!(records, [node(3)]);
        }
    }
}
