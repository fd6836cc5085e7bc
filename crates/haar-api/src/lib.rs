//! The wire: the endpoint table of /v1, feed and report, JSON-RPC.
//!
//! Wire structs and what is derived from them. Nothing here decides: a server translates these into the
//! core's commands, an agent into the node's inputs. Of the core only value types are used (ids, names,
//! addresses, units, fences), never its entities.
//! One rule lives here because both ends of the wire must judge alike: what may become a base image.

pub mod agent;
pub mod client;
pub mod endpoint;
pub mod feed;
pub mod image_check;
pub mod linger;
pub mod openapi;
pub mod problem;
pub mod rpc;
pub mod rpc_client;
pub mod table;
pub mod unread;
pub mod v1;
