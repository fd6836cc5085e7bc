//! The pool against Debian's real OpenSSH server, which each test starts for itself on loopback.
//!
//! The numbers are those of the table of cases and defects that the library is held to. Needs
//! `/usr/sbin/sshd` (package `openssh-server`, whose service need not run); left out, with words, without it.

#![expect(clippy::unwrap_used, reason = "a test ends where it does not understand the world")]

mod commands;
mod connections;
mod dropbear;
mod ending;
mod files;
mod harness;
mod logins;
mod proxy;
mod readiness;
mod sessions;
mod shells;
mod silence;
mod sshd;
