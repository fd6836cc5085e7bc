//! What nobody should send, and the wire's own quirks: redirects, 404s, escapes, limits.

use std::io::Read as _;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stub::Manner;
use crate::world::{G, H, World};

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_answered_as_the_originals_router_does() {
    let world = World::new().await;
    for (method, path) in [("GET", "/nothing"), ("PUT", "/guests"), ("GET", "/"), ("HEAD", "/guests")] {
        let answer = world.ask(method, path, "").await.is(404);
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8", "{path}");
        assert!(method == "HEAD" || answer.text() == include_str!("golden/no-such-page.txt"), "{path}");
    }
    for (path, to) in
        [("/guests/", "/guests"), ("//jobs?limit=2", "/jobs?limit=2"), ("/a/../metadata", "/metadata")]
    {
        let answer = world.get(path).await.is(301);
        assert_eq!(answer.headers["location"], to);
    }
    world.get(&format!("/guests/{G}/")).await.is(404);
    world.get("/%2e%2e/guests").await.is(301);
    world.get("/guests/%ff").await.is(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_escaped_as_the_originals_encoder_does() {
    let world = World::new().await;
    world.ask("PATCH", "/metadata", r#"{"html":"<a href=\"x\">&"}"#).await.is(200);
    let answer = world.get("/metadata").await.is(200);
    assert_eq!(answer.text(), include_str!("golden/html-metadata.json"));
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_told_in_full() {
    let world = World::new().await;
    let answer = world.get(&format!("/guests/{G}")).await.fault(404);
    assert_eq!(answer.text(), include_str!("golden/error-404.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_told_in_full_too() {
    let world = World::new().await;
    let large =
        format!("GET /guests HTTP/1.1\r\nhost: localhost\r\nlarge: {}\r\n\r\n", "x".repeat(200 << 10));
    for (request, status) in [("NONSENSE\r\n\r\n", 400), (&large, 431)] {
        let mut stream = tokio::net::TcpStream::connect(world.address()).await.unwrap();
        // It may not be read to its end.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{heard}");
        assert!(head.contains("Content-Type: application/json"), "{heard}");
        let fault: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&fault["code"], &fault["stack"]), (&json!(status), &json!([])));
        assert!(fault["message"].as_str().unwrap().starts_with("the request cannot be read"), "{fault}");
    }
    world.get("/guests").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_too_deep_is_refused_and_the_agent_goes_on() {
    let world = World::new().await;
    let large = format!("{{\"metadata\":{{\"a\":\"{}\"}}}}", "x".repeat(1 << 20));
    world.ask("POST", "/guests", large).await.fault(413);
    let deep = format!("{{\"haar\":{}1{}}}", "{\"a\":".repeat(60), "}".repeat(60));
    world.ask("POST", "/guests", deep).await.fault(400);
    let deeper = "[".repeat(100_000);
    world.ask("POST", "/guests", deeper).await.fault(400);
    world.get("/guests").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_reach_no_sub_agent() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.forget();
    for name in ["a%2Fb", "%2e%2e%2f%2e%2e", "a@b", "a%20b", "a%0ab", "%3Cx%3E"] {
        let status = world.get(&format!("/guests/{G}/snapshots/{name}")).await.status;
        assert!(matches!(status, 301 | 400 | 404), "{name}: {status}");
        let status = world.get(&format!("/images/{name}")).await.status;
        assert!(matches!(status, 200 | 301 | 404), "{name}: {status}");
    }
    for dest in ["a/b", "../x", "a@b", "x y", "<x>", "$(reboot)"] {
        world.post(&format!("/guests/{G}/snapshots"), &json!({"dest": dest})).await.fault(400);
    }
    for id in ["../x", "a b", "<x>", ""] {
        world.post("/images", &json!({"id": id})).await.fault(400);
    }
    for path in ["/guests/..%2f..%2fetc", "/jobs/%00", "/jobs?limit=-1", "/jobs?limit=x", "/images?type=%3C"]
    {
        let status = world.get(path).await.status;
        assert!(matches!(status, 301 | 400 | 404), "{path}: {status}");
    }
    let names: Vec<String> =
        world.stub.seen().into_iter().map(|seen| seen.params["id"].to_string()).collect();
    assert!(
        names.iter().all(|id| !id.contains("..") && !id.contains('<') && !id.contains("/b")),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_without_case_and_what_is_not_of_the_seed_is_kept_below_haar() {
    let world = World::new().await;
    let asked = format!(
        r#"{{"ID":"urn:uuid:{}","Memory":1,"CPU":1,"Extra":1,"haar":{{"note":{{"x":[1]}}}}}}"#,
        G.to_uppercase()
    );
    let answer = world.ask("POST", "/guests", asked).await.is(202);
    world.ended(&answer.job()).await;
    let guest = world.get(&format!("/guests/{G}")).await.is(200).json();
    assert_eq!(
        (&guest["haar"]["note"]["x"][0], guest.get("Extra"), guest.get("extra")),
        (&json!(1), None, None)
    );
    let sent = &world.stub.of("Libvirt.CreateGuest")[0]["guest"];
    assert_eq!(sent["haar"]["note"]["x"][0], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_paths_work_but_no_get_changes_anything() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.forget();
    for action in ["reboot", "delete", "shutdown", "poweroff", "start"] {
        world.get(&format!("/guests/{G}/{action}")).await.is(404);
    }
    assert!(world.stub.seen().is_empty());
    world
        .stub
        .on("MDocker.ListImages", Manner::Result(json!({"images": [{"id": "box", "type": "container"}]})));
    assert_eq!(world.get("/container_images").await.is(200).json()[0]["id"], "box");
    let gone = world.ask("DELETE", &format!("/guests/{G}"), "").await.is(202);
    assert_eq!(world.ended(&gone.job()).await["Action"], "delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_can_be_taken_back() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.on("Libvirt.Run", Manner::Hang);
    let runs = world.ask("POST", &format!("/guests/{G}/start"), "").await.is(202).job();
    let waits = world.ask("POST", &format!("/guests/{G}/reboot"), "").await.is(202).job();
    world.ask("DELETE", &format!("/jobs/{runs}"), "").await.fault(409);
    let taken = world.ask("DELETE", &format!("/jobs/{waits}"), "").await.is(200).json();
    assert_eq!(taken["Status"], "Error");
    world.stub.usual("Libvirt.Run");
    world.ended(&runs).await;
    assert_eq!(world.stub.of("Libvirt.Reboot").len(), 0);
    world.ask("DELETE", "/jobs/nobody", "").await.fault(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_throttled_for_each_guest() {
    let world = World::with(|config| config["limits"] = json!({"stream": 2})).await;
    world.guest(json!({})).await;
    world.stub.on("download", Manner::Hang);
    let path = format!("/guests/{G}/snapshots/s1/download");
    let all = futures_util::future::join_all((0..4).map(|_| world.get(&path)));
    let two = async {
        world.until_asked("download", 2).await;
        // Those that wait have been taken in by now, or are not there yet: none may have been passed on.
        world.get("/metadata").await.is(200);
        assert_eq!(world.stub.of("download").len(), 2);
        world.stub.usual("download");
    };
    let (answers, ()) = futures_util::future::join(all, two).await;
    assert!(answers.into_iter().all(|answer| answer.status == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_broke_off_can_go_on() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.forget();
    world.stub.on("download", Manner::Raw(206, "the rest"));
    let path = format!("/guests/{G}/disks/0/snapshots/s1/download");
    let answer = world.get_with(&path, "range", "bytes=7-").await.is(206);
    assert_eq!((answer.text(), answer.headers["content-length"].to_str().unwrap()), ("the rest", "8"));
    assert!(world.stub.seen()[0].head.contains("range: bytes=7-\n"));
    world.stub.on("download", Manner::Raw(302, "elsewhere"));
    world.get(&path).await.is(502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_is_not_listened_to() {
    let world = World::new().await;
    for (name, value) in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
        world.get_with("/guests", name, value).await.fault(403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp_only_loopback_names_are_answered() {
    let world = World::new().await;
    let ask = async |name: &str| {
        let stream = tokio::net::TcpStream::connect(world.address()).await.unwrap();
        let request = http::Request::get("/guests").header("host", name).body(Default::default()).unwrap();
        crate::world::try_exchange(stream, request).await.unwrap()
    };
    let refused = ask("page.evil.example").await.fault(403);
    assert!(refused.text().contains("localhost"), "{refused:?}");
    ask("127.0.0.1:8080").await.is(200);
    ask("localhost").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mac_is_kept_in_one_form_and_is_one_guests() {
    let world = World::new().await;
    let nic = |mac: &str| json!([{"network": "br0", "mac": mac}]);
    world.guest(json!({"nics": nic("02-00-00-00-00-0A")})).await;
    let sent = &world.stub.of("Libvirt.CreateGuest")[0]["guest"];
    assert_eq!(sent["nics"][0]["mac"], "02:00:00:00:00:0a");
    let other = |mac: &str| json!({"id": H, "memory": 1, "cpu": 1, "nics": nic(mac)});
    let taken = world.post("/guests", &other("0200.0000.000a")).await.fault(409);
    assert!(taken.text().contains(G), "{taken:?}");
    let made = world.post("/guests", &other("02:00:00:00:00:0b")).await.is(202);
    world.ended(&made.job()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_go_with_gzip_to_who_takes_it_and_nothing_else_does() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let plain = world.get("/jobs").await.is(200);
    assert!(plain.body.len() < 1024 && !plain.headers.contains_key("content-encoding"), "{plain:?}");
    let zipped = async |path: &str| world.get_with(path, "accept-encoding", "gzip").await.is(200);
    assert!(!zipped("/jobs").await.headers.contains_key("content-encoding"), "it is small");
    world.ask("PATCH", "/metadata", json!({"a": "x".repeat(4096)}).to_string()).await.is(200);
    let plain = world.get("/metadata").await.is(200);
    assert!(plain.body.len() > 4096 && !plain.headers.contains_key("content-encoding"));
    let small = zipped("/metadata").await;
    assert_eq!(
        (&small.headers["content-encoding"], small.body.len() < 1024),
        (&"gzip".parse().unwrap(), true)
    );
    let mut read = Vec::new();
    flate2::read::GzDecoder::new(&*small.body).read_to_end(&mut read).unwrap();
    assert_eq!(read, plain.body);
    let bytes: &'static str = Box::leak("b".repeat(2000).into_boxed_str());
    world.stub.on("download", Manner::Raw(200, bytes));
    let stream = zipped(&format!("/guests/{G}/snapshots/s1/download")).await;
    assert_eq!((stream.text(), &stream.headers["content-length"]), (bytes, &"2000".parse().unwrap()));
}
