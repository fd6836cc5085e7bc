//! Waits for a job and says how far it is, on one line that is written over; on no terminal it is silent.

use std::io::Write as _;
use std::time::{Duration, Instant};

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{JobView, Wait, WaitQuery};

use super::context::Context;
use super::failure::Failure;
use super::output;

/// Whether a command waits for the job it begins.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct WaitWords {
    /// Print the job's id instead of waiting for its end
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Give up waiting after so many seconds; the job goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) wait: u64,
}

impl WaitWords {
    /// How long is waited in all, from now on, be it for one job or for several.
    pub(crate) fn limit(self) -> Limit {
        Limit { begun: Instant::now(), seconds: self.wait }
    }
}

/// How long is waited, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    begun: Instant,
    seconds: u64,
}

impl Limit {
    fn left(&self) -> Duration {
        Duration::from_secs(self.seconds).saturating_sub(self.begun.elapsed())
    }
}

/// Waits until the job has ended well.
///
/// # Errors
/// [`Failure::Job`] when it ended in error; a failure of its own when the time is over.
pub(crate) async fn to_the_end(
    context: &Context,
    subject: &str,
    job: &str,
    limit: Limit,
) -> Result<JobView, Failure> {
    let mut line = Line::new(output::bars() && !context.is_json());
    let poll = Duration::from_millis(if line.shown { 300 } else { 10_000 });
    loop {
        let left = limit.left();
        let wait = Wait(poll.min(left.max(Duration::from_millis(1))));
        let call = context.client.request::<t::JobShow>(&[job]).query(WaitQuery { wait: Some(wait) });
        let seen = call.limit(wait.0 + Duration::from_secs(30)).send(&Nothing).await?.value;
        if seen.ended() {
            line.clear();
            return if seen.status == "done" { Ok(seen) } else { Err(Failure::Job(Box::new(seen))) };
        }
        if left.is_zero() {
            line.clear();
            let text = format!(
                "job {} has not ended after {} s and goes on; look with  {}",
                output::short_id(seen.id),
                limit.seconds,
                context.hint(&format!("job show {}", output::short_id(seen.id)))
            );
            return Err(Failure::Local(subject.to_owned(), text.into()));
        }
        let waiting =
            seen.steps.iter().find(|step| step.state == "running").map_or("", |step| step.message.as_str());
        line.show(&format!("  {subject}   {}   {}", ticks(&seen), progress(waiting)));
    }
}

/// A step's words; where they count bytes, as those of an image's fetch do, a bar.
fn progress(words: &str) -> String {
    let amounts = words.strip_suffix(" bytes").and_then(|words| words.split_once(" of "));
    let numbers = amounts.and_then(|(done, total)| Some((done.parse().ok()?, total.parse().ok()?)));
    match numbers {
        Some((done, total)) => {
            format!("{}   {} of {}", output::bar(done, total), output::bytes(done), output::bytes(total))
        }
        None => words.to_owned(),
    }
}

/// The job's steps in one line: `image ✓  disks ✓  define …`. What the controller does itself goes without saying.
pub(crate) fn ticks(job: &JobView) -> String {
    let shown = job.steps.iter().filter(|step| !matches!(step.stage.as_str(), "place" | "release"));
    let words: Vec<String> =
        shown.filter_map(|step| mark(&step.state).map(|mark| format!("{} {mark}", step.stage))).collect();
    words.join("  ")
}

/// The sign of a step's state; None for one that has not begun.
pub(crate) fn mark(state: &str) -> Option<&'static str> {
    match state {
        "done" => Some("✓"),
        "failed" => Some("✗"),
        "undone" => Some("↶"),
        "running" => Some("…"),
        _ => None,
    }
}

/// A line on stderr that is written over.
struct Line {
    shown: bool,
}

impl Line {
    fn new(shown: bool) -> Line {
        Line { shown }
    }

    fn show(&mut self, text: &str) {
        if self.shown {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&mut self) {
        self.show("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_that_counts_bytes_has_a_bar() {
        assert_eq!(
            progress("78643200 of 104857600 bytes"),
            "███████████████░░░░░  75 %   75.0 MiB of 100.0 MiB"
        );
        assert_eq!(progress("12 bytes"), "12 bytes");
        assert_eq!(progress("waits for the guest to power off"), "waits for the guest to power off");
    }
}
