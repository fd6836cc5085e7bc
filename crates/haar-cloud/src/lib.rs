//! Servers in other clouds: the rules, the record, and what a cloud must be able to do.
//!
//! This crate is of use to people who never run the rest of Haar. Most of it needs no network: names and
//! whose something is, logins, flavors, images, quotas, what a cloud's "no" means, the pace of spawning, a
//! server's room and life, and the record of what was made. Clocks and lots come in as arguments there, so
//! that each rule can be tried in a test. [`Provider`] is what a cloud must be able to do, and [`Journal`]
//! how what it makes comes on record. Deliberately absent so far: the providers themselves, and ssh.
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

pub mod copy_list;
pub mod env;
pub mod fault;
pub mod flavor;
pub mod image;
pub mod journal;
pub mod life;
pub mod name;
pub mod pace;
pub mod provider;
pub mod quota;
pub mod space;
pub mod state;

pub use error::{Class, Error};
pub use journal::Journal;
pub use provider::Provider;

/// What a function of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
