//! What a controller is started with.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use haar_core::address::Cidr;
use haar_store::Disk;

use crate::engine::OnFatal;

/// How a controller is started.
pub struct Config {
    /// The data folder; made if need be.
    pub data: PathBuf,
    /// Where it listens; loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The range of the subnet `default`, made at the first start.
    pub default_range: Cidr,
    /// Name servers told to guests of that subnet.
    pub default_dns: Vec<IpAddr>,
    /// Whether an admin's token is made.
    pub admin: AdminToken,
    /// Another store than the file in the data folder.
    pub disk: Option<Box<dyn Disk>>,
    /// Events kept for those who follow; fixed when the store is made.
    pub events_kept: u64,
    /// How much of everything is taken.
    pub limits: Limits,
    /// Called when the engine cannot go on; the process ends unless this says otherwise.
    pub on_fatal: OnFatal,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("data", &self.data)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Whether an admin's token is made at this start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminToken {
    /// At the first start only.
    First,
    /// At this start in any case: for whoever owns the data folder and has lost the token. Others stay;
    /// delete what is lost.
    Fresh,
}

/// How much of everything is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Bytes of a JSON body.
    pub json_bytes: usize,
    /// Bytes of an uploaded image.
    pub image_bytes: u64,
    /// Bytes of the data folder's file system that uploads leave free for the books.
    pub spare_bytes: u64,
    /// How long an upload may be silent.
    pub upload_silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 1_024,
            json_bytes: 1 << 20,
            image_bytes: 1 << 40,
            spare_bytes: 512 << 20,
            upload_silence: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// The usual: everything in `data`, listening on `listen`.
    pub fn new(data: impl Into<PathBuf>, listen: SocketAddr) -> Config {
        Config {
            data: data.into(),
            listen,
            default_range: "10.77.0.0/24".parse().expect("a range without host bits"),
            default_dns: Vec::new(),
            admin: AdminToken::First,
            disk: None,
            events_kept: 100_000,
            limits: Limits::default(),
            on_fatal: Box::new(|cause| {
                tracing::error!(cause, "the controller cannot go on");
                std::process::exit(1);
            }),
        }
    }
}
