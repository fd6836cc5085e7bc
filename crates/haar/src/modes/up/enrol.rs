//! Making this machine a hypervisor of the cloud: its record, its agent's token, its agent's configuration.
//!
//! The configuration is written last: without it everything is done again, and what an earlier try has made is
//! found by its name.

use anyhow::Context as _;
use haar_agent::config::{Config, ContainerConfig, LibvirtConfig, RestConfig, StorageConfig};
use haar_api::client::{Client, ClientError};
use haar_api::endpoint::Nothing;
use haar_api::table;
use haar_api::v1::{HypervisorCreate, HypervisorView, Ref, TokenCreate, TokenRole};
use haar_core::name::Name;
use uuid::Uuid;

use super::Words;
use crate::modes::controller::write_secret;
use crate::modes::folder::Folder;

/// This machine in the cloud.
pub(super) struct Enrolled {
    pub(super) cloud: String,
    pub(super) hypervisor: String,
    pub(super) name: String,
}

/// Enrols the machine, or finds it enrolled.
pub(super) async fn enrol(
    client: &Client,
    words: &Words,
    folder: &Folder,
    url: &str,
) -> anyhow::Result<Enrolled> {
    let whoami = client.request::<table::Whoami>(&[]).send(&Nothing).await;
    let cloud = whoami.context("the controller does not know the token in admin.token")?.value.cloud;
    let path = folder.path("agent.toml");
    if path.exists() {
        let mut config = Config::read(&path)?;
        let id = config.hypervisor.to_string();
        let shown = client.request::<table::HypervisorShow>(&[&id]).send(&Nothing).await;
        let view = shown
            .context("this machine is no longer in the cloud's books; move agent.toml away to join anew")?;
        let program = words.libvirt_program.clone().or_else(|| config.libvirt.program.clone());
        let before = config.clone();
        config.controller = url.to_owned();
        config.libvirt.program = program;
        config.storage.backend = words.storage_backend.unwrap_or(config.storage.backend);
        if config != before {
            write(folder, &config)?;
        }
        return Ok(Enrolled { cloud: cloud.to_string(), hypervisor: id, name: view.value.name.to_string() });
    }
    let view = hypervisor(client, words).await?;
    let token = TokenCreate {
        name: format!("agent-{}", &Uuid::new_v4().simple().to_string()[..8]),
        role: TokenRole::Agent,
        hypervisor: Some(Ref(view.id.to_string())),
    };
    let made =
        client.request::<table::TokenPost>(&[]).send(&token).await.context("the agent gets no token")?;
    let token_file = folder.path("agent.token");
    write_secret(&token_file, &made.value.secret)?;
    let config = Config {
        controller: url.to_owned(),
        token_file,
        cloud,
        hypervisor: view.id,
        data_dir: folder.0.clone(),
        run_dir: None,
        reserve_memory_mib: None,
        image_dirs: Vec::new(),
        image_service: None,
        storage: StorageConfig {
            backend: words.storage_backend.unwrap_or_default(),
            ..StorageConfig::default()
        },
        libvirt: LibvirtConfig { program: words.libvirt_program.clone(), ..LibvirtConfig::default() },
        container: ContainerConfig::default(),
        rest: RestConfig::default(),
    };
    write(folder, &config)?;
    Ok(Enrolled { cloud: cloud.to_string(), hypervisor: view.id.to_string(), name: view.name.to_string() })
}

fn write(folder: &Folder, config: &Config) -> anyhow::Result<()> {
    let text = toml::to_string(config).context("the agent's configuration cannot be put into words")?;
    let text = format!("# Written by `haar up`; etc/haar-agent.toml explains the keys.\n{text}");
    write_secret(&folder.path("agent.toml"), text.trim_end())
}

async fn hypervisor(client: &Client, words: &Words) -> anyhow::Result<HypervisorView> {
    let name = match &words.name {
        Some(name) => Name::new(name.as_str())?.to_string(),
        None => host_label(),
    };
    match client.request::<table::HypervisorShow>(&[&name]).send(&Nothing).await {
        Ok(found) => return Ok(found.value),
        Err(ClientError::Problem(problem)) if problem.status == 404 => {}
        Err(error) => return Err(error).context("the controller does not say which machines it knows"),
    }
    let id = Uuid::new_v4().to_string();
    let create = HypervisorCreate { name, ..HypervisorCreate::default() };
    let made = client.request::<table::HypervisorPut>(&[&id]).send(&create).await;
    Ok(made.context("this machine cannot be made a hypervisor")?.value)
}

/// The host's name as a DNS label.
fn host_label() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    label_of(&host)
}

fn label_of(host: &str) -> String {
    let first = host.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    let label: String =
        first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let label = label.trim_matches('-');
    if Name::new(label).is_ok() { label.to_owned() } else { "host-1".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_label() {
        assert_eq!(label_of("lab1.example.org\n"), "lab1");
        assert_eq!(label_of("My_Host"), "my-host");
        assert_eq!(label_of("(none)"), "none");
        assert_eq!(label_of(""), "host-1");
        assert_eq!(label_of("0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11"), "host-1");
    }
}
