//! Where the REST listens: a socket that only its owner can open, and TCP when configured; at an address that
//! another machine could reach only behind a [`Guard`].
//!
//! At most so many connections; headers in time; requests under way are finished at the end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use haar_api::linger::Linger;
use haar_api::unread::Worded;
use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderMap};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower_http::compression::Compression;
use tower_http::compression::predicate::{Predicate, SizeAbove};

use super::guard::Guard;
use super::host::Door;
use super::progress::Progress;
use super::{App, handle, reply};

/// Connections at once.
const MOST_CONNECTIONS: usize = 512;
/// Bytes of a request's headers.
const MOST_HEADERS: usize = 64 << 10;
/// How long the headers may take, and a connection may be idle.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Bytes of a document that is worth making smaller.
const LARGE: u16 = 1024;
/// How long a client may take nothing of what it is sent.
const TAKE_TIME: Duration = Duration::from_secs(120);
/// How long requests may take to finish once the agent shall end.
const FINISH_TIME: Duration = Duration::from_secs(5);

/// Why the REST cannot be listened for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Everybody would be root.
    #[error(
        "[rest] listen = \"{0}\" is not a loopback address, and whoever reaches it is root: set certificate, key and token_file beside it, for TLS and a token, or listen on 127.0.0.1 and reach it through ssh -L"
    )]
    NotLoopback(SocketAddr),
    /// The port cannot be had.
    #[error("cannot listen on {address} for the agent's REST; is another process using it?")]
    Port {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be had.
    #[error("cannot listen on the socket {path} for the agent's REST")]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A TCP address, and what stands before it.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The address; only a loopback one needs no guard.
    pub address: SocketAddr,
    /// TLS and a token.
    pub guard: Option<Guard>,
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Listen {
        Listen { address, guard: None }
    }
}

/// Everything listened on.
pub(crate) struct Listeners {
    unix: UnixListener,
    path: PathBuf,
    tcp: Option<TcpListener>,
    guard: Option<Arc<Guard>>,
}

impl Drop for Listeners {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listeners {
    /// Takes the socket and the port; the socket's folder is there.
    pub(crate) async fn bind(path: &Path, listen: Option<Listen>) -> Result<Listeners, Error> {
        let tcp = match &listen {
            None => None,
            Some(Listen { address, guard: None }) if !address.ip().is_loopback() => {
                return Err(Error::NotLoopback(*address));
            }
            Some(Listen { address, .. }) => {
                let address = *address;
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| Error::Port { address, source })?)
            }
        };
        let failed = |source| Error::Socket { path: path.to_owned(), source };
        let unix = bind_unix(path).map_err(failed)?;
        let guard = listen.and_then(|listen| listen.guard).map(Arc::new);
        Ok(Listeners { unix, path: path.to_owned(), tcp, guard })
    }

    /// The port taken, if any.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Serves until told to stop, then lets requests finish.
    pub(crate) async fn serve(self, app: Arc<App>, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        // Owned here, so that nothing of a connection outlives the server.
        let mut connections = JoinSet::new();
        loop {
            // Whoever comes when there are too many waits to be accepted.
            let permit = tokio::select! {
                permit = Arc::clone(&permits).acquire_owned() => permit,
                () = told(&mut stop) => break,
            };
            let Ok(permit) = permit else { break };
            let tcp = async {
                match &self.tcp {
                    Some(tcp) => tcp.accept().await,
                    None => std::future::pending().await,
                }
            };
            let (app, stop_too) = (Arc::clone(&app), stop.clone());
            let broken = tokio::select! {
                accepted = self.unix.accept() => match accepted {
                    Ok((stream, _)) => {
                        let door = Door::Socket;
                        connections.spawn(async move { serve(app, stream, stop_too, door).await; drop(permit) });
                        None
                    }
                    Err(error) => Some(error),
                },
                accepted = tcp => match accepted {
                    Ok((stream, _)) => {
                        // Answers are small and wanted at once.
                        let _ = stream.set_nodelay(true);
                        let guard = self.guard.clone();
                        connections.spawn(async move { serve_tcp(app, stream, stop_too, guard).await; drop(permit) });
                        None
                    }
                    Err(error) => Some(error),
                },
                () = told(&mut stop) => break,
            };
            if let Some(error) = broken {
                // Out of files, most likely: give connections time to end.
                tracing::warn!(%error, "a connection to the agent's REST cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            while connections.try_join_next().is_some() {}
        }
        let finished = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH_TIME, finished).await.is_err() {
            tracing::warn!("some requests to the agent's REST did not finish in time and are cut off");
        }
        connections.shutdown().await;
    }
}

/// Waits until it is told to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    // Whoever would tell is gone: that is a stop too.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn serve_tcp(app: Arc<App>, stream: TcpStream, stop: watch::Receiver<bool>, guard: Option<Arc<Guard>>) {
    let Some(guard) = guard else { return serve(app, stream, stop, Door::Port).await };
    match guard.greet(stream).await {
        Ok(stream) => serve(app, stream, stop, Door::Guarded(guard)).await,
        Err(error) => tracing::debug!(%error, "no TLS came about with a client of the agent's REST"),
    }
}

async fn serve<S>(app: Arc<App>, stream: S, mut stop: watch::Receiver<bool>, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = tower::service_fn(move |request| handle(Arc::clone(&app), request, door.clone()));
    let service = TowerToHyperService::new(Compression::new(service).compress_when(is_large_document()));
    let stream = Worded::new(Linger::new(Progress::new(stream, TAKE_TIME)), reply::unread);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MOST_HEADERS)
        // As the seed's clients know them.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the agent's REST ended badly");
    }
}

/// What is made smaller for a client that can take it so. Streams go as they come: what they are parts of is known by
/// its bytes.
fn is_large_document() -> impl Predicate {
    let is_document = |_, _, headers: &HeaderMap, _: &Extensions| {
        headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
    };
    SizeAbove::new(LARGE).and(is_document)
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    // The mode is set before there is a name, so that there is no moment in which others may connect.
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::new(128)?)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// A socket that nobody answers on is left over from a process that was killed.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket stands there"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "a running process answers on it")),
        Err(_) => std::fs::remove_file(path),
    }
}
