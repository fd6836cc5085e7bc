//! `haar cloud` against a real controller whose agent says that all is done: everything but logging in.

use std::sync::Arc;

use haar_cloud::contract::{Setup, hold};
use haar_cloud::haar::HaarCloud;
use haar_cloud::provider::Ground;
use serde_json::Value;

use super::MIB;
use super::cloud::{Agent, Cloud, Luck, haar};

/// A controller with an agent and two images that begin alike.
async fn with_images(luck: Luck) -> (Cloud, Agent) {
    let cloud = Cloud::start().await;
    let agent = Agent::join(&cloud, luck).await;
    for name in ["tiny-1", "tiny-2"] {
        let file = cloud.file(&format!("{name}.raw"), &vec![7; MIB]);
        assert_eq!(cloud.haar(&format!("image import {name} {file}")).await.code, 0);
    }
    (cloud, agent)
}

fn kinds(document: &Value) -> Vec<String> {
    let things = document["things"].as_array().unwrap();
    things
        .iter()
        .map(|thing| format!("{} {}", thing["kind"].as_str().unwrap(), thing["what"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_goes_from_nothing_to_servers_and_back_to_nothing() {
    let (cloud, _agent) = with_images(Luck::Good).await;
    let plan = cloud.haar("cloud deploy --name farm --dry-run -o json").await.json();
    let would = ["security_group would be made", "network would be made", "subnet would be made"];
    assert_eq!(kinds(&plan), would);
    assert!(cloud.haar("network list").await.well().lines().count() == 2, "a dry run makes nothing");

    let deployed = cloud.haar("cloud deploy --name farm -o json").await.json();
    assert_eq!(kinds(&deployed), ["security_group is there", "network is there", "subnet is there"]);
    let again = cloud.haar("cloud deploy --name farm -o json").await.json();
    assert_eq!(again["things"], deployed["things"], "each thing is made once");
    let network = cloud.haar("network show farm -o json").await.json();
    assert_eq!(network["metadata"]["haar-deployment"], deployed["deployment"]);

    let said = cloud.haar("cloud spawn --name farm --image tiny-1 --count 2 --no-wait -o json").await.json();
    assert_eq!(said["items"].as_array().unwrap().len(), 2, "{said}");
    let server = &said["items"][0];
    let address = server["address"].as_str().unwrap();
    assert!(address.starts_with("192.168.64."), "{address}");
    assert!(server["host_keys"][0].as_str().unwrap().starts_with("ssh-ed25519 "));

    // Another process, which has only the record.
    let list = cloud.haar("cloud list --name farm").await.well();
    assert!(list.lines().nth(1).unwrap().contains("running") && list.contains(address), "{list}");
    let prices = cloud.file("prices.json", br#"{"currency": "EUR", "per_hour": {"medium": 0.03}}"#);
    let costs = cloud.haar(&format!("cloud list --name farm --prices {prices}")).await.well();
    assert!(costs.contains("0.030 EUR") && costs.contains("together 0.060 EUR in an hour"), "{costs}");

    let id = server["id"].as_str().unwrap();
    let gone = cloud.haar(&format!("cloud destroy --name farm {}", &id[..8])).await.well();
    assert!(gone.contains("destroyed"), "{gone}");
    assert_eq!(
        cloud.haar("cloud list --name farm -o json").await.json()["items"].as_array().unwrap().len(),
        1
    );

    let plan = cloud.haar("cloud teardown --name farm --dry-run -o json").await.json();
    let each = ["server", "subnet", "network", "security_group"];
    assert_eq!(kinds(&plan), each.map(|kind| format!("{kind} would be destroyed")));
    assert!(plan["things"].as_array().unwrap().iter().all(|thing| thing["id"].is_string()));
    assert_eq!(cloud.haar("guest list -o json").await.json()["items"].as_array().unwrap().len(), 1);

    let torn = cloud.haar("cloud teardown --name farm -o json").await.json();
    assert_eq!(torn["destroyed"].as_array().unwrap().len(), 4, "{torn}");
    assert_eq!(cloud.haar("guest list").await.well(), "  no guests\n");
    assert!(!cloud.haar("network list").await.well().contains("farm"));
    let record = deployed["record"].as_str().unwrap();
    assert_eq!(std::fs::read_dir(std::path::Path::new(record).parent().unwrap()).unwrap().count(), 0);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_listed_can_be_destroyed_by_what_it_is_called() {
    let (cloud, _agent) = with_images(Luck::Good).await;
    let deployed = cloud.haar("cloud deploy --name farm -o json").await.json();
    let said = cloud.haar("cloud spawn --name farm --image tiny-1 --count 3 --no-wait -o json").await.json();
    let ids: Vec<&str> = (0..3).map(|place| said["items"][place]["id"].as_str().unwrap()).collect();
    // As after an end that was cut off, and after a record that was lost.
    let path = deployed["record"].as_str().unwrap();
    let mut record: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let entries = record["entries"].as_array_mut().unwrap();
    entries.retain(|entry| entry["cloud_id"] != ids[1]);
    for entry in entries.iter_mut().filter(|entry| entry["cloud_id"] == ids[0]) {
        entry["phase"] = "leaving".into();
    }
    std::fs::write(path, record.to_string()).unwrap();
    let list = cloud.haar("cloud list --name farm").await.well();
    assert!(list.contains("leaving") && list.contains("not on record") && list.contains("running"), "{list}");

    let unknown = cloud.haar(&format!("cloud destroy --name farm {} nobody", ids[0])).await;
    assert!(unknown.code == 4 && unknown.err.contains("nobody"), "{unknown:?}");
    let gone = cloud.haar(&format!("cloud destroy --name farm {} {}", ids[0], &ids[1][..8])).await.well();
    assert!(gone.contains("2 servers destroyed"), "{gone}");
    cloud.haar("cloud destroy --name farm --all").await.well();
    assert_eq!(cloud.haar("guest list").await.well(), "  no guests\n");
    assert!(cloud.haar("cloud list --name farm").await.well().contains("no servers"));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_of_each_project_has_a_record_of_its_own_and_an_old_record_is_used_on() {
    let (cloud, _agent) = with_images(Luck::Good).await;
    let ours = cloud.haar("cloud deploy --name farm -o json").await.json();
    let theirs = cloud.haar("cloud deploy --name farm --project theirs -o json").await.json();
    assert_ne!(ours["deployment"], theirs["deployment"]);
    let record = |said: &Value| std::path::PathBuf::from(said["record"].as_str().unwrap());
    assert_ne!(record(&ours), record(&theirs));

    // As an older program left it: in the folder of the whole cloud, without a word of the project.
    let new = record(&ours);
    let mut text: Value = serde_json::from_slice(&std::fs::read(&new).unwrap()).unwrap();
    let place = text.as_object_mut().unwrap().remove("place").unwrap();
    let id = place.as_str().unwrap().rsplit(' ').next().unwrap()[..8].to_owned();
    let old = new.parent().unwrap().with_file_name(format!("haar-{id}"));
    std::fs::rename(new.parent().unwrap(), &old).unwrap();
    let old = old.join(new.file_name().unwrap());
    std::fs::write(&old, text.to_string()).unwrap();
    let elsewhere = cloud.haar("cloud deploy --name farm --project others").await;
    assert!(elsewhere.code == 1 && elsewhere.err.contains("project others"), "{elsewhere:?}");
    let again = cloud.haar("cloud deploy --name farm -o json").await.json();
    assert_eq!((record(&again), &again["things"]), (old, &ours["things"]));
    let others = cloud.haar("cloud deploy --name farm --project others -o json").await.json();
    assert_ne!(others["deployment"], ours["deployment"]);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_38_a_haar_cloud_holds_the_contract_of_all_providers() {
    let (cloud, _agent) = with_images(Luck::Good).await;
    let provider = HaarCloud::new(&cloud.url, Some(cloud.admin.clone()), None).unwrap();
    let setup = Setup {
        provider: Arc::new(provider),
        folder: cloud.folder.path().join("records"),
        name: "contract".parse().unwrap(),
        ground: Ground::default(),
        os: "tiny-1".to_owned(),
        user: "root".to_owned(),
        flavor: "tiny".to_owned(),
        several: true,
        external: true,
    };
    hold(&setup).await;
    assert_eq!(cloud.haar("guest list").await.well(), "  no guests\n");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_a_server_at_once_and_is_worked_on_like_any_other() {
    let home = tempfile::tempdir().unwrap();
    let run = async |words: &str| {
        let words: Vec<&str> = ["cloud", "--provider", "local"].into_iter().chain(words.split(' ')).collect();
        haar(home.path(), &[], &words, "").await
    };
    let said = run("spawn --image any").await;
    let advice = "to deploy it:  haar cloud deploy --provider local";
    assert!(said.code == 1 && said.err.contains(advice), "{said:?}");
    // What was said once holds until something else is said.
    for (words, expected) in
        [("", false), (" --config-drive", true), ("", true), (" --config-drive=false", false)]
    {
        let told = run(&format!("deploy -o json{words}")).await.json();
        let text = std::fs::read_to_string(told["record"].as_str().unwrap()).unwrap();
        assert!(text.contains(&format!(r#"config_drive\":{expected}"#)), "{words}: {text}");
    }
    let image = run("images -o json").await.json()["items"][0]["name"].as_str().unwrap().to_owned();
    let server = run(&format!("spawn --flavor localhost -o json --image {image}")).await.json();
    let name = server["items"][0]["name"].as_str().unwrap();
    let said = run(&format!("run {name} -- echo out; echo err >&2; exit 7")).await;
    assert_eq!((said.code, &*said.out, &*said.err), (7, "out\n", "err\n"));
    let json = run("run -o json -- pwd -P").await.json();
    let place = home.path().canonicalize().unwrap();
    assert_eq!(json["stdout"].as_str().unwrap().trim(), place.to_str().unwrap());
    let said = run("run --limit 1 -- sleep 1000").await;
    assert!(said.code == 1 && said.err.contains("gave up"), "{said:?}");
    std::fs::write(home.path().join("here"), "words").unwrap();
    run(&format!("copy {}/here :there/it/is", home.path().display())).await.well();
    run(&format!("copy {name}:there/it/is {}/back", home.path().display())).await.well();
    assert_eq!(std::fs::read_to_string(home.path().join("back")).unwrap(), "words");
    let said = run(&format!("copy {name}:none {}/back", home.path().display())).await;
    assert!(said.code == 4 && said.err.contains("no such file"), "{said:?}");
    let said = run(&format!("ssh {name} -- cat there/it/is; exit 5")).await;
    assert_eq!((said.code, &*said.out), (5, "words"), "{said:?}");
    let said = run(&format!("ssh {name} --user nobody-of-that-name")).await;
    assert!(said.code == 2 && said.err.contains("this machine"), "{said:?}");
    run(&format!("destroy {name}")).await.well();
    let said = run(&format!("spawn --flavor localhost --files ~/none --image {image}")).await;
    assert!(said.code == 0 && said.err.contains("/none is not here, and is left out"), "{said:?}");
    run("teardown").await.well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teardown_leaves_what_only_has_a_name_like_ours() {
    let (cloud, _agent) = with_images(Luck::Good).await;
    let made = "guest create farm-7c1d0e52-9a3b-4f6e-8d21-0123456789ab --image tiny-1 --flavor tiny";
    cloud.haar(made).await.well();
    cloud.haar("cloud deploy --name farm").await.well();
    let plan = cloud.haar("cloud teardown --name farm --dry-run -o json").await.json();
    assert!(!kinds(&plan).contains(&"server would be destroyed".to_owned()), "{plan}");
    cloud.haar("cloud teardown --name farm").await.well();
    assert_eq!(cloud.haar("guest list -o json").await.json()["items"].as_array().unwrap().len(), 1);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_on_its_machine_is_gone_again_and_the_reason_is_said() {
    let (cloud, _agent) = with_images(Luck::NoSpace).await;
    cloud.haar("cloud deploy --name farm").await.well();
    let said = cloud.haar("cloud spawn --name farm --image tiny-1 --flavor tiny --no-wait").await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("no_hardware"), "{said:?}");
    assert_eq!(cloud.haar("guest list").await.well(), "  no guests\n");
    assert!(cloud.haar("cloud list --name farm").await.well().contains("no servers"));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cloud_has_no_hardware_and_that_is_no_quota() {
    let (cloud, _agent) = with_images(Luck::Good).await;
    cloud.haar("cloud deploy --name farm").await.well();
    let said = cloud.haar("cloud spawn --name farm --image tiny-1 --flavor large --count 30 --no-wait").await;
    assert!(said.code == 3 && said.err.contains("no_hardware"), "{said:?}");
    assert!(!said.err.contains("over_quota") && said.err.contains("memory"), "{said:?}");
    // The whole machine is full by now, so that the numbers say so before the controller does.
    let said = cloud.haar("cloud spawn --name farm --image tiny-1 --flavor large --no-wait -o json").await;
    let problem: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((said.code, problem["code"].as_str()), (3, Some("no_hardware")), "{said:?}");
    assert!(problem["message"].as_str().unwrap().contains("lab1"), "{said:?}");
    cloud.haar("cloud teardown --name farm").await.well();
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_had_is_listed_and_the_cheapest_is_marked() {
    let (cloud, _agent) = with_images(Luck::Good).await;
    let prices =
        cloud.file("prices.json", br#"{"currency": "EUR", "per_hour": {"large": 0.01, "small": 0.03}}"#);
    let flavors = cloud.haar(&format!("cloud flavors --memory 1g --prices {prices}")).await.well();
    assert!(flavors.contains("large *") && flavors.contains("0.030 EUR"), "{flavors}");
    let flavors = cloud.haar("cloud flavors --memory 1g").await.well();
    assert!(flavors.contains("small *"), "{flavors}");
    let images = cloud.haar("cloud images -o json").await.json();
    assert_eq!(images["items"].as_array().unwrap().len(), 2);
    let said = cloud.haar("cloud images tiny").await;
    assert!(said.err.contains("could mean 2 images") && said.out.contains("tiny-2"), "{said:?}");
    let quota = cloud.haar("cloud quota -o json").await.json();
    assert_eq!(quota["used"]["instances"], 0);
    assert!(quota["max"]["instances"].is_null() && quota["max"]["cores"].as_u64().unwrap() > 0, "{quota}");
    assert!(cloud.haar("cloud quota").await.well().contains("no limit"));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_word_has_its_exit_code_and_says_what_would_do() {
    let (cloud, _agent) = with_images(Luck::Good).await;
    let broken = cloud.file("broken.json", b"{");
    cloud.haar("cloud deploy --name farm").await.well();
    for (words, code, part) in [
        ("list --provider aws".to_owned(), 2, "openstack, haar, local"),
        ("list --name a/b".to_owned(), 2, "'/' may not be in it"),
        ("deploy --name é".to_owned(), 2, "may not be in it"),
        ("deploy --name farm --gateway 10.0.0.1".to_owned(), 2, "not in the network"),
        ("deploy --name farm --port 0".to_owned(), 2, "from 1 to 65535"),
        ("deploy --name farm --cidr 10.96.0.0/24".to_owned(), 3, "192.168.64.0/22"),
        ("deploy --name other --cidr 192.168.64.0/24".to_owned(), 3, "none may share addresses"),
        ("spawn --name farm --image nixos --no-wait".to_owned(), 4, "no image [nixos]"),
        ("spawn --name farm --image tiny-1 --flavor huge --no-wait".to_owned(), 4, "no flavor [huge]"),
        ("spawn --name farm --image tiny-1 --cores 99 --no-wait".to_owned(), 3, "ask for less"),
        (
            "spawn --name farm --image tiny-1 --flavor large --disk 900g --no-wait".to_owned(),
            2,
            "flavor with more",
        ),
        ("spawn --name none --image tiny-1 --no-wait".to_owned(), 1, "deploy"),
        (format!("flavors --prices {broken}"), 2, "price list"),
        ("flavors --prices /no/such/file".to_owned(), 1, "/no/such/file"),
        ("flavors --flavor-pattern (".to_owned(), 2, "is no pattern"),
        ("destroy --name farm 7c1d0e52".to_owned(), 4, "no server [7c1d0e52]"),
        ("ssh --name farm".to_owned(), 2, "there is no server"),
        ("run --name farm nobody -- true".to_owned(), 4, "no server [nobody]"),
        ("copy --name farm a b".to_owned(), 2, "SERVER:"),
        ("teardown --name none".to_owned(), 4, "nothing of `none`"),
    ] {
        let said = cloud.haar(&format!("cloud {words}")).await;
        assert_eq!(said.code, code, "{words}: {said:?}");
        assert!(said.err.contains(part), "{words}: {said:?}");
    }
    let said = cloud.haar("cloud teardown --name none -o json").await;
    let problem: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(problem["code"], "nothing_to_tear_down");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_login_names_the_file_it_was_looked_for_in() {
    let home = tempfile::tempdir().unwrap();
    let said = haar(home.path(), &[], &["cloud", "list"], "").await;
    assert!(said.code == 2 && said.err.contains("haar login"), "{said:?}");
    let cloud = Cloud::start().await;
    let url = cloud.url.clone();
    let surroundings = [("HAAR_URL", url.as_str()), ("HAAR_TOKEN", "wrong")];
    let said = haar(home.path(), &surroundings, &["cloud", "list"], "").await;
    assert!(said.code == 5 && said.err.contains("HAAR_TOKEN"), "{said:?}");
    cloud.stop().await;
    let said = haar(home.path(), &surroundings, &["cloud", "list"], "").await;
    assert_eq!(said.code, 6, "{said:?}");
}

#[cfg(not(feature = "openstack"))]
#[tokio::test(flavor = "multi_thread")]
async fn without_openstack_the_word_says_how_to_build_it() {
    let home = tempfile::tempdir().unwrap();
    let said = haar(home.path(), &[], &["cloud", "list", "--provider", "openstack"], "").await;
    assert!(said.code == 2 && said.err.contains("--features openstack"), "{said:?}");
}
