//! How the demo prints: each step with its command, what came of it, and its time.

use std::time::Instant;

use anyhow::Result;

use crate::cloud::Cloud;

/// Lines of a command's output that are shown.
const SHOWN_LINES: usize = 12;

/// What a step gives: something for the next steps, and words for a person.
pub(super) trait Outcome {
    /// What is handed on.
    type Value;
    /// Value and words.
    fn split(self) -> (Self::Value, String);
}

impl Outcome for String {
    type Value = ();
    fn split(self) -> ((), String) {
        ((), self)
    }
}

impl<T> Outcome for (T, String) {
    type Value = T;
    fn split(self) -> (T, String) {
        self
    }
}

/// The printer of steps.
#[derive(Debug)]
pub(super) struct Show {
    began: Instant,
    number: usize,
    help: String,
}

impl Show {
    pub(super) fn begin() -> Self {
        let help = "mend what the message names, then run the same command again".to_owned();
        Self { began: Instant::now(), number: 0, help }
    }

    /// What a failing step tells to do from now on.
    pub(super) fn help_is(&mut self, help: String) {
        self.help = help;
    }

    /// Does one step and prints it.
    pub(super) fn step<O: Outcome>(
        &mut self,
        title: &str,
        command: &str,
        act: impl FnOnce() -> Result<O>,
    ) -> Result<O::Value> {
        self.number += 1;
        println!("\n[{:2}] {title}\n     $ {command}", self.number);
        let began = Instant::now();
        match act() {
            Ok(outcome) => {
                let (value, words) = outcome.split();
                for line in words.trim_end().lines().take(SHOWN_LINES) {
                    println!("       {line}");
                }
                println!("     ok, {:.1} s", began.elapsed().as_secs_f32());
                Ok(value)
            }
            Err(error) => {
                println!("     FAILED after {:.1} s", began.elapsed().as_secs_f32());
                Err(error.context(format!("step {} ({title}) failed; {}", self.number, self.help)))
            }
        }
    }

    /// A step that is one command of the command line.
    pub(super) fn run(&mut self, title: &str, cloud: &Cloud, words: &[&str]) -> Result<()> {
        self.step(title, &format!("haar {}", words.join(" ")), || cloud.run(words))
    }

    pub(super) fn end(&self) {
        println!("\nall {} steps done in {:.0} s", self.number, self.began.elapsed().as_secs_f32());
    }
}
