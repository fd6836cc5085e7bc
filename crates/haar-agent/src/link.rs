//! Between agent and controller: what is said, and when. The agent dials; the controller never does.
//!
//! [`Link`] is the way there: [`http::HttpLink`] for the real one, a double in tests. `pull` keeps a poll for the
//! desired set open, which is the heartbeat too; `talk` says hello and reports. Both try again for ever, with a
//! growing pause that chance makes uneven, so that a controller that comes back is not run over.

pub mod http;
pub(crate) mod pull;
pub(crate) mod talk;
mod wire;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use haar_core::fence::Fence;
use haar_core::id::{CloudId, GuestId, HypervisorId, ImageId};
use haar_core::order::{DesiredSet, Hello, Report};
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

/// The way to the controller.
pub trait Link: Send + Sync + 'static {
    /// Bytes both ways after a stream was dialled.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin;

    /// Joins with this ledger.
    fn hello(&self, hello: &Hello) -> impl Future<Output = Result<Welcome, LinkError>> + Send;

    /// Asks for the desired set newer than `since` and waits at most `wait` for one; None when there is none.
    fn feed(
        &self,
        since: Option<Fence>,
        wait: Duration,
    ) -> impl Future<Output = Result<Option<Fed>, LinkError>> + Send;

    /// Reports, and says which items of the feed could not be read.
    fn report(
        &self,
        report: &Report,
        unsupported: &[Unsupported],
    ) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// A blob of one of its guests.
    fn blob(&self, sha256: &str) -> impl Future<Output = Result<Vec<u8>, LinkError>> + Send;

    /// Dials a stream somebody waits for.
    fn stream(&self, ticket: &str) -> impl Future<Output = Result<Self::Stream, LinkError>> + Send;

    /// Where the storage sub-agent fetches an image that lies with the controller: address and `Authorization`.
    fn image_source(&self, image: ImageId) -> (String, String);
}

/// The answer to a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The controller's cloud.
    pub cloud: CloudId,
    /// Whom the controller takes the speaker for.
    pub hypervisor: HypervisorId,
    /// Which life of the ledger this is.
    pub incarnation: u64,
}

/// What a poll brought.
#[derive(Debug, Clone)]
pub struct Fed {
    /// What shall be.
    pub set: DesiredSet,
    /// Streams somebody waits for.
    pub streams: Vec<Ticket>,
    /// Items that this release cannot read.
    pub unsupported: Vec<Unsupported>,
    /// Every image the controller has; None when it does not say.
    pub catalogue: Option<BTreeSet<ImageId>>,
}

/// An item of the feed that this release cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The item's id.
    pub id: Uuid,
    /// What cannot be read.
    pub reason: String,
}

/// A stream somebody waits for, to be dialled once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The word to dial with.
    pub ticket: String,
    /// Whose.
    pub guest: GuestId,
    /// What of it.
    pub kind: StreamKind,
}

/// What is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The serial console, both ways.
    Console,
    /// The console's log.
    Log {
        /// Bytes of its end to begin with.
        tail: u64,
        /// Whether it goes on with what is added.
        follow: bool,
    },
}

/// Why the controller has no answer, or a no for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody answers; asked again later.
    #[error("the controller cannot be reached: {0}")]
    Unreachable(String),
    /// It no longer takes this incarnation's word.
    #[error("the controller knows a newer life of this hypervisor's ledger: {0}")]
    StaleIncarnation(String),
    /// Its reasoned no.
    #[error("the controller refuses ({code}): {message}")]
    Refused {
        /// Its stable code.
        code: String,
        /// Its words.
        message: String,
    },
    /// What it said cannot be read.
    #[error("the controller's answer cannot be read: {0}; are its version and this one's the same?")]
    Unreadable(String),
}

/// The pause before something is tried again: doubles up to a limit, and up to a half of it is chance.
#[derive(Debug)]
pub(crate) struct Pause {
    next: Duration,
}

impl Pause {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    pub(crate) fn new() -> Pause {
        Pause { next: Pause::SHORTEST }
    }

    /// It went well: the next pause is short again.
    pub(crate) fn reset(&mut self) {
        self.next = Pause::SHORTEST;
    }

    pub(crate) async fn wait(&mut self) {
        let whole = self.next;
        self.next = (whole * 2).min(Pause::LONGEST);
        tokio::time::sleep(whole / 2 + (whole / 2).mul_f64(chance())).await;
    }
}

/// A number in 0..1, good enough to keep agents from knocking in step.
fn chance() -> f64 {
    f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}
