//! A controller that is a value behind a lock: it holds a desired set, and remembers what was reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haar_agent::link::{Fed, Link, LinkError, Unsupported, Welcome};
use haar_core::fence::Fence;
use haar_core::id::{CloudId, GuestId, HypervisorId, ImageId};
use haar_core::order::{
    Complete, DesiredSet, GuestOrder, GuestReport, Hello, ImageOrder, NetworkOrder, Report,
};
use tokio::io::DuplexStream;
use tokio::sync::watch;

pub(crate) struct Controller {
    pub(crate) cloud: CloudId,
    pub(crate) hypervisor: HypervisorId,
    books: Mutex<Books>,
    changed: watch::Sender<Fence>,
}

#[derive(Default)]
struct Books {
    incarnation: u64,
    lots: Vec<u64>,
    guests: BTreeMap<GuestId, GuestOrder>,
    images: Vec<ImageOrder>,
    catalogue: BTreeSet<ImageId>,
    networks: Vec<NetworkOrder>,
    reports: BTreeMap<GuestId, GuestReport>,
    complete: Option<Complete>,
    is_away: bool,
    is_forgotten: bool,
    hellos: Vec<Hello>,
}

impl Controller {
    pub(crate) fn new(cloud: CloudId, hypervisor: HypervisorId) -> Arc<Controller> {
        let (changed, _) = watch::channel(Fence::new(1, 1));
        Arc::new(Controller { cloud, hypervisor, books: Mutex::default(), changed })
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// Orders a guest under the next fence, which it returns.
    pub(crate) fn order(&self, image: ImageOrder, network: NetworkOrder, mut order: GuestOrder) -> Fence {
        let fence = Fence::new(1, self.changed.borrow().revision + 1);
        let mut books = self.books();
        order.order = fence;
        order.life = books.guests.get(&order.id).map_or(fence, |known| known.life);
        books.guests.insert(order.id, order);
        books.catalogue.insert(image.id);
        books.images = vec![image];
        books.networks = vec![network];
        drop(books);
        self.changed.send_replace(fence);
        fence
    }

    /// No image is in the books any more.
    pub(crate) fn forget_images(&self) {
        self.books().catalogue.clear();
        let fence = Fence::new(1, self.changed.borrow().revision + 1);
        self.changed.send_replace(fence);
    }

    /// Nobody reaches it, or everybody again.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.books().is_away = is_away;
        self.changed.send_modify(|_| {});
    }

    /// Forgets which ledger speaks for the hypervisor.
    pub(crate) fn forget_incarnation(&self) {
        let mut books = self.books();
        books.incarnation += 1;
        books.is_forgotten = true;
    }

    /// The last hello.
    pub(crate) fn hello_of(&self) -> Option<Hello> {
        self.books().hellos.last().cloned()
    }

    /// How often hello was said.
    pub(crate) fn hellos(&self) -> usize {
        self.books().hellos.len()
    }

    pub(crate) fn report_of(&self, guest: GuestId) -> Option<GuestReport> {
        self.books().reports.get(&guest).cloned()
    }

    pub(crate) fn complete(&self) -> Option<Complete> {
        self.books().complete.clone()
    }

    pub(crate) fn lots(&self) -> Vec<u64> {
        self.books().lots.clone()
    }

    fn reach(&self) -> Result<std::sync::MutexGuard<'_, Books>, LinkError> {
        let books = self.books();
        if books.is_away { Err(LinkError::Unreachable("away".into())) } else { Ok(books) }
    }
}

impl Link for Controller {
    type Stream = DuplexStream;

    async fn hello(&self, hello: &Hello) -> Result<Welcome, LinkError> {
        let mut books = self.reach()?;
        if books.lots.last() != Some(&hello.lot) || books.is_forgotten {
            books.lots.push(hello.lot);
            books.incarnation += 1;
            books.is_forgotten = false;
        }
        books.hellos.push(hello.clone());
        Ok(Welcome { cloud: self.cloud, hypervisor: self.hypervisor, incarnation: books.incarnation })
    }

    async fn feed(&self, since: Option<Fence>, wait: Duration) -> Result<Option<Fed>, LinkError> {
        let mut changed = self.changed.subscribe();
        drop(self.reach()?);
        let newer = |fence: &Fence| since.is_none_or(|since| *fence > since) || self.books().is_away;
        let _ = tokio::time::timeout(wait, changed.wait_for(newer)).await;
        let fence = *self.changed.borrow();
        let books = self.reach()?;
        if since.is_some_and(|since| fence <= since) {
            return Ok(None);
        }
        let set = DesiredSet {
            fence,
            cloud: self.cloud,
            hypervisor: self.hypervisor,
            guests: books.guests.values().cloned().collect(),
            images: books.images.clone(),
            networks: books.networks.clone(),
        };
        let catalogue = Some(books.catalogue.clone());
        Ok(Some(Fed { set, streams: Vec::new(), unsupported: Vec::new(), catalogue }))
    }

    async fn report(&self, report: &Report, _: &[Unsupported]) -> Result<(), LinkError> {
        let mut books = self.reach()?;
        if report.incarnation != books.incarnation {
            return Err(LinkError::StaleIncarnation(format!("{} is the present one", books.incarnation)));
        }
        for guest in &report.guests {
            let known = books.reports.get(&guest.id);
            if known.is_none_or(|known| known.version < guest.version) {
                books.reports.insert(guest.id, guest.clone());
            }
        }
        if let Some(complete) = &report.complete {
            books.complete = Some(complete.clone());
        }
        Ok(())
    }

    async fn blob(&self, _: &str) -> Result<Vec<u8>, LinkError> {
        Ok(b"#cloud-config\n{}\n".to_vec())
    }

    async fn stream(&self, _: &str) -> Result<DuplexStream, LinkError> {
        Ok(tokio::io::duplex(64).0)
    }

    fn image_source(&self, image: ImageId) -> (String, String) {
        (format!("http://controller/{image}"), "Bearer x".into())
    }
}
