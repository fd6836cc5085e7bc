//! Which controller is spoken to, with which token, in which form the answer is printed.

use std::path::PathBuf;

use haar_api::client::Client;

use super::Global;
use super::credentials::{self, Credentials, DEFAULT_CLOUD, SavedCloud};
use super::failure::Failure;
use super::output::{self, Format};

/// What a command needs besides its words.
#[derive(Debug)]
pub(crate) struct Context {
    /// Speaks to the controller.
    pub(crate) client: Client,
    /// How answers are printed.
    pub(crate) format: Format,
    /// The project names are looked up and made in; the server's default when none.
    pub(crate) project: Option<String>,
    /// The cloud's name, for files kept per cloud.
    pub(crate) cloud: String,
    /// Where address and token came from.
    pub(crate) origin: Origin,
    /// The words every command of this call must have too, to mean the same; each with a space before it.
    pub(crate) again: String,
}

/// Where address and token came from, for whoever must mend them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The address asked.
    pub(crate) url: String,
    /// Whether the address was said, and is not a saved cloud's.
    pub(crate) is_said: bool,
    /// Whose the token is.
    pub(crate) token: TokenFrom,
    /// The data folder, when the cloud was started on this machine.
    pub(crate) data: Option<PathBuf>,
}

/// Where a token came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenFrom {
    /// `HAAR_TOKEN`.
    Environment,
    /// The saved cloud of this name.
    Saved(String),
    /// None was sent.
    Nowhere,
}

impl Context {
    /// Finds address and token and makes a client; nothing is sent yet.
    pub(crate) fn connect(global: Global) -> Result<Context, Failure> {
        let saved = load()?;
        let again = again(&global, |variable| std::env::var(variable).ok());
        let environment = std::env::var("HAAR_TOKEN").ok().filter(|token| !token.is_empty());
        let chosen = choose(&saved, global.url.as_deref(), global.cloud.as_deref(), environment)?;
        Ok(Context {
            client: Client::new(&chosen.origin.url, chosen.token)?,
            format: global.output,
            project: global.project,
            cloud: chosen.cloud,
            origin: chosen.origin,
            again,
        })
    }

    /// A command line to type next: it means the same cloud and project as this one does.
    pub(crate) fn hint(&self, command: &str) -> String {
        format!("haar {command}{}", self.again)
    }

    /// Whether answers are printed as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }
}

/// Which cloud and project were said on the command line. What a variable says is known to the next command as well.
fn again(global: &Global, variable: impl Fn(&str) -> Option<String>) -> String {
    let said = [
        ("url", "HAAR_URL", &global.url),
        ("cloud", "HAAR_CLOUD", &global.cloud),
        ("project", "HAAR_PROJECT", &global.project),
    ];
    let mut words = String::new();
    for (word, name, value) in said {
        if let Some(value) = value
            && variable(name).as_ref() != Some(value)
        {
            words.push_str(&format!(" --{word} {}", output::quoted(value)));
        }
    }
    words
}

fn load() -> Result<Credentials, Failure> {
    let unusable = |error| Failure::local("the saved clouds are of no use", error);
    // Without a home there are no saved clouds; address and token may still come from elsewhere.
    let Ok(path) = credentials::path() else { return Ok(Credentials::default()) };
    if credentials::is_open_to_others(&path) {
        eprintln!("warning: {} can be read by others; run  chmod 600 {}", path.display(), path.display());
    }
    Credentials::load(&path).map_err(unusable)
}

/// What was chosen.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    cloud: String,
    token: Option<String>,
    origin: Origin,
}

/// An address given by hand wins over a saved cloud's. A saved token goes only to its own cloud's address.
fn choose(
    saved: &Credentials,
    url: Option<&str>,
    cloud: Option<&str>,
    token: Option<String>,
) -> Result<Chosen, Failure> {
    let name = cloud.unwrap_or(DEFAULT_CLOUD);
    let named = saved.clouds.get_key_value(name);
    if let Some(url) = url {
        let same = |known: &SavedCloud| known.url.trim_end_matches('/') == url.trim_end_matches('/');
        let mut known = named.into_iter().chain(&saved.clouds);
        return Ok(chosen(name, url, true, token, known.find(|(_, known)| same(known))));
    }
    match (named, cloud) {
        (Some((_, cloud)), _) => Ok(chosen(name, &cloud.url, false, token, named)),
        (None, Some(_)) => {
            let names: Vec<&str> = saved.clouds.keys().map(String::as_str).collect();
            let known = if names.is_empty() { "none is saved".to_owned() } else { names.join(", ") };
            Err(Failure::Usage(format!("there is no saved cloud `{name}` ({known}); save it with  haar login")))
        }
        (None, None) => Err(Failure::Usage(
            "no cloud is known; save one with  haar login --url http://host:8600  or start one here with  sudo haar up"
                .to_owned(),
        )),
    }
}

/// A token given by hand wins over that of the saved cloud at this address.
fn chosen(
    name: &str,
    url: &str,
    is_said: bool,
    token: Option<String>,
    saved: Option<(&String, &SavedCloud)>,
) -> Chosen {
    let from = match (&token, saved) {
        (Some(_), _) => TokenFrom::Environment,
        (None, Some((name, _))) => TokenFrom::Saved(name.clone()),
        (None, None) => TokenFrom::Nowhere,
    };
    let data = saved.and_then(|(_, cloud)| cloud.data.clone());
    Chosen {
        cloud: name.to_owned(),
        token: token.or_else(|| saved.map(|(_, cloud)| cloud.token.clone())),
        origin: Origin { url: url.to_owned(), is_said, token: from, data },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Credentials {
        let cloud = |url: &str, token: &str| SavedCloud {
            url: url.to_owned(),
            token: token.to_owned(),
            id: None,
            data: None,
        };
        let clouds = [
            ("default".to_owned(), cloud("http://here:1", "here")),
            ("lab".to_owned(), cloud("http://lab:2", "lab")),
        ];
        Credentials { clouds: clouds.into() }
    }

    fn chosen(url: Option<&str>, cloud: Option<&str>, token: Option<&str>) -> (String, Option<String>) {
        let chosen = choose(&saved(), url, cloud, token.map(str::to_owned)).unwrap();
        (chosen.origin.url, chosen.token)
    }

    #[test]
    fn the_default_cloud_is_meant_when_none_is_named() {
        assert_eq!(chosen(None, None, None), ("http://here:1".into(), Some("here".into())));
        assert_eq!(chosen(None, Some("lab"), None), ("http://lab:2".into(), Some("lab".into())));
        assert_eq!(chosen(None, Some("lab"), Some("x")), ("http://lab:2".into(), Some("x".into())));
    }

    #[test]
    fn a_saved_token_goes_only_to_its_own_address() {
        assert_eq!(chosen(Some("http://lab:2/"), None, None).1, Some("lab".into()));
        assert_eq!(chosen(Some("http://stranger:3"), None, None).1, None);
        assert_eq!(chosen(Some("http://stranger:3"), Some("lab"), None).1, None);
        assert_eq!(chosen(Some("http://stranger:3"), None, Some("x")).1, Some("x".into()));
    }

    #[test]
    fn a_hint_means_the_cloud_and_the_project_of_the_command_it_follows() {
        let global = |project: Option<&str>| Global {
            url: None,
            cloud: Some("lab".to_owned()),
            project: project.map(str::to_owned),
            output: Format::Table,
        };
        assert_eq!(again(&global(Some("dev")), |_| None), " --cloud lab --project dev");
        assert_eq!(again(&global(Some("a b")), |_| Some("lab".to_owned())), " --project 'a b'");
        let variables = |name: &str| (name == "HAAR_PROJECT").then(|| "dev".to_owned());
        assert_eq!(again(&global(Some("dev")), variables), " --cloud lab");
        assert_eq!(again(&global(None), variables), " --cloud lab");
    }

    #[test]
    fn a_cloud_nobody_saved_is_wrong_usage() {
        assert_eq!(choose(&saved(), None, Some("attic"), None).unwrap_err().code(), 2);
        assert_eq!(choose(&Credentials::default(), None, None, None).unwrap_err().code(), 2);
    }
}
