//! The storage sub-agent over its socket, with the real qemu-img, a real web server and real file systems.

#![expect(clippy::unwrap_used, reason = "a test ends where it does not understand the world")]

mod disks;
mod full_disk;
mod harness;
mod images;
mod killed;
mod proxy;
mod volumes;
mod web;
