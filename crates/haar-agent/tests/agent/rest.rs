//! The agent's own REST beside the controller: whose guest is whose (design §11.3).

use std::time::{Duration, Instant};

use haar_core::guest::Goal;
use haar_core::order::Phase;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use uuid::Uuid;

use super::{World, pid_of};

impl World {
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.path("agent.sock")).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let job = head.lines().find_map(|line| line.strip_prefix("X-Guest-Job-Id: "));
        let body: Value = serde_json::from_str(body).unwrap();
        // So that a test can look at either.
        (status, job.map_or(body.clone(), |job| json!({"job": job, "body": body})))
    }

    /// The job of an answer, when it has ended.
    async fn job(&self, queued: &Value) -> Value {
        let path = format!("/jobs/{}", queued["job"].as_str().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (_, job) = self.ask("GET", &path, "").await;
            if job["Status"] == "Complete" || job["Status"] == "Error" {
                return job;
            }
            assert!(Instant::now() < deadline, "{job}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_guests_are_shown_and_switched_but_not_taken_away() {
    let mut world = World::new().await;
    let made = world.order(1, Goal::Running);
    world.until_phase(1, made, "settled").await;
    let id = Uuid::from_u128(1);
    let (status, guests) = world.ask("GET", "/guests", "").await;
    assert_eq!((status, &guests[0]["id"], &guests[0]["state"]), (200, &json!(id), &json!("running")));
    assert_eq!(guests[0]["haar"]["owner"], "controller");

    for (method, path, body) in [
        ("DELETE", format!("/guests/{id}"), ""),
        ("POST", format!("/guests/{id}/delete"), "null"),
        ("POST", format!("/guests/{id}/reboot"), "null"),
        ("PATCH", format!("/guests/{id}/metadata"), "{\"a\":\"1\"}"),
        ("POST", format!("/guests/{id}/snapshots"), "{}"),
        ("POST", "/guests".to_owned(), &json!({"id": id, "memory": 1, "cpu": 1}).to_string()),
    ] {
        let (status, fault) = world.ask(method, &path, body).await;
        assert_eq!(status, 409, "{method} {path}: {fault}");
        assert!(fault["message"].as_str().unwrap().contains("controller"), "{fault}");
    }
    assert_eq!((world.domains(), world.calls("Libvirt.Delete")), (1, 0));

    let (status, taken) = world.ask("POST", &format!("/guests/{id}/poweroff"), "null").await;
    assert_eq!((status, &taken["body"]["id"]), (202, &json!(id)));
    let (status, job) = world.ask("GET", &format!("/jobs/{}", taken["job"].as_str().unwrap()), "").await;
    assert_eq!((status, &job["Status"], &job["GuestID"]), (200, &json!("Complete"), &json!(id)));
    world
        .until("the local word in the report", || {
            let told = world.controller.report_of(id.into());
            told.is_some_and(|report| matches!(report.phase, Phase::Local { .. }))
        })
        .await;
    assert_eq!(world.calls("Libvirt.Poweroff"), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_made_here_is_beside_the_controllers_and_outlives_a_restart() {
    let mut world = World::new().await;
    let made = world.order(1, Goal::Running);
    world.until_phase(1, made, "settled").await;
    let own = Uuid::from_u128(2);
    let asked = json!({"id": own, "memory": 256, "cpu": 1, "disks": [{"size": 10}]}).to_string();
    let (status, queued) = world.ask("POST", "/guests", &asked).await;
    assert_eq!(status, 202, "{queued}");
    let job = world.job(&queued).await;
    assert_eq!(job["Status"], "Complete", "{job}");
    world.stop_and_start().await;
    let (_, guests) = world.ask("GET", "/guests", "").await;
    let states: Vec<&Value> = guests.as_array().unwrap().iter().map(|guest| &guest["id"]).collect();
    assert_eq!(states, [&json!(Uuid::from_u128(1)), &json!(own)]);
    assert_eq!(guests[1]["state"], "running");
    assert!(world.controller.report_of(own.into()).is_none(), "it is nothing the controller was told of");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_agent_killed_in_any_stage_of_a_create_leaves_no_disk_and_no_domain() {
    let mut world = World::new().await;
    let stages = [
        ("storage.sock", "ImageStore.CreateGuestDisks"),
        ("libvirt.sock", "Libvirt.CreateGuest"),
        ("libvirt.sock", "Libvirt.Run"),
    ];
    for (socket, method) in stages {
        // Before it has done anything, and when it is done and has not answered.
        for moment in ["hang", "late"] {
            let (file, id) = (format!("{moment}-{method}"), Uuid::new_v4());
            world.file(&file, "");
            let asked = json!({"id": id, "memory": 256, "cpu": 1, "disks": [{"size": 10}]}).to_string();
            let (status, queued) = world.ask("POST", "/guests", &asked).await;
            assert_eq!(status, 202, "{queued}");
            let call = format!("{method} {id}");
            let is_reached =
                || if moment == "hang" { world.path("hung").exists() } else { world.calls(&call) == 1 };
            world.until(&format!("{moment} in {method}"), is_reached).await;
            kill(pid_of(&world.path(socket)), Signal::SIGKILL).unwrap();
            world.no_file(&file);
            let job = world.job(&queued).await;
            assert_eq!(job["Status"], "Error", "{moment} {method}: {job}");
            assert_eq!((world.domains(), world.disks()), (0, 0), "{moment} {method}: {job}");
            let (_, queued) = world.ask("DELETE", &format!("/guests/{id}"), "").await;
            assert_eq!(world.job(&queued).await["Status"], "Complete", "{moment} {method}");
            if moment == "hang" {
                world.no_file("hung");
            }
        }
    }
    world.stop().await;
}
