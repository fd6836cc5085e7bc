//! The agent's own REST: mistify's, for guests that nobody but this host knows (`mistify-wire` §2).
//!
//! ```text
//!  HTTP ──▶ engine (Runners, store) ──calls──▶ hands ──▶ sub-agents
//!              ▲                                 │
//!              └────────────── ended ◀───────────┘
//! ```
//! Actions are data: a plan says which stages of which service carry each out. Deliberately absent: any change of
//! a guest without a job in the log.

mod action;
mod built_in;
mod check;
mod cloud;
pub mod config;
mod containers;
mod engine;
mod hands;
mod http;
mod runners;
pub mod store;
mod throttle;
mod watching;

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

pub use self::config::Plan;
pub use self::http::Profiling;
pub use self::http::guard::{Guard, GuardError};
pub use self::http::listen::{Error as ListenError, Listen};
pub(crate) use cloud::Cloud;
use engine::Engine;
use hands::Hands;
use http::App;
use http::listen::Listeners;
use runners::{Call, Input, Outcome, Runners, Why};
use store::Store;
use throttle::Throttles;

/// What the REST runs with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its socket; the folder is there.
    pub socket: PathBuf,
    /// An address to listen on besides.
    pub listen: Option<Listen>,
    /// What it does for which action.
    pub plan: Plan,
    /// Its store, unless the plan names one; the folder is there.
    pub store: PathBuf,
    /// Whether `/debug/pprof` is there.
    pub profiling: Profiling,
}

/// Why the REST cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its store cannot be used.
    #[error("the store {path} of the agent's REST cannot be used")]
    Store {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: store::Error,
    },
    /// Its thread broke.
    #[error("the engine of the agent's REST stopped by a defect; the log says where")]
    Engine,
}

/// A REST that runs.
pub struct Running {
    address: Option<SocketAddr>,
    ended: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// The TCP address it listens on, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Waits for its end: after the shutdown, or because it cannot go on.
    ///
    /// # Errors
    /// [`Error::Store`] when the store failed for good.
    pub async fn ended(self) -> Result<(), Error> {
        self.ended.await.unwrap_or(Err(Error::Engine))
    }
}

/// Starts the REST; it runs until `shutdown` resolves. Jobs under way go on after the next start.
///
/// # Errors
/// [`Error`] says what stands in the way.
pub async fn start(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, Error> {
    start_beside(Cloud::default(), None, settings, shutdown).await
}

/// Starts the REST with its records on a disk of the caller's, such as one that fails; no file is opened then.
///
/// # Errors
/// As [`start`].
pub async fn start_on(
    disk: Box<dyn haar_store::Disk>,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, Error> {
    start_beside(Cloud::default(), Some(disk), settings, shutdown).await
}

/// Starts the REST of an agent that also has guests of a controller; on the settings' file when no disk is given.
///
/// # Errors
/// As [`start`].
pub(crate) async fn start_beside(
    cloud: Cloud,
    disk: Option<Box<dyn haar_store::Disk>>,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, Error> {
    let listeners = Listeners::bind(&settings.socket, settings.listen).await?;
    let address = listeners.address();
    let plan = Arc::new(settings.plan);
    let path = plan.dbpath.clone().unwrap_or(settings.store);
    let failed = |source| Error::Store { path: path.clone(), source };
    let opened = disk.map_or_else(|| Store::open(&path), Store::on);
    let (store, records) = opened.map_err(failed)?;
    let runners = Runners::restore(Arc::clone(&plan), records);
    let (calls_sender, calls) = mpsc::unbounded_channel();
    let (engine, mut engine_ended) = Engine::start(runners, store, calls_sender);
    let app = Arc::new(App {
        engine: engine.clone(),
        cloud,
        hands: Hands::new(&plan),
        throttles: Throttles::new(plan.limits),
        plan,
        profiling: settings.profiling,
    });
    // The engine is there and takes it.
    let _ = engine.give(Input::Boot).await;
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(act(Arc::clone(&app), calls));
    for (name, service) in app.plan.services.iter().filter(|(_, service)| service.watch) {
        let (app, name, service) = (Arc::clone(&app), name.clone(), service.clone());
        tasks.spawn(async move {
            let watch = || watching::keep(Arc::clone(&app), name.clone(), service.clone());
            watching::without_end(&name, watch).await;
        });
    }
    if let Some(service) = containers::service(&app.plan).cloned() {
        let app = Arc::clone(&app);
        tasks.spawn(async move {
            let watch = || containers::keep(Arc::clone(&app), service.clone());
            watching::without_end("containers", watch).await;
        });
    }
    let serving = tokio::spawn(listeners.serve(app, stopped));
    let ended = tokio::spawn(async move {
        let early = tokio::select! {
            ended = &mut engine_ended => Some(ended),
            () = shutdown => None,
        };
        stop.send_replace(true);
        // What it broke off is in its log.
        let _ = serving.await;
        tasks.shutdown().await;
        drop(engine);
        let ended = match early {
            Some(ended) => ended,
            None => engine_ended.await,
        };
        ended.map_err(|_| Error::Engine)?.map_err(|source| Error::Store { path, source })
    });
    Ok(Running { address, ended })
}

/// Carries out calls until nobody gives any.
async fn act(app: Arc<App>, mut calls: mpsc::UnboundedReceiver<Call>) {
    // Dropped with this function, and with it every call.
    let mut under_way = JoinSet::new();
    while let Some(call) = calls.recv().await {
        while under_way.try_join_next().is_some() {}
        let app = Arc::clone(&app);
        under_way.spawn(async move {
            let (seq, step) = (call.seq, call.step.clone());
            let (owner, method) = (call.owner, call.method.clone());
            let carried_out = AssertUnwindSafe(carry_out(&app, call)).catch_unwind().await;
            let outcome = carried_out.unwrap_or_else(|_| Outcome::Failed {
                message: "the stage stopped by a defect of the agent; its log says where".to_owned(),
                why: Why::Other,
            });
            match &outcome {
                Outcome::Failed { message, .. } => {
                    tracing::warn!(%owner, method, why = message, "a stage failed");
                }
                Outcome::Guest { .. } | Outcome::Told(_) | Outcome::Done => {
                    tracing::info!(%owner, method, "a stage is done");
                }
            }
            // The engine has ended when the agent stops; the job goes on after its restart.
            let _ = app.engine.give(Input::Ended { seq, step, outcome }).await;
        });
    }
}

async fn carry_out(app: &App, call: Call) -> Outcome {
    // The storage, which minds its readers, is not asked.
    if call.step.forgets() && app.throttles.streams(call.owner) {
        let message =
            "a snapshot of this guest is being downloaded; ask again when that has ended".to_owned();
        return Outcome::Failed { message, why: Why::Other };
    }
    app.hands.carry_out(call).await
}
