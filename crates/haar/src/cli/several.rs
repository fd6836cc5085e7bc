//! One command on several things.
//!
//! Every name is looked up before anything is done: one that names nothing, and nothing is done at all. What fails then
//! does not keep the others from being done; at the end it is said what was done and what was not. Only where nobody
//! answers, or the token is of no use, the rest is not even tried. What takes its time is begun on all before the end
//! of any is waited for.

use haar_api::client::{Answered, ClientError};
use haar_api::endpoint::{Endpoint, Nothing};
use haar_api::problem::{Problem, ReasonView};
use haar_api::v1::RefQuery;

use super::context::Context;
use super::failure::Failure;
use super::noun::{self, Noun};

/// Reads every thing that is named, each once.
///
/// # Errors
/// One failure about all names that name nothing.
pub(crate) async fn found<N: Noun, S>(
    context: &Context,
    texts: &[String],
) -> Result<Vec<Answered<N::View>>, Failure>
where
    S: Endpoint<Query = RefQuery, Body = Nothing, Answer = N::View>,
{
    let mut found: Vec<Answered<N::View>> = Vec::new();
    let mut wrong = Vec::new();
    for text in texts {
        match noun::read::<N, S>(context, text).await {
            Ok(read) if found.iter().any(|known| N::id(&known.value) == N::id(&read.value)) => {}
            Ok(read) => found.push(read),
            Err(failure) if is_hopeless(&failure) => return Err(failure),
            Err(failure) => wrong.push(failure),
        }
    }
    match refused(wrong, texts.len()) {
        None => Ok(found),
        Some(failure) => Err(failure),
    }
}

/// What is wrong with some of `count` names, in one failure.
fn refused(mut wrong: Vec<Failure>, count: usize) -> Option<Failure> {
    if wrong.len() <= 1 && count == 1 {
        return wrong.pop();
    }
    let words: Vec<String> = wrong.iter().map(|failure| failure.problem().message).collect();
    let message = format!("{}; nothing was done", words.join("; "));
    Some(match wrong.into_iter().next()? {
        Failure::Client(ClientError::Problem(problem)) => {
            Failure::Client(ClientError::Problem(Box::new(Problem { message, ..*problem })))
        }
        _ => Failure::Usage(message),
    })
}

/// Whether the next thing asked would fail alike.
fn is_hopeless(failure: &Failure) -> bool {
    matches!(failure.code(), 5 | 6)
}

/// Does something to each thing in turn, and says at the end what was done and what was not.
pub(crate) async fn each<T>(
    things: &[T],
    name: impl Fn(&T) -> String,
    act: impl AsyncFnMut(&T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    each_to_the_end(things, name, act, async |_, ()| Ok(())).await
}

/// Begins something with each thing, then waits for the end of each that was begun.
pub(crate) async fn each_to_the_end<T, B>(
    things: &[T],
    name: impl Fn(&T) -> String,
    mut begin: impl AsyncFnMut(&T) -> Result<B, Failure>,
    mut end: impl AsyncFnMut(&T, B) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut partly = Partly::default();
    let mut begun = Vec::new();
    let mut left = things.iter();
    for thing in left.by_ref() {
        match begin(thing).await {
            Ok(it) => begun.push((thing, it)),
            Err(failure) => {
                if partly.is_last(name(thing), failure) {
                    break;
                }
            }
        }
    }
    partly.untried.extend(left.map(&name));
    let mut begun = begun.into_iter();
    for (thing, it) in begun.by_ref() {
        match end(thing, it).await {
            Ok(()) => partly.done.push(name(thing)),
            Err(failure) => {
                if partly.is_last(name(thing), failure) {
                    break;
                }
            }
        }
    }
    partly.under_way.extend(begun.map(|(thing, _)| name(thing)));
    partly.outcome()
}

/// What came of several things that were done at once: those that were done, and why the others were not.
pub(crate) fn outcome(done: Vec<String>, failed: Vec<(String, Failure)>) -> Result<(), Failure> {
    Partly { done, failed, ..Partly::default() }.outcome()
}

/// What became of several things, when not all went well.
#[derive(Debug, Default)]
pub(crate) struct Partly {
    done: Vec<String>,
    failed: Vec<(String, Failure)>,
    untried: Vec<String>,
    /// Begun, and nobody knows how it ended.
    under_way: Vec<String>,
}

impl Partly {
    /// Notes a failure, and tells whether the next thing would fail alike.
    fn is_last(&mut self, name: String, failure: Failure) -> bool {
        let is_last = is_hopeless(&failure);
        self.failed.push((name, failure));
        is_last
    }

    fn outcome(mut self) -> Result<(), Failure> {
        let is_alone = self.done.is_empty() && self.untried.is_empty() && self.under_way.is_empty();
        match self.failed.len() {
            0 => Ok(()),
            1 if is_alone => Err(self.failed.remove(0).1),
            _ => Err(Failure::Partly(Box::new(self))),
        }
    }

    /// The code all failures share; 1 when they differ.
    pub(crate) fn code(&self) -> u8 {
        let mut codes = self.failed.iter().map(|(_, failure)| failure.code());
        let first = codes.next().unwrap_or(1);
        if codes.all(|code| code == first) { first } else { 1 }
    }

    /// Each failure, then the sum of it.
    pub(crate) fn text(&self) -> String {
        let mut text: String = self.failed.iter().map(|(_, failure)| failure.text()).collect();
        text.push_str(&format!("error: {}\n", self.sum()));
        text
    }

    /// For programs: the sum, and a reason for each that failed.
    pub(crate) fn problem(&self) -> Problem {
        let reason = |(name, failure): &(String, Failure)| {
            let why = failure.problem();
            ReasonView {
                cause: why.code,
                words: why.message,
                count: 1,
                best: name.clone(),
                detail: String::new(),
            }
        };
        Problem {
            code: "partly_done".to_owned(),
            message: self.sum(),
            reasons: self.failed.iter().map(reason).collect(),
            ..Problem::default()
        }
    }

    fn sum(&self) -> String {
        let failed: Vec<String> = self.failed.iter().map(|(name, _)| name.clone()).collect();
        let parts = [
            ("not done", &failed),
            ("not tried", &self.untried),
            ("under way", &self.under_way),
            ("done", &self.done),
        ];
        let some = parts.iter().filter(|(_, names)| !names.is_empty());
        some.map(|(word, names)| format!("{word}: {}", names.join(", "))).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no(status: u16, code: &str, message: &str) -> Failure {
        Failure::Client(ClientError::Problem(Box::new(Problem::new(status, code, message))))
    }

    async fn each_of(names: &[&str], mut answer: impl FnMut(&str) -> Result<(), Failure>) -> Failure {
        each(names, |name| (*name).to_owned(), async |name| answer(name)).await.unwrap_err()
    }

    #[tokio::test]
    async fn one_that_fails_does_not_keep_the_others_from_being_done() {
        let failure = each_of(&["a", "b", "c"], |name| match name {
            "b" => Err(no(409, "in_use", "b is in use")),
            _ => Ok(()),
        })
        .await;
        assert_eq!(failure.code(), 3);
        let text = failure.text();
        assert!(text.starts_with("error: b is in use"), "{text}");
        assert!(text.ends_with("error: not done: b; done: a, c\n"), "{text}");
        let problem = failure.problem();
        assert_eq!((problem.code.as_str(), problem.reasons[0].best.as_str()), ("partly_done", "b"));
    }

    #[tokio::test]
    async fn the_rest_is_not_tried_where_nobody_answers() {
        let mut asked = Vec::new();
        let failure = each_of(&["a", "b", "c"], |name| {
            asked.push(name.to_owned());
            if name == "a" { Ok(()) } else { Err(no(503, "not_ready", "the controller is not ready")) }
        })
        .await;
        assert_eq!(failure.code(), 6);
        assert!(
            failure.text().ends_with("error: not done: b; not tried: c; done: a\n"),
            "{}",
            failure.text()
        );
        assert_eq!(asked, ["a", "b"]);
    }

    #[tokio::test]
    async fn all_are_begun_before_the_end_of_any_is_waited_for() {
        let seen = std::cell::RefCell::new(Vec::new());
        let begin = async |name: &&str| {
            seen.borrow_mut().push(format!("begin {name}"));
            if *name == "b" { Err(no(409, "in_use", "b is in use")) } else { Ok(name.len()) }
        };
        let end = async |name: &&str, _| {
            seen.borrow_mut().push(format!("end {name}"));
            if *name == "c" { Err(no(503, "not_ready", "the controller is not ready")) } else { Ok(()) }
        };
        let names = ["a", "b", "c", "d"];
        let failure = each_to_the_end(&names, |name| (*name).to_owned(), begin, end).await.unwrap_err();
        assert_eq!(*seen.borrow(), ["begin a", "begin b", "begin c", "begin d", "end a", "end c"]);
        let text = failure.text();
        assert!(text.ends_with("error: not done: b, c; under way: d; done: a\n"), "{text}");
    }

    #[tokio::test]
    async fn a_single_thing_fails_with_its_own_words() {
        let failure = each_of(&["a"], |_| Err(no(404, "not_found", "no guest `a`"))).await;
        assert_eq!(failure.problem().message, "no guest `a`");
    }

    #[test]
    fn failures_of_different_kinds_are_a_failure_as_such() {
        let failed =
            vec![("a".to_owned(), no(409, "in_use", "")), ("b".to_owned(), no(404, "not_found", ""))];
        assert_eq!(Partly { failed, ..Partly::default() }.code(), 1);
    }

    #[test]
    fn all_wrong_names_are_said_at_once() {
        let wrong = vec![no(404, "not_found", "no guest `a`"), no(404, "not_found", "no guest `b`")];
        let failure = refused(wrong, 3).unwrap();
        assert_eq!(failure.code(), 4);
        assert_eq!(failure.problem().message, "no guest `a`; no guest `b`; nothing was done");
        assert!(refused(Vec::new(), 3).is_none());
    }
}
