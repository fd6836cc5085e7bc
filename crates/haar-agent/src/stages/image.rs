//! The stages of the storage sub-agent: image, disks, and removing them.

use std::time::Duration;

use haar_api::rpc::{self, Fault, FaultCode};
use haar_core::node::{Outcome, StageCall};
use haar_core::order::ImageOrder;

use super::guest::rpc_guest;
use super::{Deadline, Hands, Went, not_told};
use crate::call::Ended;
use crate::link::Link;

/// A small image is there within this time and needs no second question from the node.
const STAY: Duration = Duration::from_secs(2);
/// Between two questions within that time.
const ASK_EVERY: Duration = Duration::from_millis(50);

impl<L: Link> Hands<L> {
    /// The image is on this host, or on its way.
    pub(super) async fn image(&self, call: &StageCall, deadline: Deadline) -> Went {
        let order = call.image.as_ref().ok_or_else(|| not_told("image"))?;
        let request = self.image_request(order);
        let begun = std::time::Instant::now();
        loop {
            let answer: rpc::ImageResponse =
                self.storage.change("ImageStore.RequestImage", &request, deadline.left()).await?;
            let image = answer.images.unwrap_or_default().into_iter().find(|image| image.id == request.id);
            let outcome = outcome(image)?;
            if !matches!(outcome, Outcome::Progress { .. }) || begun.elapsed() >= STAY {
                return Ok(outcome);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    fn image_request(&self, order: &ImageOrder) -> rpc::ImageRequest {
        let (source, authorization) = match &order.url {
            Some(url) => (url.clone(), String::new()),
            None => self.link.image_source(order.id),
        };
        rpc::ImageRequest {
            id: order.id.to_string(),
            kind: "kvm".to_owned(),
            dest: String::new(),
            source,
            haar: Some(rpc::ImageWant {
                format: order.format.as_str().to_owned(),
                sha256: order.sha256.clone(),
                file_bytes: order.file_bytes,
                authorization,
            }),
        }
    }

    /// The guest's disks are there.
    pub(super) async fn disks(&self, call: &StageCall, deadline: Deadline) -> Went {
        self.made_disks(call, deadline).await.map(|_| Outcome::Done)
    }

    /// Has the disks made, or finds them made, and tells how QEMU opens them.
    pub(super) async fn made_disks(
        &self,
        call: &StageCall,
        deadline: Deadline,
    ) -> Result<Vec<rpc::Disk>, Ended> {
        let request = rpc::GuestRequest {
            guest: Some(rpc_guest(self.cloud, call)),
            action: "create".to_owned(),
            ..rpc::GuestRequest::default()
        };
        let answer: rpc::GuestResponse =
            self.storage.change("ImageStore.CreateGuestDisks", &request, deadline.left()).await?;
        let disks = answer.guest.map(|guest| guest.disks).unwrap_or_default();
        if disks.is_empty() {
            let text = "the storage sub-agent answered without disks; is it of another version?";
            return Err(Fault::new(FaultCode::Failed, text).into());
        }
        Ok(disks)
    }

    /// The guest has no disks.
    pub(super) async fn undisk(&self, call: &StageCall, deadline: Deadline) -> Went {
        let request = rpc::GuestRequest {
            guest: Some(rpc_guest(self.cloud, call)),
            action: "delete".to_owned(),
            ..rpc::GuestRequest::default()
        };
        let _: rpc::GuestResponse =
            self.storage.change("ImageStore.DeleteGuestsDisks", &request, deadline.left()).await?;
        Ok(Outcome::Done)
    }
}

fn outcome(image: Option<rpc::Image>) -> Result<Outcome, Fault> {
    let Some(image) = image else {
        let text = "the storage sub-agent answered without the image; is it of another version?";
        return Err(Fault::new(FaultCode::Failed, text));
    };
    let extra = image.haar.unwrap_or_default();
    match image.status.as_str() {
        "complete" => Ok(Outcome::Done),
        "error" => Err(Fault::parse(&extra.error)),
        _ => Ok(Outcome::Progress { done: extra.done_bytes, total: extra.file_bytes }),
    }
}
