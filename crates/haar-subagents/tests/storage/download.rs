//! Snapshots as streams: whole, by range, of one disk and of a guest.

use haar_api::rpc::{self, FaultCode};
use tokio::io::AsyncReadExt as _;

use crate::harness::*;
use crate::http::{Answer, begin, http};
use crate::mounted::each;
use crate::snapshots::{Held, ask, content, disk, new, of, write};

const LINE: &str = "POST /snapshots/download";

async fn download(agent: &Agent, id: &str, fields: &[(&str, &str)]) -> Answer {
    http(&agent.socket, LINE, fields, &serde_json::to_vec(&of(id)).unwrap()).await
}

/// A guest with content in two disks, snapshotted as `s`, then written over.
async fn taken(agent: &Agent) -> (Vec<rpc::Disk>, Vec<Vec<u8>>) {
    agent.store_image().await;
    let made = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 6), ("", 3)])).await.unwrap().disks;
    write(&made[0], 7, 1);
    write(&made[1], 8, 2);
    let before = made.iter().map(content).collect();
    ask(agent, "CreateSnapshot", &new(&format!("guests/{GUEST}"), "s")).await.unwrap();
    write(&made[0], 9, 0);
    write(&made[1], 9, 0);
    (made, before)
}

#[tokio::test]
async fn a_snapshot_comes_as_the_disk_was() {
    for (agent, _mount) in each().await {
        let (_, before) = taken(&agent).await;
        let id = format!("{}@s", disk(0));
        let whole = download(&agent, &id, &[]).await;
        assert_eq!(whole.status, 200, "{}", whole.text());
        assert_eq!(whole.fields["content-type"], "application/octet-stream");
        assert_eq!(whole.fields["content-length"], (6 * MIB).to_string());
        assert!(whole.body == before[0], "the bytes are not those of the snapshot");

        let etag = whole.fields["etag"].as_str();
        let middle = download(&agent, &id, &[("range", "bytes=1048570-3145735"), ("if-range", etag)]).await;
        assert_eq!(
            (middle.status, middle.fields["content-range"].as_str()),
            (206, "bytes 1048570-3145735/6291456")
        );
        assert!(middle.body == before[0][1_048_570..=3_145_735]);
        let rest = download(&agent, &id, &[("range", "bytes=6291000-")]).await;
        assert!(rest.status == 206 && rest.body == before[0][6_291_000..]);
        let beyond = download(&agent, &id, &[("range", "bytes=6291456-")]).await;
        assert_eq!((beyond.status, beyond.fields["content-range"].as_str()), (416, "bytes */6291456"));

        // Another snapshot of the same name is another thing.
        ask(&agent, "DeleteSnapshot", &of(&id)).await.unwrap();
        ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await.unwrap();
        let changed = download(&agent, &id, &[("range", "bytes=5-"), ("if-range", etag)]).await;
        assert_eq!((changed.status, changed.body.len() as u64), (200, 6 * MIB));
        assert!(changed.body[0] == 9);
    }
}

#[tokio::test]
async fn a_snapshot_comes_while_the_guest_runs() {
    for (agent, _mount) in each().await {
        let (made, before) = taken(&agent).await;
        let _held = Held::of(&made[0]).await;
        let whole = download(&agent, &format!("{}@s", disk(0)), &[]).await;
        assert!(whole.status == 200 && whole.body == before[0], "{}", whole.status);
    }
}

#[tokio::test]
async fn a_guests_snapshot_comes_as_an_archive_of_its_disks() {
    for (agent, _mount) in each().await {
        let (_, before) = taken(&agent).await;
        let id = format!("guests/{GUEST}@s");
        let whole = download(&agent, &id, &[]).await;
        assert_eq!(whole.status, 200, "{}", whole.text());
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("archive.tar");
        std::fs::write(&archive, &whole.body).unwrap();
        let tar = std::process::Command::new("tar").arg("-xf").arg(&archive).current_dir(&folder).status();
        assert!(tar.unwrap().success());
        for (index, before) in before.iter().enumerate() {
            assert!(std::fs::read(folder.path().join(format!("disk-{index}.raw"))).unwrap() == *before);
        }
        for at in [0, 511, 512, 6 * MIB + 100, 6 * MIB + 600, whole.body.len() as u64 - 1] {
            let part = download(&agent, &id, &[("range", &format!("bytes={at}-"))]).await;
            assert!(part.status == 206 && part.body == whole.body[usize::try_from(at).unwrap()..], "{at}");
        }
    }
}

#[tokio::test]
async fn what_is_being_downloaded_is_not_deleted() {
    for (agent, _mount) in each().await {
        let made = agent.guest("CreateGuestDisks", &guest("1.1", &[("", 64)])).await.unwrap().disks;
        ask(&agent, "CreateSnapshot", &new(&disk(0), "old")).await.unwrap();
        ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await.unwrap();
        let id = format!("{}@s", disk(0));
        let mut stream = begin(&agent.socket, LINE, &[], &serde_json::to_vec(&of(&id)).unwrap()).await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        fails(ask(&agent, "DeleteSnapshot", &of(&id)).await, FaultCode::Conflict, "being downloaded");
        let old = rpc::SnapshotRequest { destroy_more_recent: true, ..of(&format!("{}@old", disk(0))) };
        fails(ask(&agent, "RollbackSnapshot", &old).await, FaultCode::Conflict, "being downloaded");
        write(&made[0], 1, 0);
        ask(&agent, "CreateSnapshot", &new(&disk(0), "newer")).await.expect("other acts go on");
        drop(stream);
        let deadline = tokio::time::Instant::now() + LIMIT;
        while ask(&agent, "DeleteSnapshot", &of(&id)).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "a client that went away still counts");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(agent.names("streams").is_empty());
    }
}

#[tokio::test]
async fn whoever_sends_nothing_takes_nobodys_place() {
    let agent = Agent::start().await;
    agent.guest("CreateGuestDisks", &guest("1.1", &[("", 1)])).await.unwrap();
    ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(begin(&agent.socket, LINE, &[("content-length", "60")], b"{").await);
    }
    let whole = download(&agent, &format!("{}@s", disk(0)), &[]).await;
    assert_eq!((whole.status, whole.body.len() as u64), (200, MIB), "{}", whole.text());
}

/// Writes or discards as a guest would; `commands` are `qemu-io`'s.
fn act(path: &str, commands: &[&str]) {
    let words = commands.iter().flat_map(|command| ["-c", command]);
    let output = std::process::Command::new("qemu-io")
        .args(["-d", "unmap", "-f", "qcow2"])
        .args(words)
        .arg(path)
        .output();
    let output = output.expect("this test needs qemu-io: install qemu-utils");
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn every_kind_of_cluster_comes_as_qemu_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let raw = path("raw");
    // 5 MiB and a sector; the second MiB is a hole.
    let mut bytes = raw_image(5 * MIB + 512);
    bytes[usize::try_from(MIB).unwrap()..usize::try_from(2 * MIB).unwrap()].fill(0);
    std::fs::write(&raw, &bytes).unwrap();
    for (kind, words) in [
        ("raw", vec!["-O", "raw"]),
        ("plain", vec!["-O", "qcow2"]),
        ("compressed", vec!["-O", "qcow2", "-c"]),
        ("small clusters", vec!["-O", "qcow2", "-o", "cluster_size=512"]),
        ("large clusters", vec!["-O", "qcow2", "-o", "cluster_size=2M"]),
        ("subclusters", vec!["-O", "qcow2", "-o", "extended_l2=on"]),
        ("version 2", vec!["-O", "qcow2", "-o", "compat=0.10"]),
    ] {
        let image = path(&format!("{kind}.image"));
        qemu_img(&[&["convert", "-f", "raw"], &words[..], &[&raw, &image]].concat());
        let agent = Agent::start().await;
        let format = words[1];
        agent.fetch(&agent.import(IMAGE, "image", format, &std::fs::read(&image).unwrap())).await.unwrap();
        let made = agent.guest("CreateGuestDisks", &guest("1.1", &[(IMAGE, 9)])).await.unwrap().disks;
        // Across clusters, beyond the image, zeros that are said and zeros that are written, what was given back.
        act(
            &made[0].source,
            &[
                "write -P 201 1000k 100k",
                "write -P 202 8M 700k",
                "write -z 3M 200k",
                "write -P 0 3500k 64k",
                "write -P 203 4M 256k",
                "discard 4M 128k",
                "write -P 204 4608k 64k",
            ],
        );
        let before = content(&made[0]);
        ask(&agent, "CreateSnapshot", &new(&disk(0), "s")).await.unwrap();
        act(&made[0].source, &["write -P 9 0 9M"]);
        let whole = download(&agent, &format!("{}@s", disk(0)), &[]).await;
        assert_eq!((whole.status, whole.body.len()), (200, before.len()), "{kind}");
        let wrong = whole.body.iter().zip(&before).position(|(ours, qemus)| ours != qemus);
        assert_eq!(wrong, None, "{kind}");
        let middle = ("range", "bytes=1023999-8500000");
        let part = download(&agent, &format!("{}@s", disk(0)), &[middle]).await;
        assert!(part.status == 206 && part.body == before[1_023_999..=8_500_000], "{kind}");
        assert!(agent.names("streams").is_empty(), "{kind}");
    }
}
