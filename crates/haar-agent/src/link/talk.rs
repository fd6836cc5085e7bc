//! Saying hello, and reporting: whatever the node has to say is said at once, in its order, until it is taken.
//!
//! A hello is said again when what the machine is or has for guests has changed, or can no longer be seen: the
//! same ledger gets the same answer, and placement goes by the new facts at once instead of after the next
//! complete report. As long as no feed is asked for, because the host was not seen once, a repeated hello is
//! the sign of life.

use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_core::id::{CloudId, HypervisorId};
use haar_core::node::Input;
use haar_core::order::{Hello, Report};
use tokio::sync::{Notify, watch};

use super::{Link, LinkError, Pause, Unsupported};
use crate::engine::{Engine, Stopped};

/// Without a feed to poll, the hello is repeated no more often than this.
const SIGN_OF_LIFE: Duration = Duration::from_secs(4);

/// What the talk needs to know.
pub(crate) struct Talk<L> {
    pub(crate) link: Arc<L>,
    pub(crate) engine: Engine,
    /// Rung when the node has something to say.
    pub(crate) news: Arc<Notify>,
    /// What of the last feed could not be read.
    pub(crate) unsupported: watch::Receiver<Vec<Unsupported>>,
    /// The hello last said, and when.
    pub(crate) told: Option<(Hello, Instant)>,
    pub(crate) cloud: CloudId,
    pub(crate) hypervisor: HypervisorId,
}

/// What the node has to say.
enum Word {
    Hello(Hello),
    Reports(Vec<Report>),
    Nothing,
}

impl<L: Link> Talk<L> {
    /// Talks until the engine ends.
    pub(crate) async fn run(mut self) -> Result<(), Stopped> {
        let mut pause = Pause::new();
        loop {
            match self.say_all().await? {
                Ok(()) => {
                    pause.reset();
                    tokio::select! {
                        () = self.news.notified() => {}
                        changed = self.unsupported.changed() => changed.map_err(|_| Stopped)?,
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "what the node has to say was not taken, said again");
                    pause.wait().await;
                }
            }
        }
    }

    async fn say_all(&mut self) -> Result<Result<(), LinkError>, Stopped> {
        loop {
            let word = self.engine.read(|node| match node.hello() {
                Some(hello) => Word::Hello(hello),
                None => match node.reports() {
                    reports if reports.is_empty() => Word::Nothing,
                    reports => Word::Reports(reports),
                },
            });
            let said = match word.await? {
                Word::Hello(hello) => self.say_hello(&hello).await?,
                Word::Reports(reports) => self.report(&reports).await?,
                Word::Nothing => match self.greet_again().await? {
                    Ok(()) => return self.say_unsupported().await,
                    Err(error) => Err(error),
                },
            };
            if said.is_err() {
                return Ok(said);
            }
        }
    }

    async fn say_hello(&mut self, hello: &Hello) -> Result<Result<(), LinkError>, Stopped> {
        let welcome = match self.link.hello(hello).await {
            Ok(welcome) => welcome,
            Err(error) => return Ok(Err(error)),
        };
        if welcome.cloud != self.cloud || welcome.hypervisor != self.hypervisor {
            return Ok(Err(LinkError::Refused {
                code: "other_hypervisor".to_owned(),
                message: format!(
                    "it takes this agent for hypervisor {} of cloud {}, the configuration says {} of {}; \
                     check the token",
                    welcome.hypervisor, welcome.cloud, self.hypervisor, self.cloud
                ),
            }));
        }
        tracing::info!(incarnation = welcome.incarnation, total = %hello.total, "welcomed by the controller");
        self.told = Some((hello.clone(), Instant::now()));
        self.engine.give(Input::Welcome { incarnation: welcome.incarnation }).await?;
        Ok(Ok(()))
    }

    async fn report(&mut self, reports: &[Report]) -> Result<Result<(), LinkError>, Stopped> {
        for report in reports {
            let unsupported = self.unsupported.borrow_and_update().clone();
            match self.link.report(report, &unsupported).await {
                Ok(()) => self.engine.give(Input::Taken(report.clone())).await?,
                Err(LinkError::StaleIncarnation(message)) => {
                    tracing::warn!(message, "says hello again");
                    self.engine.give(Input::NotWelcome { incarnation: report.incarnation }).await?;
                    return Ok(Ok(()));
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Says hello again when it is another one than was said last, or the only sign of life.
    async fn greet_again(&mut self) -> Result<Result<(), LinkError>, Stopped> {
        let present = self.engine.read(|node| {
            let greeting = node.greeting().filter(|_| node.record().incarnation.is_some());
            greeting.map(|greeting| (greeting, node.feed_since().is_none()))
        });
        let Some((greeting, is_unfed)) = present.await? else { return Ok(Ok(())) };
        let is_said = self
            .told
            .as_ref()
            .is_some_and(|(said, at)| *said == greeting && !(is_unfed && at.elapsed() >= SIGN_OF_LIFE));
        if is_said { Ok(Ok(())) } else { self.say_hello(&greeting).await }
    }

    /// What could not be read is said even when there is nothing else to say.
    async fn say_unsupported(&mut self) -> Result<Result<(), LinkError>, Stopped> {
        if !self.unsupported.has_changed().unwrap_or(false) {
            return Ok(Ok(()));
        }
        let hypervisor = self.hypervisor;
        let empty = self.engine.read(move |node| {
            let record = node.record();
            record.incarnation.map(|incarnation| Report {
                hypervisor,
                incarnation,
                seen: record.seen,
                guests: Vec::new(),
                complete: None,
            })
        });
        match empty.await? {
            Some(report) => self.report(&[report]).await,
            None => Ok(Ok(())),
        }
    }
}
