//! A hypervisor's agent as a controller sees one: it joins, and reports that all it is told is done. It makes
//! no guest and has no console.

use std::collections::HashMap;

use haar_api::client::{Client, ClientError};
use haar_api::endpoint::Nothing;
use haar_api::feed::{Feed, FeedGuest, GoalWord, Hello, Item, Report, ReportComplete, VERSION};
use haar_api::table as t;
use haar_api::v1::{
    FeedQuery, FenceText, HypervisorCreate, InventoryView, ResourcesView, TokenCreate, TokenRole, Wait,
};
use serde_json::json;
use tokio::task::JoinHandle;

/// How many guests are reported on at a time.
const AT_ONCE: usize = 16;

/// An agent at work; ends when dropped.
pub(crate) struct AtWork(JoinHandle<()>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Agent {
    client: Client,
    incarnation: u64,
    /// The last report on each guest, by the guest's id.
    versions: HashMap<String, u64>,
}

/// A hypervisor with room for some small guests joins the cloud.
pub(crate) async fn join(admin: &Client) -> AtWork {
    let hypervisor = HypervisorCreate { name: "lab".into(), ..HypervisorCreate::default() };
    admin.request::<t::HypervisorPost>(&[]).send(&hypervisor).await.unwrap();
    let token =
        TokenCreate { name: "lab".into(), role: TokenRole::Agent, hypervisor: Some("lab".to_owned().into()) };
    let secret = admin.request::<t::TokenPost>(&[]).send(&token).await.unwrap().value.secret;
    let client = Client::new(&format!("http://{}", admin.authority()), Some(secret)).unwrap();
    let hello = Hello { version: VERSION, lot: 7, inventory: InventoryView::default(), total: total() };
    let welcome = client.request::<t::AgentHello>(&[]).send(&hello).await.unwrap().value;
    let mut agent = Agent { client, incarnation: welcome.incarnation, versions: HashMap::new() };
    agent.report(&welcome.fence, &[], true).await.unwrap();
    AtWork(tokio::spawn(async move { agent.work().await }))
}

fn total() -> ResourcesView {
    ResourcesView { cpu: 16, memory: 32 << 10, disk: 1 << 20 }
}

impl Agent {
    async fn work(&mut self) {
        let mut since = None;
        loop {
            let query = FeedQuery { since, wait: Some(Wait::default()) };
            let polled = self.client.request::<t::AgentFeed>(&[]).query(query).poll(&Nothing).await;
            // Nothing new; or the controller is on its way out.
            let Ok(Some(answer)) = polled else {
                tokio::task::yield_now().await;
                continue;
            };
            let feed: Feed = answer.value;
            let orders: Vec<FeedGuest> = feed.guests.into_iter().filter_map(Item::known).collect();
            for orders in orders.chunks(AT_ONCE) {
                if self.report(&feed.fence, orders, false).await.is_err() {
                    return;
                }
            }
            since = Some(feed.fence);
        }
    }

    async fn report(
        &mut self,
        seen: &FenceText,
        orders: &[FeedGuest],
        complete: bool,
    ) -> Result<(), ClientError> {
        let complete = complete.then(|| ReportComplete {
            epoch: seen.0.epoch,
            holds: Vec::new(),
            strangers: Vec::new(),
            inventory: InventoryView::default(),
            total: total(),
        });
        let guests = orders.iter().map(|order| self.done(order)).collect();
        let (version, incarnation, seen) = (VERSION, self.incarnation, *seen);
        let report = Report { version, incarnation, seen, guests, complete, unsupported: Vec::new() };
        self.client.request::<t::AgentReport>(&[]).send(&report).await.map(drop)
    }

    /// The report on an order that is carried out.
    fn done(&mut self, order: &FeedGuest) -> Item<haar_api::feed::ReportGuest> {
        let version = self.versions.entry(order.id.to_string()).or_default();
        *version += 1;
        let (phase, power) = match order.goal {
            GoalWord::Gone => ("gone", "absent"),
            GoalWord::Running => ("settled", "running"),
            GoalWord::Stopped | GoalWord::Off => ("settled", "off"),
        };
        let order_json = serde_json::to_value(order).unwrap();
        let claim: serde_json::Map<_, _> =
            ["name", "project", "resources", "flavor", "image", "network", "subnet", "mac", "address"]
                .map(|key| (key.to_owned(), order_json[key].clone()))
                .into_iter()
                .collect();
        let report = json!({
            "id": order.id, "life": order.life, "order": order.order, "version": *version,
            "phase": {"is": phase}, "power": power, "provisioned": power != "absent",
            "deed": order.deed.map(|deed| deed.fence),
            "steps": [{"stage": "disks", "state": "done"}], "claim": claim,
        });
        serde_json::from_value(report).unwrap()
    }
}
