//! A TCP proxy that does to a connection what bad networks do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Manner {
    /// They pass.
    Pass,
    /// Connections are accepted, and nothing ever passes.
    Hang,
    /// What is there goes on; what comes is accepted, and nothing of it passes.
    HangNew,
    /// Connections are accepted and closed.
    Close,
    /// They pass, each piece a moment late.
    Delay,
    /// They pass, 64 KiB in a tenth of a second.
    Slow,
}

/// A proxy on a port of its own; ends when dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    manner: Arc<AtomicU8>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(port: u16, manner: Manner) -> Self {
        Self::at("127.0.0.1", port, manner).await
    }

    /// The same on another address of this machine.
    pub(crate) async fn at(address: &str, port: u16, manner: Manner) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (manner, accepted) = (Arc::new(AtomicU8::new(manner as u8)), Arc::new(AtomicUsize::new(0)));
        let (mode, count) = (Arc::clone(&manner), Arc::clone(&accepted));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                match mode.load(Ordering::SeqCst) {
                    manner if manner == Manner::Close as u8 => {}
                    manner if manner == Manner::HangNew as u8 => {
                        connections.spawn(hold(near));
                    }
                    _ => {
                        connections.spawn(carry(near, port, Arc::clone(&mode)));
                    }
                }
            }
        });
        Self { port: own, manner, accepted, task }
    }

    /// From now on, also for connections that are there.
    pub(crate) fn set(&self, manner: Manner) {
        self.manner.store(manner as u8, Ordering::SeqCst);
    }

    /// How many connections were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hold(connection: TcpStream) {
    std::future::pending::<()>().await;
    drop(connection);
}

async fn carry(near: TcpStream, port: u16, mode: Arc<AtomicU8>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(pipe(near_read, far_write, Arc::clone(&mode)), pipe(far_read, near_write, mode));
}

async fn pipe(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mode: Arc<AtomicU8>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if mode.load(Ordering::SeqCst) == Manner::Hang as u8 {
            std::future::pending::<()>().await;
        }
        if mode.load(Ordering::SeqCst) == Manner::Delay as u8 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        if mode.load(Ordering::SeqCst) == Manner::Slow as u8 {
            tokio::time::sleep(Duration::from_millis(100).mul_f64(length as f64 / bytes.len() as f64)).await;
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
