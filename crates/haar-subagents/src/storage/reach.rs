//! Which addresses nothing is fetched from, and how slowly nothing is fetched.
//!
//! An image's address is the caller's, and the host that asks may be answered where its caller is not: link-local
//! addresses (169.254.0.0/16, fe80::/10) are what clouds and boards serve their hosts' secrets on, and nobody's
//! images. They are refused as they stand, behind a name, and behind a redirect. Deliberately absent: refusing
//! loopback and private networks, where operators do keep images.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Why an address is refused.
pub(super) const REFUSED: &str = "it leads to a link-local address, from which nothing is fetched";

/// Refuses such an address.
pub(super) fn check(url: &Url) -> Result<(), Fault> {
    if is_refused(url) {
        return Err(Fault::new(FaultCode::Invalid, format!("the image's source cannot be used: {REFUSED}")));
    }
    Ok(())
}

/// Finds a name's addresses, without the link-local ones.
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| !is_link_local(address.ip())).collect();
            if allowed.is_empty() {
                return Err::<Addrs, Box<dyn Error + Send + Sync>>(REFUSED.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is link-local as it stands.
pub(super) fn is_refused(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.parse().is_ok_and(is_link_local)
}

fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether what comes is worth its place: a source that trickles would hold it for ever. The time counts that is waited
/// for the source, and no other.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// In so much time at least so much must come.
    pub(crate) const WINDOW: Duration = Duration::from_secs(10 * 60);
    pub(crate) const LEAST_BYTES: u64 = 8 << 20;

    /// So many bytes have come.
    pub(crate) fn came(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// The source was waited for so long.
    ///
    /// # Errors
    /// `unavailable` when too few bytes came for too long.
    pub(crate) fn waited(&mut self, time: Duration) -> Result<(), Fault> {
        self.waited += time;
        if self.waited < Self::WINDOW {
            return Ok(());
        }
        if self.bytes >= Self::LEAST_BYTES {
            *self = Pace::default();
            return Ok(());
        }
        let text = format!(
            "the image's source gave {} bytes in {} minutes; others wait for its place, use a faster one",
            self.bytes,
            self.waited.as_secs() / 60
        );
        Err(Fault::new(FaultCode::Unavailable, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_fetched_from_a_link_local_address() {
        for (text, refused) in [
            ("http://169.254.169.254/latest/meta-data", true),
            ("http://2852039166/", true),
            ("http://[fe80::1]/", true),
            ("http://[::ffff:169.254.1.1]/", true),
            ("http://127.0.0.1/", false),
            ("http://192.168.1.7/", false),
            ("http://[fd00::1]/", false),
            ("https://images.example/", false),
        ] {
            assert_eq!(check(&Url::parse(text).unwrap()).is_err(), refused, "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_of_loopback_is_found_and_a_link_local_one_is_not() {
        let found = Resolver.resolve("localhost".parse().unwrap()).await.unwrap().count();
        assert!(found > 0);
        // The system reads an address as its own name.
        let refused = Resolver.resolve("169.254.169.254".parse().unwrap()).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("link-local")));
    }

    #[test]
    fn a_source_that_trickles_loses_its_place() {
        let minute = Duration::from_secs(60);
        let mut pace = Pace::default();
        for _ in 0..30 {
            pace.came(1 << 20);
            pace.waited(minute).unwrap();
        }
        let mut pace = Pace::default();
        for _ in 0..9 {
            pace.came(1);
            pace.waited(minute).unwrap();
        }
        pace.came(1);
        assert_eq!(pace.waited(minute).unwrap_err().code, FaultCode::Unavailable);
    }
}
