//! What is wrong is refused with a code, a cause and the next step; nothing breaks and nothing is kept.

use serde_json::{Value, json};

use super::cloud::{Ask, Cloud, guest, uuid};

/// Sends a body where it is wrong; the problem's code and message.
async fn refused(cloud: &Cloud, method: &str, path: &str, body: &Value) -> (u16, String, String) {
    let reply = cloud.ask(method, path).json(body).send().await;
    (reply.status, reply.code(), reply.json()["message"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_is_told_where() {
    let cloud = Cloud::start().await;
    for (body, word) in [
        ("{\"name\": \"a\",\n  oops}", "line 2 column 3"),
        ("", "line 1"),
        ("[1, 2", "takes an object"),
        ("{\"name\": \"a\"} x", "line 1"),
        ("{\"name\": 7, \"cpu\": 1, \"memory\": 64, \"disk\": 1}", "string"),
        ("{\"name\": \"a\", \"cpu\": \"two\", \"memory\": 64, \"disk\": 1}", "u32"),
        ("{\"name\": \"a\", \"cpu\": -1, \"memory\": 64, \"disk\": 1}", "u32"),
        ("{\"name\": \"a\", \"cpu\": 1.5, \"memory\": 64, \"disk\": 1}", "u32"),
        ("{\"name\": \"a\", \"cpu\": 1, \"memory\": 99999999999999999999, \"disk\": 1}", "u64"),
        ("{\"cpu\": 1, \"memory\": 64, \"disk\": 1}", "name"),
        ("null", "struct"),
        ("[]", "takes an object"),
        ("[\"a\", null, {}, null, 1, 64, 1]", "takes an object"),
    ] {
        let reply = cloud.ask("POST", "/v1/flavors").raw("application/json", body).send().await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad_json"), "{body}");
        assert!(reply.text().contains(word), "{word} in {}", reply.text());
    }
    let deep = "[".repeat(100_000);
    let reply = cloud.ask("POST", "/v1/flavors").raw("application/json", deep).send().await;
    assert_eq!(reply.code(), "bad_json");
    let reply = cloud.ask("POST", "/v1/flavors").raw("application/json", vec![0xff, 0xfe]).send().await;
    assert_eq!(reply.code(), "bad_json");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_place_of_an_object_is_refused_at_every_depth() {
    let cloud = Cloud::start().await;
    let rule = json!({"source": "10.0.0.0/8", "portStart": 22, "protocol": "tcp"});
    let listed = json!(["10.0.0.0/8", null, null, 22, 22, "tcp", "accept"]);
    for (path, body, at) in [
        ("/v1/hypervisors", json!({"name": "h", "overcommit": [1.0, 1.0, 1.0]}), "overcommit"),
        ("/v1/fwgroups", json!({"name": "g", "rules": [rule, listed]}), "rules[1]"),
    ] {
        let reply = cloud.ask("POST", path).json(&body).send().await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad_json"), "{body}: {}", reply.text());
        assert_eq!(reply.json()["fields"], json!([at]), "{}", reply.text());
    }
    let reply = cloud.ask("POST", "/v1/fwgroups").json(&json!({"name": "g", "rules": [rule]})).send().await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_or_parameter_that_is_not_known_is_named() {
    let cloud = Cloud::start().await;
    let body = json!({"name": "a", "cpu": 1, "memory": 64, "disk": 1, "colour": "red"});
    let reply = cloud.ask("POST", "/v1/flavors").json(&body).send().await;
    assert_eq!(reply.code(), "unknown_field");
    assert_eq!(reply.json()["fields"], json!(["colour"]));
    let reply = cloud.ask("GET", "/v1/flavors?colour=red").send().await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "unknown_field"));
    for path in [
        "/v1/flavors?limit=0",
        "/v1/flavors?limit=1001",
        "/v1/flavors?limit=x",
        "/v1/flavors?cursor=x",
        "/v1/guests?state=flying",
        "/v1/jobs?status=flying",
        "/v1/events?since=yesterday",
    ] {
        assert_eq!(cloud.ask("GET", path).send().await.code(), "bad_query", "{path}");
    }
    let reply = cloud.ask("POST", "/v1/guests?wait=1h").json(&guest("a")).send().await;
    assert_eq!(reply.code(), "bad_query");
    let reply = cloud.ask("PATCH", "/v1/flavors/tiny").header("if-match", "x").json(&json!({})).send().await;
    assert_eq!(reply.code(), "bad_query");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_and_ids_are_refused() {
    let cloud = Cloud::start().await;
    for name in ["", "Web", "a b", "-a", "a_b", "ü", &"a".repeat(64), &uuid(3), "../etc"] {
        let body = json!({"name": name, "cpu": 1, "memory": 64, "disk": 1});
        let (status, code, _) = refused(&cloud, "POST", "/v1/flavors", &body).await;
        assert_eq!((status, code.as_str()), (400, "bad_name"), "{name}");
    }
    let body = json!({"name": "ok", "cpu": 1, "memory": 64, "disk": 1});
    let (status, code, _) = refused(&cloud, "PUT", "/v1/flavors/ok", &body).await;
    assert_eq!((status, code.as_str()), (400, "bad_id"));
    let nil = "/v1/flavors/00000000-0000-0000-0000-000000000000";
    assert_eq!(refused(&cloud, "PUT", nil, &body).await.1, "bad_id");
    assert_eq!(cloud.ask("GET", "/v1/jobs/x").send().await.code(), "bad_id");
    assert_eq!(cloud.ask("GET", "/v1/flavors/No!").send().await.code(), "bad_name");
    assert_eq!(cloud.ask("GET", "/v1/flavors/%ff").send().await.status, 400);
    assert_eq!(cloud.ask("GET", "/v1/flavors/none").send().await.code(), "not_found");
    assert_eq!(cloud.ask("GET", &format!("/v1/flavors/{}", uuid(5))).send().await.code(), "not_found");
    let mut body = guest("web");
    body["flavor"] = json!("none");
    let (status, code, message) = refused(&cloud, "POST", "/v1/guests", &body).await;
    assert_eq!((status, code.as_str()), (404, "not_found"));
    assert_eq!(message, "there is no flavor `none`; see  haar flavor list");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_addresses_that_cannot_be_are_refused() {
    let cloud = Cloud::start().await;
    let subnet = |change: Value| {
        let mut body = json!({"name": "s", "network": "default", "cidr": "10.9.0.0/24"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    for (change, code, word) in [
        (json!({"cidr": "10.9.0.1/24"}), "bad_cidr", "did you mean 10.9.0.0/24"),
        (json!({"cidr": "10.9.0.0/33"}), "bad_cidr", "not a CIDR"),
        (json!({"cidr": "fd00::1/64"}), "bad_cidr", "did you mean fd00::/64"),
        (json!({"cidr": "fd00::/129"}), "bad_cidr", "not a CIDR"),
        (json!({"cidr": "ten"}), "bad_cidr", "not a CIDR"),
        (json!({"cidr": "0.0.0.0/0"}), "bad_subnet", "do not know"),
        (json!({"cidr": "127.0.0.0/8"}), "bad_subnet", "loopback"),
        (json!({"cidr": "224.0.0.0/8"}), "bad_subnet", "multicast"),
        (json!({"cidr": "::/0"}), "bad_subnet", "loopback"),
        (json!({"cidr": "fe80::/64"}), "bad_subnet", "link-local"),
        (json!({"gateway": "10.8.0.1"}), "bad_subnet", "outside"),
        (json!({"start": "10.8.0.1"}), "bad_subnet", "outside"),
        (json!({"start": "10.9.0.9", "end": "10.9.0.3"}), "bad_subnet", "after"),
        (json!({"gateway": "10.9.0.255"}), "bad_subnet", "broadcast"),
        (json!({"cidr": "10.77.0.0/25"}), "bad_subnet", "overlaps"),
        (json!({"gateway": "x"}), "bad_field", "not an IP address"),
        (json!({"dns": ["x"]}), "bad_field", "not an IP address"),
    ] {
        let body = subnet(change);
        let (status, found, message) = refused(&cloud, "POST", "/v1/subnets", &body).await;
        assert_eq!((status, found.as_str()), (400, code), "{body}: {message}");
        assert!(message.contains(word), "{word} in {message}");
    }
    assert_eq!(cloud.get("/v1/subnets").await["items"].as_array().unwrap().len(), 1);
    cloud.image().await;
    let mut body = guest("web");
    body["mac"] = json!("03:00:00:00:00:01");
    assert_eq!(refused(&cloud, "POST", "/v1/guests", &body).await.1, "bad_mac");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_that_clears_nothing_is_refused() {
    let cloud = Cloud::start().await;
    for (path, field) in [
        ("/v1/networks/default", "name"),
        ("/v1/networks/default", "nat"),
        ("/v1/subnets/default", "dns"),
        ("/v1/flavors/tiny", "cpu"),
        ("/v1/fwgroups/default", "rules"),
    ] {
        let before = cloud.get(path).await;
        let (status, code, message) = refused(&cloud, "PATCH", path, &json!({field: null})).await;
        assert_eq!((status, code.as_str()), (400, "bad_json"), "{path} {field}");
        assert!(message.contains("null"), "{message}");
        assert_eq!(cloud.get(path).await, before);
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_and_absurd_sizes_are_refused() {
    let cloud = Cloud::start().await;
    for (cpu, memory, disk) in [
        (0, 64, 1),
        (1025, 64, 1),
        (1, 0, 1),
        (1, 1, 1),
        (1, u64::MAX >> 8, 1),
        (1, 64, 0),
        (1, 64, u64::MAX >> 8),
    ] {
        let body = json!({"name": "f", "cpu": cpu, "memory": memory, "disk": disk});
        let (status, code, message) = refused(&cloud, "POST", "/v1/flavors", &body).await;
        assert_eq!((status, code.as_str()), (400, "bad_resources"), "{body}: {message}");
    }
    for (key, value) in [("overcommit.cpu", "0"), ("liveness.ttl_ms", "1"), ("a b", "x")] {
        let reply = cloud.ask("PATCH", "/v1/config").json(&json!({"values": {key: value}})).send().await;
        assert_eq!(reply.code(), "bad_setting", "{key}");
    }
    let mut body = guest("web");
    body["user_data"] = json!("x".repeat((64 << 10) + 1));
    assert_eq!(refused(&cloud, "POST", "/v1/guests", &body).await.1, "bad_field");
    let body = json!({"name": "h", "overcommit": {"cpu": 0.0, "memory": 1.0, "disk": 1.0}});
    assert_eq!(refused(&cloud, "POST", "/v1/hypervisors", &body).await.1, "bad_field");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_wrong_in_themselves_get_problems_too() {
    let cloud = Cloud::start().await;
    let body = json!({"name": "a", "cpu": 1, "memory": 64, "disk": 1}).to_string();
    let reply = cloud.ask("GET", "/v1/nothing").send().await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "not_found_route"));
    assert_eq!(Ask::new(cloud.addr, "GET", "/nothing").send().await.code(), "not_found_route");
    let reply = cloud.ask("DELETE", "/v1/flavors").send().await;
    assert_eq!((reply.status, reply.code().as_str()), (405, "method_not_allowed"));
    let allow = reply.header("allow");
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    let reply = cloud.ask("POST", "/v1/flavors").raw("text/plain", body.clone()).send().await;
    assert_eq!((reply.status, reply.code().as_str()), (415, "unsupported_media_type"));
    let large = format!("{{\"name\": \"{}\"}}", "a".repeat(2 << 20));
    let reply = cloud.ask("POST", "/v1/flavors").raw("application/json", large).send().await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"));
    let reply = cloud.ask("GET", "/v1/flavors").header("x-long", &"a".repeat(40 << 10)).send().await;
    assert_eq!((reply.status, reply.code().as_str()), (431, "header_too_large"));
    let reply = cloud.ask("POST", "/v1/flavors").raw("Application/JSON; charset=utf-8", body).send().await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sane_request_id_is_kept_and_another_replaced() {
    let cloud = Cloud::start().await;
    let ask = |id: &'static str| cloud.ask("GET", "/v1/flavors").header("x-request-id", id).send();
    assert_eq!(ask("req-7.a_B").await.header("x-request-id"), "req-7.a_B");
    for insane in ["a b", "x\"y", "{}"] {
        let id = ask(insane).await.header("x-request-id").to_owned();
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    cloud.stop().await;
}
