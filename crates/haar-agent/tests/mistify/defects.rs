//! The original's defects that are mended here, by their numbers in the fact sheet (`mistify-wire` §4.2), as far as
//! they show over HTTP. The brain's own part of each is tested beside it.

use haar_agent::local::{self, Plan, Profiling, Settings};
use serde_json::{Value, json};

use crate::stub::Manner;
use crate::world::{G, H, I, World, sample};

#[tokio::test(flavor = "multi_thread")]
async fn a01_a_failed_pipeline_ends_its_job_and_nothing_else() {
    let world = World::new().await;
    world.guest(json!({})).await;
    for manner in [
        Manner::Error("boom"),
        Manner::Crash,
        Manner::Raw(200, "{\"result\": {"),
        Manner::Raw(500, "no"),
        Manner::Result(Value::Null),
        Manner::Result(json!({"guest": "a text"})),
        Manner::Result(json!([1])),
    ] {
        world.stub.on("Libvirt.Run", manner);
        let job = world.act("start").await;
        assert_eq!(job["Status"], "Error", "{job}");
        assert!(!job["Message"].as_str().unwrap().is_empty());
    }
    // As the original reads an answer: whatever an error is, that is its text, and nobody looks at the id.
    let odd = r#"{"result":null,"error":{"code":5,"message":"boom"}}"#;
    world.stub.on("Libvirt.Run", Manner::Raw(200, odd));
    assert!(world.act("start").await["Message"].as_str().unwrap().contains(r#""message":"boom""#));
    let bare = format!(r#"{{"result":{{"guest":{{"id":"{G}"}}}},"error":null}}"#);
    world.stub.on("Libvirt.Run", Manner::Raw(200, bare.leak()));
    assert_eq!(world.act("start").await["Status"], "Complete");
    world.stub.usual("Libvirt.Run");
    assert_eq!(world.act("start").await["Status"], "Complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a02_the_store_is_where_dbpath_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.redb");
    let mut world = World::with(|config| config["dbpath"] = json!(path)).await;
    world.guest(json!({})).await;
    assert!(path.is_file() && !world.folder.path().join("rest.redb").exists());
    world.restart().await;
    world.get(&format!("/guests/{G}")).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a03_a_restart_loses_no_job() {
    let mut world = World::new().await;
    world.guest(json!({})).await;
    world.stub.on("Libvirt.Run", Manner::Hang);
    let mut jobs = Vec::new();
    for action in ["start", "reboot", "poweroff"] {
        jobs.push(world.ask("POST", &format!("/guests/{G}/{action}"), "").await.is(202).job());
    }
    world.until_asked("Libvirt.Run", 1).await;
    world.restart().await;
    world.until_asked("Libvirt.Run", 2).await;
    world.stub.usual("Libvirt.Run");
    for job in jobs {
        assert_eq!(world.ended(&job).await["Status"], "Complete");
    }
    world.stub.on("Libvirt.Reboot", Manner::Hang);
    let job = world.ask("POST", &format!("/guests/{G}/reboot"), "").await.is(202).job();
    world.until_asked("Libvirt.Reboot", 2).await;
    world.restart().await;
    let ended = world.ended(&job).await;
    assert!(ended["Message"].as_str().unwrap().contains("not known whether"), "{ended}");
    assert_eq!(world.stub.of("Libvirt.Reboot").len(), 2, "it is not rebooted twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a04_a_request_for_a_container_changes_no_later_request() {
    let world = World::new().await;
    world.guest(json!({"id": H, "type": "container"})).await;
    world.guest(json!({})).await;
    world.guest(json!({"id": I, "type": "container"})).await;
    let methods = world.stub.methods();
    let create = ["MDocker.CreateContainer", "MDocker.StartContainer"];
    assert_eq!(methods[..2], create);
    assert_eq!(methods[2..4], ["ImageStore.CreateGuestDisks", "Libvirt.CreateGuest"]);
    assert_eq!(methods[4..], create);
}

#[tokio::test(flavor = "multi_thread")]
async fn a05_a_sub_agent_that_lies_about_the_guest_changes_no_record() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let before = world.get("/guests").await.text().to_owned();
    for lie in [json!({"guest": null}), json!({"guest": {"id": H}}), json!({})] {
        world.stub.on("Libvirt.Run", Manner::Result(lie));
        let job = world.act("start").await;
        assert_eq!(job["Status"], "Error");
        assert!(job["Message"].as_str().unwrap().contains("Libvirt.Run answered"), "{job}");
    }
    assert_eq!(world.get("/guests").await.text(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a06_labels_can_be_patched_where_there_were_none_and_an_empty_body_is_a_400() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let path = format!("/guests/{G}/metadata");
    for bad in ["", "[]", r#"{"a":1}"#, r#"{"":"b"}"#] {
        world.ask("PATCH", &path, bad).await.fault(400);
        world.ask("PATCH", "/metadata", bad).await.fault(400);
    }
    assert_eq!(world.ask("PATCH", &path, "null").await.is(200).json(), json!({}));
    assert_eq!(world.ask("PATCH", &path, r#"{"a":"1"}"#).await.is(200).json(), json!({"a": "1"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a07_a_patch_meanwhile_survives_the_pipeline() {
    let world = World::new().await;
    world.guest(json!({"metadata": {"old": "1"}})).await;
    world.stub.on("Libvirt.Run", Manner::Hang);
    let job = world.ask("POST", &format!("/guests/{G}/start"), "").await.is(202).job();
    world.until_asked("Libvirt.Run", 1).await;
    let path = format!("/guests/{G}/metadata");
    world.ask("PATCH", &path, r#"{"old":null,"new":"2"}"#).await.is(200);
    world.stub.usual("Libvirt.Run");
    world.ended(&job).await;
    assert_eq!(world.get(&path).await.json(), json!({"new": "2"}));
    assert_eq!(world.get(&format!("/guests/{G}")).await.json()["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a08_an_id_is_taken_once_and_nonsense_is_refused() {
    let world = World::new().await;
    let asked = json!({"id": G, "memory": 512, "cpu": 1});
    let first = world.post("/guests", &asked).await.is(202);
    let again = world.post("/guests", &asked).await.is(202);
    assert_eq!(first.job(), again.job());
    world.ended(&first.job()).await;
    world.post("/guests", &json!({"id": G, "memory": 1024, "cpu": 1})).await.fault(409);
    world.post("/guests", &json!({"id": H, "memory": 0, "cpu": 1})).await.fault(400);
    world.post("/guests", &json!({"id": H, "memory": -1, "cpu": 1})).await.fault(400);
    assert_eq!(world.stub.of("ImageStore.CreateGuestDisks").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a09_a_failed_create_leaves_nothing_but_a_record_that_says_error() {
    let world = World::new().await;
    world.stub.on("Libvirt.CreateGuest", Manner::Error("no room"));
    world.stub.on("Libvirt.Delete", Manner::Error("not found"));
    let answer = world.post("/guests", &json!({"id": G, "memory": 1, "cpu": 1})).await.is(202);
    assert_eq!(world.ended(&answer.job()).await["Message"], "no room");
    let undone = [
        "ImageStore.CreateGuestDisks",
        "Libvirt.CreateGuest",
        "Libvirt.Delete",
        "ImageStore.DeleteGuestsDisks",
    ];
    assert_eq!(world.stub.methods(), undone);
    assert_eq!(world.get(&format!("/guests/{G}")).await.json()["state"], "error");
    assert_eq!(world.act("delete").await["Status"], "Complete");
    world.get(&format!("/guests/{G}")).await.fault(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_many_guests_at_once_do_not_disturb_each_other() {
    let world = World::new().await;
    let asked = (0..40_u128).map(|number| {
        let id = uuid::Uuid::from_u128(0x1000 + number).to_string();
        let world = &world;
        async move {
            world.guest(json!({"id": id})).await;
            let started = world.ask("POST", &format!("/guests/{id}/start"), "").await.is(202);
            assert_eq!(world.ended(&started.job()).await["Status"], "Complete");
        }
    });
    futures_util::future::join_all(asked).await;
    assert_eq!(world.get("/guests").await.json().as_array().unwrap().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_a_full_queue_is_a_429() {
    let world = World::with(|config| config["limits"] = json!({"queue": 2})).await;
    world.guest(json!({})).await;
    world.stub.on("Libvirt.Run", Manner::Hang);
    let path = format!("/guests/{G}/start");
    for _ in 0..3 {
        world.ask("POST", &path, "").await.is(202);
    }
    world.ask("POST", &path, "").await.fault(429);
    world.get("/guests").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_what_waits_behind_a_delete_ends_with_a_reason() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.on("Libvirt.Delete", Manner::Hang);
    let gone = world.ask("DELETE", &format!("/guests/{G}"), "").await.is(202).job();
    let behind = world.ask("POST", &format!("/guests/{G}/start"), "").await.is(202).job();
    world.stub.usual("Libvirt.Delete");
    assert_eq!(world.ended(&gone).await["Status"], "Complete");
    let behind = world.ended(&behind).await;
    assert!(behind["Message"].as_str().unwrap().contains(&gone), "{behind}");
    assert_eq!(world.stub.of("Libvirt.Run").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_who_sees_a_delete_complete_finds_no_guest() {
    let world = World::new().await;
    for _ in 0..10 {
        world.guest(json!({})).await;
        let job = world.ask("POST", &format!("/guests/{G}/delete"), "null").await.is(202).job();
        world.ended(&job).await;
        world.get(&format!("/guests/{G}")).await.fault(404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_guests_jobs_are_its_own() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.guest(json!({"id": H})).await;
    let jobs = world.get(&format!("/guests/{G}/jobs")).await.is(200).json();
    let jobs = jobs.as_array().unwrap();
    assert!(jobs.len() == 1 && jobs[0]["GuestID"] == G, "{jobs:?}");
    let id = jobs[0]["ID"].as_str().unwrap();
    world.get(&format!("/guests/{G}/jobs/{id}")).await.is(200);
    world.get(&format!("/guests/{H}/jobs/{id}")).await.fault(404);
    assert_eq!(world.get("/guests/nobody/jobs").await.is(200).text(), "[]\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_a_job_is_read_whole_while_it_changes() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let path = format!("/guests/{G}/start");
    let mut last = String::new();
    for _ in 0..20 {
        last = world.ask("POST", &path, "").await.is(202).job();
    }
    let mut is_done = false;
    while !is_done {
        let jobs = world.get("/jobs").await.is(200).json();
        for job in jobs.as_array().unwrap() {
            let is_begun = job["Status"] != "Queued";
            assert_eq!(job["StartedAt"].as_str().unwrap().starts_with("0001-"), !is_begun, "{job}");
            is_done |= job["ID"] == last && job["Status"] == "Complete";
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_the_log_is_pruned_also_after_a_restart() {
    let mut world = World::with(|config| config["limits"] = json!({"jobs": 3})).await;
    world.guest(json!({})).await;
    world.restart().await;
    for _ in 0..5 {
        world.act("start").await;
    }
    assert_eq!(world.get("/jobs").await.json().as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_each_back_end_of_images_speaks_for_itself() {
    let world = World::new().await;
    let images = |id: &str| json!({"images": [{"id": id, "type": "", "size": 1, "status": "complete"}]});
    world.stub.on("ImageStore.ListImages", Manner::Result(images("one")));
    world.stub.on("MDocker.ListImages", Manner::Crash);
    assert_eq!(world.get("/images").await.is(200).text(), include_str!("golden/a18-images.json"));
    world.get("/images?type=container").await.fault(500);
    world.get("/container_images").await.fault(500);
    world.stub.on("ImageStore.ListImages", Manner::Error("down"));
    world.get("/images").await.fault(500);

    let path = format!("/images/{I}");
    world.stub.on("ImageStore.GetImage", Manner::Error("not found"));
    world.stub.on("MDocker.GetImage", Manner::Error("no such image"));
    world.get(&path).await.fault(404);
    world.stub.on("MDocker.GetImage", Manner::Result(images(I)));
    assert_eq!(world.get(&path).await.is(200).json()["type"], "container");
    world.stub.on("ImageStore.GetImage", Manner::Error("down"));
    world.get(&path).await.is(200);
    world.stub.on("MDocker.GetImage", Manner::Error("no such image"));
    let fault = world.get(&path).await.fault(500).json();
    assert_eq!(fault["message"], "down");
    // Its type chooses the action, and that one is not configured here.
    world.stub.on("MDocker.GetImage", Manner::Result(images(I)));
    world.ask("DELETE", &path, "").await.fault(404);
    world.stub.usual("ImageStore.GetImage");
    let deleted = world.ask("DELETE", &path, "").await.is(202);
    assert_eq!(deleted.text(), "{}\n");
    assert_eq!(world.ended(&deleted.job()).await["Action"], "deleteImage");
}

#[tokio::test(flavor = "multi_thread")]
async fn a19_work_on_snapshots_has_its_job_in_the_log() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.on("ImageStore.DeleteSnapshot", Manner::Error("not a snapshot"));
    let path = format!("/guests/{G}/snapshots/s1");
    let rolled_back = world.post(&format!("{path}/rollback"), &json!({})).await.is(200).job();
    let deleted = world.ask("DELETE", &path, "").await.is(200);
    assert_eq!(deleted.text(), "null\n");
    assert_eq!(world.ended(&rolled_back).await["Status"], "Complete");
    let deleted = world.ended(&deleted.job()).await;
    assert_eq!(
        (&deleted["Action"], &deleted["Message"]),
        (&json!("deleteSnapshot"), &json!("not a snapshot"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a20_a_body_that_is_no_json_is_a_400() {
    let world = World::new().await;
    world.guest(json!({})).await;
    let snapshots = format!("/guests/{G}/snapshots");
    for path in ["/guests", "/images", &snapshots, &format!("{snapshots}/s1/rollback")] {
        for body in ["", "{", "[]", "{\"id\": 7, \"dest\": 7}", "\u{0}"] {
            world.ask("POST", path, body).await.fault(400);
        }
    }
    let rollback =
        world.post(&format!("{snapshots}/s1/rollback"), &json!({"destroyMoreRecent": true})).await.is(200);
    assert_eq!(rollback.text(), "null\n");
    world.ended(&rollback.job()).await;
    assert_eq!(world.stub.of("ImageStore.RollbackSnapshot")[0]["destroyMoreRecent"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a21_a_hung_sub_agent_holds_up_one_guest_until_the_stage_is_over() {
    let world = World::with(|config| config["actions"]["start"]["stages"][0]["timeout"] = json!(1)).await;
    world.guest(json!({})).await;
    world.guest(json!({"id": H})).await;
    world.stub.on("Libvirt.Run", Manner::Hang);
    let hung = world.ask("POST", &format!("/guests/{G}/start"), "").await.is(202).job();
    let next = world.ask("POST", &format!("/guests/{G}/poweroff"), "").await.is(202).job();
    let other = world.ask("POST", &format!("/guests/{H}/poweroff"), "").await.is(202).job();
    assert_eq!(world.ended(&other).await["Status"], "Complete");
    let ended = world.ended(&hung).await;
    assert!(ended["Message"].as_str().unwrap().contains("within 1 s"), "{ended}");
    assert_eq!(world.ended(&next).await["Status"], "Complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a22_suspend_is_there_once_it_is_configured() {
    let one = json!({"stages": [{"service": "libvirt", "method": "Libvirt.Suspend"}]});
    let world = World::with(|config| config["actions"]["suspend"] = one).await;
    world.guest(json!({})).await;
    assert_eq!(world.act("suspend").await["Status"], "Complete");
    world.ask("POST", &format!("/guests/{G}/resume"), "").await.fault(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a23_a_containers_metrics_are_asked_of_containers() {
    let world = World::new().await;
    world.guest(json!({"type": "container"})).await;
    world.get(&format!("/guests/{G}/metrics/cpu")).await.is(200);
    assert_eq!(world.stub.methods().last().unwrap(), "MDocker.CPUMetrics");
    world.get(&format!("/guests/{G}/metrics/nic")).await.fault(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a24_args_and_max_pending_have_an_effect() {
    let world = World::with(|config| {
        config["actions"]["start"]["stages"][0]["args"] = json!({"how": "softly"});
        config["services"]["libvirt"]["max_pending"] = json!(1);
    })
    .await;
    world.guest(json!({})).await;
    world.guest(json!({"id": H})).await;
    world.stub.forget();
    world.stub.on("Libvirt.Run", Manner::Hang);
    let first = world.ask("POST", &format!("/guests/{G}/start"), "").await.is(202).job();
    let second = world.ask("POST", &format!("/guests/{H}/start"), "").await.is(202).job();
    world.until_asked("Libvirt.Run", 1).await;
    let storage = world.get(&format!("/guests/{G}/snapshots")).await;
    assert_eq!(
        (storage.status, world.stub.of("Libvirt.Run").len()),
        (200, 1),
        "one at a time for the service"
    );
    world.stub.usual("Libvirt.Run");
    world.ended(&first).await;
    world.ended(&second).await;
    assert!(world.stub.of("Libvirt.Run").iter().all(|params| params["args"] == json!({"how": "softly"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a25_a_method_that_wants_to_be_asked_again_is() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.on("Libvirt.Run", Manner::Made(|params| json!({"guest": params["guest"], "retry": 1})));
    let job = world.ask("POST", &format!("/guests/{G}/start"), "").await.is(202).job();
    world.until_asked("Libvirt.Run", 1).await;
    world.stub.usual("Libvirt.Run");
    assert_eq!(world.ended(&job).await["Status"], "Complete");
    assert_eq!(world.stub.of("Libvirt.Run").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_a_stage_can_clear_disks() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.stub.on("Libvirt.Run", Manner::Made(|params| json!({"guest": {"id": params["guest"]["id"]}})));
    world.act("start").await;
    let guest = world.get(&format!("/guests/{G}")).await.json();
    assert_eq!(guest.get("disks"), None, "{guest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a27_a_guests_download_is_of_all_its_disks() {
    let world = World::new().await;
    world.guest(json!({})).await;
    world.get(&format!("/guests/{G}/snapshots/s1/download")).await.is(200);
    world.get(&format!("/guests/{G}/disks/0/snapshots/s1/download")).await.is(200);
    let asked = world.stub.of("download");
    assert_eq!((&asked[0]["recursive"], &asked[1]["recursive"]), (&json!(true), &json!(false)));
    world.stub.on("download", Manner::Raw(404, "not found"));
    let refused = world.get(&format!("/guests/{G}/snapshots/s1/download")).await.is(404);
    assert_eq!(refused.text(), "not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a28_only_loopback_and_the_owners_socket_and_no_profiles_unless_switched_on() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = World::new().await;
    let mode = std::fs::metadata(world.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(world.ask_socket("GET", "/guests").await.is(200).text(), "null\n");
    assert_eq!(world.get("/debug/pprof/goroutine").await.is(404).text(), "404 page not found\n");
    world.profiling = Profiling::On;
    world.restart().await;
    assert!(
        world.get("/debug/pprof/goroutine").await.is(200).text().starts_with("goroutine profile: total ")
    );

    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        socket: folder.path().join("agent.sock"),
        listen: Some("0.0.0.0:0".parse::<std::net::SocketAddr>().unwrap().into()),
        plan: Plan::parse(&sample(world.stub.address).to_string()).unwrap(),
        store: folder.path().join("rest.redb"),
        profiling: Profiling::Off,
    };
    let refused = local::start(settings, std::future::pending()).await.err().unwrap().to_string();
    assert!(refused.contains("TLS") && refused.contains("token"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a30_the_built_in_create_ends_with_a_guest_that_runs() {
    // A test beside the built-in plan says that this file is the same.
    let built_in: Value =
        serde_json::from_str(include_str!("../../../../etc/haar-agent-actions.json")).unwrap();
    let world = World::with(|config| {
        for (name, service) in config["services"].as_object_mut().unwrap() {
            assert!(!built_in["services"][name].is_null(), "{name}");
            service["max_pending"] = json!(64);
        }
        config["actions"] = built_in["actions"].clone();
    })
    .await;
    world.guest(json!({})).await;
    assert_eq!(world.get(&format!("/guests/{G}")).await.json()["state"], "running");
    let made = ["ImageStore.CreateGuestDisks", "Libvirt.CreateGuest", "Libvirt.Run"];
    assert_eq!(world.stub.methods(), made);
    world.guest(json!({"id": H, "type": "container"})).await;
    assert_eq!(world.get(&format!("/guests/{H}")).await.json()["state"], "running");
}

/// The original's sub-agent for switch ports did not build against the guest's id. One of its wire can be a stage.
#[tokio::test(flavor = "multi_thread")]
async fn s07_a_sub_agent_for_switch_ports_is_told_the_guest_and_what_it_fills_in_reaches_libvirt() {
    let world = World::with(|config| {
        config["services"]["ovs"] = config["services"]["libvirt"].clone();
        let stage = |method: &str| json!({"service": "ovs", "method": method});
        let create = config["actions"]["create"]["stages"].as_array_mut().unwrap();
        create.insert(1, stage("OVS.AddGuestInterfaces"));
        config["actions"]["delete"]["stages"]
            .as_array_mut()
            .unwrap()
            .push(stage("OVS.RemoveGuestInterfaces"));
    })
    .await;
    let add = |params: &Value| {
        let mut guest = params["guest"].clone();
        guest["nics"][0]["device"] = json!("mist.0");
        guest["nics"][0]["mac"] = json!("02:00:00:00:00:01");
        json!({"guest": guest})
    };
    world.stub.on("OVS.AddGuestInterfaces", Manner::Made(add));
    let nic = json!({"network": "mistify0", "vlans": [7]});
    world.guest(json!({"nics": [nic]})).await;
    let asked = &world.stub.of("OVS.AddGuestInterfaces")[0]["guest"];
    assert_eq!((&asked["id"], &asked["nics"][0]["vlans"]), (&json!(G), &json!([7])));
    let defined = &world.stub.of("Libvirt.CreateGuest")[0]["guest"]["nics"][0];
    assert_eq!((&defined["device"], &defined["network"]), (&json!("mist.0"), &json!("mistify0")));
    assert_eq!(defined["mac"], "02:00:00:00:00:01");
    assert_eq!(world.act("delete").await["Status"], "Complete");
    assert_eq!(world.stub.of("OVS.RemoveGuestInterfaces")[0]["guest"]["id"], G);
}
