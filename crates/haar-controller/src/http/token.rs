//! Tokens: making one is the only moment its secret is shown.

use haar_api::table::TokenPost;
use haar_api::v1::{TokenCreate, TokenCreated};
use haar_core::id::Kind;
use http::StatusCode;

use super::ask::Ask;
use super::reply::{Reply, json, located, not_found};
use crate::auth::Secret;
use crate::wire::Noun;
use crate::wire::token::{self, Tokens};

/// `POST /v1/tokens`.
pub(crate) async fn post(ask: Ask<TokenPost>, body: TokenCreate) -> Reply {
    let (id, secret) = (ask.new_id()?, Secret::random());
    let command = ask.app.look(|look| token::create(id, body, &secret, look))?;
    ask.app.engine.submit(command).await?;
    let shown = ask.app.look(|look| Tokens::get(look.fleet, id).map(|record| Tokens::view(record, look)));
    let token = shown.ok_or_else(|| not_found(Kind::Token, &id))?;
    let created = TokenCreated { token, secret: secret.reveal().to_owned() };
    Ok(located(json(StatusCode::CREATED, &created), Kind::Token, id))
}
