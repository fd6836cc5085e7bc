//! The provider against a real OpenStack, brought up by `tests/openstack/up.sh`.
//!
//! `cargo xtask test --only openstack` brings one up and runs these. By hand: `HAAR_OPENSTACK_DIR` names
//! the folder of one that is up; without it each test is left out by name. Where its fake driver lets every
//! build fail (`HAAR_OPENSTACK_COMPUTE=FakeBuildAbort`) only the tests about that are run. Whatever a test
//! makes is gone after it, also when it fails.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod contract;
mod deployments;
mod harness;
mod keystone;
mod limits;
mod member;
mod servers;
#[path = "../support/mod.rs"]
mod support;
