//! The OpenAPI 3.1 document, made from the table of endpoints.
//!
//! Deterministic: the same code makes the same bytes. Checked in as `openapi/haar-v1.json`, and a test
//! says so when it is out of date.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::endpoint::{Access, EndpointInfo, Media};
use crate::problem::{PROBLEM_JSON, Problem};
use crate::table::ENDPOINTS;

/// The document as a value.
pub fn openapi() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .into_generator();
    let problem = generator.subschema_for::<Problem>().to_value();
    let mut paths: Map<String, Value> = Map::new();
    for row in ENDPOINTS {
        let operation = operation(row, &mut generator, &problem);
        let path = paths.entry(row.path).or_insert_with(|| Value::Object(Map::new()));
        path[row.method.to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Haar",
            "version": "v1",
            "description": "A private cloud. Requests refuse unknown fields; answers may grow. Things are named by id or name; answers give both. Every error is application/problem+json with a stable code."
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
        }
    })
}

/// The document as it is checked in and served: indented, with a newline at its end.
pub fn openapi_text() -> String {
    let mut text = serde_json::to_string_pretty(&openapi()).expect("a JSON value can always be written");
    text.push('\n');
    text
}

fn operation(row: &EndpointInfo, generator: &mut SchemaGenerator, problem: &Value) -> Value {
    let described = (row.describe)(generator);
    let (body, answer) =
        (described.body.map(|schema| schema.to_value()), described.answer.map(|schema| schema.to_value()));
    let mut parameters: Vec<Value> = row.path_parameters().map(path_parameter).collect();
    parameters.extend(query_parameters(&described.query.to_value()));
    if takes_if_match(row) {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": false,
            "description": "The revision the caller knows, as the ETag gave it; 412 when it has another.",
            "schema": {"type": "string"}
        }));
    }
    let mut operation = json!({
        "operationId": row.operation,
        "summary": row.summary,
        "tags": [tag(row.path)],
        "x-haar-access": access_word(row.access),
        "parameters": parameters,
        "responses": responses(row, answer.as_ref(), problem),
    });
    if row.access == Access::Open {
        operation["security"] = json!([]);
    }
    if let Some(body) = request_body(row, body.as_ref()) {
        operation["requestBody"] = body;
    }
    operation
}

fn takes_if_match(row: &EndpointInfo) -> bool {
    let guest_action = row.method == "POST" && row.path.starts_with("/v1/guests/{ref}/");
    matches!(row.method, "PATCH" | "DELETE") || guest_action
}

fn tag(path: &str) -> &str {
    path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next()).unwrap_or("open")
}

fn access_word(access: Access) -> &'static str {
    match access {
        Access::Open => "open",
        Access::Admin => "admin",
        Access::AgentSelf => "agent",
        Access::AdminOrAgent => "admin or agent",
    }
}

fn path_parameter(name: &str) -> Value {
    let description = match name {
        "ref" => "Id or name.",
        "sha256" => "SHA-256, lower-case hex.",
        "ticket" => "The ticket from the feed; good once.",
        _ => "Id.",
    };
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string"}})
}

fn query_parameters(schema: &Value) -> Vec<Value> {
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter = json!({"name": name, "in": "query", "required": false, "schema": schema});
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    };
    properties.iter().map(parameter).collect()
}

fn request_body(row: &EndpointInfo, schema: Option<&Value>) -> Option<Value> {
    match row.body {
        Media::Nothing => None,
        Media::Json => {
            let mut content = json!({"schema": schema});
            if let Some(example) = example(row.operation) {
                content["example"] = example;
            }
            Some(json!({"required": true, "content": {"application/json": content}}))
        }
        other => Some(json!({"required": true, "content": {media_type(other): {}}})),
    }
}

fn media_type(media: Media) -> &'static str {
    match media {
        Media::Nothing | Media::Json => "application/json",
        Media::Bytes | Media::Stream => "application/octet-stream",
        Media::Text => "text/plain; charset=utf-8",
        Media::Html => "text/html; charset=utf-8",
        Media::Events => "text/event-stream",
    }
}

fn responses(row: &EndpointInfo, schema: Option<&Value>, problem: &Value) -> Value {
    let mut responses = Map::new();
    for status in row.statuses {
        let mut response = json!({"description": status_words(row, *status)});
        let bodiless = matches!(row.answer, Media::Nothing | Media::Stream) || *status == 204;
        if !bodiless {
            response["content"] = match schema {
                Some(schema) => json!({media_type(row.answer): {"schema": schema}}),
                None => json!({media_type(row.answer): {}}),
            };
        }
        if *status == 202 {
            response["headers"] =
                json!({"Location": {"description": "The job.", "schema": {"type": "string"}}});
        }
        responses.insert(status.to_string(), response);
    }
    if row.access != Access::Open {
        let no = json!({"description": "A no or a failure; `code` says which.", "content": {PROBLEM_JSON: {"schema": problem}}});
        responses.insert("default".to_owned(), no);
    }
    Value::Object(responses)
}

fn status_words(row: &EndpointInfo, status: u16) -> &'static str {
    match (status, row.answer) {
        (101, _) => {
            "Ask with `Connection: Upgrade` and `Upgrade: haar-stream`; raw bytes follow, both ways, until either end closes."
        }
        (201, _) => "Made.",
        (202, _) => "Begun; the job has not ended within `?wait=`.",
        (204, Media::Nothing) => "Done.",
        (204, _) if row.method == "GET" => "Nothing newer within `?wait=`.",
        (204, _) => "Done at once.",
        (_, Media::Events) => {
            "Each message has `id: epoch.revision.n` and `event: change`; comment lines keep the connection alive. A `since` that is no longer kept is answered 410 `resync`: list again, then follow from the list's revision. A stream that falls behind what is kept ends with `event: resync` and that problem; one with `follow=false` ends with `event: end`, and without it has not told all."
        }
        _ => "Well.",
    }
}

/// An example body for an operation; a test reads each as the operation's own type.
fn example(operation: &str) -> Option<Value> {
    let example = match operation {
        "guest_post" | "guest_put" | "candidates" => json!({
            "name": "web", "flavor": "small", "image": "debian-12", "network": "default",
            "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVXb3JkcyBhcmUgYmV0dGVyIHRoYW4ga2V5cw ana@lab"]
        }),
        "guest_set" => json!({"metadata": {"team": "web"}, "restart": "always"}),
        "flavor_post" | "flavor_put" => json!({"name": "small", "cpu": 1, "memory": 1024, "disk": 10240}),
        "flavor_set" => json!({"memory": 2048}),
        "image_post" | "image_put" => json!({"name": "debian-12", "format": "qcow2"}),
        "network_post" | "network_put" => json!({"name": "default", "nat": true}),
        "subnet_post" | "subnet_put" => json!({
            "name": "default", "network": "default", "cidr": "10.77.0.0/24", "gateway": "10.77.0.1",
            "dns": ["10.77.0.1"]
        }),
        "fwgroup_post" | "fwgroup_put" => json!({
            "name": "web",
            "rules": [{"protocol": "tcp", "portStart": 80, "portEnd": 80}, {"source": "10.0.0.0/8"}]
        }),
        "hypervisor_post" | "hypervisor_put" => json!({"name": "lab1", "metadata": {"room": "cellar"}}),
        "hypervisor_set" => json!({"cordon": "disk swap"}),
        "token_post" => json!({"name": "lab1-agent", "role": "agent", "hypervisor": "lab1"}),
        "config_set" => json!({"values": {"overcommit.cpu": "6.0", "site/contact": null}}),
        _ => return None,
    };
    Some(example)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::table as t;
    use serde::de::DeserializeOwned;

    fn reads<E: Endpoint>()
    where
        E::Body: DeserializeOwned,
    {
        let value = example(E::OPERATION).unwrap();
        if let Err(error) = serde_json::from_value::<E::Body>(value) {
            panic!("{}: {error}", E::OPERATION);
        }
    }

    #[test]
    fn every_example_is_a_body_its_operation_takes() {
        reads::<t::GuestPost>();
        reads::<t::GuestPut>();
        reads::<t::Candidates>();
        reads::<t::GuestSet>();
        reads::<t::FlavorPost>();
        reads::<t::FlavorSet>();
        reads::<t::ImagePost>();
        reads::<t::NetworkPost>();
        reads::<t::SubnetPost>();
        reads::<t::FwGroupPost>();
        reads::<t::HypervisorPost>();
        reads::<t::HypervisorSet>();
        reads::<t::TokenPost>();
        reads::<t::ConfigSet>();
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        let document = openapi();
        let mut found = Vec::new();
        collect_references(&document, &mut found);
        assert!(found.len() > 50, "only {} references", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn collect_references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    match inner {
                        Value::String(text) if key == "$ref" => found.push(text.clone()),
                        other => collect_references(other, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
            _ => {}
        }
    }

    /// Set `HAAR_REWRITE=1` to write the file anew.
    #[test]
    fn the_checked_in_document_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/haar-v1.json");
        if std::env::var_os("HAAR_REWRITE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, openapi_text()).unwrap();
        }
        let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            checked_in == openapi_text(),
            "openapi/haar-v1.json is out of date; run the test with HAAR_REWRITE=1 and look at the difference"
        );
    }
}
