//! The program against a real libvirtd and QEMU.
//!
//! Each test has a libvirtd of its own in namespaces of its own, so nothing of the host is touched and all of
//! it, QEMU included, ends with the test, also on failure. Needs root and the programs it names.
//! Left out, with words, where a part is missing; `HAAR_LIVE=1` makes a missing part a failure.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the failure")]

#[path = "../harness/agent_image.rs"]
mod agent_image;
mod booted;
mod defects;
mod events;
mod guest_agent;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../../../haar/tests/left_out/mod.rs"]
mod left_out;
mod libvirtd;
mod life;
mod metrics;
mod screen;
mod snapshot;
