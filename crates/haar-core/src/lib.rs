//! The two brains of Haar as plain values: `Fleet` (the controller's) and `Node` (a hypervisor's).
//!
//! Each takes an input and returns a decision; a shell makes the decision durable, applies it, then
//! acts on it: decide → commit → apply → act. Nothing here reads a clock, draws lots, does I/O, writes a
//! log or depends on hash order: time, liveness and new ids come in with the command, so the same inputs
//! give the same outputs, to the byte.

pub mod address;
pub mod fence;
pub mod id;
pub mod name;
pub mod units;

pub mod config;
pub mod firewall;
pub mod flavor;
pub mod guest;
pub mod hypervisor;
pub mod image;
pub mod ipam;
pub mod job;
pub mod network;
pub mod token;

pub mod order;
pub mod refusal;
pub mod ruleset;

pub mod pipeline;

pub mod schedule;

pub mod batch;
pub mod fleet;
pub mod node;
