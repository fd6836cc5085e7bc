//! From the words typed so far to what the last one can be.

use clap::{Arg, ArgAction, Command};

/// One thing a word can be, and what it means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) word: String,
    pub(super) help: String,
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.help.is_empty() {
            writeln!(f, "{}", self.word)
        } else {
            writeln!(f, "{}\t{}", self.word, self.help)
        }
    }
}

/// What the last word can be.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// What is typed of it.
    pub(super) typed: String,
    /// What comes before it in the same word, such as `--image=`.
    pub(super) before: String,
    /// Words of the grammar that begin with it.
    pub(super) fixed: Vec<Candidate>,
    /// What a value there is called, such as `GUEST` or `FILE`.
    pub(super) value: Option<String>,
    /// Values of options that come before it, by the options' names.
    pub(super) given: Vec<(String, String)>,
}

impl Wanted {
    /// The value given to an option.
    pub(super) fn given(&self, option: &str) -> Option<String> {
        self.given.iter().rev().find(|(name, _)| name == option).map(|(_, value)| value.clone())
    }

    fn offer(&mut self, word: &str, help: &str) {
        if word.starts_with(&self.typed) {
            let word = format!("{}{word}", self.before);
            self.fixed.push(Candidate { word, help: help.to_owned() });
        }
    }
}

/// Reads all words but the last as the grammar does, and the last as what is wanted.
pub(super) fn walk(whole: &Command, words: &[String]) -> Wanted {
    // bash makes words of their own of the equals signs.
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (last, before) = words.split_last().unwrap_or((&"", &[]));
    let mut state = State { command: whole, positional: 0, open: None, only_values: false };
    let mut wanted =
        Wanted { typed: if *last == "=" { String::new() } else { (*last).to_owned() }, ..Wanted::default() };
    for word in before.iter().filter(|word| **word != "=") {
        state.take(word, &mut wanted.given);
    }
    state.offer(&mut wanted);
    wanted
}

struct State<'a> {
    command: &'a Command,
    /// Positional values taken so far.
    positional: usize,
    /// An option that waits for its value.
    open: Option<&'a Arg>,
    /// After `--`.
    only_values: bool,
}

impl<'a> State<'a> {
    fn take(&mut self, word: &str, given: &mut Vec<(String, String)>) {
        if let Some(option) = self.open.take() {
            given.push((option.get_id().to_string(), word.to_owned()));
        } else if self.only_values {
            self.positional += 1;
        } else if word == "--" {
            self.only_values = true;
        } else if let Some((name, value)) = word.split_once('=').filter(|_| word.starts_with("--")) {
            let option = self.option(name);
            given.extend(option.map(|option| (option.get_id().to_string(), value.to_owned())));
        } else if word.len() > 1 && word.starts_with('-') {
            self.open = self.option(word).filter(|option| takes_value(option));
        } else if let Some(sub) = self.command.find_subcommand(word) {
            self.command = sub;
            self.positional = 0;
        } else {
            self.positional += 1;
        }
    }

    fn option(&self, word: &str) -> Option<&'a Arg> {
        let mut options = self.command.get_arguments();
        match word.strip_prefix("--") {
            Some(long) => options.find(|option| option.get_long() == Some(long)),
            None => {
                let short = word.chars().nth(1)?;
                // In one word with its value: nothing waits.
                options.find(|option| option.get_short() == Some(short) && word.len() == 2)
            }
        }
    }

    fn offer(&self, wanted: &mut Wanted) {
        if let Some(option) = self.open {
            return offer_values(option, wanted);
        }
        if let Some((name, value)) =
            wanted.typed.clone().split_once('=').filter(|(name, _)| name.starts_with("--"))
            && let Some(option) = self.option(name)
        {
            (wanted.before, wanted.typed) = (format!("{name}="), value.to_owned());
            return offer_values(option, wanted);
        }
        if wanted.typed.starts_with('-') && !self.only_values {
            return self.offer_options(wanted);
        }
        for sub in self.command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            wanted.offer(sub.get_name(), &about);
        }
        if let Some(positional) = self.positional() {
            offer_values(positional, wanted);
        }
    }

    fn offer_options(&self, wanted: &mut Wanted) {
        let shown = self.command.get_arguments().filter(|option| !option.is_hide_set());
        for option in shown.filter(|option| !option.is_positional()) {
            let help = option.get_help().map(ToString::to_string).unwrap_or_default();
            if let Some(long) = option.get_long() {
                wanted.offer(&format!("--{long}"), &help);
            }
        }
    }

    /// The positional the next value belongs to; the last one may take many.
    fn positional(&self) -> Option<&'a Arg> {
        let positionals: Vec<&Arg> =
            self.command.get_positionals().filter(|arg| arg.is_last_set() == self.only_values).collect();
        let many = positionals.iter().find(|arg| matches!(arg.get_action(), ArgAction::Append));
        positionals.get(self.positional).or(many).copied()
    }
}

fn takes_value(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set | ArgAction::Append)
}

fn offer_values(arg: &Arg, wanted: &mut Wanted) {
    let possible = arg.get_possible_values();
    for value in possible.iter().filter(|value| !value.is_hide_set()) {
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        wanted.offer(value.get_name(), &help);
    }
    if possible.is_empty() {
        let names = arg.get_value_names().unwrap_or_default();
        wanted.value = names.first().map(ToString::to_string);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(words: &str) -> Wanted {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        walk(&super::super::whole(), &words)
    }

    fn fixed(words: &str) -> Vec<String> {
        wanted(words).fixed.into_iter().map(|candidate| candidate.word).collect()
    }

    #[test]
    fn nouns_modes_verbs_and_flags_come_from_the_grammar() {
        assert_eq!(fixed("gu"), ["guest"]);
        assert_eq!(fixed("do"), ["down", "doctor"]);
        assert_eq!(fixed("guest sh"), ["show", "shutdown"]);
        assert_eq!(fixed("guest create web --no-"), ["--no-start", "--no-wait"]);
        assert_eq!(fixed("up --fore"), ["--foreground"]);
        assert!(fixed("guest list --u").contains(&"--url".to_owned()));
        assert!(!fixed("up --t").contains(&"--told".to_owned()), "hidden ones stay hidden");
    }

    #[test]
    fn values_are_the_possible_ones_or_called_by_their_noun() {
        assert_eq!(fixed("guest set web --restart on"), ["on-failure"]);
        assert_eq!(fixed("guest set web --restart=al"), ["--restart=always"]);
        assert_eq!(fixed("guest list -o j"), ["json"]);
        let value = |words: &str| wanted(words).value.unwrap_or_default();
        assert_eq!(value("guest show w"), "GUEST");
        assert_eq!(value("guest delete a b c"), "GUEST");
        assert_eq!(value("guest list --on lab"), "HYPERVISOR");
        assert_eq!(value("guest create web --image = de"), "IMAGE");
        assert_eq!(value("guest create web --image ="), "IMAGE");
        assert_eq!(value("hypervisor set lab1 --subnet l"), "SUBNET=BRIDGE");
        assert_eq!(value("image import a ./x"), "FILE|URL");
        assert_eq!(value("guest show web more"), "");
        assert_eq!(wanted("--cloud lab guest show --project=a w").given("cloud"), Some("lab".to_owned()));
    }
}
