//! The binary against a real controller: a person's first day, and every way of hearing a no.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod between;
mod cloud;
mod interrupts;
#[path = "../left_out/mod.rs"]
mod left_out;
mod lists;
mod modes;
mod newcomer;
#[cfg(feature = "openstack")]
mod openstack;
mod servers;
mod words;

use haar_api::client::Client;
use haar_api::table as t;
use haar_api::v1::ConfigPatch;

use cloud::{Agent, Cloud, Luck, haar};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_first_day_goes_from_an_image_to_a_guest_and_back() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;

    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    let said = cloud.haar(&format!("image import tiny {file}")).await;
    assert!(said.err.contains("taking it for raw"), "{said:?}");
    assert!(said.well().starts_with("  tiny  raw, 1.0 MiB virtual, sha256 "));

    let said = cloud.haar("guest create web --image tiny --metadata team=web").await;
    assert!(said.err.contains("taking flavor `small` and network `default`"), "{said:?}");
    let line = said.well();
    for part in ["  web   placed on lab1   10.77.0.", "image ✓  disks ✓", "start ✓", "running after "] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }

    let list = cloud.haar("guest list --on lab1 --state running").await.well();
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("  NAME  STATE    ADDRESS"), "{list}");
    assert!(lines[1].starts_with("  web   running  10.77.0."), "{list}");
    assert!(!list.contains('\u{1b}'), "no colours where there is no terminal");

    let guest = cloud.haar("guest show web -o json").await.json();
    assert_eq!(guest["flavor_name"], "small");
    assert_eq!(guest["metadata"]["team"], "web");
    let id = guest["id"].as_str().unwrap();
    let shown = cloud.haar(&format!("guest show {}", &id[..8])).await.well();
    assert!(shown.starts_with(&format!("guest web   {id}\n")), "{shown}");

    assert!(cloud.haar("guest shutdown web").await.well().contains("stopped after "));
    assert!(cloud.haar("guest set web --metadata a=1 --unset team --restart always").await.code == 0);
    let guest = cloud.haar("guest show web -o json").await.json();
    assert_eq!(guest["metadata"], serde_json::json!({"a": "1"}));
    assert_eq!(guest["restart"], "always");

    let job = cloud.haar("guest start web --no-wait").await.well();
    assert!(
        cloud
            .haar(&format!("job wait {}", &job.trim()[..8]))
            .await
            .well()
            .contains("start guest web on lab1")
    );
    assert!(cloud.haar("job list --guest web").await.well().lines().count() >= 4);

    assert!(cloud.haar("guest delete web").await.well().contains("deleted after "));
    assert_eq!(cloud.haar("guest list").await.well(), "  no guests\n");
    assert_eq!(cloud.haar("image delete tiny").await.well(), "  image tiny deleted\n");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cloud_as_a_whole_is_shown_and_checked() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;
    let status = cloud.haar("status").await.well();
    assert!(status.contains("1 alive"), "{status}");
    assert!(cloud.haar("capacity").await.well().contains("lab1"));
    let check = cloud.haar("check").await.well();
    assert!(check.contains("the books balance"), "{check}");
    assert!(check.contains("stranger on lab1: domain `test-old`"), "{check}");

    assert!(cloud.haar("hypervisor cordon lab1 --reason swap").await.code == 0);
    assert!(cloud.haar("hypervisor list").await.well().contains("cordoned: swap"));
    assert!(cloud.haar("hypervisor uncordon lab1").await.code == 0);

    assert!(cloud.haar("config set overcommit.cpu=6.0").await.well().contains("6.0"));
    assert_eq!(cloud.haar("config show -o json").await.json()["values"]["overcommit.cpu"], "6.0");
    let slip = cloud.haar("config set overcommit.cpuu=3").await;
    assert_eq!(slip.code, 2, "{slip:?}");
    assert!(slip.err.contains("did you mean `overcommit.cpu`?"), "{slip:?}");
    assert!(!cloud.haar("config show").await.well().contains("cpuu"));
    // One that came there in another way is its user's to change.
    let admin = Client::new(&cloud.url, Some(cloud.admin.clone())).unwrap();
    let values = [("overcommit.cpuu".to_owned(), Some("3".to_owned()))].into();
    admin.request::<t::ConfigSet>(&[]).send(&ConfigPatch { values }).await.unwrap();
    assert!(cloud.haar("config set overcommit.cpuu=4").await.well().contains("overcommit.cpuu"));
    cloud.haar("config delete overcommit.cpuu").await.well();
    assert!(cloud.haar("config set site/contact=ana").await.well().contains("site/contact"));
    let shown = cloud.haar("hypervisor show lab1").await.well();
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("cpu 6.0×, memory 1.0×, disk 1.0× (the cluster's)"), "{shown}");
    assert!(shown.contains("has 8 cpu") && shown.contains("may promise 48 cpu"), "{shown}");
    assert!(cloud.haar("status").await.well().contains("0 of 48 (8 at 6.0×)"));
    cloud.haar("hypervisor cordon lab1 --reason swap").await.well();
    assert!(
        cloud.haar("hypervisor show lab1").await.well().contains("none now: cordoned (swap); else 48 cpu")
    );
    assert!(cloud.haar("capacity").await.well().contains("none: cordoned"));
    cloud.haar("hypervisor uncordon lab1").await.well();

    let flavor = cloud.haar("flavor create big --cpu 4 --memory 1.5g --disk 20GiB").await.well();
    assert_eq!(flavor, "  flavor big made: 4 cpu, 1536 MiB memory, 20 GiB disk\n");
    assert!(cloud.haar("network create lab --nat").await.code == 0);
    let subnet = cloud.haar("subnet create lab --network lab --cidr 10.78.0.0/24 --gateway 10.78.0.1").await;
    assert!(subnet.well().contains("10.78.0.2 to 10.78.0.254"));
    assert!(cloud.haar("network list").await.well().contains("lab"));
    assert!(cloud.haar("fwgroup list").await.well().contains("not yet"));

    let events = cloud.haar("events --since 1.1 -o json").await.well();
    let kinds: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        kinds.iter().any(|event| event["kind"] == "flavor" && event["object"]["name"] == "big"),
        "{events}"
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_names_the_causes() {
    let cloud = Cloud::start().await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    cloud.haar("hypervisor create lab9").await.well();

    let said = cloud.haar("guest create web --image tiny").await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.starts_with("error: "), "a no stands alone: {said:?}");
    for part in ["error: no hypervisor can take guest `web`", "no_room", "never joined", "lab9"] {
        assert!(said.err.contains(part), "{part} is missing in {}", said.err);
    }
    let said = cloud.haar("guest create web --image tiny -o json").await;
    let problem: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((said.code, problem["code"].as_str()), (3, Some("no_room")));
    assert_eq!(problem["reasons"][0]["cause"], "never_joined");
    assert_eq!(cloud.haar("guest create web --image tiny --dry-run").await.code, 1);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_says_where_and_what_to_do() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::NoSpace).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    let said = cloud.haar("guest create db --image tiny").await;
    assert_eq!(said.code, 1, "{said:?}");
    for part in [
        "error: create guest db on lab1   error after",
        "no_space",
        "disks     ✗",
        "next: ",
        "haar job retry ",
    ] {
        assert!(said.err.contains(part), "{part} is missing in {}", said.err);
    }
    assert!(cloud.haar("guest delete db").await.well().contains("db"));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_was_said_leave_no_image() {
    let cloud = Cloud::start().await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    let said = cloud.haar(&format!("image import tiny {file} --sha256 {}", "0".repeat(64))).await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("image_checksum"), "{said:?}");
    assert_eq!(cloud.haar("image list").await.well(), "  no images\n");

    cloud.haar("image create tiny --format raw").await.well();
    cloud.haar(&format!("image import tiny {file}")).await.well();
    assert_eq!(cloud.haar("image show tiny -o json").await.json()["state"], "ready");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_who_must_act() {
    let cloud = Cloud::start().await;
    let home = cloud.folder.path().to_owned();
    assert_eq!(cloud.haar("guest show nobody").await.code, 4);
    assert_eq!(cloud.haar("guest create web --image nobody").await.code, 4);
    assert_eq!(cloud.haar("guest create Web --image x").await.code, 3);
    assert_eq!(cloud.haar("flavor create tiny --cpu 1 --memory 1m --disk 1g").await.code, 3);
    assert_eq!(cloud.haar("flavor create").await.code, 2);
    let said = cloud.haar("flavor create big --cpu 1 --memory 1g --disk 10").await;
    assert!(said.code == 2 && said.err.contains("10G"), "{said:?}");
    let stranger = [("HAAR_URL", cloud.url.as_str()), ("HAAR_TOKEN", "wrong")];
    assert_eq!(haar(&home, &stranger, &["guest", "list"], "").await.code, 5);
    assert_eq!(haar(&home, &[], &["guest", "list"], "").await.code, 2);
    let url = cloud.url.clone();
    cloud.stop().await;
    let said = haar(&home, &[("HAAR_URL", &url), ("HAAR_TOKEN", "x")], &["guest", "list"], "").await;
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.err.contains("is it running?"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_cloud_needs_no_more_words() {
    let cloud = Cloud::start().await;
    let home = tempfile::tempdir().unwrap();
    let secret = cloud.haar("token create ana --role admin").await.well();
    let words = ["login", "--url", &cloud.url];
    let refused = haar(home.path(), &[], &words, "wrong\n").await;
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(!home.path().join(".config/haar/credentials.toml").exists());
    let saved = haar(home.path(), &[], &words, &secret).await.well();
    assert!(saved.contains("as ana (admin)"), "{saved}");
    assert!(haar(home.path(), &[], &["flavor", "list"], "").await.well().contains("small"));

    cloud.haar("token delete ana").await.well();
    assert_eq!(haar(home.path(), &[], &["flavor", "list"], "").await.code, 5);
    cloud.stop().await;
}
