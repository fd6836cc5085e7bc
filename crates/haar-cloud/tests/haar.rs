//! The provider `haar` against a real controller: what is made, found, used and refused.
//!
//! No hypervisor is there but for the contract, where one reports as done whatever it is told; guests that boot are
//! in the live tests of the command line.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use haar_api::client::Client;
use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{
    FwGroupView, ImageCreate, ImageFormat, List, NetworkCreate, Ref, SubnetCreate, SubnetView,
};
use haar_cloud::contract::{Setup, hold};
use haar_cloud::haar::HaarCloud;
use haar_cloud::image::Image;
use haar_cloud::name::{DeploymentId, ResourceName};
use haar_cloud::provider::{Deployment, Ground, ServerOrder};
use haar_cloud::state::{Kind, Store};
use haar_cloud::{Class, Error, Journal, Provider};
use haar_controller::{Config, Running};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::oneshot;

#[path = "haar/agent.rs"]
mod agent;

/// A controller, the provider that speaks to it, and a deployment with its record.
struct Bench {
    cloud: HaarCloud,
    client: Client,
    deployment: Deployment,
    journal: Journal,
    folder: TempDir,
    stop: oneshot::Sender<()>,
    running: Running,
}

impl Bench {
    async fn start(name: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut config = Config::new(folder.path().join("controller"), "127.0.0.1:0".parse().unwrap());
        config.on_fatal = Box::new(|cause| panic!("the engine ended: {cause}"));
        let until = async {
            let _ = stopped.await;
        };
        let mut running = haar_controller::start(config, until).await.unwrap();
        let token = running.bootstrap.take().unwrap().admin.reveal().to_owned();
        let client = Client::new(&format!("http://{}", running.addr), Some(token)).unwrap();
        let name = ResourceName::parse(name).unwrap();
        let store = Store::new(folder.path().join("state"), "haar", &name).unwrap();
        let record = store.begin(Timestamp::UNIX_EPOCH).unwrap();
        let deployment = Deployment {
            name,
            id: record.deployment(),
            ground: Ground::default(),
            public_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample a@b".to_owned(),
        };
        let cloud = HaarCloud::with_client(client.clone(), None);
        Bench { cloud, client, deployment, journal: Journal::new(store), folder, stop, running }
    }

    async fn deploy(&self) -> haar_cloud::Result<()> {
        self.cloud.deploy(&self.deployment, &self.journal).await
    }

    fn on_record(&self) -> Vec<(Kind, bool)> {
        let record = self.journal.store().load().unwrap().unwrap();
        record.entries().map(|entry| (entry.kind, entry.is_ours())).collect()
    }

    /// What is found, the last to be destroyed first.
    async fn found(&self) -> Vec<(Kind, String, bool)> {
        let found = self.cloud.survey(&self.deployment.name, Some(self.deployment.id)).await.unwrap();
        let mut found: Vec<_> = found.into_iter().map(|it| (it.kind, it.name, it.ours)).collect();
        found.sort();
        found
    }

    /// A network that somebody else made.
    async fn foreign_network(&self, name: &str, cidr: &str) {
        let network = NetworkCreate { name: name.to_owned(), nat: true, ..NetworkCreate::default() };
        self.client.request::<t::NetworkPost>(&[]).send(&network).await.unwrap();
        let subnet = SubnetCreate {
            name: name.to_owned(),
            network: Ref::from(name),
            cidr: cidr.to_owned(),
            ..SubnetCreate::default()
        };
        self.client.request::<t::SubnetPost>(&[]).send(&subnet).await.unwrap();
    }

    async fn image(&self) -> Image {
        let body = ImageCreate {
            name: "tiny".to_owned(),
            project: None,
            metadata: [].into(),
            format: ImageFormat::Qcow2,
            url: Some("http://127.0.0.1:1/x".to_owned()),
            sha256: Some("a".repeat(64)),
        };
        self.client.request::<t::ImagePost>(&[]).send(&body).await.unwrap();
        self.cloud.images().await.unwrap().remove(0)
    }

    async fn order(&self) -> ServerOrder {
        let mut flavors = self.cloud.flavors().await.unwrap();
        flavors.retain(|flavor| flavor.name == "tiny");
        ServerOrder {
            name: self.deployment.name.server(uuid::Uuid::new_v4()),
            image: self.image().await,
            flavor: flavors.remove(0),
            volume_gb: None,
            user_data: "#cloud-config\n{}\n".to_owned(),
            user: "root".to_owned(),
        }
    }

    async fn groups(&self) -> Vec<FwGroupView> {
        let list: List<FwGroupView> =
            self.client.request::<t::FwGroupList>(&[]).send(&Nothing).await.unwrap().value;
        list.items.into_iter().filter(|group| group.name.as_str() != "default").collect()
    }

    async fn end(self) {
        let _ = self.stop.send(());
        self.running.wait().await;
        drop(self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_makes_each_thing_once_under_its_full_name() {
    let bench = Bench::start("render farm").await;
    for _ in 0..2 {
        bench.deploy().await.unwrap();
        let kinds = [Kind::SecurityGroup, Kind::Network, Kind::Subnet];
        assert_eq!(bench.on_record(), kinds.map(|kind| (kind, true)));
        let needed = bench.cloud.needed(&bench.deployment).await.unwrap();
        assert_eq!(needed, kinds.map(|kind| (kind, "render farm".to_owned())));
        let name = "render farm".to_owned();
        let sorted = [Kind::Subnet, Kind::Network, Kind::SecurityGroup];
        assert_eq!(bench.found().await, sorted.map(|kind| (kind, name.clone(), true)));
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_is_made_good_by_the_next_deploy() {
    let bench = Bench::start("a").await;
    bench.deploy().await.unwrap();
    let forget = |record: &mut haar_cloud::state::Record| {
        let ids: Vec<_> = record.entries().map(|entry| entry.id).collect();
        ids.into_iter().for_each(|id| record.gone(id));
        Ok(())
    };
    bench.journal.change(forget).await.unwrap();
    bench.deploy().await.unwrap();
    assert_eq!(bench.on_record().len(), 3);
    assert_eq!(bench.found().await.len(), 3);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_made_is_used_and_not_ours() {
    let bench = Bench::start("lab").await;
    bench.foreign_network("lab", "192.168.64.0/18").await;
    bench.deploy().await.unwrap();
    let expected = [(Kind::SecurityGroup, true), (Kind::Network, false), (Kind::Subnet, false)];
    assert_eq!(bench.on_record(), expected);
    let found = bench.found().await;
    assert_eq!(found.iter().filter(|(_, _, ours)| *ours).count(), 1, "{found:?}");
    assert_eq!(found.len(), 3);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_has_in_the_place_of_ours_is_what_servers_are_put_on() {
    let bench = Bench::start("lab").await;
    bench.deploy().await.unwrap();
    let on_record = |kind| {
        let record = bench.journal.store().load().unwrap().unwrap();
        record.find(kind, "lab").unwrap().cloud_id().unwrap().to_owned()
    };
    let kinds = [Kind::Subnet, Kind::Network, Kind::SecurityGroup];
    let ours = kinds.map(on_record);
    for (kind, id) in kinds.into_iter().zip(&ours) {
        bench.cloud.delete(kind, id).await.unwrap();
    }
    bench.foreign_network("lab", "192.168.64.0/18").await;
    bench.deploy().await.unwrap();
    let found = bench.cloud.survey(&bench.deployment.name, Some(bench.deployment.id)).await.unwrap();
    for kind in kinds {
        let there = found.iter().find(|thing| thing.kind == kind).unwrap();
        assert_eq!(on_record(kind), there.id, "{kind}");
    }
    assert_eq!(found.iter().filter(|thing| thing.ours).count(), 1, "{found:?}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_haar_holds_the_contract() {
    let bench = Bench::start("not of the contract").await;
    let image = bench.image().await;
    let agent = agent::join(&bench.client).await;
    let setup = Setup {
        provider: Arc::new(bench.cloud.clone()),
        folder: bench.folder.path().join("contract"),
        name: "contract".parse().unwrap(),
        ground: Ground::default(),
        os: image.name,
        user: "root".to_owned(),
        flavor: "tiny".to_owned(),
        several: true,
        // A guest has its own address, and no other.
        external: false,
    };
    hold(&setup).await;
    assert!(bench.cloud.servers().await.unwrap().is_empty());
    drop(agent);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_with_another_range_is_named_and_left() {
    let mut bench = Bench::start("lab").await;
    bench.deploy().await.unwrap();
    bench.deployment.ground.cidr = "10.98.0.0/24".parse().unwrap();
    bench.deployment.ground.gateway = [10, 98, 0, 1].into();
    let error = bench.deploy().await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict);
    let text = error.to_string();
    assert!(text.contains("192.168.64.0/22") && text.contains("10.98.0.0/24"), "{text}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_takes_what_others_left_of_the_range() {
    let mut bench = Bench::start("lab").await;
    bench.foreign_network("other", "192.168.64.0/24").await;
    bench.deploy().await.unwrap();
    let subnets: List<SubnetView> =
        bench.client.request::<t::SubnetList>(&[]).send(&Nothing).await.unwrap().value;
    let ours = subnets.items.iter().find(|subnet| subnet.name.as_str() == "lab").unwrap();
    assert_eq!(ours.cidr.to_string(), "192.168.68.0/22");
    assert_eq!(ours.gateway.unwrap().to_string(), "192.168.68.1");

    bench.deployment.name = ResourceName::parse("full").unwrap();
    bench.deployment.id = DeploymentId::random();
    bench.deployment.ground.cidr = "192.168.64.0/24".parse().unwrap();
    let error = bench.deploy().await.unwrap_err();
    assert!(error.class() == Class::Conflict && error.to_string().contains("192.168.64.0/24"), "{error}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ports_of_our_group_follow_what_is_asked() {
    let mut bench = Bench::start("lab").await;
    bench.deploy().await.unwrap();
    bench.deployment.ground.ports = vec![22, 8080];
    bench.deploy().await.unwrap();
    let groups = bench.groups().await;
    let ports: Vec<_> = groups[0].rules.iter().map(|rule| rule.port_start).collect();
    assert_eq!(ports, [Some(22), Some(22), Some(8080), Some(8080), None]);
    let revision = groups[0].revision;
    bench.deploy().await.unwrap();
    assert_eq!(bench.groups().await[0].revision, revision, "the same ports change nothing");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_no_machine_can_take_is_no_hardware_with_the_reason() {
    let bench = Bench::start("lab").await;
    bench.deploy().await.unwrap();
    let order = bench.order().await;
    let error = bench.cloud.create_server(&bench.deployment, &order, &bench.journal).await.unwrap_err();
    assert!(error.is_no_hardware(), "{error:?}");
    assert!(error.to_string().contains("no hypervisor can take guest"), "{error}");
    assert!(bench.cloud.servers().await.unwrap().is_empty());

    let image = Image { id: uuid::Uuid::new_v4().to_string(), ..order.image.clone() };
    let gone = ServerOrder { image, ..order.clone() };
    let error = bench.cloud.create_server(&bench.deployment, &gone, &bench.journal).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound { kind, .. } if kind == "image"), "{error:?}");

    let large = ServerOrder { volume_gb: Some(20), ..order };
    let error = bench.cloud.create_server(&bench.deployment, &large, &bench.journal).await.unwrap_err();
    assert!(error.class() == Class::Input && error.to_string().contains("flavor"), "{error}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_deploy_there_is_no_network_for_a_server() {
    let bench = Bench::start("lab").await;
    let order = bench.order().await;
    let error = bench.cloud.create_server(&bench.deployment, &order, &bench.journal).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound { kind, .. } if kind == "network"), "{error:?}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn things_go_in_their_order_and_are_not_found_then() {
    let bench = Bench::start("lab").await;
    bench.deploy().await.unwrap();
    let record = bench.journal.store().load().unwrap().unwrap();
    let id = |kind| record.find(kind, "lab").unwrap().cloud_id().unwrap().to_owned();
    let delete = async |kind| bench.cloud.delete(kind, &id(kind)).await;
    assert_eq!(delete(Kind::Network).await.unwrap_err().class(), Class::Conflict, "its subnet is there");
    for kind in [Kind::Subnet, Kind::Network, Kind::SecurityGroup] {
        delete(kind).await.unwrap();
        assert!(delete(kind).await.unwrap_err().is_not_found(), "{kind}");
    }
    assert!(bench.found().await.is_empty());
    bench.deploy().await.unwrap();
    assert_eq!(bench.found().await.len(), 3, "the same ids can be made again");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_no_id_so_that_nothing_of_others_is_ever_meant() {
    let bench = Bench::start("lab").await;
    bench.foreign_network("default-2", "10.97.0.0/24").await;
    for id in ["default-2", "", "../guests", "default"] {
        for kind in [Kind::Network, Kind::Subnet, Kind::Server, Kind::SecurityGroup, Kind::FloatingIp] {
            assert!(bench.cloud.delete(kind, id).await.unwrap_err().is_not_found(), "{kind} {id}");
        }
        assert!(bench.cloud.server(id).await.unwrap_err().is_not_found());
        assert!(bench.cloud.console(id).await.unwrap_err().is_not_found());
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_room_is_the_quota_and_there_is_none_without_machines() {
    let bench = Bench::start("lab").await;
    let quota = bench.cloud.quota().await.unwrap();
    assert_eq!((quota.max_cores, quota.max_ram_mb), (Some(0), Some(0)));
    assert_eq!((quota.max_instances, quota.max_volume_gb, quota.used.instances), (None, None, 0));
    assert_eq!(bench.cloud.here().await.unwrap(), None);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_and_a_silent_address_are_told_apart() {
    let bench = Bench::start("lab").await;
    let url = format!("http://{}", bench.client.authority());
    let stranger = HaarCloud::new(&url, Some("x".to_owned()), None).unwrap();
    assert_eq!(stranger.flavors().await.unwrap_err().class(), Class::Auth);
    bench.end().await;
    let silent = HaarCloud::new(&url, Some("x".to_owned()), None).unwrap();
    assert!(silent.flavors().await.unwrap_err().is_transient());
    let error = HaarCloud::new("ftp://x", None, None).unwrap_err();
    assert!(error.to_string().contains("http://host:port"), "{error}");
}
