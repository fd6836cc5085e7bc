//! Where a guest's serial console is: a socket that a client may join at any time, and a log of everything.
//!
//! libvirtd opens the socket and virtlogd the log, both as root, and QEMU gets them as open files: so both
//! folders are for root alone (0700), and QEMU's own user needs no way in. Input is for whoever reaches the
//! socket, hence the folder's mode is what protects it. virtlogd rotates the log (2 MiB and three older
//! ones unless `virtlogd.conf` says otherwise).

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use haar_api::rpc::{Fault, FaultCode};

/// Bytes a unix socket's path may have; the kernel's field has one more for the end.
const SOCKET_PATH_BYTES: usize = 107;

/// The two folders.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// For sockets; may vanish with a host's reboot.
    pub(crate) sockets: PathBuf,
    /// For logs.
    pub(crate) logs: PathBuf,
}

/// One guest's console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Console {
    pub(crate) socket: String,
    pub(crate) log: String,
}

impl Folders {
    /// The console of the guest of that id, which holds no `/` (`request::named` saw to it).
    ///
    /// # Errors
    /// `invalid` when the socket's path would be too long for the kernel or is no text.
    pub(crate) fn console(&self, id: &str) -> Result<Console, Fault> {
        let socket = text(&self.sockets.join(format!("{id}.console")))?;
        if socket.len() > SOCKET_PATH_BYTES {
            return Err(Fault::new(
                FaultCode::Invalid,
                format!(
                    "the console socket {socket} is longer than {SOCKET_PATH_BYTES} bytes: use a shorter --run-dir"
                ),
            ));
        }
        Ok(Console { socket, log: text(&self.logs.join(format!("{id}.log")))? })
    }
}

impl Console {
    /// Makes the folders of both files, so that libvirtd can make the files.
    ///
    /// # Errors
    /// `unavailable` when a folder cannot be made.
    pub(crate) fn make_folders(&self) -> Result<(), Fault> {
        for file in [&self.socket, &self.log] {
            let Some(folder) = Path::new(file).parent() else { continue };
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
                Fault::new(
                    FaultCode::Unavailable,
                    format!("the console folder {} cannot be made: {error}", folder.display()),
                )
            })?;
        }
        Ok(())
    }

    /// Removes the socket, the log and virtlogd's older logs; what is not there is fine.
    ///
    /// # Errors
    /// `failed` when a file cannot be removed.
    pub(crate) fn remove(&self) -> Result<(), Fault> {
        let mut files = vec![self.socket.clone(), self.log.clone()];
        // virtlogd numbers its older logs from 0 without gaps; its limit is the host's own setting.
        files.extend((0..).map(|n| format!("{}.{n}", self.log)).take_while(|path| Path::new(path).exists()));
        for file in files {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Fault::new(FaultCode::Failed, format!("{file} cannot be removed: {error}")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<String, Fault> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Fault::new(FaultCode::Invalid, format!("the path {} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_takes_older_logs_too_and_may_be_asked_twice() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders { sockets: folder.path().join("run"), logs: folder.path().join("log") };
        let console = folders.console("g").unwrap();
        console.make_folders().unwrap();
        for name in ["g.log", "g.log.0", "g.log.1", "other.log"] {
            std::fs::write(folders.logs.join(name), "x").unwrap();
        }
        console.remove().unwrap();
        console.remove().unwrap();
        let left: Vec<_> =
            std::fs::read_dir(&folders.logs).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["other.log"]);
    }

    #[test]
    fn a_socket_path_the_kernel_cannot_hold_is_refused() {
        let folders = Folders { sockets: PathBuf::from("/r".repeat(60)), logs: "/l".into() };
        assert_eq!(folders.console("g").unwrap_err().code, FaultCode::Invalid);
    }
}
