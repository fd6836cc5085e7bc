//! The table of methods, and who waits for whom: calls for one guest have turns, and so has the loop that looks after
//! it. All work is off the reactor.

use std::sync::{Arc, Mutex, PoisonError};

use haar_api::rpc::{Fault, FaultCode, ImageRequest, ImageResponse, Nothing};
use sha2::{Digest as _, Sha256};

use super::folders::Folders;
use super::host::Host;
use super::loads::Loads;
use super::runtime::Runtimes;
use super::wire::{ContainerRequest, ContainerResponse, Guest, GuestRequest, GuestResponse};
use super::{Config, Error, cgroups, images};
use crate::arrival;
use crate::kit::{self, Caller, Turn};
use crate::storage::names::check_id;

/// Calls that may wait for one container: those of others shall find a place.
const MAX_WAITING: usize = 8;

/// Opens the root folder, and removes what an earlier run left unfinished in it.
pub(super) async fn open(config: &Config) -> Result<Arc<Host>, Error> {
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let folders = Arc::new(Folders::open(&config.root, &config.run)?);
        let tag = hex::encode(&Sha256::digest(&config.cloud)[..4]);
        let runtimes = Runtimes::new(Arc::clone(&folders), cgroups::of_cloud(&tag));
        let loads = Loads::new(Arc::clone(&folders), config.image_dirs, config.image_service, config.limits);
        let host = Host {
            folders,
            loads: Arc::new(loads),
            guests: kit::per_guest(),
            cloud: config.cloud,
            tag,
            runtimes,
            devices: config.limits.devices,
            monitor: config.monitor,
            books: Mutex::default(),
            damaged: Mutex::default(),
        };
        Ok::<_, Error>(host)
    });
    let opened = opened.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    opened.map(Arc::new)
}

/// The route table.
pub(super) fn register(server: &mut kit::Server, host: &Arc<Host>) {
    let shared = Arc::clone(host);
    server.method_for("MDocker.LoadImage", move |request: ImageRequest, caller| {
        let host = Arc::clone(&shared);
        async move { host.load_image(&request, caller).await }
    });
    image_method(server, host, "MDocker.ListImages", Host::list_images);
    image_method(server, host, "MDocker.GetImage", Host::get_image);
    image_method(server, host, "MDocker.DeleteImage", Host::delete_image);
    guest_method(server, host, "MDocker.CreateContainer", |host, guest, _| host.create(guest));
    guest_method(server, host, "MDocker.StartContainer", |host, guest, _| host.start(guest));
    guest_method(server, host, "MDocker.StopContainer", Host::stop);
    guest_method(server, host, "MDocker.RestartContainer", |host, guest, _| host.restart(guest));
    guest_method(server, host, "MDocker.RebootContainer", |host, guest, _| host.restart(guest));
    guest_method(server, host, "MDocker.PauseContainer", |host, guest, _| host.pause(guest));
    guest_method(server, host, "MDocker.UnpauseContainer", |host, guest, _| host.unpause(guest));
    guest_method(server, host, "MDocker.DeleteContainer", |host, guest, _| host.delete(guest));
    container_method(server, host, "MDocker.GetContainer", Host::get);
    container_method(server, host, "MDocker.ListContainers", Host::list);
    let shared = Arc::clone(host);
    server.method("MDocker.SaveContainer", move |request: ContainerRequest| {
        let host = Arc::clone(&shared);
        async move {
            let saving = request.saving()?;
            let turn = host.turn(&saving.container).await?;
            off_reactor(move || {
                let _turn = turn;
                host.save(&saving)
            })
            .await
        }
    });
    let shared = Arc::clone(host);
    server.method("MDocker.GetInfo", move |_: Nothing| {
        let host = Arc::clone(&shared);
        off_reactor(move || host.info())
    });
}

impl Host {
    /// Waits for a container's turn, unless others do already.
    async fn turn(&self, id: &str) -> Result<Turn, Fault> {
        self.guests.turn_among(id, MAX_WAITING).await.ok_or_else(|| {
            let text = format!("{MAX_WAITING} calls wait for container {id} already; ask again");
            Fault::new(FaultCode::Unavailable, text)
        })
    }

    /// Has running loads end, and whoever saves a container.
    pub(super) fn stop_loads(&self) {
        self.loads.stop();
    }

    async fn load_image(&self, request: &ImageRequest, caller: Caller) -> Result<ImageResponse, Fault> {
        let ask = || {
            let (loads, request) = (Arc::clone(&self.loads), request.clone());
            off_reactor(move || loads.request(&request))
        };
        let image = arrival::answer(caller, ask, || self.loads.arrived(&request.id)).await?;
        Ok(ImageResponse { images: Some(vec![image]) })
    }

    fn list_images(&self, _: &ImageRequest) -> Result<ImageResponse, Fault> {
        let mut images = self.loads.list();
        // A load that ended between the two looks is stored by now.
        for facts in images::list(&self.folders)? {
            if images.iter().all(|image| image.id != facts.id) {
                images.push(facts.to_wire());
            }
        }
        images.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(ImageResponse { images: Some(images) })
    }

    fn get_image(&self, request: &ImageRequest) -> Result<ImageResponse, Fault> {
        check_id("image", &request.id)?;
        let image = match self.loads.look(&request.id) {
            Some(loading) => loading,
            None => images::require(&self.folders, &request.id)?.to_wire(),
        };
        Ok(ImageResponse { images: Some(vec![image]) })
    }

    fn delete_image(&self, request: &ImageRequest) -> Result<ImageResponse, Fault> {
        check_id("image", &request.id)?;
        let (deleted, gone) = self.loads.while_idle(&request.id, || {
            let _books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
            self.check_unused(&request.id)?;
            let facts = images::find(&self.folders, &request.id).unwrap_or_default();
            Ok((facts, images::put_away(&self.folders, &request.id)?))
        })?;
        // With nothing held: a large one takes long.
        images::remove_away(gone)?;
        Ok(ImageResponse { images: Some(deleted.iter().map(images::Facts::to_wire).collect()) })
    }
}

type ImageMethod = fn(&Host, &ImageRequest) -> Result<ImageResponse, Fault>;

fn image_method(server: &mut kit::Server, host: &Arc<Host>, name: &str, act: ImageMethod) {
    let host = Arc::clone(host);
    server.method(name, move |request: ImageRequest| {
        let host = Arc::clone(&host);
        off_reactor(move || act(&host, &request))
    });
}

type GuestMethod = fn(&Host, Guest, &str) -> Result<GuestResponse, Fault>;

fn guest_method(server: &mut kit::Server, host: &Arc<Host>, name: &str, act: GuestMethod) {
    let host = Arc::clone(host);
    server.method(name, move |mut request: GuestRequest| {
        let host = Arc::clone(&host);
        async move {
            let action = std::mem::take(&mut request.action);
            let guest = Guest::read(request)?;
            let turn = host.turn(&guest.id).await?;
            off_reactor(move || {
                let _turn = turn;
                act(&host, guest, &action)
            })
            .await
        }
    });
}

type ContainerMethod = fn(&Host, &ContainerRequest) -> Result<ContainerResponse, Fault>;

fn container_method(server: &mut kit::Server, host: &Arc<Host>, name: &str, act: ContainerMethod) {
    let host = Arc::clone(host);
    server.method(name, move |request: ContainerRequest| {
        let host = Arc::clone(&host);
        off_reactor(move || act(&host, &request))
    });
}

async fn off_reactor<R: Send + 'static>(
    act: impl FnOnce() -> Result<R, Fault> + Send + 'static,
) -> Result<R, Fault> {
    match tokio::task::spawn_blocking(act).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            // The kit turns it into an answer and logs it.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => {
                Err(Fault::new(FaultCode::Unavailable, "the container sub-agent is stopping; ask again"))
            }
        },
    }
}
