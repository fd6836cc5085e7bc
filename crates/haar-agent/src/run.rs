//! Starting and stopping the agent: folders, ledger, sub-agents, the engine, and those who feed it.

use std::future::Future;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use haar_api::client::ClientError;
use haar_api::rpc;
use haar_core::id::{CloudId, HypervisorId};
use haar_core::node::{Effect, Fault, Input, Node, Outcome, StageCall};
use haar_core::units::MiB;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::call::{Patience, SubAgent};
use crate::config::Config;
use crate::engine::Engine;
use crate::hand::{Configured, Hand};
use crate::ledger::{self, Ledger};
use crate::link::http::HttpLink;
use crate::link::pull::Pull;
use crate::link::talk::Talk;
use crate::link::{Link, Ticket};
use crate::local::{self, Cloud};
use crate::net::Networks;
use crate::observe::{self, Reserve};
use crate::rest::{self, Rest};
use crate::stages::Hands;
use crate::stir;
use crate::streams;
use crate::sweep;

/// Tickets of streams that may wait.
const TICKETS: usize = 64;

/// Why the agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder cannot be made.
    #[error("cannot make the folder {path}; is this process root?")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token's file cannot be read.
    #[error("cannot read the agent's token from {path}")]
    Token {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The controller's address or the token cannot be used.
    #[error("the controller's address or token cannot be used")]
    Link(#[source] ClientError),
    /// The ledger cannot be used any more.
    #[error("the ledger {path} cannot be used")]
    Ledger {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: ledger::Error,
    },
    /// The ledger is another hypervisor's or another cloud's.
    #[error(
        "the ledger {path} belongs to {found}, the configuration says {configured}; check data_dir, or move the ledger away"
    )]
    OtherLedger {
        /// Its file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who this is.
        configured: String,
    },
    /// The configuration of its REST cannot be used.
    #[error(transparent)]
    RestConfig(#[from] rest::Error),
    /// Its REST cannot start or go on.
    #[error(transparent)]
    Rest(#[from] local::Error),
    /// No random number could be had.
    #[error("the system gives no random numbers: {0}")]
    Chance(String),
    /// The engine's thread broke.
    #[error("the engine stopped by a defect; the log says where")]
    Engine,
}

/// What the agent runs with, once the configuration is read: tests put their own programs and link here.
pub struct Parts<L> {
    /// The way to the controller.
    pub link: Arc<L>,
    /// The cloud.
    pub cloud: CloudId,
    /// This machine.
    pub hypervisor: HypervisorId,
    /// The ledger's file; its folder is made.
    pub ledger: PathBuf,
    /// Where seed disks lie; made, passable for QEMU's user.
    pub seeds: PathBuf,
    /// The storage sub-agent.
    pub storage: Hand,
    /// The libvirt sub-agent.
    pub libvirt: Hand,
    /// The container sub-agent, which only the REST speaks to; None: there is none.
    pub container: Option<Hand>,
    /// How long is waited before a sub-agent counts as hung.
    pub patience: Patience,
    /// Memory kept back for the host, MiB; None for the usual share.
    pub reserve_memory_mib: Option<u64>,
    /// Whether bridges and rules of the host are made.
    pub host_network: HostNetwork,
    /// Its own REST; None: it has none.
    pub rest: Option<local::Settings>,
}

/// Whether the agent makes bridges and rules on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostNetwork {
    /// It does.
    Made,
    /// It does not: where there is no permission, as in tests.
    LeftAlone,
}

/// An agent that runs.
pub struct Running {
    ended: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Waits for its end: after the shutdown, or because it cannot go on.
    ///
    /// # Errors
    /// [`Error::Ledger`] when the ledger failed for good.
    pub async fn ended(self) -> Result<(), Error> {
        self.ended.await.unwrap_or(Err(Error::Engine))
    }
}

/// Starts the agent; it runs until `shutdown` resolves. Guests run on after it.
///
/// # Errors
/// [`Error`] says what stands in the way.
pub async fn start(
    config: &Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, Error> {
    let token = std::fs::read_to_string(&config.token_file)
        .map_err(|source| Error::Token { path: config.token_file.clone(), source })?;
    let link = HttpLink::new(&config.controller, token.trim()).map_err(Error::Link)?;
    let hands = Configured::of(config);
    let rest = rest::settings(config, &hands)?;
    let parts = Parts {
        link: Arc::new(link),
        cloud: config.cloud,
        hypervisor: config.hypervisor,
        ledger: config.data_dir.join("agent/ledger.redb"),
        seeds: config.data_dir.join("seeds"),
        storage: hands.storage,
        libvirt: hands.libvirt,
        container: Some(hands.container),
        patience: Patience::default(),
        reserve_memory_mib: config.reserve_memory_mib,
        host_network: HostNetwork::Made,
        rest: Some(rest),
    };
    for (folder, mode) in [(config.data_dir.clone(), 0o711), (config.data_dir.join("log"), 0o711)] {
        make_folder(&folder, mode)?;
    }
    start_with(parts, shutdown).await
}

/// Starts the agent from its parts.
///
/// # Errors
/// [`Error`] says what stands in the way.
pub async fn start_with<L: Link>(
    parts: Parts<L>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, Error> {
    if let Some(folder) = parts.ledger.parent() {
        make_folder(folder, 0o700)?;
    }
    make_folder(&parts.seeds, 0o711)?;
    for hand in [&parts.storage, &parts.libvirt].into_iter().chain(&parts.container) {
        if let Some(folder) = hand.socket.parent() {
            make_folder(folder, 0o700)?;
        }
    }
    let (node, ledger) = open_ledger(&parts)?;
    let (effects_sender, effects) = mpsc::unbounded_channel();
    let (engine, engine_ended) = Engine::start(node, ledger, effects_sender);
    if let Some(folder) = parts.rest.as_ref().and_then(|rest| rest.socket.parent()) {
        make_folder(folder, 0o700)?;
    }
    let rest = Rest::start(parts.rest, Cloud::of(engine.clone())).await?;
    let networks = match parts.host_network {
        HostNetwork::Made => Networks::new(parts.cloud, engine.view()),
        HostNetwork::LeftAlone => Networks::left_alone(parts.cloud, engine.view()),
    };
    let container = parts.container.map(|hand| sub_agent(hand, parts.patience));
    let hands = Arc::new(Hands {
        cloud: parts.cloud,
        storage: sub_agent(parts.storage, parts.patience),
        libvirt: sub_agent(parts.libvirt, parts.patience),
        networks: networks.clone(),
        seeds: parts.seeds,
        link: Arc::clone(&parts.link),
    });
    let news = Arc::new(Notify::new());
    let (unsupported_sender, unsupported) = watch::channel(Vec::new());
    let (catalogue_sender, catalogue) = watch::channel(None);
    let (tickets_sender, tickets) = mpsc::channel::<Ticket>(TICKETS);
    let reserve = parts.reserve_memory_mib.map_or(Reserve::Usual, |mib| Reserve::Fixed(MiB(mib)));
    let actor = Actor {
        hands: Arc::clone(&hands),
        engine: engine.clone(),
        news: Arc::clone(&news),
        reserve,
        was_seen: Arc::new(AtomicBool::new(true)),
    };
    let (cloud, hypervisor) = (parts.cloud, parts.hypervisor);
    let talk = Talk {
        link: Arc::clone(&parts.link),
        engine: engine.clone(),
        news,
        unsupported,
        told: None,
        cloud,
        hypervisor,
    };
    let pull = Pull {
        link: parts.link,
        engine: engine.clone(),
        tickets: tickets_sender,
        unsupported: unsupported_sender,
        catalogue: catalogue_sender,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(actor.run(effects));
    tasks.spawn(networks.keep());
    tasks.spawn(streams::serve(Arc::clone(&hands), tickets));
    tasks.spawn(sweep::keep(Arc::clone(&hands), engine.clone(), catalogue));
    tasks.spawn(stir::keep(Arc::clone(&hands), engine.clone()));
    // Both end only with the engine, whose own end tells why.
    tasks.spawn(talk.run().map(|_| ()));
    tasks.spawn(pull.run().map(|_| ()));
    // The engine is there and takes it.
    let _ = engine.give(Input::Boot).await;
    let path = parts.ledger;
    let ended = tokio::spawn(async move {
        let (result, rest_result) = watch_over(engine, engine_ended, tasks, rest, shutdown).await;
        if let Some(hands) = Arc::into_inner(hands) {
            tokio::join!(hands.storage.stop(), hands.libvirt.stop());
        }
        if let Some(container) = container {
            container.stop().await;
        }
        result.map_err(|error| error.map_or(Error::Engine, |source| Error::Ledger { path, source }))?;
        Ok(rest_result?)
    });
    Ok(Running { ended })
}

/// Waits for the shutdown, or for the end of the engine or the REST, then ends everybody.
async fn watch_over(
    engine: Engine,
    mut engine_ended: JoinHandle<Result<(), ledger::Error>>,
    mut tasks: JoinSet<()>,
    rest: Rest,
    shutdown: impl Future<Output = ()>,
) -> (Result<(), Option<ledger::Error>>, Result<(), local::Error>) {
    let early = tokio::select! {
        ended = &mut engine_ended => Some(ended),
        () = rest.ended.cancelled() => None,
        () = shutdown => None,
    };
    // It asks the engine, which ends only when nobody can.
    let rest_result = rest.stop().await;
    tasks.shutdown().await;
    drop(engine);
    let ended = match early {
        Some(ended) => ended,
        None => engine_ended.await,
    };
    (ended.map_err(|_| None).and_then(|ended| ended.map_err(Some)), rest_result)
}

fn sub_agent(hand: Hand, patience: Patience) -> SubAgent {
    match hand.program {
        Some(program) => SubAgent::start(program, hand.socket, patience),
        None => SubAgent::of_others(hand.name, &hand.socket),
    }
}

fn open_ledger<L>(parts: &Parts<L>) -> Result<(Node, Ledger), Error> {
    let path = &parts.ledger;
    let (ledger, records) =
        Ledger::open(path).map_err(|source| Error::Ledger { path: path.clone(), source })?;
    let Some(node) = Node::restore(records) else {
        let lot = getrandom::u64().map_err(|error| Error::Chance(error.to_string()))?;
        return Ok((Node::new(parts.hypervisor, lot), ledger));
    };
    let record = node.record();
    let other_cloud = record.cloud.filter(|cloud| *cloud != parts.cloud);
    if record.hypervisor == parts.hypervisor && other_cloud.is_none() {
        return Ok((node, ledger));
    }
    let name = |hypervisor: HypervisorId, cloud: CloudId| format!("hypervisor {hypervisor} of cloud {cloud}");
    Err(Error::OtherLedger {
        path: path.clone(),
        found: name(record.hypervisor, record.cloud.unwrap_or(parts.cloud)),
        configured: name(parts.hypervisor, parts.cloud),
    })
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::Folder { path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    }
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed)?;
    // Whatever the umask says.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}

/// Acts on effects.
struct Actor<L> {
    hands: Arc<Hands<L>>,
    engine: Engine,
    news: Arc<Notify>,
    reserve: Reserve,
    /// Whether the last look succeeded: that the host cannot be seen is said once, not at every look.
    was_seen: Arc<AtomicBool>,
}

impl<L: Link> Actor<L> {
    async fn run(self, mut effects: mpsc::UnboundedReceiver<Effect>) {
        // Dropped with this function, and with it every call.
        let mut acts = JoinSet::new();
        while let Some(effect) = effects.recv().await {
            while acts.try_join_next().is_some() {}
            match effect {
                Effect::Call(call) => {
                    acts.spawn(call_hand(Arc::clone(&self.hands), self.engine.clone(), *call));
                }
                Effect::Observe { ask } => {
                    let (hands, engine) = (Arc::clone(&self.hands), self.engine.clone());
                    acts.spawn(look(hands, engine, Arc::clone(&self.was_seen), ask, self.reserve));
                }
                Effect::Hello | Effect::Report => self.news.notify_one(),
            }
        }
    }
}

async fn call_hand<L: Link>(hands: Arc<Hands<L>>, engine: Engine, call: StageCall) {
    let begun = Instant::now();
    let carried_out = AssertUnwindSafe(hands.carry_out(&call)).catch_unwind().await;
    let outcome = carried_out.unwrap_or_else(|_| {
        Outcome::Failed(Fault {
            code: rpc::FaultCode::Failed.as_str().to_owned(),
            message: "the stage stopped by a defect of the agent; its log says where".to_owned(),
            may_pass: false,
        })
    });
    let (guest, stage, ms) = (call.order.id, call.stage.as_str(), begun.elapsed().as_millis());
    match &outcome {
        Outcome::Done | Outcome::Progress { .. } => tracing::info!(%guest, stage, ms, ?outcome, "stage"),
        Outcome::Failed(_) | Outcome::Cancelled => tracing::warn!(%guest, stage, ms, ?outcome, "stage"),
    }
    // The engine has ended when the agent stops; the node asks again after its restart.
    let _ = engine.give(Input::Ended { call: call.call, outcome }).await;
}

async fn look<L: Link>(
    hands: Arc<Hands<L>>,
    engine: Engine,
    was_seen: Arc<AtomicBool>,
    ask: u64,
    reserve: Reserve,
) {
    let Ok(is_empty) = engine.read(|node| !node.guests().any(|record| record.holds())).await else { return };
    let begun = Instant::now();
    let looked = observe::observe(ask, hands.cloud, reserve, is_empty, &hands.storage, &hands.libvirt).await;
    match (was_seen.swap(looked.is_ok(), Ordering::Relaxed), looked.is_ok()) {
        (false, false) => {}
        (false, true) => tracing::info!("the host is seen again"),
        _ => observe::note(begun, &looked),
    }
    let input = looked.map_or_else(|fault| Input::Unseen { ask, why: fault.message }, Input::Observed);
    // As above.
    let _ = engine.give(input).await;
}
