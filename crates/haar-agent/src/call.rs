//! Calling a sub-agent: every call has a time limit, and nobody is told that a call is over before it is.
//!
//! ```text
//!  call ──answer within the limit──▶ its result
//!    └──limit passed──▶ overdue ──answer──▶ its result, late
//!                          └──patience over, or the process does not even answer a knock──▶
//!                                process killed and started anew ──▶ Cancelled
//! ```
//! A sub-agent of somebody else, which is not started here, cannot be killed: its overdue call is waited for,
//! and the guest of that call waits with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_api::rpc::{self, Fault, FaultCode};
use haar_api::rpc_client::{self, Address, CallError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::supervise::{Program, Supervised};

/// How long is waited before a sub-agent counts as hung.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between two knocks.
    pub knock_every: Duration,
    /// How long a knock may take.
    pub knock_limit: Duration,
    /// Knocks missed in a row after which the process is killed.
    pub knocks_missed: u32,
    /// How long one call may be overdue while knocks are answered.
    pub overdue: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            knock_every: Duration::from_secs(3),
            knock_limit: Duration::from_secs(5),
            knocks_missed: 3,
            // libvirt's sub-agent gives up a call of its own after 90 s.
            overdue: Duration::from_secs(75),
        }
    }
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The method's no, or nobody was there to ask.
    Fault(Fault),
    /// The limit passed, and by now surely nothing of the call is under way. Whether it took effect is not known.
    Cancelled,
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Ended::Fault(fault)
    }
}

/// A sub-agent on its socket, and its process when it was started here.
pub(crate) struct SubAgent {
    name: &'static str,
    address: Address,
    patience: Patience,
    process: Option<Arc<Supervised>>,
    knocking: Option<JoinHandle<()>>,
}

impl Drop for SubAgent {
    fn drop(&mut self) {
        if let Some(knocking) = &self.knocking {
            knocking.abort();
        }
    }
}

impl SubAgent {
    /// Starts the program, which will listen on `socket`, and keeps it running and answering.
    pub(crate) fn start(program: Program, socket: PathBuf, patience: Patience) -> SubAgent {
        let (name, address) = (program.name, Address::Unix(socket));
        let process = Arc::new(Supervised::start(program));
        let knocking = tokio::spawn(knock_on(name, address.clone(), patience, Arc::clone(&process)));
        SubAgent { name, address, patience, process: Some(process), knocking: Some(knocking) }
    }

    /// A sub-agent that somebody else runs.
    pub(crate) fn of_others(name: &'static str, socket: &Path) -> SubAgent {
        let address = Address::Unix(socket.to_owned());
        SubAgent { name, address, patience: Patience::default(), process: None, knocking: None }
    }

    /// Its process id while one runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref()?.pid()
    }

    /// Ends its process.
    pub(crate) async fn stop(mut self) {
        if let Some(knocking) = self.knocking.take() {
            knocking.abort();
            // It holds the process too; only its end lets go.
            let _ = knocking.await;
        }
        if let Some(process) = self.process.take().and_then(Arc::into_inner) {
            process.stop().await;
        }
    }

    /// Asks for a change. When the limit passes the answer is waited for all the same, until it comes or
    /// surely cannot come any more.
    ///
    /// # Errors
    /// [`Ended`]; in both cases nothing of the call is under way any more.
    pub(crate) async fn change<P, R>(&self, method: &str, params: &P, limit: Duration) -> Result<R, Ended>
    where
        P: Serialize + Sync,
        R: DeserializeOwned,
    {
        let pid = self.pid();
        let mut call =
            Box::pin(rpc_client::call(&self.address, rpc::DEFAULT_PATH, method, params, Duration::MAX));
        if let Ok(answer) = tokio::time::timeout(limit, &mut call).await {
            return answer.map_err(|error| Ended::Fault(self.fault(method, error)));
        }
        tracing::warn!(sub_agent = self.name, method, limit_ms = limit.as_millis(), "a call is overdue");
        if let Ok(answer) = tokio::time::timeout(self.patience.overdue, &mut call).await {
            return answer.map_err(|error| match error {
                CallError::Fault(fault) => Ended::Fault(fault),
                _ => Ended::Cancelled,
            });
        }
        if let (Some(process), Some(pid)) = (&self.process, pid) {
            tracing::warn!(sub_agent = self.name, method, pid, "a call never ended, its process is killed");
            process.restart(pid);
        }
        match call.await {
            Ok(result) => Ok(result),
            Err(CallError::Fault(fault)) => Err(Ended::Fault(fault)),
            Err(_) => Err(Ended::Cancelled),
        }
    }

    /// Asks a question, which changes nothing and may be left unanswered.
    ///
    /// # Errors
    /// The sub-agent's fault, or `unavailable` when it does not answer within the limit.
    pub(crate) async fn ask<P, R>(&self, method: &str, params: &P, limit: Duration) -> Result<R, Fault>
    where
        P: Serialize + Sync,
        R: DeserializeOwned,
    {
        let call = rpc_client::call(&self.address, rpc::DEFAULT_PATH, method, params, limit);
        call.await.map_err(|error| self.fault(method, error))
    }

    /// Waits until somebody listens on the socket, at most so long.
    pub(crate) async fn ready(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if answers(&self.address, limit).await {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn fault(&self, method: &str, error: CallError) -> Fault {
        let name = self.name;
        match error {
            CallError::Fault(fault) => fault,
            CallError::Connect { source, .. } => Fault::new(
                FaultCode::Unavailable,
                format!("the {name} sub-agent does not run ({source}); it is started again by itself"),
            ),
            CallError::Timeout(limit) => Fault::new(
                FaultCode::Unavailable,
                format!("the {name} sub-agent did not answer {method} within {} s", limit.as_secs()),
            ),
            CallError::Refused { status, text } => Fault::new(
                FaultCode::Failed,
                format!("the {name} sub-agent refused {method} (status {status}): {text}"),
            ),
            CallError::Transport(_) => Fault::new(
                FaultCode::Unavailable,
                format!("the {name} sub-agent ended before it had answered {method}"),
            ),
            CallError::Json(_) | CallError::Empty => Fault::new(
                FaultCode::Failed,
                format!("the {name} sub-agent's answer to {method} cannot be read: {error}"),
            ),
        }
    }
}

/// Whether somebody answers there, be it with a no: what is asked for exists nowhere.
async fn answers(address: &Address, limit: Duration) -> bool {
    let knock = rpc_client::call::<_, serde_json::Value>(
        address,
        rpc::DEFAULT_PATH,
        "Haar.Knock",
        &rpc::Nothing {},
        limit,
    );
    !matches!(knock.await, Err(CallError::Connect { .. } | CallError::Timeout(_) | CallError::Transport(_)))
}

/// Kills a process that misses too many knocks in a row; the supervisor starts it anew.
async fn knock_on(name: &'static str, address: Address, patience: Patience, process: Arc<Supervised>) {
    let mut missed = (None, 0);
    loop {
        tokio::time::sleep(patience.knock_every).await;
        let pid = process.pid();
        if pid.is_none() || answers(&address, patience.knock_limit).await {
            missed = (pid, 0);
            continue;
        }
        missed = if missed.0 == pid { (pid, missed.1 + 1) } else { (pid, 1) };
        if let Some(pid) = pid
            && missed.1 >= patience.knocks_missed
        {
            tracing::warn!(sub_agent = name, pid, missed = missed.1, "does not answer, killed");
            process.restart(pid);
            missed = (None, 0);
        }
    }
}
