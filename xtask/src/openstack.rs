//! The OpenStack of `tests/openstack`, for the tests and the bench: brought up, and taken down again.
//!
//! Its folder lies in the target folder, and its ports are such that nobody has. It is taken down also when
//! what was done with it fails; only killing this program leaves it up, and then the next run takes it over.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{packages, run};

/// Stands for all of the packages: no other needs so much.
const PACKAGE: &str = "python3-nova";

/// The ports of the services, to which the cloud's offset is added.
const PORTS: &[u16] = &[4369, 5000, 5672, 5673, 8774, 8776, 8778, 9292, 9696];

/// A unix socket's path has 107 bytes at most, and the database's is in the folder.
const FOLDER_MAX: usize = 79;

/// Why this machine cannot have an OpenStack.
pub(crate) fn missing() -> Option<String> {
    if packages::version(PACKAGE).is_some() {
        None
    } else if run::find("apt-get").is_none() {
        Some(format!("it needs Debian's packages ({PACKAGE} and others), and this is no such system"))
    } else if !run::is_root() {
        Some("root must install the packages first: run this command as root once".to_owned())
    } else {
        packages::newest_record(PACKAGE).err().map(|error| format!("{error:#}"))
    }
}

/// A cloud that is down when this value is gone.
pub(crate) struct Cloud {
    folder: PathBuf,
    offset: u16,
}

impl Cloud {
    /// The cloud of the target folder; nothing is started yet.
    pub(crate) fn choose() -> Result<Self> {
        let mut folder = run::target_folder()?.join("openstack");
        if folder.as_os_str().len() > FOLDER_MAX {
            folder = std::env::temp_dir().join("haar-openstack");
        }
        let offset = match offset_of(&folder) {
            Some(offset) => offset,
            None => free_offset()?,
        };
        Ok(Self { folder, offset })
    }

    /// Brings it up with this driver; a cloud that is up already only changes the driver.
    pub(crate) fn up(&self, compute: &str) -> Result<()> {
        // What it says is no result of whoever needs the cloud.
        run::shown(self.told(&mut script("up.sh"), compute).stdout(std::io::stderr()))
            .context("the cloud did not come up")
    }

    /// Tells a program which cloud it is about.
    pub(crate) fn told<'a>(&self, command: &'a mut Command, compute: &str) -> &'a mut Command {
        command
            .env("HAAR_OPENSTACK_DIR", &self.folder)
            .env("HAAR_OPENSTACK_OFFSET", self.offset.to_string())
            .env("HAAR_OPENSTACK_COMPUTE", compute)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Err(error) = run::shown(self.told(&mut script("down.sh"), "").stdout(std::io::stderr())) {
            eprintln!("the cloud may still be up: {error:#}");
        }
    }
}

fn script(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    run::command(&root.join("tests/openstack").join(name).display().to_string())
}

/// The offset of a cloud that was made before: its databases know it.
fn offset_of(folder: &Path) -> Option<u16> {
    let settings = std::fs::read_to_string(folder.join("settings")).ok()?;
    settings.split(' ').next()?.parse().ok()
}

/// Below the ports that systems give to connections, which come and go.
fn free_offset() -> Result<u16> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let fits = |offset: &u16| PORTS.iter().all(|port| is_free(port + offset));
    match (10_000..=22_000).step_by(500).find(fits) {
        Some(offset) => Ok(offset),
        None => bail!("no row of ports from 14369 on is free for an OpenStack"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_that_was_made_before_keeps_its_ports() {
        let scratch = run::Scratch::inside(&std::env::temp_dir()).unwrap();
        assert_eq!(offset_of(scratch.path()), None);
        std::fs::write(scratch.path().join("settings"), "11500 secret RegionOne\n").unwrap();
        assert_eq!(offset_of(scratch.path()), Some(11_500));
    }

    #[test]
    fn a_taken_port_leads_to_other_ones() {
        let first = free_offset().unwrap();
        let _taken = TcpListener::bind(("127.0.0.1", 9696 + first)).unwrap();
        assert_ne!(free_offset().unwrap(), first);
    }
}
