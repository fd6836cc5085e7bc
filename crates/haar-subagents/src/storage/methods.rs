//! The table of methods, and who waits for whom.
//!
//! Calls for one guest, volume or image have turns. What promises room, or checks that an image has no users, holds
//! the books, one at a time; each takes milliseconds. All work on files is off the reactor.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use haar_api::rpc::{
    CapacityResponse, Fault, FaultCode, Guest, GuestRequest, GuestResponse, ImageRequest, ImageResponse,
    Nothing, PruneRequest, Snapshot, SnapshotRequest, SnapshotResponse, Volume, VolumeRequest,
    VolumeResponse,
};

use tokio::runtime::Handle;

use super::fetch::Fetches;
use super::folders::Folders;
use super::names::{self, Dataset};
use super::{
    Config, Error, disks, download, expand, images, part, pending, snapshots, space, upload, volumes,
};
use crate::arrival;
use crate::kit::{self, Caller, PerGuest};

/// What the methods share.
#[derive(Debug)]
pub(super) struct Store {
    folders: Arc<Folders>,
    cloud: String,
    fetches: Arc<Fetches>,
    guests: PerGuest,
    /// Damage that the log has been told of.
    told: Mutex<BTreeSet<String>>,
}

/// Opens the root folder, and ends what an earlier run left unfinished.
pub(super) async fn open(config: &Config) -> Result<Arc<Store>, Error> {
    let (root, backend, cloud) = (config.root.clone(), config.backend, config.cloud.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let folders = Folders::open(&root, backend, &cloud)?;
        let settled = pending::settle_all(&folders, &cloud);
        if let Err(fault) = settled.and_then(|()| expand::remove_strays(&folders)) {
            tracing::warn!(%fault, "something an earlier run left unfinished may be there still");
        }
        Ok::<_, Error>(folders)
    });
    let opened = opened.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let folders = Arc::new(opened?);
    Ok(Arc::new(Store {
        fetches: Arc::new(Fetches::new(Arc::clone(&folders), config)),
        folders,
        cloud: config.cloud.clone(),
        guests: kit::per_guest(),
        told: Mutex::default(),
    }))
}

/// The route table.
pub(super) fn register(server: &mut kit::Server, store: &Arc<Store>) {
    let shared = Arc::clone(store);
    server.method_for("ImageStore.RequestImage", move |request: ImageRequest, caller| {
        let store = Arc::clone(&shared);
        async move { store.request_image(&request, caller).await }
    });
    image_method(server, store, "ImageStore.ListImages", Store::list_images);
    image_method(server, store, "ImageStore.GetImage", Store::get_image);
    image_turn_method(server, store, "ImageStore.DeleteImage", Store::delete_image);
    guest_method(server, store, "ImageStore.VerifyDisks", Store::verify_disks);
    guest_method(server, store, "ImageStore.CreateGuestDisks", Store::create_guest_disks);
    guest_method(server, store, "ImageStore.DeleteGuestsDisks", Store::delete_guests_disks);
    volume_method(server, store, "ImageStore.ListVolumes", Store::list_volumes);
    volume_method(server, store, "ImageStore.CreateVolume", Store::create_volume);
    volume_method(server, store, "ImageStore.GetVolume", Store::get_volume);
    volume_method(server, store, "ImageStore.DeleteDataset", Store::delete_dataset);
    snapshot_method(server, store, "ImageStore.CreateSnapshot", Store::create_snapshot);
    snapshot_method(server, store, "ImageStore.VerifySnapshot", Store::verify_snapshot);
    snapshot_method(server, store, "ImageStore.GetSnapshot", Store::get_snapshot);
    snapshot_method(server, store, "ImageStore.ListSnapshots", Store::list_snapshots);
    snapshot_method(server, store, "ImageStore.DeleteSnapshot", Store::delete_snapshot);
    snapshot_method(server, store, "ImageStore.RollbackSnapshot", Store::roll_back_snapshot);
    let shared = Arc::clone(store);
    server.method("ImageStore.CloneImage", move |request: ImageRequest| {
        let store = Arc::clone(&shared);
        async move {
            let turn = store.guests.turn(&guest_of(&request.dest)).await;
            off_reactor(move || {
                let _turn = turn;
                store.clone_image(&request)
            })
            .await
        }
    });
    volume_method(server, store, "ImageStore.ResizeVolume", Store::resize_volume);
    let shared = Arc::clone(store);
    server.method("ImageStore.PruneImages", move |request: PruneRequest| {
        let store = Arc::clone(&shared);
        off_reactor(move || store.prune_images(&request))
    });
    server.route(download::PATH, download::route(store));
    server.route(upload::PATH, upload::route(store));
    let shared = Arc::clone(store);
    server.method("ImageStore.Capacity", move |_: Nothing| {
        let store = Arc::clone(&shared);
        off_reactor(move || store.capacity())
    });
}

impl Store {
    /// What a download or an upload works on.
    pub(super) fn folders(&self) -> &Arc<Folders> {
        &self.folders
    }

    pub(super) fn cloud(&self) -> &str {
        &self.cloud
    }

    pub(super) fn fetches(&self) -> &Arc<Fetches> {
        &self.fetches
    }

    /// The turn of the guest whose dataset or snapshot is named.
    pub(super) async fn turn_of(&self, id: &str) -> kit::Turn {
        let dataset = id.split_once('@').map_or(id, |(dataset, _)| dataset);
        self.guests.turn(&guest_of(dataset)).await
    }

    /// Has running fetches end.
    pub(super) fn stop(&self) {
        self.fetches.stop();
    }

    fn with_books<R>(&self, act: impl FnOnce() -> Result<R, Fault>) -> Result<R, Fault> {
        let _turn = self.folders.books().turn();
        act()
    }

    async fn request_image(&self, request: &ImageRequest, caller: Caller) -> Result<ImageResponse, Fault> {
        let ask = || async {
            let turn = self.fetches.turn(&request.id).await;
            let (fetches, request) = (Arc::clone(&self.fetches), request.clone());
            off_reactor(move || {
                let _turn = turn;
                fetches.request(&request)
            })
            .await
        };
        let image = arrival::answer(caller, ask, || self.fetches.arrived(&request.id)).await?;
        Ok(ImageResponse { images: Some(vec![image]) })
    }

    fn list_images(&self, _: &ImageRequest) -> Result<ImageResponse, Fault> {
        let mut images = self.fetches.list();
        // A fetch that ended between the two looks is stored by now.
        for facts in images::list(&self.folders)? {
            if images.iter().all(|image| image.id != facts.id) {
                images.push(facts.to_wire());
            }
        }
        images.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(ImageResponse { images: Some(images) })
    }

    fn get_image(&self, request: &ImageRequest) -> Result<ImageResponse, Fault> {
        names::check_id("image", &request.id)?;
        let image = match self.fetches.look(&request.id) {
            Some(fetching) => fetching,
            None => images::require(&self.folders, &request.id)?.to_wire(),
        };
        Ok(ImageResponse { images: Some(vec![image]) })
    }

    fn delete_image(&self, request: &ImageRequest) -> Result<ImageResponse, Fault> {
        names::check_id("image", &request.id)?;
        self.fetches.end(&request.id)?;
        let deleted = self.with_books(|| images::delete(&self.folders, &request.id))?;
        Ok(ImageResponse { images: Some(deleted.iter().map(images::Facts::to_wire).collect()) })
    }

    fn prune_images(&self, request: &PruneRequest) -> Result<ImageResponse, Fault> {
        for id in part::list_old(&self.folders)? {
            let _turn = Handle::current().block_on(self.fetches.turn(&id));
            if self.fetches.check_idle(&id).is_ok() {
                part::forget(&self.folders, &id);
                tracing::info!(image = id, "removed what came of an image that nobody asked for again");
            }
        }
        let mut pruned = Vec::new();
        for id in images::list_unused(&self.folders, request)? {
            // Looked at again in its turn: a request, a fetch or a clone may have come between.
            let _turn = Handle::current().block_on(self.fetches.turn(&id));
            let prune = || self.with_books(|| images::prune(&self.folders, &id, request));
            match self.fetches.check_idle(&id).and_then(|()| prune()) {
                Ok(facts) => pruned.extend(facts.iter().map(images::Facts::to_wire)),
                Err(fault) if fault.code == FaultCode::Conflict => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(ImageResponse { images: Some(pruned) })
    }

    fn clone_image(&self, request: &ImageRequest) -> Result<VolumeResponse, Fault> {
        let clone = || volumes::clone_image(&self.folders, &self.cloud, request);
        self.with_books(clone).map(|volume| VolumeResponse { volumes: vec![volume] })
    }

    fn verify_disks(&self, guest: &mut Guest, _: &GuestRequest) -> Result<(), Fault> {
        self.with_books(|| disks::verify(&self.folders, guest))
    }

    fn create_guest_disks(&self, guest: &mut Guest, _: &GuestRequest) -> Result<(), Fault> {
        self.with_books(|| disks::create(&self.folders, &self.cloud, guest))
    }

    fn delete_guests_disks(&self, guest: &mut Guest, request: &GuestRequest) -> Result<(), Fault> {
        let any_life = request.args.get("any_life").is_some_and(|value| value == "true");
        disks::delete(&self.folders, &self.cloud, guest, any_life)
    }

    fn list_volumes(&self, request: &VolumeRequest) -> Result<VolumeResponse, Fault> {
        let volumes = volumes::list(&self.folders, request)?;
        for volume in &volumes {
            self.tell_damage(volume);
        }
        Ok(VolumeResponse { volumes })
    }

    /// Once per disk and start: the list is asked for again and again.
    fn tell_damage(&self, volume: &Volume) {
        let Some(extra) = volume.haar.as_ref().filter(|extra| !extra.damage.is_empty()) else { return };
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(extra.damage.clone()) {
            tracing::warn!(volume = volume.id, damage = extra.damage, "a guest's disk is damaged");
        }
    }

    fn create_volume(&self, request: &VolumeRequest) -> Result<VolumeResponse, Fault> {
        let create = || volumes::create(&self.folders, &self.cloud, request);
        self.with_books(create).map(|volume| VolumeResponse { volumes: vec![volume] })
    }

    fn resize_volume(&self, request: &VolumeRequest) -> Result<VolumeResponse, Fault> {
        volumes::resize(&self.folders, &self.cloud, request)
            .map(|volume| VolumeResponse { volumes: vec![volume] })
    }

    fn get_volume(&self, request: &VolumeRequest) -> Result<VolumeResponse, Fault> {
        volumes::get(&self.folders, request).map(|volume| VolumeResponse { volumes: vec![volume] })
    }

    fn delete_dataset(&self, request: &VolumeRequest) -> Result<VolumeResponse, Fault> {
        volumes::delete(&self.folders, &self.cloud, request)?;
        Ok(VolumeResponse::default())
    }

    fn create_snapshot(&self, request: &SnapshotRequest) -> Result<Vec<Snapshot>, Fault> {
        snapshots::take(&self.folders, &self.cloud, request)
    }

    fn verify_snapshot(&self, request: &SnapshotRequest) -> Result<Vec<Snapshot>, Fault> {
        snapshots::verify(&self.folders, &self.cloud, request)
    }

    fn get_snapshot(&self, request: &SnapshotRequest) -> Result<Vec<Snapshot>, Fault> {
        snapshots::get(&self.folders, &self.cloud, request)
    }

    fn list_snapshots(&self, request: &SnapshotRequest) -> Result<Vec<Snapshot>, Fault> {
        snapshots::list(&self.folders, &self.cloud, request)
    }

    fn delete_snapshot(&self, request: &SnapshotRequest) -> Result<Vec<Snapshot>, Fault> {
        snapshots::delete(&self.folders, &self.cloud, request)
    }

    fn roll_back_snapshot(&self, request: &SnapshotRequest) -> Result<Vec<Snapshot>, Fault> {
        snapshots::roll_back(&self.folders, &self.cloud, request)
    }

    fn capacity(&self) -> Result<CapacityResponse, Fault> {
        space::capacity(&self.folders)
    }
}

type ImageMethod = fn(&Store, &ImageRequest) -> Result<ImageResponse, Fault>;
type GuestMethod = fn(&Store, &mut Guest, &GuestRequest) -> Result<(), Fault>;
type SnapshotMethod = fn(&Store, &SnapshotRequest) -> Result<Vec<Snapshot>, Fault>;
type VolumeMethod = fn(&Store, &VolumeRequest) -> Result<VolumeResponse, Fault>;

fn image_method(server: &mut kit::Server, store: &Arc<Store>, name: &str, act: ImageMethod) {
    let store = Arc::clone(store);
    server.method(name, move |request: ImageRequest| {
        let store = Arc::clone(&store);
        off_reactor(move || act(&store, &request))
    });
}

/// The same in the image's turn.
fn image_turn_method(server: &mut kit::Server, store: &Arc<Store>, name: &str, act: ImageMethod) {
    let store = Arc::clone(store);
    server.method(name, move |request: ImageRequest| {
        let store = Arc::clone(&store);
        async move {
            let turn = store.fetches.turn(&request.id).await;
            off_reactor(move || {
                let _turn = turn;
                act(&store, &request)
            })
            .await
        }
    });
}

fn guest_method(server: &mut kit::Server, store: &Arc<Store>, name: &str, act: GuestMethod) {
    let store = Arc::clone(store);
    server.method(name, move |mut request: GuestRequest| {
        let store = Arc::clone(&store);
        async move {
            let Some(mut guest) = request.guest.take() else {
                return Err(Fault::new(FaultCode::Invalid, "the call names no guest"));
            };
            let turn = store.guests.turn(&guest.id).await;
            off_reactor(move || {
                let _turn = turn;
                act(&store, &mut guest, &request)?;
                Ok(GuestResponse { guest: Some(guest), ..Default::default() })
            })
            .await
        }
    });
}

fn volume_method(server: &mut kit::Server, store: &Arc<Store>, name: &str, act: VolumeMethod) {
    let store = Arc::clone(store);
    server.method(name, move |request: VolumeRequest| {
        let store = Arc::clone(&store);
        async move {
            let turn = store.guests.turn(&guest_of(&request.id)).await;
            off_reactor(move || {
                let _turn = turn;
                act(&store, &request)
            })
            .await
        }
    });
}

fn snapshot_method(server: &mut kit::Server, store: &Arc<Store>, name: &str, act: SnapshotMethod) {
    let store = Arc::clone(store);
    server.method(name, move |request: SnapshotRequest| {
        let store = Arc::clone(&store);
        async move {
            let turn = store.turn_of(&request.id).await;
            off_reactor(move || {
                let _turn = turn;
                act(&store, &request).map(|snapshots| SnapshotResponse { snapshots })
            })
            .await
        }
    });
}

/// The guest whose turn a volume call needs; a name that is none has a turn of its own and is refused later.
fn guest_of(volume: &str) -> String {
    match names::parse_dataset(volume) {
        Ok(Dataset::Guest(guest) | Dataset::Disk(guest, _)) => guest,
        Err(_) => String::new(),
    }
}

pub(super) async fn off_reactor<R: Send + 'static>(
    act: impl FnOnce() -> Result<R, Fault> + Send + 'static,
) -> Result<R, Fault> {
    match tokio::task::spawn_blocking(act).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            // The kit turns it into an answer and logs it.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Fault::new(FaultCode::Unavailable, "the storage sub-agent is stopping; ask again")),
        },
    }
}
