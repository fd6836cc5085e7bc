//! Streams somebody waits for at the controller: the agent dials, then passes bytes (design §11.12).
//!
//! A console is the domain's serial socket, both ways. A log is the file's end, and what is added to it when it is
//! followed. A stream that cannot be opened is dialled all the same and closed, so that nobody waits in vain; a
//! console says why before. One console is open for each guest: QEMU serves one, and a second would wait mutely.

use std::collections::BTreeSet;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haar_api::rpc;
use haar_core::id::GuestId;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::link::{Link, StreamKind, Ticket};
use crate::stages::Hands;

/// Streams open at once; further ones wait.
const MOST_OPEN: usize = 64;
/// How long libvirt may take to tell where a console is.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether a followed log has grown.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The guests whose console is open.
#[derive(Debug, Clone, Default)]
struct Consoles(Arc<Mutex<BTreeSet<GuestId>>>);

/// An open console; closed when dropped.
struct OpenConsole {
    consoles: Consoles,
    guest: GuestId,
}

impl Consoles {
    fn guests(&self) -> std::sync::MutexGuard<'_, BTreeSet<GuestId>> {
        // A set is whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None when it is open already.
    fn open(&self, guest: GuestId) -> Option<OpenConsole> {
        let is_free = self.guests().insert(guest);
        is_free.then(|| OpenConsole { consoles: self.clone(), guest })
    }
}

impl Drop for OpenConsole {
    fn drop(&mut self) {
        self.consoles.guests().remove(&self.guest);
    }
}

/// Serves tickets until their sender is gone.
pub(crate) async fn serve<L: Link>(hands: Arc<Hands<L>>, mut tickets: mpsc::Receiver<Ticket>) {
    let slots = Arc::new(Semaphore::new(MOST_OPEN));
    let consoles = Consoles::default();
    // Dropped with this function, and with it every stream.
    let mut open = JoinSet::new();
    while let Some(ticket) = tickets.recv().await {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        while open.try_join_next().is_some() {}
        let (hands, consoles) = (Arc::clone(&hands), consoles.clone());
        open.spawn(async move {
            let _slot = slot;
            if let Err(error) = stream(&hands, &consoles, &ticket).await {
                tracing::warn!(guest = %ticket.guest, kind = ?ticket.kind, error, "a stream broke off");
            }
        });
    }
}

async fn stream<L: Link>(hands: &Hands<L>, consoles: &Consoles, ticket: &Ticket) -> Result<(), String> {
    let place = place_of(hands, ticket).await;
    let mut peer = hands.link.stream(&ticket.ticket).await.map_err(|error| error.to_string())?;
    let passed = match (ticket.kind, place) {
        (StreamKind::Console, place) => {
            let socket = place.map(|extra| extra.console_socket);
            one_console(consoles, ticket.guest, socket, &mut peer).await
        }
        (StreamKind::Log { tail, follow }, Ok(extra)) => {
            log(Path::new(&extra.console_log), tail, follow, &mut peer).await
        }
        (StreamKind::Log { .. }, Err(why)) => Err(std::io::Error::other(why)),
    };
    // The other side may have closed first.
    let _ = peer.shutdown().await;
    passed.map_err(|error| error.to_string())
}

async fn place_of<L: Link>(hands: &Hands<L>, ticket: &Ticket) -> Result<rpc::GuestExtra, String> {
    let guest = rpc::Guest {
        id: ticket.guest.to_string(),
        haar: Some(rpc::GuestExtra { cloud: hands.cloud.to_string(), ..rpc::GuestExtra::default() }),
        ..rpc::Guest::default()
    };
    let request = rpc::GuestRequest { guest: Some(guest), ..rpc::GuestRequest::default() };
    let asked = hands.libvirt.ask::<_, rpc::GuestResponse>("Libvirt.Status", &request, LIMIT).await;
    let answer = asked.map_err(|fault| fault.message)?;
    answer.guest.and_then(|guest| guest.haar).ok_or_else(|| "the guest has no console".to_owned())
}

/// The console, or words why not: whoever is there reads a terminal.
async fn one_console<S>(
    consoles: &Consoles,
    guest: GuestId,
    socket: Result<String, String>,
    peer: &mut S,
) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(_open) = consoles.open(guest) else {
        let words =
            "the guest's console is open elsewhere and serves one at a time; close that one first\r\n";
        return peer.write_all(words.as_bytes()).await;
    };
    let connected = match socket {
        Ok(socket) => UnixStream::connect(socket).await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    match connected {
        Ok(socket) => console(socket, peer).await,
        Err(why) => {
            peer.write_all(format!("the guest's console cannot be opened: {why}\r\n").as_bytes()).await?;
            Err(std::io::Error::other(why))
        }
    }
}

async fn console<S>(mut console: UnixStream, peer: &mut S) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::io::copy_bidirectional(&mut console, peer).await.map(|_| ())
}

async fn log<S>(path: &Path, tail: u64, follow: bool, peer: &mut S) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(peer);
    let send = async {
        let mut file = File::open(path).await?;
        let length = file.metadata().await?.len();
        let mut at = file.seek(SeekFrom::Start(length.saturating_sub(tail))).await?;
        loop {
            at += tokio::io::copy(&mut file, &mut writer).await?;
            writer.flush().await?;
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
            // A log that was rotated begins anew under its name.
            if tokio::fs::metadata(path).await.is_ok_and(|metadata| metadata.len() < at) {
                file = File::open(path).await?;
                at = 0;
            }
        }
    };
    // Nothing comes from the other side but its end.
    let gone = async {
        let mut byte = [0];
        loop {
            match reader.read(&mut byte).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    if !follow {
        return send.await;
    }
    tokio::select! {
        sent = send => sent,
        () = gone => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_some(stream: &mut (impl AsyncRead + Unpin), until: &str) -> String {
        let mut text = String::new();
        let mut bytes = [0; 64];
        while !text.contains(until) {
            let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut bytes)).await;
            let count = read.unwrap().unwrap();
            assert!(count > 0, "ended after {text:?}");
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn a_log_is_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let (mut near, mut far) = tokio::io::duplex(1024);
        log(&path, 6, false, &mut far).await.unwrap();
        drop(far);
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "three\n");
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_after_it_was_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "a long first part\n").unwrap();
        let (mut near, mut far) = tokio::io::duplex(1024);
        let follower = {
            let path = path.clone();
            tokio::spawn(async move { log(&path, 1000, true, &mut far).await })
        };
        read_some(&mut near, "first part\n").await;
        std::fs::rename(&path, folder.path().join("log.0")).unwrap();
        std::fs::write(&path, "anew\n").unwrap();
        assert_eq!(read_some(&mut near, "\n").await, "anew\n");
        drop(near);
        tokio::time::timeout(Duration::from_secs(60), follower).await.unwrap().unwrap().unwrap();
    }

    /// A console on its way, and its near end.
    fn begin(
        consoles: &Consoles,
        socket: Result<String, String>,
    ) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<std::io::Result<()>>) {
        let (near, mut far) = tokio::io::duplex(1024);
        let (consoles, guest) = (consoles.clone(), GuestId(uuid::Uuid::from_u128(1)));
        let passing = tokio::spawn(async move { one_console(&consoles, guest, socket, &mut far).await });
        (near, passing)
    }

    #[tokio::test]
    async fn a_console_passes_bytes_both_ways_and_to_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let socket = || Ok(path.to_str().unwrap().to_owned());
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let consoles = Consoles::default();
        let (mut near, passing) = begin(&consoles, socket());
        let (mut guest, _) = listener.accept().await.unwrap();
        guest.write_all(b"login: ").await.unwrap();
        assert_eq!(read_some(&mut near, ": ").await, "login: ");
        near.write_all(b"root\n").await.unwrap();
        assert_eq!(read_some(&mut guest, "\n").await, "root\n");

        let (mut second, refused) = begin(&consoles, socket());
        let words = read_some(&mut second, "\n").await;
        assert!(words.contains("open elsewhere"), "{words}");
        refused.await.unwrap().unwrap();

        drop((near, guest));
        passing.await.unwrap().unwrap();
        let (_third, _) = begin(&consoles, socket());
        tokio::time::timeout(Duration::from_secs(60), listener.accept()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_console_that_cannot_be_opened_says_why_and_is_free_again() {
        let consoles = Consoles::default();
        for _ in 0..2 {
            let (mut near, passing) = begin(&consoles, Err("libvirtd is not running".to_owned()));
            let words = read_some(&mut near, "\n").await;
            assert!(words.contains("libvirtd is not running"), "{words}");
            passing.await.unwrap().unwrap_err();
        }
    }
}
