//! Saying hello, and reporting: whatever the node has to say is said at once, in its order, until it is taken.
//!
//! A hello is said again when what the machine is or has for guests has changed: the same ledger gets the same
//! answer, and placement goes by the new facts at once instead of after the next complete report.

use std::sync::Arc;

use haar_core::hypervisor::Inventory;
use haar_core::id::{CloudId, HypervisorId};
use haar_core::node::Input;
use haar_core::order::{Hello, Report};
use haar_core::units::Resources;
use tokio::sync::{Notify, watch};

use super::{Link, LinkError, Pause, Unsupported};
use crate::engine::{Engine, Stopped};

/// What the talk needs to know.
pub(crate) struct Talk<L> {
    pub(crate) link: Arc<L>,
    pub(crate) engine: Engine,
    /// Rung when the node has something to say.
    pub(crate) news: Arc<Notify>,
    /// What of the last feed could not be read.
    pub(crate) unsupported: watch::Receiver<Vec<Unsupported>>,
    /// What the last look at the host found; None before the first.
    pub(crate) facts: watch::Receiver<Option<Facts>>,
    /// The facts last said.
    pub(crate) told: Option<Facts>,
    pub(crate) cloud: CloudId,
    pub(crate) hypervisor: HypervisorId,
}

/// What the machine is, and what it has for guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) inventory: Inventory,
    pub(crate) total: Resources,
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
                        changed = self.facts.changed() => changed.map_err(|_| Stopped)?,
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
                Word::Nothing => match self.say_facts().await? {
                    Ok(()) => return self.say_unsupported().await,
                    Err(error) => Err(error),
                },
            };
            if said.is_err() {
                return Ok(said);
            }
        }
    }

    async fn say_hello(&self, hello: &Hello) -> Result<Result<(), LinkError>, Stopped> {
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

    /// Says hello again when the facts are others than those last said.
    async fn say_facts(&mut self) -> Result<Result<(), LinkError>, Stopped> {
        let facts = self.facts.borrow_and_update().clone();
        if facts == self.told {
            return Ok(Ok(()));
        }
        let Some(Facts { inventory, total }) = facts.clone() else { return Ok(Ok(())) };
        let known = self.engine.read(|node| node.record().incarnation.map(|_| node.record().lot)).await?;
        let Some(lot) = known else { return Ok(Ok(())) };
        let said = self.say_hello(&Hello { hypervisor: self.hypervisor, lot, inventory, total }).await?;
        if said.is_ok() {
            self.told = facts;
        }
        Ok(said)
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
