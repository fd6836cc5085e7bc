//! The actions there are, by the seed's names (`mistify-wire` §2.3), and what tells them apart.
//!
//! An action of a container is named `containerX`. Beside the seed's there are `suspend`, `resume` and `run`, and
//! the metrics of containers.

/// How an action is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answered at once by its stages.
    Info,
    /// Its stage's bytes are passed on.
    Stream,
    /// Queued, one at a time for each guest, with a job in the log.
    Async,
}

/// Whether a stage that may already have taken effect may be asked a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// Asking twice is as asking once.
    Safe,
    /// A second time would do it a second time.
    Unsafe,
}

struct Row {
    name: &'static str,
    kind: Kind,
    again: Again,
    /// Whether containers have their own.
    prefixed: bool,
}

const fn row(name: &'static str, kind: Kind, again: Again, prefixed: bool) -> Row {
    Row { name, kind, again, prefixed }
}

const TABLE: &[Row] = &[
    row("create", Kind::Async, Again::Safe, true),
    row("delete", Kind::Async, Again::Safe, true),
    row("start", Kind::Async, Again::Safe, true),
    row("run", Kind::Async, Again::Safe, true),
    row("reboot", Kind::Async, Again::Unsafe, true),
    row("restart", Kind::Async, Again::Unsafe, true),
    row("poweroff", Kind::Async, Again::Safe, true),
    row("shutdown", Kind::Async, Again::Safe, true),
    row("suspend", Kind::Async, Again::Safe, true),
    row("resume", Kind::Async, Again::Safe, true),
    row("fetchImage", Kind::Async, Again::Safe, true),
    row("deleteImage", Kind::Async, Again::Safe, true),
    row("createSnapshot", Kind::Async, Again::Unsafe, false),
    row("deleteSnapshot", Kind::Async, Again::Safe, false),
    // What was written since the first rollback would be lost.
    row("rollbackSnapshot", Kind::Async, Again::Unsafe, false),
    row("cpuMetrics", Kind::Info, Again::Safe, true),
    row("nicMetrics", Kind::Info, Again::Safe, true),
    row("diskMetrics", Kind::Info, Again::Safe, true),
    row("listImages", Kind::Info, Again::Safe, true),
    row("getImage", Kind::Info, Again::Safe, true),
    row("listSnapshots", Kind::Info, Again::Safe, false),
    row("getSnapshot", Kind::Info, Again::Safe, false),
    row("downloadSnapshot", Kind::Stream, Again::Safe, false),
];

/// What a guest's requests may name in their path.
pub(crate) const OF_GUESTS: &[&str] =
    &["shutdown", "reboot", "restart", "poweroff", "start", "run", "suspend", "resume", "delete"];

/// The action's name for a guest or image of this sort.
pub(crate) fn full_name(base: &str, container: bool) -> String {
    if !container {
        return base.to_owned();
    }
    let mut letters = base.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    "container".chars().chain(first).chain(letters).collect()
}

/// How a full name is carried out; None: there is no such action.
pub(crate) fn kind(name: &str) -> Option<Kind> {
    find(name).map(|row| row.kind)
}

/// Whether its stages may be asked twice.
pub(crate) fn again(name: &str) -> Again {
    find(name).map_or(Again::Unsafe, |row| row.again)
}

/// Whether it makes a guest.
pub(crate) fn creates(name: &str) -> bool {
    find(name).is_some_and(|row| row.name == "create")
}

/// Whether it removes one.
pub(crate) fn deletes(name: &str) -> bool {
    find(name).is_some_and(|row| row.name == "delete")
}

/// Whether it removes an image or a snapshot.
pub(crate) fn removes(name: &str) -> bool {
    find(name).is_some_and(|row| matches!(row.name, "deleteImage" | "deleteSnapshot"))
}

/// Whether a guest that runs may have to be held still for it, or be asked to do it itself.
pub(crate) fn quiesces(name: &str) -> bool {
    matches!(name, "createSnapshot" | "deleteSnapshot")
}

/// Whether it fetches an image, which may take long.
pub(crate) fn fetches(name: &str) -> bool {
    find(name).is_some_and(|row| row.name == "fetchImage")
}

fn find(name: &str) -> Option<&'static Row> {
    let plain = TABLE.iter().find(|row| row.name == name);
    plain.or_else(|| TABLE.iter().find(|row| row.prefixed && full_name(row.name, true) == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_their_own_names() {
        assert_eq!(full_name("create", true), "containerCreate");
        assert_eq!(full_name("create", false), "create");
        assert_eq!(kind("containerCpuMetrics"), Some(Kind::Info));
        for nothing in
            ["containerContainerCreate", "containerCreateSnapshot", "Create", "containercreate", ""]
        {
            assert_eq!(kind(nothing), None, "{nothing}");
        }
        assert!(creates("containerCreate") && deletes("containerDelete") && !deletes("deleteImage"));
    }

    #[test]
    fn a_guests_actions_are_actions() {
        assert!(OF_GUESTS.iter().all(|name| kind(name) == Some(Kind::Async)));
    }
}
