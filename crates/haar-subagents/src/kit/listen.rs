//! Where a sub-agent listens: a Unix socket that only its owner can open, or a loopback port.
//!
//! The socket's folder is made with mode 0700 when absent; a socket that somebody answers on is never
//! taken away. Deliberately absent: any address that another machine could reach.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A socket file, mode 0600.
    Unix(PathBuf),
    /// A TCP port on 127.0.0.1; open to every local user, hence only when configured (design §11.14).
    /// 0 lets the system choose.
    Loopback(u16),
}

/// Why a server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody answers on the socket.
    #[error("{0} is in use by a running process; stop that one first or configure another socket")]
    InUse(PathBuf),
    /// Something that is no socket stands where the socket should be.
    #[error("{0} exists and is not a socket; move it away or configure another socket")]
    NotASocket(PathBuf),
    /// The socket's file or folder cannot be made.
    #[error("cannot listen on socket {path}")]
    Socket {
        /// The socket's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The port cannot be listened on.
    #[error("cannot listen on 127.0.0.1:{port}; is another process using it?")]
    Port {
        /// The configured port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The listener broke while serving.
    #[error("serving calls failed")]
    Serve(#[source] io::Error),
}

/// A listener together with what must be tidied up after it.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(tokio::net::UnixListener, SocketFile),
    Tcp(tokio::net::TcpListener),
}

/// Removes the socket's file when dropped, unless somebody else has put another one there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(super) fn bind(listen: &Listen) -> Result<Listener, Error> {
    match listen {
        Listen::Unix(path) => bind_unix(path),
        Listen::Loopback(port) => bind_loopback(*port),
    }
}

fn bind_loopback(port: u16) -> Result<Listener, Error> {
    let failed = |source| Error::Port { port, source };
    let listener =
        std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    tokio::net::TcpListener::from_std(listener).map(Listener::Tcp).map_err(failed)
}

fn bind_unix(path: &Path) -> Result<Listener, Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    remove_stale(path)?;
    let listener = bind_owner_only(path).map_err(|errno| failed(errno.into()))?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path).map_err(failed)? };
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
    Ok(Listener::Unix(listener, file))
}

/// A socket's mode is set before it has a name, so that there is no moment in which others may connect.
fn bind_owner_only(path: &Path) -> nix::Result<UnixListener> {
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::new(128)?)?;
    Ok(UnixListener::from(socket))
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn socket_and_folder_are_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/haar/storage.sock");
        let listener = bind(&Listen::Unix(path.clone())).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(listener);
        assert!(!path.exists(), "the socket goes with its listener");
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _first = bind(&Listen::Unix(path.clone())).unwrap();
        let second = bind(&Listen::Unix(path.clone()));
        assert!(matches!(second, Err(Error::InUse(_))), "{second:?}");
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed process leaves its socket behind");
        let _listener = bind(&Listen::Unix(path.clone())).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn a_file_in_the_sockets_place_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&Listen::Unix(path.clone())), Err(Error::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
