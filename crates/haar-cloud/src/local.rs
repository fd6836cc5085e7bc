//! This machine as a cloud of one server.
//!
//! Nothing is made and nothing destroyed: a server is a note in a file that says for which deployment the
//! machine is used, so that two do not both take it. Its size is the machine's, its addresses the machine's
//! own. Deliberately absent: networks, external addresses, and ssh to oneself.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use crate::flavor::Flavor;
use crate::image::Image;
use crate::journal::Journal;
use crate::name::{DeploymentId, Owner, ResourceName};
use crate::provider::{Deployment, Found, Ground, NewServer, Provider, ServerOrder, ServerState, ServerView};
use crate::quota::{Quota, Usage};
use crate::state::{self, Kind};
use crate::{Error, Result};

/// The id and name of everything here.
const ID: &str = "localhost";

/// This machine as a cloud.
#[derive(Debug, Clone)]
pub struct Local {
    folder: PathBuf,
}

/// Who uses the machine.
#[derive(Debug, Serialize, Deserialize)]
struct Use {
    name: String,
    deployment: DeploymentId,
}

impl Local {
    /// This machine; who uses it is noted in a file beneath `folder`, and the disk is that of `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// A ground whose network is the one that this machine has an address in.
    ///
    /// # Errors
    /// [`Error::State`] when the addresses cannot be read, [`Error::NotFound`] when it has none.
    pub fn ground() -> Result<Ground> {
        let addresses = addresses()?;
        let first = addresses.first().copied();
        let cidr = first.ok_or_else(|| not_found("address of this machine", "IPv4"))?;
        Ok(Ground { cidr: cidr.trunc(), gateway: cidr.addr(), ports: Vec::new(), ..Ground::default() })
    }

    fn file(&self) -> PathBuf {
        self.folder.join("local.server")
    }

    fn used(&self) -> Result<Option<Use>> {
        match fs::read(self.file()) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| state::Error::Damaged { path: self.file(), why: error.to_string() }.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &self.file(), error)),
        }
    }

    fn take(&self, new: &Use) -> Result<()> {
        let used = Usage::of_servers([None]);
        let full = Quota { max_instances: Some(1), used, ..Quota::default() };
        let text = serde_json::to_vec(new).map_err(|error| failed("write", &self.file(), error.into()))?;
        fs::create_dir_all(&self.folder).map_err(|error| failed("make the folder", &self.folder, error))?;
        // Written beside and linked: the file is whole or not there, and only one can be first.
        let beside = self.folder.join(format!("local.server.{}", new.name));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let write =
            options.open(&beside).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        let answer = write.and_then(|()| fs::hard_link(&beside, self.file()));
        let _ = fs::remove_file(&beside);
        match answer {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                full.check(&used, &Usage::default())
            }
            answer => answer.map_err(|error| failed("write", &self.file(), error)),
        }
    }

    fn flavor(&self) -> Result<Flavor> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let disk =
            statvfs(existing(&self.folder)).map_err(|errno| failed("look at", &self.folder, errno.into()))?;
        let bytes = disk.blocks().saturating_mul(disk.fragment_size());
        Ok(Flavor {
            id: ID.to_owned(),
            name: ID.to_owned(),
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            ram_mb: memory_mb()?,
            disk_gb: bytes / (1 << 30),
        })
    }

    fn view(&self, used: Use) -> Result<ServerView> {
        Ok(ServerView {
            id: ID.to_owned(),
            name: used.name,
            state: ServerState::Active,
            status: "ACTIVE".to_owned(),
            fault: None,
            flavor: ID.to_owned(),
            addresses: addresses()?.into_iter().map(|net| IpAddr::V4(net.addr())).collect(),
            external_addresses: Vec::new(),
            owner: Owner::Another(used.deployment),
        })
    }
}

#[async_trait]
impl Provider for Local {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn is_this_machine(&self) -> bool {
        true
    }

    async fn flavors(&self) -> Result<Vec<Flavor>> {
        Ok(vec![self.flavor()?])
    }

    /// The one image: the operating system that runs.
    async fn images(&self) -> Result<Vec<Image>> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = os_name(&release);
        Ok(vec![Image { id: ID.to_owned(), name, created_at: None, min_disk_gb: 0, min_ram_mb: 0 }])
    }

    async fn quota(&self) -> Result<Quota> {
        let flavor = self.flavor()?;
        let used = Usage::of_servers(self.used()?.map(|_| Some(&flavor)));
        Ok(Quota { max_instances: Some(1), used, ..Quota::default() })
    }

    async fn deploy(&self, _deployment: &Deployment, _journal: &Journal) -> Result<()> {
        Ok(())
    }

    async fn survey(&self, name: &ResourceName, id: Option<DeploymentId>) -> Result<Vec<Found>> {
        let found = self.used()?.map(|used| Found {
            kind: Kind::Server,
            ours: id == Some(used.deployment),
            name: used.name,
            id: ID.to_owned(),
        });
        Ok(found.into_iter().filter(|found| found.ours || name.resembles_server(&found.name)).collect())
    }

    async fn needed(&self, _deployment: &Deployment) -> Result<Vec<(Kind, String)>> {
        Ok(Vec::new())
    }

    async fn create_server(
        &self,
        deployment: &Deployment,
        order: &ServerOrder,
        _journal: &Journal,
    ) -> Result<NewServer> {
        self.take(&Use { name: order.name.clone(), deployment: deployment.id })?;
        Ok(NewServer { id: ID.to_owned(), admin_password: None })
    }

    async fn server(&self, id: &str) -> Result<ServerView> {
        match self.used()? {
            Some(used) if id == ID => self.view(used),
            _ => Err(not_found("server", id)),
        }
    }

    async fn servers(&self) -> Result<Vec<ServerView>> {
        self.used()?.map(|used| self.view(used)).into_iter().collect()
    }

    async fn console(&self, _id: &str) -> Result<String> {
        Ok(String::new())
    }

    async fn add_external_address(
        &self,
        _deployment: &Deployment,
        server: &ServerView,
        _journal: &Journal,
    ) -> Result<IpAddr> {
        let why = "this machine has the addresses that it has: spawn it without an external one".to_owned();
        Err(Error::BadInput { what: "the server", value: server.name.clone(), why })
    }

    async fn delete(&self, kind: Kind, id: &str) -> Result<()> {
        if kind != Kind::Server || id != ID {
            return Err(not_found(&kind.to_string(), id));
        }
        match fs::remove_file(self.file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found("server", id)),
            answer => answer.map_err(|error| failed("remove", &self.file(), error)),
        }
    }

    /// Nobody: giving the machine back does not end what runs on it.
    async fn here(&self) -> Result<Option<String>> {
        Ok(None)
    }
}

/// The addresses of this machine with their networks, that of the way out first.
fn addresses() -> Result<Vec<Ipv4Net>> {
    let all =
        getifaddrs().map_err(|errno| failed("list", Path::new("the network interfaces"), errno.into()))?;
    let net = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let mask = interface.netmask?.as_sockaddr_in()?.ip();
        Ipv4Net::with_netmask(address, mask).ok()
    };
    let mut nets: Vec<Ipv4Net> = all.filter_map(net).filter(|net| !net.addr().is_loopback()).collect();
    let outward = outward();
    nets.sort_by_key(|net| Some(net.addr()) != outward);
    Ok(nets)
}

/// The address that packets to the world leave from. Nothing is sent.
fn outward() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(8, 8, 8, 8), 53)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn memory_mb() -> Result<u64> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(|error| failed("read", path, error))?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kilobytes.unwrap_or(0) / 1024)
}

/// `debian-12` from what `os-release` says.
fn os_name(release: &str) -> String {
    let field = |key: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.map(|value| value.trim_matches('"').to_owned()).filter(|value| !value.is_empty())
    };
    let id = field("ID").unwrap_or_else(|| "linux".to_owned());
    match field("VERSION_ID") {
        Some(version) => format!("{id}-{version}"),
        None => id,
    }
}

/// The nearest folder above that is there.
fn existing(folder: &Path) -> &Path {
    let there = folder.ancestors().find(|folder| folder.is_dir());
    there.unwrap_or(Path::new("/"))
}

fn not_found(kind: &str, name: &str) -> Error {
    Error::NotFound { kind: kind.to_owned(), name: name.to_owned() }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> Error {
    state::Error::Io { doing, path: path.to_owned(), source }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_system_is_named_as_an_image_would_be() {
        assert_eq!(os_name("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"), "debian-12");
        assert_eq!(os_name("ID=arch\nVERSION_ID=\n"), "arch");
        assert_eq!(os_name(""), "linux");
    }

    #[test]
    fn two_cannot_both_take_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new(folder.path().join("new"));
        let one = Use { name: "a-1".to_owned(), deployment: DeploymentId::random() };
        local.take(&one).unwrap();
        let other = Use { name: "b-1".to_owned(), deployment: DeploymentId::random() };
        assert!(local.take(&other).unwrap_err().is_over_quota());
        assert_eq!(local.used().unwrap().unwrap().name, "a-1");
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn the_machine_has_a_size() {
        let flavor = Local::new("/no/such/folder").flavor().unwrap();
        assert!(flavor.cores > 0 && flavor.ram_mb > 0 && flavor.disk_gb > 0, "{flavor:?}");
    }
}
