//! The word after `--provider`, and the cloud it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_cloud::haar::HaarCloud;
use haar_cloud::local::Local;
use haar_cloud::name::ResourceName;
use haar_cloud::state::folder_of;
use haar_cloud::{Error, Provider};

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::{Global, advice, output};

/// A cloud, and the folder that its records are in.
pub(super) struct Chosen {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) folder: PathBuf,
}

/// The cloud of this kind, with the login that the environment and the saved clouds give; the records of a deployment
/// are beneath `folder`, in one for each cloud, region and project.
pub(super) async fn choose(
    kind: &str,
    global: &Global,
    folder: &Path,
    name: &ResourceName,
) -> Result<Chosen, Failure> {
    let (provider, before) = match kind {
        "haar" => haar(global, folder).await?,
        "local" => (Arc::new(Local::new(folder)) as Arc<dyn Provider>, folder.to_owned()),
        "openstack" => (openstack().await?, folder.to_owned()),
        other => return Err(Error::UnknownProvider { name: other.to_owned() }.into()),
    };
    let folder = folder_of(folder, &before, provider.as_ref(), name)?;
    Ok(Chosen { provider, folder })
}

/// The controller that the other commands speak to, and the folder that all of its projects once shared.
async fn haar(global: &Global, folder: &Path) -> Result<(Arc<dyn Provider>, PathBuf), Failure> {
    let context = Context::connect(global.clone())?;
    let asked = context.client.request::<t::Whoami>(&[]).send(&Nothing).await;
    let who = asked.map_err(|error| advice::with_next_step(&context, error.into()))?.value;
    let folder = folder.join(format!("haar-{}", output::short_id(who.cloud)));
    let cloud = HaarCloud::with_client(context.client, context.project.as_deref());
    Ok((Arc::new(cloud.with_id(who.cloud.to_string())), folder))
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
