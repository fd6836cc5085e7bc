//! Hearing from the libvirt sub-agent what happens to domains unasked, so that the host is looked at at once and not
//! only at the next time.
//!
//! Only a wake-up: what is so, the look tells. Where events are not heard, the regular looks find the same later.

use std::sync::Arc;
use std::time::Duration;

use haar_api::rpc::FaultCode;
use haar_api::rpc::libvirt::{ChangesRequest, ChangesResponse};
use haar_core::node::Input;

use crate::engine::Engine;
use crate::link::Link;
use crate::stages::Hands;

/// How long a question waits for something to happen, in seconds.
const WAIT_S: u32 = 30;
/// How long its answer may take on top.
const LATE: Duration = Duration::from_secs(10);
/// Between two questions, so that many events are one look.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens until the engine ends.
pub(crate) async fn keep<L: Link>(hands: Arc<Hands<L>>, engine: Engine) {
    let mut cursor = String::new();
    loop {
        let question = ChangesRequest { cursor: cursor.clone(), wait_s: WAIT_S };
        let limit = Duration::from_secs(WAIT_S.into()) + LATE;
        match hands.libvirt.ask::<_, ChangesResponse>("Libvirt.Changes", &question, limit).await {
            Ok(answer) => {
                if is_news(&answer) && engine.give(Input::Stirred).await.is_err() {
                    return;
                }
                cursor = answer.cursor;
            }
            // It is being started; its own supervisor says so.
            Err(fault) if fault.code == FaultCode::Unavailable => {}
            Err(fault) => {
                tracing::info!(%fault, "libvirt's events are not heard; the regular looks find the same later");
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether something stopped, or anything may have. What is made and started, this agent itself has asked for.
fn is_news(answer: &ChangesResponse) -> bool {
    let stops = |what: &str| {
        matches!(what, "stopped" | "crashed" | "suspended" | "pmsuspended" | "resumed" | "undefined")
    };
    answer.all || answer.changes.iter().any(|change| stops(&change.what))
}

#[cfg(test)]
mod tests {
    use haar_api::rpc::libvirt::Change;

    use super::*;

    #[test]
    fn a_crash_is_news_and_what_was_asked_for_is_none() {
        let told = |all, what: &str| {
            let change = Change { id: "a".into(), what: what.into() };
            is_news(&ChangesResponse { all, changes: vec![change], cursor: String::new() })
        };
        assert!(told(false, "stopped") && told(false, "crashed") && told(true, "defined"));
        assert!(!told(false, "defined") && !told(false, "started") && !told(false, "reset"));
        assert!(!is_news(&ChangesResponse::default()));
    }
}
