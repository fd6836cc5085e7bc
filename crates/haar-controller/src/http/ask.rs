//! A request proved: permission first, then query and path, in the types of its endpoint.
//!
//! An [`Ask`] of an endpoint exists only for a caller who may ask it, so a handler that takes one cannot
//! forget to check. Deliberately absent: any decision about the books.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query, RawPathParams};
use haar_api::endpoint::{self, Access, Endpoint, Permission};
use haar_api::problem::{ErrorCode, Problem};
use haar_core::fence::Revision;
use haar_core::id::{HypervisorId, Kind, TokenId};
use haar_core::name::Name;
use haar_core::refusal::Refusal;
use http::Method;
use http::header::{HeaderMap, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::App;
use super::reply::No;
use crate::auth::{self, Caller, Unknown};
use crate::wire::Noun;
use crate::wire::look::Look;

/// Makes a POST that is sent again the same request.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest `Idempotency-Key`.
const MOST_KEY: usize = 255;

/// A permission that can be proved; what a handler learns of the caller by it.
pub(crate) trait Prove: Permission {
    /// Who asks.
    type Proof: Send;
    /// Recognises the caller.
    fn prove(caller: Result<Caller, Unknown>) -> Result<Self::Proof, No>;
    /// The name for the audit log.
    fn name(proof: &Self::Proof) -> Option<&Name>;
}

/// A caller who speaks for a hypervisor.
pub(crate) struct Agent {
    caller: Caller,
    /// Which.
    pub(crate) hypervisor: HypervisorId,
}

impl Agent {
    /// The token it asks with.
    pub(crate) fn token(&self) -> TokenId {
        self.caller.token
    }
}

impl Prove for endpoint::Open {
    type Proof = ();
    fn prove(_: Result<Caller, Unknown>) -> Result<(), No> {
        Ok(())
    }
    fn name((): &()) -> Option<&Name> {
        None
    }
}

impl Prove for endpoint::Admin {
    type Proof = Caller;
    fn prove(caller: Result<Caller, Unknown>) -> Result<Caller, No> {
        let caller = known(caller)?;
        match caller.hypervisor() {
            None => Ok(caller),
            Some(_) => Err(No::of(ErrorCode::Forbidden, "an agent's token cannot do this; use an admin's")),
        }
    }
    fn name(proof: &Caller) -> Option<&Name> {
        Some(&proof.name)
    }
}

impl Prove for endpoint::AgentSelf {
    type Proof = Agent;
    fn prove(caller: Result<Caller, Unknown>) -> Result<Agent, No> {
        let caller = known(caller)?;
        match caller.hypervisor() {
            Some(hypervisor) => Ok(Agent { caller, hypervisor }),
            None => Err(No::of(ErrorCode::Forbidden, "only an agent's own token speaks for a hypervisor")),
        }
    }
    fn name(proof: &Agent) -> Option<&Name> {
        Some(&proof.caller.name)
    }
}

impl Prove for endpoint::AdminOrAgent {
    type Proof = Caller;
    fn prove(caller: Result<Caller, Unknown>) -> Result<Caller, No> {
        known(caller)
    }
    fn name(proof: &Caller) -> Option<&Name> {
        Some(&proof.name)
    }
}

fn known(caller: Result<Caller, Unknown>) -> Result<Caller, No> {
    caller.map_err(|unknown| No::of(ErrorCode::Unauthorized, unknown.to_string()))
}

/// A request to endpoint `E`, from somebody who may ask it.
pub(crate) struct Ask<E: Endpoint>
where
    E::Permission: Prove,
{
    /// What handlers can reach.
    pub(crate) app: Arc<App>,
    /// Who asks.
    pub(crate) who: <E::Permission as Prove>::Proof,
    /// The query.
    pub(crate) query: E::Query,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// Whether only the head of the answer is wanted.
    pub(crate) is_head: bool,
    param: Option<String>,
}

impl<E: Endpoint> Ask<E>
where
    E::Permission: Prove,
{
    /// Proves the permission, then reads query and path. The name of the caller is noted in `caller`.
    pub(crate) async fn of(
        app: Arc<App>,
        parts: &mut Parts,
        caller: &mut Option<Name>,
    ) -> Result<Ask<E>, No> {
        let recognised = match E::Permission::ACCESS {
            Access::Open => Err(Unknown::NoToken),
            _ => app.engine.read(|fleet| auth::recognise(&parts.headers, fleet)),
        };
        let who = E::Permission::prove(recognised)?;
        *caller = E::Permission::name(&who).cloned();
        let query =
            Query::<E::Query>::try_from_uri(&parts.uri).map_err(|error| bad_query(&error.body_text()))?;
        let params = RawPathParams::from_request_parts(parts, &()).await;
        let params = params.map_err(|_| No::of(ErrorCode::BadId, "the path is not UTF-8"))?;
        let param = params.iter().next().map(|(_, value)| value.to_owned());
        let (is_head, headers) = (parts.method == Method::HEAD, std::mem::take(&mut parts.headers));
        Ok(Ask { app, who, query: query.0, headers, is_head, param })
    }

    /// The path's one parameter.
    pub(crate) fn param(&self) -> &str {
        // The router matched a path of the table; every handler that asks has one in it.
        self.param.as_deref().unwrap_or_default()
    }

    /// The path's parameter where only an id will do.
    pub(crate) fn id(&self) -> Result<Uuid, No> {
        let id = Uuid::try_parse(self.param()).ok().filter(|id| !id.is_nil());
        id.ok_or_else(|| {
            let problem = format!("`{}` is no id; here the path takes a UUID", shorten(self.param()));
            No::of(ErrorCode::BadId, problem)
        })
    }

    /// The id that the path means by id or by name.
    pub(crate) fn resolve(&self, kind: Kind, project: Option<&String>, look: &Look<'_>) -> Result<Uuid, No> {
        if let Ok(id) = Uuid::try_parse(self.param()) {
            return Ok(id);
        }
        let name = Name::new(self.param()).map_err(Refusal::from)?;
        let project = crate::wire::project(project.cloned())?;
        let found = look.fleet.find(kind, &project, &name);
        found.ok_or_else(|| look.fleet.no_such_name(kind, &[&project], &name).into())
    }

    /// Refuses an `Idempotency-Key` where it would be ignored: who sends one counts on it.
    pub(crate) fn refuse_key(&self, instead: &str) -> Result<(), No> {
        if !self.headers.contains_key(IDEMPOTENCY_KEY) {
            return Ok(());
        }
        let message = format!("this path takes no Idempotency-Key; {instead}");
        Err(No::of(ErrorCode::BadQuery, message).about("Idempotency-Key"))
    }

    /// Refuses a PUT whose `If-Match` or `If-None-Match: *` does not hold for what is there now.
    pub(crate) fn check_put<N: Noun>(&self, id: Uuid) -> Result<(), No> {
        let wanted = self.if_match()?;
        let found = self.app.look(|look| N::get(look.fleet, id).map(|record| N::revision(record)));
        let says_star = |name| self.headers.get(name).is_some_and(|value| value.as_bytes() == b"*");
        let is_stale = match found {
            Some(revision) => wanted.is_some_and(|wanted| wanted != revision) || says_star(IF_NONE_MATCH),
            None => self.headers.contains_key(IF_MATCH),
        };
        if !is_stale {
            return Ok(());
        }
        let kind = N::KIND;
        let message = match found {
            Some(revision) => {
                format!("{kind} `{id}` is there, at revision {revision}; read it before changing it")
            }
            None => format!("there is no {kind} `{id}` any more, or not yet; leave If-Match out to make it"),
        };
        Err(No(Box::new(Problem::new(412, "stale_revision", message))))
    }

    /// The revision of `If-Match`, if there is one.
    pub(crate) fn if_match(&self) -> Result<Option<Revision>, No> {
        let Some(value) = self.headers.get(IF_MATCH) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(None);
        }
        let digits = text.trim_start_matches("W/").trim_matches('"');
        let wrong =
            || No::of(ErrorCode::BadQuery, "If-Match takes a revision as the ETag gave it, such as \"17\"");
        digits.parse().map(Some).map_err(|_| wrong().about("If-Match"))
    }
}

impl<E: Endpoint> Ask<E>
where
    E::Permission: Prove<Proof = Caller>,
{
    /// The id of what a POST makes: drawn, or made from `Idempotency-Key`, so that the same key from the
    /// same token means the same object.
    pub(crate) fn new_id(&self) -> Result<Uuid, No> {
        let Some(key) = self.headers.get(IDEMPOTENCY_KEY) else {
            return Ok(uuid::Builder::from_random_bytes(auth::random()).into_uuid());
        };
        if key.is_empty() || key.len() > MOST_KEY || !key.as_bytes().iter().all(u8::is_ascii_graphic) {
            let message = "Idempotency-Key takes 1 to 255 visible ASCII characters";
            return Err(No::of(ErrorCode::BadQuery, message).about("Idempotency-Key"));
        }
        let mut hash = Sha256::new();
        for part in [self.who.token.0.as_bytes().as_slice(), E::OPERATION.as_bytes(), key.as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let bytes: [u8; 16] = digest[..16].try_into().expect("a SHA-256 has more than 16 bytes");
        Ok(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

fn bad_query(message: &str) -> No {
    let message = message.trim_start_matches("Failed to deserialize query string: ");
    match unknown_field(message) {
        Some(field) => No::of(ErrorCode::UnknownField, shorten(message)).about(field),
        None => No::of(ErrorCode::BadQuery, shorten(message)),
    }
}

/// serde's words for a field it does not know.
pub(crate) fn unknown_field(message: &str) -> Option<String> {
    let at = message.find("unknown field `")?;
    let rest = &message[at + "unknown field `".len()..];
    Some(shorten(rest.split('`').next()?))
}

/// What a caller sent may be long; a message is not.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 400;
    if text.len() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain("…".chars()).collect() }
}
