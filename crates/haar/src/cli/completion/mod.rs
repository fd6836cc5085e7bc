//! `haar completion`: a script that completes nouns, verbs, flags, and the names and ids of what there is.
//!
//! The scripts for bash, zsh and fish ask this program at each tab (`haar __complete -- WORDS…`, the last word being
//! the one that is completed), so that they never grow old; other shells get a script of the grammar alone. Asking is
//! quick and silent: where no controller answers in time, names are simply not offered.

mod candidates;
mod walk;

use std::process::ExitCode;

use clap_complete::Shell;

use super::failure::Failure;
use super::output;

/// The first word by which the scripts ask.
pub(crate) const ASK: &str = "__complete";

const BASH: &str = r#"_haar() {
    local line candidates=()
    while IFS=$'\t' read -r line _; do candidates+=("$line"); done \
        < <("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=("${candidates[@]}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o bashdefault -o default -F _haar haar
"#;

const ZSH: &str = r#"#compdef haar
_haar() {
    local line word help
    local -a candidates
    while IFS=$'\t' read -r word help; do
        candidates+=("${word//:/\\:}${help:+:$help}")
    done < <("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#candidates} )); then _describe 'haar' candidates; else _files; fi
}
if [[ "$funcstack[1]" == _haar ]]; then _haar "$@"; else compdef _haar haar; fi
"#;

const FISH: &str = r#"function __haar_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete -- $words[2..-1] 2>/dev/null
end
complete -c haar -a '(__haar_complete)'
"#;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar completion bash > ~/.local/share/bash-completion/completions/haar
  haar completion fish > ~/.config/fish/completions/haar.fish")]
pub(crate) struct Words {
    /// Which shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn print(words: &Words) -> Result<(), Failure> {
    match words.shell {
        Shell::Bash => output::out(BASH),
        Shell::Zsh => output::out(ZSH),
        Shell::Fish => output::out(FISH),
        other => {
            let mut script = Vec::new();
            clap_complete::generate(other, &mut super::command(), "haar", &mut script);
            output::out(&String::from_utf8_lossy(&script));
        }
    }
    Ok(())
}

/// Answers a script: one candidate per line, its meaning after a tab.
pub(crate) fn answer(words: &[String]) -> ExitCode {
    let words = words.strip_prefix(&["--".to_owned()]).unwrap_or(words);
    let wanted = walk::walk(&whole(), words);
    let mut lines: Vec<String> = candidates::of(&wanted).iter().map(ToString::to_string).collect();
    lines.sort();
    lines.dedup();
    output::out(&lines.concat());
    ExitCode::SUCCESS
}

/// The grammar with the modes in it.
fn whole() -> clap::Command {
    let modes = crate::modes::MODES.iter().map(|mode| (mode.grammar)().name(mode.word).about(mode.about));
    let mut whole = super::command().subcommands(modes);
    whole.build();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_asks_with_the_word_that_is_answered() {
        for script in [BASH, ZSH, FISH] {
            assert!(script.contains(&format!(" {ASK} -- ")), "{script}");
        }
    }
}
