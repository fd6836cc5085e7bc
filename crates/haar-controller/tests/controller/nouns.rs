//! What every noun can: made, shown, changed, listed by pages, removed when nothing uses it.

use serde_json::{Value, json};

use super::cloud::{Cloud, uuid};

#[tokio::test(flavor = "multi_thread")]
async fn every_noun_is_made_shown_changed_and_removed() {
    let cloud = Cloud::start().await;
    let network = json!({"name": "n"});
    for (noun, body, patch) in [
        ("hypervisors", json!({"name": "h", "ip": "10.0.0.1"}), json!({"cordon": "disk swap"})),
        ("flavors", json!({"name": "f", "cpu": 1, "memory": 64, "disk": 1}), json!({"cpu": 2})),
        ("images", json!({"name": "i", "format": "raw"}), json!({"metadata": {"a": "b"}})),
        ("networks", network.clone(), json!({"nat": true})),
        (
            "subnets",
            json!({"name": "s", "network": "default", "cidr": "10.5.0.0/24"}),
            json!({"dns": ["10.5.0.2"]}),
        ),
        (
            "fwgroups",
            json!({"name": "g", "rules": [{"protocol": "tcp", "portStart": 80, "group": "g"}]}),
            json!({"rules": []}),
        ),
    ] {
        let path = format!("/v1/{noun}/{}", uuid(50));
        let made = cloud.put(&path, body.clone()).await;
        let again = cloud.ask("PUT", &path).json(&body).send().await;
        assert_eq!(
            (again.status, again.json()["revision"].clone()),
            (200, made["revision"].clone()),
            "{noun}"
        );
        let name = body["name"].as_str().unwrap();
        let by_name = cloud.ask("GET", &format!("/v1/{noun}/{name}")).send().await;
        assert_eq!(by_name.json(), made, "{noun}");
        assert_eq!(by_name.header("etag"), format!("\"{}\"", made["revision"]), "{noun}");
        let changed = cloud.ask("PATCH", &path).json(&patch).send().await;
        assert_eq!(changed.status, 200, "{noun}: {}", changed.text());
        let key = patch.as_object().unwrap().keys().next().unwrap();
        assert_eq!(changed.json()[key], patch[key], "{noun}");
        let stale =
            cloud.ask("PATCH", &path).header("if-match", by_name.header("etag")).json(&patch).send().await;
        assert_eq!((stale.status, stale.code().as_str()), (412, "stale_revision"), "{noun}");
        let stale = cloud.ask("DELETE", &path).header("if-match", by_name.header("etag")).send().await;
        assert_eq!(stale.code(), "stale_revision", "{noun}");
        let fresh = changed.header("etag").to_owned();
        assert_eq!(cloud.ask("DELETE", &path).header("if-match", &fresh).send().await.status, 204, "{noun}");
        assert_eq!(cloud.ask("GET", &path).send().await.code(), "not_found", "{noun}");
    }
    let in_use = cloud.ask("DELETE", "/v1/networks/default").send().await;
    assert_eq!((in_use.status, in_use.code().as_str()), (409, "in_use"));
    assert!(in_use.text().contains("subnet `default`"), "{}", in_use.text());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_page_by_page_and_can_be_narrowed() {
    let cloud = Cloud::start().await;
    for number in 1..=7_u64 {
        let body =
            json!({"name": format!("n-{number}"), "project": if number % 2 == 0 { "even" } else { "odd" }});
        cloud.put(&format!("/v1/networks/{}", uuid(u128::from(number))), body).await;
    }
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = cloud.get(&format!("/v1/networks?limit=3{cursor}")).await;
        assert!(page["revision"].as_str().unwrap().starts_with("1."));
        names.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    names.retain(|name| name != "default");
    assert_eq!(names, (1..=7).map(|number| format!("n-{number}")).collect::<Vec<_>>());
    let count = |page: Value| page["items"].as_array().unwrap().len();
    assert_eq!(count(cloud.get("/v1/networks?project=even").await), 3);
    assert_eq!(count(cloud.get("/v1/networks?name=n-4").await), 1);
    assert_eq!(count(cloud.get("/v1/networks?name=n-4&project=odd").await), 0);
    assert_eq!(count(cloud.get("/v1/subnets?network=default").await), 1);
    let exactly = cloud.get("/v1/networks?limit=8").await;
    assert_eq!(exactly["next_cursor"], Value::Null);
    assert_eq!(cloud.ask("GET", "/v1/networks/n-4").send().await.code(), "not_found");
    assert_eq!(cloud.get("/v1/networks/n-4?project=even").await["id"], uuid(4));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_first_guest_needs_is_there_from_the_start() {
    let cloud = Cloud::start().await;
    let subnet = cloud.get("/v1/subnets/default").await;
    assert_eq!((&subnet["cidr"], &subnet["gateway"]), (&json!("10.77.0.0/24"), &json!("10.77.0.1")));
    for flavor in ["tiny", "small", "medium", "large"] {
        assert!(cloud.get(&format!("/v1/flavors/{flavor}")).await["cpu"].as_u64().unwrap() > 0);
    }
    let group = cloud.get("/v1/fwgroups/default").await;
    assert_eq!((&group["enforced"], &group["rules"][2]["group_name"]), (&json!(false), &json!("default")));
    let status = cloud.get("/v1/status").await;
    assert_eq!(status["jobs"]["running"], 0);
    let config =
        cloud.ask("PATCH", "/v1/config").json(&json!({"values": {"overcommit.cpu": "2.0", "site": "x"}}));
    assert_eq!(config.send().await.json()["values"], json!({"overcommit.cpu": "2.0", "site": "x"}));
    let config =
        cloud.ask("PATCH", "/v1/config").json(&json!({"values": {"site": null}})).send().await.json();
    assert_eq!(config["values"], json!({"overcommit.cpu": "2.0"}));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_are_all_kept() {
    let cloud = Cloud::start().await;
    let path = format!("/v1/flavors/{}", uuid(50));
    cloud.put(&path, json!({"name": "f", "cpu": 1, "memory": 64, "disk": 1})).await;
    let patches =
        [json!({"cpu": 3}), json!({"memory": 65}), json!({"disk": 7}), json!({"metadata": {"a": "b"}})];
    let asked = patches.map(|patch| tokio::spawn(cloud.ask("PATCH", &path).json(&patch).send()));
    for reply in asked {
        let reply = reply.await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let flavor = cloud.get(&path).await;
    assert_eq!((&flavor["cpu"], &flavor["memory"], &flavor["disk"]), (&json!(3), &json!(65), &json!(7)));
    assert_eq!(flavor["metadata"], json!({"a": "b"}));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_holds_to_its_preconditions() {
    let cloud = Cloud::start().await;
    let path = format!("/v1/networks/{}", uuid(50));
    let body = json!({"name": "n"});
    let put =
        |name: &'static str, value: &str| cloud.ask("PUT", &path).header(name, value).json(&body).send();
    for value in ["\"7\"", "*"] {
        let reply = put("if-match", value).await;
        assert_eq!((reply.status, reply.code().as_str()), (412, "stale_revision"), "{value}");
    }
    assert_eq!(put("if-match", "x").await.code(), "bad_query");
    let made = put("if-none-match", "*").await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(put("if-none-match", "*").await.code(), "stale_revision");
    assert_eq!(put("if-match", "\"1\"").await.code(), "stale_revision");
    for value in [made.header("etag"), "*"] {
        assert_eq!(put("if-match", value).await.status, 200, "{value}");
    }
    cloud.stop().await;
}
