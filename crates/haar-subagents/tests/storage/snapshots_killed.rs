//! Kills in the middle of snapshots: what was answered stands, and nothing is half there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_api::rpc;
use haar_subagents::kit;
use haar_subagents::storage::Backend;

use crate::harness::*;
use crate::http::http;
use crate::killed::{BACKEND, Process};
use crate::mounted::Mounted;
use crate::snapshots::{Held, ask, content, disk, new, of, write};

/// A `qemu-img` that stops before the acts it is told to stop before, until the gate is opened.
pub(crate) struct Gated {
    bin: PathBuf,
    pub(crate) path: String,
}

impl Gated {
    pub(crate) fn before(folder: &Path, pattern: &str) -> Self {
        Self::with(folder, pattern, |bin| {
            format!(
                "[ -e {bin}/shut ] && touch {bin}/reached\n  while [ -e {bin}/shut ]; do sleep 0.02; done"
            )
        })
    }

    /// One that fails at these acts.
    pub(crate) fn failing(folder: &Path, pattern: &str) -> Self {
        Self::with(folder, pattern, |_| "echo No space left on device >&2; exit 1".to_owned())
    }

    /// One that stops after these acts, while its caller waits for it still.
    pub(crate) fn after(folder: &Path, pattern: &str) -> Self {
        Self::with(folder, pattern, |bin| {
            format!(
                "$real \"$@\" || exit\n  sync -f {bin}\n  [ -e {bin}/shut ] && touch {bin}/reached\n  while [ -e {bin}/shut ]; do \
                 sleep 0.02; done; exit 0"
            )
        })
    }

    fn with(folder: &Path, pattern: &str, act: impl FnOnce(&str) -> String) -> Self {
        let bin = folder.join("bin");
        std::fs::create_dir(&bin).unwrap();
        let path = std::env::var("PATH").unwrap();
        let real = path.split(':').map(|folder| Path::new(folder).join("qemu-img"));
        let real = real.into_iter().find(|path| path.is_file()).expect("this test needs qemu-img");
        let (bin_text, real) = (bin.display().to_string(), real.display());
        let act = act(&bin_text);
        let script = format!(
            "#!/bin/sh\nreal={real}\ncase \"$*\" in {pattern})\n  {act} ;;\nesac\nexec {real} \"$@\"\n"
        );
        std::fs::write(bin.join("qemu-img"), script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bin.join("qemu-img"), mode).unwrap();
        Gated { path: format!("{bin_text}:{path}"), bin }
    }

    pub(crate) fn shut(&self) {
        std::fs::write(self.bin.join("shut"), "").unwrap();
    }

    pub(crate) async fn reached(&self) {
        until("qemu-img stands before the gate", || self.bin.join("reached").exists()).await;
    }

    pub(crate) fn open(&self) {
        std::fs::remove_file(self.bin.join("shut")).unwrap();
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        // Whoever waits must not wait for ever.
        let _ = std::fs::remove_file(self.bin.join("shut"));
    }
}

async fn call(folder: &Path, method: &str, request: &rpc::SnapshotRequest) -> Result<(), kit::CallError> {
    let socket = folder.join("run/storage.sock");
    let method = format!("ImageStore.{method}");
    kit::call::<_, rpc::SnapshotResponse>(&socket, &method, request, LIMIT).await.map(drop)
}

/// A guest with two disks, of which `before` was taken when they held ones.
async fn guest_with_snapshot(folder: &Path, backend: Backend) -> Vec<rpc::Disk> {
    let agent = Agent::start_with(folder, backend).await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 4), ("", 4)])).await.unwrap().disks;
    for made in &made {
        write(made, 1, 0);
    }
    ask(&agent, "CreateSnapshot", &new(&format!("guests/{GUEST}"), "before")).await.unwrap();
    for made in &made {
        write(made, 2, 0);
    }
    agent.stop().await;
    made
}

async fn listening(folder: &Path) {
    let socket = folder.join("run/storage.sock");
    until_answers(&socket).await;
}

fn assert_sound(made: &[rpc::Disk]) {
    for made in made.iter().filter(|made| made.source.ends_with(".qcow2")) {
        // Fails when clusters are lost or nobody's.
        qemu_img(&["check", "-q", "-f", "qcow2", &made.source]);
    }
}

#[tokio::test]
async fn killed_in_the_middle_of_a_snapshot_it_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let made = guest_with_snapshot(folder.path(), Backend::Qcow2).await;
    let gated = Gated::before(folder.path(), "snapshot*-c*disk-1*");
    let process = Process::start(folder.path(), &[("PATH", &gated.path)]);
    listening(folder.path()).await;
    gated.shut();
    let path = folder.path().to_owned();
    let asking =
        tokio::spawn(
            async move { call(&path, "CreateSnapshot", &new(&format!("guests/{GUEST}"), "half")).await },
        );
    gated.reached().await;
    drop(process);
    assert!(asking.await.unwrap().is_err(), "nothing was promised");
    assert!(qemu_img(&["snapshot", "-l", &made[0].source]).contains("half"), "the first disk has it");

    // The program that is left over still waits; its snapshot must not come after the tidying up.
    let path = folder.path().to_owned();
    let starting = tokio::spawn(async move { Agent::start_in(&path).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!starting.is_finished(), "it starts while a program of the earlier run still works");
    gated.open();
    let agent = starting.await.unwrap();
    let left = ask(&agent, "ListSnapshots", &of("")).await.unwrap();
    assert!(left.len() == 3 && left.iter().all(|snapshot| snapshot.id.ends_with("@before")), "{left:?}");
    assert!(!agent.root.join(format!("disks/{GUEST}/pending.json")).exists());
    assert_sound(&made);
    assert!(made.iter().all(|made| content(made)[0] == 2), "the disks are as they were");
    ask(&agent, "CreateSnapshot", &new(&format!("guests/{GUEST}"), "half")).await.expect("the name is free");
}

#[tokio::test]
async fn killed_in_the_middle_of_a_rollback_it_finishes_it() {
    let folder = tempfile::tempdir().unwrap();
    let made = guest_with_snapshot(folder.path(), Backend::Qcow2).await;
    let gated = Gated::before(folder.path(), "snapshot*-a*disk-1*");
    let process = Process::start(folder.path(), &[("PATH", &gated.path)]);
    listening(folder.path()).await;
    gated.shut();
    let path = folder.path().to_owned();
    let back = of(&format!("guests/{GUEST}@before"));
    let asking = tokio::spawn(async move { call(&path, "RollbackSnapshot", &back).await });
    gated.reached().await;
    drop(process);
    assert!(asking.await.unwrap().is_err());
    gated.open();
    let agent = Agent::start_in(folder.path()).await;
    assert!(made.iter().all(|made| content(made)[0] == 1), "half of a rollback is no state of a guest");
    assert_sound(&made);
    assert!(!agent.root.join(format!("disks/{GUEST}/pending.json")).exists());
}

/// What a kill between two disks leaves, on each back end.
async fn left_half_done(
    act: &str,
    disks: &str,
) -> Vec<(Agent, Vec<rpc::Disk>, Option<Mounted>, tempfile::TempDir)> {
    let mut agents = Vec::new();
    for mounted in std::iter::once(None).chain(Mounted::all().into_iter().map(Some)) {
        let temp = tempfile::tempdir().unwrap();
        let folder = mounted.as_ref().map_or(temp.path(), Mounted::folder).to_owned();
        let backend = mounted.as_ref().map_or(Backend::Qcow2, Mounted::backend);
        let made = guest_with_snapshot(&folder, backend).await;
        let agent = Agent::start_with(&folder, backend).await;
        ask(&agent, "CreateSnapshot", &new(&disk(0), "half")).await.unwrap();
        agent.stop().await;
        let record = format!(
            r#"{{"v":1,"act":"{act}","name":"{}","disks":{disks}}}"#,
            match act {
                "roll_back" => "before",
                _ => "half",
            }
        );
        std::fs::write(folder.join(format!("storage/disks/{GUEST}/pending.json")), record).unwrap();
        agents.push((Agent::start_with(&folder, backend).await, made, mounted, temp));
    }
    agents
}

#[tokio::test]
async fn every_act_that_was_cut_in_two_is_settled_at_start() {
    for (act, first_byte) in [("take", 2), ("forget", 2), ("roll_back", 1)] {
        for (agent, made, _mount, _temp) in left_half_done(act, "[0,1]").await {
            let left = ask(&agent, "ListSnapshots", &of("")).await.unwrap();
            assert!(
                left.len() == 3 && left.iter().all(|left| left.id.ends_with("@before")),
                "{act}: {left:?}"
            );
            assert!(made.iter().all(|made| content(made)[0] == first_byte), "{act}");
            assert!(!agent.root.join(format!("disks/{GUEST}/pending.json")).exists(), "{act}");
        }
    }
}

const ROLL_BACK: &str = r#"{"v":1,"act":"roll_back","name":"before","disks":[0,1]}"#;

#[tokio::test]
async fn a_rollback_is_not_finished_under_a_guest_that_was_started_since() {
    for (agent, made, _mount, _temp) in left_half_done("take", "[0,1]").await {
        let record = agent.root.join(format!("disks/{GUEST}/pending.json"));
        std::fs::write(&record, ROLL_BACK).unwrap();
        let held = Held::of(&made[1]).await;
        let refused = ask(&agent, "CreateSnapshot", &new(&disk(1), "s")).await;
        fails(refused, haar_api::rpc::FaultCode::Conflict, "shut the guest off");
        assert!(!record.exists());
        drop(held);
        ask(&agent, "CreateSnapshot", &new(&disk(1), "s")).await.unwrap();
        assert!(made.iter().all(|made| content(made)[0] == 2), "what the guest holds counts more");
    }
}

#[tokio::test]
async fn whoever_only_reads_finishes_no_rollback() {
    for (agent, made, _mount, _temp) in left_half_done("take", "[0,1]").await {
        let record = agent.root.join(format!("disks/{GUEST}/pending.json"));
        std::fs::write(&record, ROLL_BACK).unwrap();
        let id = format!("{}@before", disk(0));
        ask(&agent, "ListSnapshots", &of("")).await.unwrap();
        ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap();
        ask(&agent, "GetSnapshot", &of(&id)).await.unwrap();
        let body = serde_json::to_vec(&of(&id)).unwrap();
        assert_eq!(http(&agent.socket, "POST /snapshots/download", &[], &body).await.status, 200);
        assert!(record.exists() && made.iter().all(|made| content(made)[0] == 2));
    }
}

#[tokio::test]
async fn what_was_written_since_outlives_an_interrupted_rollback() {
    for mounted in std::iter::once(None).chain(Mounted::all().into_iter().map(Some)) {
        let temp = tempfile::tempdir().unwrap();
        let folder = mounted.as_ref().map_or(temp.path(), Mounted::folder).to_owned();
        let backend = mounted.as_ref().map_or(Backend::Qcow2, Mounted::backend);
        let made = guest_with_snapshot(&folder, backend).await;
        let record = folder.join(format!("storage/disks/{GUEST}/pending.json"));
        std::fs::write(&record, ROLL_BACK).unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(600);
        std::fs::File::open(&record).unwrap().set_modified(long_ago).unwrap();
        let agent = Agent::start_with(&folder, backend).await;
        assert!(!record.exists());
        assert!(made.iter().all(|made| content(made)[0] == 2), "{backend}: a guest wrote that");
        let left = ask(&agent, "ListSnapshots", &of("")).await.unwrap();
        assert_eq!(left.len(), 3, "{backend}: {left:?}");
    }
}

#[tokio::test]
async fn a_rollback_that_failed_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let made = guest_with_snapshot(folder.path(), Backend::Qcow2).await;
    let failing = Gated::failing(folder.path(), "snapshot*-a*disk-1*");
    let process = Process::start(folder.path(), &[("PATH", &failing.path)]);
    listening(folder.path()).await;
    let back = of(&format!("guests/{GUEST}@before"));
    let words = format!("{:?}", call(folder.path(), "RollbackSnapshot", &back).await.unwrap_err());
    assert!(words.contains("No space left") && words.contains("given up"), "{words}");
    assert!(!folder.path().join(format!("storage/disks/{GUEST}/pending.json")).exists());
    write(&made[0], 3, 0);
    drop(process);
    let agent = Agent::start_in(folder.path()).await;
    ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await.unwrap();
    assert_eq!(content(&made[0])[0], 3);
}

#[tokio::test]
async fn a_snapshot_that_is_half_taken_is_hidden_and_hinders_no_reader() {
    for (agent, made, _mount, _temp) in left_half_done("take", "[0,1]").await {
        ask(&agent, "CreateSnapshot", &new(&disk(0), "half")).await.unwrap();
        let record = agent.root.join(format!("disks/{GUEST}/pending.json"));
        std::fs::write(&record, r#"{"v":1,"act":"take","name":"half","disks":[0,1]}"#).unwrap();
        let _held = Held::of(&made[0]).await;
        let shown = ask(&agent, "ListSnapshots", &of(&disk(0))).await.unwrap();
        assert!(shown.len() == 1 && shown[0].id.ends_with("@before"), "{shown:?}");
        assert!(record.exists(), "whoever reads settles nothing");
    }
}

#[tokio::test]
async fn a_list_of_everything_takes_no_snapshot_away() {
    let agent = Agent::start().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1), ("", 1)])).await.unwrap();
    let all = format!("guests/{GUEST}");
    let taking = async {
        for number in 0..8 {
            ask(&agent, "CreateSnapshot", &new(&all, &format!("s{number}"))).await.unwrap();
        }
    };
    let listing = async {
        loop {
            ask(&agent, "ListSnapshots", &of("")).await.unwrap();
        }
    };
    tokio::select! {
        () = taking => {}
        () = listing => {}
    }
    assert_eq!(ask(&agent, "ListSnapshots", &of(&all)).await.unwrap().len(), 3 * 8);
}

#[tokio::test]
async fn a_damaged_record_is_left_to_an_operator_and_stops_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    guest_with_snapshot(folder.path(), Backend::Qcow2).await;
    let record = folder.path().join(format!("storage/disks/{GUEST}/pending.json"));
    std::fs::write(&record, "{").unwrap();
    let agent = Agent::start_in(folder.path()).await;
    let refused = ask(&agent, "ListSnapshots", &of(&disk(0))).await;
    fails(refused, haar_api::rpc::FaultCode::Conflict, "remove that file");
    let other = rpc::Guest { id: OTHER_GUEST.into(), ..guest("1.1", &[("", 1)]) };
    agent.guest("CreateGuestDisks", &other).await.unwrap();
    ask(&agent, "CreateSnapshot", &new(&format!("guests/{OTHER_GUEST}"), "s")).await.unwrap();
}

/// Snapshots without end until the kill; answers the names that were promised.
async fn promised_until_killed(folder: &Path, round: u64, life: Duration) -> BTreeSet<String> {
    let word = std::fs::read_to_string(folder.join("backend")).unwrap_or_else(|_| "qcow2".to_owned());
    let process = Process::start(folder, &[(BACKEND, &word)]);
    listening(folder).await;
    let path = folder.to_owned();
    let asking = tokio::spawn(async move {
        let mut promised = BTreeSet::new();
        for number in 0.. {
            let name = format!("r{round}-{number}");
            match call(&path, "CreateSnapshot", &new(&format!("guests/{GUEST}"), &name)).await {
                Ok(()) => promised.insert(name),
                Err(_) => break,
            };
        }
        promised
    });
    tokio::time::sleep(life).await;
    drop(process);
    asking.await.unwrap()
}

#[tokio::test]
async fn killed_at_any_moment_it_keeps_what_it_promised_and_nothing_in_halves() {
    let mounts = Mounted::all();
    let temp = tempfile::tempdir().unwrap();
    let mut folders = vec![(temp.path().to_owned(), Backend::Qcow2)];
    for mounted in &mounts {
        std::fs::write(mounted.folder().join("backend"), mounted.backend().to_string()).unwrap();
        folders.push((mounted.folder().to_owned(), mounted.backend()));
    }
    for (folder, backend) in folders {
        let made = guest_with_snapshot(&folder, backend).await;
        let mut promised = BTreeSet::from(["before".to_owned()]);
        // Programs are started for each act; through FUSE they take longer.
        let step = if backend == Backend::Zfs { 150 } else { 37 };
        for round in 0.. {
            let life = Duration::from_millis(40 + step * round);
            promised.append(&mut promised_until_killed(&folder, round, life).await);
            let agent = Agent::start_with(&folder, backend).await;
            let mut disks_of = BTreeMap::<String, usize>::new();
            for snapshot in ask(&agent, "ListSnapshots", &of("")).await.unwrap() {
                let (dataset, name) = snapshot.id.split_once('@').unwrap();
                *disks_of.entry(name.to_owned()).or_default() += usize::from(dataset.contains("disk-"));
            }
            assert!(disks_of.values().all(|count| *count == 2), "{backend} round {round}: {disks_of:?}");
            let standing: BTreeSet<_> = disks_of.into_keys().collect();
            assert!(standing.is_superset(&promised), "{backend} round {round}: {promised:?}");
            assert_sound(&made);
            agent.stop().await;
            // On a busy host the kills come too early at first to show anything.
            if round >= 5 && promised.len() > 6 {
                break;
            }
            assert!(round < 60, "too few snapshots were taken: {promised:?}");
        }
    }
}
