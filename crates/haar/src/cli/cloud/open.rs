//! Which deployment is meant, and everything a command on it needs.

use std::sync::Arc;

use haar_cloud::cloud::{Access, Way};
use haar_cloud::name::{ResourceName, host_name};
use haar_cloud::{Cloud, Error};
use nix::unistd::{User, getuid};

use super::interrupt::Interrupt;
use super::progress::Board;
use super::{FOLDER, Which, provider, server};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Format};
use crate::cli::{Global, credentials};

/// The cloud meant when none is said: the one that every other command speaks to.
const DEFAULT_PROVIDER: &str = "haar";

/// A deployment, whether it is there or not.
pub(super) struct Open {
    pub(super) cloud: Cloud,
    pub(super) board: Board,
    pub(super) format: Format,
    pub(super) interrupt: Interrupt,
    /// The words that every command on this deployment must have too; each with a space before it.
    again: String,
}

/// Finds the cloud and its folder. Only a controller is asked, who it is.
pub(super) async fn open(global: &Global, which: &Which) -> Result<Open, Failure> {
    let kind = which.provider.as_deref().unwrap_or(DEFAULT_PROVIDER);
    let name = match &which.name {
        Some(name) => ResourceName::parse(name)?,
        None => ResourceName::parse(&default_name())?,
    };
    let no_place = |error| Failure::local("no place for the record", error);
    let folder = credentials::folder().map_err(no_place)?.join(FOLDER);
    let chosen = provider::choose(kind, global, &folder, &name).await?;
    let board = Board::new(output::bars() && global.output == Format::Table);
    let cloud = |way| {
        let access = Access { way, ..Access::default() };
        let (provider, folder) = (Arc::clone(&chosen.provider), chosen.folder.clone());
        Cloud::with(provider, &name, folder, access, Some(board.observer()))
    };
    let again = again(which, |variable| std::env::var(variable).ok());
    let mut open = Open {
        cloud: cloud(way(which))?,
        board: board.clone(),
        format: global.output,
        interrupt: Interrupt::default(),
        again,
    };
    if let Way::Through(text) = way(which)
        && let Ok(server) = server::one(&open, Some(&text)).await
    {
        open.cloud = cloud(Way::Through(server.id().to_owned()))?;
    }
    Ok(open)
}

impl Open {
    /// Whether answers are printed as JSON.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A command line to type next; it means the same deployment.
    pub(super) fn hint(&self, command: &str) -> String {
        format!("haar cloud {command}{}", self.again)
    }

    /// What becomes of something that we were asked to end.
    pub(super) fn interrupted(&self) -> Failure {
        Error::Cancelled { what: format!("deployment {}", self.cloud.name()) }.into()
    }

    /// Does something, unless we are asked to end before.
    pub(super) async fn unless_interrupted<T, E: Into<Failure>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        match self.interrupt.token().run_until_cancelled(work).await {
            Some(done) => done.map_err(Into::into),
            None => Err(self.interrupted()),
        }
    }

    /// Says what was guessed, to people.
    pub(super) fn say(&self, text: &str) {
        if !self.is_json() {
            eprintln!("  {text}");
        }
    }
}

/// The way to servers without an external address.
fn way(which: &Which) -> Way {
    match which.jump.as_deref() {
        None => Way::HeadNode,
        Some("none") => Way::Direct,
        Some(server) => Way::Through(server.to_owned()),
    }
}

fn default_name() -> String {
    format!("haar-{}", host_name(&own_user()))
}

/// Who runs this.
pub(super) fn own_user() -> String {
    let user = User::from_uid(getuid()).ok().flatten().map(|user| user.name);
    user.unwrap_or_else(|| getuid().to_string())
}

/// What was said on the command line. What a variable says is known to the next command as well.
fn again(which: &Which, variable: impl Fn(&str) -> Option<String>) -> String {
    let said = [
        ("provider", "HAAR_CLOUD_PROVIDER", &which.provider),
        ("name", "HAAR_CLOUD_NAME", &which.name),
        ("jump", "HAAR_CLOUD_JUMP", &which.jump),
    ];
    let mut words = String::new();
    for (word, name, value) in said {
        if let Some(value) = value.as_ref().filter(|value| variable(name).as_ref() != Some(*value)) {
            words.push_str(&format!(" --{word} {}", output::quoted(value)));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_means_the_same_deployment() {
        let which = Which {
            provider: Some("local".to_owned()),
            name: Some("render farm".to_owned()),
            jump: Some("none".to_owned()),
        };
        assert_eq!(again(&which, |_| None), " --provider local --name 'render farm' --jump none");
        let variable = |name: &str| (name == "HAAR_CLOUD_PROVIDER").then(|| "local".to_owned());
        assert_eq!(again(&which, variable), " --name 'render farm' --jump none");
        assert_eq!(way(&which), Way::Direct);
    }

    #[test]
    fn the_users_own_name_makes_the_usual_deployment() {
        assert!(ResourceName::parse(&default_name()).is_ok());
    }
}
