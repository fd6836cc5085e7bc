//! `haar completion`: a script that completes nouns, verbs and flags.

use clap_complete::Shell;

use super::failure::Failure;
use super::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar completion bash > ~/.local/share/bash-completion/completions/haar
  haar completion fish > ~/.config/fish/completions/haar.fish")]
pub(crate) struct Words {
    /// Which shell
    shell: Shell,
}

pub(crate) fn print(words: &Words) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(words.shell, &mut super::command(), "haar", &mut script);
    output::out(&String::from_utf8_lossy(&script));
    Ok(())
}
