//! What servers stand on: made in order, found again, finished when half made, and refused when it is
//! not what it should be.

use haar_cloud::provider::Ground;
use haar_cloud::state::Kind;
use haar_cloud::{Class, Provider as _};
use haar_openstack::OpenStack;
use serde_json::json;

use crate::fake::Fake;
use crate::support::{OTHER_KEY, Site};

async fn cloud(fake: &Fake) -> OpenStack {
    OpenStack::connect(fake.settings()).await.unwrap()
}

const ORDER: [&str; 9] = [
    "POST /compute/v2.1/os-keypairs",
    "POST /network/v2.0/security-groups",
    "POST /network/v2.0/security-group-rules",
    "POST /network/v2.0/security-group-rules",
    "POST /network/v2.0/security-group-rules",
    "POST /network/v2.0/networks",
    "POST /network/v2.0/subnets",
    "POST /network/v2.0/routers",
    "PUT /network/v2.0/routers/R/add_router_interface",
];

fn without_ids(changes: Vec<String>) -> Vec<String> {
    changes
        .into_iter()
        .map(|line| match line.split_once("/routers/0") {
            Some((before, after)) => {
                format!("{before}/routers/R/{}", after.split_once('/').map_or("", |(_, rest)| rest))
            }
            None => line,
        })
        .collect()
}

/// What was made: in the order, as it was asked for, and with the deployment's mark.
fn made_as_asked(fake: &Fake, mark: &str) {
    let mut world = fake.world();
    assert_eq!(without_ids(world.changes()), ORDER);
    let subnet = world.body("POST /network/v2.0/subnets")["subnet"].clone();
    assert_eq!((&subnet["cidr"], &subnet["gateway_ip"]), (&json!("192.168.64.0/18"), &json!("192.168.64.1")));
    assert_eq!(subnet["dns_nameservers"], json!(["8.8.4.4", "8.8.8.8"]));
    let outside =
        world.of("networks").iter().find(|network| network["name"] == "public").unwrap()["id"].clone();
    let router = world.body("POST /network/v2.0/routers")["router"].clone();
    assert_eq!(router["external_gateway_info"]["network_id"], outside);
    let subnet = world.of("subnets").last().unwrap()["id"].clone();
    let interface = world.of("ports").last().unwrap().clone();
    assert_eq!(interface["fixed_ips"][0]["subnet_id"], subnet);
    for kind in ["networks", "subnets", "routers", "security-groups"] {
        let thing = world.of(kind).last().unwrap().clone();
        assert_eq!((&thing["name"], &thing["description"]), (&json!("a-b_c 1"), &json!(mark)), "{kind}");
        assert_eq!(thing["tags"], json!([mark]), "{kind}");
    }
}

#[tokio::test]
async fn case_05_a_fresh_project_is_asked_in_order_and_all_of_it_is_on_record() {
    let fake = Fake::start().await;
    let (cloud, site) = (cloud(&fake).await, Site::new("a-b_c 1"));
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    made_as_asked(&fake, &site.deployment.id.tag());
    let kinds: Vec<Kind> = site.ours().into_iter().map(|(kind, _)| kind).collect();
    let all = [
        Kind::RouterInterface,
        Kind::Router,
        Kind::Subnet,
        Kind::Network,
        Kind::SecurityGroup,
        Kind::KeyPair,
    ];
    assert_eq!(kinds, all);
    let needed = cloud.needed(&site.deployment).await.unwrap();
    let needed: Vec<Kind> = needed.into_iter().map(|(kind, _)| kind).collect();
    assert!(all.iter().all(|kind| needed.contains(kind)) && needed.len() == all.len());
}

#[tokio::test]
async fn case_06_defect_29_a_second_deploy_changes_nothing_in_this_process_or_another() {
    let fake = Fake::start().await;
    let (first, second, site) = (cloud(&fake).await, cloud(&fake).await, Site::new("a"));
    first.deploy(&site.deployment, &site.journal).await.unwrap();
    let before = site.ours();
    fake.world().changes();
    for cloud in [&first, &second] {
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        assert!(fake.world().changes().is_empty());
        assert_eq!(site.ours(), before);
    }
    for cloud in [&first, &second] {
        let order = site.order(cloud, "small", "Debian").await;
        cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
        let server = fake.world().body("POST /compute/v2.1/servers")["server"].clone();
        assert_eq!(server["networks"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn case_07_defect_01_whichever_step_fails_the_next_deploy_goes_on_there() {
    for step in
        ORDER.iter().filter(|step| step.starts_with("POST")).chain(&["/tags/", "/add_router_interface"])
    {
        let fake = Fake::start().await;
        let (cloud, site) = (cloud(&fake).await, Site::new("a"));
        fake.fault(step, 1, 500, "");
        let error = cloud.deploy(&site.deployment, &site.journal).await.unwrap_err();
        assert!(error.is_transient(), "{step}: {error:?}");
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        let mut world = fake.world();
        for kind in ["subnets", "routers", "security-groups", "keypairs"] {
            assert_eq!(world.of(kind).len(), 1, "{step}: {kind}");
        }
        assert_eq!((world.of("networks").len(), world.of("security-group-rules").len()), (2, 3), "{step}");
        drop(world);
        assert!(site.ours().iter().all(|(_, id)| id != "no id"), "{step}: {:?}", site.ours());
    }
}

#[tokio::test]
async fn what_was_made_by_a_request_whose_answer_was_lost_is_found_by_its_mark() {
    let fake = Fake::start().await;
    let (cloud, site) = (cloud(&fake).await, Site::new("a"));
    let description = site.deployment.id.tag();
    let network = fake.world().add("networks", json!({"name": "a", "description": description, "tags": []}));
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    assert!(site.ours().contains(&(Kind::Network, network.clone())));
    let mut world = fake.world();
    let found = world.of("networks").iter().find(|thing| thing["id"] == network.as_str()).unwrap();
    assert_eq!(found["tags"], json!([description]), "the tag comes after");
}

#[tokio::test]
async fn case_08_a_key_pair_with_another_key_is_refused_before_anything_is_made() {
    let fake = Fake::start().await;
    let (cloud, mut site) = (cloud(&fake).await, Site::new("a"));
    fake.world()
        .of("keypairs")
        .push(json!({"id": "a", "name": "a", "public_key": OTHER_KEY, "fingerprint": "f:9"}));
    let error = cloud.deploy(&site.deployment, &site.journal).await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict);
    assert!(error.to_string().contains("key pair a") && error.to_string().contains("f:9"), "{error}");
    assert!(fake.world().changes().is_empty());
    site.deployment.public_key = format!("{OTHER_KEY} of somebody");
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    assert!(!site.ours().iter().any(|(kind, _)| *kind == Kind::KeyPair), "used, and not ours");
}

#[tokio::test]
async fn what_others_made_under_the_name_is_used_and_never_ours() {
    let fake = Fake::start().await;
    let (cloud, site) = (cloud(&fake).await, Site::new("a"));
    let network = fake.world().add("networks", json!({"name": "a", "tags": ["blue"]}));
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    assert!(!site.ours().iter().any(|(kind, _)| *kind == Kind::Network));
    let record = site.journal.store().load().unwrap().unwrap();
    assert_eq!(record.find(Kind::Network, site.name()).unwrap().cloud_id(), Some(network.as_str()));
    let survey = cloud.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap();
    let found = survey.iter().find(|found| found.kind == Kind::Network).unwrap();
    assert_eq!((found.id.as_str(), found.ours), (network.as_str(), false));
    assert!(survey.iter().filter(|found| found.ours).any(|found| found.kind == Kind::Subnet));
}

#[tokio::test]
async fn two_of_the_name_and_one_of_another_deployment_are_in_the_way() {
    let fake = Fake::start().await;
    let (cloud, site, other) = (cloud(&fake).await, Site::new("a"), Site::new("a"));
    let first = fake.world().add("networks", json!({"name": "a", "tags": []}));
    let second = fake.world().add("networks", json!({"name": "a", "tags": []}));
    let error = cloud.deploy(&site.deployment, &site.journal).await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict);
    assert!([first, second].iter().all(|id| error.to_string().contains(id)), "{error}");
    fake.world().of("networks").retain(|thing| thing["name"] != "a");
    fake.world().add("networks", json!({"name": "a", "tags": [other.deployment.id.tag()]}));
    let error = cloud.deploy(&site.deployment, &site.journal).await.unwrap_err();
    assert!(error.to_string().contains(&other.deployment.id.to_string()), "{error}");
}

#[tokio::test]
async fn defect_31_a_subnet_that_is_not_as_wanted_is_told() {
    for (cidr, gateway, words) in
        [("10.0.0.0/8", "10.0.0.1", "10.0.0.0/8"), ("192.168.64.0/18", "192.168.64.9", "192.168.64.9")]
    {
        let fake = Fake::start().await;
        let (cloud, site) = (cloud(&fake).await, Site::new("a"));
        let network = fake.world().add("networks", json!({"name": "a", "tags": []}));
        let subnet =
            json!({"name": "", "network_id": network, "cidr": cidr, "gateway_ip": gateway, "tags": []});
        fake.world().add("subnets", subnet);
        let error = cloud.deploy(&site.deployment, &site.journal).await.unwrap_err();
        assert!(error.class() == Class::Conflict && error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn defect_31_what_was_taken_away_from_under_a_deployment_is_made_again() {
    let fake = Fake::start().await;
    let (cloud, site) = (cloud(&fake).await, Site::new("a"));
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let before = site.ours();
    {
        let mut world = fake.world();
        world.of("ports").clear();
        world.of("routers")[0]["external_gateway_info"] = json!(null);
        world.of("subnets")[0]["dns_nameservers"] = json!([]);
    }
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let mut world = fake.world();
    assert_eq!(world.of("ports").len(), 1, "the interface is there again");
    assert!(world.of("routers")[0]["external_gateway_info"]["network_id"].is_string());
    assert_eq!(world.of("subnets")[0]["dns_nameservers"], json!(["8.8.4.4", "8.8.8.8"]));
    let interface = world.of("ports")[0]["id"].as_str().unwrap().to_owned();
    drop(world);
    let after = site.ours();
    assert_eq!((after.len(), &after[0]), (before.len(), &(Kind::RouterInterface, interface)));
}

#[tokio::test]
async fn defect_30_a_group_whose_rules_were_taken_away_gets_them_again() {
    let fake = Fake::start().await;
    let (cloud, mut site) = (cloud(&fake).await, Site::new("a"));
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    fake.world().of("security-group-rules").clear();
    fake.world().of("security-groups")[0]["security_group_rules"] = json!([]);
    site.deployment.ground.sources.push("::/0".parse().unwrap());
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let rule = |rule: &serde_json::Value| {
        let port = rule["port_range_min"].as_u64().unwrap_or(0);
        (rule["protocol"].as_str().unwrap().to_owned(), port, rule["ethertype"].as_str().unwrap().to_owned())
    };
    let mut rules: Vec<_> = fake.world().of("security-group-rules").iter().map(rule).collect();
    rules.sort();
    let of = |protocol: &str, port, ethertype: &str| (protocol.to_owned(), port, ethertype.to_owned());
    let wanted = [
        of("icmp", 0, "IPv4"),
        of("ipv6-icmp", 0, "IPv6"),
        of("tcp", 22, "IPv4"),
        of("tcp", 22, "IPv6"),
        of("tcp", 80, "IPv4"),
        of("tcp", 80, "IPv6"),
    ];
    assert_eq!(rules, wanted);
}

#[tokio::test]
async fn defect_30_a_narrower_source_takes_the_wider_ones_rules_away_and_leaves_those_of_others() {
    let fake = Fake::start().await;
    let (cloud, mut site) = (cloud(&fake).await, Site::new("a"));
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let foreign = json!({"id": "x", "direction": "ingress", "ethertype": "IPv4", "protocol": "udp",
        "port_range_min": 53, "port_range_max": 53, "description": "by hand"});
    fake.world().of("security-groups")[0]["security_group_rules"]
        .as_array_mut()
        .unwrap()
        .push(foreign.clone());
    fake.world().of("security-group-rules").push(foreign);
    site.deployment.ground.sources = vec!["198.51.100.0/24".parse().unwrap()];
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let sources: Vec<String> = fake
        .world()
        .of("security-group-rules")
        .iter()
        .map(|rule| rule["remote_ip_prefix"].as_str().unwrap_or("by hand").to_owned())
        .collect();
    assert_eq!(sources, ["by hand", "198.51.100.0/24", "198.51.100.0/24", "198.51.100.0/24"]);
}

#[tokio::test]
async fn without_ports_there_is_no_group_and_servers_get_the_clouds_own() {
    let fake = Fake::start().await;
    let (cloud, mut site) = (cloud(&fake).await, Site::new("a"));
    site.deployment.ground.ports = Vec::new();
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let order = site.order(&cloud, "small", "Debian").await;
    cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
    let mut world = fake.world();
    assert!(world.of("security-groups").is_empty());
    assert!(world.body("POST /compute/v2.1/servers")["server"].get("security_groups").is_none());
}

#[tokio::test]
async fn defect_32_of_two_networks_that_lead_out_one_must_be_named() {
    let fake = Fake::start().await;
    let (cloud, mut site) = (cloud(&fake).await, Site::new("a"));
    let other = fake.world().add("networks", json!({"name": "campus", "router:external": true, "tags": []}));
    let error = cloud.deploy(&site.deployment, &site.journal).await.unwrap_err();
    assert!(error.to_string().contains("public (") && error.to_string().contains("campus ("), "{error}");
    site.deployment.ground.external_network = Some("campus".to_owned());
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let router = fake.world().of("routers")[0].clone();
    assert_eq!(router["external_gateway_info"]["network_id"], json!(other));
}

#[tokio::test]
async fn defect_31_a_router_that_leads_elsewhere_is_led_where_it_was_said_or_is_in_the_way() {
    let fake = Fake::start().await;
    let (cloud, mut site) = (cloud(&fake).await, Site::new("a"));
    fake.world().add("networks", json!({"name": "campus", "router:external": true, "tags": []}));
    site.deployment.ground.external_network = Some("campus".to_owned());
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let gateway = || fake.world().of("routers")[0]["external_gateway_info"]["network_id"].clone();
    let before = gateway();
    site.deployment.ground.external_network = Some("public".to_owned());
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    assert_ne!(gateway(), before);

    let other = Fake::start().await;
    let (theirs, mut site) = (self::cloud(&other).await, Site::new("a"));
    let campus =
        other.world().add("networks", json!({"name": "campus", "router:external": true, "tags": []}));
    let leads = json!({"name": "a", "external_gateway_info": {"network_id": campus}, "tags": []});
    other.world().add("routers", leads);
    site.deployment.ground.external_network = Some("public".to_owned());
    let error = theirs.deploy(&site.deployment, &site.journal).await.unwrap_err();
    assert!(error.class() == Class::Conflict && error.to_string().contains("another external"), "{error}");
}

/// A server of the cloud, with two networks, that we are to take for our own.
fn our_server(fake: &Fake) -> (String, [String; 2]) {
    let mut world = fake.world();
    let server = world.add("servers", json!({"name": "a-me", "status": "ACTIVE"}));
    let networks = ["10.9.0.0/24", "192.168.64.0/18"].map(|cidr| {
        let network = world.add("networks", json!({"name": cidr, "tags": []}));
        let subnet = json!({"network_id": network, "cidr": cidr, "gateway_ip": null, "tags": []});
        let subnet = world.add("subnets", subnet);
        let fixed = json!([{"subnet_id": subnet, "ip_address": "10.9.0.7"}]);
        world.add(
            "ports",
            json!({"device_id": server, "network_id": network, "fixed_ips": fixed, "tags": []}),
        );
        network
    });
    (server, networks)
}

/// A cloud as it is seen from a server of it, whose firmware tells its number.
async fn on_server(fake: &Fake, server: &str) -> (OpenStack, Site, tempfile::TempDir) {
    let firmware = tempfile::tempdir().unwrap();
    std::fs::write(firmware.path().join("product_uuid"), format!("{}\n", server.to_uppercase())).unwrap();
    let mut settings = fake.settings();
    settings.machine.firmware = firmware.path().into();
    (OpenStack::connect(settings).await.unwrap(), Site::new("a"), firmware)
}

#[tokio::test]
async fn case_09_defect_06_on_a_server_of_the_cloud_its_own_networks_are_used_and_nothing_is_made() {
    let fake = Fake::start().await;
    let (server, [other, first]) = our_server(&fake);
    let (cloud, site, _firmware) = on_server(&fake, &server).await;
    assert_eq!(cloud.here().await.unwrap(), Some(server));
    let needed = cloud.needed(&site.deployment).await.unwrap();
    let needed: Vec<Kind> = needed.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(needed, [Kind::KeyPair, Kind::SecurityGroup], "nothing is promised that is not made");
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let made = fake.world().changes();
    assert!(made.iter().all(|line| line.contains("keypairs") || line.contains("security-group")), "{made:?}");
    let order = site.order(&cloud, "small", "Debian").await;
    cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
    let networks = fake.world().body("POST /compute/v2.1/servers")["server"]["networks"].clone();
    assert_eq!(networks, json!([{"uuid": first}, {"uuid": other}]));
    // The cloud makes the ports and takes them away with the server: nobody has to remember them.
    assert_eq!(fake.world().changes(), ["POST /compute/v2.1/servers"]);
    assert!(!site.ours().iter().any(|(kind, _)| *kind == Kind::Port));
}

#[tokio::test]
async fn case_09_a_range_that_the_own_server_is_not_in_is_refused_before_anything_is_made() {
    let fake = Fake::start().await;
    let (server, _) = our_server(&fake);
    let (cloud, mut site, _firmware) = on_server(&fake, &server).await;
    fake.world().changes();
    site.deployment.ground.cidr = "172.16.0.0/16".parse().unwrap();
    site.deployment.ground.gateway = "172.16.0.1".parse().unwrap();
    let error = cloud.deploy(&site.deployment, &site.journal).await.unwrap_err();
    assert!(error.class() == Class::Input && error.to_string().contains("10.9.0.0/24"), "{error}");
    assert_eq!((fake.world().changes(), site.ours()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn defect_29_a_network_that_the_own_server_is_in_twice_is_one_of_new_servers_once() {
    let fake = Fake::start().await;
    let (server, [other, first]) = our_server(&fake);
    let again = fake.world().of("ports")[0].clone();
    fake.world().add("ports", again);
    let (cloud, site, _firmware) = on_server(&fake, &server).await;
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let order = site.order(&cloud, "small", "Debian").await;
    cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
    let networks = fake.world().body("POST /compute/v2.1/servers")["server"]["networks"].clone();
    assert_eq!(networks, json!([{"uuid": first}, {"uuid": other}]));
}

#[tokio::test]
async fn a_key_pair_that_is_anothers_by_now_is_not_torn_down() {
    let fake = Fake::start().await;
    let provider = std::sync::Arc::new(cloud(&fake).await);
    let folder = tempfile::tempdir().unwrap();
    let cloud = haar_cloud::Cloud::new(provider, &"a".parse().unwrap(), folder.path()).unwrap();
    cloud.deploy(Ground::default()).await.unwrap();
    // Ours was deleted by hand, and the same user has made one of the same name for something else.
    fake.world().of("keypairs")[0]["public_key"] = OTHER_KEY.into();
    let torn = cloud.tear_down().await.unwrap();
    assert!(!torn.destroyed.iter().any(|thing| thing.kind == Kind::KeyPair), "{torn:?}");
    assert_eq!(fake.world().of("keypairs").len(), 1);
    assert!(fake.world().of("networks").iter().all(|network| network["name"] != "a"));
}

#[tokio::test]
async fn a_machine_that_the_cloud_does_not_know_is_not_in_it_and_the_metadata_service_may_tell() {
    let fake = Fake::start().await;
    let (server, _) = our_server(&fake);
    let firmware = tempfile::tempdir().unwrap();
    std::fs::write(firmware.path().join("product_uuid"), "9b2c8f1e-0000-4000-8000-00000000abcd").unwrap();
    let mut settings = fake.settings();
    settings.machine.firmware = firmware.path().into();
    settings.machine.metadata_url = metadata_service(server.clone()).await;
    assert_eq!(OpenStack::connect(settings.clone()).await.unwrap().here().await.unwrap(), None);
    std::fs::write(firmware.path().join("product_name"), "OpenStack Nova\n").unwrap();
    assert_eq!(OpenStack::connect(settings).await.unwrap().here().await.unwrap(), Some(server));
}

#[tokio::test]
async fn who_is_not_root_is_told_by_what_cloud_init_noted() {
    let fake = Fake::start().await;
    let (server, _) = our_server(&fake);
    let folder = tempfile::tempdir().unwrap();
    let mut settings = fake.settings();
    settings.machine.cloud_init = folder.path().join("instance-id");
    for (noted, here) in [(format!("{server}\n"), Some(server.clone())), ("i-0000002a\n".to_owned(), None)] {
        std::fs::write(&settings.machine.cloud_init, noted).unwrap();
        assert_eq!(OpenStack::connect(settings.clone()).await.unwrap().here().await.unwrap(), here);
    }
}

async fn metadata_service(server: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let told = axum::Json(json!({"uuid": server, "hostname": "a-me"}));
    let route = axum::routing::get(move || async move { told });
    let app = axum::Router::new().route("/openstack/latest/meta_data.json", route);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}
