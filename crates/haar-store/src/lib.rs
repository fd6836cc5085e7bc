//! Durable records under (kind, key): redb, memory, and doubles that fail.
//!
//! A [`Disk`] is one writer over bytes. A commit is all or nothing, durable before it is answered, and
//! refused when the stored [`Fence`] is not the expected one. What a kind means and how a value is
//! encoded is the caller's business; there is no query but "everything of these kinds" and "a range".
//!
//! - [`RedbDisk`]: one file, one process. The default.
//! - [`MemoryDisk`]: for tests; its medium outlives it, so that a crash keeps what was committed.
//! - [`FailingDisk`]: wraps another disk and fails by script or by seed.

mod copy;
mod disk;
mod embedded;
mod error;
mod failing;
mod memory;
mod record;

pub use copy::copy;
pub use disk::{Disk, Pairs, Reader, Visit};
pub use embedded::{Meter, Options, RedbDisk};
pub use error::{Cause, Error};
pub use failing::{FailingDisk, Fault, Faults, Fired, Odds};
pub use memory::{MemoryDisk, MemoryMedium};
pub use record::{Fence, Kind, Limits, Op, Record};
pub use redb::StorageBackend;
