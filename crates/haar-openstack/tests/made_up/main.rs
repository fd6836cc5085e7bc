//! The provider against a made-up OpenStack: what a real one does too seldom to wait for it.
//!
//! Numbers of cases are those of the list of black-box cases that `haar-cloud` is held to.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod fake;
mod faults;
mod ground;
mod logins;
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod volumes;
mod whole;
