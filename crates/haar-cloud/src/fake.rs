//! A cloud in memory, for tests: it does what a cloud does, and whatever goes wrong with one on order.
//!
//! Its clock is tokio's, so with a paused one hours take no time. It keeps its own truth, which is what a
//! test compares with the record. Faults are ordered one by one for a kind of request, or drawn by lot from
//! a seed: an answer that is lost after the work was done, a refusal, a request that hangs, slowness.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use haar_cloud::{Cloud, Error, SpawnOrder, fake::{Call, Fake, Fault}, provider::Ground};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> haar_cloud::Result<()> {
//! # let folder = tempfile::tempdir().expect("a folder for this example");
//! let fake = Arc::new(Fake::default());
//! let cloud = Cloud::new(fake.clone(), &"a".parse()?, folder.path())?;
//! cloud.deploy(Ground::default()).await?;
//! fake.order(Call::CreateServer, Fault::Lose);
//! let server = cloud.spawn(SpawnOrder::new("debian-12", "debian", "small"), || {}).await?;
//! assert_eq!(fake.servers_there(), 1, "it was made although the answer was lost, and found");
//! cloud.tear_down().await?;
//! assert!(fake.left().is_empty());
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::cloud::locked;
use crate::flavor::Flavor;
use crate::image::Image;
use crate::journal::Journal;
use crate::name::{DeploymentId, ResourceName};
use crate::provider::{Deployment, Found, NewServer, Prepared, Provider, ServerOrder, ServerView};
use crate::quota::Quota;
use crate::state::Kind;
use crate::{Error, Result};

mod world;

pub use world::{Build, World};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Provider::flavors`].
    Flavors,
    /// [`Provider::images`].
    Images,
    /// [`Provider::quota`].
    Quota,
    /// The making of one thing of the ground.
    Make(Kind),
    /// [`Provider::survey`].
    Survey,
    /// [`Provider::create_server`].
    CreateServer,
    /// [`Provider::server`].
    Server,
    /// [`Provider::servers`].
    Servers,
    /// [`Provider::add_external_address`].
    AddExternalAddress,
    /// [`Provider::delete`] of a kind.
    Delete(Kind),
    /// [`Provider::here`].
    Here,
}

/// What goes wrong with a request.
#[derive(Debug)]
pub enum Fault {
    /// It is refused, and nothing is done.
    Refuse(Error),
    /// It is done, and the answer is lost.
    Lose,
    /// It is done, and this is said all the same.
    Deny(Error),
    /// It is never answered, and nothing is done.
    Hang,
}

/// Faults by lot.
#[derive(Debug)]
struct Lots {
    state: u64,
    /// How many requests of a thousand go wrong.
    faults: u64,
    /// The longest that a request takes, in ms.
    slowness: u64,
}

impl Lots {
    /// The next number below `end`: a xorshift, good enough for lots.
    fn next(&mut self, end: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        if end == 0 { 0 } else { self.state % end }
    }
}

/// A cloud in memory.
#[derive(Debug, Default)]
pub struct Fake {
    world: Mutex<World>,
    orders: Mutex<VecDeque<(Call, Fault)>>,
    lots: Mutex<Option<Lots>>,
    asked: Mutex<Vec<Call>>,
}

impl Fake {
    /// Orders a fault for the next request of a kind that has none ordered yet.
    pub fn order(&self, call: Call, fault: Fault) {
        locked(&self.orders).push_back((call, fault));
    }

    /// Draws faults by lot from now on: so many requests of a thousand go wrong, and each takes up to
    /// `slowness`.
    pub fn draw_faults(&self, seed: u64, of_thousand: u64, slowness: Duration) {
        let slowness = u64::try_from(slowness.as_millis()).unwrap_or(u64::MAX);
        // The first numbers of a small seed are small too.
        let mut lots =
            Lots { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, faults: of_thousand, slowness };
        for _ in 0..8 {
            lots.next(1);
        }
        *locked(&self.lots) = Some(lots);
    }

    /// No more faults by lot, and none of those ordered.
    pub fn be_good(&self) {
        *locked(&self.lots) = None;
        locked(&self.orders).clear();
    }

    /// Changes or reads the truth.
    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut locked(&self.world))
    }

    /// Everything that the cloud has of anybody, by kind and name.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        self.with(|world| world.left())
    }

    /// How many servers there are.
    #[must_use]
    pub fn servers_there(&self) -> usize {
        self.with(|world| world.servers().len())
    }

    /// How often a kind of request came.
    #[must_use]
    pub fn asked(&self, call: Call) -> usize {
        locked(&self.asked).iter().filter(|asked| **asked == call).count()
    }

    /// The requests so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Call> {
        locked(&self.asked).clone()
    }

    /// Does one request, as well or badly as was ordered.
    async fn answer<T>(&self, call: Call, act: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        locked(&self.asked).push(call);
        self.dawdle().await;
        match self.fault(call) {
            Some(Fault::Refuse(error)) => return Err(error),
            Some(Fault::Hang) => return pending().await,
            Some(Fault::Lose) => {
                self.with(act)?;
                self.dawdle().await;
                return Err(transient("the connection was reset"));
            }
            Some(Fault::Deny(error)) => {
                self.with(act)?;
                return Err(error);
            }
            None => {}
        }
        let answer = self.with(act);
        // Whoever leaves now does so while the answer is on its way.
        self.dawdle().await;
        answer
    }

    fn fault(&self, call: Call) -> Option<Fault> {
        let mut orders = locked(&self.orders);
        if let Some(place) = orders.iter().position(|(ordered, _)| *ordered == call) {
            return orders.remove(place).map(|(_, fault)| fault);
        }
        let mut lots = locked(&self.lots);
        let lots = lots.as_mut()?;
        if lots.next(1000) >= lots.faults {
            return None;
        }
        Some(if lots.next(2) == 0 { Fault::Lose } else { Fault::Refuse(transient("status 503")) })
    }

    async fn dawdle(&self) {
        let pause = locked(&self.lots).as_mut().map(|lots| lots.next(lots.slowness));
        if let Some(pause) = pause.filter(|pause| *pause > 0) {
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// One thing of the ground, found or made.
    async fn stand(&self, deployment: &Deployment, journal: &Journal, kind: Kind) -> Result<()> {
        let name = deployment.name.as_str();
        let found = self.answer(Call::Make(kind), |world| world.find(kind, deployment)).await?;
        match found {
            Some(found) if found.ours => {
                let entry = journal.plan(kind, name).await?;
                journal.made(entry, &found.id).await
            }
            Some(found) => journal.reuse(kind, name, &found.id).await.map(drop),
            None => {
                let make = self.answer(Call::Make(kind), |world| Ok(world.make(kind, deployment)));
                journal.make(kind, name, make).await.map(drop)
            }
        }
    }
}

fn transient(message: &str) -> Error {
    Error::Transient { what: "the fake cloud".to_owned(), message: message.to_owned(), retry_after: None }
}

/// The ground, in the order in which it can be made.
const GROUND: [Kind; 6] =
    [Kind::KeyPair, Kind::SecurityGroup, Kind::Network, Kind::Subnet, Kind::Router, Kind::RouterInterface];

#[async_trait]
impl Provider for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn place(&self) -> Option<String> {
        self.with(|world| world.place.clone())
    }

    async fn flavors(&self) -> Result<Vec<Flavor>> {
        self.answer(Call::Flavors, |world| Ok(world.flavors.clone())).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.answer(Call::Images, |world| Ok(world.images.clone())).await
    }

    async fn quota(&self) -> Result<Quota> {
        self.answer(Call::Quota, |world| Ok(world.quota())).await
    }

    async fn deploy(&self, deployment: &Deployment, journal: &Journal) -> Result<()> {
        for kind in GROUND {
            self.stand(deployment, journal, kind).await?;
        }
        Ok(())
    }

    async fn survey(&self, name: &ResourceName, id: Option<DeploymentId>) -> Result<Vec<Found>> {
        self.answer(Call::Survey, |world| Ok(world.survey(name, id))).await
    }

    async fn needed(&self, deployment: &Deployment) -> Result<Vec<(Kind, String)>> {
        Ok(GROUND.map(|kind| (kind, deployment.name.to_string())).to_vec())
    }

    /// A volume does not go with its server by itself: so it is left when a cloud falls in the midst of it.
    async fn prepare_server(
        &self,
        deployment: &Deployment,
        order: &ServerOrder,
        journal: &Journal,
    ) -> Result<Prepared> {
        if order.volume_gb.is_none() {
            return Ok(Prepared::Ready);
        }
        let call = Call::Make(Kind::Volume);
        let noted = journal.find(Kind::Volume, &order.name).await?;
        let there = self.answer(call, |world| Ok(world.volume(&order.name))).await?;
        match there {
            Some(id) => {
                let entry = journal.plan(Kind::Volume, &order.name).await?;
                journal.made(entry, &id).await?;
                Ok(Prepared::Ready)
            }
            None if noted.is_some() => Err(transient("the volume is not shown")),
            None => {
                let mark = Some(deployment.id);
                let make = self.answer(call, |world| Ok(world.put(Kind::Volume, &order.name, mark, "")));
                journal.make(Kind::Volume, &order.name, make).await?;
                Ok(Prepared::Making("its volume is creating".to_owned()))
            }
        }
    }

    async fn create_server(
        &self,
        deployment: &Deployment,
        order: &ServerOrder,
        _journal: &Journal,
    ) -> Result<NewServer> {
        self.answer(Call::CreateServer, |world| world.create(deployment, order)).await
    }

    async fn server(&self, id: &str) -> Result<ServerView> {
        self.answer(Call::Server, |world| world.view(id)).await
    }

    async fn servers(&self) -> Result<Vec<ServerView>> {
        self.answer(Call::Servers, |world| Ok(world.servers())).await
    }

    async fn console(&self, id: &str) -> Result<String> {
        self.answer(Call::Server, |world| world.console(id)).await
    }

    async fn add_external_address(
        &self,
        deployment: &Deployment,
        server: &ServerView,
        journal: &Journal,
    ) -> Result<IpAddr> {
        let make = self.answer(Call::AddExternalAddress, |world| world.add_external(deployment, server));
        let (_, id) = journal.make(Kind::FloatingIp, &server.name, make).await?;
        self.with(|world| world.external(&id))
    }

    async fn delete(&self, kind: Kind, id: &str) -> Result<()> {
        self.answer(Call::Delete(kind), |world| world.delete(kind, id)).await
    }

    async fn here(&self) -> Result<Option<String>> {
        self.answer(Call::Here, |world| Ok(world.here.clone())).await
    }
}
