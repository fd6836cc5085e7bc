//! An OpenStack that is made up: as much of five APIs as the provider asks for, in memory, on a port of
//! its own. It answers wrongly on demand and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use haar_openstack::Settings;
use serde_json::{Value, json};

mod services;

/// An answer that comes in place of the right one.
#[derive(Clone)]
pub(crate) struct Fault {
    /// A part of the method and path: `POST /network/v2.0/routers`.
    pub(crate) on: &'static str,
    /// How often.
    pub(crate) times: usize,
    pub(crate) status: u16,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) body: &'static str,
}

/// What the cloud has, and what it was asked.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) things: BTreeMap<&'static str, Vec<Value>>,
    pub(crate) faults: Vec<Fault>,
    /// Method and path of each request, without its question.
    pub(crate) asked: Vec<String>,
    /// The bodies of those that had one, in the same order as what has one.
    pub(crate) bodies: Vec<(String, Value)>,
    /// Tokens that count.
    pub(crate) tokens: Vec<String>,
    pub(crate) logins: usize,
    /// At most so many things on a page.
    pub(crate) page: Option<usize>,
    /// What a server that is asked for becomes, and after how many looks at it; else it is built for ever.
    pub(crate) becomes: Option<(u64, Value)>,
    /// Services that the catalog leaves out.
    pub(crate) without: Vec<&'static str>,
    next: usize,
}

impl World {
    pub(crate) fn new_id(&mut self) -> String {
        self.next += 1;
        format!("00000000-0000-4000-8000-{:012}", self.next)
    }

    pub(crate) fn of(&mut self, kind: &'static str) -> &mut Vec<Value> {
        self.things.entry(kind).or_default()
    }

    /// Adds a thing with an id of its own; the id.
    pub(crate) fn add(&mut self, kind: &'static str, mut thing: Value) -> String {
        let id = self.new_id();
        thing["id"] = id.as_str().into();
        self.of(kind).push(thing);
        id
    }

    /// The requests since the last look that change something.
    pub(crate) fn changes(&mut self) -> Vec<String> {
        let asked = std::mem::take(&mut self.asked);
        let is_tag = |line: &String| line.contains("/tags/") || line.contains("/auth/");
        asked.into_iter().filter(|line| !line.starts_with("GET") && !is_tag(line)).collect()
    }

    /// The body of the last request of this method and path.
    pub(crate) fn body(&self, on: &str) -> Value {
        let found = self.bodies.iter().rev().find(|(line, _)| line == on);
        found.map(|(_, body)| body.clone()).expect("such a request was made")
    }
}

/// A running cloud. Its server ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    world: Arc<Mutex<World>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self { url, world: Arc::default() };
        services::furnish(&mut fake.world());
        let app = axum::Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn fault(&self, on: &'static str, times: usize, status: u16, body: &'static str) {
        self.world().faults.push(Fault { on, times, status, headers: &[], body });
    }

    /// What one logs in with; the machine is one of no cloud.
    pub(crate) fn settings(&self) -> Settings {
        self.settings_with(&[])
    }

    pub(crate) fn settings_with(&self, others: &[(&str, &str)]) -> Settings {
        let set = [
            ("OS_AUTH_URL", self.url.as_str()),
            ("OS_USERNAME", "demo"),
            ("OS_PASSWORD", "secret"),
            ("OS_PROJECT_NAME", "demo"),
            ("OS_REGION_NAME", "one"),
        ];
        let value = |name: &str| {
            let of = |set: &[(&str, &str)]| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            of(others).or_else(|| of(&set))
        };
        let mut settings = Settings::read(value).unwrap();
        settings.machine.firmware = "/nonexistent".into();
        settings.machine.cloud_init = "/nonexistent".into();
        settings
    }
}

/// What is to be answered.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// A "no" in Neutron's form, which every reader must know.
    pub(crate) fn no(status: u16, kind: &str, message: &str) -> Self {
        let body = json!({"NeutronError": {"type": kind, "message": message, "detail": ""}});
        Self::json(status, &body)
    }
}

/// A request with everything read.
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: Vec<String>,
    pub(crate) question: BTreeMap<String, String>,
    pub(crate) body: Value,
    pub(crate) url: &'a str,
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let reply = reply(&fake, &parts.method, parts.uri.path(), parts.uri.query(), &parts.headers, &body);
    let mut response = (StatusCode::from_u16(reply.status).unwrap(), reply.body).into_response();
    for (name, value) in reply.headers {
        let name: axum::http::HeaderName = name.parse().unwrap();
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

fn reply(
    fake: &Fake,
    method: &Method,
    path: &str,
    question: Option<&str>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Reply {
    let mut world = fake.world();
    let line = format!("{method} {path}");
    world.asked.push(line.clone());
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if !body.is_null() {
        world.bodies.push((line.clone(), body.clone()));
    }
    if let Some(fault) = world.faults.iter_mut().find(|fault| fault.times > 0 && line.contains(fault.on)) {
        fault.times -= 1;
        let headers = fault.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        return Reply { status: fault.status, headers: headers.collect(), body: fault.body.into() };
    }
    let parts = path.split('/').skip(1).map(plain).collect();
    let question = question.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let question = question.map(|(key, value)| (plain(key), plain(value))).collect();
    let call = Call { method: method.as_str(), path: parts, question, body, url: &fake.url };
    if path == "/v3/auth/tokens" {
        return services::log_in(&mut world, &call);
    }
    let token = headers.get("x-auth-token").and_then(|token| token.to_str().ok()).unwrap_or_default();
    if !world.tokens.iter().any(|known| known == token) {
        return Reply::json(401, &json!({"error": {"code": 401, "message": "The token is unknown"}}));
    }
    services::serve(&mut world, &call)
}

fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}
