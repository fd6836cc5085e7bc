//! OpenStack as a cloud of [`haar_cloud`]: [`OpenStack`] is its [`Provider`](haar_cloud::Provider).
//!
//! It speaks to Keystone (v3), Nova, Neutron, Glance and, where the catalog has it, Cinder, each in the
//! oldest version that can do the thing (Nova 2.1, Cinder 3.0), so no microversion is ever asked for. A
//! token that runs out is replaced unseen; lists are read to their last page; every failure has the class
//! that [`haar_cloud::fault`] finds by status and fault.
//!
//! What it makes bears the deployment's mark from the moment it exists: servers and volumes as metadata, everything
//! of the network as its description, and as a tag besides, a key pair as the comment of its key. Only what
//! bears the mark, or stands in the record under its id, is ever taken for ours.
//!
//! Deliberately absent: waiting and trying again, which are the same for every cloud and live in
//! `haar-cloud`; logins through a browser, one-time codes and client certificates; and a way not to check
//! the cloud's certificate, for which there is `OS_CACERT`.
//!
//! ```no_run
//! use haar_cloud::Provider;
//! use haar_openstack::{OpenStack, Settings};
//!
//! # async fn example() -> haar_cloud::Result<()> {
//! // The variables of an openrc file, or a cloud of clouds.yaml named in OS_CLOUD.
//! let cloud = OpenStack::connect(Settings::from_env()?).await?;
//! for flavor in cloud.flavors().await? {
//!     println!("{}: {} cores, {} MB", flavor.name, flavor.cores, flavor.ram_mb);
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod ground;
mod here;
mod open_stack;
mod project;
mod server;
pub mod settings;
mod thing;
mod volume;

pub use open_stack::OpenStack;
pub use settings::Settings;
