//! Translation between the core's values and `haar-api`'s wire structs, one file per noun.
//!
//! The only place that knows both. References come in as ids or names and go out as ids with the name
//! beside them. Deliberately absent: deciding; what is refused here could not even be asked.

pub(crate) mod config;
pub(crate) mod event;
pub(crate) mod feed;
pub(crate) mod flavor;
pub(crate) mod fwgroup;
pub(crate) mod guest;
pub(crate) mod hypervisor;
pub(crate) mod image;
pub(crate) mod job;
pub(crate) mod look;
pub(crate) mod network;
pub(crate) mod refusal;
pub(crate) mod report;
pub(crate) mod status;
pub(crate) mod subnet;
pub(crate) mod token;

use std::net::IpAddr;
use std::sync::Arc;

use haar_api::v1::{Ref, Reference, Time};
use haar_core::fence::{Revision, WallMs};
use haar_core::fleet::Fleet;
use haar_core::fleet::command::Command;
use haar_core::id::Kind;
use haar_core::name::Name;
use haar_core::refusal::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use self::look::Look;

/// A kind of record as `/v1` shows it. The generic handlers are written against this.
pub(crate) trait Noun: 'static {
    /// Its kind.
    const KIND: Kind;
    /// The record in the books.
    type Record: Send + Sync + 'static;
    /// The record as shown.
    type View: Serialize + Send;

    /// The record of this id.
    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<Self::Record>>;
    /// Records after this id, in id order.
    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<Self::Record>> + '_>;
    /// Its id.
    fn id(record: &Self::Record) -> Uuid;
    /// Its name, and its project where it has one.
    fn name(record: &Self::Record) -> (Option<&Name>, Option<&Name>);
    /// The last change of what was asked.
    fn revision(record: &Self::Record) -> Revision;
    /// As shown.
    fn view(record: &Self::Record, look: &Look<'_>) -> Self::View;
}

/// A noun that users make.
pub(crate) trait Makeable: Noun {
    /// What is sent to make one.
    type Create: DeserializeOwned + Send;
    /// What is sent to change one.
    type Patch: DeserializeOwned + Clone + Send;

    /// The command that makes it.
    ///
    /// # Errors
    /// What cannot even be asked: bad names, addresses, references.
    fn create(id: Uuid, body: Self::Create, look: &Look<'_>) -> Result<Command, Refusal>;
    /// The command that changes it, if it is still at this revision.
    ///
    /// # Errors
    /// As [`Makeable::create`].
    fn set(
        record: &Self::Record,
        patch: Self::Patch,
        if_match: Option<Revision>,
        look: &Look<'_>,
    ) -> Result<Command, Refusal>;
}

/// The project named, else the default one.
pub(crate) fn project(text: Option<String>) -> Result<Name, Refusal> {
    text.map_or_else(|| Ok(Name::default_project()), |text| Ok(Name::new(text)?))
}

/// The id a reference means. A name is looked up in its own project, then in the default one.
pub(crate) fn resolve(fleet: &Fleet, kind: Kind, reference: &Ref, project: &Name) -> Result<Uuid, Refusal> {
    let text = match reference.read() {
        Reference::Id(id) => return Ok(id),
        Reference::Name(text) => text,
    };
    let name = Name::new(text)?;
    let default = Name::default_project();
    let found = fleet.find(kind, project, &name).or_else(|| fleet.find(kind, &default, &name));
    let looked = if *project == default { &[project][..] } else { &[project, &default] };
    found.ok_or_else(|| fleet.no_such_name(kind, looked, &name))
}

/// The same for a reference that may be left out.
pub(crate) fn resolve_some<I: From<Uuid>>(
    fleet: &Fleet,
    kind: Kind,
    reference: Option<&Ref>,
    project: &Name,
) -> Result<Option<I>, Refusal> {
    reference.map(|reference| resolve(fleet, kind, reference, project).map(I::from)).transpose()
}

/// An address in a field.
pub(crate) fn address(field: &'static str, text: &str) -> Result<IpAddr, Refusal> {
    text.parse().map_err(|_| Refusal::BadField {
        field,
        problem: format!("`{text}` is not an IP address; write it as 10.1.2.3 or fd00::1"),
    })
}

/// An address in a field that may be left out.
pub(crate) fn address_some(field: &'static str, text: Option<&String>) -> Result<Option<IpAddr>, Refusal> {
    text.map(|text| address(field, text)).transpose()
}

/// A label for people.
pub(crate) fn time(label: WallMs) -> Time {
    Time::from_ms(label.0)
}
