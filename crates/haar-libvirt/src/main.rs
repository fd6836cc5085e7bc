//! The libvirt sub-agent.
fn main() {}
