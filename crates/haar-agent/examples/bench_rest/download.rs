//! A snapshot's download through the agent, beside a plain static server.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use haar_subagents::kit::Listen;
use haar_subagents::storage::{self, Backend, Config};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::stage::{Connection, LIMIT, Outcome, Stage};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 1024 * MIB;
const ROUNDS: usize = 5;

/// The one figure.
pub(crate) async fn measure(folder: &Path) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    let socket = folder.join("run/storage.sock");
    let config = Config {
        listen: Listen::Unix(socket.clone()),
        root: folder.join("storage"),
        image_dirs: Vec::new(),
        image_service: None,
        backend: Backend::Auto,
        cloud: "bench".to_owned(),
    };
    let serving = tokio::spawn(storage::run(config, std::future::pending()));
    let begun = Instant::now();
    while !socket.exists() {
        if serving.is_finished() || begun.elapsed() > LIMIT {
            return Err("the storage sub-agent did not start".into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let one = |service: &str, method: &str| json!({"stages": [{"service": service, "method": method}]});
    let plan = json!({
        "actions": {
            "create": one("storage", "ImageStore.CreateGuestDisks"),
            "createSnapshot": one("storage", "ImageStore.CreateSnapshot"),
            "downloadSnapshot": one("storageDownload", "ImageStore.DownloadSnapshot"),
        },
        "services": {
            "storage": {"socket": socket},
            "storageDownload": {"socket": socket, "path": "/snapshots/download"},
        },
    });
    let stage = Stage::begin(folder, &plan).await?;
    println!("{}", figure(&stage, folder).await?);
    stage.end().await?;
    serving.abort();
    Ok(())
}

async fn figure(stage: &Stage, folder: &Path) -> Outcome<Value> {
    let path = snapshot(stage).await?;
    let plain = folder.join("plain");
    std::fs::create_dir(&plain)?;
    let server = Static::serve(&plain)?;
    std::fs::write(plain.join("snapshot"), content())?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // In turns, so that what else the machine does meets both alike; the first round warms up.
        let (one, other) = (rate(stage.address, &path).await?, rate(server.address, "/snapshot").await?);
        if round > 0 {
            ours.push(one);
            bare.push(other);
        }
    }
    let (ours, bare) = (median(ours), median(bare));
    Ok(json!({
        "name": "snapshot_download", "value": ours.round(), "unit": "MiB/s", "mib": SIZE / MIB,
        "yardstick": "the same bytes as a file from python3 -m http.server", "yardstick_value": bare.round(),
        "ratio": (ours / bare * 100.0).round() / 100.0, "runs": ROUNDS,
        "read": "median of GET …/snapshots/s/download over loopback, through the agent from the storage sub-agent, to the same client",
    }))
}

/// A guest with one disk full of [`content`], and its snapshot's path.
async fn snapshot(stage: &Stage) -> Outcome<String> {
    let id = Uuid::from_u128(1);
    let mut connection = Connection::open(stage.address).await?;
    let guest = json!({"id": id, "memory": 512, "cpu": 1, "disks": [{"size": SIZE / MIB}]});
    let job = connection.begin("/guests", guest.to_string()).await?;
    stage.done(&[job]).await?;
    let (_, made) = connection.get(&format!("/guests/{id}")).await?;
    let made: Value = serde_json::from_slice(&made)?;
    let disk = made["disks"][0]["source"].as_str().ok_or("the disk has no source")?;
    for part in 0..SIZE / (256 * MIB) {
        let write = format!("write -q -P 7 {} {}", part * 256 * MIB, 256 * MIB);
        let format = made["disks"][0]["haar"]["format"].as_str().unwrap_or("qcow2");
        let status = Command::new("qemu-io").args(["-f", format, "-c", &write, disk]).status()?;
        if !status.success() {
            return Err("qemu-io did not write the disk".into());
        }
    }
    let snapshots = format!("/guests/{id}/disks/0/snapshots");
    let job = connection.begin(&snapshots, json!({"dest": "s"}).to_string()).await?;
    stage.done(&[job]).await?;
    Ok(format!("{snapshots}/s/download"))
}

fn content() -> Vec<u8> {
    vec![7; SIZE as usize]
}

/// MiB a second of a whole body, whose length and bytes are checked.
async fn rate(address: SocketAddr, path: &str) -> Outcome<f64> {
    let mut connection = Connection::open(address).await?;
    let begun = Instant::now();
    let (status, mut body) = connection.stream(path).await?;
    let (mut length, mut first_wrong) = (0, None);
    while let Some(frame) = body.frame().await {
        if let Some(bytes) = frame?.data_ref() {
            // One byte of each piece: enough to see that it is the disk, too little to be what is measured.
            if bytes.first().is_some_and(|byte| *byte != 7) {
                first_wrong = first_wrong.or(Some(length));
            }
            length += bytes.len() as u64;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    match first_wrong {
        None if status == 200 && length == SIZE => Ok((SIZE / MIB) as f64 / took),
        _ => Err(format!("{path}: {status}, {length} bytes, wrong at {first_wrong:?}").into()),
    }
}

/// Python's static server, ended with this value.
struct Static {
    process: Child,
    address: SocketAddr,
}

impl Static {
    fn serve(folder: &Path) -> Outcome<Static> {
        let mut python = Command::new("python3");
        python.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(folder);
        let process = python.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut server = Static { process, address: "127.0.0.1:0".parse()? };
        let mut line = String::new();
        let printed = server.process.stdout.as_mut().ok_or("no output of python3")?;
        BufReader::new(printed).read_line(&mut line)?;
        let port = line.split_whitespace().skip_while(|word| *word != "port").nth(1);
        server.address.set_port(port.ok_or("python3 does not say its port")?.parse()?);
        Ok(server)
    }
}

impl Drop for Static {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
