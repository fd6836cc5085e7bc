//! [`OpenStack`]: which module answers which question of a [`Provider`].

use std::net::IpAddr;

use async_trait::async_trait;
use haar_cloud::flavor::Flavor;
use haar_cloud::image::Image;
use haar_cloud::name::{DeploymentId, ResourceName};
use haar_cloud::provider::{Deployment, Found, NewServer, Prepared, Provider, ServerOrder, ServerView};
use haar_cloud::quota::Quota;
use haar_cloud::state::Kind;
use haar_cloud::{Error, Journal, Result};
use tokio::sync::OnceCell;

use crate::client::{Ask, Client, Service, path};
use crate::ground::{key_pair, router};
use crate::{Settings, ground, here, project, server, volume};

/// An OpenStack cloud, in one project and region.
#[derive(Debug)]
pub struct OpenStack {
    client: Client,
    place: String,
    here: OnceCell<Option<String>>,
}

impl OpenStack {
    /// Logs in.
    ///
    /// # Errors
    /// [`Error::Auth`] for a wrong login; [`Error::BadInput`] for a region that is not there, a certificate
    /// that cannot be trusted, and settings that cannot be used; [`Error::Transient`] for no answer.
    pub async fn connect(settings: Settings) -> Result<Self> {
        let client = Client::new(settings)?;
        let place = client.place().await?;
        Ok(Self { client, place, here: OnceCell::new() })
    }
}

#[async_trait]
impl Provider for OpenStack {
    fn kind(&self) -> &'static str {
        "openstack"
    }

    /// By the project's id, which no other cloud has, and the region's name. Where Keystone is does not count: one
    /// cloud may be reached by several addresses.
    fn place(&self) -> Option<String> {
        Some(self.place.clone())
    }

    async fn flavors(&self) -> Result<Vec<Flavor>> {
        project::flavors(&self.client).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        project::images(&self.client).await
    }

    async fn quota(&self) -> Result<Quota> {
        project::quota(&self.client).await
    }

    async fn deploy(&self, deployment: &Deployment, journal: &Journal) -> Result<()> {
        let here = self.here().await?;
        ground::deploy(&self.client, deployment, journal, here.as_deref()).await
    }

    async fn survey(&self, name: &ResourceName, id: Option<DeploymentId>) -> Result<Vec<Found>> {
        project::survey(&self.client, name, id).await
    }

    async fn needed(&self, deployment: &Deployment) -> Result<Vec<(Kind, String)>> {
        Ok(ground::needed(deployment, self.here().await?.as_deref()))
    }

    async fn prepare_server(
        &self,
        deployment: &Deployment,
        order: &ServerOrder,
        journal: &Journal,
    ) -> Result<Prepared> {
        volume::prepare(&self.client, deployment, order, journal).await
    }

    async fn create_server(
        &self,
        deployment: &Deployment,
        order: &ServerOrder,
        journal: &Journal,
    ) -> Result<NewServer> {
        server::create(&self.client, deployment, order, journal).await
    }

    async fn server(&self, id: &str) -> Result<ServerView> {
        server::view(&self.client, id).await
    }

    async fn servers(&self) -> Result<Vec<ServerView>> {
        Ok(server::all(&self.client).await?.into_iter().map(server::Server::into_view).collect())
    }

    async fn console(&self, id: &str) -> Result<String> {
        server::console(&self.client, id).await
    }

    async fn add_external_address(
        &self,
        deployment: &Deployment,
        server: &ServerView,
        journal: &Journal,
    ) -> Result<IpAddr> {
        server::add_address(&self.client, deployment, server, journal).await
    }

    async fn delete(&self, kind: Kind, id: &str) -> Result<()> {
        let (service, collection) = match kind {
            Kind::KeyPair => return key_pair::delete(&self.client, id).await,
            Kind::RouterInterface => return router::delete_interface(&self.client, id).await,
            Kind::Server => (Service::Compute, "servers"),
            Kind::FloatingIp => (Service::Network, "floatingips"),
            Kind::Port => (Service::Network, "ports"),
            Kind::Volume => (Service::Volume, "volumes"),
            Kind::Router => (Service::Network, "routers"),
            Kind::Subnet => (Service::Network, "subnets"),
            Kind::Network => (Service::Network, "networks"),
            Kind::SecurityGroup => (Service::Network, "security-groups"),
        };
        let label = kind.to_string();
        let ask = Ask::delete(service, path(&[collection, id])).about(&label, id);
        match self.client.done(ask).await {
            // Cinder says so of a volume that a server still has, and of one that is being made.
            Err(Error::Refused { what, status: 400, message }) if kind == Kind::Volume => {
                Err(Error::Conflict { what, message })
            }
            done => done,
        }
    }

    async fn here(&self) -> Result<Option<String>> {
        self.here.get_or_try_init(|| here::server(&self.client)).await.cloned()
    }
}
