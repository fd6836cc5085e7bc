//! The brain's no → a problem.

use haar_api::problem::{ErrorCode, Problem, ReasonView};
use haar_core::refusal::{Category, Refusal};

use crate::engine::Failure;

/// A refusal in the words of `/v1`.
pub(crate) fn problem(refusal: &Refusal) -> Problem {
    let status = match refusal.category() {
        Category::Invalid => 400,
        Category::NotFound => 404,
        Category::Conflict => 409,
        Category::Precondition => 412,
        Category::NoRoom => 409,
    };
    let mut problem = Problem::new(status, refusal.code(), refusal.to_string());
    match refusal {
        Refusal::NoRoom { reasons, .. } => {
            problem.reasons = reasons
                .iter()
                .map(|reason| ReasonView {
                    cause: reason.cause.as_str().to_owned(),
                    words: reason.cause.words().to_owned(),
                    count: reason.count as u64,
                    best: reason.best.to_string(),
                    detail: reason.detail.clone(),
                })
                .collect();
        }
        Refusal::Differs { fields, .. } => {
            problem.fields = fields.iter().map(|field| (*field).to_owned()).collect();
        }
        Refusal::BadField { field, .. } => problem.fields = vec![(*field).to_owned()],
        _ => {}
    }
    problem
}

/// A failure of the engine in the words of `/v1`.
pub(crate) fn failure(failure: &Failure) -> Problem {
    let code = match failure {
        Failure::Refused(refusal) => return problem(refusal),
        Failure::OutcomeUnknown => ErrorCode::OutcomeUnknown,
        Failure::Full { .. } => ErrorCode::StoreFull,
        Failure::Overloaded => ErrorCode::TooBusy,
        Failure::Stopping => ErrorCode::NotReady,
    };
    Problem::of(code, failure.to_string())
}
