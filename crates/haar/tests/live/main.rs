//! The whole story on real parts: `haar up`, a guest that boots, and everything that may die meanwhile.
//!
//! Needs root, libvirt, `HAAR_LIVE=1`, `HAAR_TEST_IMAGE` (`cargo xtask image`), `haar-libvirt` beside the program
//! under test or named by `HAAR_LIBVIRT`, and for the shared disk `HAAR_TEST_AGENT_IMAGE` (`… --with-agent`).

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../../haar-libvirt/tests/harness/agent_image.rs"]
mod agent_image;
mod cloud;
#[path = "../left_out/mod.rs"]
mod left_out;
mod servers;

use cloud::{Cloud, answers_ping, as_text, run, text, until};
use nix::sys::signal::{Signal, kill};

#[test]
fn from_nothing_to_a_guest_and_back() {
    let Some(mut cloud) = Cloud::with_image("from_nothing_to_a_guest_and_back") else { return };
    let (code, said) = cloud.create("web", &[]);
    assert!(code == 0 && said.contains("running after"), "{said}");
    let address = cloud.field("web", "ip");
    until("the guest's own words on its console", || {
        cloud.haar(&["guest", "log", "web"]).contains("haar-guest: ready").then_some(())
    });
    until("an answer to a ping", || answers_ping(&address).then_some(()));
    let key = cloud.path("key");
    let inside = until("a login", || {
        let (code, said) = cloud.haar_tried(&["ssh", "web", "-i", as_text(&key), "--", "hostname"]);
        (code == 0).then_some(said)
    });
    assert!(inside.lines().any(|line| line == "web"), "{inside}");

    cloud.haar(&["guest", "shutdown", "web"]);
    assert_eq!(cloud.field("web", "state"), "stopped");
    cloud.haar(&["guest", "start", "web"]);
    assert_eq!(cloud.field("web", "state"), "running");

    let again = cloud.up_command().output().unwrap();
    assert_eq!(again.status.code(), Some(3), "{}", text(&again));
    let said: Vec<String> = text(&again).lines().map(str::to_owned).collect();
    assert!(said.len() == 1 && said[0].starts_with("error: a cloud is up in"), "{said:?}");
    assert_eq!(cloud.field("web", "state"), "running", "the first runs on");

    let id = cloud.field("web", "id");
    cloud.down();
    assert_eq!(run("virsh", &["-c", "qemu:///system", "domstate", &id]).trim(), "running");
    cloud.up();
    until("the guest to be known as running", || (cloud.field("web", "state") == "running").then_some(()));

    cloud.haar(&["guest", "delete", "web"]);
    until("nothing to be left", || cloud.left_over().is_empty().then_some(()));
    assert!(cloud.haar(&["check"]).contains("books"), "the books balance");
}

#[test]
fn a_subnet_that_gets_its_gateway_later_is_reached_at_once() {
    let Some(cloud) = Cloud::with_image("a_subnet_that_gets_its_gateway_later_is_reached_at_once") else {
        return;
    };
    let said = cloud.haar(&["network", "create", "quiet"]);
    let hint: Vec<&str> = said.trim_end().rsplit_once("  haar ").unwrap().1.split(' ').collect();
    cloud.haar(&hint);
    let (code, said) = cloud.create("web", &["--network", "quiet"]);
    assert_eq!(code, 0, "{said}");
    let address = cloud.field("web", "ip");
    until("the guest's own words on its console", || {
        cloud.haar(&["guest", "log", "web"]).contains("haar-guest: ready").then_some(())
    });
    assert!(!answers_ping(&address), "nobody is there to ask");
    let gateway = address.strip_suffix(".1").map(|network| format!("{network}.254")).unwrap();
    cloud.haar(&["subnet", "set", "quiet", "--gateway", &gateway]);
    until("an answer to a ping", || answers_ping(&address).then_some(()));
}

#[test]
fn whoever_is_killed_in_the_middle_of_a_create_nothing_is_left_half_done() {
    let Some(cloud) =
        Cloud::with_image("whoever_is_killed_in_the_middle_of_a_create_nothing_is_left_half_done")
    else {
        return;
    };
    let (storage, libvirt): (&[&str], &[&str]) = (&["image", "disks"], &["define", "start"]);
    // Who is killed, who is held so that the stage lasts, and the stages.
    let cases = [
        ("storage", "storage", storage),
        ("haar-libvirt", "haar-libvirt", libvirt),
        ("agent", "storage", storage),
        ("agent", "haar-libvirt", libvirt),
        ("controller", "haar-libvirt", libvirt),
    ];
    for (role, held, stages) in cases {
        let name = format!("{role}-{}", stages[0]);
        let held = cloud.hold(held);
        let (code, said) = cloud.create(&name, &["--no-wait"]);
        assert_eq!(code, 0, "{said}");
        cloud.kill_at(role, &name, held, stages);
        let state = until(&format!("the end of the create while {role} was killed"), || {
            let state = cloud.field(&name, "state");
            matches!(state.as_str(), "running" | "failed").then_some(state)
        });
        println!("{role} killed: {state}");
        if state == "failed" {
            assert_failed_well(&cloud, role, &name);
        }
        let (code, said) = cloud.create("other", &[]);
        assert!(code == 0 && said.contains("running after"), "{said}");
        for guest in [name.as_str(), "other"] {
            cloud.haar(&["guest", "delete", guest]);
        }
        until("nothing to be left", || cloud.left_over().is_empty().then_some(()));
    }
}

/// A create that failed has said why and left nothing of the guest. A controller's death fails nothing.
fn assert_failed_well(cloud: &Cloud, role: &str, guest: &str) {
    assert_ne!(role, "controller", "the orders are in its books");
    let jobs = cloud.json(&["job", "list", "--guest", guest]).unwrap();
    let job = &jobs["items"][0];
    assert_eq!(job["status"], "error", "{job}");
    assert!(job["error"].as_str().is_some_and(|error| error.len() > 10), "{job}");
    let id = cloud.field(guest, "id");
    until("nothing of it to be left", || {
        (!cloud.left_over().iter().any(|left| left.contains(&id))).then_some(())
    });
}

#[test]
fn everybody_ends_with_a_killed_up_and_the_guest_runs_on() {
    let Some(mut cloud) = Cloud::with_image("everybody_ends_with_a_killed_up_and_the_guest_runs_on") else {
        return;
    };
    let (code, said) = cloud.create("web", &[]);
    assert_eq!(code, 0, "{said}");
    let id = cloud.field("web", "id");
    let roles = ["controller", "agent", "storage", "haar-libvirt"];
    let pids = roles.map(|role| cloud.process(role).unwrap());
    kill(cloud.process("up").unwrap(), Signal::SIGKILL).unwrap();
    for (role, pid) in roles.iter().zip(pids) {
        until(&format!("the end of {role}"), || kill(pid, None).is_err().then_some(()));
    }
    assert_eq!(run("virsh", &["-c", "qemu:///system", "domstate", &id]).trim(), "running");
    cloud.up();
    until("the guest to be known as running", || (cloud.field("web", "state") == "running").then_some(()));
}

#[test]
fn without_libvirtd_the_cloud_is_up_says_so_and_recovers() {
    let Some(cloud) = Cloud::prepare("without_libvirtd_the_cloud_is_up_says_so_and_recovers") else { return };
    let said = cloud.up_without_libvirtd();
    assert!(said.contains("no guest can run yet"), "{said}");
    let (code, said) =
        cloud.haar_tried(&["image", "import", "tiny", &std::env::var("HAAR_TEST_IMAGE").unwrap()]);
    assert_eq!(code, 0, "{said}");
    let words = ["guest", "create", "web", "--flavor", "tiny", "--image", "tiny"];
    let (code, said) = cloud.haar_tried(&words);
    assert!(code == 3 && said.contains("no_room"), "{code} {said}");

    cloud.show_libvirtd();
    until("libvirt to be seen", || {
        let shown = cloud.json(&["hypervisor", "show", "test-host"])?;
        (shown["total_resources"]["cpu"].as_u64()? > 0).then_some(())
    });
    cloud.haar(&words);
    assert_eq!(cloud.field("web", "state"), "running");
}

#[test]
fn a_broken_libvirtd_takes_no_cloud_with_guests_down() {
    let Some(cloud) = Cloud::with_image("a_broken_libvirtd_takes_no_cloud_with_guests_down") else { return };
    let (code, said) = cloud.create("web", &[]);
    assert_eq!(code, 0, "{said}");
    cloud.down();
    cloud.up_without_libvirtd();
    assert_eq!(cloud.field("web", "name"), "web", "the books answer");
    cloud.show_libvirtd();
    until("the guest to be known as running", || (cloud.field("web", "state") == "running").then_some(()));
    let alive = || cloud.json(&["status"])?["hypervisors"]["alive"].as_u64().filter(|alive| *alive == 1);
    until("the host to be alive", alive);
}

#[test]
fn a_cloud_whose_up_was_killed_is_up_again_at_once() {
    let Some(mut cloud) = Cloud::prepare("a_cloud_whose_up_was_killed_is_up_again_at_once") else { return };
    cloud.up();
    let kill_up = |cloud: &Cloud| {
        let up = cloud.process("up").unwrap();
        kill(up, Signal::SIGKILL).unwrap();
        until("its end", || kill(up, None).is_err().then_some(()));
    };
    kill_up(&cloud);
    // What it left behind is not waited for here: the next start does that.
    cloud.up();
    kill_up(&cloud);
    cloud.haar(&["down", "--purge", "--yes", "--data", as_text(&cloud.data())]);
    assert_eq!(cloud.left_over(), Vec::<String>::new());
}

#[test]
fn a_disk_that_was_full_at_the_first_start_is_no_trap() {
    let Some(mut cloud) = Cloud::prepare("a_disk_that_was_full_at_the_first_start_is_no_trap") else {
        return;
    };
    let disk = cloud.mount("64k");
    let filler = disk.join("filler");
    std::fs::write(&filler, vec![0; 64 << 10]).unwrap();
    let up = cloud.up_command().output().unwrap();
    assert!(!up.status.success(), "{}", text(&up));
    assert!(text(&up).contains("No space left"), "{}", text(&up));
    cloud.haar(&["down", "--purge", "--yes", "--data", as_text(&cloud.data())]);

    let up = cloud.up_command().output().unwrap();
    assert!(!up.status.success(), "{}", text(&up));
    std::fs::remove_file(&filler).unwrap();
    run("mount", &["-o", "remount,size=1g", as_text(&disk)]);
    cloud.up();
}

#[test]
fn books_that_are_lost_are_missed_and_a_backup_brings_them_back() {
    let Some(mut cloud) = Cloud::prepare("books_that_are_lost_are_missed_and_a_backup_brings_them_back")
    else {
        return;
    };
    cloud.up();
    cloud.haar(&["flavor", "create", "kept", "--cpu", "1", "--memory", "1g", "--disk", "1g"]);
    cloud.down();
    let (books, backup) = (cloud.data().join("controller"), cloud.path("backup"));
    std::fs::rename(&books, &backup).unwrap();
    let up = cloud.up_command().output().unwrap();
    assert!(!up.status.success() && text(&up).contains("books of this cloud are gone"), "{}", text(&up));
    run("cp", &["-a", as_text(&backup), as_text(&books)]);
    cloud.up();
    assert!(cloud.haar(&["flavor", "list"]).contains("kept"));
}
