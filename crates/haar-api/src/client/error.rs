//! Why a request has no answer, or a no for one.

use std::error::Error;
use std::time::Duration;

use crate::problem::Problem;

/// Why a request failed. What a caller would treat differently is a variant of its own.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The controller's address is not usable.
    #[error("`{0}` is no address of a controller; write it as http://host:port")]
    BadUrl(String),
    /// The token cannot stand in a header.
    #[error("the token has characters that no token has; copy it again")]
    BadToken,
    /// Nobody listens there.
    #[error("cannot reach the controller at {authority}; is it running?")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// What the system said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer within the limit; what was asked may still happen.
    #[error("no answer within {} s; what was asked may still happen", .0.as_secs())]
    Timeout(Duration),
    /// The connection broke before the answer; what was asked may have happened.
    #[error("the connection to the controller broke before its answer was whole")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// What was to be sent could not be read.
    #[error("what was to be sent could not be read")]
    Source(#[source] std::io::Error),
    /// The server's reasoned no, or its failure.
    #[error("{}", .0.message)]
    Problem(Box<Problem>),
    /// The answer is not of this API: something else listens there, or stands in between.
    #[error("the answer (status {status}) is not Haar's: {text}")]
    NotHaar {
        /// HTTP status.
        status: u16,
        /// The beginning of its text.
        text: String,
    },
    /// The answer is empty where an object was due.
    #[error("the answer is empty where an object was due")]
    NoContent,
    /// The JSON sent or answered is not what it should be; versions may differ.
    #[error("the JSON is not what it should be; client and controller may be of different versions")]
    Json(#[source] serde_json::Error),
    /// The query parameters cannot be written.
    #[error("the query parameters cannot be written")]
    Query(#[source] serde_urlencoded::ser::Error),
}

impl ClientError {
    /// The problem, when the server answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the controller did not answer at all, so that asking again later may help.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. } | ClientError::Timeout(_) | ClientError::Broken(_))
    }

    pub(super) fn broken(error: impl Error + Send + Sync + 'static) -> ClientError {
        ClientError::Broken(Box::new(error))
    }

    /// Tells "nobody there" from "broke half-way", and our own unreadable body from both.
    pub(super) fn from_transport(error: hyper_util::client::legacy::Error, authority: &str) -> ClientError {
        if error.is_connect() {
            return ClientError::Unreachable { authority: authority.to_owned(), source: Box::new(error) };
        }
        let mut source = error.source();
        while let Some(inner) = source {
            if let Some(unreadable) = inner.downcast_ref::<super::body::Unreadable>() {
                return ClientError::Source(std::io::Error::new(
                    unreadable.0.kind(),
                    unreadable.0.to_string(),
                ));
            }
            source = inner.source();
        }
        ClientError::broken(error)
    }
}
