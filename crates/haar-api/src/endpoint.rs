//! What an endpoint is: method, path, permission, and the types that go in and out.
//!
//! The table in [`crate::table`] makes one type per endpoint; router, OpenAPI document and client are all
//! read from it, so they cannot disagree.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One endpoint of the API.
pub trait Endpoint {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    const METHOD: &'static str;
    /// The path, with `{ref}` and the like for its parameters.
    const PATH: &'static str;
    /// The same word in OpenAPI, logs and tests.
    const OPERATION: &'static str;
    /// One line for a person.
    const SUMMARY: &'static str;
    /// Statuses it answers with when all is well.
    const STATUSES: &'static [u16];
    /// Who may ask.
    type Permission: Permission;
    /// Query parameters.
    type Query: Serialize + DeserializeOwned + JsonSchema + Default;
    /// What is sent.
    type Body: Payload;
    /// What is answered.
    type Answer: Payload;
}

/// Who may ask an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Anybody, without a token.
    Open,
    /// A token of role `admin`.
    Admin,
    /// A token of role `agent`, for its own hypervisor.
    AgentSelf,
    /// Either.
    AdminOrAgent,
}

/// A type for each [`Access`], so that a handler asks for its permission by type.
pub trait Permission {
    /// The access it stands for.
    const ACCESS: Access;
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl Permission for $name {
            const ACCESS: Access = Access::$name;
        }
    )*};
}

permissions! {
    /// Anybody, without a token.
    Open
    /// A token of role `admin`.
    Admin
    /// A token of role `agent`, for its own hypervisor.
    AgentSelf
    /// Either.
    AdminOrAgent
}

/// How a body travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// No body.
    Nothing,
    /// `application/json` of the payload's schema.
    Json,
    /// `application/octet-stream`, streamed.
    Bytes,
    /// `text/plain; charset=utf-8`, streamed where it can go on.
    Text,
    /// `text/html`.
    Html,
    /// `text/event-stream` of [`crate::v1::EventView`].
    Events,
    /// `101 Switching Protocols` to `haar-stream`: raw bytes both ways.
    Stream,
}

/// What can be a body: any wire struct as JSON, or one of the markers below.
pub trait Payload {
    /// How it travels.
    const MEDIA: Media;
    /// Its JSON schema, for [`Media::Json`] and [`Media::Events`].
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
    /// Its bytes as JSON; None for the markers, whose bytes, if any, are streamed apart.
    ///
    /// # Errors
    /// The value cannot be JSON.
    fn encode(&self) -> Result<Option<Vec<u8>>, serde_json::Error>;
}

impl<T: JsonSchema + Serialize + DeserializeOwned> Payload for T {
    const MEDIA: Media = Media::Json;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
    fn encode(&self) -> Result<Option<Vec<u8>>, serde_json::Error> {
        serde_json::to_vec(self).map(Some)
    }
}

macro_rules! markers {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl Payload for $name {
            const MEDIA: Media = Media::$name;
            fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
                None
            }
            fn encode(&self) -> Result<Option<Vec<u8>>, serde_json::Error> {
                Ok(None)
            }
        }
    )*};
}

markers! {
    /// No body.
    Nothing
    /// Bytes, streamed.
    Bytes
    /// Plain text.
    Text
    /// A page.
    Html
    /// Raw bytes both ways after an upgrade.
    Stream
}

/// Server-sent events.
#[derive(Debug, Clone, Copy)]
pub struct Events;

impl Payload for Events {
    const MEDIA: Media = Media::Events;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<crate::v1::EventView>())
    }
    fn encode(&self) -> Result<Option<Vec<u8>>, serde_json::Error> {
        Ok(None)
    }
}

/// A row of the table as a value: what the router, the permission test and the OpenAPI document walk over.
#[derive(Debug, Clone, Copy)]
pub struct EndpointInfo {
    /// [`Endpoint::METHOD`].
    pub method: &'static str,
    /// [`Endpoint::PATH`].
    pub path: &'static str,
    /// [`Endpoint::OPERATION`].
    pub operation: &'static str,
    /// [`Endpoint::SUMMARY`].
    pub summary: &'static str,
    /// [`Endpoint::STATUSES`].
    pub statuses: &'static [u16],
    /// Who may ask.
    pub access: Access,
    /// How the request's body travels.
    pub body: Media,
    /// How the answer travels.
    pub answer: Media,
    pub(crate) describe: fn(&mut SchemaGenerator) -> Described,
}

/// The schemas of one endpoint.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) query: Schema,
    pub(crate) body: Option<Schema>,
    pub(crate) answer: Option<Schema>,
}

impl EndpointInfo {
    /// The row of an endpoint.
    pub const fn of<E: Endpoint>() -> EndpointInfo {
        EndpointInfo {
            method: E::METHOD,
            path: E::PATH,
            operation: E::OPERATION,
            summary: E::SUMMARY,
            statuses: E::STATUSES,
            access: <E::Permission as Permission>::ACCESS,
            body: <E::Body as Payload>::MEDIA,
            answer: <E::Answer as Payload>::MEDIA,
            describe: |generator| Described {
                query: E::Query::json_schema(generator),
                body: E::Body::schema(generator),
                answer: E::Answer::schema(generator),
            },
        }
    }

    /// The names of the path's parameters, in order.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}
