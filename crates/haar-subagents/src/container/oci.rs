//! The documents of an image: digests, an index, a manifest, a configuration, and the list of a `docker save`.
//!
//! Promised: nothing that is read here has been trusted before; documents have a bound, lists have a bound, and a
//! digest is one of exactly one spelling. Deliberately absent: SHA-512, signatures, other systems than Linux.

use haar_api::rpc::{Fault, FaultCode};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes a document may have.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Layers an image may have; Docker builds none with more than 127.
pub const MAX_LAYERS: usize = 256;
/// An index of indexes is followed so deep.
pub(super) const MAX_INDEX_DEPTH: usize = 3;

/// `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Reads a digest.
    ///
    /// # Errors
    /// [`FaultCode::BadImage`] for any other spelling and any other algorithm.
    pub fn parse(text: &str) -> Result<Digest, Fault> {
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(lower_hex) => Ok(Digest(text.to_owned())),
            _ => {
                let shown: String = text.chars().take(80).collect();
                Err(bad(format!("{shown:?} is no digest; one is sha256: and 64 lower-case hex digits")))
            }
        }
    }

    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::ended(Sha256::new_with_prefix(bytes))
    }

    /// The digest of all that a hash has seen.
    pub(super) fn ended(hash: Sha256) -> Digest {
        Digest(format!("sha256:{}", hex::encode(hash.finalize())))
    }

    /// The hex digits alone.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Refuses what is not of this digest.
    pub(super) fn check(&self, what: &str, found: &Digest) -> Result<(), Fault> {
        if self == found {
            return Ok(());
        }
        Err(bad(format!("{what} has the digest {} and should have {}", found.0, self.0)))
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).map_err(|fault| serde::de::Error::custom(fault.message))
    }
}

/// What one document says of another.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Descriptor {
    /// Of the bytes it stands for.
    pub digest: Digest,
    /// How many there are.
    #[serde(default)]
    pub size: u64,
    /// What machine they are for, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// `org.opencontainers.image.ref.name` is the tag, in the index of a layout.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// A kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `linux`
    #[serde(default)]
    pub os: String,
}

/// A manifest, or an index of manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Which manifest is for which machine.
    Index(Vec<Descriptor>),
    /// What an image is made of.
    Manifest {
        /// The image's configuration.
        config: Descriptor,
        /// Its layers, the lowest first.
        layers: Vec<Descriptor>,
    },
}

impl Document {
    /// Reads either; which of the two it is, its members say.
    ///
    /// # Errors
    /// [`FaultCode::BadImage`] says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Document, Fault> {
        #[derive(Deserialize)]
        struct Loose {
            #[serde(default, rename = "schemaVersion")]
            version: Option<u64>,
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
        }
        let loose: Loose = read("manifest", bytes)?;
        if loose.version.is_some_and(|version| version != 2) {
            return Err(bad("the manifest is of an old kind; schemaVersion must be 2"));
        }
        match (loose.manifests, loose.config, loose.layers) {
            (Some(manifests), None, None) => Ok(Document::Index(manifests)),
            (None, Some(config), Some(layers)) => {
                check_layers(layers.len())?;
                Ok(Document::Manifest { config, layers })
            }
            _ => Err(bad("the manifest is neither an index nor a manifest of config and layers")),
        }
    }
}

/// The manifest of an index for this machine.
///
/// # Errors
/// [`FaultCode::BadImage`] names what there is instead.
pub(super) fn for_this_machine(manifests: &[Descriptor]) -> Result<&Descriptor, Fault> {
    let architecture = architecture();
    let fits = |one: &&Descriptor| match &one.platform {
        None => true,
        Some(platform) => platform.os == "linux" && platform.architecture == architecture,
    };
    manifests.iter().find(fits).ok_or_else(|| {
        let there = manifests.iter().filter_map(|one| one.platform.as_ref());
        let there: Vec<String> =
            there.take(16).map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect();
        bad(format!("the image is not for linux/{architecture}, only for: {}", there.join(", ")))
    })
}

/// This machine's architecture, as images call it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// What an image says of itself: how to run it, and what its layers unpack to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `amd64`, …
    pub architecture: String,
    /// `linux`
    pub os: String,
    /// How to run it.
    #[serde(deserialize_with = "null_is_empty")]
    pub config: RunConfig,
    /// Its layers.
    pub rootfs: RootFs,
}

/// How an image wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    #[serde(deserialize_with = "null_is_empty")]
    pub user: String,
    /// `NAME=value`
    #[serde(deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// The program.
    #[serde(deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or the program itself without an entrypoint.
    #[serde(deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Where it begins.
    #[serde(deserialize_with = "null_is_empty")]
    pub working_dir: String,
    /// What asks it to end.
    #[serde(deserialize_with = "null_is_empty")]
    pub stop_signal: String,
}

/// What the layers unpack to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// The digests of the layers as they are when decompressed, the lowest first.
    #[serde(deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Reads an image's configuration.
    ///
    /// # Errors
    /// [`FaultCode::BadImage`] says what is wrong, or that the image is for another machine.
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig, Fault> {
        let config: ImageConfig = read("image's configuration", bytes)?;
        check_layers(config.rootfs.diff_ids.len())?;
        let fits = |found: &str, wanted: &str| found.is_empty() || found == wanted;
        if !fits(&config.os, "linux") || !fits(&config.architecture, architecture()) {
            let (os, found) = (&config.os, &config.architecture);
            return Err(bad(format!("the image is for {os}/{found}, this is linux/{}", architecture())));
        }
        let run = &config.config;
        let words = run.env.iter().chain(&run.entrypoint).chain(&run.cmd);
        if words.chain([&run.user, &run.working_dir, &run.stop_signal]).any(|word| word.contains('\0')) {
            return Err(bad("the image's configuration holds a zero byte"));
        }
        Ok(config)
    }
}

/// One image of a `docker save` archive. The names are those of the archive's members and lead nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Saved {
    /// The member that holds the configuration.
    pub config: String,
    /// `repository:tag`
    #[serde(default, deserialize_with = "null_is_empty")]
    pub repo_tags: Vec<String>,
    /// The members that hold the layers, the lowest first.
    pub layers: Vec<String>,
}

/// Reads the list of a `docker save` archive.
///
/// # Errors
/// [`FaultCode::BadImage`] says what is wrong.
pub fn parse_saved(bytes: &[u8]) -> Result<Vec<Saved>, Fault> {
    let saved: Vec<Saved> = read("list of a docker save archive", bytes)?;
    for image in &saved {
        check_layers(image.layers.len())?;
    }
    Ok(saved)
}

fn check_layers(count: usize) -> Result<(), Fault> {
    if count <= MAX_LAYERS {
        return Ok(());
    }
    Err(bad(format!("the image has {count} layers, at most {MAX_LAYERS} are taken")))
}

fn read<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, Fault> {
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(bad(format!("the {what} has more than {MAX_DOCUMENT_BYTES} bytes")));
    }
    serde_json::from_slice(bytes).map_err(|error| bad(format!("the {what} cannot be read: {error}")))
}

/// A fault of the image.
pub(super) fn bad(message: impl Into<String>) -> Fault {
    Fault::new(FaultCode::BadImage, message)
}

/// Builders write `null` where they mean nothing.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_spelling() {
        let sound = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Digest::parse(&sound).unwrap().hex(), "0a".repeat(32));
        for hostile in [
            String::new(),
            "sha256:".to_owned(),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha512:{}", "0a".repeat(64)),
            format!("sha256:{}", "../".repeat(21) + "a"),
            format!("sha256:{}/", "0a".repeat(31)),
            format!(" {sound}"),
        ] {
            assert_eq!(Digest::parse(&hostile).unwrap_err().code, FaultCode::BadImage, "{hostile:?}");
        }
    }

    #[test]
    fn null_and_absence_mean_nothing() {
        let config = ImageConfig::parse(br#"{"config":{"Env":null,"Cmd":null,"User":null}}"#).unwrap();
        assert_eq!(config, ImageConfig::default());
        assert_eq!(ImageConfig::parse(br#"{"config":null}"#).unwrap(), ImageConfig::default());
        assert_eq!(ImageConfig::parse(b"{}").unwrap(), ImageConfig::default());
    }

    #[test]
    fn an_image_for_another_machine_is_refused_with_what_it_is_for() {
        let fault = ImageConfig::parse(br#"{"os":"windows","architecture":"vax"}"#).unwrap_err();
        assert!(fault.message.contains("windows/vax"), "{fault}");
        let digest = Digest::of(b"");
        let index = format!(
            r#"{{"manifests":[{{"digest":"{digest}","platform":{{"os":"linux","architecture":"vax"}}}}]}}"#
        );
        let Document::Index(manifests) = Document::parse(index.as_bytes()).unwrap() else {
            panic!("no index")
        };
        assert!(for_this_machine(&manifests).unwrap_err().message.contains("linux/vax"));
    }

    #[test]
    fn more_layers_than_anybody_builds_are_refused() {
        let layers = vec![format!(r#"{{"digest":"{}"}}"#, Digest::of(b"")); MAX_LAYERS + 1].join(",");
        let text = format!(r#"{{"config":{{"digest":"{}"}},"layers":[{layers}]}}"#, Digest::of(b""));
        assert_eq!(Document::parse(text.as_bytes()).unwrap_err().code, FaultCode::BadImage);
    }

    /// Documents of friends and strangers: none panics, whichever reader it comes to.
    #[test]
    fn the_corpus_of_documents_is_read_or_refused() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/corpus/document");
        let mut taken = Vec::new();
        for file in std::fs::read_dir(corpus).unwrap() {
            let file = file.unwrap();
            let bytes = std::fs::read(file.path()).unwrap();
            for end in 0..=bytes.len().min(400) {
                let _ = Document::parse(&bytes[..end]);
                let _ = ImageConfig::parse(&bytes[..end]);
                let _ = parse_saved(&bytes[..end]);
            }
            if Document::parse(&bytes).is_ok() {
                taken.push(file.file_name().into_string().unwrap());
            }
        }
        taken.sort();
        assert_eq!(taken, ["index", "index-empty", "manifest"]);
    }
}
