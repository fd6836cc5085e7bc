//! The first line of a command's output, which tells its process id.
//!
//! A command can only be ended on the server when its process group is known, and the protocol does not tell
//! it. So the shell is asked to say its own id first, and that line is taken out of the output again. Promises:
//! every other byte passes unchanged and in order, whatever the server makes of the question.

use bytes::{Bytes, BytesMut};

use crate::shell::Shell;

/// What the line begins with.
const MARK: &[u8] = b"haar-ssh-process ";
/// What a login script may have said before the line; beyond that it will not come.
const LONGEST: usize = 8 << 10;

/// Puts the question before a command. A shell of the family of `sh` answers by itself; until it is known to be
/// one, and for all others, a `sh` is asked whose child it is, and which shell that is.
pub(crate) fn ask(command: &str, shell: &Shell) -> String {
    match shell.is_sh() {
        true => format!("echo haar-ssh-process $$\n{command}"),
        false => format!("sh -c 'echo haar-ssh-process $PPID $0' $SHELL\n{command}"),
    }
}

/// Looks for the line.
#[derive(Debug, Default)]
pub(crate) struct PidLine {
    held: BytesMut,
    is_over: bool,
    pid: Option<u32>,
}

impl PidLine {
    /// The id, once it was told.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Whether the line has come, or will not come any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes output and gives what is not the line.
    pub(crate) fn pass(&mut self, bytes: Bytes, shell: &Shell) -> Bytes {
        if self.is_over {
            return bytes;
        }
        self.held.extend_from_slice(&bytes);
        if let Some(Told { begin, end, pid, shell: told }) = find(&self.held) {
            (self.is_over, self.pid) = (true, Some(pid));
            if let Some(told) = told {
                shell.is(told);
            }
            let mut rest = self.held.split_off(begin);
            let after = rest.split_off(end - begin);
            self.held.unsplit(after);
            return self.held.split().freeze();
        }
        if self.held.len() > LONGEST { self.give_up() } else { Bytes::new() }
    }

    /// What was held back, as no line came.
    pub(crate) fn give_up(&mut self) -> Bytes {
        self.is_over = true;
        self.held.split().freeze()
    }
}

/// The line.
struct Told<'a> {
    begin: usize,
    /// Where its newline ends.
    end: usize,
    pid: u32,
    /// The path of the shell, where it was asked for.
    shell: Option<&'a str>,
}

fn find(bytes: &[u8]) -> Option<Told<'_>> {
    let begin = bytes.windows(MARK.len()).position(|window| window == MARK)?;
    let answer = begin + MARK.len();
    let length = bytes[answer..].iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&bytes[answer..answer + length]).ok()?.split_whitespace();
    let pid: u32 = words.next()?.parse().ok()?;
    // A group of 0 or 1 would be everybody's; no command of ours has it.
    (pid > 1).then(|| Told { begin, end: answer + length + 1, pid, shell: words.next() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(pieces: &[&str]) -> (String, Option<u32>) {
        let mut line = PidLine::default();
        let mut output = Vec::new();
        let shell = Shell::default();
        for piece in pieces {
            output.extend_from_slice(&line.pass(Bytes::copy_from_slice(piece.as_bytes()), &shell));
        }
        output.extend_from_slice(&line.give_up());
        (String::from_utf8(output).unwrap(), line.pid())
    }

    #[test]
    fn the_line_is_taken_out_however_it_is_cut() {
        let text = "hello from a login script\nhaar-ssh-process 4711\nand the output\n";
        let expected = ("hello from a login script\nand the output\n".to_owned(), Some(4711));
        assert_eq!(pass(&[text]), expected);
        for cut in 1..text.len() {
            assert_eq!(pass(&[&text[..cut], &text[cut..]]), expected, "cut at {cut}");
        }
        let bytes: Vec<&str> = text.split_inclusive(|_: char| true).collect();
        assert_eq!(pass(&bytes), expected);
    }

    #[test]
    fn without_the_line_nothing_is_lost() {
        assert_eq!(pass(&["only ", "output"]), ("only output".to_owned(), None));
        assert_eq!(pass(&["haar-ssh-process $$\nx"]), ("haar-ssh-process $$\nx".to_owned(), None));
        let long = "x".repeat(3 * LONGEST);
        assert_eq!(pass(&[&long[..LONGEST], &long[LONGEST..]]), (long.clone(), None));
    }

    #[test]
    fn a_shell_is_asked_the_long_way_until_it_is_known_to_answer_the_short_one() {
        let shell = Shell::default();
        assert!(ask("x", &shell).starts_with("sh -c "));
        for (told, is_known) in [("/usr/bin/fish", false), ("/bin/csh", false), ("/bin/bash", true)] {
            let line = format!("haar-ssh-process 7 {told}\n");
            let mut pid_line = PidLine::default();
            assert!(pid_line.pass(Bytes::from(line), &shell).is_empty());
            assert_eq!(ask("x", &shell) == "echo haar-ssh-process $$\nx", is_known, "{told}");
        }
    }

    #[test]
    fn only_the_first_line_of_its_kind_is_ours() {
        let (output, pid) = pass(&["haar-ssh-process 7\n", "haar-ssh-process 8\n"]);
        assert_eq!((output.as_str(), pid), ("haar-ssh-process 8\n", Some(7)));
    }

    #[test]
    fn nobody_is_ever_told_to_end_every_process() {
        assert_eq!(pass(&["haar-ssh-process 1\n"]).1, None);
        assert_eq!(pass(&["haar-ssh-process 0\n"]).1, None);
    }
}
