//! T59 to T65 of the fact sheet (`mistify-wire` §5.5): requests and answers byte by byte, as an original client
//! writes and reads them. T66 and T67 are the storage sub-agent's.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::agent;
use crate::harness::{Agent, LIMIT};

const G: &str = "3f2b8c14-5d0e-4a57-9a43-6f1f7a1d2b90";

/// An answer of HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn is_text(&self) -> bool {
        self.content_type.starts_with("text/plain") && !self.body.is_empty()
    }
}

/// Asks the path of the wire, byte by byte.
async fn http(agent: &Agent, method: &str, body: &str, content_type: &str) -> Answer {
    let mut stream = tokio::net::UnixStream::connect(agent.socket()).await.unwrap();
    let request = format!(
        "{method} /_mistify_RPC_ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, content_type: header("content-type"), body: body.to_owned() }
}

async fn post(agent: &Agent, body: &str, content_type: &str) -> Answer {
    http(agent, "POST", body, content_type).await
}

/// A guest as the seed's agent sends it for the seed's controller: no `haar`, a network per MAC.
fn foreign() -> Value {
    let nic = |last: u8, name: &str| {
        json!({"name": name, "network": "br0", "model": "virtio", "mac": format!("02:00:00:00:00:0{last}"),
            "address": format!("10.0.0.{last}"), "netmask": "ffffff00", "gateway": "<nil>", "vlans": [1]})
    };
    let disk = |index: u8| {
        json!({"bus": "", "device": "", "size": 10, "volume": "", "image": "",
            "source": format!("/dev/zvol/p/guests/{G}/disk-{index}")})
    };
    json!({"id": G, "memory": 64, "cpu": 1, "nics": [nic(1, "eth0"), nic(2, "eth1")], "disks": [disk(0), disk(1)]})
}

async fn call(agent: &Agent, method: &str, guest: &Value) -> Answer {
    let params = json!([{"guest": guest, "action": "any"}]);
    post(agent, &json!({"method": method, "params": params, "id": 7}).to_string(), "application/json").await
}

/// The guest answered, in the whole envelope.
fn guest(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!((&body["error"], &body["id"]), (&Value::Null, &json!(7)), "{body}");
    body["result"]["guest"].clone()
}

#[tokio::test]
async fn t59_status_answers_the_guests_state_in_the_envelope() {
    let agent = agent().await;
    guest(&call(&agent, "Libvirt.CreateGuest", &foreign()).await);
    let answer = call(&agent, "Libvirt.Status", &json!({"id": G})).await;
    assert_eq!(answer.content_type, "application/json; charset=utf-8");
    assert_eq!(guest(&answer)["state"], "shutoff");
    let keys: Vec<String> = answer.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["error", "id", "result"], "no `jsonrpc`");
    guest(&call(&agent, "Libvirt.Run", &foreign()).await);
    assert_eq!(guest(&call(&agent, "Libvirt.Status", &json!({"id": G})).await)["state"], "running");
}

#[tokio::test]
async fn t60_an_unknown_domain_is_an_error_string() {
    let agent = agent().await;
    let answer = call(&agent, "Libvirt.Status", &json!({"id": G})).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!((&body["result"], &body["id"]), (&Value::Null, &json!(7)), "{body}");
    assert!(body["error"].as_str().unwrap().starts_with("not_found: "), "{body}");
}

#[tokio::test]
async fn t61_get_is_405() {
    let answer = http(&agent().await, "GET", "", "application/json").await;
    assert_eq!((answer.status, answer.is_text()), (405, true), "{answer:?}");
}

#[tokio::test]
async fn t62_another_content_type_is_415() {
    let answer = post(&agent().await, "{}", "text/plain").await;
    assert_eq!((answer.status, answer.is_text()), (415, true), "{answer:?}");
}

#[tokio::test]
async fn t63_an_unknown_method_and_missing_params_are_400() {
    let agent = agent().await;
    for body in [
        json!({"method": "Libvirt.Nope", "params": [{}], "id": 1}),
        json!({"method": "Libvirt.status", "params": [{}], "id": 1}),
        json!({"method": "Libvirt.Status", "id": 1}),
        json!({"method": "Libvirt.Status", "params": [], "id": 1}),
    ] {
        let answer = post(&agent, &body.to_string(), "application/json").await;
        assert_eq!((answer.status, answer.is_text()), (400, true), "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn t64_create_guest_names_the_disks_and_makes_a_network_per_mac() {
    let agent = agent().await;
    let defined = guest(&call(&agent, "Libvirt.CreateGuest", &foreign()).await);
    let devices: Vec<_> =
        defined["disks"].as_array().unwrap().iter().map(|d| (&d["device"], &d["bus"])).collect();
    assert_eq!(devices, [(&json!("vda"), &json!("virtio")), (&json!("vdb"), &json!("virtio"))]);
    assert_eq!((&defined["type"], &defined["id"]), (&json!("kvm"), &json!(G)));
    assert_eq!(guest(&call(&agent, "Libvirt.Status", &json!({"id": G})).await)["state"], "shutoff");
    let running = guest(&call(&agent, "Libvirt.Run", &json!({"id": G})).await);
    assert_eq!(running["state"], "running");
}

#[tokio::test]
async fn t65_delete_removes_domain_and_networks_and_echoes_the_guest() {
    let agent = agent().await;
    guest(&call(&agent, "Libvirt.CreateGuest", &foreign()).await);
    let deleted = guest(&call(&agent, "Libvirt.Delete", &foreign()).await);
    assert_eq!((&deleted["id"], &deleted["memory"]), (&json!(G), &json!(64)));
    assert!(call(&agent, "Libvirt.Status", &json!({"id": G})).await.json()["error"].is_string());
    guest(&call(&agent, "Libvirt.Delete", &foreign()).await);
}

#[tokio::test]
async fn metrics_come_without_a_guest_and_in_the_seeds_shapes() {
    let agent = agent().await;
    guest(&call(&agent, "Libvirt.CreateGuest", &foreign()).await);
    guest(&call(&agent, "Libvirt.Run", &foreign()).await);
    let measured = async |method: &str| {
        let answer = agent.raw(method, &json!({"guest": foreign(), "type": "any"})).await.unwrap();
        assert_eq!(answer["guest"], Value::Null, "{answer}");
        answer
    };
    let cpu = measured("Libvirt.CPUMetrics").await;
    let list = cpu["cpu"].as_array().unwrap();
    assert!(!list.is_empty() && list.iter().all(|cpu| cpu["cpu_time"].as_f64().unwrap() > 0.0), "{cpu}");
    let nics = measured("Libvirt.NicMetrics").await;
    let names: Vec<&str> = nics["nic"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((names, &nics["type"]), (vec!["eth0", "eth1"], &json!("nic")));
}
