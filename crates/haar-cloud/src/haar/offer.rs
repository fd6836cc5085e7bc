//! What the cloud offers: sizes, images, and how much is left of it.

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{CapacityView, FlavorView, ImageView};
use jiff::Timestamp;

use super::{HaarCloud, fault};
use crate::Result;
use crate::flavor::Flavor;
use crate::image::Image;
use crate::quota::{LimitOf, Quota, Usage};

/// MiB of a GiB; a GB of this crate is one of these here.
const MIB_PER_GIB: u64 = 1 << 10;
const BYTES_PER_GIB: u64 = 1 << 30;

/// Every flavor of the project.
pub(super) async fn flavors(cloud: &HaarCloud) -> Result<Vec<Flavor>> {
    let views: Vec<FlavorView> = cloud.all::<t::FlavorList, _>("flavor", None).await?;
    Ok(views.iter().map(flavor).collect())
}

fn flavor(view: &FlavorView) -> Flavor {
    Flavor {
        id: view.id.to_string(),
        name: view.name.to_string(),
        cores: view.cpu,
        ram_mb: view.memory,
        // What is begun and not whole is not promised.
        disk_gb: view.disk / MIB_PER_GIB,
    }
}

/// Every image of the project whose bytes are there.
pub(super) async fn images(cloud: &HaarCloud) -> Result<Vec<Image>> {
    let views: Vec<ImageView> = cloud.all::<t::ImageList, _>("image", None).await?;
    Ok(views.iter().filter(|view| view.state == "ready").map(image).collect())
}

fn image(view: &ImageView) -> Image {
    Image {
        id: view.id.to_string(),
        name: view.name.to_string(),
        created_at: Timestamp::from_millisecond(view.created_at.as_ms()).ok(),
        min_disk_gb: view.virtual_bytes.unwrap_or_default().div_ceil(BYTES_PER_GIB),
        min_ram_mb: 0,
    }
}

/// The machines' room as the limit: what guests hold, and what may still be promised on machines that can take
/// guests now.
pub(super) async fn quota(cloud: &HaarCloud) -> Result<Quota> {
    let sent = cloud.client.request::<t::Capacity>(&[]).send(&Nothing).await;
    let capacity: CapacityView = sent.map_err(|error| fault::error("cloud", "capacity", error))?.value;
    Ok(Quota {
        limit_of: LimitOf::Machines,
        max_instances: None,
        max_cores: Some(capacity.used.cpu.saturating_add(capacity.free.cpu)),
        max_ram_mb: Some(capacity.used.memory.saturating_add(capacity.free.memory)),
        max_volume_gb: None,
        used: Usage {
            instances: capacity.guests.values().sum(),
            cores: capacity.used.cpu,
            ram_mb: capacity.used.memory,
            volume_gb: 0,
            unknown_flavors: 0,
        },
    })
}
