//! Clouds and their servers: the contract of providers, the numbered cases, servers by ssh, and the leak check.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod bench;
mod catalog;
mod contract;
mod defects;
mod endings;
mod failures;
mod here;
mod leaks;
mod numbered;
mod offers;
mod places;
mod processes;
mod reach;
mod servers;
mod spawns;
mod ssh;
mod sshd;
