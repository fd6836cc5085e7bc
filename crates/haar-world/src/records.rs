//! The books as bytes: each record under its kind and id, as JSON with a version, as a controller stores it.

use std::net::IpAddr;
use std::sync::Arc;

use haar_core::fleet::change::{Change, Decision, Record};
use haar_core::id::{Kind, SubnetId};
use haar_store::Op;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The table of the subnets' cursors; after those of [`Kind::ALL`].
const CURSOR_TABLE: u8 = 100;
/// The table of blobs.
const BLOB_TABLE: u8 = 101;

#[derive(serde::Serialize, serde::Deserialize)]
struct Stored<T> {
    v: u32,
    record: T,
}

/// What a decision writes.
pub(crate) fn ops_of(decision: &Decision) -> Vec<Op> {
    decision.changes.iter().map(op_of).collect()
}

fn op_of(change: &Change) -> Op {
    match change {
        Change::Put(record) => {
            put(table(record.kind()), record.id().as_bytes().to_vec(), encode_record(record))
        }
        Change::Delete(kind, id) => delete(table(*kind), id.as_bytes().to_vec()),
        Change::Cursor(subnet, address) => put(CURSOR_TABLE, subnet.0.as_bytes().to_vec(), encode(address)),
        Change::PutBlob(blob) => put(BLOB_TABLE, blob.sha256.as_bytes().to_vec(), blob.bytes.clone()),
        Change::DropBlob(sha256) => delete(BLOB_TABLE, sha256.as_bytes().to_vec()),
    }
}

fn put(table: u8, key: Vec<u8>, value: Vec<u8>) -> Op {
    Op::Put { kind: haar_store::Kind(table), key, value }
}

fn delete(table: u8, key: Vec<u8>) -> Op {
    Op::Delete { kind: haar_store::Kind(table), key }
}

fn table(kind: Kind) -> u8 {
    Kind::ALL.iter().position(|known| *known == kind).map_or(u8::MAX, |position| position as u8)
}

fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(&Stored { v: 1, record }).expect("a record of ours has only text keys")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> T {
    serde_json::from_slice::<Stored<T>>(bytes).expect("what was encoded here can be read here").record
}

fn encode_record(record: &Record) -> Vec<u8> {
    match record {
        Record::Config(record) => encode(record),
        Record::Token(record) => encode(record),
        Record::Hypervisor(record) => encode(record),
        Record::Image(record) => encode(record),
        Record::Flavor(record) => encode(record),
        Record::Network(record) => encode(record),
        Record::Subnet(record) => encode(record),
        Record::FwGroup(record) => encode(record),
        Record::Guest(record) => encode(record),
        Record::Job(record) => encode(record),
    }
}

/// A stored record read again.
#[derive(Debug)]
pub(crate) enum Read {
    /// Of the books.
    Record(Record),
    /// A subnet's cursor.
    Cursor(SubnetId, IpAddr),
    /// A blob, which lies beside them.
    Blob,
}

/// Reads one stored record.
pub(crate) fn read(table: haar_store::Kind, key: &[u8], value: &[u8]) -> Read {
    if table.0 == BLOB_TABLE {
        return Read::Blob;
    }
    if table.0 == CURSOR_TABLE {
        let id = uuid::Uuid::from_slice(key).expect("a cursor's key is its subnet's id");
        return Read::Cursor(SubnetId(id), decode(value));
    }
    Read::Record(match Kind::ALL[usize::from(table.0)] {
        Kind::Config => Record::Config(Arc::new(decode(value))),
        Kind::Token => Record::Token(Arc::new(decode(value))),
        Kind::Hypervisor => Record::Hypervisor(Arc::new(decode(value))),
        Kind::Image => Record::Image(Arc::new(decode(value))),
        Kind::Flavor => Record::Flavor(Arc::new(decode(value))),
        Kind::Network => Record::Network(Arc::new(decode(value))),
        Kind::Subnet => Record::Subnet(Arc::new(decode(value))),
        Kind::FwGroup => Record::FwGroup(Arc::new(decode(value))),
        Kind::Guest => Record::Guest(Arc::new(decode(value))),
        Kind::Job => Record::Job(Arc::new(decode(value))),
    })
}
