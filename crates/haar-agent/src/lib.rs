//! The hypervisor's shell: pulls its desired set, keeps the ledger, calls sub-agents, makes the host's network.
//!
//! The node's brain (`haar_core::node`) decides; everything here makes its decisions durable and carries
//! them out. Guests run on without it.

pub mod net;
pub mod seed;
pub mod supervise;
