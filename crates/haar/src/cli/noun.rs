//! What the nouns have in common: list, show, delete, and finding a thing by name, id or its beginning.
//!
//! The API lists by id; a person reads names, so that every list is brought into the order of its noun here.

use std::collections::BTreeMap;

use haar_api::client::{Answered, ClientError};
use haar_api::endpoint::{Endpoint, Nothing};
use haar_api::problem::Problem;
use haar_api::v1::{
    GuestListQuery, JobListQuery, List, ListQuery, MOST_LIMIT, RefQuery, SubnetListQuery, Time,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::narrow::LabelWords;
use super::{output, several};

/// A noun as the command line shows it.
pub(crate) trait Noun {
    /// The word.
    const WORD: &'static str;
    /// The columns of its list.
    const COLUMNS: &'static [&'static str];
    /// Whether it has names; jobs are called by their ids alone.
    const HAS_NAMES: bool = true;
    /// Whether it lies in a project.
    const IN_PROJECTS: bool = true;
    /// What the API sends.
    type View: DeserializeOwned;
    /// Its list.
    type List: Endpoint<Query: Paged, Body = Nothing, Answer = List<Self::View>>;
    /// Its id.
    fn id(view: &Self::View) -> Uuid;
    /// Its name; empty for nouns without one.
    fn name(view: &Self::View) -> &str;
    /// Its labels; none for nouns without any.
    fn labels(_: &Self::View) -> Option<&BTreeMap<String, String>> {
        None
    }
    /// What lists are sorted by: the name, or a time before it.
    fn order(view: &Self::View) -> (i64, String) {
        (0, Self::name(view).to_owned())
    }
    /// Its row of the list.
    fn row(view: &Self::View, now: Time) -> Vec<String>;
    /// Its title and details.
    fn details(view: &Self::View) -> (String, Vec<(&'static str, String)>);
}

/// A query that pages.
pub(crate) trait Paged: Clone + Default + PartialEq {
    /// Asks for the page at `cursor`, as large as the server gives.
    fn page(self, cursor: Option<String>) -> Self;
    /// Asks for no more than one.
    fn one(self) -> Self;
    /// Asks for those of a project, where the noun has one.
    fn in_project(self, project: Option<String>) -> Self;
}

macro_rules! paged {
    ($($query:ty { $($project:ident)? })*) => {$(
        impl Paged for $query {
            fn page(mut self, cursor: Option<String>) -> Self {
                self.limit = Some(MOST_LIMIT);
                self.cursor = cursor;
                self
            }

            fn one(mut self) -> Self {
                self.limit = Some(1);
                self
            }

            #[allow(unused_mut, unused_variables, reason = "jobs are in no project")]
            fn in_project(mut self, project: Option<String>) -> Self {
                $(self.$project = project;)?
                self
            }
        }
    )*};
}

paged!(ListQuery { project } GuestListQuery { project } JobListQuery {} SubnetListQuery { project });

/// What a list is narrowed by.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ListWords {
    /// Only the one of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) labels: LabelWords,
}

/// Prints a plain list, of the project asked for.
pub(crate) async fn list_named<N: Noun>(context: &Context, words: ListWords) -> Result<(), Failure>
where
    N::List: Endpoint<Query = ListQuery>,
{
    let query = ListQuery { name: words.name, project: context.project.clone(), ..ListQuery::default() };
    list::<N>(context, query, &words.labels).await
}

/// Every page, in the noun's order, each thing as a view and as the API sent it; and the revision.
async fn sorted<N: Noun>(
    context: &Context,
    query: <N::List as Endpoint>::Query,
) -> Result<(Vec<(N::View, Value)>, Value), Failure> {
    let (mut things, mut cursor) = (Vec::new(), None);
    loop {
        let page = query.clone().page(cursor);
        let answered = context.client.request::<N::List>(&[]).query(page).send(&Nothing).await?;
        let mut raw: Value = serde_json::from_slice(&answered.body)
            .map_err(|error| Failure::local("the answer is no JSON", error))?;
        if let Value::Array(items) = raw["items"].take() {
            things.extend(answered.value.items.into_iter().zip(items));
        }
        cursor = answered.value.next_cursor;
        if cursor.is_none() {
            things.sort_by_cached_key(|(view, _)| (N::order(view), N::id(view)));
            return Ok((things, raw["revision"].take()));
        }
    }
}

fn document(items: &[Value], revision: &Value) -> Value {
    json!({"items": items, "next_cursor": null, "revision": revision})
}

/// Every page, as views and as one JSON document.
pub(crate) async fn pages<N: Noun>(
    context: &Context,
    query: <N::List as Endpoint>::Query,
) -> Result<(Vec<N::View>, Value), Failure> {
    let (things, revision) = sorted::<N>(context, query).await?;
    let (views, items): (_, Vec<Value>) = things.into_iter().unzip();
    Ok((views, document(&items, &revision)))
}

/// Prints the list.
pub(crate) async fn list<N: Noun>(
    context: &Context,
    query: <N::List as Endpoint>::Query,
    labels: &LabelWords,
) -> Result<(), Failure> {
    let narrowed = query != <N::List as Endpoint>::Query::default().in_project(context.project.clone());
    let (mut things, revision) = sorted::<N>(context, query).await?;
    things.retain(|(view, _)| labels.keep(N::labels(view)));
    if context.is_json() {
        let items: Vec<Value> = things.into_iter().map(|(_, item)| item).collect();
        return output::json(&document(&items, &revision));
    }
    if things.is_empty() {
        output::out(&format!("  {}\n", labels.nothing::<N>(context, narrowed).await));
        return Ok(());
    }
    let now = output::now();
    let rows = things.iter().map(|(view, _)| labels.row::<N>(view, N::row(view, now))).collect();
    output::out(&output::table(&labels.columns(N::COLUMNS), rows, output::colours()));
    Ok(())
}

/// Prints one thing's details, or what the API sent.
pub(crate) fn print<N: Noun>(context: &Context, answered: &Answered<N::View>) -> Result<(), Failure> {
    if context.is_json() {
        return output::json_bytes(&answered.body);
    }
    let (title, lines) = N::details(&answered.value);
    output::out(&output::details(&title, &lines));
    Ok(())
}

/// Prints one line about what was done, or what the API sent.
pub(crate) fn said<T>(context: &Context, answered: &Answered<T>, line: &str) -> Result<(), Failure> {
    if context.is_json() {
        return output::json_bytes(&answered.body);
    }
    output::out(&format!("  {line}\n"));
    Ok(())
}

/// What a change came to, by the revisions before and after it.
pub(crate) fn changed<N: Noun>(name: &impl std::fmt::Display, before: u64, after: u64) -> String {
    if before == after {
        format!("{} {name} is so already; nothing to change", N::WORD)
    } else {
        format!("{} {name} changed", N::WORD)
    }
}

/// The query of a path that names one thing.
pub(crate) fn in_project(context: &Context) -> RefQuery {
    RefQuery { project: context.project.clone() }
}

/// Reads one thing by name, id, or the beginning of its id.
pub(crate) async fn read<N: Noun, S>(context: &Context, text: &str) -> Result<Answered<N::View>, Failure>
where
    S: Endpoint<Query = RefQuery, Body = Nothing, Answer = N::View>,
{
    let reference = resolve::<N>(context, text).await?;
    let call = context.client.request::<S>(&[&reference]).query(in_project(context));
    Ok(call.send(&Nothing).await?)
}

/// Reads one thing and prints it.
pub(crate) async fn show<N: Noun, S>(context: &Context, text: &str) -> Result<(), Failure>
where
    S: Endpoint<Query = RefQuery, Body = Nothing, Answer = N::View>,
{
    print::<N>(context, &read::<N, S>(context, text).await?)
}

/// What is said about the targets of one command: a line each for people, at once; for programs one document at
/// the end, also when a later target was refused: the thing itself for one target, a list for several.
pub(crate) struct Told {
    documents: Vec<Value>,
    has_several: bool,
    is_json: bool,
}

impl Told {
    /// Nothing said yet.
    pub(crate) fn new(context: &Context, targets: &[String]) -> Told {
        Told { documents: Vec::new(), has_several: targets.len() > 1, is_json: context.is_json() }
    }

    /// Says what became of a target.
    pub(crate) fn say(&mut self, body: &[u8], line: &str) -> Result<(), Failure> {
        if !self.is_json {
            output::out(&format!("  {line}\n"));
            return Ok(());
        }
        let document = serde_json::from_slice(body);
        self.documents.push(document.map_err(|error| Failure::local("the answer is no JSON", error))?);
        Ok(())
    }

    /// Prints the document, and hands on how it went.
    pub(crate) fn end(mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        match self.document() {
            Some(document) => output::json(&document).and(outcome),
            None => outcome,
        }
    }

    fn document(&mut self) -> Option<Value> {
        if self.has_several && self.is_json {
            return Some(json!({"items": self.documents}));
        }
        self.documents.pop()
    }
}

/// Deletes things one by one, once all are found. A program gets what they were.
pub(crate) async fn delete<N: Noun, S, D>(context: &Context, names: &[String]) -> Result<(), Failure>
where
    S: Endpoint<Query = RefQuery, Body = Nothing, Answer = N::View>,
    D: Endpoint<Query = RefQuery, Body = Nothing, Answer = Nothing>,
{
    let things = several::found::<N, S>(context, names).await?;
    let mut told = Told::new(context, names);
    let name = |was: &Answered<N::View>| N::name(&was.value).to_owned();
    let outcome = several::each(&things, name, async |was| {
        let id = N::id(&was.value).to_string();
        context.client.request::<D>(&[&id]).send_only(&Nothing).await?;
        told.say(&was.body, &format!("{} {} deleted", N::WORD, N::name(&was.value)))
    })
    .await;
    told.end(outcome)
}

/// A reference given in a word, as [`resolve`] reads it.
pub(crate) async fn resolve_if<N: Noun>(
    context: &Context,
    text: Option<String>,
) -> Result<Option<String>, Failure> {
    match text {
        Some(text) => resolve::<N>(context, &text).await.map(Some),
        None => Ok(None),
    }
}

/// What the API can be asked with: the text itself, or the id that begins with it. Only a text that could be
/// the beginning of an id costs a look at the list.
pub(crate) async fn resolve<N: Noun>(context: &Context, text: &str) -> Result<String, Failure> {
    if text.is_empty() {
        return Err(Failure::Usage(format!("the {}'s name is empty", N::WORD)));
    }
    if Uuid::try_parse(text).is_ok() || (N::HAS_NAMES && !could_begin_an_id(text)) {
        return Ok(text.to_owned());
    }
    let query = <N::List as Endpoint>::Query::default().in_project(context.project.clone());
    let (views, _) = pages::<N>(context, query).await?;
    let known: Vec<(Uuid, &str)> = views.iter().map(|view| (N::id(view), N::name(view))).collect();
    match pick(&known, text) {
        Picked::One(id) => Ok(id.to_string()),
        Picked::AsGiven if N::HAS_NAMES => Ok(text.to_owned()),
        Picked::AsGiven => Err(no_such_id(context, N::WORD, text)),
        Picked::Several(ids) => {
            let ids = ids.iter().map(output::short_id).collect::<Vec<_>>().join(", ");
            Err(Failure::Usage(format!(
                "`{text}` begins the ids of several {}s: {ids}; give more of it",
                N::WORD
            )))
        }
    }
}

/// Of a noun without names: what was given is no id and begins none.
fn no_such_id(context: &Context, noun: &str, text: &str) -> Failure {
    let message = format!("no {noun} `{text}`; `{}` shows them", context.hint(&format!("{noun} list")));
    Failure::Client(ClientError::Problem(Box::new(Problem::new(404, "not_found", message))))
}

/// At least four hex digits, less than a whole id.
fn could_begin_an_id(text: &str) -> bool {
    let digits = text.chars().filter(|c| *c != '-').count();
    (4..32).contains(&digits) && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

#[derive(Debug, PartialEq, Eq)]
enum Picked {
    One(Uuid),
    AsGiven,
    Several(Vec<Uuid>),
}

/// A name wins over the beginning of an id.
fn pick(known: &[(Uuid, &str)], text: &str) -> Picked {
    if known.iter().any(|(_, name)| *name == text) {
        return Picked::AsGiven;
    }
    let wanted = text.replace('-', "").to_lowercase();
    if wanted.is_empty() {
        return Picked::AsGiven;
    }
    let begins = |id: &Uuid| id.simple().to_string().starts_with(&wanted);
    let ids: Vec<Uuid> = known.iter().map(|(id, _)| *id).filter(begins).collect();
    match ids.as_slice() {
        [] => Picked::AsGiven,
        [id] => Picked::One(*id),
        _ => Picked::Several(ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_must_be_unique_and_yields_to_a_name() {
        let one = Uuid::from_u128(0x7f3a_1111 << 96);
        let two = Uuid::from_u128(0x7f3a_2222 << 96);
        let known = [(one, "web"), (two, "dead")];
        assert_eq!(pick(&known, "7f3a1"), Picked::One(one));
        assert_eq!(pick(&known, "7F3A2222-00"), Picked::One(two));
        assert_eq!(pick(&known, "7f3a"), Picked::Several(vec![one, two]));
        assert_eq!(pick(&known, "beef"), Picked::AsGiven);
        assert_eq!(pick(&[(one, "7f3a"), (two, "x")], "7f3a"), Picked::AsGiven);
    }

    #[test]
    fn one_target_is_told_as_itself_and_several_as_a_list() {
        let told = |has_several| Told { documents: Vec::new(), has_several, is_json: true };
        let mut one = told(false);
        assert_eq!(one.document(), None);
        one.say(b"{\"name\":\"web\"}", "").unwrap();
        assert_eq!(one.document(), Some(json!({"name": "web"})));
        let mut several = told(true);
        assert_eq!(several.document(), Some(json!({"items": []})));
        several.say(b"1", "").unwrap();
        several.say(b"2", "").unwrap();
        assert_eq!(several.document(), Some(json!({"items": [1, 2]})));
    }

    #[test]
    fn only_hex_that_is_no_whole_id_is_looked_up() {
        for text in ["7f3a", "7f3a1111-0000", "DEAD"] {
            assert!(could_begin_an_id(text), "{text}");
        }
        for text in ["web", "abc", "7f3a1111-0000-0000-0000-000000000000", "dead-web", "----"] {
            assert!(!could_begin_an_id(text), "{text}");
        }
    }
}
