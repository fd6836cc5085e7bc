//! `application/problem+json`: every "no" and every failure of `/v1`.
//!
//! `code` is stable and has a paragraph in `docs/operating.md`; `message` is for a person and never
//! carries internals. The core's refusals bring their own codes; [`ErrorCode`] has those of the shells.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1::JobView;

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, whose turn it is, and what to do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` tells problems apart.
    #[serde(rename = "type", default = "blank")]
    pub kind: String,
    /// The status's own words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable; see `docs/operating.md`.
    pub code: String,
    /// The cause and the next step, for a person.
    pub message: String,
    /// What the server's log calls this request.
    #[serde(default)]
    pub request_id: String,
    /// For `no_room`: causes, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<ReasonView>,
    /// For `job_failed`: the job with its steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<JobView>>,
    /// For `differs` and `unknown_field`: the fields it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

fn blank() -> String {
    "about:blank".to_owned()
}

/// Why some hypervisors said no, grouped by cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReasonView {
    /// A stable word such as `memory`.
    pub cause: String,
    /// The same for a person, such as `not enough memory`.
    pub words: String,
    /// How many hypervisors it kept away.
    pub count: u64,
    /// The name of the one that came closest.
    pub best: String,
    /// What that one has or lacks, such as `188 GiB free of 256 GiB`.
    pub detail: String,
}

impl Problem {
    /// A problem of this status, code and message; the request's id is filled in by who answers it.
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Problem {
        let title = http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error");
        Problem {
            kind: blank(),
            title: title.to_owned(),
            status,
            code: code.to_owned(),
            message: message.into(),
            ..Problem::default()
        }
    }

    /// A problem of a shell's own.
    pub fn of(code: ErrorCode, message: impl Into<String>) -> Problem {
        Problem::new(code.status(), code.code(), message)
    }
}

/// What shells answer by themselves, before or beside the core's refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// The request cannot be read at all.
    BadRequest,
    /// The body is not the JSON it should be.
    BadJson,
    /// The body or query has a field that is not known.
    UnknownField,
    /// The path's id is no UUID where one must stand.
    BadId,
    /// A query parameter has a value it cannot have.
    BadQuery,
    /// The body is larger than this path takes.
    BodyTooLarge,
    /// The request's headers are larger than the server takes.
    HeaderTooLarge,
    /// The body did not arrive in time.
    RequestTimeout,
    /// No token, or one that is not known.
    Unauthorized,
    /// The token may not do this.
    Forbidden,
    /// No such path.
    NotFoundRoute,
    /// The path exists, with other methods.
    MethodNotAllowed,
    /// The body is of another type than this path takes.
    UnsupportedMediaType,
    /// The change may have been made or not.
    OutcomeUnknown,
    /// The store has no room; nothing was changed.
    StoreFull,
    /// The job waited for ended in error.
    JobFailed,
    /// The events asked for are no longer kept.
    Resync,
    /// The server has as many connections as it takes.
    TooManyConnections,
    /// The queue of changes is full.
    TooBusy,
    /// The server is starting or stopping.
    NotReady,
    /// Something broke in the server.
    Internal,
    /// The image's bytes are not what was said.
    ImageChecksum,
    /// The image is fetched from an address; nothing can be uploaded.
    ImageNotUpload,
    /// The image's bytes are there and cannot be replaced.
    ImageHasData,
    /// The image's bytes are not its format, or need another file.
    ImageBadFormat,
    /// The controller has no room for the image.
    ImageNoSpace,
    /// The request must ask for `Upgrade: haar-stream`.
    UpgradeRequired,
    /// The hypervisor did not answer the stream in time.
    StreamUnavailable,
    /// The stream's ticket is used, or its time is over.
    TicketUnknown,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [ErrorCode; 29] = [
        ErrorCode::BadRequest,
        ErrorCode::BadJson,
        ErrorCode::UnknownField,
        ErrorCode::BadId,
        ErrorCode::BadQuery,
        ErrorCode::BodyTooLarge,
        ErrorCode::HeaderTooLarge,
        ErrorCode::RequestTimeout,
        ErrorCode::Unauthorized,
        ErrorCode::Forbidden,
        ErrorCode::NotFoundRoute,
        ErrorCode::MethodNotAllowed,
        ErrorCode::UnsupportedMediaType,
        ErrorCode::OutcomeUnknown,
        ErrorCode::StoreFull,
        ErrorCode::JobFailed,
        ErrorCode::Resync,
        ErrorCode::TooManyConnections,
        ErrorCode::TooBusy,
        ErrorCode::NotReady,
        ErrorCode::Internal,
        ErrorCode::ImageChecksum,
        ErrorCode::ImageNotUpload,
        ErrorCode::ImageHasData,
        ErrorCode::ImageBadFormat,
        ErrorCode::ImageNoSpace,
        ErrorCode::UpgradeRequired,
        ErrorCode::StreamUnavailable,
        ErrorCode::TicketUnknown,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "bad_request",
            ErrorCode::BadJson => "bad_json",
            ErrorCode::UnknownField => "unknown_field",
            ErrorCode::BadId => "bad_id",
            ErrorCode::BadQuery => "bad_query",
            ErrorCode::BodyTooLarge => "body_too_large",
            ErrorCode::HeaderTooLarge => "header_too_large",
            ErrorCode::RequestTimeout => "request_timeout",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::NotFoundRoute => "not_found_route",
            ErrorCode::MethodNotAllowed => "method_not_allowed",
            ErrorCode::UnsupportedMediaType => "unsupported_media_type",
            ErrorCode::OutcomeUnknown => "outcome_unknown",
            ErrorCode::StoreFull => "store_full",
            ErrorCode::JobFailed => "job_failed",
            ErrorCode::Resync => "resync",
            ErrorCode::TooManyConnections => "too_many_connections",
            ErrorCode::TooBusy => "too_busy",
            ErrorCode::NotReady => "not_ready",
            ErrorCode::Internal => "internal",
            ErrorCode::ImageChecksum => "image_checksum",
            ErrorCode::ImageNotUpload => "image_not_upload",
            ErrorCode::ImageHasData => "image_has_data",
            ErrorCode::ImageBadFormat => "image_bad_format",
            ErrorCode::ImageNoSpace => "image_no_space",
            ErrorCode::UpgradeRequired => "upgrade_required",
            ErrorCode::StreamUnavailable => "stream_unavailable",
            ErrorCode::TicketUnknown => "ticket_unknown",
        }
    }

    /// The HTTP status it is answered with.
    pub fn status(self) -> u16 {
        match self {
            ErrorCode::BadRequest
            | ErrorCode::BadJson
            | ErrorCode::UnknownField
            | ErrorCode::BadId
            | ErrorCode::BadQuery
            | ErrorCode::ImageChecksum
            | ErrorCode::ImageBadFormat => 400,
            ErrorCode::Unauthorized => 401,
            ErrorCode::Forbidden => 403,
            ErrorCode::NotFoundRoute | ErrorCode::TicketUnknown => 404,
            ErrorCode::MethodNotAllowed => 405,
            ErrorCode::RequestTimeout => 408,
            ErrorCode::JobFailed | ErrorCode::ImageNotUpload | ErrorCode::ImageHasData => 409,
            ErrorCode::Resync => 410,
            ErrorCode::BodyTooLarge => 413,
            ErrorCode::UnsupportedMediaType => 415,
            ErrorCode::UpgradeRequired => 426,
            ErrorCode::HeaderTooLarge => 431,
            ErrorCode::Internal => 500,
            ErrorCode::OutcomeUnknown
            | ErrorCode::TooManyConnections
            | ErrorCode::TooBusy
            | ErrorCode::NotReady => 503,
            ErrorCode::StreamUnavailable => 504,
            ErrorCode::ImageNoSpace | ErrorCode::StoreFull => 507,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_listed_once_and_has_an_error_status() {
        let codes: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        assert!(ErrorCode::ALL.iter().all(|code| (400..600).contains(&code.status())));
    }

    #[test]
    fn a_problem_says_its_status_in_words_and_leaves_out_what_it_has_not() {
        let problem = Problem::of(ErrorCode::Forbidden, "an agent's token cannot do this");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "about:blank", "title": "Forbidden", "status": 403, "code": "forbidden",
                "message": "an agent's token cannot do this", "request_id": ""
            })
        );
    }
}
