//! The yardstick: the same done by nothing but HTTP calls, each of them made as soon as it can be.
//!
//! No record, no retries but for what is still in use, no login but one. It sees the whole project, which is
//! how it is known that nothing is left.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{try_join, try_join_all, try_join3};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{FLAVOR, IMAGE, Outcome, PROJECT, member};

/// The pause between two looks at one server.
pub(crate) const LOOK: Duration = Duration::from_secs(2);
/// The pause until something that is in use is asked to go again.
const IN_USE: Duration = Duration::from_millis(250);
/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(600);
/// As much as cloud-init is told by ours.
const USER_DATA: [u8; 1024] = [b'#'; 1024];

/// A token for the project, and where the services are.
pub(crate) struct Bare {
    http: reqwest::Client,
    token: String,
    compute: String,
    image: String,
    network: String,
    project: String,
}

impl Bare {
    pub(crate) async fn log_in(folder: &Path) -> Outcome<Self> {
        // Installed once in a process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let set = member::variables(folder, "openrc")?;
        let variable = |name: &str| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let domain = json!({"id": "default"});
        let user =
            json!({"name": variable("OS_USERNAME"), "password": variable("OS_PASSWORD"), "domain": domain});
        let login = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": PROJECT, "domain": domain}},
        }});
        let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let keystone = variable("OS_AUTH_URL").ok_or("openrc has no OS_AUTH_URL")?;
        let answer = http.post(format!("{keystone}/auth/tokens")).json(&login).send().await?;
        let answer = answer.error_for_status()?;
        let token = answer.headers().get("X-Subject-Token").ok_or("Keystone gave no token")?;
        let token = token.to_str()?.to_owned();
        let told: Value = answer.json().await?;
        let address = |kind: &str| address(&told, kind).ok_or_else(|| format!("the catalog has no {kind}"));
        let (compute, image) = (address("compute")?, format!("{}/v2", address("image")?));
        let network = format!("{}/v2.0", address("network")?);
        let project = text(&told["token"]["project"], "id")?;
        Ok(Self { http, token, compute, image, network, project })
    }

    /// Makes so many servers at once on what a deployment has made; the time until the last is active.
    pub(crate) async fn spawn(&self, servers: usize, deployment: &str) -> Outcome<Duration> {
        let began = Instant::now();
        let named = |list: &Value, name: &str| {
            let mut things = list.as_array().into_iter().flatten();
            things.find(|thing| thing["name"] == name).map(|thing| thing["id"].clone())
        };
        let flavors = self.list(&format!("{}/flavors", self.compute), "flavors").await?;
        let images = self.list(&format!("{}/images", self.image), "images").await?;
        let networks = self.list(&self.in_network("networks"), "networks").await?;
        let order = |number: usize| {
            json!({"server": {
                "name": format!("{deployment}-{number}"),
                "flavorRef": named(&flavors, FLAVOR), "imageRef": named(&images, IMAGE),
                "key_name": deployment, "config_drive": false, "user_data": STANDARD.encode(USER_DATA),
                "metadata": {"bench": "bare"}, "networks": [{"uuid": named(&networks, deployment)}],
                "security_groups": [{"name": deployment}, {"name": "default"}],
            }})
        };
        try_join_all((0..servers).map(|number| self.server(order(number)))).await?;
        Ok(began.elapsed())
    }

    async fn server(&self, order: Value) -> Outcome<()> {
        let made = self.asked(Method::POST, &format!("{}/servers", self.compute), Some(&order)).await?;
        let address = format!("{}/servers/{}", self.compute, text(&made["server"], "id")?);
        loop {
            tokio::time::sleep(LOOK).await;
            let seen = self.asked(Method::GET, &address, None).await?;
            match seen["server"]["status"].as_str() {
                Some("ACTIVE") => return Ok(()),
                Some("BUILD") => {}
                _ => return Err(format!("a server is {}", seen["server"]["status"]).into()),
            }
        }
    }

    /// Every server of the project.
    pub(crate) async fn servers(&self) -> Outcome<Vec<Value>> {
        things(self.list(&format!("{}/servers/detail", self.compute), "servers").await?)
    }

    pub(crate) async fn destroy_servers(&self, servers: &[Value]) -> Outcome<()> {
        try_join_all(servers.iter().map(|server| self.destroy_server(server))).await?;
        Ok(())
    }

    async fn destroy_server(&self, server: &Value) -> Outcome<()> {
        let address = format!("{}/servers/{}", self.compute, text(server, "id")?);
        self.send(Method::DELETE, &address, None).await?;
        while self.send(Method::GET, &address, None).await?.0 != 404 {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Destroys everything in the project, as much at once as the cloud allows; what that took.
    pub(crate) async fn destroy_all(&self) -> Outcome<Duration> {
        let began = Instant::now();
        self.destroy_servers(&self.servers().await?).await?;
        try_join3(self.destroy_key_pairs(), self.destroy_each("security-groups"), self.destroy_ground())
            .await?;
        Ok(began.elapsed())
    }

    async fn destroy_key_pairs(&self) -> Outcome<()> {
        for pair in things(self.list(&format!("{}/os-keypairs", self.compute), "keypairs").await?)? {
            let name = text(&pair["keypair"], "name")?;
            self.destroy(&format!("{}/os-keypairs/{name}", self.compute)).await?;
        }
        Ok(())
    }

    /// The routers' interfaces, then routers and networks; a subnet goes with its network.
    async fn destroy_ground(&self) -> Outcome<()> {
        for port in things(self.list(&self.in_network("ports"), "ports").await?)? {
            if port["device_owner"] == "network:router_interface" {
                let router = text(&port, "device_id")?;
                let address = format!("{}/routers/{router}/remove_router_interface", self.network);
                self.asked(Method::PUT, &address, Some(&json!({"port_id": port["id"]}))).await?;
            }
        }
        try_join(self.destroy_each("routers"), self.destroy_each("networks")).await?;
        Ok(())
    }

    async fn destroy_each(&self, collection: &str) -> Outcome<()> {
        for thing in self.of_project(collection).await? {
            let address = format!("{}/{collection}/{}", self.network, text(&thing, "id")?);
            self.destroy(&address).await?;
        }
        Ok(())
    }

    async fn destroy(&self, address: &str) -> Outcome<()> {
        let began = Instant::now();
        loop {
            match self.send(Method::DELETE, address, None).await? {
                (200..=299 | 404, _) => return Ok(()),
                (409, _) if began.elapsed() < PATIENCE => tokio::time::sleep(IN_USE).await,
                (status, answer) => return Err(format!("DELETE {address}: {status}, {answer}").into()),
            }
        }
    }

    /// What the project still has.
    pub(crate) async fn left(&self) -> Outcome<Vec<String>> {
        let mut left: Vec<Value> = self.servers().await?;
        left.extend(things(self.list(&format!("{}/os-keypairs", self.compute), "keypairs").await?)?);
        for collection in ["ports", "floatingips", "routers", "subnets", "networks", "security-groups"] {
            left.extend(self.of_project(collection).await?);
        }
        Ok(left.iter().map(Value::to_string).collect())
    }

    /// Everything of a kind, but for what each project has by itself.
    async fn of_project(&self, collection: &str) -> Outcome<Vec<Value>> {
        let list = self.list(&self.in_network(collection), &collection.replace('-', "_")).await?;
        let mut found = things(list)?;
        found.retain(|thing| collection != "security-groups" || thing["name"] != "default");
        Ok(found)
    }

    fn in_network(&self, collection: &str) -> String {
        format!("{}/{collection}?project_id={}", self.network, self.project)
    }

    async fn list(&self, address: &str, key: &str) -> Outcome<Value> {
        Ok(self.asked(Method::GET, address, None).await?[key].take())
    }

    /// An answer that must be good.
    async fn asked(&self, method: Method, address: &str, body: Option<&Value>) -> Outcome<Value> {
        match self.send(method.clone(), address, body).await? {
            (200..=299, answer) => Ok(answer),
            (status, answer) => Err(format!("{method} {address}: {status}, {answer}").into()),
        }
    }

    async fn send(&self, method: Method, address: &str, body: Option<&Value>) -> Outcome<(u16, Value)> {
        let mut request = self.http.request(method, address).header("X-Auth-Token", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        // Some good answers have no body.
        Ok((status, serde_json::from_slice(&answer.bytes().await?).unwrap_or_default()))
    }
}

/// The public address of a service.
fn address(told: &Value, kind: &str) -> Option<String> {
    let mut services = told["token"]["catalog"].as_array()?.iter();
    let endpoints = services.find(|service| service["type"] == kind)?["endpoints"].as_array()?;
    let public = endpoints.iter().find(|endpoint| endpoint["interface"] == "public")?;
    Some(public["url"].as_str()?.trim_end_matches('/').to_owned())
}

fn things(list: Value) -> Outcome<Vec<Value>> {
    match list {
        Value::Array(things) => Ok(things),
        other => Err(format!("no list: {other}").into()),
    }
}

fn text(value: &Value, key: &str) -> Outcome<String> {
    value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no {key} in {value}").into())
}
