//! Why a command did not end well: what a person reads, what a program reads, and the exit code.

use std::error::Error;
use std::process::ExitCode;

use haar_api::client::ClientError;
use haar_api::problem::{Problem, ReasonView};
use haar_api::v1::JobView;

use super::cloud;
use super::job;
use super::output::{self, Format};
use super::several::Partly;

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The words cannot be meant.
    Usage(String),
    /// The request failed, or was refused.
    Client(ClientError),
    /// A job ended in error.
    Job(Box<JobView>),
    /// Something on this machine: what was tried, and why it failed.
    Local(String, Box<dyn Error + Send + Sync>),
    /// A cloud that servers are rented in says no, or a server there.
    Cloud(Box<haar_cloud::Error>),
    /// Of several things some were done and some were not.
    Partly(Box<Partly>),
    /// It was done, and what it found is bad; everything was said already.
    Said,
    /// One of these, and lines about what to do.
    Advised(Box<Failure>, Vec<String>),
    /// A program that was run in our stead ended with this code, and said why.
    Ended(u8),
}

/// Ends the process over words that cannot be meant, or that asked for help. Help goes to stdout as it is; what is
/// wrong goes to stderr, in the form the words asked for.
pub(crate) fn wrong_words(error: &clap::Error, words: &[String]) -> ! {
    if !error.use_stderr() || !wants_json(words) {
        error.exit();
    }
    let text = error.render().to_string();
    let text = text.trim().strip_prefix("error: ").unwrap_or(text.trim()).to_owned();
    let failure = Failure::Usage(text);
    let _ = failure.report(Format::Json);
    std::process::exit(i32::from(failure.code()));
}

/// Whether words that clap may not understand ask for JSON.
fn wants_json(words: &[String]) -> bool {
    let mut words = words.iter().map(String::as_str).take_while(|word| *word != "--").peekable();
    let mut last = None;
    while let Some(word) = words.next() {
        match word {
            "-o" | "--output" => last = words.peek().copied().or(last),
            _ => {
                let short = word.strip_prefix("-o").map(|rest| rest.trim_start_matches('='));
                last = word.strip_prefix("--output=").or(short).or(last);
            }
        }
    }
    last == Some("json")
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Problem(mut problem) if problem.code == "job_failed" && problem.job.is_some() => {
                match problem.job.take() {
                    Some(job) => Failure::Job(job),
                    None => Failure::Client(ClientError::Problem(problem)),
                }
            }
            other => Failure::Client(other),
        }
    }
}

impl From<haar_cloud::Error> for Failure {
    fn from(error: haar_cloud::Error) -> Failure {
        Failure::Cloud(Box::new(error))
    }
}

impl Failure {
    /// Something on this machine failed.
    pub(crate) fn local(tried: impl Into<String>, error: impl Error + Send + Sync + 'static) -> Failure {
        Failure::Local(tried.into(), Box::new(error))
    }

    /// Says it on stderr and gives the exit code.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        match (self, format) {
            (Failure::Said | Failure::Ended(_), _) => {}
            (_, Format::Json) => {
                let json = serde_json::to_string_pretty(&self.problem());
                eprintln!("{}", json.unwrap_or_else(|error| error.to_string()));
            }
            (_, Format::Table) => eprint!("{}", marked(&self.text(), output::bars())),
        }
        ExitCode::from(self.code())
    }

    /// 1 failed, 2 wrong usage, 3 refused, 4 not found, 5 not allowed, 6 unreachable.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Ended(code) => *code,
            Failure::Advised(failure, _) => failure.code(),
            Failure::Partly(partly) => partly.code(),
            Failure::Cloud(error) => cloud::exit_code(error),
            Failure::Job(_) | Failure::Local(..) | Failure::Said => 1,
            Failure::Client(error) => match error {
                ClientError::Problem(problem) => exit_code(problem),
                ClientError::BadUrl(_) | ClientError::BadToken => 2,
                error if error.is_unreachable() => 6,
                _ => 1,
            },
        }
    }

    /// For a person.
    pub(crate) fn text(&self) -> String {
        match self {
            Failure::Partly(partly) => partly.text(),
            Failure::Client(ClientError::Problem(problem)) => problem_text(problem),
            Failure::Job(failed) => job::failure_text(failed),
            Failure::Client(error) => format!("error: {}\n", chain(error)),
            Failure::Local(tried, error) => format!("error: {tried}: {}\n", chain(error.as_ref())),
            Failure::Usage(text) => format!("error: {text}\n"),
            Failure::Cloud(error) => {
                output::with_code(&format!("error: {}", chain(error)), cloud::word(error))
            }
            Failure::Advised(failure, advice) => {
                let lines = advice.iter().map(|line| format!("   {line}\n"));
                lines.fold(failure.text(), |text, line| text + &line)
            }
            Failure::Said | Failure::Ended(_) => String::new(),
        }
    }

    /// For a program.
    pub(crate) fn problem(&self) -> Problem {
        let local =
            |code: &str, message: String| Problem { code: code.to_owned(), message, ..Problem::default() };
        match self {
            Failure::Client(ClientError::Problem(problem)) => (**problem).clone(),
            Failure::Job(failed) => Problem {
                job: Some(failed.clone()),
                ..Problem::new(409, "job_failed", job::failure_line(failed))
            },
            Failure::Partly(partly) => partly.problem(),
            Failure::Client(error) if error.is_unreachable() => local("unreachable", chain(error)),
            Failure::Client(error) => local("client", chain(error)),
            Failure::Usage(text) => local("usage", text.clone()),
            Failure::Cloud(error) => local(cloud::word(error), chain(error)),
            Failure::Local(tried, error) => local("local", format!("{tried}: {}", chain(error.as_ref()))),
            Failure::Advised(failure, _) => failure.problem(),
            Failure::Said | Failure::Ended(_) => local("failed", String::new()),
        }
    }
}

/// On a terminal the word `error` stands out, so that it is found among what was said before.
fn marked(text: &str, is_terminal: bool) -> String {
    let mark = |line: &str| match line.strip_prefix("error:") {
        Some(rest) if is_terminal => format!("\x1b[1;31merror:\x1b[0m{rest}"),
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(mark).collect()
}

/// The error and its causes, each said once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            // A question is answered, not continued.
            let joint = if text.ends_with('?') { " " } else { ": " };
            text = format!("{text}{joint}{words}");
        }
        source = cause.source();
    }
    text
}

fn exit_code(problem: &Problem) -> u8 {
    match (problem.status, problem.code.as_str()) {
        (_, "job_failed") => 1,
        (401 | 403, _) => 5,
        (404, _) => 4,
        (503, "not_ready" | "too_many_connections") => 6,
        (400..=499, _) => 3,
        _ => 1,
    }
}

/// A problem for a person: the message with its code at the right, then the reasons.
pub(crate) fn problem_text(problem: &Problem) -> String {
    let mut text = output::with_code(&format!("error: {}", problem.message), &problem.code);
    let width = problem.reasons.iter().map(|reason| reason.words.chars().count()).max().unwrap_or(0);
    for reason in &problem.reasons {
        text.push_str(&reason_line(reason, width));
    }
    if problem.status >= 500 && !problem.request_id.is_empty() {
        text.push_str(&format!("   the controller's log has more under request {}\n", problem.request_id));
    }
    text
}

fn reason_line(reason: &ReasonView, width: usize) -> String {
    let which = match (reason.count, reason.detail.as_str()) {
        (1, "") => reason.best.clone(),
        (1, detail) => format!("{}, {detail}", reason.best),
        (_, "") => format!("such as {}", reason.best),
        (_, detail) => format!("best: {}, {detail}", reason.best),
    };
    format!("{:>4}  {:width$}   {which}\n", reason.count, reason.words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_stands_out_on_a_terminal_only() {
        let text = "error: no\n   1  error: memory\nerror: not done: a\n";
        assert_eq!(marked(text, false), text);
        let red = "\u{1b}[1;31merror:\u{1b}[0m";
        assert_eq!(marked(text, true), format!("{red} no\n   1  error: memory\n{red} not done: a\n"));
    }

    #[test]
    fn json_is_asked_for_in_every_way_clap_takes() {
        let asks = |words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            wants_json(&words)
        };
        for words in ["guest show -o json", "-ojson x", "-o=json", "--output json", "a --output=json --b"] {
            assert!(asks(words), "{words}");
        }
        for words in ["guest show json", "-o table", "ssh web -- cat -o json", "-o", "-o json -o table"] {
            assert!(!asks(words), "{words}");
        }
    }
}
