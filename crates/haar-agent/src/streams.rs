//! Streams somebody waits for at the controller: the agent dials, then passes bytes (design §11.12).
//!
//! A console is the domain's serial socket, both ways. A log is the file's end, and what is added to it when it is
//! followed. A stream that cannot be opened is dialled all the same and closed, so that nobody waits in vain.

use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haar_api::rpc;
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

/// Serves tickets until their sender is gone.
pub(crate) async fn serve<L: Link>(hands: Arc<Hands<L>>, mut tickets: mpsc::Receiver<Ticket>) {
    let slots = Arc::new(Semaphore::new(MOST_OPEN));
    // Dropped with this function, and with it every stream.
    let mut open = JoinSet::new();
    while let Some(ticket) = tickets.recv().await {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        while open.try_join_next().is_some() {}
        let hands = Arc::clone(&hands);
        open.spawn(async move {
            let _slot = slot;
            if let Err(error) = stream(&hands, &ticket).await {
                tracing::warn!(guest = %ticket.guest, kind = ?ticket.kind, error, "a stream broke off");
            }
        });
    }
}

async fn stream<L: Link>(hands: &Hands<L>, ticket: &Ticket) -> Result<(), String> {
    let place = place_of(hands, ticket).await;
    let mut peer = hands.link.stream(&ticket.ticket).await.map_err(|error| error.to_string())?;
    let passed = match place {
        Ok(extra) => match ticket.kind {
            StreamKind::Console => console(Path::new(&extra.console_socket), &mut peer).await,
            StreamKind::Log { tail, follow } => {
                log(Path::new(&extra.console_log), tail, follow, &mut peer).await
            }
        },
        Err(why) => Err(std::io::Error::other(why)),
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

async fn console<S>(socket: &Path, peer: &mut S) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut console = UnixStream::connect(socket).await?;
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
            let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut bytes)).await;
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
        tokio::time::timeout(Duration::from_secs(10), follower).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_console_passes_bytes_both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (mut near, mut far) = tokio::io::duplex(1024);
        let passing = tokio::spawn(async move { console(&path, &mut far).await });
        let (mut guest, _) = listener.accept().await.unwrap();
        guest.write_all(b"login: ").await.unwrap();
        assert_eq!(read_some(&mut near, ": ").await, "login: ");
        near.write_all(b"root\n").await.unwrap();
        assert_eq!(read_some(&mut guest, "\n").await, "root\n");
        drop(near);
        drop(guest);
        passing.await.unwrap().unwrap();
    }
}
