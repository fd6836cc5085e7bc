//! The REST with Haar's own storage sub-agent as a service: disks, snapshots and a download that are real.

use std::future::Future;
use std::time::{Duration, Instant};

use haar_subagents::kit::Listen;
use haar_subagents::storage::{self, Backend, Config};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::world::{G, World};

/// The sub-agent in a folder of its own; it ends with the test.
pub(crate) struct Storage {
    folder: TempDir,
    serving: JoinHandle<Result<(), storage::Error>>,
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Storage {
    pub(crate) async fn start() -> Storage {
        let folder = tempfile::tempdir().unwrap();
        // QEMU's user must get through to the disks.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), mode).unwrap();
        let config = Config {
            listen: Listen::Unix(folder.path().join("run/storage.sock")),
            root: folder.path().join("storage"),
            image_dirs: Vec::new(),
            image_service: None,
            backend: Backend::Auto,
            cloud: "cloud-a".to_owned(),
        };
        let never: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(std::future::pending());
        let storage = Storage { folder, serving: tokio::spawn(storage::run(config, never)) };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(storage.socket()).is_err() {
            assert!(
                Instant::now() < deadline && !storage.serving.is_finished(),
                "the storage does not start"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        storage
    }

    /// Whether anything of the guest's is there.
    pub(crate) fn holds(&self, guest: &str) -> bool {
        let mut folders = vec![self.folder.path().join("storage")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_name().to_string_lossy().contains(guest) {
                    return true;
                }
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        false
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("run/storage.sock")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_real_disks_is_made_snapshot_downloaded_rolled_back_and_removed() {
    const SIZE: usize = 8 << 20;
    let storage = Storage::start().await;
    let world = World::with(|config| {
        config["services"]["storage"] = json!({"socket": storage.socket()});
        config["services"]["storageDownload"] =
            json!({"socket": storage.socket(), "path": "/snapshots/download"});
    })
    .await;
    assert_eq!(world.get("/images?type=kvm").await.is(200).text(), "null\n");
    world.guest(json!({"disks": [{"size": 8}]})).await;
    let guest = world.get(&format!("/guests/{G}")).await.json();
    let disk = std::path::PathBuf::from(guest["disks"][0]["source"].as_str().unwrap());
    assert!(disk.is_file() && storage.holds(G), "{guest}");
    assert!(world.stub.of("Libvirt.CreateGuest")[0]["guest"]["disks"][0]["haar"]["format"].is_string());

    let snapshots = format!("/guests/{G}/disks/0/snapshots");
    world.get(&format!("{snapshots}/s1")).await.fault(404);
    let taken = world.post(&snapshots, &json!({"dest": "s1"})).await.is(200);
    let job = world.ended(&taken.job()).await;
    assert_eq!(job["Status"], "Complete", "{job}");
    let listed = world.get(&snapshots).await.is(200).json();
    assert_eq!((&listed[0]["id"], &listed[0]["size"]), (&json!(format!("guests/{G}/disk-0@s1")), &json!(8)));

    let whole = world.get(&format!("{snapshots}/s1/download")).await.is(200);
    assert_eq!(
        (whole.body.len(), whole.headers["content-type"].to_str().unwrap()),
        (SIZE, "application/octet-stream")
    );
    let rest = world.get_with(&format!("{snapshots}/s1/download"), "range", "bytes=8388000-").await.is(206);
    assert_eq!(rest.body, whole.body.slice(8_388_000..));

    let back =
        world.post(&format!("{snapshots}/s1/rollback"), &json!({"destroyMoreRecent": true})).await.is(200);
    let job = world.ended(&back.job()).await;
    assert_eq!(job["Status"], "Complete", "{job}");
    let deleted = world.ask("DELETE", &format!("{snapshots}/s1"), "").await.is(200);
    assert_eq!(world.ended(&deleted.job()).await["Status"], "Complete");
    let job = world.act("delete").await;
    assert_eq!(job["Status"], "Complete", "{job}");
    assert!(!disk.exists() && !storage.holds(G));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_fails_later_leaves_no_disk() {
    let storage = Storage::start().await;
    let world = World::with(|config| {
        config["services"]["storage"] = json!({"socket": storage.socket()});
    })
    .await;
    world
        .stub
        .on("Libvirt.CreateGuest", crate::stub::Manner::Error("conflict: a domain of that name exists"));
    let asked = json!({"id": G, "memory": 1, "cpu": 1, "disks": [{"size": 8}]});
    let job = world.post("/guests", &asked).await.is(202).job();
    assert_eq!(world.ended(&job).await["Message"], "conflict: a domain of that name exists");
    assert_eq!(world.stub.of("Libvirt.Delete").len(), 0, "the domain is somebody else's");
    assert!(!storage.holds(G));
    world.ask("POST", &format!("/guests/{G}/poweroff"), "").await.fault(409);
    assert_eq!(world.act("delete").await["Status"], "Complete");
    assert_eq!(world.stub.of("Libvirt.Delete").len(), 0);
}
