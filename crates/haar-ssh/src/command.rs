//! What to run on a server, and what became of it.
//!
//! Deliberately absent: arguments as a list. A command is a text for the user's login shell there, as with the
//! `ssh` program; [`quote`](crate::quote) makes a text one word of it, and [`script`](crate::script) a script of
//! `sh` a command for any of them.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use russh::Sig;

use crate::{Error, Result, shell};

/// How long a command may take to be left running.
const STARTING: Duration = Duration::from_secs(30);

/// A command for the user's login shell on the server, whichever that is.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    pub(crate) text: String,
    pub(crate) limit: Option<Duration>,
    pub(crate) stdin: Option<Bytes>,
}

/// What it reads is often a secret, and is not shown.
impl fmt::Debug for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, limit, stdin } = self;
        let stdin = stdin.as_ref().map(Bytes::len);
        let fields = &mut formatter.debug_struct("Command");
        fields.field("text", text).field("limit", limit).field("stdin_bytes", &stdin).finish()
    }
}

impl Command {
    /// A command without a time limit, whose standard input is empty.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), limit: None, stdin: None }
    }

    /// Ends the command on the server when it takes longer than this.
    #[must_use]
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// A command that starts another one, which goes on by itself without input and output, whatever becomes of who
    /// started it. Its output is that one's process id.
    #[must_use]
    pub fn background(text: &str) -> Self {
        // Small systems have one of the two only; without a terminal either will do.
        let script = "s=; for p in setsid nohup; do command -v $p >/dev/null 2>&1 && s=\"$s $p\"; done; \
            $s \"${SHELL:-/bin/sh}\" -c \"$(printf %b \"$1\")\" </dev/null >/dev/null 2>&1 & echo $!";
        Self::new(shell::script(script, &[&shell::escaped(text)])).limit(STARTING)
    }

    /// Whether a shell can be given it as it is.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a text with a zero byte.
    pub fn check(&self) -> Result<()> {
        if !self.text.contains('\0') {
            return Ok(());
        }
        let why = "it has a zero byte, where a shell would cut it off".to_owned();
        Err(Error::BadInput { what: "command", value: self.text.clone(), why })
    }

    /// What the shell reads.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How long it may take.
    #[must_use]
    pub fn time_limit(&self) -> Option<Duration> {
        self.limit
    }

    /// What it reads from its standard input, which is empty without.
    #[must_use]
    pub fn input(&self) -> Option<&Bytes> {
        self.stdin.as_ref()
    }

    /// What the command reads from its standard input.
    #[must_use]
    pub fn stdin(self, bytes: impl Into<Bytes>) -> Self {
        Self { stdin: Some(bytes.into()), ..self }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status; 128 and the signal's number when a signal ended it.
    pub status: u32,
    /// The signal that ended it, without `SIG`; `None` when it ended by itself.
    pub signal: Option<String>,
}

impl Exit {
    /// Whether the status is 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status == 0
    }

    pub(crate) fn by_signal(signal: &Sig) -> Self {
        let (name, number) = match signal {
            Sig::HUP => ("HUP", 1),
            Sig::INT => ("INT", 2),
            Sig::QUIT => ("QUIT", 3),
            Sig::ILL => ("ILL", 4),
            Sig::ABRT => ("ABRT", 6),
            Sig::FPE => ("FPE", 8),
            Sig::KILL => ("KILL", 9),
            Sig::USR1 => ("USR1", 10),
            Sig::SEGV => ("SEGV", 11),
            Sig::PIPE => ("PIPE", 13),
            Sig::ALRM => ("ALRM", 14),
            Sig::TERM => ("TERM", 15),
            Sig::Custom(name) if name == "USR2" => ("USR2", 12),
            // The wire has names only, and what is not in its list has no agreed number.
            Sig::Custom(name) => (name.as_str(), 0),
        };
        Self { status: 128 + number, signal: Some(name.to_owned()) }
    }
}

/// What a command said, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 128 and the signal's number when a signal ended it.
    pub status: u32,
    /// The signal that ended it, without `SIG`; `None` when it ended by itself.
    pub signal: Option<String>,
    /// What it wrote to its standard output, from the beginning.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error, from the beginning.
    pub stderr: Vec<u8>,
    /// Whether it wrote more than was kept, to one of the two.
    pub truncated: bool,
}

impl Output {
    /// Whether the status is 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status == 0
    }

    /// Takes what a command says next, and tells whether it may say more. Of each of the two that it writes to as
    /// many bytes are kept as `cap` says, and no more.
    ///
    /// # Errors
    /// What was said instead; one that ran out of time gets what was kept.
    pub fn hear(&mut self, said: Result<Option<Chunk>>, cap: usize) -> Result<bool> {
        match said {
            Ok(Some(chunk)) => self.keep(&chunk, cap),
            Ok(None) => return Ok(false),
            Err(Error::OverTime { command, limit, .. }) => {
                let output = Box::new(std::mem::take(self));
                return Err(Error::OverTime { command, limit, output });
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn keep(&mut self, chunk: &Chunk, cap: usize) {
        let (kept, bytes) = match chunk {
            Chunk::Stdout(bytes) => (&mut self.stdout, bytes),
            Chunk::Stderr(bytes) => (&mut self.stderr, bytes),
        };
        let room = cap.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        self.truncated |= room < bytes.len();
    }
}

/// Something that a command wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// To its standard output.
    Stdout(Bytes),
    /// To its standard error.
    Stderr(Bytes),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_reads_is_not_shown() {
        let text = format!("{:?}", Command::new("cat").stdin("hush"));
        assert!(!text.contains("hush") && text.contains("Some(4)"), "{text}");
    }

    #[test]
    fn output_beyond_the_cap_is_dropped_and_said() {
        let mut output = Output::default();
        output.keep(&Chunk::Stdout(Bytes::from_static(b"abc")), 4);
        output.keep(&Chunk::Stderr(Bytes::from_static(b"e")), 4);
        assert!(!output.truncated);
        output.keep(&Chunk::Stdout(Bytes::from_static(b"de")), 4);
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"abcd"[..], &b"e"[..]));
        assert!(output.truncated);
    }

    #[test]
    fn a_signal_counts_as_a_shell_counts_it() {
        assert_eq!(Exit::by_signal(&Sig::KILL), Exit { status: 137, signal: Some("KILL".into()) });
        assert_eq!(Exit::by_signal(&Sig::Custom("USR2".into())).status, 140);
    }
}
