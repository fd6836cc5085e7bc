//! The container sub-agent over its socket, with a real runtime, real overlays, networks and cgroups.

#![expect(clippy::unwrap_used, reason = "a test ends where it does not understand the world")]

mod archives;
mod bad_input;
mod containers;
mod crun;
mod full_disk;
mod harness;
mod images;
mod killed;
mod make_image;
mod network;
#[path = "../plain/mod.rs"]
mod plain;
mod registry;
mod restart;
mod save;
