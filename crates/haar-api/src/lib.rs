//! The wire: the endpoint table of /v1, feed and report, JSON-RPC.

pub mod rpc;
