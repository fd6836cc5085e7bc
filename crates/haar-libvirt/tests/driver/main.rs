//! The program against libvirt's test driver, which lives inside it: what needs no hypervisor. Each test has a
//! driver of its own.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod defects;
#[path = "../harness/mod.rs"]
mod harness;
mod life;
mod wire;

/// The program with a driver of its own.
pub(crate) async fn agent() -> harness::Agent {
    harness::Agent::start("test:///default").await
}
