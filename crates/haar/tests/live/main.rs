//! The whole story on real parts: `haar up`, a guest that boots, and everything that may die meanwhile.
//!
//! Needs root, libvirt, `HAAR_LIVE=1`, `HAAR_TEST_IMAGE` (`cargo xtask image`), and `haar-libvirt` beside the
//! program under test or named by `HAAR_LIBVIRT`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod cloud;

use std::process::{Command, Stdio};

use cloud::{Cloud, answers_ping, as_text, run, text, until};
use nix::sys::signal::{Signal, kill};

#[test]
fn from_nothing_to_a_guest_and_back() {
    let Some(mut cloud) = Cloud::with_image() else { return };
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
    assert!(!again.status.success() && text(&again).contains("is up in"), "{}", text(&again));

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
fn whoever_is_killed_in_the_middle_of_a_create_the_guest_runs_and_nothing_is_left_over() {
    let Some(cloud) = Cloud::with_image() else { return };
    for role in ["agent", "storage", "haar-libvirt", "controller"] {
        let name = format!("guest-{role}");
        let (code, said) = cloud.create(&name, &["--no-wait"]);
        assert_eq!(code, 0, "{said}");
        cloud.kill(role);
        let state = until(&format!("the end of the create while {role} was killed"), || {
            let state = cloud.field(&name, "state");
            matches!(state.as_str(), "running" | "failed").then_some(state)
        });
        println!("{role} killed: {state}");
        if state == "running" {
            assert_eq!(cloud.domains().len(), 1, "{:?}", cloud.domains());
        }
        let deleted = until("the delete", || {
            let (code, said) = cloud.haar_tried(&["guest", "delete", &name]);
            (code == 0).then_some(said)
        });
        until(&format!("nothing to be left after {deleted}"), || cloud.left_over().is_empty().then_some(()));
    }
}

#[test]
fn everybody_ends_with_a_killed_up_and_the_guest_runs_on() {
    let Some(mut cloud) = Cloud::with_image() else { return };
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
    let Some(cloud) = Cloud::prepare() else { return };
    // In a mount namespace of its own libvirtd cannot be run, and its sockets are hidden.
    let script =
        "mount --bind /dev/null /usr/sbin/libvirtd && mount -t tmpfs tmpfs /run/libvirt && exec \"$@\"";
    let up = cloud.up_command();
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", script, "sh"]).arg(up.get_program()).args(up.get_args());
    for (name, value) in up.get_envs() {
        match value {
            Some(value) => hidden.env(name, value),
            None => hidden.env_remove(name),
        };
    }
    let output = hidden.stdin(Stdio::null()).output().unwrap();
    let said = text(&output);
    assert!(output.status.success() && said.contains("no guest can run yet"), "{said}");
    let (code, said) =
        cloud.haar_tried(&["image", "import", "tiny", &std::env::var("HAAR_TEST_IMAGE").unwrap()]);
    assert_eq!(code, 0, "{said}");
    let words = ["guest", "create", "web", "--flavor", "tiny", "--image", "tiny"];
    let (code, said) = cloud.haar_tried(&words);
    assert!(code == 3 && said.contains("no_room"), "{code} {said}");

    let agent = cloud.process("agent").unwrap().to_string();
    run("nsenter", &["--mount", "--target", &agent, "umount", "/run/libvirt"]);
    until("libvirt to be seen", || {
        let shown = cloud.json(&["hypervisor", "show", "test-host"])?;
        (shown["total_resources"]["cpu"].as_u64()? > 0).then_some(())
    });
    cloud.haar(&words);
    assert_eq!(cloud.field("web", "state"), "running");
}
