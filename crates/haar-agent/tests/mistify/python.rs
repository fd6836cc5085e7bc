//! The sub-agent of the docs, in Python, as a stage of a pipeline.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::world::{G, World};

/// Killed with the test, however it ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path) -> (Process, u16) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/sub-agent.py");
    let mut python = Command::new("python3");
    python.arg(program).arg("0").arg(folder).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = Process(python.spawn().expect("python3 is installed"));
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (process, line.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sub_agent_of_the_docs_takes_part_in_a_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let (_process, port) = start(folder.path());
    let world = World::with(|config| {
        config["services"]["notes"] = json!({"port": port});
        let note = json!({"service": "notes", "method": "Notes.Note", "args": {"text": "hello"}});
        config["actions"]["create"]["stages"].as_array_mut().unwrap().insert(1, note);
        let forget = json!({"service": "notes", "method": "Notes.Forget"});
        config["actions"]["delete"]["stages"].as_array_mut().unwrap().push(forget);
        config["actions"]["start"]["stages"] = json!([{"service": "notes", "method": "Notes.Nothing"}]);
    })
    .await;
    world.guest(json!({})).await;
    assert_eq!(std::fs::read_to_string(folder.path().join(G)).unwrap(), "hello");
    let sent = &world.stub.of("Libvirt.CreateGuest")[0]["guest"];
    assert_eq!(
        (&sent["metadata"]["noted"], &sent["disks"][0]["source"]),
        (&json!("yes"), &json!("/disks/0"))
    );
    let job = world.act("start").await;
    assert!(job["Message"].as_str().unwrap().contains("status 400"), "{job}");
    assert_eq!(world.act("delete").await["Status"], "Complete");
    assert!(!folder.path().join(G).exists());
}

#[test]
fn the_example_is_short() {
    let text = include_str!("../../../../docs/examples/sub-agent.py");
    assert!(text.lines().count() < 60);
}
