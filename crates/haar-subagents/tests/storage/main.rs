//! The storage sub-agent over its socket, with the real qemu-img, a real web server and real file systems.

#![expect(clippy::unwrap_used, reason = "a test ends where it does not understand the world")]

mod backends;
mod btrfs;
mod conversions;
mod datasets;
mod disks;
mod download;
mod ended;
mod full_disk;
mod harness;
mod http;
mod image_service;
mod images;
mod killed;
mod mounted;
mod numbered;
#[path = "../plain/mod.rs"]
mod plain;
mod proxy;
mod resumed;
mod snapshots;
mod snapshots_killed;
mod volumes;
mod waiting;
mod web;
mod zfs;
mod zvols;
