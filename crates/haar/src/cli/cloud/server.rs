//! Which server a text means.

use std::net::IpAddr;

use haar_cloud::{Error, Server};

use super::open::Open;
use crate::cli::failure::Failure;

/// So much of an id must be said at least.
const LEAST_DIGITS: usize = 4;

/// The server that a text means; without a text the only one there is.
pub(super) async fn one(open: &Open, text: Option<&str>) -> Result<Server, Failure> {
    let mut servers = open.cloud.servers().await?;
    let Some(text) = text else {
        return match servers.len() {
            1 => Ok(servers.remove(0)),
            0 => Err(Failure::Usage(format!(
                "there is no server; make one:  {}",
                open.hint("spawn --image IMAGE")
            ))),
            count => Err(Failure::Usage(format!(
                "there are {count} servers; say which, see  {}",
                open.hint("list")
            ))),
        };
    };
    let names = |server: &Server| Names {
        id: server.id().to_owned(),
        name: server.name().to_owned(),
        address: server.address(),
    };
    let all: Vec<Names> = servers.iter().map(names).collect();
    Ok(servers.swap_remove(place(&all, text)?))
}

/// The place of the one that a text means.
pub(super) fn place(all: &[Names], text: &str) -> Result<usize, Failure> {
    match meant(all, text)[..] {
        [place] => Ok(place),
        [] => Err(Error::NotFound { kind: "server".to_owned(), name: text.to_owned() }.into()),
        _ => Err(Failure::Usage(format!("`{text}` could mean several servers; say more of it"))),
    }
}

/// Where it is reached.
pub(super) fn address(server: &Server) -> Result<IpAddr, Failure> {
    server.address().ok_or_else(|| {
        Failure::Usage(format!("server {} has no address: its making was cut off; destroy it", server.name()))
    })
}

/// What a server goes by.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) address: Option<IpAddr>,
}

/// The places of those that a text means: whoever is called exactly so, else whoever's id, or the id in whose
/// name, begins so.
fn meant(all: &[Names], text: &str) -> Vec<usize> {
    let places = |fits: &dyn Fn(&Names) -> bool| -> Vec<usize> {
        all.iter().enumerate().filter(|(_, names)| fits(names)).map(|(place, _)| place).collect()
    };
    let is_address = |names: &Names| names.address.is_some_and(|address| address.to_string() == text);
    let exact = places(&|names| names.id == text || names.name == text || is_address(names));
    if !exact.is_empty() || text.len() < LEAST_DIGITS {
        return exact;
    }
    places(&|names| names.id.starts_with(text) || in_name(&names.name).is_some_and(|id| id.starts_with(text)))
}

/// The id that a server's name ends with.
pub(super) fn in_name(name: &str) -> Option<&str> {
    const ID_LENGTH: usize = 36;
    name.get(name.len().checked_sub(ID_LENGTH)?..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_meant_by_all_it_goes_by_and_by_enough_of_its_id() {
        let names = |id: &str, tail: &str, address: &str| Names {
            id: id.to_owned(),
            name: format!("farm-{tail}-0000-4000-8000-000000000000"),
            address: address.parse().ok(),
        };
        let all = [names("9f00aa", "7c1d0e52", "10.0.0.7"), names("9f00bb", "7c1d0e99", "")];
        for (text, expected) in [
            ("9f00aa", vec![0]),
            ("farm-7c1d0e99-0000-4000-8000-000000000000", vec![1]),
            ("10.0.0.7", vec![0]),
            ("7c1d0e5", vec![0]),
            ("7c1d", vec![0, 1]),
            ("9f00b", vec![1]),
            ("9f0", vec![]),
            ("farm", vec![]),
        ] {
            assert_eq!(meant(&all, text), expected, "{text}");
        }
    }
}
