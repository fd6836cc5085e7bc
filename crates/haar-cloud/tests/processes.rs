//! Case 24: many processes and one record, and processes that are killed while they write.
//!
//! A child is this very program, asked for one test and told by a variable what to do. It says on its
//! standard output what it has on disk; whatever it said must be there, however it ended.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use haar_cloud::name::ResourceName;
use haar_cloud::state::{Kind, Phase, Record, Store};
use jiff::Timestamp;

const FOLDER: &str = "HAAR_CLOUD_TEST_FOLDER";
const PREFIX: &str = "HAAR_CLOUD_TEST_PREFIX";
const COUNT: &str = "HAAR_CLOUD_TEST_COUNT";

fn store(folder: &Path) -> Store {
    Store::new(folder, "openstack", &ResourceName::parse("a").expect("a provider and a name"))
        .expect("a provider and a name")
}

/// The child's part; without its variables it is nothing.
#[test]
#[ignore = "started by the tests beside it"]
fn child() {
    let (Ok(folder), Ok(prefix), Ok(count)) =
        (std::env::var(FOLDER), std::env::var(PREFIX), std::env::var(COUNT))
    else {
        return;
    };
    let store = store(Path::new(&folder));
    for number in 0..count.parse::<u32>().unwrap() {
        let name = format!("{prefix}-{number}");
        let id = store.change(|record| record.plan(Kind::Server, &name, Timestamp::UNIX_EPOCH)).unwrap();
        println!("planned {name}");
        store.change(|record| record.made(id, &format!("id-{name}"))).unwrap();
        println!("made {name}");
        store.change_secrets(|secrets| secrets.set_admin_password(&name, Some("p"))).unwrap();
        println!("secret {name}");
    }
}

/// A child that ends with this value, however a test ends.
struct Writer {
    child: Child,
    said: std::io::Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn start(folder: &Path, prefix: &str, count: u32) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(PREFIX, prefix)
            .env(COUNT, count.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let said = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        Self { child, said }
    }

    /// What it says next of its own; the test harness says things too.
    fn next(&mut self) -> Option<String> {
        let own = |line: &String| ["planned ", "made ", "secret "].iter().any(|word| line.starts_with(word));
        self.said.by_ref().map_while(Result::ok).find(own)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn holds(store: &Store, record: &Record, line: &str) -> bool {
    let (word, name) = line.split_once(' ').expect("a word and a name");
    match word {
        "planned" => record.find(Kind::Server, name).is_some(),
        "made" => record
            .find(Kind::Server, name)
            .is_some_and(|entry| entry.phase == Phase::Made { cloud_id: format!("id-{name}") }),
        _ => store.secrets().expect("secrets that can be read").admin_password(name) == Some("p"),
    }
}

#[test]
fn case_24_defect_37_processes_at_once_lose_nothing_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    store.begin(Timestamp::UNIX_EPOCH).unwrap();
    let mut writers: Vec<Writer> =
        ["x", "y", "z"].iter().map(|prefix| Writer::start(folder.path(), prefix, 20)).collect();
    for writer in &mut writers {
        // Whoever reads meanwhile always finds a whole record.
        while writer.next().is_some() {
            store.load().unwrap().unwrap();
        }
        assert!(writer.child.wait().unwrap().success());
    }
    let record = store.load().unwrap().unwrap();
    assert_eq!(record.entries().count(), 60);
    assert_eq!(record.unsettled().count(), 0);
    let mut ids: Vec<_> = record.entries().map(|entry| entry.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 60, "no number was used twice");
}

#[test]
fn case_24_defect_04_a_killed_process_leaves_the_old_record_or_the_new_and_nothing_it_was_sure_of_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    store.begin(Timestamp::UNIX_EPOCH).unwrap();
    let mut said = Vec::new();
    for turn in 0..40 {
        let mut writer = Writer::start(folder.path(), &format!("turn{turn}"), 1000);
        // It goes on writing while it is killed, each time at another point of its work.
        for _ in 0..=(turn % 7) {
            said.push(writer.next().expect("it writes until it is killed"));
        }
        for _ in 0..turn * 997 {
            std::hint::spin_loop();
        }
        writer.child.kill().unwrap();
        writer.child.wait().unwrap();
        // The lock went with the process: nothing waits here.
        let record = store.change(|record| Ok(record.clone())).unwrap();
        for line in &said {
            assert!(holds(&store, &record, line), "turn {turn} lost `{line}`");
        }
        let unsettled = record.unsettled().filter(|entry| entry.name.starts_with(&format!("turn{turn}-")));
        assert!(unsettled.count() <= 1, "at most the one it was at");
    }
}
