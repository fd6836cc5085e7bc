//! Tokens: core ⇄ wire. The secret is made in the handler and never comes near a record.

use std::sync::Arc;

use haar_api::v1::{TokenCreate, TokenRole, TokenView, WhoamiView};
use haar_core::fence::Revision;
use haar_core::fleet::Fleet;
use haar_core::fleet::command::Command;
use haar_core::id::Kind;
use haar_core::name::Name;
use haar_core::refusal::Refusal;
use haar_core::token::{Role, Token};
use uuid::Uuid;

use super::look::Look;
use super::{Noun, resolve, time};
use crate::auth::{Caller, Secret};

/// The noun.
pub(crate) struct Tokens;

fn role(role: Role) -> TokenRole {
    match role {
        Role::Admin => TokenRole::Admin,
        Role::Agent { .. } => TokenRole::Agent,
    }
}

/// The command that makes a token for this secret.
pub(crate) fn create(
    id: Uuid,
    body: TokenCreate,
    secret: &Secret,
    look: &Look<'_>,
) -> Result<Command, Refusal> {
    let bad = |problem: &str| Err(Refusal::BadField { field: "hypervisor", problem: problem.to_owned() });
    let role = match (body.role, body.hypervisor) {
        (TokenRole::Admin, None) => Role::Admin,
        (TokenRole::Agent, Some(named)) => {
            let project = Name::default_project();
            Role::Agent { hypervisor: resolve(look.fleet, Kind::Hypervisor, &named, &project)?.into() }
        }
        (TokenRole::Admin, Some(_)) => return bad("only an agent's token speaks for a hypervisor"),
        (TokenRole::Agent, None) => return bad("name the hypervisor the agent's token speaks for"),
    };
    Ok(Command::CreateToken { id: id.into(), name: Name::new(body.name)?, role, hash: secret.hash() })
}

/// Who the caller is.
pub(crate) fn whoami(caller: &Caller, look: &Look<'_>) -> WhoamiView {
    WhoamiView {
        token: caller.token,
        name: caller.name.to_string(),
        role: role(caller.role),
        hypervisor: caller.hypervisor(),
        hypervisor_name: look.name_some(Kind::Hypervisor, caller.hypervisor().map(|id| id.0)),
        cloud: look.fleet.config().cloud,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

impl Noun for Tokens {
    const KIND: Kind = Kind::Token;
    type Record = Token;
    type View = TokenView;

    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<Token>> {
        fleet.token(id.into())
    }

    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<Token>> + '_> {
        Box::new(fleet.tokens_from(id.map(Into::into)))
    }

    fn id(record: &Token) -> Uuid {
        record.id.0
    }

    fn name(record: &Token) -> (Option<&Name>, Option<&Name>) {
        (Some(&record.name), None)
    }

    fn revision(record: &Token) -> Revision {
        record.revision
    }

    fn view(record: &Token, look: &Look<'_>) -> TokenView {
        let hypervisor = match record.role {
            Role::Agent { hypervisor } => Some(hypervisor),
            Role::Admin => None,
        };
        TokenView {
            id: record.id,
            name: record.name.clone(),
            role: role(record.role),
            hypervisor,
            hypervisor_name: look.name_some(Kind::Hypervisor, hypervisor.map(|id| id.0)),
            revision: record.revision,
            created_at: time(record.created_at),
        }
    }
}
