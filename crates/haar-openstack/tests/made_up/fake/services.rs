//! The services of the made-up cloud: what each answers when nothing is wrong.

use serde_json::{Value, json};

use super::{Call, Reply, World};

/// What an operator puts into it.
pub(crate) fn furnish(world: &mut World) {
    world.add("networks", json!({"name": "public", "router:external": true, "tags": []}));
    world.of("flavors").extend([
        json!({"id": "f1", "name": "small", "vcpus": 1, "ram": 1024, "disk": 10}),
        json!({"id": "f2", "name": "large", "vcpus": 8, "ram": 8192, "disk": 20}),
    ]);
    let image = |id: &str, name: &str, status: &str| {
        json!({"id": id, "name": name, "status": status, "min_disk": 3, "min_ram": 0,
            "created_at": "2026-01-01T00:00:00Z"})
    };
    world.of("images").extend([image("i1", "Debian 12", "active"), image("i2", "Empty", "queued")]);
}

pub(crate) fn log_in(world: &mut World, call: &Call<'_>) -> Reply {
    let identity = &call.body["auth"]["identity"];
    let is_known = match identity["methods"][0].as_str() {
        Some("password") => identity["password"]["user"]["password"] == "secret",
        Some("application_credential") => identity["application_credential"]["secret"] == "secret",
        Some("token") => identity["token"]["id"] == "given",
        _ => false,
    };
    if !is_known {
        let message = "The request you have made requires authentication.";
        return Reply::json(
            401,
            &json!({"error": {"code": 401, "message": message, "title": "Unauthorized"}}),
        );
    }
    world.logins += 1;
    let token = format!("token-{}", world.logins);
    world.tokens.push(token.clone());
    let mut catalog = Vec::new();
    for (kind, path) in [
        ("compute", "compute/v2.1"),
        ("network", "network"),
        ("image", "image"),
        ("volumev3", "volume/v3/p1"),
    ] {
        if world.without.contains(&kind) {
            continue;
        }
        let endpoint = |region: &str| json!({"interface": "public", "url": format!("{}/{path}", call.url), "region": region, "region_id": region});
        catalog.push(json!({"type": kind, "name": kind, "endpoints": [endpoint("one"), endpoint("two")]}));
    }
    let body = json!({"token": {"project": {"id": "p1", "name": "demo"}, "catalog": catalog,
        "issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2026-01-01T01:00:00.000000Z"}});
    let mut reply = Reply::json(201, &body);
    reply.headers.push(("x-subject-token".to_owned(), token));
    reply
}

pub(crate) fn serve(world: &mut World, call: &Call<'_>) -> Reply {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    match &path[..] {
        ["compute", "v2.1", rest @ ..] => compute(world, call, rest),
        ["network", "v2.0", rest @ ..] => network(world, call, rest),
        ["image", "v2", "images"] => page(world, call, "images", "images"),
        ["volume", "v3", "p1", "volumes", rest @ ..] => volumes(world, call, rest),
        ["volume", "v3", "p1", "os-quota-sets", "p1"] => {
            let gigabytes = json!({"limit": -1, "in_use": 7, "reserved": 1});
            Reply::json(200, &json!({"quota_set": {"id": "p1", "gigabytes": gigabytes}}))
        }
        _ => Reply::empty(404),
    }
}

fn compute(world: &mut World, call: &Call<'_>, path: &[&str]) -> Reply {
    match (call.method, path) {
        ("GET", ["limits"]) => Reply::json(
            200,
            &json!({"limits": {"rate": [], "absolute": {
                "maxTotalInstances": -1, "maxTotalCores": 20, "maxTotalRAMSize": 51200,
                "totalInstancesUsed": 4, "totalCoresUsed": 6, "totalRAMUsed": 6144}}}),
        ),
        ("GET", ["flavors", "detail"]) => page(world, call, "flavors", "flavors"),
        ("GET", ["servers", "detail"]) => page(world, call, "servers", "servers"),
        ("POST", ["servers"]) => {
            let mut server = call.body["server"].clone();
            server["status"] = "BUILD".into();
            server["flavor"] = json!({"id": server["flavorRef"]});
            if let Some((looks, then)) = &world.becomes {
                server["later"] = json!({"looks": looks, "then": then});
            }
            let id = world.add("servers", server);
            let port = json!({"device_id": id, "device_owner": "compute:nova", "network_id": "n", "tags": [],
                "fixed_ips": [{"subnet_id": "s", "ip_address": "192.168.64.7"}]});
            world.add("ports", port);
            Reply::json(202, &json!({"server": {"id": id, "adminPass": "pw"}}))
        }
        ("GET", ["servers", id]) => {
            grow(world, id);
            one(world, "servers", "server", id)
        }
        ("DELETE", ["servers", id]) => {
            world.of("ports").retain(|port| port["device_id"] != *id);
            remove(world, "servers", id)
        }
        ("POST", ["os-keypairs"]) => {
            let mut pair = call.body["keypair"].clone();
            pair["id"] = pair["name"].clone();
            world.of("keypairs").push(pair.clone());
            Reply::json(200, &json!({"keypair": pair}))
        }
        ("GET", ["os-keypairs", name]) => one(world, "keypairs", "keypair", name),
        ("DELETE", ["os-keypairs", name]) => remove(world, "keypairs", name),
        _ => Reply::empty(404),
    }
}

/// One look nearer to what a server becomes.
fn grow(world: &mut World, id: &str) {
    let Some(server) = find(world, "servers", id) else { return };
    match server["later"]["looks"].as_u64() {
        None => {}
        Some(0) => {
            let then = server["later"]["then"].as_object().cloned().unwrap();
            server.as_object_mut().unwrap().extend(then);
        }
        Some(looks) => server["later"]["looks"] = (looks - 1).into(),
    }
}

/// A volume is made by the second look at it, and is gone after the second request for its end. None goes with its
/// server by itself: so it is left when Nova falls in the midst of it.
fn volumes(world: &mut World, call: &Call<'_>, path: &[&str]) -> Reply {
    match (call.method, path) {
        ("GET", ["detail"]) => page(world, call, "volumes", "volumes"),
        ("POST", []) => {
            let mut volume = call.body["volume"].clone();
            volume["status"] = "creating".into();
            let id = world.add("volumes", volume);
            one(world, "volumes", "volume", &id)
        }
        ("GET", [id]) => {
            let shown = one(world, "volumes", "volume", id);
            if let Some(volume) = find(world, "volumes", id).filter(|volume| volume["status"] == "creating") {
                volume["status"] = "available".into();
            }
            shown
        }
        ("DELETE", [id]) => match find(world, "volumes", id) {
            None => not_found(id),
            Some(volume) if volume["status"] == "deleting" => {
                remove(world, "volumes", id);
                let message = "Invalid volume: Volume status must be available or error";
                Reply::json(400, &json!({"badRequest": {"code": 400, "message": message}}))
            }
            Some(volume) => {
                volume["status"] = "deleting".into();
                Reply::empty(202)
            }
        },
        _ => Reply::empty(404),
    }
}

/// Collections of the network, and what one of each is called.
const COLLECTIONS: &[(&str, &str, &str)] = &[
    ("networks", "networks", "network"),
    ("subnets", "subnets", "subnet"),
    ("routers", "routers", "router"),
    ("ports", "ports", "port"),
    ("floatingips", "floatingips", "floatingip"),
    ("security-groups", "security_groups", "security_group"),
    ("security-group-rules", "security_group_rules", "security_group_rule"),
];

fn network(world: &mut World, call: &Call<'_>, path: &[&str]) -> Reply {
    let Some((collection, plural, key)) = COLLECTIONS.iter().find(|row| row.0 == path[0]).copied() else {
        return Reply::empty(404);
    };
    match (call.method, &path[1..]) {
        ("GET", []) => page(world, call, collection, plural),
        ("POST", []) => {
            let thing = call.body[key].clone();
            let thing = made(world, collection, thing);
            Reply::json(201, &json!({key: thing}))
        }
        ("GET", [id]) => one(world, collection, key, id),
        ("PUT", [id]) => {
            let changes = call.body[key].as_object().cloned().unwrap_or_default();
            let Some(thing) = find(world, collection, id) else { return not_found(id) };
            thing.as_object_mut().unwrap().extend(changes);
            Reply::json(200, &json!({key: thing.clone()}))
        }
        ("DELETE", [id]) => remove(world, collection, id),
        ("PUT", [id, "tags", tag]) => {
            let Some(thing) = find(world, collection, id) else { return not_found(id) };
            thing["tags"].as_array_mut().unwrap().push((*tag).into());
            Reply::empty(201)
        }
        ("PUT", [router, "add_router_interface"]) => {
            let subnet = call.body["subnet_id"].clone();
            let network = find(world, "subnets", subnet.as_str().unwrap()).unwrap()["network_id"].clone();
            let port = json!({"device_id": router, "device_owner": "network:router_interface", "tags": [],
                "network_id": network, "fixed_ips": [{"subnet_id": subnet, "ip_address": "192.168.64.1"}]});
            let port = world.add("ports", port);
            Reply::json(200, &json!({"id": router, "port_id": port, "subnet_id": subnet}))
        }
        ("PUT", [_, "remove_router_interface"]) => {
            let port = call.body["port_id"].as_str().unwrap().to_owned();
            remove(world, "ports", &port);
            Reply::json(200, &json!({"port_id": port}))
        }
        _ => Reply::empty(404),
    }
}

fn made(world: &mut World, collection: &'static str, mut thing: Value) -> Value {
    thing["tags"] = json!([]);
    match collection {
        "floatingips" => thing["floating_ip_address"] = format!("203.0.113.{}", world.next).into(),
        "security-groups" => thing["security_group_rules"] = json!([]),
        _ => {}
    }
    let id = world.add(collection, thing);
    let thing = find(world, collection, &id).unwrap().clone();
    if collection == "security-group-rules" {
        let group = thing["security_group_id"].as_str().unwrap().to_owned();
        let group = find(world, "security-groups", &group).unwrap();
        group["security_group_rules"].as_array_mut().unwrap().push(thing.clone());
    }
    thing
}

fn find<'a>(world: &'a mut World, kind: &'static str, id: &str) -> Option<&'a mut Value> {
    world.of(kind).iter_mut().find(|thing| thing["id"] == id)
}

fn not_found(id: &str) -> Reply {
    Reply::no(404, "NotFound", &format!("{id} could not be found."))
}

fn one(world: &mut World, kind: &'static str, key: &str, id: &str) -> Reply {
    match find(world, kind, id) {
        Some(thing) => Reply::json(200, &json!({key: thing.clone()})),
        None => not_found(id),
    }
}

fn remove(world: &mut World, kind: &'static str, id: &str) -> Reply {
    let before = world.of(kind).len();
    world.of(kind).retain(|thing| thing["id"] != id);
    if world.of(kind).len() == before { not_found(id) } else { Reply::empty(204) }
}

/// Those that fit the question, from behind the marker, with a link where there are more.
fn page(world: &mut World, call: &Call<'_>, kind: &'static str, key: &str) -> Reply {
    let asked = |name: &str| call.question.get(name);
    let fits = |thing: &Value| {
        ["name", "network_id", "device_id", "port_id", "router:external", "status"].iter().all(|name| {
            asked(name).is_none_or(|wanted| match &thing[*name] {
                Value::Bool(flag) => flag.to_string() == *wanted,
                other => other.as_str() == Some(wanted),
            })
        })
    };
    let all: Vec<Value> = world.of(kind).iter().filter(|thing| fits(thing)).cloned().collect();
    let after =
        asked("marker").and_then(|marker| all.iter().position(|thing| thing["id"] == marker.as_str()));
    let rest = &all[after.map_or(0, |at| at + 1)..];
    let limit = asked("limit").and_then(|limit| limit.parse().ok()).or(world.page).unwrap_or(rest.len());
    let shown = &rest[..limit.min(rest.len())];
    let mut body = json!({key: shown});
    if shown.len() < rest.len() {
        let marker = shown.last().unwrap()["id"].as_str().unwrap();
        // The host is one that nobody can reach, as behind a proxy.
        let mut link = format!("http://inside.invalid/x?limit={limit}&marker={marker}");
        for (name, value) in &call.question {
            if !["limit", "marker"].contains(&name.as_str()) {
                link.push_str(&format!("&{}={}", name.replace(':', "%3A"), value.replace(' ', "%20")));
            }
        }
        body = match kind {
            "images" => json!({key: shown, "next": link}),
            _ => json!({key: shown, format!("{key}_links"): [{"rel": "next", "href": link}]}),
        };
    }
    Reply::json(200, &body)
}
