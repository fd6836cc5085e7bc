//! Starting and ending a controller.
//!
//! The end is: stop accepting, let requests finish or hand them back, close long polls and event streams,
//! commit what waits, close the store, give the data folder free.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use haar_store::{Disk, Meter, Options, RedbDisk};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{AdminToken, Config};
use crate::engine::{Engine, LoadError, load};
use crate::folder::{self, Folder};
use crate::founding::{self, Bootstrap, FoundError};
use crate::http::listen::{self, ListenError};
use crate::http::{App, cloud, routes};
use crate::images::Images;
use crate::liveness::Clock;
use crate::metrics::Metrics;
use crate::streams::Streams;

/// How often the books are checked by themselves.
const CHECK_PAUSE: Duration = Duration::from_secs(60);
/// How long at least between two looks of those who hold something open.
const TOKENS_PAUSE: Duration = Duration::from_millis(250);
/// How long spliced streams may take to end.
const STREAM_TIME: Duration = Duration::from_secs(5);

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] haar_store::Error),
    /// The books cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The first start failed.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// The images' folder, or a thread, cannot be had.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The token asked for could not be made.
    #[error("a fresh admin's token cannot be made: {0}")]
    Admin(String),
}

/// A controller that serves.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What was made at this start, secrets included; told once.
    pub bootstrap: Option<Bootstrap>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Waits until it has ended: the last commit is done and the data folder free.
    pub async fn wait(self) {
        if let Err(error) = self.serving.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Starts a controller. It ends when `shutdown` does.
///
/// # Errors
/// [`Error`] says what is in the way and what to do; nothing is left running.
pub async fn start(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, Error> {
    let listener = listen::bind(config.listen).await?;
    let local =
        listener.local_addr().map_err(|source| ListenError::Bind { address: config.listen, source })?;
    let opened = tokio::task::spawn_blocking(move || Opened::open(config)).await;
    let opened = opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let Opened { folder, engine, images, meter, mut bootstrap, admin, limits } = opened;
    if admin == AdminToken::Fresh && bootstrap.is_none() {
        let (command, admin) = founding::another_admin();
        engine.submit(command).await.map_err(|failure| Error::Admin(failure.to_string()))?;
        bootstrap = Some(Bootstrap { cloud: engine.read(|fleet| fleet.config().cloud), admin });
    }
    let app = Arc::new(App {
        engine,
        streams: Streams::default(),
        images,
        limits,
        stopping: CancellationToken::new(),
        token_check: Notify::new(),
        tasks: TaskTracker::new(),
        started: Instant::now(),
        host: host_name(),
        checked: Mutex::default(),
        checking: tokio::sync::Mutex::default(),
        meter,
    });
    tracing::info!(address = %local, fence = %app.engine.read(haar_core::fleet::Fleet::fence), "listening");
    let serving = tokio::spawn(serve(app, listener, folder, shutdown));
    Ok(Running { addr: local, bootstrap, serving })
}

/// What is opened in a thread, for disks block.
struct Opened {
    folder: Folder,
    engine: Engine,
    images: Images,
    meter: Option<Arc<Meter>>,
    bootstrap: Option<Bootstrap>,
    admin: AdminToken,
    limits: crate::config::Limits,
}

impl Opened {
    fn open(config: Config) -> Result<Opened, Error> {
        let folder = Folder::open(&config.data)?;
        let (mut disk, meter): (Box<dyn Disk>, _) = match config.disk {
            Some(disk) => (disk, None),
            None => {
                let disk = RedbDisk::open(folder.store(), Options::default())?;
                let meter = disk.meter();
                (Box::new(disk), Some(meter))
            }
        };
        let clock = Clock::start();
        let (books, bootstrap) = match load(&mut *disk, clock.now())? {
            Some(books) => (books, None),
            None => {
                let kept = config.events_kept;
                let made = founding::found(&mut *disk, config.default_range, &config.default_dns, kept)?;
                let books = load(&mut *disk, clock.now())?.ok_or(LoadError::NoConfig)?;
                (books, Some(made))
            }
        };
        let io = |doing| move |source| Error::Io { doing, source };
        let images = Images::open(folder.images(), &config.limits, &books.fleet);
        let images = images.map_err(io("tidy the folder of images"))?;
        let engine = Engine::start(disk, books, clock, Metrics::new(), config.on_fatal);
        let engine = engine.map_err(io("start the engine's thread"))?;
        let (admin, limits) = (config.admin, config.limits);
        Ok(Opened { folder, engine, images, meter, bootstrap, admin, limits })
    }
}

async fn serve(
    app: Arc<App>,
    listener: tokio::net::TcpListener,
    folder: Folder,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let accepting = listen::accept(Arc::clone(&app), listener, routes::router(Arc::clone(&app)));
    tokio::pin!(accepting);
    tokio::select! {
        () = &mut accepting => {}
        () = shutdown => {
            tracing::info!("stopping");
            app.stopping.cancel();
            app.engine.wake_everybody();
            accepting.await;
        }
        () = check_now_and_then(&app) => {}
        () = let_holders_look(&app) => {}
    }
    app.tasks.close();
    if tokio::time::timeout(STREAM_TIME, app.tasks.wait()).await.is_err() {
        tracing::warn!("some streams did not end in time");
    }
    app.engine.stop().await;
    drop(folder);
    tracing::info!("stopped");
}

/// Never ends by itself.
async fn check_now_and_then(app: &App) {
    let mut pause = tokio::time::interval(CHECK_PAUSE);
    loop {
        pause.tick().await;
        let view = cloud::check_books(app).await;
        for fault in &view.faults {
            tracing::error!(rule = fault.rule, "the books do not balance: {}", fault.message);
        }
    }
}

/// Lets whoever holds something open look whether its token is still there, whatever it was that changed
/// the books: removals also come from a hypervisor's, and to light after a commit in doubt. Not at every
/// commit, for many may wait. Never ends by itself.
async fn let_holders_look(app: &App) {
    let mut ring = app.engine.events.watch();
    while ring.changed().await.is_ok() {
        app.token_check.notify_waiters();
        tokio::time::sleep(TOKENS_PAUSE).await;
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}
