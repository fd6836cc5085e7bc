//! Every endpoint of the table: routed, with a permission, and answering 401 and 403 as it must.

use haar_api::endpoint::Access;
use haar_api::table::ENDPOINTS;
use serde_json::Value;

use super::agent::Agent;
use super::cloud::{Ask, Cloud, uuid};

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_is_routed_and_asks_for_its_permission() {
    let cloud = Cloud::start().await;
    let agent = Agent::join(&cloud, 1).await;
    for row in ENDPOINTS {
        let path = row.path.replace("{ref}", &uuid(77)).replace("{id}", &uuid(77));
        let path = path.replace("{sha256}", &"a".repeat(64)).replace("{ticket}", "t");
        let ask = || Ask::new(cloud.addr, row.method, &path);
        let name = row.operation;
        if row.access == Access::Open {
            assert_eq!(ask().send().await.status, 200, "{name}");
            continue;
        }
        let reply = ask().send().await;
        assert_eq!((reply.status, reply.code().as_str()), (401, "unauthorized"), "{name}");
        assert_eq!(reply.header("www-authenticate"), "Bearer", "{name}");
        let reply = ask().token("haar_0123").send().await;
        assert_eq!(reply.code(), "unauthorized", "{name}");
        let wrong = match row.access {
            Access::Admin => Some(agent.token.as_str()),
            Access::AgentSelf => Some(cloud.admin.as_str()),
            _ => None,
        };
        if let Some(token) = wrong {
            let reply = ask().token(token).send().await;
            assert_eq!((reply.status, reply.code().as_str()), (403, "forbidden"), "{name}");
        }
        let right = if row.access == Access::AgentSelf { &agent.token } else { &cloud.admin };
        let response = ask().token(right).open().await;
        let status = response.status().as_u16();
        assert!(![401, 403, 405, 500].contains(&status), "{name} answers {status}");
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_token_is_refused_and_the_last_admin_stays() {
    let cloud = Cloud::start().await;
    let body = serde_json::json!({"name": "second", "role": "admin"});
    let made = cloud.ask("POST", "/v1/tokens").json(&body).send().await.json();
    let secret = made["secret"].as_str().unwrap();
    let whoami = || Ask::new(cloud.addr, "GET", "/v1/whoami").token(secret);
    assert_eq!(whoami().send().await.json()["name"], "second");
    assert_eq!(cloud.ask("DELETE", "/v1/tokens/second").send().await.status, 204);
    assert_eq!(whoami().send().await.code(), "unauthorized");
    assert!(cloud.ask("DELETE", "/v1/tokens/admin").send().await.status >= 400);
    let list = cloud.ask("GET", "/v1/tokens").send().await;
    assert!(!list.text().contains("hash") && !list.text().contains(&cloud.admin), "{}", list.text());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_say_what_they_are() {
    let cloud = Cloud::start().await;
    let open = |path: &'static str| Ask::new(cloud.addr, "GET", path).send();
    assert_eq!(open("/healthz").await.text(), "ok\n");
    assert_eq!(open("/readyz").await.text(), "ready\n");
    let metrics = open("/metrics").await.text();
    for gauge in
        ["haar_queue_depth", "haar_commit_seconds", "haar_jobs_open", "haar_store_flushes", "haar_revision"]
    {
        assert!(metrics.contains(gauge), "{gauge} in {metrics}");
    }
    let document: Value = open("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(open("/").await.text().contains("<h1>Haar</h1>"));
    cloud.stop().await;
}
