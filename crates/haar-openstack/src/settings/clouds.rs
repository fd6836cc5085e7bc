//! A cloud of `clouds.yaml`, with what `secure.yaml` beside it adds.
//!
//! Values stay the text that stands in the file: an id of digits is no number. What is not needed for a
//! login is ignored. Deliberately absent: profiles of vendors (`profile`, `clouds-public.yaml`).

use std::collections::BTreeMap;
use std::path::Path;

use haar_cloud::{Error, Result};
use serde::{Deserialize, Serialize};

use super::values::Values;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    clouds: BTreeMap<String, Cloud>,
}

#[derive(Deserialize, Default)]
struct Cloud {
    #[serde(default)]
    auth: Auth,
    auth_type: Option<String>,
    region_name: Option<String>,
    #[serde(default)]
    regions: Vec<Region>,
    interface: Option<String>,
    endpoint_type: Option<String>,
    cacert: Option<String>,
    verify: Option<bool>,
    #[serde(default)]
    networks: Vec<Network>,
}

/// A region by itself, or one with settings of its own, of which only the name counts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Region {
    Name(String),
    Settings { name: String },
}

#[derive(Deserialize)]
struct Network {
    name: String,
    #[serde(default)]
    routes_externally: bool,
    #[serde(default)]
    nat_source: bool,
}

#[derive(Deserialize, Serialize, Default)]
#[serde(default)]
struct Auth {
    auth_url: Option<String>,
    username: Option<String>,
    user_id: Option<String>,
    password: Option<String>,
    token: Option<String>,
    user_domain_id: Option<String>,
    user_domain_name: Option<String>,
    project_id: Option<String>,
    project_name: Option<String>,
    project_domain_id: Option<String>,
    project_domain_name: Option<String>,
    domain_id: Option<String>,
    domain_name: Option<String>,
    default_domain: Option<String>,
    trust_id: Option<String>,
    application_credential_id: Option<String>,
    application_credential_name: Option<String>,
    application_credential_secret: Option<String>,
}

/// What the files say of a cloud.
///
/// # Errors
/// [`Error::BadInput`] for a file that cannot be read, and a cloud that is not in it.
pub(super) fn read(name: &str, file: &Path) -> Result<Values> {
    let mut clouds = parse(file)?.clouds;
    let Some(cloud) = clouds.remove(name) else {
        let names: Vec<&str> = clouds.keys().map(String::as_str).collect();
        let why = format!("{} has {}", file.display(), listed(&names));
        return Err(Error::BadInput { what: "OS_CLOUD", value: name.to_owned(), why });
    };
    let mut values = Values::of_file(file, name);
    let secure = file.with_file_name("secure.yaml");
    if secure.is_file()
        && let Some(cloud) = parse(&secure)?.clouds.remove(name)
    {
        add(&mut values, cloud);
    }
    add(&mut values, cloud);
    Ok(values)
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "no clouds".to_owned() } else { names.join(", ") }
}

fn parse(file: &Path) -> Result<File> {
    let bad =
        |why: String| Error::BadInput { what: "the file of clouds", value: file.display().to_string(), why };
    let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    // Without the lines around it: one of them may hold the password.
    serde_saphyr::from_str(&text).map_err(|error| bad(error.without_snippet().to_string()))
}

fn add(values: &mut Values, cloud: Cloud) {
    let auth = serde_json::to_value(cloud.auth).unwrap_or_default();
    for (key, value) in auth.as_object().into_iter().flatten() {
        values.extend(key, value.as_str().map(str::to_owned));
    }
    values.extend("auth_type", cloud.auth_type);
    // With several regions somebody has to choose; with one there is no choice.
    let only = match &cloud.regions[..] {
        [Region::Name(name) | Region::Settings { name }] => Some(name.clone()),
        _ => None,
    };
    values.extend("region_name", cloud.region_name.or(only));
    values.extend("interface", cloud.interface.or(cloud.endpoint_type));
    values.extend("cacert", cloud.cacert);
    values.extend("insecure", (cloud.verify == Some(false)).then(|| "true".to_owned()));
    let outside = cloud.networks.into_iter().find(|network| network.routes_externally || network.nat_source);
    values.extend("pool_name", outside.map(|network| network.name));
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, Named, Scope, Settings};
    use super::*;

    const FILE: &str = "
clouds:
  one:
    auth: {auth_url: http://k:5000/v3, username: u, password: 0123, project_id: 12345e67}
    regions: [north]
    identity_api_version: 3
    volume_api_version: '3'
  two:
    auth_type: v3applicationcredential
    auth:
      auth_url: http://k:5000/v3
      application_credential_id: abc
    region_name: south
    interface: internal
    cacert: /etc/ca.pem
    networks:
      - {name: inside}
      - {name: outside, routes_externally: true}
";

    fn settings(cloud: &str, secure: Option<&str>) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clouds.yaml");
        std::fs::write(&file, FILE).unwrap();
        if let Some(secure) = secure {
            std::fs::write(folder.path().join("secure.yaml"), secure).unwrap();
        }
        Settings::read(|name| match name {
            "OS_CLOUD" => Some(cloud.to_owned()),
            "OS_CLIENT_CONFIG_FILE" => Some(file.display().to_string()),
            _ => None,
        })
    }

    #[test]
    fn what_looks_like_a_number_stays_the_text_it_is() {
        let settings = settings("one", None).unwrap();
        assert!(matches!(&settings.scope, Scope::Project(Named::Id(id)) if id == "12345e67"), "{settings:?}");
        let Identity::Password { password, .. } = &settings.identity else { panic!("{settings:?}") };
        assert_eq!(password.reveal(), "0123");
        assert_eq!(settings.region.as_deref(), Some("north"));
    }

    #[test]
    fn the_secret_may_stand_in_a_file_of_its_own() {
        let secure = "clouds: {two: {auth: {application_credential_secret: s}}}";
        let settings = settings("two", Some(secure)).unwrap();
        assert!(matches!(settings.identity, Identity::ApplicationCredential { .. }), "{settings:?}");
        let told = (settings.interface.as_str(), settings.external_network.as_deref());
        assert_eq!(told, ("internal", Some("outside")));
        assert_eq!(settings.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
    }

    #[test]
    fn a_cloud_that_is_not_there_is_told_with_those_that_are() {
        let text = settings("three", None).unwrap_err().to_string();
        assert!(text.contains("`three`") && text.contains("one, two"), "{text}");
    }

    #[test]
    fn what_lacks_is_named_and_what_is_wrong_shows_no_secret() {
        assert!(settings("two", None).unwrap_err().to_string().contains("application_credential_secret"));
        let text =
            settings("one", Some("clouds:\n  one: {auth: {password: [hush]}}")).unwrap_err().to_string();
        assert!(text.contains("secure.yaml") && !text.contains("hush"), "{text}");
    }
}
