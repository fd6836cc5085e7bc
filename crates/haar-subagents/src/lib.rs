//! JSON-RPC server kit, and the sub-agents built on it.
//!
//! [`kit`] is what every sub-agent of Haar stands on: the envelope, the socket, the limits.
//! [`storage`] keeps images and guest disks (`haar storage`), [`container`] runs containers (`haar container`).
//! Nothing here knows the controller or the agent: a sub-agent sees only `haar-api`.

mod arrival;
pub mod container;
pub mod kit;
pub mod storage;
