//! The other runtime: some of these tests once more on a host that has only `crun`.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::harness::left_out;

/// Life, limits, powers, holding, networks, restarts and saving.
const AGAIN: &[&str] = &[
    "containers::s05_a_container_lives_its_whole_life_and_leaves_nothing",
    "containers::limits_hold",
    "containers::a_held_container_does_nothing_until_it_is_let_go",
    "containers::a_container_has_few_powers_and_its_own_user",
    "containers::a_container_that_cannot_begin_says_why_and_leaves_nothing",
    "network::two_containers_on_a_bridge_reach_each_other_by_their_addresses",
    "restart::a_failure_is_run_again_until_it_ends_well",
    "save::what_a_container_wrote_is_in_a_container_of_its_saved_image",
    "killed::a_container_runs_on_without_the_sub_agent_and_is_found_again",
];

/// `crun` refuses a host that has both kinds of cgroups, so the new one is hidden from these processes.
const HIDE_AND_RUN: &str =
    "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi && exec \"$0\" \"$@\"";

#[test]
fn crun_does_what_runc_does() {
    if !nix::unistd::geteuid().is_root() {
        return left_out("only root runs containers");
    }
    if Command::new("crun").arg("--version").output().is_err() {
        return left_out("crun is not installed");
    }
    let bin = tempfile::tempdir().unwrap();
    symlink("/bin/false", bin.path().join("runc")).unwrap();
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    let mut again = Command::new("unshare");
    again.args(["--mount", "sh", "-c", HIDE_AND_RUN]).arg(std::env::current_exe().unwrap());
    let output = again.args(["--exact"]).args(AGAIN).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&format!("{} passed", AGAIN.len())), "all of them are run: {said}");
}
