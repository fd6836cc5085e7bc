//! A server as Nova tells of it, in this library's words.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use haar_cloud::fault::ServerFault;
use haar_cloud::name::{DeploymentId, OWNER_KEY, Owner};
use haar_cloud::provider::{ServerState, ServerView};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

/// A server as it is told.
#[derive(Debug, Deserialize)]
pub(crate) struct Server {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
    status: String,
    #[serde(rename = "OS-EXT-STS:task_state")]
    task: Option<String>,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "in_order")]
    addresses: Vec<Address>,
    #[serde(default)]
    flavor: Flavor,
    fault: Option<Fault>,
}

#[derive(Debug, Default, Deserialize)]
struct Flavor {
    id: Option<String>,
    /// In place of the id, where a cloud speaks a newer version by itself.
    original_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Address {
    addr: IpAddr,
    #[serde(rename = "OS-EXT-IPS:type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Fault {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

impl Server {
    pub(crate) fn into_view(self) -> ServerView {
        let state = self.state();
        let owner = self.owner();
        let name = if self.name.is_empty() { self.id.clone() } else { self.name };
        let fault = || self.fault.as_ref().map_or((0, ""), |fault| (fault.code, fault.message.as_str()));
        let fault = (state == ServerState::Failed).then(|| {
            let (code, message) = fault();
            ServerFault { code, message }.error(&name)
        });
        let (external, own): (Vec<Address>, Vec<Address>) =
            self.addresses.into_iter().partition(|address| address.kind.as_deref() == Some("floating"));
        let plain = |addresses: Vec<Address>| addresses.into_iter().map(|address| address.addr).collect();
        ServerView {
            id: self.id,
            name,
            state,
            status: self.status,
            fault,
            flavor: self.flavor.id.or(self.flavor.original_name).unwrap_or_default(),
            addresses: plain(own),
            external_addresses: plain(external),
            owner,
        }
    }

    fn state(&self) -> ServerState {
        if self.task.as_deref() == Some("deleting") {
            return ServerState::Leaving;
        }
        match self.status.as_str() {
            "BUILD" => ServerState::Building,
            // It runs while it is moved, and while its password is set.
            "ACTIVE" | "MIGRATING" | "PASSWORD" | "VERIFY_RESIZE" => ServerState::Active,
            "ERROR" => ServerState::Failed,
            "DELETED" | "SOFT_DELETED" => ServerState::Leaving,
            _ => ServerState::Inactive,
        }
    }

    /// Seen from nobody: whose it is, by the id that it bears. Whoever has an id of its own compares.
    fn owner(&self) -> Owner {
        let id = self.metadata.get(OWNER_KEY).and_then(|value| Uuid::try_parse(value).ok());
        id.map_or(Owner::Unmarked, |id| Owner::Another(DeploymentId::from(id)))
    }
}

/// The addresses of all networks, in the order in which the server has them.
fn in_order<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<Address>, D::Error> {
    struct Networks;

    impl<'de> Visitor<'de> for Networks {
        type Value = Vec<Address>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("the addresses by network")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Address>, A::Error> {
            let mut all = Vec::new();
            while let Some((_, mut addresses)) = map.next_entry::<String, Vec<Address>>()? {
                all.append(&mut addresses);
            }
            Ok(all)
        }
    }

    reader.deserialize_map(Networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(text: &str) -> ServerView {
        serde_json::from_str::<Server>(text).unwrap().into_view()
    }

    #[test]
    fn addresses_keep_the_order_of_the_networks_and_floating_ones_are_apart() {
        let view = view(
            r#"{"id": "1", "name": "a", "status": "ACTIVE", "flavor": {"id": "f"}, "addresses": {
                "zeta": [{"addr": "192.168.64.7", "OS-EXT-IPS:type": "fixed"},
                         {"addr": "203.0.113.9", "OS-EXT-IPS:type": "floating"}],
                "alpha": [{"addr": "fd00::1", "OS-EXT-IPS:type": "fixed"}]}}"#,
        );
        let texts = |all: &[IpAddr]| all.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&view.addresses), ["192.168.64.7", "fd00::1"]);
        assert_eq!(texts(&view.external_addresses), ["203.0.113.9"]);
        assert_eq!(
            (view.state, view.flavor.as_str(), view.owner),
            (ServerState::Active, "f", Owner::Unmarked)
        );
    }

    #[test]
    fn each_status_is_one_of_five_and_a_task_of_deleting_counts_more() {
        let state = |status: &str, task: &str| {
            view(&format!(r#"{{"id": "1", "status": "{status}", "OS-EXT-STS:task_state": {task}}}"#)).state
        };
        assert_eq!(state("BUILD", "\"spawning\""), ServerState::Building);
        assert_eq!(state("ACTIVE", "null"), ServerState::Active);
        assert_eq!(state("ACTIVE", "\"deleting\""), ServerState::Leaving);
        assert_eq!(state("SHUTOFF", "null"), ServerState::Inactive);
        assert_eq!(state("SOMETHING_NEW", "null"), ServerState::Inactive);
    }

    #[test]
    fn a_fault_is_sorted_and_only_that_of_a_failed_server_counts() {
        let text = |status: &str| {
            format!(
                r#"{{"id": "1", "name": "a", "status": "{status}",
                "fault": {{"code": 500, "message": "No valid host was found. ", "created": "x"}}}}"#
            )
        };
        assert!(view(&text("ERROR")).fault.unwrap().is_no_hardware());
        assert!(view(&text("ACTIVE")).fault.is_none());
        let silent = view(r#"{"id": "1", "name": "a", "status": "ERROR"}"#);
        assert!(silent.fault.unwrap().to_string().contains("no reason"));
    }

    #[test]
    fn a_server_with_a_mark_tells_whose_it_is() {
        let id = DeploymentId::random();
        let (key, value) = id.metadata();
        let view = view(&format!(r#"{{"id": "1", "status": "BUILD", "metadata": {{"{key}": "{value}"}}}}"#));
        assert_eq!(view.owner, Owner::Another(id));
    }
}
