//! Where what is in a redb file: table `records` under kind byte and key, table `meta` with the format
//! version and the fence of the last commit.
//!
//! Promises that fence and records change in one transaction. No caches, no policy.

use std::ops::Bound;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::{Error, Fence, Kind, Op, Pairs, Visit};

const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const FENCE_KEY: &str = "fence";
/// Grows when an older program could misread the file.
const FORMAT: u32 = 1;

/// Makes an empty database a store.
pub(super) fn initialise_if_empty(database: &Database, path: &Path) -> Result<(), Error> {
    let initialise = || -> Result<(), redb::Error> {
        if database.begin_read()?.list_tables()?.next().is_some() {
            return Ok(());
        }
        let transaction = begin_write(database)?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice())?;
            meta.insert(FENCE_KEY, encode_fence(Fence::default()).as_slice())?;
            transaction.open_table(RECORDS)?;
        }
        Ok(transaction.commit()?)
    };
    initialise().map_err(|error| Error::from_redb(path, "initialise", error))
}

/// Whether this program reads the file. An empty database passes: it has yet to become a store.
pub(super) fn check_format(database: &Database, path: &Path) -> Result<(), Error> {
    let corrupt = |why: &str| Error::Corrupt { path: path.to_path_buf(), why: why.into() };
    let read = || -> Result<Option<Vec<u8>>, redb::Error> {
        let transaction = database.begin_read()?;
        if transaction.list_tables()?.next().is_none() {
            return Ok(Some(FORMAT.to_be_bytes().to_vec()));
        }
        let meta = transaction.open_table(META)?;
        Ok(meta.get(FORMAT_KEY)?.map(|value| value.value().to_vec()))
    };
    let stored = read().map_err(|error| Error::from_redb(path, "read", error))?;
    let stored = stored.ok_or_else(|| corrupt("it has no format version"))?;
    let version = stored.try_into().map_err(|_| corrupt("its format version is no number"))?;
    match u32::from_be_bytes(version) {
        FORMAT => Ok(()),
        0 => Err(corrupt("its format version is 0")),
        version => Err(Error::TooNew { path: path.to_path_buf(), version, known: FORMAT }),
    }
}

/// What a transaction found before it was committed.
enum Staged {
    Ready,
    Fenced(Fence),
}

/// One durable transaction: all of `ops` and the fence, or nothing.
pub(super) fn commit(
    database: &Database,
    path: &Path,
    ops: &[Op],
    expected: Fence,
    new: Fence,
) -> Result<(), Error> {
    let io = |error: redb::Error| Error::from_redb(path, "write to", error);
    let transaction = begin_write(database).map_err(io)?;
    match stage(&transaction, ops, expected, new).map_err(io)? {
        Staged::Fenced(found) => Err(Error::Fenced { expected, found }),
        Staged::Ready => transaction.commit().map_err(|error| unknown_outcome(path, error)),
    }
}

/// Up to here nothing was durable; from here on it may be.
fn unknown_outcome(path: &Path, error: redb::CommitError) -> Error {
    match Error::from_redb(path, "commit to", error) {
        Error::Io { path, source, .. } => Error::OutcomeUnknown { path, source },
        named => named,
    }
}

fn begin_write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn stage(
    transaction: &WriteTransaction,
    ops: &[Op],
    expected: Fence,
    new: Fence,
) -> Result<Staged, redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let found = read_fence(&meta)?;
    if found != expected {
        return Ok(Staged::Fenced(found));
    }
    meta.insert(FENCE_KEY, encode_fence(new).as_slice())?;
    let mut records = transaction.open_table(RECORDS)?;
    for op in ops {
        match op {
            Op::Put { kind, key, value } => {
                records.insert(full_key(*kind, key).as_slice(), value.as_slice())?;
            }
            Op::Delete { kind, key } => {
                records.remove(full_key(*kind, key).as_slice())?;
            }
        }
    }
    Ok(Staged::Ready)
}

/// Shows every record of one moment, but for the kinds in `skip`, ordered by kind and key.
pub(super) fn read_all(
    database: &Database,
    path: &Path,
    skip: &[Kind],
    each: &mut Visit<'_>,
) -> Result<Fence, Error> {
    let mut read = || -> Result<Fence, redb::Error> {
        let transaction = database.begin_read()?;
        let fence = read_fence(&transaction.open_table(META)?)?;
        let records = transaction.open_table(RECORDS)?;
        for (first, last) in runs_without(skip) {
            for entry in records.range::<&[u8]>(kind_range(first, &[], last).as_bounds())? {
                let (key, value) = entry?;
                let (kind, key) = split_key(key.value())?;
                each(kind, key, value.value());
            }
        }
        Ok(fence)
    };
    read().map_err(|error| Error::from_redb(path, "read", error))
}

/// At most `limit` records of `kind` from `from_key` on.
pub(super) fn scan(
    database: &Database,
    path: &Path,
    kind: Kind,
    from_key: &[u8],
    limit: usize,
) -> Result<Pairs, Error> {
    let read = || -> Result<Pairs, redb::Error> {
        let records = database.begin_read()?.open_table(RECORDS)?;
        let mut found = Vec::new();
        for entry in records.range::<&[u8]>(kind_range(kind.0, from_key, kind.0).as_bounds())?.take(limit) {
            let (key, value) = entry?;
            found.push((split_key(key.value())?.1.to_vec(), value.value().to_vec()));
        }
        Ok(found)
    };
    read().map_err(|error| Error::from_redb(path, "read", error))
}

/// Keys from (first, from_key) to the end of the kind `last`.
struct KindRange {
    start: Vec<u8>,
    end: Option<[u8; 1]>,
}

fn kind_range(first: u8, from_key: &[u8], last: u8) -> KindRange {
    KindRange { start: full_key(Kind(first), from_key), end: last.checked_add(1).map(|next| [next]) }
}

impl KindRange {
    fn as_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match &self.end {
            Some(next) => Bound::Excluded(next.as_slice()),
            None => Bound::Unbounded,
        };
        (Bound::Included(self.start.as_slice()), end)
    }
}

/// The runs of consecutive kinds, inclusive, that are not in `skip`.
fn runs_without(skip: &[Kind]) -> Vec<(u8, u8)> {
    let mut runs: Vec<(u8, u8)> = Vec::new();
    for kind in (0..=u8::MAX).filter(|kind| !skip.contains(&Kind(*kind))) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == kind => *last = kind,
            _ => runs.push((kind, kind)),
        }
    }
    runs
}

fn full_key(kind: Kind, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(kind.0);
    full.extend_from_slice(key);
    full
}

fn split_key(full: &[u8]) -> Result<(Kind, &[u8]), redb::Error> {
    let (kind, key) =
        full.split_first().ok_or_else(|| redb::Error::Corrupted("a record has no kind".into()))?;
    Ok((Kind(*kind), key))
}

fn encode_fence(fence: Fence) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&fence.epoch.to_be_bytes());
    bytes[8..].copy_from_slice(&fence.revision.to_be_bytes());
    bytes
}

fn read_fence(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Fence, redb::Error> {
    let corrupt = || redb::Error::Corrupted("the fence of the last commit cannot be read".into());
    let stored = meta.get(FENCE_KEY)?.ok_or_else(corrupt)?;
    let (epoch, revision) = stored.value().split_first_chunk::<8>().ok_or_else(corrupt)?;
    let revision = revision.try_into().map_err(|_| corrupt())?;
    Ok(Fence { epoch: u64::from_be_bytes(*epoch), revision: u64::from_be_bytes(revision) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_leave_out_exactly_the_skipped_kinds() {
        assert_eq!(runs_without(&[]), [(0, 255)]);
        assert_eq!(runs_without(&[Kind(0), Kind(7), Kind(255), Kind(7)]), [(1, 6), (8, 254)]);
        let everything: Vec<Kind> = (0..=255).map(Kind).collect();
        assert_eq!(runs_without(&everything), []);
    }

    #[test]
    fn a_file_of_a_newer_format_is_refused_and_named() {
        let database =
            Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let path = Path::new("new.redb");
        initialise_if_empty(&database, path).unwrap();
        check_format(&database, path).unwrap();
        let transaction = begin_write(&database).unwrap();
        {
            let mut meta = transaction.open_table(META).unwrap();
            meta.insert(FORMAT_KEY, (FORMAT + 1).to_be_bytes().as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        let error = check_format(&database, path).unwrap_err();
        assert!(
            matches!(error, Error::TooNew { version, known, .. } if version == FORMAT + 1 && known == FORMAT)
        );
    }
}
