//! Guards, and how each is removed: a text in a source file and what stands there without the guard.
//!
//! A guard that no world misses is either needless or the worlds are blind. `haar-guards` removes each one in a
//! copy of the workspace, builds the worlds there and runs seeds until one is wrong; `GUARDS.md` says which.
//! Deliberately absent: any switch in the product.

use std::path::Path;

/// A guard, by what its absence looks like in the source.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// Its name, for people.
    pub name: &'static str,
    /// The file, from the workspace's root.
    pub file: &'static str,
    /// What stands there; occurs once.
    pub with: &'static str,
    /// What stands there without the guard.
    pub without: &'static str,
}

/// The guards that are removed once.
pub const GUARDS: [Guard; 15] = [
    Guard {
        name: "the node refuses a desired set older than the last one",
        file: "crates/haar-core/src/node/desired.rs",
        with: "if set.fence < record.seen {",
        without: "if set.fence > set.fence {",
    },
    Guard {
        name: "the node ignores an order older than the ledger's",
        file: "crates/haar-core/src/node/desired.rs",
        with: "order.order < record.fence() {
            self.say_again(order.id);
        } else if record.order.is_none() || order.order > record.fence() {",
        without: "false {
            self.say_again(order.id);
        } else if record.order.is_none() || order.order != record.fence() {",
    },
    Guard {
        name: "the node keeps tombstones: what is gone stays gone",
        file: "crates/haar-core/src/node/mod.rs",
        with: "pub const MOST_TOMBSTONES: usize = 10_000;",
        without: "pub const MOST_TOMBSTONES: usize = 0;",
    },
    Guard {
        name: "the node makes no second call while one is under way",
        file: "crates/haar-core/src/node/work.rs",
        with: "entry.run.as_ref().is_some_and(|run| run.call.is_some()) {\n                return;",
        without: "false {\n                return;",
    },
    Guard {
        name: "the node never rebuilds what has held data",
        file: "crates/haar-core/src/node/work.rs",
        with: "(Goal::Running, false) => Pipeline::Create,",
        without: "(Goal::Running, _) => Pipeline::Create,",
    },
    Guard {
        name: "the node undoes a failed create to the end",
        file: "crates/haar-core/src/node/work.rs",
        with: "last.min(steps.len() - 1)",
        without: "last.min(1)",
    },
    Guard {
        name: "the node notes a deed before it does it",
        file: "crates/haar-core/src/node/work.rs",
        with: "if stage == Stage::Reboot {\n                entry",
        without: "if false {\n                entry",
    },
    Guard {
        name: "a create from before a restore is withheld until its network was heard",
        file: "crates/haar-core/src/fleet/desired.rs",
        with: "if self.is_withheld(guest) {",
        without: "if false {",
    },
    Guard {
        name: "the fleet refuses reports of another incarnation",
        file: "crates/haar-core/src/fleet/report.rs",
        with: "if report.incarnation != record.incarnation || record.incarnation == 0 {",
        without: "if record.incarnation == 0 {",
    },
    Guard {
        name: "the fleet ignores a guest's older report",
        file: "crates/haar-core/src/fleet/report.rs",
        with: "if version <= before.observed {",
        without: "if version < (0, 0) {",
    },
    Guard {
        name: "the fleet ignores a report that answers an older order",
        file: "crates/haar-core/src/fleet/report.rs",
        with: "let answers = seen.order >= waits_for;",
        without: "let answers = seen.order >= waits_for || true;",
    },
    Guard {
        name: "a network gives nothing out before all its hypervisors were heard since a restore",
        file: "crates/haar-core/src/fleet/placing.rs",
        with: "fleet.index.unheard.iter().find(has_network).copied()",
        without: "fleet.index.unheard.iter().find(|id| has_network(id) && false).copied()",
    },
    Guard {
        name: "a complete report counts only when all it holds is booked",
        file: "crates/haar-core/src/fleet/report.rs",
        with: "if all_ended && complete.holds.iter()",
        without: "if all_ended || complete.holds.iter()",
    },
    Guard {
        name: "the place of a guest is held until its node says that nothing is left",
        file: "crates/haar-core/src/fleet/action.rs",
        with: "if guest.place.is_none() {\n        supersede",
        without: "if guest.place.is_some() {\n        supersede",
    },
    Guard {
        name: "nobody is answered, and nothing published, before the commit",
        file: "crates/haar-core/src/batch.rs",
        with: "commit.commit(&decisions, expected, working.fence())?;",
        without: "let _ = commit.commit(&decisions, expected, working.fence());",
    },
];

impl Guard {
    /// The file's text without the guard.
    ///
    /// # Errors
    /// Why it cannot be removed: the file is not there, or the text is not there exactly once.
    pub fn removed(&self, workspace: &Path) -> Result<String, String> {
        let text = std::fs::read_to_string(workspace.join(self.file))
            .map_err(|error| format!("cannot read {}: {error}", self.file))?;
        match text.matches(self.with).count() {
            1 => Ok(text.replacen(self.with, self.without, 1)),
            times => Err(format!("`{}` occurs {times} times in {}", self.with, self.file)),
        }
    }
}
