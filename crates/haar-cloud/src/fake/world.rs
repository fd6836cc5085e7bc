//! The truth of the cloud in memory: its servers and things, and what is in the way of what.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::time::Instant;

use crate::flavor::Flavor;
use crate::image::Image;
use crate::name::{DeploymentId, Owner, ResourceName};
use crate::provider::{Deployment, Found, NewServer, ServerOrder, ServerState, ServerView};
use crate::quota::{Quota, Usage};
use crate::state::Kind;
use crate::{Error, Result};

/// How servers come up that are asked for from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Build {
    /// They run after this time.
    After(Duration),
    /// They fail after a second, with this fault of the cloud.
    Fails(&'static str),
    /// They never run.
    Never,
    /// They run at once and have this address alone, or none.
    At(Option<IpAddr>),
}

/// The cloud's truth.
#[derive(Debug)]
pub struct World {
    /// The flavors it offers.
    pub flavors: Vec<Flavor>,
    /// The images it has.
    pub images: Vec<Image>,
    /// Its limits; what is used is counted.
    pub limits: Quota,
    /// How servers come up that are asked for from now on.
    pub build: Build,
    /// How long servers take to go; `None` is for ever.
    pub leaving: Option<Duration>,
    /// The server that this process runs on.
    pub here: Option<String>,
    /// What tells this cloud from others; `None` is as one that tells nothing.
    pub place: Option<String>,
    /// What each server's console says.
    pub console: String,
    last: u32,
    servers: BTreeMap<String, FakeServer>,
    things: BTreeMap<String, Thing>,
}

#[derive(Debug)]
struct FakeServer {
    name: String,
    mark: Option<DeploymentId>,
    flavor: String,
    since: Instant,
    build: Build,
    address: IpAddr,
    external: Vec<IpAddr>,
    leaving: Option<Instant>,
    volume_gb: Option<u64>,
}

#[derive(Debug)]
struct Thing {
    kind: Kind,
    name: String,
    mark: Option<DeploymentId>,
    /// A key pair's public half, an address, or nothing.
    content: String,
    /// The server it hangs on.
    server: Option<String>,
}

impl Default for World {
    fn default() -> Self {
        let flavor = |name: &str, cores, disk_gb| Flavor {
            id: format!("flavor-{name}"),
            name: name.into(),
            cores,
            ram_mb: 2048 * u64::from(cores),
            disk_gb,
        };
        let image = |name: &str, day: &str, min_disk_gb| Image {
            id: format!("image-{name}"),
            name: name.to_owned(),
            created_at: format!("{day}T00:00:00Z").parse().ok(),
            min_disk_gb,
            min_ram_mb: 512,
        };
        Self {
            flavors: vec![flavor("small", 1, 10), flavor("large", 4, 40)],
            images: vec![image("debian-12", "2023-06-10", 5), image("debian-11", "2021-08-14", 5)],
            limits: Quota::default(),
            build: Build::After(Duration::from_secs(3)),
            leaving: Some(Duration::from_secs(1)),
            here: None,
            place: None,
            console: String::new(),
            last: 0,
            servers: BTreeMap::new(),
            things: BTreeMap::new(),
        }
    }
}

impl World {
    /// Everything there is, by kind and name.
    pub(super) fn left(&self) -> Vec<String> {
        let servers = self.servers.values().filter(|server| !self.is_gone(server));
        let servers = servers.map(|server| format!("server {}", server.name));
        let things = self.things.values().map(|thing| format!("{} {}", thing.kind, thing.name));
        servers.chain(things).collect()
    }

    /// Puts something there that another made: it bears another mark, or none.
    pub fn put(&mut self, kind: Kind, name: &str, mark: Option<DeploymentId>, content: &str) -> String {
        let id = self.next_id(&kind.to_string());
        if kind == Kind::Server {
            let server = FakeServer {
                name: name.to_owned(),
                mark,
                flavor: "flavor-small".to_owned(),
                since: Instant::now(),
                build: Build::After(Duration::ZERO),
                address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
                external: Vec::new(),
                leaving: None,
                volume_gb: None,
            };
            self.servers.insert(id.clone(), server);
        } else {
            let thing =
                Thing { kind, name: name.to_owned(), mark, content: content.to_owned(), server: None };
            self.things.insert(id.clone(), thing);
        }
        id
    }

    /// Takes a server or thing away, as its owner would from elsewhere.
    pub fn take(&mut self, id: &str) {
        self.servers.remove(id);
        self.things.remove(id);
    }

    /// Everything that bears a mark: kind, name and id.
    #[must_use]
    pub fn marked(&self, mark: DeploymentId) -> Vec<(Kind, String, String)> {
        let servers =
            self.servers.iter().filter(|(_, server)| server.mark == Some(mark) && !self.is_gone(server));
        let servers = servers.map(|(id, server)| (Kind::Server, server.name.clone(), id.clone()));
        let things = self.things.iter().filter(|(_, thing)| thing.mark == Some(mark));
        servers.chain(things.map(|(id, thing)| (thing.kind, thing.name.clone(), id.clone()))).collect()
    }

    /// The public key of the key pair with this name.
    #[must_use]
    pub fn public_key(&self, name: &str) -> Option<&str> {
        let pair = self.things.values().find(|thing| thing.kind == Kind::KeyPair && thing.name == name);
        pair.map(|thing| thing.content.as_str())
    }

    /// The size of each server's boot volume.
    #[must_use]
    pub fn volumes(&self) -> Vec<Option<u64>> {
        self.servers.values().map(|server| server.volume_gb).collect()
    }

    /// The volume of this name.
    pub(super) fn volume(&self, name: &str) -> Option<String> {
        let is_it = |thing: &Thing| thing.kind == Kind::Volume && thing.name == name;
        self.things.iter().find(|(_, thing)| is_it(thing)).map(|(id, _)| id.clone())
    }

    pub(super) fn quota(&self) -> Quota {
        let flavor = |server: &FakeServer| self.flavors.iter().find(|flavor| flavor.id == server.flavor);
        let there = self.servers.values().filter(|server| !self.is_gone(server));
        Quota { used: Usage::of_servers(there.map(flavor)), ..self.limits.clone() }
    }

    /// What a deployment can stand on of a kind; a key pair must be the right one.
    pub(super) fn find(&self, kind: Kind, deployment: &Deployment) -> Result<Option<Found>> {
        let name = deployment.name.as_str();
        let Some((id, thing)) =
            self.things.iter().find(|(_, thing)| thing.kind == kind && thing.name == name)
        else {
            return Ok(None);
        };
        if kind == Kind::KeyPair && thing.content != deployment.public_key {
            let message = "its public key is another than the one on record".to_owned();
            return Err(Error::Conflict { what: format!("key pair {name}"), message });
        }
        let ours = thing.mark == Some(deployment.id) || kind == Kind::KeyPair;
        Ok(Some(Found { kind, name: name.to_owned(), id: id.clone(), ours }))
    }

    pub(super) fn make(&mut self, kind: Kind, deployment: &Deployment) -> String {
        let key = if kind == Kind::KeyPair { deployment.public_key.as_str() } else { "" };
        self.put(kind, deployment.name.as_str(), Some(deployment.id), key)
    }

    pub(super) fn survey(&self, name: &ResourceName, id: Option<DeploymentId>) -> Vec<Found> {
        let alike = |other: &str| other.starts_with(name.as_str());
        let ours = |mark: Option<DeploymentId>| id.is_some() && mark == id;
        let servers = self.servers.iter().filter(|(_, server)| !self.is_gone(server));
        let servers = servers.map(|(id, server)| (Kind::Server, &server.name, id, server.mark));
        let things = self.things.iter().map(|(id, thing)| (thing.kind, &thing.name, id, thing.mark));
        let all = servers.chain(things).filter(|(_, other, _, mark)| ours(*mark) || alike(other));
        all.map(|(kind, name, id, mark)| Found { kind, name: name.clone(), id: id.clone(), ours: ours(mark) })
            .collect()
    }

    pub(super) fn create(&mut self, deployment: &Deployment, order: &ServerOrder) -> Result<NewServer> {
        let not_found =
            |kind: &str, name: &str| Error::NotFound { kind: kind.to_owned(), name: name.to_owned() };
        if !self.images.contains(&order.image) {
            return Err(not_found("image", &order.image.id));
        }
        if !self.flavors.contains(&order.flavor) {
            return Err(not_found("flavor", &order.flavor.id));
        }
        self.quota().check(&Usage::of_spawn(&order.flavor, order.volume_gb), &Usage::default())?;
        let id = self.next_id("server");
        let first = u32::from(deployment.ground.cidr.network());
        let server = FakeServer {
            name: order.name.clone(),
            mark: Some(deployment.id),
            flavor: order.flavor.id.clone(),
            since: Instant::now(),
            build: self.build.clone(),
            address: IpAddr::V4(Ipv4Addr::from(first + 1 + self.last % 10_000)),
            external: Vec::new(),
            leaving: None,
            volume_gb: order.volume_gb,
        };
        self.servers.insert(id.clone(), server);
        Ok(NewServer { id, admin_password: Some("hush".to_owned()) })
    }

    pub(super) fn view(&self, id: &str) -> Result<ServerView> {
        let there = self.servers.get(id).filter(|server| !self.is_gone(server));
        let server =
            there.ok_or_else(|| Error::NotFound { kind: "server".to_owned(), name: id.to_owned() })?;
        let passed = server.since.elapsed();
        let (state, status) = match &server.build {
            _ if server.leaving.is_some() => (ServerState::Leaving, "DELETING"),
            Build::After(time) if passed >= *time => (ServerState::Active, "ACTIVE"),
            Build::At(_) => (ServerState::Active, "ACTIVE"),
            Build::Fails(_) if passed >= Duration::from_secs(1) => (ServerState::Failed, "ERROR"),
            Build::After(_) | Build::Fails(_) | Build::Never => (ServerState::Building, "BUILD"),
        };
        let fault = match &server.build {
            Build::Fails(message) if state == ServerState::Failed => {
                Some(crate::fault::ServerFault { code: 500, message }.error(&server.name))
            }
            _ => None,
        };
        let address = match server.build {
            Build::At(address) => address,
            _ => (state == ServerState::Active).then_some(server.address),
        };
        Ok(ServerView {
            id: id.to_owned(),
            name: server.name.clone(),
            state,
            status: status.to_owned(),
            fault,
            flavor: server.flavor.clone(),
            addresses: address.into_iter().collect(),
            external_addresses: server.external.clone(),
            owner: server.mark.map_or(Owner::Unmarked, Owner::Another),
        })
    }

    /// Every server there is.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerView> {
        self.servers.keys().filter_map(|id| self.view(id).ok()).collect()
    }

    pub(super) fn console(&self, id: &str) -> Result<String> {
        self.view(id).map(|_| self.console.clone())
    }

    pub(super) fn add_external(&mut self, deployment: &Deployment, server: &ServerView) -> Result<String> {
        self.view(&server.id)?;
        let made = self.things.iter().find(|(_, thing)| thing.server.as_ref() == Some(&server.id));
        if let Some((id, _)) = made {
            return Ok(id.clone());
        }
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(203, 0, 113, 0)) + self.last);
        let address_text = address.to_string();
        let id = self.put(Kind::FloatingIp, &address_text, Some(deployment.id), &address_text);
        if let Some(thing) = self.things.get_mut(&id) {
            thing.server = Some(server.id.clone());
        }
        if let Some(server) = self.servers.get_mut(&server.id) {
            server.external.push(IpAddr::V4(address));
        }
        Ok(id)
    }

    pub(super) fn external(&self, id: &str) -> Result<IpAddr> {
        let not_found = || Error::NotFound { kind: "floating IP".to_owned(), name: id.to_owned() };
        let address = self.things.get(id).and_then(|thing| thing.content.parse().ok());
        address.ok_or_else(not_found)
    }

    pub(super) fn delete(&mut self, kind: Kind, id: &str) -> Result<()> {
        if kind == Kind::Server {
            self.view(id)?;
            if let Some(server) = self.servers.get_mut(id) {
                server.leaving.get_or_insert_with(Instant::now);
            }
            return Ok(());
        }
        let there = self.things.get(id).filter(|thing| thing.kind == kind);
        let thing = there.ok_or_else(|| Error::NotFound { kind: kind.to_string(), name: id.to_owned() })?;
        if let Some(in_the_way) = self.in_the_way(thing) {
            return Err(Error::Conflict { what: format!("{kind} {id}"), message: in_the_way });
        }
        self.things.remove(id);
        Ok(())
    }

    /// What uses a thing of the same deployment.
    fn in_the_way(&self, thing: &Thing) -> Option<String> {
        let users: &[Kind] = match thing.kind {
            Kind::Network => &[Kind::Subnet, Kind::Server],
            Kind::Subnet => &[Kind::RouterInterface, Kind::Server],
            Kind::Router => &[Kind::RouterInterface],
            Kind::RouterInterface => &[Kind::FloatingIp],
            Kind::SecurityGroup => &[Kind::Server],
            _ => &[],
        };
        let servers = self.servers.values().filter(|server| !self.is_gone(server));
        let servers = servers.map(|server| (Kind::Server, server.mark, &server.name));
        let things = self.things.values().map(|thing| (thing.kind, thing.mark, &thing.name));
        let mut all = servers.chain(things);
        let is_user = |kind: Kind, name: &str| match thing.kind {
            // A volume has its server's name.
            Kind::Volume => kind == Kind::Server && *name == thing.name,
            _ => users.contains(&kind),
        };
        let user = all.find(|(kind, mark, name)| is_user(*kind, name) && *mark == thing.mark);
        user.map(|(kind, _, name)| format!("{kind} {name} uses it"))
    }

    fn is_gone(&self, server: &FakeServer) -> bool {
        match (server.leaving, self.leaving) {
            (Some(since), Some(takes)) => since.elapsed() >= takes,
            _ => false,
        }
    }

    fn next_id(&mut self, kind: &str) -> String {
        self.last += 1;
        format!("{}-{}", kind.replace(' ', "-"), self.last)
    }
}
