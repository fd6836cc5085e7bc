//! Mistify's REST on the agent, over real HTTP with stub sub-agents: the cases of the fact sheet by their numbers,
//! and a test for each defect of the original that is mended here.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod bad_input;
mod cases;
mod container;
mod defects;
mod guarded;
mod host;
mod killed;
#[path = "../../../haar/tests/left_out/mod.rs"]
mod left_out;
mod libvirt;
mod list;
mod python;
mod storage;
mod stub;
mod watched;
mod world;
