//! The network that leads out of the cloud, and where external addresses come from.
//!
//! The one that is named, else the only one there is: a guess could cost somebody an address in the wrong
//! network. Deliberately absent: pools of addresses of older clouds.

use haar_cloud::provider::Ground;
use haar_cloud::{Error, Result};

use crate::client::{Ask, Client, Service, path, query};
use crate::thing::Thing;

/// Its id.
///
/// # Errors
/// [`Error::NotFound`] for one that is not there; [`Error::BadInput`] where several could be meant.
pub(crate) async fn network(client: &Client, ground: &Ground) -> Result<String> {
    let path = query(&path(&["networks"]), &[("router:external", "true")]);
    let ask = Ask::get(Service::Network, path).about("external network", "");
    let there: Vec<Thing> = client.list(ask, "networks").await?;
    let wanted = ground.external_network.as_deref().or(client.settings().external_network.as_deref());
    choose(&there, wanted)
}

fn choose(there: &[Thing], wanted: Option<&str>) -> Result<String> {
    let names = names(there);
    let is_meant = |thing: &&Thing| wanted.is_none_or(|wanted| thing.name == wanted || thing.id == wanted);
    let meant: Vec<&Thing> = there.iter().filter(is_meant).collect();
    let value = wanted.unwrap_or_default();
    match meant[..] {
        [one] => Ok(one.id.clone()),
        [] if names.is_empty() => {
            let name = "any, which a router and external addresses need".to_owned();
            Err(Error::NotFound { kind: "external network".to_owned(), name })
        }
        [] => Err(bad(value, &format!("this cloud has {names}"))),
        _ => Err(bad(value, &format!("this cloud has {names}: name one, by id if need be"))),
    }
}

fn bad(value: &str, why: &str) -> Error {
    Error::BadInput { what: "the external network", value: value.to_owned(), why: why.to_owned() }
}

fn names(there: &[Thing]) -> String {
    let name = |thing: &Thing| format!("{} ({})", thing.name, thing.id);
    there.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn things(names: &[&str]) -> Vec<Thing> {
        let thing = |(number, name): (usize, &&str)| Thing {
            id: format!("id{number}"),
            name: (*name).to_owned(),
            description: None,
            tags: Vec::new(),
        };
        names.iter().enumerate().map(thing).collect()
    }

    #[test]
    fn the_only_one_needs_no_name_and_of_several_one_must_be_named() {
        assert_eq!(choose(&things(&["out"]), None).unwrap(), "id0");
        let text = choose(&things(&["a", "b"]), None).unwrap_err().to_string();
        assert!(text.contains("a (id0), b (id1)"), "{text}");
        assert_eq!(choose(&things(&["a", "b"]), Some("b")).unwrap(), "id1");
    }

    #[test]
    fn two_of_one_name_are_told_apart_by_id() {
        assert!(matches!(choose(&things(&["a", "a"]), Some("a")), Err(Error::BadInput { .. })));
        assert_eq!(choose(&things(&["a", "a"]), Some("id1")).unwrap(), "id1");
    }

    #[test]
    fn one_that_is_not_there_is_told_with_those_that_are() {
        let text = choose(&things(&["a"]), Some("public")).unwrap_err().to_string();
        assert!(text.contains("`public`") && text.contains("a (id0)"), "{text}");
        assert!(choose(&[], Some("public")).unwrap_err().is_not_found());
    }
}
