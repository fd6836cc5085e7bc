//! Making one connection: TCP or a tunnel, the server's key, the login.
//!
//! Promises: it is over within the limit, also when the server accepts and says nothing; what a failed attempt
//! had opened is closed. Deliberately absent: any second attempt.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use russh::client;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::connection::{Client, ClientError, Connection, Seen};
use crate::error::Obstacle;
use crate::link::{Link, Stream};
use crate::login::log_in;
use crate::options::{Limits, Options, Target};
use crate::{Error, Result};

/// How many signs of life are asked for before a connection is given up.
const KEEP_ALIVES: usize = 3;

/// Dials once. When `cut` is cancelled, so is this and the connection that it made.
pub(crate) async fn dial(options: &Options, cut: CancellationToken) -> Result<Connection> {
    let Options { target, limits, .. } = options;
    let unreachable = |obstacle| Error::Unreachable { target: target.clone(), obstacle };
    // Whatever is left behind by a return below, tasks of the library included, dies with this guard.
    let guard = cut.clone().drop_guard();
    let attempt = async {
        let stream: Box<dyn Stream>;
        let deadline;
        if let Some(jump) = &options.jump {
            // The jump host has limits of its own.
            stream = Box::new(jump.tunnel(target).await?);
            deadline = Instant::now() + limits.dial;
        } else {
            deadline = Instant::now() + limits.dial;
            let connected = timeout_at(deadline, connect(target)).await;
            stream = Box::new(connected.map_err(|_| unreachable(Obstacle::TimedOut))??);
        }
        let greeted = timeout_at(deadline, greet(options, stream, cut.clone())).await;
        greeted.map_err(|_| unreachable(Obstacle::Silent))?
    };
    let connection = tokio::select! {
        outcome = attempt => outcome?,
        () = cut.cancelled() => return Err(Error::Closed { target: target.clone() }),
    };
    guard.disarm();
    Ok(connection)
}

/// Connects to the first of the target's addresses that takes us.
async fn connect(target: &Target) -> Result<TcpStream> {
    let unreachable = |obstacle| Error::Unreachable { target: target.clone(), obstacle };
    let addresses = lookup_host((target.host.as_str(), target.port)).await;
    let mut failure = unreachable(Obstacle::NoName);
    for address in addresses.map_err(|_| unreachable(Obstacle::NoName))? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Requests are small and each waits for its answer; where this fails they are slower, no more.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => failure = unreachable(obstacle(&error)),
        }
    }
    Err(failure)
}

/// What an error of the operating system means for a connection.
fn obstacle(error: &io::Error) -> Obstacle {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Obstacle::Refused,
        io::ErrorKind::TimedOut => Obstacle::TimedOut,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => Obstacle::NoRoute,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Obstacle::Closed,
        _ => Obstacle::Other(error.to_string()),
    }
}

/// Agrees on keys with the server, looks at its own, and logs in.
async fn greet(options: &Options, stream: Box<dyn Stream>, cut: CancellationToken) -> Result<Connection> {
    let (seen, heard) = (Arc::new(Seen::default()), Arc::new(AtomicU64::new(0)));
    let stall = options.limits.keep_alive.saturating_mul(KEEP_ALIVES as u32 + 1);
    let link = Link::new(stream, cut.clone(), Arc::clone(&heard), stall);
    let handler = Client::new(options.target.clone(), options.host_keys.clone(), Arc::clone(&seen));
    let mut handle = client::connect_stream(config(options), link, handler)
        .await
        .map_err(|error| explain(&options.target, error))?;
    log_in(&mut handle, options).await?;
    Ok(Connection::new(handle, seen, heard, cut))
}

fn config(options: &Options) -> Arc<client::Config> {
    let Limits { keep_alive, .. } = options.limits;
    Arc::new(client::Config {
        client_id: russh::SshId::Standard(concat!("SSH-2.0-haar_", env!("CARGO_PKG_VERSION")).into()),
        preferred: options.host_keys.preferred(),
        keepalive_interval: Some(keep_alive.max(Duration::from_millis(1))),
        keepalive_max: KEEP_ALIVES,
        ..client::Config::default()
    })
}

/// What a failure before the login means.
fn explain(target: &Target, error: ClientError) -> Error {
    let unreachable = |obstacle| Error::Unreachable { target: target.clone(), obstacle };
    match error {
        ClientError::Refused(error) => error,
        ClientError::Ssh(russh::Error::Disconnect | russh::Error::HUP) => unreachable(Obstacle::Closed),
        ClientError::Ssh(russh::Error::IO(error)) => unreachable(obstacle(&error)),
        ClientError::Ssh(error) => Error::Protocol { target: target.clone(), source: Arc::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_told_apart_by_its_kind() {
        for (number, expected) in [
            (111, Obstacle::Refused),
            (110, Obstacle::TimedOut),
            (113, Obstacle::NoRoute),
            (101, Obstacle::NoRoute),
            (104, Obstacle::Closed),
        ] {
            assert_eq!(obstacle(&io::Error::from_raw_os_error(number)), expected, "{number}");
        }
        assert!(matches!(obstacle(&io::Error::from_raw_os_error(24)), Obstacle::Other(_)));
    }
}
