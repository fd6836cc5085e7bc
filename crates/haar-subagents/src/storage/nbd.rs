//! Reading a snapshot inside a qcow2 file through `qemu-nbd`, as any client of the NBD protocol would.
//!
//! The whole chain to the base image, compressed clusters and all, is QEMU's to understand. The server is ours
//! alone: it answers one client on a socket in a folder of root's, and is ended with that client; one whose client
//! was killed ends by itself, or, before the client came, by the next start ([`end_strays`]).
//! Deliberately absent: writing, and every option of the protocol that reading needs not.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use haar_api::rpc::{Fault, FaultCode};
use uuid::Uuid;

use super::qemu_img;
use crate::kit::program;

const GREETING: &[u8; 8] = b"NBDMAGIC";
const OPTION: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
/// Fixed handshake, no padding after it.
const CLIENT_FLAGS: u32 = 1 | 2;
const GO: u32 = 7;
const ACKNOWLEDGED: u32 = 1;
/// Bytes asked for by one request; the server takes memory for each.
const REQUEST_BYTES: usize = 64 << 10;
/// Bytes a reply to an option may have.
const MOST_OPTION_BYTES: u32 = 64 << 10;
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a read may take before the file system counts as hanging.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// A connection to the one server of this reading.
pub(super) struct Client {
    stream: UnixStream,
    number: u64,
    _server: Server,
}

/// The server; ended with its client, and when it never came to serve one.
struct Server(Child);

impl Server {
    fn start(words: &[String]) -> Result<Self, Fault> {
        let mut command = Command::new("qemu-nbd");
        command
            .args(words)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
            .spawn()
            .map(Server)
            .map_err(|error| qemu_img::fault(&program::Error::not_started("qemu-nbd", error)))
    }

    /// Waits until it listens on this socket.
    fn connected(&mut self, socket: &Path) -> io::Result<UnixStream> {
        let begun = Instant::now();
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Ok(stream),
                Err(error) if begun.elapsed() >= START_LIMIT => return Err(error),
                Err(_) => {}
            }
            if let Some(status) = self.0.try_wait()? {
                let mut words = String::new();
                if let Some(told) = self.0.stderr.take() {
                    told.take(u64::from(MOST_OPTION_BYTES)).read_to_string(&mut words)?;
                }
                return Err(io::Error::other(format!("it ended with {status}: {}", words.trim())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Client {
    /// Starts a server for a snapshot of the image that `options` name, and connects.
    pub(super) fn start(options: &str, snapshot: &str, streams: &Path) -> Result<Self, Fault> {
        let socket = streams.join(format!("{}.nbd", Uuid::new_v4().simple()));
        let words = [
            "--read-only".to_owned(),
            format!("--socket={}", socket.display()),
            format!("--load-snapshot=snapshot.name={snapshot}"),
            "--image-opts".to_owned(),
            options.to_owned(),
        ];
        let mut server = Server::start(&words)?;
        let stream = server.connected(&socket).and_then(greeted);
        let _ = fs::remove_file(&socket);
        let stream = stream.map_err(|error| {
            Fault::new(FaultCode::Failed, format!("qemu-nbd cannot be read from: {error}"))
        })?;
        Ok(Client { stream, number: 0, _server: server })
    }
}

impl Client {
    /// Fills the buffer from this offset; the caller stays inside the snapshot's size.
    ///
    /// Asked for in several requests at once, so that the server works on all of them.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let first = self.number;
        let mut requests = Vec::new();
        let mut wanted = Vec::new();
        let mut at = offset;
        for part in buffer.chunks_mut(REQUEST_BYTES) {
            requests.extend(REQUEST.to_be_bytes());
            requests.extend([0; 4]);
            requests.extend(self.number.to_be_bytes());
            requests.extend(at.to_be_bytes());
            requests
                .extend(u32::try_from(part.len()).map_err(|_| strange("a read is too long"))?.to_be_bytes());
            at += part.len() as u64;
            self.number += 1;
            wanted.push(Some(part));
        }
        self.stream.write_all(&requests)?;
        for _ in 0..wanted.len() {
            let mut head = [0; 16];
            self.stream.read_exact(&mut head)?;
            let number =
                |from: usize| head[from..].iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            let (magic, error) = (number(0), number(4));
            let place = (u64::from(number(8)) << 32 | u64::from(number(12))).checked_sub(first);
            let place = place.and_then(|place| usize::try_from(place).ok());
            // They are answered in any order, each once.
            let part = place.and_then(|place| wanted.get_mut(place)).and_then(Option::take);
            let Some(part) = part.filter(|_| magic == REPLY) else {
                return Err(strange("its answer belongs to no question"));
            };
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error.cast_signed()));
            }
            self.stream.read_exact(part)?;
        }
        Ok(())
    }
}

/// Has servers end whose client never came: they end when theirs goes away.
pub(super) fn end_strays(streams: &Path) -> io::Result<()> {
    for entry in fs::read_dir(streams)? {
        let path = entry?.path();
        // It counts a client only once they have agreed; without a server there is nothing to end.
        let _ = UnixStream::connect(&path).and_then(greeted);
        fs::remove_file(&path)?;
    }
    Ok(())
}

fn greeted(mut stream: UnixStream) -> io::Result<UnixStream> {
    stream.set_read_timeout(Some(READ_LIMIT))?;
    stream.set_write_timeout(Some(READ_LIMIT))?;
    greet(&mut stream)?;
    Ok(stream)
}

/// Chooses the only export there is.
fn greet(stream: &mut UnixStream) -> io::Result<()> {
    let mut head = [0; 18];
    stream.read_exact(&mut head)?;
    if &head[..8] != GREETING || &head[8..16] != OPTION {
        return Err(strange("it does not greet as NBD"));
    }
    stream.write_all(&CLIENT_FLAGS.to_be_bytes())?;
    let mut option = Vec::from(*OPTION);
    option.extend(GO.to_be_bytes());
    // An empty name and no wishes for information.
    option.extend(6_u32.to_be_bytes());
    option.extend([0; 6]);
    stream.write_all(&option)?;
    loop {
        let (magic, _, kind) = (u64_from(stream)?, u32_from(stream)?, u32_from(stream)?);
        let length = u32_from(stream)?;
        if magic != OPTION_REPLY || length > MOST_OPTION_BYTES {
            return Err(strange("it answers no option"));
        }
        let mut text = vec![0; length as usize];
        stream.read_exact(&mut text)?;
        match kind {
            ACKNOWLEDGED => return Ok(()),
            kind if kind & (1 << 31) != 0 => {
                return Err(strange(&format!("it refuses: {}", String::from_utf8_lossy(&text))));
            }
            _ => {}
        }
    }
}

fn u32_from(stream: &mut UnixStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn u64_from(stream: &mut UnixStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

fn strange(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
