//! `haar cloud copy`: one file to a server, or from it, over sftp.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::deploy::said;
use super::open::Open;
use super::server;
use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "One of both is on a server: SERVER:PATH, or :PATH where there is but one server. A path that does not
begin at / begins where a login begins. Folders that are missing there are made.

Examples:
  haar cloud copy ./data.csv SERVER:/srv/data.csv
  haar cloud copy SERVER:results/out.csv .
  haar cloud copy notes :"
)]
pub(crate) struct Words {
    /// What to copy
    #[arg(value_name = "FROM")]
    from: String,
    /// Where to; a name that ends with / or is a folder here takes the file's own name
    #[arg(value_name = "TO")]
    to: String,
}

/// A place on a server, or here.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    There { server: Option<&'a str>, path: &'a str },
    Here(&'a Path),
}

/// As scp has it: a colon before any slash parts a server from a path.
fn place(text: &str) -> Place<'_> {
    match text.split_once(':') {
        Some((server, path)) if !server.contains('/') => {
            Place::There { server: (!server.is_empty()).then_some(server), path }
        }
        _ => Place::Here(Path::new(text)),
    }
}

pub(super) async fn run(open: &Open, words: &Words) -> Result<(), Failure> {
    match (place(&words.from), place(&words.to)) {
        (Place::Here(from), Place::There { server, path }) => up(open, from, server, path).await,
        (Place::There { server, path }, Place::Here(to)) => down(open, server, path, to).await,
        _ => Err(Failure::Usage(
            "one of both must be on a server, written as SERVER:PATH, and the other one here".to_owned(),
        )),
    }
}

async fn up(open: &Open, from: &Path, server: Option<&str>, to: &str) -> Result<(), Failure> {
    let metadata = std::fs::metadata(from)
        .map_err(|error| Failure::local(format!("cannot read {}", from.display()), error))?;
    if !metadata.is_file() {
        return Err(Failure::Usage(format!("{} is no file; pack a folder with tar first", from.display())));
    }
    let to = target(to, &from.to_string_lossy())?;
    let server = server::one(open, server).await?;
    server::address(&server)?;
    open.board
        .show(&format!("server {}", server.name()), &format!("copying {}", output::bytes(metadata.len())));
    server.upload(from, &to).await?;
    tell(open, &from.display().to_string(), &format!("{}:{to}", server.name()), metadata.len())
}

async fn down(open: &Open, server: Option<&str>, from: &str, to: &Path) -> Result<(), Failure> {
    let to: PathBuf = match to.is_dir() {
        true => to.join(file_name(from)?),
        false => to.to_owned(),
    };
    let server = server::one(open, server).await?;
    server::address(&server)?;
    open.board.show(&format!("server {}", server.name()), &format!("copying {from}"));
    server.download(from, &to).await?;
    let bytes = std::fs::metadata(&to).map_or(0, |metadata| metadata.len());
    tell(open, &format!("{}:{from}", server.name()), &to.display().to_string(), bytes)
}

/// A place that ends with a slash, or is none, takes the file's own name.
fn target(to: &str, from: &str) -> Result<String, Failure> {
    match to.is_empty() || to.ends_with('/') {
        true => Ok(format!("{to}{}", file_name(from)?)),
        false => Ok(to.to_owned()),
    }
}

fn file_name(path: &str) -> Result<&str, Failure> {
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| Failure::Usage(format!("`{path}` names no file")))
}

fn tell(open: &Open, from: &str, to: &str, bytes: u64) -> Result<(), Failure> {
    open.board.clear();
    let line = format!("{from}  →  {to}   {}", output::bytes(bytes));
    said(open, &json!({"from": from, "to": to, "bytes": bytes}), &line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_parts_a_server_from_a_path() {
        let there = |server, path| Place::There { server, path };
        for (text, expected) in [
            ("web:/srv/a b", there(Some("web"), "/srv/a b")),
            (":notes", there(None, "notes")),
            ("7c1d:", there(Some("7c1d"), "")),
            ("./a:b", Place::Here(Path::new("./a:b"))),
            ("a", Place::Here(Path::new("a"))),
        ] {
            assert_eq!(place(text), expected, "{text}");
        }
    }

    #[test]
    fn a_place_without_a_name_takes_the_files_own() {
        assert_eq!(target("", "/x/notes").unwrap(), "notes");
        assert_eq!(target("/srv/", "notes").unwrap(), "/srv/notes");
        assert_eq!(target("/srv/other", "notes").unwrap(), "/srv/other");
        assert!(target("/srv/", "/").is_err());
    }
}
