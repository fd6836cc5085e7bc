//! Images made by the tests themselves: static busybox and a few words of configuration.

use std::io::Write as _;
use std::path::Path;

use haar_subagents::container::oci::Digest;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// An entry of a layer.
pub(crate) enum E<'a> {
    File(&'a str, &'a [u8]),
    Folder(&'a str),
    Symlink(&'a str, &'a str),
}

/// A layer of these entries.
pub(crate) fn layer(entries: &[E<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(0o755);
        header.set_size(0);
        match entry {
            E::File(path, bytes) => {
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, path, *bytes).unwrap();
            }
            E::Folder(path) => {
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, path, std::io::empty()).unwrap();
            }
            E::Symlink(path, target) => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// The layer with busybox and a few of its names.
pub(crate) fn busybox() -> Vec<u8> {
    let program =
        std::fs::read("/bin/busybox").expect("this test needs /bin/busybox: install busybox-static");
    let mut entries = vec![
        E::Folder("./"),
        E::Folder("bin"),
        E::Folder("etc"),
        E::Folder("tmp"),
        E::File("bin/busybox", &program),
        E::File("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/tmp:/bin/sh\n"),
    ];
    for name in
        ["sh", "sleep", "cat", "id", "ip", "ping", "env", "hostname", "true", "touch", "mount", "unshare"]
    {
        entries.push(E::Symlink(Box::leak(format!("bin/{name}").into_boxed_str()), "busybox"));
    }
    layer(&entries)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// An image's parts: blobs by digest, and the manifest's.
pub(crate) struct Image {
    pub(crate) blobs: Vec<(Digest, Vec<u8>)>,
    pub(crate) manifest: Digest,
    pub(crate) config: Digest,
    pub(crate) layers: Vec<Vec<u8>>,
}

/// An image of these layers, which are compressed, with this configuration.
pub(crate) fn image(layers: &[Vec<u8>], run: &Value) -> Image {
    let mut blobs = Vec::new();
    let mut add = |bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        let descriptor = json!({"digest": digest, "size": bytes.len()});
        blobs.push((digest, bytes));
        descriptor
    };
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = add(config.to_string().into_bytes());
    let descriptors: Vec<Value> = layers.iter().map(|layer| add(gzip(layer))).collect();
    let config_digest = Digest::parse(config["digest"].as_str().unwrap()).unwrap();
    let manifest =
        add(json!({"schemaVersion": 2, "config": config, "layers": descriptors}).to_string().into_bytes());
    let manifest = Digest::parse(manifest["digest"].as_str().unwrap()).unwrap();
    Image { blobs, manifest, config: config_digest, layers: layers.to_vec() }
}

/// busybox that runs this script.
pub(crate) fn script(script: &str) -> Image {
    image(&[busybox()], &json!({"Cmd": ["/bin/sh", "-c", script], "Env": ["FROM_IMAGE=yes"]}))
}

impl Image {
    /// Writes it as an OCI layout.
    pub(crate) fn write_layout(&self, folder: &Path) {
        std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        for (digest, bytes) in &self.blobs {
            std::fs::write(folder.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        }
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::fs::write(folder.join("index.json"), self.index().to_string()).unwrap();
    }

    pub(crate) fn index(&self) -> Value {
        let annotations = json!({"org.opencontainers.image.ref.name": "latest"});
        json!({"schemaVersion": 2, "manifests": [{"digest": self.manifest, "size": 1, "annotations": annotations}]})
    }

    /// What `docker save` would write.
    pub(crate) fn docker_save(&self) -> Vec<u8> {
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        let config = self.blobs.iter().find(|(digest, _)| *digest == self.config).unwrap();
        members.push((format!("{}.json", self.config.hex()), config.1.clone()));
        let mut names = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let name = format!("{number:064}/layer.tar");
            members.push((name.clone(), layer.clone()));
            names.push(name);
        }
        let list = json!([{"Config": format!("{}.json", self.config.hex()), "RepoTags": ["test:latest"], "Layers": names}]);
        members.push(("manifest.json".to_owned(), list.to_string().into_bytes()));
        let entries: Vec<E<'_>> = members.iter().map(|(name, bytes)| E::File(name, bytes)).collect();
        layer(&entries)
    }
}
