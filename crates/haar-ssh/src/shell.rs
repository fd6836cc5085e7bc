//! Texts that every login shell understands, and what is known of the one on a server.
//!
//! Promises: what [`quote`] and [`script`] make means the same to `sh` and its family, to `csh` and to `fish`.
//! Deliberately absent: newlines in a word of csh, which it has no way to write; [`escaped`] goes round that.

use std::sync::atomic::{AtomicBool, Ordering};

/// The shells that say their process id as `sh` does.
const FAMILY_OF_SH: &[&str] = &["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox", "rbash"];

/// What a server's login shell is.
#[derive(Debug, Default)]
pub(crate) struct Shell {
    is_sh: AtomicBool,
}

impl Shell {
    /// Whether it is known to be one of the family of `sh`.
    pub(crate) fn is_sh(&self) -> bool {
        self.is_sh.load(Ordering::Relaxed)
    }

    /// Takes note of its path.
    pub(crate) fn is(&self, path: &str) {
        let name = path.rsplit('/').next().unwrap_or_default();
        self.is_sh.store(FAMILY_OF_SH.contains(&name), Ordering::Relaxed);
    }
}

/// Makes a text one word for a shell, whatever is in it.
///
/// Every login shell reads it so; but csh knows no word with a newline.
///
/// ```
/// assert_eq!(haar_ssh::quote("it's here"), r"'it'\''s here'");
/// ```
#[must_use]
pub fn quote(text: &str) -> String {
    let mut word = String::with_capacity(text.len() + 2);
    word.push('\'');
    for sign in text.chars() {
        // Between quotes csh still looks for `!`, and fish for backslashes.
        match sign {
            '\'' | '!' | '\\' => word.extend(["'\\", sign.encode_utf8(&mut [0; 4]), "'"]),
            _ => word.push(sign),
        }
    }
    word.push('\'');
    word
}

/// A script of `sh` as a command for any login shell; its arguments are `$1` and so on.
///
/// ```
/// assert_eq!(haar_ssh::script("cd \"$1\"", &["/a b"]), "sh -c 'cd \"$1\"' sh '/a b'");
/// ```
#[must_use]
pub fn script(script: &str, arguments: &[&str]) -> String {
    let mut command = format!("sh -c {} sh", quote(script));
    for argument in arguments {
        command.push(' ');
        command.push_str(&quote(argument));
    }
    command
}

/// A text without newlines, which `printf %b` makes of it again.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_word_is_the_same_word_in_every_shell_that_is_here() {
        let text = "it's a \"$HOME\" `id` \\ \\\\ \\' * ? [a] {b,c} ~ # ! !! ; & | < > ( ) % ü";
        let mut tried = 0;
        for shell in ["sh", "bash", "dash", "zsh", "ksh", "csh", "tcsh", "fish"] {
            let command = script("printf %s \"$1\"", &[text]);
            // Without its user's settings, which may say anything.
            let output = Command::new(shell).arg("-c").arg(&command).env("HOME", "/does/not/exist").output();
            let Ok(output) = output else { continue };
            assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{shell}: {output:?}");
            tried += 1;
        }
        assert!(tried > 0);
    }

    #[test]
    fn what_is_escaped_comes_back_as_it_was() {
        let text = "a\\n b\\\\\n\tc \\0101 %s \\c d";
        let command = script("printf %b \"$1\"", &[&escaped(text)]);
        let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), text);
    }
}
