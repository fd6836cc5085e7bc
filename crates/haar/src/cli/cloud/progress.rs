//! What is being done and waited for, one line for each thing, on a terminal; elsewhere nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haar_cloud::cloud::{Observer, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// More lines than these would scroll.
const MOST_LINES: usize = 20;
const TICK: Duration = Duration::from_millis(250);

/// The lines.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shown: bool,
    multi: MultiProgress,
    lines: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Board {
    /// Lines on stderr, if it is one to write over.
    pub(crate) fn new(shown: bool) -> Board {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let multi = MultiProgress::with_draw_target(target);
        Board(Arc::new(Inner { shown, multi, lines: Mutex::default() }))
    }

    /// Who is told what a cloud does.
    pub(crate) fn observer(&self) -> Observer {
        let board = self.clone();
        Arc::new(move |progress: &Progress| board.show(&progress.about, &progress.doing))
    }

    /// Says what is done with something now.
    pub(crate) fn show(&self, about: &str, doing: &str) {
        if !self.0.shown {
            return;
        }
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if !lines.contains_key(about) {
            if lines.len() >= MOST_LINES {
                return;
            }
            lines.insert(about.to_owned(), self.line(about));
        }
        if let Some(line) = lines.get(about) {
            line.set_message(doing.to_owned());
        }
    }

    /// Takes every line away.
    pub(crate) fn clear(&self) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for line in std::mem::take(&mut *lines).into_values() {
            line.finish_and_clear();
        }
    }

    fn line(&self, about: &str) -> ProgressBar {
        let line = self.0.multi.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix}  {wide_msg}  {elapsed}") {
            line.set_style(style);
        }
        line.set_prefix(about.to_owned());
        line.enable_steady_tick(TICK);
        line
    }
}
