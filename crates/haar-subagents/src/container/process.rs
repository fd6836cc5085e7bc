//! A process by more than its number, which the kernel gives away again.

use std::fs;

use serde::{Deserialize, Serialize};

/// A process of this host, in one running of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// When it began, in the kernel's ticks.
    ticks: u64,
    /// Which running of the host.
    boot: String,
}

impl Process {
    /// The process that has this number now.
    pub(super) fn of(pid: i32) -> Option<Process> {
        let (ticks, _) = stat(pid)?;
        Some(Process { pid, ticks, boot: boot() })
    }

    /// Whether it still runs; one that waits to be collected does not.
    pub(super) fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(ticks, is_dead)| ticks == self.ticks && !is_dead) && self.boot == boot()
    }

    /// Whether it still runs, or nobody else has its number: what it led may be there then.
    pub(super) fn is_alive_or_its_number_free(&self) -> bool {
        self.boot == boot() && self.pid > 1 && stat(self.pid).is_none_or(|(ticks, _)| ticks == self.ticks)
    }
}

/// When a process began, and whether it has ended.
fn stat(pid: i32) -> Option<(u64, bool)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    Some((fields.nth(18)?.parse().ok()?, matches!(state, "Z" | "X")))
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(process.is_alive());
        assert!(
            !Process { ticks: process.ticks + 1, ..process.clone() }.is_alive(),
            "another of that number"
        );
        assert!(
            !Process { boot: "another".to_owned(), ..process.clone() }.is_alive(),
            "before the last restart"
        );
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while process.is_alive() {
            assert!(
                std::time::Instant::now() < deadline,
                "a dead child that nobody has collected is not alive"
            );
        }
        child.wait().unwrap();
        assert!(!process.is_alive() && process.is_alive_or_its_number_free());
        // Not the child's beginning: it may be in the same tick as this process's own.
        let own = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let recycled = Process { ticks: own.ticks + 1, ..own };
        assert!(!recycled.is_alive_or_its_number_free(), "another has the number");
    }
}
