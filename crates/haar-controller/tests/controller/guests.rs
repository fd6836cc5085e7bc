//! A guest's life over HTTP, with an agent that does what it is told.

use serde_json::json;

use super::agent::{Agent, Outcome};
use super::cloud::{Cloud, guest, uuid};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_made_stopped_started_and_removed_and_holds_nothing_then() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let _work = agent.work(Outcome::Settled);
    let path = format!("/v1/guests/{}", uuid(100));

    let reply = cloud.ask("PUT", &format!("{path}?wait=60s")).json(&guest("web")).send().await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let made = reply.json();
    assert_eq!(made["state"], "running");
    assert_eq!(made["hypervisor"], agent.id);
    assert_eq!(made["hypervisor_name"], "host-1");
    assert_eq!(made["flavor_name"], "tiny");
    assert_eq!(made["ip"], "10.77.0.2");
    assert_eq!(reply.header("etag"), format!("\"{}\"", made["revision"]));

    for (action, state) in
        [("shutdown", "stopped"), ("start", "running"), ("reboot", "running"), ("poweroff", "stopped")]
    {
        let reply = cloud.ask("POST", &format!("/v1/guests/web/{action}?wait=60s")).send().await;
        assert_eq!(reply.status, 200, "{action}: {}", reply.text());
        assert_eq!(reply.json()["state"], state, "{action}");
    }

    let used = cloud.get("/v1/capacity").await;
    assert_eq!(used["used"], json!({"cpu": 1, "memory": 256, "disk": 1024}));
    assert_eq!(used["by_subnet"][0]["used"], 1);
    let reply = cloud.ask("DELETE", "/v1/guests/web?wait=60s").send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["status"], "done");
    assert_eq!(cloud.ask("GET", &path).send().await.code(), "not_found");
    let used = cloud.get("/v1/capacity").await;
    assert_eq!(used["used"], json!({"cpu": 0, "memory": 0, "disk": 0}));
    assert_eq!(used["by_subnet"][0]["used"], 0);
    assert_eq!(cloud.get("/v1/check").await["faults"], json!([]));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_wait_the_answer_is_202_and_says_where_the_job_is() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let path = format!("/v1/guests/{}", uuid(100));
    let reply = cloud.ask("PUT", &path).json(&guest("web")).send().await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let job = reply.header("location").to_owned();
    assert_eq!(job, format!("/v1/jobs/{}", reply.json()["job"].as_str().unwrap()));
    assert_eq!(cloud.get(&job).await["status"], "new");

    // The time is over before the agent does anything.
    let reply = cloud.ask("PUT", &format!("{path}?wait=10ms")).json(&guest("web")).send().await;
    assert_eq!((reply.status, reply.header("location")), (202, job.as_str()));

    let _work = agent.work(Outcome::Settled);
    let done = cloud.get(&format!("{job}?wait=60s")).await;
    assert_eq!(done["status"], "done", "{done:#}");
    assert!(done["steps"].as_array().unwrap().iter().all(|step| step["state"] == "done"), "{done:#}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_only_its_waiting() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let path = format!("/v1/guests/{}?wait=600s", uuid(100));
    let waiting = tokio::spawn(cloud.ask("PUT", &path).json(&guest("web")).send());
    cloud.until("/v1/guests/web", |guest| guest["state"] == "creating").await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    let _work = agent.work(Outcome::Settled);
    cloud.until("/v1/guests/web", |guest| guest["state"] == "running").await;
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_told_with_its_steps_and_can_be_tried_again() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let work = agent.work(Outcome::NoSpace);
    let path = format!("/v1/guests/{}?wait=60s", uuid(100));
    let reply = cloud.ask("PUT", &path).json(&guest("db")).send().await;
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert_eq!(reply.code(), "job_failed");
    let problem = reply.json();
    assert!(problem["message"].as_str().unwrap().contains("no space left"), "{problem:#}");
    assert_eq!(problem["job"]["status"], "error");
    let steps = problem["job"]["steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step["stage"] == "disks" && step["state"] == "failed"), "{problem:#}");
    drop(work);

    let _work = agent.work(Outcome::Settled);
    cloud.until("/v1/guests/db", |guest| guest["hypervisor"].is_null()).await;
    let retry = format!("/v1/jobs/{}/retry?wait=60s", problem["job"]["id"].as_str().unwrap());
    let reply = cloud.ask("POST", &retry).send().await;
    assert_eq!((reply.status, reply.json()["status"].as_str()), (200, Some("done")), "{}", reply.text());
    assert_eq!(cloud.get("/v1/guests/db").await["state"], "running");
    cloud.stop().await;
}

/// An action is not made from its key; who counts on one hears so instead of rebooting twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_refuses_an_idempotency_key_and_if_match_keeps_a_retry_from_doing_it_twice() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let _work = agent.work(Outcome::Settled);
    let path = format!("/v1/guests/{}?wait=60s", uuid(100));
    let made = cloud.ask("PUT", &path).json(&guest("web")).send().await.json();
    let retry = format!("/v1/jobs/{}/retry", made["job"].as_str().unwrap());
    for path in ["/v1/guests/web/reboot?wait=60s", &retry] {
        let reply = cloud.ask("POST", path).header("idempotency-key", "k-1").send().await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad_query"), "{path}");
        assert_eq!(reply.json()["fields"], json!(["Idempotency-Key"]));
    }
    let same = cloud.get("/v1/guests/web").await;
    assert_eq!((&same["job"], &same["revision"]), (&made["job"], &made["revision"]));

    let revision = format!("\"{}\"", same["revision"]);
    let reboot = || cloud.ask("POST", "/v1/guests/web/reboot?wait=60s").header("if-match", &revision).send();
    assert_eq!(reboot().await.status, 200);
    let done = cloud.get("/v1/guests/web").await;
    assert_eq!(reboot().await.code(), "stale_revision");
    assert_eq!(cloud.get("/v1/guests/web").await["revision"], done["revision"]);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_names_every_cause() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let path = format!("/v1/guests/{}", uuid(100));
    let reply = cloud.ask("PUT", &path).json(&guest("web")).send().await;
    assert_eq!(reply.code(), "no_room");
    Agent::join(&cloud, 1).await;
    cloud.put(&format!("/v1/hypervisors/{}", uuid(2)), json!({"name": "never"})).await;
    cloud
        .put(
            &format!("/v1/flavors/{}", uuid(3)),
            json!({"name": "huge", "cpu": 64, "memory": 1 << 20, "disk": 1}),
        )
        .await;
    let body = json!({"name": "big", "flavor": "huge", "image": "tiny", "network": "default"});
    let reply = cloud.ask("PUT", &path).json(&body).send().await;
    assert_eq!(reply.code(), "no_room");
    let problem = reply.json();
    let causes: Vec<_> =
        problem["reasons"].as_array().unwrap().iter().map(|reason| &reason["cause"]).collect();
    assert!(causes.contains(&&json!("memory")) && causes.contains(&&json!("never_joined")), "{problem:#}");

    let dry = cloud.ask("POST", "/v1/candidates").json(&body).send().await;
    assert_eq!(dry.status, 200, "{}", dry.text());
    assert!(dry.json()["items"].as_array().unwrap().iter().all(|item| item["fits"] == false));
    let dry = cloud.ask("POST", "/v1/candidates").json(&guest("x")).send().await.json();
    assert_eq!(dry["items"][0]["hypervisor_name"], "host-1");
    assert_eq!(dry["items"][0]["fits"], true);
    assert_eq!(cloud.get("/v1/guests").await["items"], json!([]));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_guest_twice_is_one_guest_and_another_under_its_id_is_refused() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let _work = agent.work(Outcome::Settled);
    let path = format!("/v1/guests/{}?wait=60s", uuid(100));
    let first = cloud.ask("PUT", &path).json(&guest("web")).send().await;
    let second = cloud.ask("PUT", &path).json(&guest("web")).send().await;
    assert_eq!((first.status, second.status), (201, 200));
    assert_eq!(first.json()["revision"], second.json()["revision"]);
    let reply = cloud.ask("PUT", &path).json(&guest("other")).send().await;
    assert_eq!(reply.code(), "differs");
    assert_eq!(reply.json()["fields"], json!(["name"]));
    let reply = cloud.ask("PUT", &format!("/v1/guests/{}", uuid(101))).json(&guest("web")).send().await;
    assert_eq!(reply.code(), "name_taken");

    let post =
        || cloud.ask("POST", "/v1/guests?wait=60s").header("idempotency-key", "k-1").json(&guest("app"));
    let (first, second) = (post().send().await, post().send().await);
    assert_eq!((first.status, second.status), (201, 201), "{}", second.text());
    assert_eq!(first.json()["id"], second.json()["id"]);
    assert_eq!(cloud.get("/v1/guests").await["items"].as_array().unwrap().len(), 2);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_the_user_data_of_its_own_guests_only() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let (one, other) = (Agent::join(&cloud, 1).await, Agent::join(&cloud, 2).await);
    let mut body = guest("web");
    body["user_data"] = json!("#cloud-config\n{}");
    body["hypervisor"] = json!("host-1");
    let reply = cloud.ask("PUT", &format!("/v1/guests/{}", uuid(100))).json(&body).send().await;
    let sha256 = reply.json()["user_data"].as_str().unwrap().to_owned();
    assert!(!reply.text().contains("cloud-config"));
    let path = format!("/v1/agent/blobs/{sha256}");
    assert_eq!(one.ask("GET", &path).send().await.text(), "#cloud-config\n{}");
    assert_eq!(other.ask("GET", &path).send().await.status, 404);
    let image = format!("/v1/agent/images/{}/data", uuid(9));
    assert_eq!(other.ask("GET", &image).send().await.code(), "not_found");
    assert_eq!(one.ask("GET", &image).send().await.code(), "image_not_upload");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_waits_for_news_and_only_for_its_own() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let (one, other) = (Agent::join(&cloud, 1).await, Agent::join(&cloud, 2).await);
    let fence = one.poll(None).await.json()["fence"].as_str().unwrap().to_owned();
    let waiting = tokio::spawn({
        let (one, fence) = (one.clone(), fence.clone());
        async move { one.poll(Some(&fence)).await }
    });
    let mut body = guest("web");
    body["hypervisor"] = json!("host-1");
    cloud.ask("PUT", &format!("/v1/guests/{}", uuid(100))).json(&body).send().await;
    let feed = waiting.await.unwrap().json();
    assert_eq!(feed["guests"][0]["name"], "web");
    assert_eq!(feed["images"][0]["id"], uuid(9));
    assert!(feed["networks"][0]["bridge"].as_str().unwrap().starts_with("hr"));
    let reply = other.ask("GET", &format!("/v1/agent/feed?since={fence}")).send().await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_host_gives_up_every_guest_before_the_answer() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let ttl = json!({"values": {"liveness.ttl_ms": "1000"}});
    assert_eq!(cloud.ask("PATCH", "/v1/config").json(&ttl).send().await.status, 200);
    let agent = Agent::join(&cloud, 1).await;
    for number in 100..120 {
        let made =
            cloud.ask("PUT", &format!("/v1/guests/{}", uuid(number))).json(&guest(&format!("g{number}")));
        assert_eq!(made.send().await.status, 202);
    }
    let path = format!("/v1/hypervisors/{}/lost", agent.id);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let reply = cloud.ask("POST", &path).send().await;
        if reply.status == 200 {
            break;
        }
        assert_eq!(reply.code(), "still_alive");
        assert!(std::time::Instant::now() < deadline, "it never falls silent");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let guests = cloud.get("/v1/guests").await;
    let guests = guests["items"].as_array().unwrap();
    assert_eq!(guests.len(), 20);
    assert!(
        guests.iter().all(|guest| guest["state"] == "failed" && guest["hypervisor"].is_null()),
        "{guests:?}"
    );
    assert_eq!(cloud.get("/v1/capacity").await["by_subnet"][0]["used"], 0);
    assert_eq!(cloud.get("/v1/check").await["faults"], json!([]));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_refused_for_what_a_create_is_refused_for() {
    let cloud = Cloud::start().await;
    let agent = Agent::join(&cloud, 1).await;
    let empty = json!({"name": "tiny", "format": "qcow2"});
    cloud.put(&format!("/v1/images/{}", uuid(7)), empty).await;
    let tried = cloud.ask("POST", "/v1/candidates").json(&guest("web")).send().await;
    assert_eq!((tried.status, tried.code().as_str()), (409, "image_not_ready"));
    let made = cloud.ask("POST", "/v1/guests").json(&guest("web")).send().await;
    assert_eq!((made.status, made.code()), (tried.status, tried.code()));
    drop(agent);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_guest_that_is_gone_are_found_by_its_name() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let _at_work = agent.work(Outcome::Settled);
    let path = format!("/v1/guests/{}", uuid(100));
    assert_eq!(cloud.ask("PUT", &format!("{path}?wait=60s")).json(&guest("web")).send().await.status, 201);
    assert_eq!(cloud.ask("DELETE", &format!("{path}?wait=60s")).send().await.status, 200);
    for guest in ["web", &uuid(100)] {
        let jobs = cloud.get(&format!("/v1/jobs?guest={guest}")).await;
        let mut actions: Vec<_> =
            jobs["items"].as_array().unwrap().iter().map(|job| job["action"].as_str().unwrap()).collect();
        actions.sort_unstable();
        assert_eq!(actions, ["create", "delete"], "{guest}");
    }
    assert_eq!(cloud.get("/v1/jobs?guest=nobody").await["items"], json!([]));
    let bad = cloud.ask("GET", "/v1/jobs?guest=No!").send().await;
    assert_eq!(bad.code(), "bad_name");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_guest_is_made_anew_with_its_address_and_as_another_making() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let work = agent.work(Outcome::Settled);
    let path = format!("/v1/guests/{}", uuid(100));
    cloud.ask("PUT", &format!("{path}?wait=60s")).json(&guest("web")).send().await;
    let made = cloud.get(&path).await;
    // What is there is not made anew: it would lose its data.
    let refused = cloud.ask("POST", &format!("{path}/recreate")).send().await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    drop(work);

    let feed = agent.poll(None).await.json();
    let order = feed["guests"].as_array().unwrap().iter().find(|order| order["name"] == "web").unwrap();
    let mut report = agent.done(order, Outcome::Settled);
    report["phase"] = json!({"is": "lost", "message": "disk-0 is not there"});
    report["power"] = json!("absent");
    let reply = agent.report(&feed, vec![report], None).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let lost = cloud.get(&path).await;
    assert_eq!((&lost["state"], &lost["life"]), (&json!("lost"), &made["life"]), "{lost:#}");

    // Asked before the agent works again: it would say that all is well with the first making.
    let reply = cloud.ask("POST", &format!("{path}/recreate")).send().await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let _work = agent.work(Outcome::Settled);
    let done = cloud.get(&format!("{}?wait=60s", reply.header("location"))).await;
    assert_eq!(done["status"], "done", "{done:#}");
    let anew = cloud.get(&path).await;
    assert_eq!(anew["state"], "running", "{anew:#}");
    assert_ne!(anew["life"], made["life"]);
    for same in ["id", "ip", "mac", "hypervisor"] {
        assert_eq!(anew[same], made[same], "{same}");
    }
    assert_eq!(cloud.get("/v1/check").await["faults"], json!([]));
    cloud.stop().await;
}
