//! Calling the services of the plan: at most so many calls of each at once, each with its time limit.
//!
//! A method that answers `retry`, and an image that is still being fetched, are asked again until the stage's time
//! is over; a job's stage waits for a while for a service that is not there. Deliberately absent: what an answer means
//! for a guest; that is the runners'.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_api::agent::go::{self, Wire};
use haar_api::agent::{GuestRequest, GuestResponse};
use haar_api::rpc::{self, Fault, FaultCode};
use haar_api::rpc_client::{self, CallError};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::config::{Plan, Service, Stage};
use super::runners::{Call, Outcome, Params, Step, Why};

/// Between two questions how far an image is.
const ASK_IMAGE_AGAIN: Duration = Duration::from_millis(500);
/// The longest a sub-agent may put off the next question.
const MOST_RETRY: Duration = Duration::from_secs(60);

/// How long a job waits for a service that is not there: it may be starting again, as after the agent's own start.
const INSIST: Duration = Duration::from_secs(30);
/// How long it is tried to let a held guest go on, when no answer comes: libvirtd may be restarted, or updated.
const LET_GO: Duration = Duration::from_secs(600);
/// Between two such questions.
const INSIST_AGAIN: Duration = Duration::from_millis(250);

/// The services with their limits.
pub(crate) struct Hands {
    services: BTreeMap<String, (Service, Arc<Semaphore>)>,
}

/// Why a stage failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The sub-agent's words, or what became of the call.
    pub(crate) message: String,
    /// What it says of the thing asked about.
    pub(crate) why: Why,
}

impl Failure {
    fn plain(message: String) -> Failure {
        Failure { message, why: Why::Other }
    }

    fn unheard(message: String) -> Failure {
        Failure { message, why: Why::Unheard }
    }

    /// The sub-agent's own no, in its words.
    fn of(fault: &Fault) -> Failure {
        let message = match fault.code {
            FaultCode::Failed => fault.message.clone(),
            _ => fault.to_string(),
        };
        let why = match fault.code {
            FaultCode::NotFound | FaultCode::Lost => Why::Absent,
            FaultCode::Conflict => Why::Foreign,
            FaultCode::Invalid => Why::Unfit,
            // Whoever does the work broke off, or is still at it.
            FaultCode::Unavailable => Why::Unheard,
            _ if is_absence(&fault.message) => Why::Absent,
            _ => Why::Other,
        };
        Failure { message, why }
    }
}

/// Whether a stranger's text says that something is not there.
fn is_absence(text: &str) -> bool {
    matches!(text, "not found" | "no such image")
}

impl Hands {
    pub(crate) fn new(plan: &Plan) -> Hands {
        let entry = |(name, service): (&String, &Service)| {
            let pending = usize::try_from(service.max_pending).unwrap_or(1);
            (name.clone(), (service.clone(), Arc::new(Semaphore::new(pending))))
        };
        Hands { services: plan.services.iter().map(entry).collect() }
    }

    /// A service and the right to use it, which is waited for.
    pub(crate) async fn service(
        &self,
        name: &str,
    ) -> Result<(&Service, tokio::sync::OwnedSemaphorePermit), Failure> {
        let Some((service, pending)) = self.services.get(name) else {
            return Err(Failure::plain(format!("the service `{name}` is not configured any more")));
        };
        let permit = Arc::clone(pending).acquire_owned().await;
        let permit = permit.map_err(|_| Failure::plain("the agent is stopping".to_owned()))?;
        Ok((service, permit))
    }

    /// Carries out a stage of a job, whatever comes of it. A service that is not there is waited for; what takes
    /// something back is asked again also when no answer came, for nobody else will.
    pub(crate) async fn carry_out(&self, call: Call) -> Outcome {
        let began = Instant::now();
        loop {
            let outcome = self.carry_out_once(call.clone()).await;
            let Outcome::Failed { why, .. } = outcome else { return outcome };
            if began.elapsed() + INSIST_AGAIN >= insists(&call, why) {
                return outcome;
            }
            tokio::time::sleep(INSIST_AGAIN).await;
        }
    }

    async fn carry_out_once(&self, call: Call) -> Outcome {
        let done = match call.params {
            Params::Guest(guest) => {
                let request = GuestRequest { guest: &guest, action: &call.action, args: &call.args };
                let asked = self.until_done(&call.service, &call.method, &request, call.timeout, retry_of);
                let answer = asked.await.map(|answer: GuestResponse| answer.guest.map(Box::new));
                answer.map(|got| Outcome::Guest { sent: guest, got })
            }
            Params::Image(request) => {
                let asked = self.until_done(&call.service, &call.method, &*request, call.timeout, image_of);
                asked.await.and_then(|answer| image_made(&answer))
            }
            Params::Any(params) => {
                let asked = self.until_done(&call.service, &call.method, &params, call.timeout, |_| None);
                asked.await.and_then(|Told(told)| heard(&call.step, told))
            }
            Params::Snapshot(request) => {
                let never = |_: &Anything| None;
                let asked = self.until_done(&call.service, &call.method, &request, call.timeout, never);
                asked.await.map(|_| Outcome::Done)
            }
        };
        done.unwrap_or_else(|failure| Outcome::Failed { message: failure.message, why: failure.why })
    }

    /// Asks a stage of an info action once.
    ///
    /// # Errors
    /// [`Failure`] with words for whoever asked.
    pub(crate) async fn ask<P, R>(&self, stage: &Stage, params: &P) -> Result<R, Failure>
    where
        P: Serialize + Sync,
        R: Wire,
    {
        self.until_done(&stage.service, &stage.method, params, stage.timeout, |_| None).await
    }

    async fn until_done<P, R>(
        &self,
        service: &str,
        method: &str,
        params: &P,
        limit: Duration,
        again: impl Fn(&R) -> Option<Duration>,
    ) -> Result<R, Failure>
    where
        P: Serialize + Sync,
        R: Wire,
    {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer: R = self.once(service, method, params, left, limit).await?;
            let Some(pause) = again(&answer) else { return Ok(answer) };
            if Instant::now() + pause >= deadline {
                return Err(overdue(service, method, limit));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn once<P, R>(
        &self,
        name: &str,
        method: &str,
        params: &P,
        left: Duration,
        limit: Duration,
    ) -> Result<R, Failure>
    where
        P: Serialize + Sync,
        R: Wire,
    {
        let late = |_| overdue(name, method, limit);
        let (service, _permit) = timeout(left, self.service(name)).await.map_err(late)??;
        let call =
            rpc_client::call::<_, Value>(&service.address, &service.path, method, params, Duration::MAX);
        let answered = timeout(left, call).await.map_err(late)?;
        let value = answered.map_err(|error| failure(name, method, &error))?;
        let unread = |error| unreadable(name, method, &error);
        go::from_value(value).map_err(unread)
    }
}

/// For how long a call that failed so is made again.
fn insists(call: &Call, why: Why) -> Duration {
    let (step, a_while) = (&call.step, INSIST.min(call.timeout));
    match why {
        Why::Absent | Why::Foreign | Why::Unfit => Duration::ZERO,
        // The libvirt sub-agent would thaw the guest in the midst of a second try.
        _ if step.holds() => Duration::ZERO,
        Why::Unreached | Why::Unheard if step.lets_go() => LET_GO,
        Why::Unreached => a_while,
        Why::Unheard if step.takes_back() => a_while,
        Why::Other if step.lets_go() => a_while,
        Why::Unheard | Why::Other => Duration::ZERO,
    }
}

/// What is told of a guest that was to be let go on and whose agent is silent is no end; but for one that somebody has
/// paused, which the libvirt sub-agent thaws when it goes on.
fn heard(step: &Step, told: Value) -> Result<Outcome, Failure> {
    let stands_still = matches!(told["guest"]["state"].as_str(), Some("paused" | "suspended"));
    if step.lets_go() && told["agent"] == "silent" && !stands_still {
        return Err(Failure::plain("the agent inside does not answer".to_owned()));
    }
    Ok(Outcome::Told(told))
}

fn overdue(service: &str, method: &str, limit: Duration) -> Failure {
    Failure::unheard(format!(
        "the service `{service}` did not end {method} within {} s; it may still be at it",
        limit.as_secs()
    ))
}

fn unreadable(service: &str, method: &str, error: &serde_json::Error) -> Failure {
    Failure::plain(format!("the service `{service}` answered {method} with what cannot be read: {error}"))
}

fn failure(service: &str, method: &str, error: &CallError) -> Failure {
    match error {
        CallError::Fault(fault) => Failure::of(fault),
        CallError::Connect { source, .. } => {
            let message = format!("the service `{service}` cannot be reached ({source}); is it running?");
            Failure { message, why: Why::Unreached }
        }
        CallError::Refused { status, text } => {
            Failure::plain(format!("the service `{service}` refused {method} with status {status}: {text}"))
        }
        CallError::Json(error) => unreadable(service, method, error),
        CallError::Empty => {
            Failure::plain(format!("the service `{service}` answered {method} with neither result nor error"))
        }
        CallError::Transport(_) | CallError::Timeout(_) => {
            Failure::unheard(format!("the service `{service}` broke off before it had answered {method}"))
        }
    }
}

/// An answer as it is.
#[derive(serde::Deserialize)]
struct Told(Value);

impl Wire for Told {
    const SHAPE: go::Shape = go::Shape::Any;
}

/// An answer of which only its being there counts.
#[derive(serde::Deserialize)]
struct Anything {}

impl Wire for Anything {
    const SHAPE: go::Shape = go::Shape::Struct(&[]);
}

fn retry_of(answer: &GuestResponse) -> Option<Duration> {
    (answer.retry > 0).then(|| Duration::from_secs(answer.retry.into()).min(MOST_RETRY))
}

fn image_of(answer: &rpc::ImageResponse) -> Option<Duration> {
    let image = answer.images.as_ref()?.first()?;
    matches!(image.status.as_str(), "pending" | "downloading").then_some(ASK_IMAGE_AGAIN)
}

fn image_made(answer: &rpc::ImageResponse) -> Result<Outcome, Failure> {
    let image = answer.images.as_ref().and_then(|images| images.first());
    match image.filter(|image| image.status == "error") {
        None => Ok(Outcome::Done),
        Some(image) => {
            let why = image.haar.as_ref().map(|extra| Fault::parse(&extra.error));
            let untold = || {
                Failure::plain("the image could not be fetched; the sub-agent does not say why".to_owned())
            };
            Err(why.map_or_else(untold, |fault| Failure::of(&fault)))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::local::runners::Owner;

    fn at(step: Value) -> Call {
        Call {
            seq: 1,
            step: serde_json::from_value(step).unwrap(),
            owner: Owner::Agent,
            action: "createSnapshot".to_owned(),
            service: "s".to_owned(),
            method: "S.M".to_owned(),
            args: BTreeMap::new(),
            timeout: Duration::from_secs(120),
            params: Params::Any(Value::Null),
        }
    }

    #[test]
    fn what_lets_a_guest_go_on_is_insisted_on_and_what_holds_it_is_asked_for_once() {
        let release = at(json!({"quiesce": [0, {"release": ["suspended", "next"]}]}));
        let take = at(json!({"quiesce": [0, {"take": "frozen"}]}));
        let (undo, forward) = (at(json!({"undo": [0]})), at(json!({"forward": 0})));
        let never = Duration::ZERO;
        let cases = [
            (Why::Unheard, [LET_GO, never, INSIST, never]),
            (Why::Unreached, [LET_GO, never, INSIST, INSIST]),
            (Why::Other, [INSIST, never, never, never]),
            (Why::Absent, [never; 4]),
            (Why::Unfit, [never; 4]),
            (Why::Foreign, [never; 4]),
        ];
        for (why, limits) in cases {
            let insisted = [&release, &take, &undo, &forward].map(|call| insists(call, why));
            assert_eq!(insisted, limits, "{why:?}");
        }
    }

    #[test]
    fn a_silent_agent_is_an_end_only_where_the_guest_stands_still() {
        let step = at(json!({"quiesce": [0, {"release": ["frozen", "fail"]}]})).step;
        for (agent, state, is_end) in
            [("silent", "running", false), ("silent", "paused", true), ("answers", "running", true)]
        {
            let told = json!({"agent": agent, "guest": {"state": state}});
            assert_eq!(heard(&step, told).is_ok(), is_end, "{agent} {state}");
        }
    }

    #[test]
    fn that_libvirt_did_not_answer_is_no_no() {
        let why = |text: &str| Failure::of(&Fault::parse(text)).why;
        assert_eq!(why("unavailable: libvirtd does not answer"), Why::Unheard);
        assert_eq!(why("invalid: the domain is shutoff"), Why::Unfit);
        assert_eq!(why("boom"), Why::Other);
    }
}
