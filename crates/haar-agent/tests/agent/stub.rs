//! Stub sub-agents in processes of their own: this very test binary, run again with `STUB_FOLDER` set.
//!
//! What they made they remember in files, as a host does, so that killing them loses nothing. What they shall do
//! wrong is said by files too: `hang-METHOD` and `hang-METHOD-GUEST` hang as long as they are there, `fail-METHOD`
//! fails with its content, `freeze` stops the whole process from answering.

use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_agent::supervise::Program;
use haar_api::rpc::{self, Fault, FaultCode};
use haar_subagents::kit;

/// The program that plays the sub-agent of this name in this folder.
pub(crate) fn program(name: &'static str, folder: &Path) -> Program {
    let args = ["stub_process", "--exact", "--nocapture", "--test-threads=1"].map(Into::into).to_vec();
    let script = format!(
        "STUB_NAME={name} STUB_FOLDER='{}' exec '{}' \"$@\"",
        folder.display(),
        std::env::current_exe().unwrap().display()
    );
    let mut shell = vec!["-c".into(), script.into(), "stub".into()];
    shell.extend(args);
    Program { name, file: "/bin/sh".into(), args: shell, log: Some(folder.join(format!("{name}.log"))) }
}

/// The test that is the stub's process; in an ordinary run it has nothing to do.
pub(crate) fn main() {
    let (Some(name), Some(folder)) = (std::env::var_os("STUB_NAME"), std::env::var_os("STUB_FOLDER")) else {
        return;
    };
    let (name, folder) = (name.into_string().unwrap(), PathBuf::from(folder));
    // Its supervisor holds the other end of the standard input.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(&name, &folder));
}

async fn serve(name: &str, folder: &Path) {
    let mut server = kit::Server::new();
    let methods: &[&str] = match name {
        "storage" => &["ImageStore.CreateGuestDisks", "ImageStore.DeleteGuestsDisks"],
        _ => &[
            "Libvirt.CreateGuest",
            "Libvirt.Run",
            "Libvirt.Shutdown",
            "Libvirt.Poweroff",
            "Libvirt.Reboot",
            "Libvirt.Delete",
            "Libvirt.Status",
        ],
    };
    for &method in methods {
        let folder = folder.to_owned();
        server.method(method, move |request: rpc::GuestRequest| {
            let folder = folder.clone();
            async move {
                let guest = request.guest.unwrap();
                misbehave(&folder, method, &guest.id).await?;
                let guest = act(&folder, method, guest)?;
                late(&folder, method).await;
                Ok(rpc::GuestResponse { guest: Some(guest), ..rpc::GuestResponse::default() })
            }
        });
    }
    looks(&mut server, folder);
    let socket = folder.join(format!("{name}.sock"));
    server.serve(kit::Listen::Unix(socket), std::future::pending()).await.unwrap();
}

/// What only looks, and the image.
fn looks(server: &mut kit::Server, folder: &Path) {
    let images = folder.to_owned();
    server.method("ImageStore.RequestImage", move |request: rpc::ImageRequest| {
        let folder = images.clone();
        async move {
            misbehave(&folder, "ImageStore.RequestImage", "").await?;
            std::fs::write(folder.join(format!("image-{}", request.id)), "").unwrap();
            let image = rpc::Image { id: request.id, status: "complete".into(), ..rpc::Image::default() };
            Ok(rpc::ImageResponse { images: Some(vec![image]) })
        }
    });
    let images = folder.to_owned();
    server.method("ImageStore.ListImages", move |_: rpc::ImageRequest| {
        let complete = |id: String| rpc::Image { id, status: "complete".into(), ..rpc::Image::default() };
        note(&images, "ImageStore.ListImages", "");
        let images = Some(stored_images(&images).into_iter().map(complete).collect());
        async move { Ok(rpc::ImageResponse { images }) }
    });
    let images = folder.to_owned();
    server.method("ImageStore.DeleteImage", move |request: rpc::ImageRequest| {
        note(&images, "ImageStore.DeleteImage", &request.id);
        std::fs::remove_file(images.join(format!("image-{}", request.id))).unwrap();
        async { Ok(rpc::ImageResponse::default()) }
    });
    let volumes = folder.to_owned();
    server.method("ImageStore.ListVolumes", move |_: rpc::VolumeRequest| {
        let volumes = list(&volumes, "disk").into_iter().map(|guest| rpc::Volume {
            id: format!("guests/{}/disk-0", guest.id),
            device: format!("/disks/{}", guest.id),
            haar: Some(rpc::DiskExtra {
                life: guest.haar.unwrap_or_default().life,
                ..rpc::DiskExtra::default()
            }),
            ..rpc::Volume::default()
        });
        let volumes = volumes.collect();
        async move { Ok(rpc::VolumeResponse { volumes }) }
    });
    server.method("ImageStore.Capacity", |_: rpc::Nothing| async {
        Ok(rpc::CapacityResponse {
            total_bytes: 100 << 30,
            free_bytes: 100 << 30,
            ..rpc::CapacityResponse::default()
        })
    });
    let domains = folder.to_owned();
    server.method("Libvirt.List", move |_: rpc::Nothing| {
        let folder = domains.clone();
        async move {
            misbehave(&folder, "Libvirt.List", "").await?;
            Ok(rpc::GuestListResponse { guests: list(&folder, "domain") })
        }
    });
    let host = folder.to_owned();
    server.method("Libvirt.Host", move |_: rpc::Nothing| {
        let folder = host.clone();
        async move {
            misbehave(&folder, "Libvirt.Host", "").await?;
            Ok(rpc::HostResponse {
                cpus: 8,
                memory_mib: 16_384,
                accel: "tcg".into(),
                ..rpc::HostResponse::default()
            })
        }
    });
}

async fn misbehave(folder: &Path, method: &str, guest: &str) -> Result<(), Fault> {
    while folder.join("freeze").exists() {
        // The whole process: its one thread sleeps.
        std::thread::sleep(Duration::from_millis(5));
    }
    let hangs = || {
        folder.join(format!("hang-{method}")).exists()
            || folder.join(format!("hang-{method}-{guest}")).exists()
    };
    if hangs() {
        std::fs::write(folder.join("hung"), method).unwrap();
    }
    while hangs() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    match std::fs::read_to_string(folder.join(format!("fail-{method}"))) {
        Ok(text) => Err(Fault::parse(&text)),
        Err(_) => Ok(()),
    }
}

/// Answers late: what was asked is done by then.
async fn late(folder: &Path, method: &str) {
    while folder.join(format!("late-{method}")).exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn act(folder: &Path, method: &str, mut guest: rpc::Guest) -> Result<rpc::Guest, Fault> {
    note(folder, method, &guest.id);
    match method {
        "ImageStore.CreateGuestDisks" => {
            guest.disks[0].source = format!("/disks/{}", guest.id);
            keep(folder, "disk", &guest)?;
        }
        "ImageStore.DeleteGuestsDisks" => drop_record(folder, "disk", &guest)?,
        "Libvirt.CreateGuest" => {
            guest.state = "shutoff".into();
            keep(folder, "domain", &guest)?;
        }
        "Libvirt.Delete" => drop_record(folder, "domain", &guest)?,
        _ => {
            let mut found = find(folder, "domain", &guest.id)
                .ok_or_else(|| Fault::new(FaultCode::NotFound, "there is no such domain"))?;
            match method {
                "Libvirt.Run" => found.state = "running".into(),
                "Libvirt.Shutdown" | "Libvirt.Poweroff" => found.state = "shutoff".into(),
                _ => {}
            }
            store(folder, "domain", &found);
            guest.state = found.state;
        }
    }
    Ok(guest)
}

fn keep(folder: &Path, kind: &str, guest: &rpc::Guest) -> Result<(), Fault> {
    check_life(folder, kind, guest)?;
    if find(folder, kind, &guest.id).is_none() {
        store(folder, kind, guest);
    }
    Ok(())
}

fn drop_record(folder: &Path, kind: &str, guest: &rpc::Guest) -> Result<(), Fault> {
    check_life(folder, kind, guest)?;
    let _ = std::fs::remove_file(folder.join(format!("{kind}-{}.json", guest.id)));
    Ok(())
}

fn check_life(folder: &Path, kind: &str, guest: &rpc::Guest) -> Result<(), Fault> {
    let life = |guest: &rpc::Guest| guest.haar.as_ref().map(|extra| extra.life.clone());
    match find(folder, kind, &guest.id) {
        Some(found) if life(&found) != life(guest) => {
            Err(Fault::new(FaultCode::Conflict, "another life of the guest"))
        }
        _ => Ok(()),
    }
}

fn note(folder: &Path, method: &str, guest: &str) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("calls")).unwrap();
    writeln!(file, "{method} {guest}").unwrap();
}

fn store(folder: &Path, kind: &str, guest: &rpc::Guest) {
    let path = folder.join(format!("{kind}-{}.json", guest.id));
    let aside = path.with_extension(format!("new{:?}", std::thread::current().id()));
    std::fs::write(&aside, serde_json::to_vec(guest).unwrap()).unwrap();
    std::fs::rename(aside, path).unwrap();
}

/// Ids of the images that were requested and not removed.
pub(crate) fn stored_images(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| Some(name.to_str()?.strip_prefix("image-")?.to_owned())).collect()
}

/// What is there of one guest.
pub(crate) fn find(folder: &Path, kind: &str, guest: &str) -> Option<rpc::Guest> {
    let bytes = std::fs::read(folder.join(format!("{kind}-{guest}.json"))).ok()?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

/// Everything of a kind that is there.
pub(crate) fn list(folder: &Path, kind: &str) -> Vec<rpc::Guest> {
    let prefix = format!("{kind}-");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut guests: Vec<rpc::Guest> = names
        .filter_map(|name| {
            let name = name.into_string().ok()?;
            find(folder, kind, name.strip_prefix(&prefix)?.strip_suffix(".json")?)
        })
        .collect();
    guests.sort_by(|left, right| left.id.cmp(&right.id));
    guests
}
