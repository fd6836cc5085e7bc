//! `haar login`: saves a cloud's address and token, once they are known to work.

use std::io::IsTerminal as _;

use haar_api::client::Client;
use haar_api::endpoint::Nothing;
use haar_api::table as t;

use super::Global;
use super::credentials::{self, Credentials, DEFAULT_CLOUD, SavedCloud};
use super::failure::Failure;
use super::output::{self, Format};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The token is read from HAAR_TOKEN or from standard input, never from the command line,
where every user of the machine could see it.

Examples:
  haar login --url http://lab1:8600 < token
  haar login --url http://lab1:8600 --cloud lab"
)]
pub(crate) struct Words {}

pub(crate) async fn save(global: &Global, _: &Words) -> Result<(), Failure> {
    let url = global.url.clone().ok_or_else(|| {
        Failure::Usage("login needs the controller's address: haar login --url http://host:8600".to_owned())
    })?;
    let token = read_token()?;
    let client = Client::new(&url, Some(token.clone()))?;
    let answered = client.request::<t::Whoami>(&[]).send(&Nothing).await?;
    let who = &answered.value;
    let name = global.cloud.clone().unwrap_or_else(|| DEFAULT_CLOUD.to_owned());
    let unusable = |error| Failure::local("cannot save the cloud", error);
    let path = credentials::path().map_err(unusable)?;
    let mut saved = Credentials::load(&path).map_err(unusable)?;
    let id = Some(who.cloud.to_string());
    // Another token for the same cloud does not move it.
    let data = saved.clouds.get(&name).filter(|known| known.id == id).and_then(|known| known.data.clone());
    saved
        .clouds
        .insert(name.clone(), SavedCloud { url: url.trim_end_matches('/').to_owned(), token, id, data });
    saved.save(&path).map_err(unusable)?;
    if global.output == Format::Json {
        return output::json_bytes(&answered.body);
    }
    let role = who.role.as_str();
    output::out(&format!("  cloud `{name}` saved in {}: {url} as {} ({role})\n", path.display(), who.name));
    Ok(())
}

fn read_token() -> Result<String, Failure> {
    let given = match std::env::var("HAAR_TOKEN") {
        Ok(token) if !token.is_empty() => token,
        _ => {
            if std::io::stdin().is_terminal() {
                eprint!("token: ");
            }
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            read.map_err(|error| Failure::local("cannot read the token", error))?;
            line
        }
    };
    match given.trim() {
        "" => Err(Failure::Usage("no token was given on standard input or in HAAR_TOKEN".to_owned())),
        token => Ok(token.to_owned()),
    }
}
