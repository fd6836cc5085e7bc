//! Connections to libvirtd: a bounded pool whose calls run on blocking threads under a time limit.
//!
//! Promised: a dead connection is noticed at check-out, by asking libvirtd something, and replaced; a
//! missing libvirtd is an `unavailable` fault that says how to start it, and the first call after its
//! return succeeds; a call that hangs holds one slot and its guest's turn, never the caller.
//! Deliberately absent: retries. A call that broke in the middle is the caller's to ask again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode};
use tokio::sync::{Semaphore, oneshot};
use virt::connect::Connect;
use virt::error::{Error, ErrorDomain, ErrorNumber};
use virt::event;

/// libvirtd is asked for a sign of life this often (seconds), and given up after so many silences.
const KEEP_ALIVE: (i32, u32) = (5, 4);

/// The pool. Clones share it.
#[derive(Clone)]
pub(crate) struct Pool {
    uri: Arc<str>,
    idle: Arc<Mutex<Vec<Connect>>>,
    slots: Arc<Semaphore>,
}

/// Starts the thread that libvirt's client needs for its signs of life, and for events. Once per process, before any
/// pool. What it answers resolves when that thread has ended.
///
/// # Errors
/// libvirt's, when it cannot set up its event loop.
pub(crate) fn start_event_loop() -> Result<oneshot::Receiver<()>, Error> {
    virt::error::clear_error_callback();
    event::event_register_default_impl()?;
    let (alive, ended) = oneshot::channel();
    std::thread::spawn(move || {
        // Dropped also by a panic.
        let _alive: oneshot::Sender<()> = alive;
        while let Ok(()) = event::event_run_default_impl() {}
    });
    Ok(ended)
}

impl Pool {
    /// A pool for this URI with at most `most` calls at once; connects when first asked.
    pub(crate) fn new(uri: &str, most: usize) -> Self {
        Pool { uri: uri.into(), idle: Arc::default(), slots: Arc::new(Semaphore::new(most)) }
    }

    /// The pool speaks to libvirt's test driver, which lives inside this process.
    pub(crate) fn is_test_driver(&self) -> bool {
        self.uri.starts_with("test:")
    }

    /// Runs `work` with a live connection, on a blocking thread, and waits at most `limit` for it.
    ///
    /// `hold` is dropped when the work has really ended, which may be after the limit.
    ///
    /// # Errors
    /// What `work` answers; `unavailable` when libvirtd is missing, hangs or is too busy.
    pub(crate) async fn run<T, H, W>(&self, limit: Duration, hold: H, work: W) -> Result<T, Fault>
    where
        T: Send + 'static,
        H: Send + 'static,
        W: FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    {
        let pool = self.clone();
        let call = async move {
            let slot = Arc::clone(&pool.slots).acquire_owned().await;
            let task = tokio::task::spawn_blocking(move || {
                let outcome = pool.run_now(work);
                drop((slot, hold));
                outcome
            });
            task.await.unwrap_or_else(|panic| {
                Err(Fault::new(FaultCode::Failed, format!("the call to libvirt broke down: {panic}")))
            })
        };
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            Err(Fault::new(
                FaultCode::Unavailable,
                format!(
                    "libvirtd did not answer within {} s: the call may still end; if this lasts, restart libvirtd (guests run on)",
                    limit.as_secs()
                ),
            ))
        })
    }

    fn run_now<T>(&self, work: impl FnOnce(&Connect) -> Result<T, Fault>) -> Result<T, Fault> {
        let connection = self.check_out()?;
        let outcome = work(&connection);
        if !matches!(&outcome, Err(fault) if fault.code == FaultCode::Unavailable) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        outcome
    }

    fn check_out(&self) -> Result<Connect, Fault> {
        loop {
            // The lock ends with this line: asking libvirtd may take long.
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                // Whether the socket is open says too little; an answer says it lives.
                Some(connection) if connection.get_lib_version().is_ok() => return Ok(connection),
                Some(_dead) => {}
                None => return self.open(),
            }
        }
    }

    /// A connection beside the pool.
    ///
    /// # Errors
    /// `unavailable`, with words how to start libvirtd.
    pub(crate) fn open(&self) -> Result<Connect, Fault> {
        let connection = Connect::open(Some(&self.uri)).map_err(|error| {
            Fault::new(
                FaultCode::Unavailable,
                format!(
                    "libvirtd does not answer at {} ({}): start it with `systemctl start libvirtd`, or without systemd with `virtlogd -d && libvirtd -d`",
                    self.uri,
                    error.message()
                ),
            )
        })?;
        // The test driver has no peer that could fall silent, and says so; nothing is lost.
        let _ = connection.set_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1);
        Ok(connection)
    }
}

/// libvirt's error as a fault: `doing` says what was tried, such as "start the domain".
pub(crate) fn fault(doing: &str, error: &Error) -> Fault {
    let code = match error.code() {
        ErrorNumber::NoDomain | ErrorNumber::NoNetwork => FaultCode::NotFound,
        ErrorNumber::NoConnect | ErrorNumber::Rpc | ErrorNumber::OperationTimeout => FaultCode::Unavailable,
        ErrorNumber::XmlError
        | ErrorNumber::XmlDetail
        | ErrorNumber::ConfigUnsupported
        | ErrorNumber::InvalidArg => FaultCode::Invalid,
        // The socket to libvirtd or from there to virtlogd broke.
        _ if matches!(error.domain(), ErrorDomain::Rpc | ErrorDomain::Remote) => FaultCode::Unavailable,
        _ => FaultCode::Failed,
    };
    let mut message = format!("libvirt could not {doing}: {}", error.message());
    if error.message().contains("virtlogd") {
        message.push_str("; start it with `systemctl start virtlogd`, or without systemd with `virtlogd -d`");
    }
    Fault::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_missing_libvirtd_is_unavailable_and_says_how_to_start_it() {
        let pool = Pool::new("qemu+unix:///system?socket=/nonexistent/libvirt-sock", 1);
        let fault = pool.run(LIMIT, (), |_| Ok(())).await.unwrap_err();
        assert_eq!(fault.code, FaultCode::Unavailable);
        assert!(fault.message.contains("libvirtd -d"), "{fault}");
    }

    #[tokio::test]
    async fn a_call_over_its_limit_answers_and_keeps_its_hold_until_it_ends() {
        let pool = Pool::new("test:///default", 1);
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let hold = Arc::new(());
        let held = Arc::clone(&hold);
        let limit = Duration::from_millis(200);
        let fault = pool.run(limit, held, move |_| Ok(wait.recv().is_ok())).await.unwrap_err();
        assert_eq!(fault.code, FaultCode::Unavailable);
        assert_eq!(Arc::strong_count(&hold), 2, "the work goes on, so the guest is still held");
        end.send(()).unwrap();
        let deadline = std::time::Instant::now() + LIMIT;
        while Arc::strong_count(&hold) > 1 {
            assert!(std::time::Instant::now() < deadline, "the hold was never dropped");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn v9_a_hung_call_starves_nobody_for_longer_than_the_limit() {
        let pool = Pool::new("test:///default", 1);
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let hung = pool.run(Duration::from_millis(50), (), move |_| Ok(wait.recv().is_ok())).await;
        assert_eq!(hung.unwrap_err().code, FaultCode::Unavailable);
        // The only slot is still held; whoever wants it is told so in time.
        let waited = pool.run(Duration::from_millis(50), (), |_| Ok(())).await.unwrap_err();
        assert!(waited.message.contains("did not answer"), "{waited}");
        end.send(()).unwrap();
        assert_eq!(pool.run(LIMIT, (), |_| Ok(7)).await, Ok(7), "and the slot comes back");
    }

    #[tokio::test]
    async fn a_panic_in_a_call_costs_only_that_call() {
        let pool = Pool::new("test:///default", 1);
        let broken = pool.run::<(), _, _>(LIMIT, (), |_| panic!("boom")).await.unwrap_err();
        assert_eq!(broken.code, FaultCode::Failed);
        assert_eq!(pool.run(LIMIT, (), |_| Ok(1)).await, Ok(1));
        assert_eq!(pool.slots.available_permits(), 1);
    }
}
