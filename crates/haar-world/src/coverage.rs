//! How often each fault, refusal and stage outcome was reached, so that a world that tests nothing shows.

use std::collections::BTreeMap;

/// Counts by name, such as `fault.agent_crash` or `stage.disks.failed_after`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    /// One more.
    pub fn count(&mut self, name: impl Into<String>) {
        *self.0.entry(name.into()).or_default() += 1;
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Coverage) {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_default() += count;
        }
    }

    /// How often this was reached.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Everything that was reached, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// What of [`expected`] was never reached.
    pub fn missing(&self) -> Vec<String> {
        expected().into_iter().filter(|name| self.of(name) == 0).collect()
    }
}

/// Everything that two thousand worlds must reach.
pub fn expected() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    names.extend(FAULTS.iter().map(|name| format!("fault.{name}")));
    names.extend(REFUSALS.iter().map(|code| format!("refusal.{code}")));
    names.extend(PHASES.iter().map(|phase| format!("phase.{phase}")));
    for stage in STAGES {
        names.extend(OUTCOMES.iter().map(|outcome| format!("stage.{stage}.{outcome}")));
    }
    for action in ["create", "delete", "start", "shutdown", "poweroff", "reboot", "recreate"] {
        names.push(format!("job.{action}.done"));
        names.push(format!("job.{action}.error"));
    }
    names.extend(NODE_REFUSALS.iter().map(|name| format!("node.{name}")));
    names
}

/// Faults of the world.
pub const FAULTS: [&str; 25] = [
    "message_lost",
    "message_repeated",
    "message_delayed",
    "partition",
    "host_crash",
    "agent_crash",
    "agent_crash_before_commit",
    "agent_crash_after_commit",
    "agent_crash_in_undo",
    "sub_agent_crash",
    "ledger_lost",
    "host_reinstalled",
    "host_dies",
    "controller_crash",
    "commit_failed_before",
    "commit_failed_after",
    "disk_full",
    "books_restored",
    "guest_crash",
    "guest_powers_off",
    "local_power",
    "virsh_start",
    "disk_vanishes",
    "domain_vanishes",
    "look_failed",
];

/// Refusals that commands of a world can meet. A bad name, MAC or CIDR does not get past the types.
pub const REFUSALS: [&str; 22] = [
    "not_found",
    "name_taken",
    "differs",
    "stale_revision",
    "in_use",
    "bad_subnet",
    "bad_rule",
    "bad_resources",
    "bad_setting",
    "bad_field",
    "no_room",
    "address_unavailable",
    "mac_taken",
    "no_image",
    "image_not_ready",
    "image_too_large",
    "busy",
    "wrong_state",
    "not_retryable",
    "stale_incarnation",
    "books_restored",
    "still_alive",
];

const PHASES: [&str; 6] = ["working", "settled", "failed", "lost", "gone", "local"];

const STAGES: [&str; 13] = [
    "image", "disks", "seed", "network", "define", "start", "shutdown", "poweroff", "reboot", "undefine",
    "unseed", "undisk", "inspect",
];

const OUTCOMES: [&str; 5] = ["done", "failed_before", "failed_after", "late_success", "cancelled"];

const NODE_REFUSALS: [&str; 2] = ["stale", "not_ready"];
