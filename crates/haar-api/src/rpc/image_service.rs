//! The originals' image service, as far as sub-agents need it: where an image that is asked for by its id alone comes
//! from (`mistify-wire` §2.12, §2.15).

use std::fmt;
use std::str::FromStr;

use http::Uri;
use serde::{Deserialize, Serialize};

/// The port of the originals' service (§2.15).
const PORT: u16 = 20000;

/// An image service: `http://host[:port]`, `https://host[:port]`, or `host[:port]` for HTTP, on port 20000 unless said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageService(String);

/// A text that is no such service.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no image service; write http://host:port, https://host:port or host:port")]
pub struct NoImageService(String);

impl ImageService {
    /// Where an image's bytes are. The id must be fit for a path.
    #[must_use]
    pub fn download(&self, id: &str) -> String {
        format!("{}/images/{id}/download", self.0)
    }
}

impl FromStr for ImageService {
    type Err = NoImageService;

    fn from_str(text: &str) -> Result<Self, NoImageService> {
        let wrong = || NoImageService(text.to_owned());
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let uri: Uri = format!("{scheme}://{rest}").parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let is_bare =
            matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.as_str().contains('@');
        if !matches!(scheme, "http" | "https") || !is_bare || authority.host().is_empty() {
            return Err(wrong());
        }
        // The original's own word for it has no scheme; a port that belongs to the scheme is not meant then.
        let (host, said) = (authority.host(), text.contains("://"));
        match authority.port_u16() {
            Some(port) => Ok(ImageService(format!("{scheme}://{host}:{port}"))),
            // What is left besides the host is no port.
            None if authority.as_str() != host => Err(wrong()),
            None if said => Ok(ImageService(format!("{scheme}://{host}"))),
            None => Ok(ImageService(format!("{scheme}://{host}:{PORT}"))),
        }
    }
}

impl TryFrom<String> for ImageService {
    type Error = NoImageService;

    fn try_from(text: String) -> Result<Self, NoImageService> {
        text.parse()
    }
}

impl From<ImageService> for String {
    fn from(service: ImageService) -> String {
        service.0
    }
}

impl fmt::Display for ImageService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_written_as_the_original_has_it_or_as_an_address() {
        for (text, address) in [
            ("image.services.lochness.local", "http://image.services.lochness.local:20000"),
            ("10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("http://images.example/", "http://images.example"),
            ("https://[fd00::1]:8443", "https://[fd00::1]:8443"),
        ] {
            let service: ImageService = text.parse().unwrap();
            assert_eq!(service.download("i-1"), format!("{address}/images/i-1/download"), "{text}");
            assert_eq!(service.to_string().parse::<ImageService>().unwrap(), service);
        }
    }

    #[test]
    fn other_words_are_no_service() {
        for text in
            ["", "ftp://a", "http://", "http://a/b", "http://u:p@a", "http://a?b", "a b", "http://a:99999"]
        {
            let error = text.parse::<ImageService>().unwrap_err().to_string();
            assert!(error.contains("image service"), "{text}: {error}");
        }
    }
}
