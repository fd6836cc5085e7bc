//! Where a request came in, and whom it was meant for: through the open port only this host by a loopback name.
//!
//! A page in a browser may have a name of its own that leads to 127.0.0.1, and may then read every answer as its
//! own: no `Origin` gives that away. The name in its requests does.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Request};

use super::guard::Guard;

/// Where a request came in.
#[derive(Clone)]
pub(crate) enum Door {
    /// The socket, which only its owner can open.
    Socket,
    /// The loopback port, to which any user and any page of this host can connect.
    Port,
    /// The port behind TLS and a token, which no page knows.
    Guarded(Arc<Guard>),
}

impl Door {
    /// Whether whoever asks may come in here.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        match self {
            Door::Socket | Door::Port => true,
            Door::Guarded(guard) => guard.admits(headers),
        }
    }

    /// Whether a request was meant for this host. One that names nobody is no browser's.
    pub(super) fn is_of<B>(&self, request: &Request<B>) -> bool {
        match self {
            Door::Socket | Door::Guarded(_) => true,
            Door::Port => {
                let named = request.headers().get_all(HOST).iter();
                let named = named.map(|name| name.to_str().is_ok_and(is_loopback));
                let authority = request.uri().authority();
                let authority = authority.map(|authority| is_loopback(authority.as_str()));
                named.chain(authority).all(|is_meant| is_meant)
            }
        }
    }
}

fn is_loopback(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return text.is_empty() };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_tcp_only_loopback_names_are_meant() {
        let meant =
            |door: Door, name: &str| door.is_of(&Request::get("/").header(HOST, name).body(()).unwrap());
        for name in ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "127.3.2.1", "[::1]:8080", "[::1]", ""] {
            assert!(meant(Door::Port, name), "{name}");
        }
        for name in
            ["evil.example", "localhost.evil.example:8080", "10.0.0.1", "127.0.0.1.evil.example", "a b"]
        {
            assert!(!meant(Door::Port, name) && meant(Door::Socket, name), "{name}");
        }
        let to_itself =
            Request::get("http://evil.example/guests").header(HOST, "localhost").body(()).unwrap();
        assert!(!Door::Port.is_of(&to_itself));
        assert!(Door::Port.is_of(&Request::get("/").body(()).unwrap()), "HTTP/1.0 names nobody");
    }
}
