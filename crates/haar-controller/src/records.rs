//! Core records ⇄ stored bytes.
//!
//! A stored record is JSON: `{"v": 1, "record": {…the core struct…}}` under (kind, id). Golden files of
//! every kind in `tests/golden` keep old records loading; when a struct changes its shape, the old one is
//! frozen here beside its upgrade and `VERSION` grows. Fields nobody knows are ignored, so that a step
//! back by one release still reads. Deliberately absent: any meaning of the records.

use std::net::IpAddr;
use std::sync::Arc;

use haar_core::fleet::change::{Change, Record};
use haar_core::id::{Kind, SubnetId};
use haar_store::Op;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::events::Ring;

/// The version of the envelope and of every struct in it.
pub const VERSION: u32 = 1;

/// The last address handed out of each subnet.
pub const CURSORS: haar_store::Kind = haar_store::Kind(11);
/// The ring of events; not read when the books are loaded.
pub const EVENTS: haar_store::Kind = haar_store::Kind(20);
/// Users' data by SHA-256; not read when the books are loaded.
pub const BLOBS: haar_store::Kind = haar_store::Kind(21);
/// What the shell keeps about its own tables.
pub const META: haar_store::Kind = haar_store::Kind(22);

/// Key in [`META`] of how far the ring of events is.
pub const RING: &[u8] = b"ring";

/// A stored record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the stored {kind} record {id} cannot be read ({problem}); restore a backup, or run the release that wrote it"
)]
pub struct BadRecord {
    /// The noun, or what stands for it.
    pub kind: String,
    /// Its id, or the key in hex when that is no id.
    pub id: String,
    /// What is wrong with it.
    pub problem: String,
}

#[derive(Serialize)]
struct Writing<'a, T> {
    v: u32,
    record: &'a T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Deserialize)]
struct Reading<T> {
    record: T,
}

/// The table of a kind. These numbers are stored: they never change.
pub fn table(kind: Kind) -> haar_store::Kind {
    haar_store::Kind(match kind {
        Kind::Config => 1,
        Kind::Token => 2,
        Kind::Hypervisor => 3,
        Kind::Image => 4,
        Kind::Flavor => 5,
        Kind::Network => 6,
        Kind::Subnet => 7,
        Kind::FwGroup => 8,
        Kind::Guest => 9,
        Kind::Job => 10,
    })
}

/// The operations that store one change.
pub fn operations(change: &Change) -> impl Iterator<Item = Op> {
    let with_it = match change {
        Change::Delete(Kind::Subnet, id) => Some(Op::Delete { kind: CURSORS, key: key(*id) }),
        _ => None,
    };
    [operation(change)].into_iter().chain(with_it)
}

fn operation(change: &Change) -> Op {
    match change {
        Change::Put(record) => {
            Op::Put { kind: table(record.kind()), key: key(record.id()), value: encode(record) }
        }
        Change::Delete(kind, id) => Op::Delete { kind: table(*kind), key: key(*id) },
        Change::Cursor(subnet, address) => {
            Op::Put { kind: CURSORS, key: key(subnet.0), value: write(address) }
        }
        Change::PutBlob(blob) => {
            Op::Put { kind: BLOBS, key: blob.sha256.clone().into_bytes(), value: blob.bytes.clone() }
        }
        Change::DropBlob(sha256) => Op::Delete { kind: BLOBS, key: sha256.clone().into_bytes() },
    }
}

/// A record's bytes.
pub fn encode(record: &Record) -> Vec<u8> {
    match record {
        Record::Config(record) => write(&**record),
        Record::Token(record) => write(&**record),
        Record::Hypervisor(record) => write(&**record),
        Record::Image(record) => write(&**record),
        Record::Flavor(record) => write(&**record),
        Record::Network(record) => write(&**record),
        Record::Subnet(record) => write(&**record),
        Record::FwGroup(record) => write(&**record),
        Record::Guest(record) => write(&**record),
        Record::Job(record) => write(&**record),
    }
}

/// What a load comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// A record of the books.
    Record(Record),
    /// A subnet's cursor.
    Cursor(SubnetId, IpAddr),
    /// How far the ring of events is.
    Ring(Ring),
}

/// Reads what lies under (table, key).
///
/// # Errors
/// [`BadRecord`] names kind and id of what cannot be read, and why.
pub fn decode(table_of: haar_store::Kind, stored_key: &[u8], value: &[u8]) -> Result<Loaded, BadRecord> {
    let bad = |problem: String| bad_record(table_of, stored_key, problem);
    if table_of == META {
        return match stored_key {
            RING => read(value).map(Loaded::Ring).map_err(bad),
            _ => Err(bad("no such entry is known".to_owned())),
        };
    }
    let id = Uuid::from_slice(stored_key).map_err(|_| bad("its key is no id".to_owned()))?;
    if table_of == CURSORS {
        return read(value).map(|address| Loaded::Cursor(SubnetId(id), address)).map_err(bad);
    }
    let Some(kind) = Kind::ALL.into_iter().find(|kind| table(*kind) == table_of) else {
        return Err(bad("no such kind is known".to_owned()));
    };
    let record = decode_record(kind, value).map_err(bad)?;
    if record.id() != id {
        return Err(bad(format!("it says that it is {}", record.id())));
    }
    Ok(Loaded::Record(record))
}

fn decode_record(kind: Kind, value: &[u8]) -> Result<Record, String> {
    Ok(match kind {
        Kind::Config => Record::Config(Arc::new(read(value)?)),
        Kind::Token => Record::Token(Arc::new(read(value)?)),
        Kind::Hypervisor => Record::Hypervisor(Arc::new(read(value)?)),
        Kind::Image => Record::Image(Arc::new(read(value)?)),
        Kind::Flavor => Record::Flavor(Arc::new(read(value)?)),
        Kind::Network => Record::Network(Arc::new(read(value)?)),
        Kind::Subnet => Record::Subnet(Arc::new(read(value)?)),
        Kind::FwGroup => Record::FwGroup(Arc::new(read(value)?)),
        Kind::Guest => Record::Guest(Arc::new(read(value)?)),
        Kind::Job => Record::Job(Arc::new(read(value)?)),
    })
}

/// The key of an id.
pub fn key(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// A value in its envelope.
pub fn write<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(&Writing { v: VERSION, record })
        .expect("core structs have string keys and serialise into memory, which does not fail")
}

/// A value out of its envelope; the problem in words when there is none.
pub(crate) fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    let version: Version = serde_json::from_slice(value).map_err(|problem| problem.to_string())?;
    if version.v != VERSION {
        return Err(format!("it has version {}, this release reads {VERSION}", version.v));
    }
    let reading: Reading<T> = serde_json::from_slice(value).map_err(|problem| problem.to_string())?;
    Ok(reading.record)
}

fn bad_record(table_of: haar_store::Kind, stored_key: &[u8], problem: String) -> BadRecord {
    let kind = match Kind::ALL.into_iter().find(|kind| table(*kind) == table_of) {
        Some(kind) => kind.to_string(),
        None if table_of == CURSORS => "address cursor".to_owned(),
        None if table_of == META => "bookkeeping".to_owned(),
        None => format!("(table {})", table_of.0),
    };
    let id = Uuid::from_slice(stored_key).map_or_else(|_| hex::encode(stored_key), |id| id.to_string());
    BadRecord { kind, id, problem }
}
