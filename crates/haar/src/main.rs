//! The haar binary: its first word is a mode of a server ([`modes`]) or a noun of the command line ([`cli`]).

mod cli;
#[cfg(test)]
#[path = "../tests/left_out/mod.rs"]
mod left_out;
mod modes;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(first) = words.first()
        && let Some(mode) = modes::MODES.iter().find(|mode| mode.word == first)
    {
        return (mode.main)(&words[1..]);
    }
    if let [help, word, ..] = words.as_slice()
        && help == "help"
        && let Some(mode) = modes::MODES.iter().find(|mode| mode.word == word)
    {
        return (mode.main)(&["--help".to_owned()]);
    }
    if let Some((first, rest)) = words.split_first()
        && first == cli::completion::ASK
    {
        return cli::completion::answer(rest);
    }
    cli::main()
}
