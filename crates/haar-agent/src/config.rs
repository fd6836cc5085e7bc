//! The agent's configuration: one TOML file, unknown keys refused; `etc/haar-agent.toml` is the example.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use haar_api::rpc::ImageService;
use haar_api::rpc::storage::Backend;
use haar_core::id::{CloudId, HypervisorId};
use serde::{Deserialize, Serialize};

/// What an agent is told at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The controller's address, `http://host:port`.
    pub controller: String,
    /// The file with this agent's token; for its owner only.
    pub token_file: PathBuf,
    /// The cloud's id.
    pub cloud: CloudId,
    /// This machine's id in the cloud.
    pub hypervisor: HypervisorId,
    /// The data folder: ledger, seed disks, images, disks and logs lie below it.
    #[serde(default = "data_dir")]
    pub data_dir: PathBuf,
    /// The folder for sockets; `/run/haar/` and the first eight digits of the cloud's id when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_dir: Option<PathBuf>,
    /// Memory kept back for the host itself, MiB; a tenth, but at least 512, when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_memory_mib: Option<u64>,
    /// Folders that `file://` images may lie in.
    #[serde(default)]
    pub image_dirs: Vec<PathBuf>,
    /// Where images come from that the agent's own REST is asked for by their id alone; they are taken unverified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_service: Option<ImageService>,
    /// The storage sub-agent.
    #[serde(default)]
    pub storage: StorageConfig,
    /// The libvirt sub-agent.
    #[serde(default)]
    pub libvirt: LibvirtConfig,
    /// The container sub-agent.
    #[serde(default)]
    pub container: ContainerConfig,
    /// The agent's own REST, mistify's.
    #[serde(default)]
    pub rest: RestConfig,
}

/// The agent's own REST. It is always on the socket `agent.sock` in the folder for sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestConfig {
    /// An address to listen on besides. One of loopback, such as `127.0.0.1:8080`, is open to every user of this
    /// machine unless guarded; any other needs `certificate`, `key` and `token_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// The certificate, with its chain, that the address shows: PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The certificate's key: PEM, for its owner only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The file with the token that each request through the address carries; for its owner only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The JSON file of actions and services; the built-in ones when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Whether `/debug/pprof` is there.
    pub pprof: bool,
}

/// The storage sub-agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// The program that is run as `PROGRAM storage …`; this very program when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// The socket of one that somebody else runs; none is started then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// What new disks are made of; a disk stays with the back end that made it.
    #[serde(default)]
    pub backend: Backend,
}

/// The container sub-agent, which only the agent's own REST speaks to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerConfig {
    /// The program that is run as `PROGRAM container …`; this very program when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// The socket of one that somebody else runs; none is started then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// The libvirt sub-agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LibvirtConfig {
    /// The program; `haar-libvirt` beside this very program, or on the path, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// The socket of one that somebody else runs; none is started then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// libvirt's URI.
    pub uri: String,
}

impl Default for LibvirtConfig {
    fn default() -> Self {
        LibvirtConfig { program: None, socket: None, uri: "qemu:///system".to_owned() }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("the configuration {path} is wrong: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// What and where.
        message: String,
    },
}

fn data_dir() -> PathBuf {
    "/var/lib/haar".into()
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error`] names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Config, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|error| Error::Syntax { path: path.to_owned(), message: error.to_string() })
    }

    /// Where sockets lie.
    pub fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| run_dir(self.cloud))
    }
}

/// Where the sockets of a cloud's instance on this host lie unless configured otherwise.
pub fn run_dir(cloud: CloudId) -> PathBuf {
    Path::new("/run/haar").join(&cloud.0.simple().to_string()[..8])
}

/// A program beside the running one, else its bare name, which is looked for on the path.
pub fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|folder| folder.join(name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_read() {
        let config: Config = toml::from_str(include_str!("../../../etc/haar-agent.toml")).unwrap();
        assert_eq!(config.data_dir, Path::new("/var/lib/haar"));
        assert_eq!(config.libvirt.uri, "qemu:///system");
        assert_eq!(config.rest, RestConfig::default());
        assert_eq!(config.run_dir(), Path::new("/run/haar/3f2b8c14"));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let example = include_str!("../../../etc/haar-agent.toml");
        let error = toml::from_str::<Config>(&format!("colour = \"red\"\n{example}")).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config: Config = toml::from_str(include_str!("../../../etc/haar-agent.toml")).unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }
}
