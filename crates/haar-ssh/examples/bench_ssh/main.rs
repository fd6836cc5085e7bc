//! Measures commands and copies over ssh beside OpenSSH's own programs, on the same sshd in the same run.
//!
//! Commands: 1,000 times `true`, one at a time and ten at a time, by one pool, beside the program `ssh` with a
//! ControlMaster that is up; every exit status is looked at, and the connections that sshd saw are counted.
//! Copies: 1 GiB there and back by sftp, beside `sftp -b`, each with a login of its own; every copy is
//! compared with what was sent, byte by byte. Both sides take their usual ciphers. One JSON line per figure.
//! Needs `sshd`, `ssh` and `sftp`, and 8 GiB of room where temporary files go.

mod copies;
mod programs;
mod runs;
#[path = "../../tests/openssh/sshd.rs"]
mod sshd;

use std::error::Error;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    // Left by a return, whatever the reason: what was started ends with the values that hold it.
    tokio::select! {
        outcome = measure() => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }
}

async fn measure() -> Outcome<()> {
    // Before anything else, so that a full disk costs no time.
    copies::has_room()?;
    runs::measure().await?;
    copies::measure().await
}

/// To a hundredth, for readers.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
