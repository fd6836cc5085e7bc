//! `haar job`: changes under way, and how they ended.

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{JobListQuery, JobView, StepView, Time, WaitQuery};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::follow::{self, WaitWords};
use super::narrow::LabelWords;
use super::noun::{self, Noun};
use super::{guest, output};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List jobs, the newest last
    #[command(after_help = "Examples:\n  haar job list --guest web\n  haar job list --status error")]
    List(ListWords),
    /// Show a job and its steps
    #[command(after_help = "Examples:\n  haar job show 7f3a")]
    Show(One),
    /// Try a failed job again
    #[command(after_help = "Examples:\n  haar job retry 7f3a")]
    Retry(Waiting),
    /// Wait for a job's end
    #[command(after_help = "Examples:\n  haar job wait 7f3a --wait 60")]
    Wait(Waiting),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListWords {
    /// Only those of this guest
    #[arg(long)]
    guest: Option<String>,
    /// Only those of this status: new, working, done, error
    #[arg(long)]
    status: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Id, or its first digits
    job: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Waiting {
    /// Id, or its first digits
    job: String,
    #[command(flatten)]
    wait: WaitWords,
}

/// The noun.
pub(crate) struct Jobs;

impl Noun for Jobs {
    const WORD: &'static str = "job";
    const COLUMNS: &'static [&'static str] =
        &["ID", "STATUS", "ACTION", "GUEST", "HYPERVISOR", "TOOK", "AGE", ""];
    const HAS_NAMES: bool = false;
    const IN_PROJECTS: bool = false;
    type View = JobView;
    type List = t::JobList;

    fn id(view: &JobView) -> Uuid {
        view.id.0
    }

    fn name(_: &JobView) -> &str {
        ""
    }

    /// The newest last, where a terminal's eye is.
    fn order(view: &JobView) -> (i64, String) {
        (view.created_at.as_ms(), String::new())
    }

    fn row(view: &JobView, now: Time) -> Vec<String> {
        let ended = view.finished_at.unwrap_or(now);
        let remark = match &view.error {
            Some(error) => error.clone(),
            None => current(view).map(|step| format!("{} {}", step.stage, step.message)).unwrap_or_default(),
        };
        vec![
            output::short_id(view.id),
            view.status.clone(),
            view.action.clone(),
            view.guest_name.clone(),
            view.hypervisor_name.clone().unwrap_or_else(|| "-".to_owned()),
            output::span(ended.as_ms() - view.created_at.as_ms()),
            output::age(view.created_at, now),
            remark,
        ]
    }

    fn details(view: &JobView) -> (String, Vec<(&'static str, String)>) {
        (headline(view), Vec::new())
    }
}

fn current(view: &JobView) -> Option<&StepView> {
    view.steps.iter().find(|step| step.state == "running")
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(words) => {
            let guest = noun::resolve_if::<guest::Guests>(context, words.guest).await?;
            let query = JobListQuery { guest, status: words.status, ..JobListQuery::default() };
            noun::list::<Jobs>(context, query, &LabelWords::default()).await
        }
        Verb::Show(words) => show(context, &words.job).await,
        Verb::Retry(words) => retry(context, &words).await,
        Verb::Wait(words) => wait(context, &words).await,
    }
}

async fn show(context: &Context, job: &str) -> Result<(), Failure> {
    let id = noun::resolve::<Jobs>(context, job).await?;
    let answered = context.client.request::<t::JobShow>(&[&id]).send(&Nothing).await?;
    if context.is_json() {
        return output::json_bytes(&answered.body);
    }
    output::out(&format!("  {}\n{}", headline(&answered.value), steps(&answered.value)));
    Ok(())
}

async fn retry(context: &Context, words: &Waiting) -> Result<(), Failure> {
    let id = noun::resolve::<Jobs>(context, &words.job).await?;
    let call = context.client.request::<t::JobRetry>(&[&id]).query(WaitQuery::default());
    let answered = call.send(&Nothing).await?;
    if words.wait.no_wait {
        return noun::said(context, &answered, &answered.value.id.to_string());
    }
    end(context, &answered.value.id.to_string(), &answered.value.guest_name, words.wait).await
}

async fn wait(context: &Context, words: &Waiting) -> Result<(), Failure> {
    let id = noun::resolve::<Jobs>(context, &words.job).await?;
    end(context, &id, "job", words.wait).await
}

async fn end(context: &Context, id: &str, subject: &str, words: WaitWords) -> Result<(), Failure> {
    let ended = follow::to_the_end(context, subject, id, words.limit()).await?;
    if context.is_json() {
        let value = serde_json::to_value(&ended);
        return output::json(&value.map_err(|error| Failure::local("cannot write JSON", error))?);
    }
    output::out(&format!("  {}   {}\n", headline(&ended), follow::ticks(&ended)));
    Ok(())
}

/// `create guest db on lab3   error after 41.0 s`.
fn headline(job: &JobView) -> String {
    let place = job.hypervisor_name.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
    let undone = job.steps.iter().any(|step| step.stage == "undo" && step.state == "done");
    let status = match job.status.as_str() {
        "done" => format!("done after {}", guest::took(job)),
        "error" if undone => format!("error after {}, undone", guest::took(job)),
        "error" => format!("error after {}", guest::took(job)),
        "new" => "nothing heard from the hypervisor yet".to_owned(),
        other => other.to_owned(),
    };
    format!("{} guest {}{place}   {status}", job.action, job.guest_name)
}

/// The steps, one per line, with their times and words; then why it failed, if no step said so, and what next.
fn steps(job: &JobView) -> String {
    let width = job.steps.iter().map(|step| step.stage.len()).max().unwrap_or(0);
    let mut text: String = job.steps.iter().map(|step| step_line(step, width)).collect();
    if let Some(error) = job.error.as_ref().filter(|error| !said_by_a_step(job, error)) {
        text.push_str(&format!("  {error}\n"));
    }
    let retry = format!("haar job retry {}", output::short_id(job.id));
    let can_retry = job.status == "error" && matches!(job.action.as_str(), "create" | "recreate");
    match &job.next {
        Some(next) if can_retry && !next.contains("haar job") => {
            text.push_str(&format!("  next: {next}\n        {retry}\n"));
        }
        Some(next) => text.push_str(&format!("  next: {next}\n")),
        None if can_retry => text.push_str(&format!("  next: {retry}\n")),
        None => {}
    }
    text
}

fn said_by_a_step(job: &JobView, error: &str) -> bool {
    let mut messages =
        job.steps.iter().map(|step| step.message.as_str()).filter(|message| !message.is_empty());
    messages.any(|message| message.contains(error) || error.contains(message))
}

fn step_line(step: &StepView, width: usize) -> String {
    let took = match (step.started_at, step.ended_at) {
        (Some(from), Some(to)) => output::span(to.as_ms() - from.as_ms()),
        _ => String::new(),
    };
    let mark = follow::mark(&step.state).unwrap_or("·");
    format!("    {:width$}   {mark}  {took:>7}   {}", step.stage, step.message).trim_end().to_owned() + "\n"
}

/// One line about a job that ended in error.
pub(crate) fn failure_line(job: &JobView) -> String {
    match &job.error {
        Some(error) => format!("{}: {error}", headline(job)),
        None => headline(job),
    }
}

/// A job that ended in error, for a person.
pub(crate) fn failure_text(job: &JobView) -> String {
    let mut text = output::with_code(&format!("error: {}", headline(job)), job.code.as_deref().unwrap_or(""));
    text.push_str(&steps(job));
    text
}
