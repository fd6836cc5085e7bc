//! The word after `--provider`, and the cloud it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_cloud::haar::HaarCloud;
use haar_cloud::local::Local;
use haar_cloud::{Error, Provider};

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::{Global, advice, output};

/// A cloud, and the folder that its records are in.
pub(super) struct Chosen {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) folder: PathBuf,
}

/// The cloud of this kind, with the login that the environment and the saved clouds give; its records are beneath
/// `folder`.
pub(super) async fn choose(kind: &str, global: &Global, folder: &Path) -> Result<Chosen, Failure> {
    match kind {
        "haar" => haar(global, folder).await,
        "local" => Ok(Chosen { provider: Arc::new(Local::new(folder)), folder: folder.to_owned() }),
        "openstack" => Ok(Chosen { provider: openstack().await?, folder: folder.to_owned() }),
        other => Err(Error::UnknownProvider { name: other.to_owned() }.into()),
    }
}

/// The controller that the other commands speak to. Several may be known by turns under one name, so that each has a
/// folder of its own.
async fn haar(global: &Global, folder: &Path) -> Result<Chosen, Failure> {
    let context = Context::connect(global.clone())?;
    let asked = context.client.request::<t::Whoami>(&[]).send(&Nothing).await;
    let who = asked.map_err(|error| advice::with_next_step(&context, error.into()))?.value;
    let folder = folder.join(format!("haar-{}", output::short_id(who.cloud)));
    let cloud = HaarCloud::with_client(context.client, context.project.as_deref());
    Ok(Chosen { provider: Arc::new(cloud), folder })
}

/// The cloud that the `OS_` variables, or a `clouds.yaml`, lead to.
#[cfg(feature = "openstack")]
async fn openstack() -> Result<Arc<dyn Provider>, Failure> {
    let settings = haar_openstack::Settings::from_env()?;
    Ok(Arc::new(haar_openstack::OpenStack::connect(settings).await?))
}

#[cfg(not(feature = "openstack"))]
async fn openstack() -> Result<Arc<dyn Provider>, Failure> {
    Err(Failure::Usage(
        "this haar was built without OpenStack; build one that has it:  \
         cargo build --release -p haar --features openstack"
            .to_owned(),
    ))
}
