//! Being asked to end: by Ctrl-C, by a job that is over, by a terminal that is closed.
//!
//! Who is asked once undoes what is half done, and says what stays; who is asked twice ends at once. What the one
//! who started us had us ignore (`nohup`, a shell's background) is ignored.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use haar_ssh::CancellationToken;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::failure::Failure;

/// What asks us to end.
const ASKING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// A shell adds this to a signal's number for an exit code.
const BY_SIGNAL: u8 = 128;

/// Whether we were asked to end.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt {
    token: CancellationToken,
    /// The exit code that says so; 0 as long as nobody asks.
    code: Arc<AtomicU8>,
}

impl Interrupt {
    /// Listens from now on; before, we just end when asked.
    pub(super) fn listen(&self) -> Result<(), Failure> {
        let ignored = ignored();
        for asking in ASKING {
            let number = asking as i32;
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
            let listened = signal(SignalKind::from_raw(number));
            let mut signals = listened.map_err(|error| Failure::local("cannot listen for signals", error))?;
            let interrupt = self.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    interrupt.ask(BY_SIGNAL + u8::try_from(number).unwrap_or(0));
                }
            });
        }
        Ok(())
    }

    fn ask(&self, code: u8) {
        if self.token.is_cancelled() {
            // The terminal may be gone.
            let _ = writeln!(std::io::stderr(), "  ended at once; what was begun is on record");
            std::process::exit(i32::from(code));
        }
        self.code.store(code, Ordering::Relaxed);
        self.token.cancel();
    }

    /// Cancelled when we are asked.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The exit code of a program that was asked to end, once we were.
    pub(super) fn code(&self) -> Option<u8> {
        Some(self.code.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }
}

/// The signals that are ignored, as bits; the first one is number 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_asks_decides_the_exit_code() {
        let interrupt = Interrupt::default();
        assert_eq!((interrupt.code(), interrupt.token().is_cancelled()), (None, false));
        interrupt.ask(BY_SIGNAL + Signal::SIGTERM as u8);
        assert_eq!((interrupt.code(), interrupt.token().is_cancelled()), (Some(143), true));
    }
}
