//! What to do about a failure that the controller cannot know about: nobody answers, or the token is not taken.
//!
//! Deliberately absent: what the controller's own no says; its message ends with the next step.

use std::net::SocketAddr;

use haar_api::client::ClientError;

use super::context::{Context, Origin, TokenFrom};
use super::credentials::{self, DEFAULT_CLOUD};
use super::failure::Failure;
use super::output;

/// The failure, with the next step where there is one.
pub(crate) fn with_next_step(context: &Context, failure: Failure) -> Failure {
    let advice = match &failure {
        Failure::Client(ClientError::Unreachable { .. }) => unreachable(&context.origin),
        Failure::Client(ClientError::Problem(problem)) if problem.status == 401 => {
            unauthorized(&context.origin, &context.cloud)
        }
        _ if context.is_json() => return failure,
        _ => return meant_here(&context.again, failure),
    };
    Failure::Advised(Box::new(failure), advice)
}

/// A message of the controller's that ends with a command knows neither our cloud nor our project; the command gets
/// them, for a person to type it as it stands.
fn meant_here(again: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Client(ClientError::Problem(mut problem)) => {
            let ends_with_command = problem.message.rsplit_once("  ");
            if ends_with_command.is_some_and(|(_, command)| command.starts_with("haar ")) {
                problem.message.push_str(again);
            }
            Failure::Client(ClientError::Problem(problem))
        }
        other => other,
    }
}

/// Which address was asked, why that one, and how a cloud gets there.
fn unreachable(origin: &Origin) -> Vec<String> {
    let url = &origin.url;
    let asked = match (origin.is_said, &origin.token) {
        (false, TokenFrom::Saved(name)) => format!("{url} is the address of the saved cloud `{name}`"),
        (false, _) => format!("{url} is the saved cloud's address"),
        (true, _) => format!("{url} was said with --url or HAAR_URL"),
    };
    let listens = url.strip_prefix("http://").map(|listen| listen.trim_end_matches('/'));
    let listens = listens.and_then(|listen| listen.parse::<SocketAddr>().ok());
    let start = match (&origin.data, listens) {
        (Some(data), Some(listen)) => {
            let listen = if listen.port() == 8600 { String::new() } else { format!(" --listen {listen}") };
            format!("start it:  sudo haar up{}{listen}", crate::modes::data_words(data))
        }
        _ => "start it on its machine:  sudo haar up".to_owned(),
    };
    vec![asked, format!("{start}   or ask another one:  --url http://HOST:PORT")]
}

/// Which token was sent, and how to get one.
fn unauthorized(origin: &Origin, cloud: &str) -> Vec<String> {
    let file =
        credentials::path().map_or_else(|_| "credentials.toml".to_owned(), |path| path.display().to_string());
    let sent = match &origin.token {
        TokenFrom::Environment => "the token is that of HAAR_TOKEN".to_owned(),
        TokenFrom::Saved(name) => format!("the token is that of cloud `{name}` in {file}"),
        TokenFrom::Nowhere => format!("no token was sent: {file} has none for {}", origin.url),
    };
    // Without its name a token would be saved over the usual cloud's.
    let name = match cloud {
        DEFAULT_CLOUD => String::new(),
        cloud => format!(" --cloud {}", output::quoted(cloud)),
    };
    let data = origin.data.as_deref().map_or("/var/lib/haar".to_owned(), |data| data.display().to_string());
    vec![
        sent,
        "an admin makes you one:  haar token create NAME --role admin".to_owned(),
        format!("root of the controller's machine has one in {data}/admin.token"),
        format!("save it:  haar login --url {}{name} < TOKENFILE", output::quoted(&origin.url)),
    ]
}

#[cfg(test)]
mod tests {
    use haar_api::problem::Problem;

    use super::*;

    fn origin(url: &str, data: Option<&str>) -> Origin {
        let token = TokenFrom::Saved("default".to_owned());
        Origin { url: url.to_owned(), is_said: false, token, data: data.map(Into::into) }
    }

    #[test]
    fn a_token_is_saved_for_the_cloud_that_was_meant() {
        let login = |cloud| unauthorized(&origin("http://lab:8600", None), cloud).pop();
        assert_eq!(
            login("lab").unwrap(),
            "save it:  haar login --url http://lab:8600 --cloud lab < TOKENFILE"
        );
        assert_eq!(login("default").unwrap(), "save it:  haar login --url http://lab:8600 < TOKENFILE");
    }

    #[test]
    fn a_command_of_the_controllers_means_the_callers_project() {
        let said = |message: &str| {
            let problem = Problem::new(409, "wrong_state", message);
            let failure = Failure::Client(ClientError::Problem(Box::new(problem)));
            meant_here(" --project dev", failure).problem().message
        };
        let start = "it is off; start it:  haar guest start web";
        assert_eq!(said(start), format!("{start} --project dev"));
        for other in ["haar is busy", "look with `haar status`", "run  haar status  or wait"] {
            assert_eq!(said(other), other);
        }
    }

    #[test]
    fn a_cloud_of_this_machine_is_started_with_the_words_it_was_started_with() {
        let words = |url, data| unreachable(&origin(url, data)).join("\n");
        let usual = words("http://127.0.0.1:8600", Some("/var/lib/haar"));
        assert!(usual.contains("sudo haar up   or"), "{usual}");
        let other = words("http://127.0.0.1:8700", Some("/srv/haar"));
        assert!(other.contains("sudo haar up --data /srv/haar --listen 127.0.0.1:8700   or"), "{other}");
        let slash = words("http://127.0.0.1:8600/", Some("/srv/my haar"));
        assert!(slash.contains("sudo haar up --data '/srv/my haar'   or"), "{slash}");
        assert!(words("http://lab:8600", None).contains("on its machine"));
    }
}
