//! The seed disk: how a guest learns its name, address and keys at first boot (cloud-init NoCloud).
//!
//! A vfat image with the label `cidata` and four files. The YAML files hold JSON, which is YAML, on one
//! line, so that the smallest reader in a guest can take them apart. The same order makes the same bytes.

use std::io::{Cursor, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use haar_core::order::GuestOrder;
use serde_json::{Value, json};

/// Size of the image: the largest user-data (64 KiB) and the rest fit many times.
const IMAGE_BYTES: usize = 1 << 20;

/// Why a seed disk could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be written.
    #[error("cannot write the seed disk {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file system inside could not be made.
    #[error("cannot lay out the seed disk")]
    Layout(#[source] std::io::Error),
}

impl Error {
    /// Whether there was no room for it.
    pub fn is_full(&self) -> bool {
        let (Error::Write { source, .. } | Error::Layout(source)) = self;
        matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    }
}

/// What cloud-init reads, by file name.
pub fn files(order: &GuestOrder, user_data: Option<&[u8]>) -> Vec<(&'static str, Vec<u8>)> {
    let meta = json!({
        "instance-id": format!("{}-{}", order.id, order.life),
        "local-hostname": order.name.as_str(),
        "public-keys": order.ssh_keys,
    });
    let own = json!({
        "hostname": order.name.as_str(),
        "ssh_authorized_keys": order.ssh_keys,
    });
    let user = match user_data {
        Some(bytes) => bytes.to_vec(),
        None => format!("#cloud-config\n{own}\n").into_bytes(),
    };
    vec![
        ("meta-data", line(&meta)),
        ("network-config", line(&network(order))),
        ("user-data", user),
        ("vendor-data", b"#cloud-config\n{}\n".to_vec()),
    ]
}

/// Writes the seed disk to `path`, whole or not at all; a disk that is there is replaced.
///
/// # Errors
/// [`Error::Write`] with the path when the file system refuses.
pub fn write(path: &Path, order: &GuestOrder, user_data: Option<&[u8]>) -> Result<(), Error> {
    let image = image(&files(order, user_data)).map_err(Error::Layout)?;
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let temporary = path.with_extension("new");
        // User-data may hold secrets; libvirt hands the file to QEMU's user.
        let mut file =
            std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(&image)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Removes the seed disk; one that is not there is removed already.
///
/// # Errors
/// [`Error::Write`] with the path when the file system refuses.
pub fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

/// cloud-init's network configuration, version 2: static addresses for the one interface.
fn network(order: &GuestOrder) -> Value {
    let everywhere = |gateway: IpAddr| if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let routes: Vec<Value> = order
        .gateway
        .iter()
        .map(|gateway| json!({"to": everywhere(*gateway), "via": gateway.to_string()}))
        .collect();
    let mut interface = json!({
        "match": {"macaddress": order.mac.to_string()},
        "set-name": "eth0",
        "addresses": [format!("{}/{}", order.address, order.prefix)],
    });
    if !routes.is_empty() {
        interface["routes"] = Value::Array(routes);
    }
    if !order.dns.is_empty() {
        interface["nameservers"] = json!({"addresses": order.dns});
    }
    json!({"version": 2, "ethernets": {"eth0": interface}})
}

/// A vfat image with these files in its root.
fn image(files: &[(&'static str, Vec<u8>)]) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; IMAGE_BYTES];
    let options = fatfs::FormatVolumeOptions::new().volume_label(*b"cidata     ").volume_id(0x6861_6172);
    fatfs::format_volume(Cursor::new(bytes.as_mut_slice()), options)?;
    let volume = fatfs::FileSystem::new(Cursor::new(bytes.as_mut_slice()), fatfs::FsOptions::new())?;
    for (name, content) in files {
        volume.root_dir().create_file(name)?.write_all(content)?;
    }
    volume.unmount()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_core::fence::Fence;
    use haar_core::guest::{Goal, RestartPolicy};
    use haar_core::name::Name;
    use haar_core::units::{MiB, Resources};
    use std::io::Read;

    fn order() -> GuestOrder {
        let id = |n: u128| uuid::Uuid::from_u128(n);
        GuestOrder {
            id: id(1).into(),
            name: Name::new("web").unwrap(),
            project: Name::default_project(),
            order: Fence::new(1, 9),
            life: Fence::new(1, 7),
            goal: Goal::Running,
            deed: None,
            provisioned: false,
            restart: RestartPolicy::OnFailure,
            job: None,
            flavor: id(2).into(),
            image: id(3).into(),
            resources: Resources { cpu: 1, memory: MiB(256), disk: MiB(1024) },
            network: id(4).into(),
            subnet: id(5).into(),
            mac: "02:1a:2b:3c:4d:5e".parse().unwrap(),
            address: "10.77.0.12".parse().unwrap(),
            prefix: 24,
            gateway: Some("10.77.0.1".parse().unwrap()),
            dns: vec!["10.77.0.1".parse().unwrap()],
            ssh_keys: vec!["ssh-ed25519 AAAA \"ana\"".into()],
            user_data: None,
        }
    }

    fn read(image: Vec<u8>, name: &str) -> String {
        let volume = fatfs::FileSystem::new(Cursor::new(image), fatfs::FsOptions::new()).unwrap();
        let mut text = String::new();
        volume.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_disk_is_labelled_and_holds_what_cloud_init_reads() {
        let image = image(&files(&order(), None)).unwrap();
        let volume = fatfs::FileSystem::new(Cursor::new(image.clone()), fatfs::FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "cidata");
        assert_eq!(volume.read_volume_label_from_root_dir().unwrap().as_deref(), Some("cidata"));
        drop(volume);
        let network: Value = serde_json::from_str(&read(image.clone(), "network-config")).unwrap();
        assert_eq!(network["ethernets"]["eth0"]["addresses"][0], "10.77.0.12/24");
        assert_eq!(network["ethernets"]["eth0"]["routes"][0]["via"], "10.77.0.1");
        let meta: Value = serde_json::from_str(&read(image.clone(), "meta-data")).unwrap();
        assert_eq!(meta["public-keys"][0], "ssh-ed25519 AAAA \"ana\"");
        assert!(read(image, "user-data").starts_with("#cloud-config\n{"));
    }

    #[test]
    fn the_same_order_makes_the_same_bytes_and_user_data_is_passed_as_it_is() {
        let user = b"#!/bin/sh\necho hello\n";
        let one = image(&files(&order(), Some(user))).unwrap();
        assert_eq!(one, image(&files(&order(), Some(user))).unwrap());
        assert_eq!(read(one, "user-data").as_bytes(), user);
    }

    #[test]
    fn the_largest_user_data_fits() {
        assert!(image(&files(&order(), Some(&vec![b'x'; 64 * 1024]))).is_ok());
    }

    #[test]
    fn writing_replaces_and_removing_twice_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guest").join("seed.img");
        write(&path, &order(), None).unwrap();
        write(&path, &order(), Some(b"#cloud-config\n")).unwrap();
        assert_eq!(read(std::fs::read(&path).unwrap(), "user-data"), "#cloud-config\n");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
