//! Where each service is: the catalog that comes with a token, for one region and interface.
//!
//! A region that no service has is told with those there are. An address without a version gets the one
//! this crate speaks. Deliberately absent: asking a service for its versions.

use haar_cloud::{Error, Result};
use serde::Deserialize;

/// A service this crate speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Nova.
    Compute,
    /// Neutron.
    Network,
    /// Glance.
    Image,
    /// Cinder.
    Volume,
}

impl Service {
    /// What it is called in a catalog; the first that is there counts.
    fn types(self) -> &'static [&'static str] {
        match self {
            Self::Compute => &["compute"],
            Self::Network => &["network"],
            Self::Image => &["image"],
            Self::Volume => &["block-storage", "volumev3", "block-store", "volume"],
        }
    }

    /// What an address without a version lacks.
    fn version(self, project: &str) -> String {
        match self {
            Self::Compute => "/v2.1".to_owned(),
            Self::Network => "/v2.0".to_owned(),
            Self::Image => "/v2".to_owned(),
            Self::Volume => format!("/v3/{project}"),
        }
    }
}

/// A service as a token tells of it.
#[derive(Deserialize)]
pub(super) struct Told {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    url: String,
    region_id: Option<String>,
    /// The older name of the same.
    region: Option<String>,
}

impl Endpoint {
    fn region(&self) -> Option<&str> {
        self.region_id.as_deref().or(self.region.as_deref())
    }
}

/// The addresses that count.
#[derive(Debug)]
pub(super) struct Catalog {
    /// For messages.
    place: String,
    region: Option<String>,
    addresses: Vec<(String, String)>,
    project: String,
}

impl Catalog {
    /// Picks the addresses of a region and interface.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a region that is not there, or none where there are several.
    pub(super) fn new(told: Vec<Told>, region: Option<&str>, interface: &str, project: &str) -> Result<Self> {
        let region = choose_region(&told, region)?;
        let place = format!("region {}, interface {interface}", region.as_deref().unwrap_or("(none)"));
        let mut addresses = Vec::new();
        for service in told {
            let fits = |endpoint: &Endpoint| {
                endpoint.interface == interface && endpoint.region() == region.as_deref()
            };
            if let Some(endpoint) = service.endpoints.into_iter().find(fits) {
                addresses.push((service.kind, endpoint.url));
            }
        }
        Ok(Self { place, region, addresses, project: project.to_owned() })
    }

    /// The region that is spoken to.
    pub(super) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    pub(super) fn has(&self, service: Service) -> bool {
        self.find(service).is_some()
    }

    /// A service's address, without a slash at its end.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a service that this cloud has not.
    pub(super) fn address(&self, service: Service) -> Result<String> {
        let url = self.find(service).ok_or_else(|| Error::NotFound {
            kind: "service".to_owned(),
            name: format!("{} ({})", service.types()[0], self.place),
        })?;
        let url = url.trim_end_matches('/');
        let has_version = url.split('/').skip(3).any(is_version);
        Ok(if has_version { url.to_owned() } else { url.to_owned() + &service.version(&self.project) })
    }

    fn find(&self, service: Service) -> Option<&str> {
        let of = |kind: &&str| self.addresses.iter().find(|(known, _)| known == kind);
        service.types().iter().find_map(of).map(|(_, url)| url.as_str())
    }
}

/// `v2`, `v2.1`, `v3`.
fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|number| number.starts_with(|sign: char| sign.is_ascii_digit()))
}

fn choose_region(told: &[Told], wanted: Option<&str>) -> Result<Option<String>> {
    let endpoints = told.iter().flat_map(|service| &service.endpoints);
    let mut regions: Vec<&str> = endpoints.filter_map(Endpoint::region).collect();
    regions.sort_unstable();
    regions.dedup();
    let there = match &regions[..] {
        [] => "its catalog is empty: is the login for a project?".to_owned(),
        some => format!("this cloud has {}", some.join(", ")),
    };
    let bad = |value: &str, why: &str| Error::BadInput {
        what: "the region",
        value: value.to_owned(),
        why: format!("{why}; {there}"),
    };
    match (wanted, &regions[..]) {
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some((*only).to_owned())),
        (None, _) => Err(bad("", "none is given: set OS_REGION_NAME or `region_name`")),
        (Some(wanted), regions) if regions.contains(&wanted) => Ok(Some(wanted.to_owned())),
        (Some(wanted), _) => Err(bad(wanted, "the cloud does not have it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Vec<Told> {
        let text = r#"[
            {"type": "compute", "endpoints": [
                {"interface": "public", "url": "http://n/v2.1/", "region": "one"},
                {"interface": "internal", "url": "http://i/v2.1", "region": "one"},
                {"interface": "public", "url": "http://m/v2.1", "region_id": "two"}]},
            {"type": "network", "endpoints": [{"interface": "public", "url": "http://q", "region": "one"}]},
            {"type": "image", "endpoints": [{"interface": "public", "url": "http://host/v2/", "region": "one"}]},
            {"type": "volumev3", "endpoints": [{"interface": "public", "url": "http://c", "region": "one"}]}]"#;
        serde_json::from_str(text).unwrap()
    }

    fn catalog(region: Option<&str>, interface: &str) -> Result<Catalog> {
        Catalog::new(told(), region, interface, "p")
    }

    #[test]
    fn an_address_without_a_version_gets_one_and_another_stays() {
        let catalog = catalog(Some("one"), "public").unwrap();
        let address = |service| catalog.address(service).unwrap();
        assert_eq!(address(Service::Compute), "http://n/v2.1");
        assert_eq!(address(Service::Network), "http://q/v2.0");
        assert_eq!(address(Service::Image), "http://host/v2");
        assert_eq!(address(Service::Volume), "http://c/v3/p");
    }

    #[test]
    fn region_and_interface_decide_which_address_it_is() {
        assert_eq!(
            catalog(Some("two"), "public").unwrap().address(Service::Compute).unwrap(),
            "http://m/v2.1"
        );
        let internal = catalog(Some("one"), "internal").unwrap();
        assert_eq!(internal.address(Service::Compute).unwrap(), "http://i/v2.1");
        assert!(!internal.has(Service::Volume));
        let text = internal.address(Service::Network).unwrap_err().to_string();
        assert!(text.contains("network (region one, interface internal)"), "{text}");
    }

    #[test]
    fn a_region_that_is_not_there_is_told_with_those_that_are() {
        for wanted in [Some("three"), None] {
            let text = catalog(wanted, "public").unwrap_err().to_string();
            assert!(text.contains("one, two"), "{text}");
        }
        let text = Catalog::new(Vec::new(), Some("one"), "public", "p").unwrap_err().to_string();
        assert!(text.contains("catalog is empty"), "{text}");
    }
}
