//! What a failure of a cloud is to a caller: a stable word, and an exit code.

use haar_cloud::{Class, Error};

/// A stable word for each class; `docs/cloud.md` explains them.
pub(crate) fn word(error: &Error) -> &'static str {
    match (error, error.class()) {
        (Error::NothingToTearDown { .. }, _) => "nothing_to_tear_down",
        (Error::LeftOver { .. }, _) => "left_over",
        (Error::NoFlavor { .. }, _) => "no_flavor",
        (Error::Refused { .. }, _) => "refused",
        (_, Class::Input) => "usage",
        (_, Class::Auth) => "not_allowed",
        (_, Class::NotFound) => "not_found",
        (_, Class::NoHardware) => "no_hardware",
        (_, Class::OverQuota) => "over_quota",
        (_, Class::Conflict) => "conflict",
        (_, Class::Transient) => "unreachable",
        (_, Class::Timeout) => "timeout",
        (_, Class::Cancelled) => "cancelled",
        (_, Class::RemoteExit) => "remote_exit",
        (_, Class::State) => "record",
        _ => "server",
    }
}

/// 1 failed, 2 wrong usage, 3 refused, 4 not found, 5 not allowed, 6 unreachable.
pub(crate) fn exit_code(error: &Error) -> u8 {
    match word(error) {
        "usage" => 2,
        "refused" | "no_flavor" | "no_hardware" | "over_quota" | "conflict" => 3,
        "not_found" | "nothing_to_tear_down" => 4,
        "not_allowed" => 5,
        "unreachable" => 6,
        _ => 1,
    }
}
