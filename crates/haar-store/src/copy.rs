//! Copies a whole store into an empty one: the heart of backup and restore.
//!
//! Deliberately absent: files, names and the new epoch of a restore; the caller writes the copy aside,
//! and gives it its name when it is complete.

use crate::{Disk, Error, Fence, Op, Reader};

/// Copies everything of one moment from `from` into the empty store `to` and returns its fence.
///
/// The copy is made in commits well within `to`'s limits. Only the last one sets the fence, so an
/// interrupted copy has the fence of an empty store and cannot be taken for a whole one.
///
/// # Errors
/// [`Error::Fenced`] when `to` has seen a commit, [`Error::TooLarge`] when one record alone exceeds its
/// limits, else what reading and writing give.
pub fn copy(from: &dyn Reader, to: &mut dyn Disk) -> Result<Fence, Error> {
    let empty = Fence::default();
    let limits = to.limits();
    let (most_ops, most_bytes) = (limits.ops.clamp(1, 4096), (limits.bytes / 2).min(8 << 20));
    let mut batch: Vec<Op> = Vec::new();
    let mut batch_bytes = 0;
    let mut outcome = Ok(());
    let fence = from.snapshot(&[], &mut |kind, key, value| {
        let op = Op::Put { kind, key: key.to_vec(), value: value.to_vec() };
        let full = batch.len() >= most_ops || batch_bytes + op.size() > most_bytes;
        if full && outcome.is_ok() && !batch.is_empty() {
            outcome = to.commit(&batch, empty, empty);
            batch.clear();
            batch_bytes = 0;
        }
        if outcome.is_ok() {
            batch_bytes += op.size();
            batch.push(op);
        }
    })?;
    outcome?;
    to.commit(&batch, empty, fence)?;
    Ok(fence)
}
