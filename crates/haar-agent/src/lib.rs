//! The hypervisor's shell: pull loop, ledger, sub-agent calls, host networking.
