//! `haar token`: who may ask. A secret is printed once, when it is made.

use haar_api::table as t;
use haar_api::v1::{ListQuery, Ref, Time, TokenCreate, TokenRole, TokenView};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::hypervisor::Hypervisors;
use super::narrow::LabelWords;
use super::noun::{self, Noun};
use super::output;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a token and print its secret, this once
    #[command(
        after_help = "Examples:\n  haar token create ana --role admin\n  haar token create lab2-agent --role agent --hypervisor lab2"
    )]
    Create(CreateWords),
    /// List tokens, without their secrets
    #[command(after_help = "Examples:\n  haar token list")]
    List(ListWords),
    /// Show a token, without its secret
    #[command(after_help = "Examples:\n  haar token show ana")]
    Show(One),
    /// Remove tokens; their bearers are refused from then on
    #[command(after_help = "Examples:\n  haar token delete ana")]
    Delete(Several),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateWords {
    /// Its name
    name: String,
    /// What its bearer may do
    #[arg(long, value_enum)]
    role: RoleWord,
    /// The hypervisor an agent's token speaks for
    #[arg(long, required_if_eq("role", "agent"))]
    hypervisor: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListWords {
    /// Only the one of this name
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Name, id, or an id's first digits (4 or more)
    token: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Several {
    /// Names, ids, or ids' first digits (4 or more)
    #[arg(required = true)]
    token: Vec<String>,
}

/// What a token's bearer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RoleWord {
    /// Everything but speaking for a hypervisor
    Admin,
    /// Speaking for one hypervisor
    Agent,
}

/// The noun.
pub(crate) struct Tokens;

impl Noun for Tokens {
    const WORD: &'static str = "token";
    const COLUMNS: &'static [&'static str] = &["NAME", "ROLE", "HYPERVISOR", "ID", "AGE"];
    const IN_PROJECTS: bool = false;
    type View = TokenView;
    type List = t::TokenList;

    fn id(view: &TokenView) -> Uuid {
        view.id.0
    }

    fn name(view: &TokenView) -> &str {
        view.name.as_str()
    }

    fn row(view: &TokenView, now: Time) -> Vec<String> {
        vec![
            view.name.to_string(),
            view.role.as_str().to_owned(),
            view.hypervisor_name.clone().unwrap_or_else(|| "-".to_owned()),
            output::short_id(view.id),
            output::age(view.created_at, now),
        ]
    }

    fn details(view: &TokenView) -> (String, Vec<(&'static str, String)>) {
        let lines = vec![
            ("role", view.role.as_str().to_owned()),
            ("hypervisor", view.hypervisor_name.clone().unwrap_or_default()),
            ("made", view.created_at.to_string()),
        ];
        (format!("token {}   {}", view.name, view.id), lines)
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(words) => create(context, words).await,
        Verb::List(words) => {
            let query = ListQuery { name: words.name, ..ListQuery::default() };
            noun::list::<Tokens>(context, query, &LabelWords::default()).await
        }
        Verb::Show(words) => noun::show::<Tokens, t::TokenShow>(context, &words.token).await,
        Verb::Delete(words) => {
            noun::delete::<Tokens, t::TokenShow, t::TokenDelete>(context, &words.token).await
        }
    }
}

async fn create(context: &Context, words: CreateWords) -> Result<(), Failure> {
    let role = match words.role {
        RoleWord::Admin => TokenRole::Admin,
        RoleWord::Agent => TokenRole::Agent,
    };
    let hypervisor = noun::resolve_if::<Hypervisors>(context, words.hypervisor).await?;
    let body = TokenCreate { name: words.name, role, hypervisor: hypervisor.map(Ref) };
    let answered = context.client.request::<t::TokenPost>(&[]).send(&body).await?;
    if context.is_json() {
        return output::json_bytes(&answered.body);
    }
    // The secret alone on stdout, so that a script can take it.
    eprintln!("  token {} made; its secret is shown this once:", answered.value.token.name);
    output::out(&format!("{}\n", answered.value.secret));
    Ok(())
}
