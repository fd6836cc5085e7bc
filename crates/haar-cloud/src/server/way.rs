//! The way to a server that has no address for everybody: through one that has.
//!
//! Promises: all servers share the connections to the one that they are reached through; that one is known by its
//! own host key, and the server behind it by its own. Deliberately absent: more than one server on the way.

use haar_ssh::Pool;

use super::Server;
use crate::Result;
use crate::cloud::Way;

impl Server {
    /// The server that this one is reached through, if it is not reached straight.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) for a server to go through that is not there,
    /// [`Error::State`](crate::Error::State), and what the cloud says.
    pub async fn through(&self) -> Result<Option<Self>> {
        let (cloud, access) = (self.cloud(), self.cloud().access());
        if access.jump.is_some() || self.details().external {
            return Ok(None);
        }
        let other = match &access.way {
            Way::Direct => None,
            Way::Through(name) => Some(cloud.server(name).await?),
            Way::HeadNode => match cloud.head_node().await? {
                // From one of its own servers all the others are near.
                Some(head) if cloud.provider().here().await?.is_none() => Some(head),
                _ => None,
            },
        };
        Ok(other.filter(|other| other.id() != self.id()))
    }

    /// The connections to go through.
    pub(super) async fn way(&self) -> Result<Option<Pool>> {
        let Some(other) = self.through().await? else { return Ok(self.cloud().access().jump.clone()) };
        let known = self.cloud().ways().get(other.id()).filter(|pool| !pool.is_closed()).cloned();
        if known.is_some() {
            return Ok(known);
        }
        // That one is reached straight, so this goes no deeper. Many at once share what its handle holds.
        let pool = Box::pin(other.reach()).await?;
        self.cloud().ways().insert(other.id().to_owned(), pool.clone());
        Ok(Some(pool))
    }
}
