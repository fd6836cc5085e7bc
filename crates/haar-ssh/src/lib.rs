//! Commands and files on servers over SSH: one [`Pool`] of connections for each server.
//!
//! A pool dials when something is asked of it, shares connections as far as the server allows sessions on
//! one, notices those that died and replaces them. Host keys are pinned and never trusted blindly. A command
//! that is cancelled or takes too long is ended on the server as well. Nothing here knows of clouds or of the
//! rest of Haar. Deliberately absent: terminals, forwarding of ports or of an agent, and known_hosts files.
//!
//! ```no_run
//! use haar_ssh::{CancellationToken, Command, HostKeys, KeyPair, Login, Options, Pool, Target};
//!
//! # async fn example() -> haar_ssh::Result<()> {
//! let key = KeyPair::generate()?; // its public half goes to the server's user data
//! let target = Target::new("192.0.2.7", "debian");
//! let host_keys = HostKeys::pinned(["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ"])?;
//! let pool = Pool::new(Options::new(target, vec![Login::Key(key.private)], host_keys));
//!
//! let cancel = CancellationToken::new();
//! pool.wait_until_ready(&cancel).await?;
//! let output = pool.run(&Command::new("uname -r"), &cancel).await?;
//! println!("{} says {}", pool.target(), String::from_utf8_lossy(&output.stdout));
//! pool.files().write("/etc/motd", b"welcome\n", 0o644).await?;
//! # Ok(())
//! # }
//! ```

mod command;
mod connection;
mod detach;
mod dial;
mod ending;
mod error;
mod files;
mod host_keys;
mod key;
mod link;
mod login;
mod options;
mod pid_line;
mod pool;
mod ready;
mod run;
mod seats;
mod session;
mod shell;

pub use command::{Chunk, Command, Exit, Output};
pub use error::{Error, FileFault, Obstacle};
pub use files::{Files, Part};
pub use host_keys::HostKeys;
pub use key::{KeyPair, Login};
pub use options::{Limits, Options, Target};
pub use pool::Pool;
pub use run::Running;
pub use shell::{quote, script};
pub use tokio_util::sync::CancellationToken;

/// What a function of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
