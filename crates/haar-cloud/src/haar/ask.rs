//! Asking the controller: one request, every page of a list, one thing by its id.

use haar_api::endpoint::{Endpoint, Nothing};
use haar_api::v1::{GuestListQuery, List, ListQuery, MOST_LIMIT, SubnetListQuery};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{HaarCloud, fault};
use crate::{Error, Result};

/// A query of a list that comes in pages.
pub(super) trait Paged {
    /// The page at `cursor` of what is in `project`, of this name if one is given.
    fn page(project: Option<&str>, name: Option<&str>, cursor: Option<String>) -> Self;
}

macro_rules! paged {
    ($($query:ty)*) => {$(
        impl Paged for $query {
            fn page(project: Option<&str>, name: Option<&str>, cursor: Option<String>) -> Self {
                Self {
                    limit: Some(MOST_LIMIT),
                    cursor,
                    name: name.map(str::to_owned),
                    project: project.map(str::to_owned),
                    ..Self::default()
                }
            }
        }
    )*};
}

// A plain list has no more fields than these; the others have.
#[allow(clippy::needless_update, reason = "one macro for all of them")]
mod queries {
    use super::*;
    paged!(ListQuery GuestListQuery SubnetListQuery);
}

impl HaarCloud {
    /// Every one of a list of the project, or those of one name.
    pub(super) async fn all<E, V>(&self, kind: &str, name: Option<&str>) -> Result<Vec<V>>
    where
        V: DeserializeOwned,
        E: Endpoint<Query: Paged, Body = Nothing, Answer = List<V>>,
    {
        self.pages::<E, V>(kind, Some(&self.project), name).await
    }

    /// Every one of a list, in whatever project.
    pub(super) async fn all_of_every_project<E, V>(&self, kind: &str) -> Result<Vec<V>>
    where
        V: DeserializeOwned,
        E: Endpoint<Query: Paged, Body = Nothing, Answer = List<V>>,
    {
        self.pages::<E, V>(kind, None, None).await
    }

    async fn pages<E, V>(&self, kind: &str, project: Option<&str>, name: Option<&str>) -> Result<Vec<V>>
    where
        V: DeserializeOwned,
        E: Endpoint<Query: Paged, Body = Nothing, Answer = List<V>>,
    {
        let (mut items, mut cursor) = (Vec::new(), None);
        loop {
            let query = E::Query::page(project, name, cursor);
            let sent = self.client.request::<E>(&[]).query(query).send(&Nothing).await;
            let page = sent.map_err(|error| fault::error(kind, name.unwrap_or("list"), error))?.value;
            items.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// Asks something of, or for, one thing.
    pub(super) async fn ask<E>(&self, kind: &str, id: &str, body: &E::Body) -> Result<E::Answer>
    where
        E: Endpoint<Answer: DeserializeOwned>,
    {
        let path = id_of(kind, id)?;
        let sent = self.client.request::<E>(&[&path]).send(body).await;
        sent.map(|answered| answered.value).map_err(|error| fault::error(kind, id, error))
    }
}

/// The id, as the path has it. What is no id is the id of nothing: as a name it could mean another's thing.
pub(super) fn id_of(kind: &str, id: &str) -> Result<String> {
    let not_found = |_| Error::NotFound { kind: kind.to_owned(), name: id.to_owned() };
    Uuid::try_parse(id).map(|id| id.to_string()).map_err(not_found)
}
