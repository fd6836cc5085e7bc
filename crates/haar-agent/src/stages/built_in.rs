//! The stages the agent does itself: seed disk and network.

use std::path::PathBuf;

use haar_api::rpc::{Fault, FaultCode};
use haar_core::node::{Outcome, StageCall};
use sha2::{Digest, Sha256};

use super::{Deadline, Hands, Went, not_told};
use crate::call::Ended;
use crate::link::Link;
use crate::seed;

impl<L: Link> Hands<L> {
    /// Where the seed disk of this life of the guest lies.
    pub(super) fn seed_path(&self, call: &StageCall) -> PathBuf {
        self.seeds.join(format!("{}.{}.img", call.order.id, call.order.life))
    }

    /// The seed disk is written.
    pub(super) async fn seed(&self, call: &StageCall, deadline: Deadline) -> Went {
        let user_data = match &call.order.user_data {
            Some(sha256) => Some(self.user_data(sha256, deadline).await?),
            None => None,
        };
        let (path, order) = (self.seed_path(call), call.order.clone());
        off_reactor(move || seed::write(&path, &order, user_data.as_deref())).await
    }

    /// The seed disk is gone.
    pub(super) async fn unseed(&self, call: &StageCall) -> Went {
        let path = self.seed_path(call);
        off_reactor(move || seed::remove(&path)).await
    }

    /// The bridge and its rules are there.
    pub(super) async fn network(&self, call: &StageCall) -> Went {
        let network = call.network.as_ref().ok_or_else(|| not_told("network"))?;
        match self.networks.ensure(network).await {
            Ok(()) => Ok(Outcome::Done),
            Err(error) => Err(Fault::new(FaultCode::Failed, chain(&error)).into()),
        }
    }

    async fn user_data(&self, sha256: &str, deadline: Deadline) -> Result<Vec<u8>, Ended> {
        let unavailable = |text: String| Ended::Fault(Fault::new(FaultCode::Unavailable, text));
        let fetched = tokio::time::timeout(deadline.left(), self.link.blob(sha256)).await;
        let blob = match fetched {
            Ok(Ok(blob)) => blob,
            Ok(Err(error)) => return Err(unavailable(format!("cannot fetch the user-data: {error}"))),
            Err(_) => {
                return Err(unavailable("the controller did not send the user-data in time".to_owned()));
            }
        };
        if hex(&Sha256::digest(&blob)) == sha256 {
            return Ok(blob);
        }
        Err(unavailable("the user-data was damaged on its way".to_owned()))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

async fn off_reactor(act: impl FnOnce() -> Result<(), seed::Error> + Send + 'static) -> Went {
    match tokio::task::spawn_blocking(act).await {
        Ok(Ok(())) => Ok(Outcome::Done),
        Ok(Err(error)) => {
            let code = if error.is_full() { FaultCode::NoSpace } else { FaultCode::Failed };
            Err(Fault::new(code, chain(&error)).into())
        }
        Err(error) => {
            Err(Fault::new(FaultCode::Failed, format!("writing the seed disk stopped: {error}")).into())
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
