//! A Haar controller as the cloud: its guests are the servers. With the feature `haar`.
//!
//! Only the public API is used, so that everything can be tried on one machine, or with a private cloud of
//! one's own in place of a rented one. What is made carries the deployment's mark in its labels, and its full
//! name beside it, since Haar's own names are DNS labels. Ids are derived from the mark and from the servers'
//! names: a request whose answer was lost can be sent again, and is the same request.
//!
//! What Haar has not, this provider has not either. There are no key pairs (a guest is given the public key),
//! no routers (a network with NAT is its own), no volumes to boot from, and no addresses but a guest's own: it
//! is reached from the hypervisors, and from wherever routes to the network lead. Firewall groups are stored
//! and checked by the controller; whether they are enforced is for it to say. No project has a quota; the limit
//! is what the machines that can take guests now still hold.
//!
//! ```no_run
//! # async fn example() -> haar_cloud::Result<()> {
//! use haar_cloud::Provider as _;
//! let cloud = haar_cloud::haar::HaarCloud::new("http://127.0.0.1:8600", Some("secret".to_owned()), None)?;
//! println!("{:?}", cloud.flavors().await?);
//! # Ok(()) }
//! ```

use std::net::IpAddr;

use async_trait::async_trait;
use haar_api::client::Client;

use crate::flavor::Flavor;
use crate::image::Image;
use crate::journal::Journal;
use crate::name::{DeploymentId, ResourceName};
use crate::provider::{Deployment, Found, NewServer, Provider, ServerOrder, ServerView};
use crate::quota::Quota;
use crate::state::Kind;
use crate::{Error, Result};

mod ask;
mod fault;
mod firewall;
mod ground;
mod label;
mod offer;
mod server;
mod survey;

/// The word for this kind of cloud.
pub const KIND: &str = "haar";

/// The project of a Haar cloud that everything is in unless said otherwise.
const DEFAULT_PROJECT: &str = "default";

/// A project of a Haar cloud.
#[derive(Debug, Clone)]
pub struct HaarCloud {
    client: Client,
    project: String,
    id: Option<String>,
}

impl HaarCloud {
    /// The cloud of the controller at `url` (`http://host:port`), with a bearer token. Nothing is sent yet.
    /// Without a `project` it is the one called `default`.
    ///
    /// # Errors
    /// [`Error::BadInput`] for an address that is none; [`Error::Auth`] for a token that no token looks like.
    pub fn new(url: &str, token: Option<String>, project: Option<&str>) -> Result<Self> {
        let client = Client::new(url, token).map_err(|error| fault::error("controller", url, error))?;
        Ok(Self::with_client(client, project))
    }

    /// The same with a client that is there already.
    #[must_use]
    pub fn with_client(client: Client, project: Option<&str>) -> Self {
        Self { client, project: project.unwrap_or(DEFAULT_PROJECT).to_owned(), id: None }
    }

    /// The same, with the cloud's id, by which its records are told from those of others.
    #[must_use]
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..self }
    }
}

#[async_trait]
impl Provider for HaarCloud {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn place(&self) -> Option<String> {
        let id = self.id.as_ref()?;
        Some(format!("project {} of the Haar cloud {id}", self.project))
    }

    async fn flavors(&self) -> Result<Vec<Flavor>> {
        offer::flavors(self).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        offer::images(self).await
    }

    async fn quota(&self) -> Result<Quota> {
        offer::quota(self).await
    }

    async fn deploy(&self, deployment: &Deployment, journal: &Journal) -> Result<()> {
        ground::deploy(self, deployment, journal).await
    }

    async fn survey(&self, name: &ResourceName, id: Option<DeploymentId>) -> Result<Vec<Found>> {
        survey::find(self, name, id).await
    }

    async fn needed(&self, deployment: &Deployment) -> Result<Vec<(Kind, String)>> {
        Ok(ground::needed(deployment))
    }

    async fn create_server(
        &self,
        deployment: &Deployment,
        order: &ServerOrder,
        journal: &Journal,
    ) -> Result<NewServer> {
        server::create(self, deployment, order, journal).await
    }

    async fn server(&self, id: &str) -> Result<ServerView> {
        server::show(self, id).await
    }

    async fn servers(&self) -> Result<Vec<ServerView>> {
        server::list(self).await
    }

    async fn console(&self, id: &str) -> Result<String> {
        server::console(self, id).await
    }

    /// The guest's own address: there is no other, and none is made.
    async fn add_external_address(&self, _: &Deployment, server: &ServerView, _: &Journal) -> Result<IpAddr> {
        server.addresses.first().copied().ok_or_else(|| Error::Transient {
            what: format!("the address of server {}", server.name),
            message: "it has none yet".to_owned(),
            retry_after: None,
        })
    }

    async fn delete(&self, kind: Kind, id: &str) -> Result<()> {
        survey::delete(self, kind, id).await
    }

    /// The guest whose id the firmware of this machine shows, which only root can read, or else cloud-init noted.
    /// On whatever is no guest of this cloud it is none.
    async fn here(&self) -> Result<Option<String>> {
        server::here(self).await
    }
}
