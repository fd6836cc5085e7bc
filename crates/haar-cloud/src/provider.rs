//! What a cloud must be able to do for the rest of this crate: the trait [`Provider`].
//!
//! A provider translates: each method is one thing asked of the cloud, answered in this crate's words and
//! with this crate's [`Error`]s. It waits for nothing, keeps no list of servers and decides nothing.
//! Waiting, trying again, the pace of spawning, the order of a tear-down and the record of what was made
//! are the same for every cloud and live in the crate's other modules. Whatever a provider makes goes through the
//! [`Journal`], so that it is on record before it exists.
//!
//! [`Error`]: crate::Error

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::flavor::Flavor;
use crate::image::Image;
use crate::journal::Journal;
use crate::name::{DeploymentId, Owner, ResourceName};
use crate::quota::Quota;
use crate::state::Kind;
use crate::{Error, Result};

/// What servers stand on: made once for each deployment, before its first server. It is kept in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// Incoming TCP ports that are open. With none, no security group is made, and the cloud's own applies.
    pub ports: Vec<u16>,
    /// Who may come in on them.
    pub sources: Vec<IpNet>,
    /// Servers get their user data on a disk, not from a metadata service.
    pub config_drive: bool,
    /// The servers' network.
    pub cidr: Ipv4Net,
    /// Its gateway; must lie in `cidr`.
    pub gateway: Ipv4Addr,
    /// Name servers that servers are told of.
    pub dns: Vec<IpAddr>,
    /// The network that external addresses come from; `None` takes the one the cloud has.
    pub external_network: Option<String>,
}

impl Default for Ground {
    fn default() -> Self {
        let anywhere = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a network"));
        Self {
            ports: vec![22],
            sources: anywhere.to_vec(),
            config_drive: false,
            cidr: "192.168.64.0/18".parse().expect("a network"),
            gateway: Ipv4Addr::new(192, 168, 64, 1),
            dns: [[8, 8, 4, 4], [8, 8, 8, 8]].map(IpAddr::from).to_vec(),
            external_network: None,
        }
    }
}

impl Ground {
    /// Looks whether it can be built.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a gateway outside the network, and for port 0.
    pub fn check(&self) -> Result<()> {
        if !self.cidr.contains(&self.gateway) {
            return Err(Error::BadInput {
                what: "the gateway",
                value: self.gateway.to_string(),
                why: format!("it is not in the network {}", self.cidr),
            });
        }
        if self.ports.contains(&0) {
            return Err(Error::BadInput {
                what: "the port",
                value: "0".to_owned(),
                why: "a port is a number from 1 to 65535".to_owned(),
            });
        }
        Ok(())
    }
}

/// A deployment as a provider needs to know it.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The name that everything of it has, or begins with.
    pub name: ResourceName,
    /// Its mark on everything it made; only what bears it is ours.
    pub id: DeploymentId,
    /// What its servers stand on.
    pub ground: Ground,
    /// The public key that may log in to its servers, in OpenSSH's form.
    pub public_key: String,
}

/// A server to be created.
#[derive(Clone)]
pub struct ServerOrder {
    /// Its name, which no other server has.
    pub name: String,
    /// Its image.
    pub image: Image,
    /// Its size.
    pub flavor: Flavor,
    /// The size of a volume to boot from, in GB, that goes with the server; `None` boots from the flavor's
    /// own disk.
    pub volume_gb: Option<u64>,
    /// What cloud-init is told at the first boot.
    pub user_data: String,
    /// Who logs in.
    pub user: String,
}

/// Its user data has the server's private host key, and is not shown.
impl fmt::Debug for ServerOrder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, image, flavor, volume_gb, user_data, user } = self;
        formatter
            .debug_struct("ServerOrder")
            .field("name", name)
            .field("image", image)
            .field("flavor", flavor)
            .field("volume_gb", volume_gb)
            .field("user_data", &format_args!("{} bytes", user_data.len()))
            .field("user", user)
            .finish()
    }
}

/// Whether a server can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// All that it needs is there.
    Ready,
    /// Something is being made; in words.
    Making(String),
}

/// A server that the cloud has just begun to make.
#[derive(Clone, PartialEq, Eq)]
pub struct NewServer {
    /// The cloud's id.
    pub id: String,
    /// The administrator's password, where the cloud makes one.
    pub admin_password: Option<String>,
}

/// The password is not shown.
impl fmt::Debug for NewServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.admin_password.as_ref().map(|_| "hidden");
        formatter.debug_struct("NewServer").field("id", &self.id).field("admin_password", &password).finish()
    }
}

/// What a server does, as far as this crate has to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerState {
    /// It is being made.
    Building,
    /// It runs.
    Active,
    /// It exists, and does not run: off, paused, being rebooted.
    Inactive,
    /// Making it, or keeping it, failed.
    Failed,
    /// It is being destroyed.
    Leaving,
}

/// A server as the cloud has it.
#[derive(Debug)]
pub struct ServerView {
    /// The cloud's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: ServerState,
    /// The cloud's own word for that.
    pub status: String,
    /// Why it failed, where the cloud says so.
    pub fault: Option<Error>,
    /// The id of its flavor, or its name where the cloud gives only that.
    pub flavor: String,
    /// Its addresses in networks of its own, the first one first.
    pub addresses: Vec<IpAddr>,
    /// Its addresses that others can reach.
    pub external_addresses: Vec<IpAddr>,
    /// Whose it is.
    pub owner: Owner,
}

/// Something of a deployment that the cloud has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Its name, or what else tells it apart for a person.
    pub name: String,
    /// The cloud's id; what [`Provider::delete`] takes.
    pub id: String,
    /// Whether the deployment's mark is on it. What is not ours is used, and left alone.
    pub ours: bool,
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} ({})", self.kind, self.name, self.id)
    }
}

/// A cloud.
///
/// Every method may be dropped at any await: what was asked of the cloud then may or may not be done, and
/// the journal's note of it stays. Errors have the class that [`crate::fault`] finds; "it is not there" is
/// [`Error::NotFound`], also where the cloud takes it for success.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync {
    /// The word for this kind of cloud, as in `--provider`.
    fn kind(&self) -> &'static str;

    /// Which cloud it is, and what of it: whatever is here under one id is elsewhere nothing, or another's. A
    /// record is only ever used with the place it was made in. The words are the same for as long as it is the
    /// same place, and a person can tell them apart. `None`: there is but one such place.
    fn place(&self) -> Option<String> {
        None
    }

    /// Whether its servers are this machine, to which nobody logs in: commands are run and files copied straight.
    fn is_this_machine(&self) -> bool {
        false
    }

    /// The sizes that servers can have now.
    async fn flavors(&self) -> Result<Vec<Flavor>>;

    /// The images that servers can be made of now.
    async fn images(&self) -> Result<Vec<Image>>;

    /// Limits and use of this project.
    async fn quota(&self) -> Result<Quota>;

    /// Makes what servers stand on, or finds it and puts right what is missing, in an order in which each
    /// thing exists before what needs it. Can be called again at any time.
    async fn deploy(&self, deployment: &Deployment, journal: &Journal) -> Result<()>;

    /// What the cloud has of a deployment, by mark or by name, servers included, in no order. It is how a
    /// lost record is made good, how a tear-down finds everything, and what a dry run shows.
    async fn survey(&self, name: &ResourceName, id: Option<DeploymentId>) -> Result<Vec<Found>>;

    /// What [`Self::deploy`] would make, of what [`Self::survey`] did not find: kinds and names.
    async fn needed(&self, deployment: &Deployment) -> Result<Vec<(Kind, String)>>;

    /// Makes what has to be there before a server can be asked for, such as the volume it boots from, and says
    /// how far that is; it is called until it is ready. What is made is noted under a name in which the
    /// server's name is: it goes with the server, also with one that is never asked for.
    async fn prepare_server(
        &self,
        _deployment: &Deployment,
        _order: &ServerOrder,
        _journal: &Journal,
    ) -> Result<Prepared> {
        Ok(Prepared::Ready)
    }

    /// Asks for a server. It is there when [`Self::server`] says that it is active. Notes on its own only
    /// what goes beyond the server itself, such as further ports, under names in which the server's name or
    /// id is: they are deleted after it. After an [`Error::Transient`] with a
    /// time to wait it is asked again, unless the server is there by then; one without leaves open whether it
    /// was made, and the server is looked for by its name.
    async fn create_server(
        &self,
        deployment: &Deployment,
        order: &ServerOrder,
        journal: &Journal,
    ) -> Result<NewServer>;

    /// A server, as it is now.
    async fn server(&self, id: &str) -> Result<ServerView>;

    /// Every server of the project, whoever made it.
    async fn servers(&self) -> Result<Vec<ServerView>>;

    /// What a server has written to its console so far, or the end of it.
    async fn console(&self, id: &str) -> Result<String>;

    /// Gives a server an address that others can reach: a new one, never one that was there. Its entry has
    /// the server's name, so that it goes with the server. Asked again after an answer that was lost, it
    /// finds the one that it made.
    async fn add_external_address(
        &self,
        deployment: &Deployment,
        server: &ServerView,
        journal: &Journal,
    ) -> Result<IpAddr>;

    /// Asks the cloud to delete something. A server is gone when [`Self::server`] does not find it.
    /// [`Error::Conflict`] says that something still uses it.
    async fn delete(&self, kind: Kind, id: &str) -> Result<()>;

    /// The id of the server that this process runs on, if it is one of this cloud.
    async fn here(&self) -> Result<Option<String>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let new = NewServer { id: "7".to_owned(), admin_password: Some("hush".to_owned()) };
        let flavor = Flavor { id: "1".into(), name: "a".into(), cores: 1, ram_mb: 1, disk_gb: 1 };
        let image =
            Image { id: "1".into(), name: "i".into(), created_at: None, min_disk_gb: 0, min_ram_mb: 0 };
        let order = ServerOrder {
            name: "s".to_owned(),
            image,
            flavor,
            volume_gb: None,
            user_data: "hush".to_owned(),
            user: "root".to_owned(),
        };
        let text = format!("{new:?} {order:?}");
        assert!(!text.contains("hush") && text.contains("hidden") && text.contains("4 bytes"), "{text}");
    }
}
