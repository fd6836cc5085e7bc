//! T41 to T58 of the fact sheet (`mistify-wire` §5.4): what an original client would do, and what it must see.

use std::future::Future;
use std::pin::Pin;

use haar_api::agent::Time;
use serde_json::{Value, json};

use crate::stub::Manner;
use crate::world::{G, H, I, World};

type Case = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! table {
    ($($name:literal => $case:ident),* $(,)?) => { &[$(($name, || Box::pin($case()) as _)),*] };
}

const TABLE: &[(&str, Case)] = table![
    "T41" => t41, "T42" => t42, "T43" => t43, "T44" => t44, "T45" => t45, "T46" => t46,
    "T47" => t47, "T48" => t48, "T49" => t49, "T50" => t50, "T51" => t51, "T52" => t52,
    "T53" => t53, "T54" => t54, "T55" => t55, "T56" => t56, "T57" => t57, "T58" => t58,
];

#[tokio::test(flavor = "multi_thread")]
async fn an_original_client_sees_what_the_fact_sheet_says() {
    let mut failed = Vec::new();
    for (name, case) in TABLE {
        let went = tokio::spawn(case()).await;
        println!("{name} {}", if went.is_ok() { "ok" } else { "FAILED" });
        if went.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

async fn t41() {
    let world = World::new().await;
    assert_eq!(world.get("/metadata").await.is(200).text(), "{}\n");
    let patched = world.ask("PATCH", "/metadata", r#"{"foo":"bar","hello":"world"}"#).await.is(200);
    assert_eq!(patched.json(), json!({"foo": "bar", "hello": "world"}));
    world.ask("PATCH", "/metadata", r#"{"foo":null}"#).await.is(200);
    assert_eq!(world.get("/metadata").await.is(200).text(), "{\"hello\":\"world\"}\n");
}

async fn t42() {
    let world = World::new().await;
    assert_eq!(world.get("/guests").await.is(200).text(), "null\n");
}

async fn t43() {
    let world = World::new().await;
    let asked = json!({
        "memory": 512, "cpu": 2,
        "nics": [{"network": "br0", "model": "virtio", "mac": "02:00:00:00:00:01"}],
        "disks": [{"image": I}, {"size": 512}],
        "metadata": {"foo": "bar"},
    });
    let answer = world.post("/guests", &asked).await.is(202);
    let guest = answer.json();
    let id = guest["id"].as_str().unwrap();
    assert_eq!((id.len(), &guest["state"]), (36, &json!("create")));
    let made = answer.text().replace(id, "GUEST");
    assert_eq!(made, include_str!("golden/t43-guest.json"));
    let job = world.ended(&answer.job()).await;
    assert_eq!(
        (&job["Status"], &job["GuestID"], &job["Action"]),
        (&json!("Complete"), &guest["id"], &json!("create"))
    );
    let keys: Vec<&str> = job.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["Action", "GuestID", "ID", "Message", "QueuedAt", "StartedAt", "Status", "UpdatedAt"]);
}

async fn t44() {
    let world = World::new().await;
    world.post("/guests", &json!({"id": "asdf"})).await.fault(400);
}

async fn t45() {
    let world = World::new().await;
    world.stub.on(
        "ImageStore.CreateGuestDisks",
        Manner::Made(|params| {
            let mut guest = params["guest"].clone();
            guest["disks"][0]["source"] = json!("/made/by/stage/one");
            json!({"guest": guest})
        }),
    );
    world.guest(json!({})).await;
    let seen = world.stub.seen();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].path.as_str()),
        ("ImageStore.CreateGuestDisks", "/_mistify_RPC_")
    );
    assert_eq!((&seen[0].params["guest"]["id"], &seen[0].params["action"]), (&json!(G), &json!("create")));
    assert_eq!(seen[0].params.get("args"), None);
    assert_eq!(seen[1].method, "Libvirt.CreateGuest");
    assert_eq!(seen[1].params["guest"]["disks"][0]["source"], "/made/by/stage/one");
}

async fn t46() {
    let world = World::new().await;
    world.stub.on("ImageStore.CreateGuestDisks", Manner::Error("boom"));
    let answer = world.post("/guests", &json!({"id": G, "memory": 1, "cpu": 1})).await.is(202);
    let job = world.ended(&answer.job()).await;
    assert_eq!((&job["Status"], &job["Message"]), (&json!("Error"), &json!("boom")));
    world.get("/guests").await.is(200);
}

async fn t47() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let answer = world.ask("POST", &format!("/guests/{G}/delete"), "null").await.is(202);
    assert_eq!(answer.json()["id"], G);
    assert_eq!(world.ended(&answer.job()).await["Status"], "Complete");
    world.get(&format!("/guests/{G}")).await.fault(404);
}

async fn t48() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.ask("POST", &format!("/guests/{G}/suspend"), "null").await.fault(404);
}

async fn t49() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.on("Libvirt.Reboot", Manner::Hang);
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(world.ask("POST", &format!("/guests/{G}/reboot"), "").await.is(202).job());
    }
    assert!(jobs.iter().enumerate().all(|(at, job)| !jobs[..at].contains(job)));
    world.until_asked("Libvirt.Reboot", 1).await;
    let states: Vec<Value> =
        listed(&world, &jobs).await.into_iter().map(|job| job["Status"].clone()).collect();
    assert_eq!(states, ["Running", "Queued", "Queued", "Queued", "Queued"]);
    assert_eq!(world.stub.of("Libvirt.Reboot").len(), 1, "one at a time");
    world.stub.usual("Libvirt.Reboot");
    for job in &jobs {
        assert_eq!(world.ended(job).await["Status"], "Complete");
    }
    let ended = listed(&world, &jobs).await;
    let time = |job: &Value, key: &str| serde_json::from_value::<Time>(job[key].clone()).unwrap();
    let in_order = ended.windows(2).all(|pair| time(&pair[1], "StartedAt") >= time(&pair[0], "UpdatedAt"));
    assert!(in_order, "{ended:?}");
}

async fn listed(world: &World, jobs: &[String]) -> Vec<Value> {
    let mut found = Vec::new();
    for job in jobs {
        found.push(world.get(&format!("/jobs/{job}")).await.is(200).json());
    }
    found
}

async fn t50() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let path = format!("/guests/{G}/metadata");
    assert_eq!(world.get(&path).await.is(200).text(), "null\n");
    assert_eq!(world.ask("PATCH", &path, r#"{"a":"1"}"#).await.is(200).text(), "{\"a\":\"1\"}\n");
    assert_eq!(world.ask("PATCH", &path, r#"{"a":""}"#).await.is(200).text(), "{}\n");
}

async fn t51() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let answer = world.get(&format!("/guests/{G}/metrics/cpu")).await.is(200);
    assert_eq!(answer.text(), include_str!("golden/t51-cpu.json"));
    world.get(&format!("/jobs/{}", answer.job())).await.fault(404);
    let disks = world.get(&format!("/guests/{G}/metrics/disk")).await.is(200);
    assert_eq!(disks.text(), include_str!("golden/t51-disk.json"));
    let nics = world.get(&format!("/guests/{G}/metrics/nic")).await.is(200);
    assert_eq!(nics.text(), include_str!("golden/t51-nic.json"));
}

async fn t52() {
    let world = World::new().await;
    let answer = world.post("/images", &json!({"id": I, "type": "kvm"})).await.is(202);
    assert_eq!(answer.text(), "{\"images\":null}\n");
    let job = world.ended(&answer.job()).await;
    assert_eq!((&job["GuestID"], &job["Status"]), (&json!("agent"), &json!("Complete")));
    let asked = json!({"id": I, "type": "kvm", "dest": "", "source": ""});
    assert_eq!(world.stub.of("ImageStore.RequestImage"), [asked]);
    world.post("/images", &json!({})).await.fault(400);
}

async fn t53() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let answer = world.post(&format!("/guests/{G}/disks/0/snapshots"), &json!({"dest": "s1"})).await.is(200);
    assert_eq!(answer.text(), "null\n");
    let job = world.ended(&answer.job()).await;
    assert_eq!((&job["GuestID"], &job["Action"]), (&json!(G), &json!("createSnapshot")));
    let asked = json!({"id": format!("guests/{G}/disk-0"), "dest": "s1", "recursive": false, "destroyMoreRecent": false});
    assert_eq!(world.stub.of("ImageStore.CreateSnapshot"), [asked]);
}

async fn t54() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let answer = world.post(&format!("/guests/{G}/snapshots"), &json!({})).await.is(200);
    world.ended(&answer.job()).await;
    let asked = world.stub.of("ImageStore.CreateSnapshot").remove(0);
    assert_eq!((&asked["id"], &asked["recursive"]), (&json!(format!("guests/{G}")), &json!(true)));
    let seconds = asked["dest"].as_str().unwrap().strip_prefix("snap-").unwrap().parse::<u64>().unwrap();
    assert!(seconds > 1_500_000_000);
}

async fn t55() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.forget();
    let answer = world.get(&format!("/guests/{G}/snapshots/s1/download")).await.is(200);
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    assert_eq!(answer.text(), "bytes of the snapshot");
    let seen = world.stub.seen().remove(0);
    assert_eq!(seen.path, "/snapshots/download");
    let keys: Vec<&str> = seen.params.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["dest", "destroyMoreRecent", "id", "recursive"], "no envelope");
    assert_eq!(seen.params["id"], format!("guests/{G}@s1"));
}

async fn t56() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.act("start").await;
    let last = world.act("poweroff").await;
    let jobs = world.get("/jobs?limit=2").await.is(200).json();
    let jobs = jobs.as_array().unwrap();
    assert_eq!((jobs.len(), &jobs[0]["ID"], &jobs[1]["Action"]), (2, &last["ID"], &json!("start")));
    assert_eq!(world.get("/jobs?limit=0").await.is(200).text(), "[]\n");
}

async fn t57() {
    let mut world = World::new().await;
    world.guest(json!({})).await;
    let job = world.act("start").await;
    world.restart().await;
    let path = format!("/jobs/{}", job["ID"].as_str().unwrap());
    assert_eq!(world.get(&path).await.is(200).json(), job);
}

async fn t58() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.guest(json!({"id": H, "type": "container"})).await;
    world.stub.forget();
    for (guest, method) in [(H, "MDocker.StartContainer"), (G, "Libvirt.Run"), (H, "MDocker.StartContainer")]
    {
        let answer = world.ask("POST", &format!("/guests/{guest}/start"), "null").await.is(202);
        assert_eq!(world.ended(&answer.job()).await["Status"], "Complete");
        assert_eq!(world.stub.methods().last().unwrap(), method);
    }
}
