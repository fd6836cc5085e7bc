//! What a controller's "no" means, told by its code.
//!
//! Every answer that leaves open whether something was made is transient, so that the note of it stays: an
//! answer of something in between, one that cannot be read, one that never came.

use std::time::Duration;

use haar_api::client::ClientError;
use haar_api::problem::{Problem, ReasonView};
use haar_api::v1::JobView;

use crate::Error;

/// How long a controller is left alone that is asked too much: it has done nothing then.
const A_WHILE: Duration = Duration::from_secs(1);
/// Codes by which the controller says that something is in the way.
const CONFLICTS: &[&str] = &[
    "name_taken",
    "differs",
    "stale_revision",
    "in_use",
    "address_unavailable",
    "mac_taken",
    "image_not_ready",
    "busy",
    "wrong_state",
    "still_alive",
    "range_taken",
];

/// What became of a request about the `kind` called `name`.
pub(super) fn error(kind: &str, name: &str, error: ClientError) -> Error {
    let what = format!("{kind} {name}");
    match error {
        ClientError::Problem(problem) => of_problem(kind, name, &problem),
        ClientError::BadUrl(url) => Error::BadInput {
            what: "the controller's address",
            value: url,
            why: "write it as http://host:port".to_owned(),
        },
        ClientError::BadToken => Error::Auth { message: ClientError::BadToken.to_string() },
        other => Error::Transient { what, message: other.to_string(), retry_after: None },
    }
}

fn of_problem(kind: &str, name: &str, problem: &Problem) -> Error {
    let what = format!("{kind} {name}");
    let message = problem.message.clone();
    match (problem.status, problem.code.as_str()) {
        (401, _) => Error::Auth { message },
        (403, _) => Error::Forbidden { what, message },
        (404, "not_found") => {
            let (kind, name) = missing(&message).unwrap_or((kind, name));
            Error::NotFound { kind: kind.to_owned(), name: name.to_owned() }
        }
        (_, "no_room") => Error::NoHardware { message: with_reasons(&message, &problem.reasons) },
        (_, code) if CONFLICTS.contains(&code) => Error::Conflict { what, message },
        (429, _) => Error::Transient { what, message, retry_after: Some(A_WHILE) },
        (408 | 410 | 500.., _) => Error::Transient { what, message, retry_after: None },
        (status, _) => Error::Refused { what, status, message },
    }
}

/// What is not there may be something that the request names, such as the image of a guest.
fn missing(message: &str) -> Option<(&str, &str)> {
    let (kind, rest) = message.strip_prefix("there is no ")?.split_once(" `")?;
    Some((kind, rest.split_once('`')?.0))
}

/// `…: 3 not enough memory (best: lab2, 188 GiB free of 256 GiB), 1 cordoned (lab5)`
fn with_reasons(message: &str, reasons: &[ReasonView]) -> String {
    let reason = |reason: &ReasonView| {
        let best: Vec<&str> = [reason.best.as_str(), reason.detail.as_str()]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        let best = if best.is_empty() { String::new() } else { format!(" (best: {})", best.join(", ")) };
        format!("{} {}{best}", reason.count, reason.words)
    };
    let reasons: Vec<String> = reasons.iter().map(reason).collect();
    if reasons.is_empty() { message.to_owned() } else { format!("{message}: {}", reasons.join("; ")) }
}

/// Why the making of `server` ended badly; `reason` is what the guest says without a job.
pub(super) fn of_server(server: &str, reason: &str, job: Option<&JobView>) -> Error {
    let said = job.and_then(|job| job.error.as_deref()).unwrap_or(reason);
    let message = if said.is_empty() { "the cloud gives no reason" } else { said }.to_owned();
    match job.and_then(|job| job.code.as_deref()) {
        Some("no_space" | "no_room") => Error::NoHardware { message },
        _ => Error::ServerFailed { server: server.to_owned(), message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    fn problem(status: u16, code: &str, message: &str) -> Error {
        let problem = Problem::new(status, code, message);
        error("server", "s1", ClientError::Problem(Box::new(problem)))
    }

    #[test]
    fn each_code_has_a_class() {
        let cases = [
            (401, "unauthorized", Class::Auth),
            (403, "forbidden", Class::Auth),
            (404, "not_found", Class::NotFound),
            (404, "not_found_route", Class::Input),
            (400, "image_too_large", Class::Input),
            (409, "no_room", Class::NoHardware),
            (409, "in_use", Class::Conflict),
            (409, "busy", Class::Conflict),
            (409, "wrong_state", Class::Conflict),
            (503, "outcome_unknown", Class::Transient),
            (503, "not_ready", Class::Transient),
            (507, "store_full", Class::Transient),
            (500, "internal", Class::Transient),
        ];
        for (status, code, class) in cases {
            assert_eq!(problem(status, code, "words").class(), class, "{status} {code}");
        }
    }

    #[test]
    fn what_is_missing_may_be_what_the_request_names() {
        let text = "there is no image `debian`; did you mean `debian-12`? see  haar image list";
        let Error::NotFound { kind, name } = problem(404, "not_found", text) else { panic!("another class") };
        assert_eq!((kind.as_str(), name.as_str()), ("image", "debian"));
        let Error::NotFound { kind, name } = problem(404, "not_found", "gone") else {
            panic!("another class")
        };
        assert_eq!((kind.as_str(), name.as_str()), ("server", "s1"));
    }

    #[test]
    fn no_room_comes_with_the_reasons_of_the_hypervisors() {
        let reason = |count, words: &str, best: &str, detail: &str| ReasonView {
            cause: String::new(),
            words: words.to_owned(),
            count,
            best: best.to_owned(),
            detail: detail.to_owned(),
        };
        let reasons = vec![
            reason(3, "not enough memory", "lab2", "188 GiB free of 256 GiB"),
            reason(1, "cordoned", "", ""),
        ];
        let problem =
            Problem { reasons, ..Problem::new(409, "no_room", "no hypervisor can take guest `s1`") };
        let error = error("server", "s1", ClientError::Problem(Box::new(problem)));
        assert!(error.is_no_hardware());
        let text = error.to_string();
        let reasons = "guest `s1`: 3 not enough memory (best: lab2, 188 GiB free of 256 GiB); 1 cordoned";
        assert!(text.contains(reasons), "{text}");
    }

    #[test]
    fn an_answer_that_leaves_all_open_takes_no_note_back() {
        for doubtful in [
            ClientError::Timeout(std::time::Duration::from_secs(1)),
            ClientError::NoContent,
            ClientError::NotHaar { status: 404, text: "nginx".to_owned() },
            ClientError::Json(serde_json::from_str::<u8>("x").unwrap_err()),
        ] {
            assert!(error("server", "s1", doubtful).is_transient());
        }
    }
}
