//! libvirt's states and reasons as words: the seed's state names (`mistify-wire` §3.3) and, beside them,
//! why a domain is in its state.
//!
//! The reason decides whether a guest that stopped is started again (design §11.4): `shutdown` is the
//! guest's own clean end, `crashed`, `failed` and the like are not.

use virt_sys as sys;

/// A domain's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Unknown,
    Running,
    Blocked,
    Paused,
    Shutdown,
    Shutoff,
    Crashed,
    Suspended,
}

impl State {
    /// From libvirt's number.
    pub(crate) fn from_libvirt(state: sys::virDomainState) -> Self {
        match state {
            sys::VIR_DOMAIN_RUNNING => State::Running,
            sys::VIR_DOMAIN_BLOCKED => State::Blocked,
            sys::VIR_DOMAIN_PAUSED => State::Paused,
            sys::VIR_DOMAIN_SHUTDOWN => State::Shutdown,
            sys::VIR_DOMAIN_SHUTOFF => State::Shutoff,
            sys::VIR_DOMAIN_CRASHED => State::Crashed,
            sys::VIR_DOMAIN_PMSUSPENDED => State::Suspended,
            _ => State::Unknown,
        }
    }

    /// The seed's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Running => "running",
            State::Blocked => "blocked",
            State::Paused => "paused",
            State::Shutdown => "shutdown",
            State::Shutoff => "shutoff",
            State::Crashed => "crashed",
            State::Suspended => "suspended",
        }
    }
}

/// libvirt's word for why a domain is in this state; `unknown` for numbers of a newer libvirt.
pub(crate) fn reason(state: State, reason: i32) -> &'static str {
    // In the order of libvirt's enums virDomain{Running,Paused,Shutdown,Shutoff,Crashed}Reason.
    let words: &[&'static str] = match state {
        State::Running => &[
            "unknown",
            "booted",
            "migrated",
            "restored",
            "from_snapshot",
            "unpaused",
            "migration_canceled",
            "save_canceled",
            "wakeup",
            "crashed",
            "postcopy",
            "postcopy_failed",
        ],
        State::Paused => &[
            "unknown",
            "user",
            "migration",
            "save",
            "dump",
            "ioerror",
            "watchdog",
            "from_snapshot",
            "shutting_down",
            "snapshot",
            "crashed",
            "starting_up",
            "postcopy",
            "postcopy_failed",
            "api_error",
        ],
        State::Shutdown => &["unknown", "user"],
        State::Shutoff => &[
            "unknown",
            "shutdown",
            "destroyed",
            "crashed",
            "migrated",
            "saved",
            "failed",
            "from_snapshot",
            "daemon",
        ],
        State::Crashed => &["unknown", "panicked"],
        State::Unknown | State::Blocked | State::Suspended => &["unknown"],
    };
    usize::try_from(reason).ok().and_then(|index| words.get(index)).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_at_libvirts_numbers() {
        let cases = [
            (State::Running, sys::VIR_DOMAIN_RUNNING_BOOTED, "booted"),
            (State::Running, sys::VIR_DOMAIN_RUNNING_UNPAUSED, "unpaused"),
            (State::Running, sys::VIR_DOMAIN_RUNNING_POSTCOPY, "postcopy"),
            (State::Paused, sys::VIR_DOMAIN_PAUSED_USER, "user"),
            (State::Paused, sys::VIR_DOMAIN_PAUSED_IOERROR, "ioerror"),
            (State::Paused, sys::VIR_DOMAIN_PAUSED_STARTING_UP, "starting_up"),
            (State::Shutdown, sys::VIR_DOMAIN_SHUTDOWN_USER, "user"),
            (State::Shutoff, sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN, "shutdown"),
            (State::Shutoff, sys::VIR_DOMAIN_SHUTOFF_DESTROYED, "destroyed"),
            (State::Shutoff, sys::VIR_DOMAIN_SHUTOFF_CRASHED, "crashed"),
            (State::Shutoff, sys::VIR_DOMAIN_SHUTOFF_FAILED, "failed"),
            (State::Shutoff, sys::VIR_DOMAIN_SHUTOFF_DAEMON, "daemon"),
            (State::Crashed, sys::VIR_DOMAIN_CRASHED_PANICKED, "panicked"),
        ];
        for (state, number, word) in cases {
            assert_eq!(reason(state, i32::try_from(number).unwrap()), word);
        }
        assert_eq!(reason(State::Shutoff, 99), "unknown");
        assert_eq!(reason(State::Shutoff, -1), "unknown");
    }

    #[test]
    fn states_have_the_seeds_names() {
        let names: Vec<_> = (0..9).map(|number| State::from_libvirt(number).as_str()).collect();
        let seed = "unknown running blocked paused shutdown shutoff crashed suspended unknown";
        assert_eq!(names.join(" "), seed);
    }
}
