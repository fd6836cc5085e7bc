//! Servers in other clouds: deploy, spawn, work with them by ssh, tear down.
//!
//! This crate is of use to people who never run the rest of Haar. [`Cloud`] is a deployment in one cloud and
//! [`Server`] a server of it: those two are what most callers need. [`Provider`] is what a cloud must be able
//! to do, and [`Journal`] how what it makes comes on record; [`local`] is this machine as a provider. The
//! rules need no network: names and whose something is, logins, flavors, images, quotas, what a cloud's "no"
//! means, the pace of spawning, a server's room and life, and the record of what was made. Clocks and lots
//! come in as arguments there, so that each rule can be tried in a test. Deliberately absent: providers that
//! bring much with them, which are crates of their own.
//!
//! ```
//! use haar_cloud::flavor::{Flavor, Need, PriceList, Wanted};
//! use haar_cloud::space::Cores;
//! use haar_cloud::state::{Kind, Store};
//! use haar_cloud::name::ResourceName;
//! # fn main() -> haar_cloud::Result<()> {
//! # let folder = tempfile::tempdir().expect("a folder for this example");
//!
//! // The cheapest flavor that will do, by price.
//! let flavor = |name: &str, cores| Flavor { id: name.into(), name: name.into(), cores, ram_mb: 4096, disk_gb: 20 };
//! let flavors = [flavor("m1.small", 1), flavor("spot.large", 8)];
//! let prices = PriceList::parse(r#"{"currency": "EUR", "per_hour": {"m1.small": 0.03, "spot.large": 0.01}}"#)?;
//! let need = Need { cores: Cores::from_f64(0.5)?, ram_mb: 2048 };
//! let chosen = Wanted { need, pattern: None, prices: Some(&prices) }.cheapest(&flavors)?;
//! assert_eq!(chosen.name, "spot.large");
//!
//! // Noted before it is made: whatever happens in between, it is not forgotten.
//! let name = ResourceName::parse("render farm")?;
//! let store = Store::new(folder.path(), "openstack", &name)?;
//! let now = "2026-11-21T12:00:00Z".parse().expect("a time");
//! store.begin(now)?;
//! let network = store.change(|record| record.plan(Kind::Network, name.as_str(), now))?;
//! // … here the cloud is asked to create it, and answers with an id …
//! store.change(|record| record.made(network, "7c1d"))?;
//! assert_eq!(store.load()?.expect("just written").to_destroy().len(), 1);
//! # Ok(())
//! # }
//! ```

mod error;
mod key;

pub mod cloud;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod copy_list;
pub mod env;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod fault;
pub mod flavor;
#[cfg(feature = "haar")]
pub mod haar;
pub mod image;
pub mod journal;
pub mod life;
pub mod local;
pub mod name;
pub mod pace;
pub mod provider;
pub mod quota;
pub mod server;
pub mod space;
pub mod state;
pub mod turns;
pub mod user_data;

pub use cloud::{Cloud, SpawnOrder};
pub use error::{Class, Error};
pub use journal::Journal;
pub use provider::Provider;
pub use server::Server;

/// What a function of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
