//! Whether this process runs on a server of the cloud, and on which.
//!
//! A server of OpenStack has its id as its machine's number in the firmware, which only root may read; cloud-init
//! notes the id where everybody may; and the metadata service can be asked, which is only done where the firmware
//! says OpenStack. Whichever it is, the cloud itself must know the id: the number of a laptop, or of a server in
//! another cloud, is nobody's.

use std::path::Path;
use std::time::Duration;

use haar_cloud::Result;
use serde::Deserialize;
use uuid::Uuid;

use crate::client::Client;
use crate::server;
use crate::settings::Machine;

/// How long the metadata service may take: it is next door, or not there.
const PATIENCE: Duration = Duration::from_secs(3);

/// The id of our own server.
pub(crate) async fn server(client: &Client) -> Result<Option<String>> {
    let machine = &client.settings().machine;
    // The firmware's word comes first: what cloud-init noted may be of the machine that a disk was copied from.
    let noted = noted(&machine.cloud_init).await;
    for id in [number(&machine.firmware).await, noted, metadata(machine).await].into_iter().flatten() {
        match server::view(client, &id).await {
            Ok(view) => return Ok(Some(view.id)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The machine's number, which only root may read.
async fn number(firmware: &Path) -> Option<String> {
    let text = fact(firmware, "product_uuid").await?;
    Uuid::try_parse(&text).ok().map(|id| id.to_string())
}

/// What cloud-init was told, by a disk as well as by the service.
async fn noted(file: &Path) -> Option<String> {
    let text = tokio::fs::read_to_string(file).await.ok()?;
    Uuid::try_parse(text.trim()).ok().map(|id| id.to_string())
}

async fn metadata(machine: &Machine) -> Option<String> {
    #[derive(Deserialize)]
    struct Told {
        uuid: String,
    }
    let says = |text: Option<String>| text.is_some_and(|text| text.contains("OpenStack"));
    let is_openstack = says(fact(&machine.firmware, "product_name").await)
        || says(fact(&machine.firmware, "chassis_asset_tag").await)
        || says(fact(&machine.firmware, "sys_vendor").await);
    if !is_openstack {
        return None;
    }
    let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().ok()?;
    let url = format!("{}/openstack/latest/meta_data.json", machine.metadata_url);
    let told: Told = http.get(url).send().await.ok()?.json().await.ok()?;
    Uuid::try_parse(&told.uuid).ok().map(|id| id.to_string())
}

async fn fact(firmware: &Path, name: &str) -> Option<String> {
    tokio::fs::read_to_string(firmware.join(name)).await.ok().map(|text| text.trim().to_owned())
}
