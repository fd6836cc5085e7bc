//! Events: what changes is told in order, and following goes on where it stopped.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::cloud::{Cloud, LIMIT, uuid};

/// A stream of events being read.
struct Followed {
    body: Incoming,
    text: String,
}

impl Followed {
    async fn since(cloud: &Cloud, since: &str) -> Followed {
        let response = cloud.ask("GET", &format!("/v1/events?since={since}")).open().await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Followed { body: response.into_body(), text: String::new() }
    }

    /// The next event: its id, its name, its data. None when the stream has ended.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let message: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = message.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                    line.unwrap_or_default().to_owned()
                };
                if message.starts_with(':') {
                    continue;
                }
                return Some((field("id"), field("event"), serde_json::from_str(&field("data")).unwrap()));
            }
            let frame = tokio::time::timeout(LIMIT, self.body.frame()).await.expect("an event in time")?;
            self.text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    }
}

async fn network(cloud: &Cloud, number: u128) -> Value {
    cloud.put(&format!("/v1/networks/{}", uuid(number)), json!({"name": format!("n-{number}")})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_as_their_paths_show_them() {
    let cloud = Cloud::start().await;
    let since = cloud.get("/v1/networks").await["revision"].as_str().unwrap().to_owned();
    let mut followed = Followed::since(&cloud, &since).await;
    let made = network(&cloud, 1).await;
    let (id, name, data) = followed.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &data["change"], &data["kind"]),
        ("change", &json!("created"), &json!("network"))
    );
    assert_eq!(data["object"], made);
    assert_eq!(id, format!("{}.0", data["revision"].as_str().unwrap()));
    let path = format!("/v1/networks/{}", uuid(1));
    cloud.ask("PATCH", &path).json(&json!({"nat": true})).send().await;
    let (_, _, data) = followed.next().await.unwrap();
    assert_eq!((&data["change"], &data["object"]["nat"]), (&json!("changed"), &json!(true)));
    assert_eq!(data["fields"], json!(["nat"]), "what is otherwise than before is named: {data:#}");
    cloud.ask("DELETE", &path).send().await;
    let (_, _, data) = followed.next().await.unwrap();
    assert_eq!(
        (&data["change"], &data["object"], &data["id"]),
        (&json!("deleted"), &Value::Null, &json!(uuid(1)))
    );
    assert_eq!(data["name"], "n-1", "what is gone has its name still");
    let at: haar_api::v1::Time = data["at"].as_str().unwrap().parse().unwrap();
    assert!(made["created_at"].as_str().unwrap().parse::<haar_api::v1::Time>().unwrap() <= at);
    cloud.stop().await;
    assert!(followed.next().await.is_none(), "the stream ends with the controller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_to_follow_ends_after_what_there_is() {
    let cloud = Cloud::start().await;
    let since = cloud.get("/v1/networks").await["revision"].as_str().unwrap().to_owned();
    network(&cloud, 1).await;
    network(&cloud, 2).await;
    let mut followed = Followed::since(&cloud, &format!("{since}&follow=false")).await;
    for expected in ["n-1", "n-2"] {
        assert_eq!(followed.next().await.unwrap().2["name"], expected);
    }
    assert_eq!(followed.next().await.unwrap().1, "end");
    assert!(followed.next().await.is_none());
    let newest = cloud.get("/v1/networks").await["revision"].as_str().unwrap().to_owned();
    let mut followed = Followed::since(&cloud, &format!("{newest}&follow=false")).await;
    assert_eq!(followed.next().await.unwrap().1, "end");
    assert!(followed.next().await.is_none());
    cloud.stop().await;
}

/// What is kept and sent of events has a bound in bytes, whatever objects hold.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_large_object_leaves_it_to_its_path() {
    let cloud = Cloud::start().await;
    let mut followed = Followed::since(&cloud, "1.0").await;
    let rules: Vec<_> = (1..=256)
        .map(|port| {
            json!({"source": "10.0.0.0/8", "protocol": "tcp", "portStart": port, "portEnd": port, "action": "accept"})
        })
        .collect();
    let path = format!("/v1/fwgroups/{}", uuid(1));
    let made = cloud.put(&path, json!({"name": "large", "rules": rules})).await;
    assert!(made.to_string().len() > 16 << 10, "the object is not large: {made:#}");
    network(&cloud, 2).await;
    let (_, _, data) = followed.next().await.unwrap();
    assert_eq!(
        (&data["id"], &data["change"], &data["object"]),
        (&json!(uuid(1)), &json!("created"), &Value::Null)
    );
    assert_eq!(followed.next().await.unwrap().2["object"]["name"], "n-2");
    assert_eq!(cloud.get(&path).await, made);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn following_goes_on_over_a_restart_without_gap_or_repeat() {
    let cloud = Cloud::start().await;
    let mut followed = Followed::since(&cloud, "1.0").await;
    network(&cloud, 1).await;
    network(&cloud, 2).await;
    let (first, _, _) = followed.next().await.unwrap();
    let cloud = cloud.restart().await;
    network(&cloud, 3).await;
    let mut followed = Followed::since(&cloud, &first).await;
    for expected in ["n-2", "n-3"] {
        assert_eq!(followed.next().await.unwrap().2["object"]["name"], expected);
    }
    // The browser's way of coming back goes before the address it came with.
    let response = cloud.ask("GET", "/v1/events?since=1.0").header("last-event-id", &first).open().await;
    let mut followed = Followed { body: response.into_body(), text: String::new() };
    assert_eq!(followed.next().await.unwrap().2["object"]["name"], "n-2");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_no_longer_kept_asks_for_a_resync() {
    let cloud = Cloud::start_with(|config| config.events_kept = 4).await;
    for number in 1..=6 {
        network(&cloud, number).await;
    }
    for since in ["1.1", "0.1", "9.1", "1.999"] {
        let reply = cloud.ask("GET", &format!("/v1/events?since={since}")).send().await;
        assert_eq!((reply.status, reply.code().as_str()), (410, "resync"), "{since}");
    }
    let last = cloud.get("/v1/networks?limit=1").await["revision"].as_str().unwrap().to_owned();
    let mut followed = Followed::since(&cloud, &last).await;
    network(&cloud, 7).await;
    assert_eq!(followed.next().await.unwrap().2["object"]["name"], "n-7");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_commit_was_in_doubt_is_told_too() {
    let faults = haar_store::Faults::none();
    let failing = haar_store::FailingDisk::new(haar_store::MemoryDisk::new(), faults.clone());
    let cloud = Cloud::start_with(|config| config.disk = Some(Box::new(failing))).await;
    let mut followed = Followed::since(&cloud, "1.0").await;
    network(&cloud, 1).await;
    faults.push(Some(haar_store::Fault::AfterEffect));
    let path = format!("/v1/networks/{}", uuid(2));
    assert_eq!(cloud.ask("PUT", &path).json(&json!({"name": "n-2"})).send().await.status, 503);
    network(&cloud, 3).await;
    for expected in ["n-1", "n-2", "n-3"] {
        assert_eq!(followed.next().await.unwrap().2["object"]["name"], expected);
    }
    cloud.stop().await;
}
