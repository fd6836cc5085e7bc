//! Measures the agent's REST: async actions through its queue, the list of a thousand guests, and the download of
//! a snapshot.
//!
//! Actions: 1,000 over 100 guests, on a stub sub-agent that answers at once; each is a durable job of two
//! stages. The yardstick is the same calls made straight to the stub, with the same concurrency and nothing
//! written. List: `GET /guests` with 1,000 guests over a kept connection, beside `GET /metadata`, the smallest
//! answer there is. Download: a snapshot of 1 GiB through the agent from Haar's own storage, beside the same
//! bytes from Python's `http.server` to the same client. Every job's end, every guest and every length is
//! checked. One JSON line per figure. Needs `qemu-img`, `qemu-io`, `python3` and 4 GiB of room.

mod download;
mod queue;
mod stage;

#[tokio::main]
async fn main() -> stage::Outcome<()> {
    let folder = tempfile::tempdir()?;
    queue::measure(&folder.path().join("queue")).await?;
    download::measure(&folder.path().join("download")).await
}
