//! Tokens: make and remove. The last administrator's token stays.

use std::sync::Arc;

use super::change::{Change, Record};
use super::command::{Decided, Outcome};
use super::draft::{Draft, bad_field, created_again, is_current, not_found};
use super::image::is_sha256;
use crate::fence::Revision;
use crate::id::{Kind, TokenId};
use crate::name::Name;
use crate::token::{Role, Token};

pub(super) fn create(mut draft: Draft<'_>, id: TokenId, name: &Name, role: Role, hash: &str) -> Decided {
    if let Some(present) = draft.fleet.token(id) {
        let mut fields = Vec::new();
        for (same, field) in [
            (present.name == *name, "name"),
            (present.role == role, "role"),
            (present.hash == hash, "secret"),
        ] {
            if !same {
                fields.push(field);
            }
        }
        let name = present.name.clone();
        return created_again(draft, Kind::Token, id.0, &name, fields);
    }
    if !is_sha256(hash) || draft.fleet.index.token_hashes.contains_key(hash) {
        return Err(bad_field("hash", "give the SHA-256 of a new secret, 64 lower-case hex digits"));
    }
    if let Role::Agent { hypervisor } = role
        && draft.fleet.hypervisor(hypervisor).is_none()
    {
        return Err(not_found(Kind::Hypervisor, hypervisor));
    }
    draft.name_is_free(Kind::Token, id.0, &Name::default_project(), name)?;
    draft.put(Record::Token(Arc::new(Token {
        id,
        name: name.clone(),
        role,
        hash: hash.to_owned(),
        revision: draft.revision(),
        created_at: draft.env.wall,
    })));
    Ok(draft.finish(Kind::Token, id.0, Outcome::Created, None))
}

pub(super) fn delete(mut draft: Draft<'_>, id: TokenId, if_match: Option<Revision>) -> Decided {
    let present = draft.fleet.token(id).ok_or_else(|| not_found(Kind::Token, id))?;
    is_current(Kind::Token, &present.name, present.revision, if_match)?;
    let admins = draft.fleet.tokens().filter(|token| token.role == Role::Admin).take(2).count();
    if present.role == Role::Admin && admins == 1 {
        return Err(bad_field("token", "it is the last administrator's; make another one first"));
    }
    draft.push(Change::Delete(Kind::Token, id.0));
    Ok(draft.finish(Kind::Token, id.0, Outcome::Deleted, None))
}
