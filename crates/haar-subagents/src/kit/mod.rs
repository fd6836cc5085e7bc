//! What every sub-agent stands on: a JSON-RPC server of the seed's kind (`mistify-wire` §2.7), a lock per
//! guest, a small client, and how programs of the host are run.
//!
//! Promised: a method's panic answers an error and nothing else; a method that has begun runs to its end
//! even when the caller goes away, for it may be half done; at most [`MAX_CALLS`] methods run at once and
//! further calls wait; a body over [`MAX_BODY_BYTES`] is refused.
//! Deliberately absent: authentication (the socket's mode is it, design §11.14), TLS, batches; a stream is a route of its own
//! ([`Server::route`]).
//!
//! ```no_run
//! use haar_api::rpc;
//! use haar_subagents::kit;
//!
//! # async fn example() -> Result<(), kit::Error> {
//! let mut server = kit::Server::new();
//! server.method("ImageStore.ListImages", |_: rpc::ImageRequest| async {
//!     Ok::<_, rpc::Fault>(rpc::ImageResponse::default())
//! });
//! let listen = kit::Listen::Unix("/run/haar/storage.sock".into());
//! server.serve(listen, std::future::pending()).await
//! # }
//! ```

mod client;
mod envelope;
mod listen;
mod per_guest;
pub mod program;
mod server;

pub use client::{CallError, call};
pub use listen::{Error, Listen};
pub use per_guest::{PerGuest, Turn, per_guest};
pub use server::{Bound, Caller, Server};

/// Bytes a request's body may have.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Methods that run at once; further calls wait for their turn.
pub const MAX_CALLS: usize = 64;

/// How long a caller may take to send its body.
pub const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// How long running calls may take to end once the server was asked to stop.
pub const SHUTDOWN_GRACE: std::time::Duration = std::time::Duration::from_secs(10);
