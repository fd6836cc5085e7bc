//! Servers in other clouds.
//!
//! This crate is of use to people who never run the rest of Haar. So far it holds what needs no network:
//! names and whose something is, logins, flavors, images, quotas.

mod error;

pub mod env;
pub mod flavor;
pub mod image;
pub mod name;
pub mod quota;
pub mod space;
pub mod state;

pub use error::{Class, Error};

/// What a function of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
