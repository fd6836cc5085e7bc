//! `haar controller`: the control plane, from a configuration file or from words; words win.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use haar_controller::AdminToken;
use haar_core::address::Cidr;
use serde::Deserialize;

use super::process;

/// The controller: the cloud's books, and the API.
#[derive(Debug, Parser)]
#[command(version, after_help = "An example of the configuration lies in etc/haar-controller.toml.")]
struct Words {
    /// A configuration, TOML; what is said here wins over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder [default: /var/lib/haar/controller]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen; loopback only [default: 127.0.0.1:8600]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The range of the network `default`, made at the first start [default: 10.77.0.0/24]
    #[arg(long, value_name = "CIDR")]
    network: Option<Cidr>,
    /// A name server told to guests of that network; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// A file for an admin's token: when it is not there, a token is made and written to it
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// End when standard input closes: whoever started it is gone then
    #[arg(long)]
    supervised: bool,
}

/// The configuration file; `etc/haar-controller.toml` is the example.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    network: Option<Cidr>,
    dns: Vec<IpAddr>,
    admin_token_file: Option<PathBuf>,
}

pub(super) fn grammar() -> clap::Command {
    <Words as clap::CommandFactory>::command()
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let words: Words = process::words("controller", words);
    process::log();
    process::run(run(words))
}

async fn run(words: Words) -> anyhow::Result<ExitCode> {
    let file = match &words.config {
        Some(path) => read(path)?,
        None => File::default(),
    };
    let data = words.data.or(file.data_dir).unwrap_or_else(|| "/var/lib/haar/controller".into());
    let usual = SocketAddr::from(([127, 0, 0, 1], 8600));
    let mut config = haar_controller::Config::new(data, words.listen.or(file.listen).unwrap_or(usual));
    if let Some(network) = words.network.or(file.network) {
        config.default_range = network;
    }
    config.default_dns = if words.dns.is_empty() { file.dns } else { words.dns };
    let token_file = words.admin_token_file.or(file.admin_token_file);
    if token_file.as_ref().is_some_and(|path| !path.exists()) {
        config.admin = AdminToken::Fresh;
    }
    let running = haar_controller::start(config, process::ends(words.supervised)?).await;
    let running = running.context("the controller does not start")?;
    if let Some(made) = &running.bootstrap {
        let secret = made.admin.reveal();
        match &token_file {
            Some(path) => write_secret(path, secret)?,
            None => println!("admin token (shown this once): {secret}"),
        }
    }
    running.wait().await;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("the configuration {} is wrong", path.display()))
}

/// Writes a file for its owner only, whole or not at all.
pub(super) fn write_secret(path: &Path, secret: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let aside = path.with_extension("new");
        let mut file =
            std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        writeln!(file, "{secret}")?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_read_and_an_unknown_key_is_refused() {
        let example = include_str!("../../../../etc/haar-controller.toml");
        let file: File = toml::from_str(example).unwrap();
        assert_eq!(file.listen, Some("127.0.0.1:8600".parse().unwrap()));
        assert_eq!(file.data_dir.as_deref(), Some(Path::new("/var/lib/haar/controller")));
        let error = toml::from_str::<File>(&format!("colour = 1\n{example}")).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }
}
