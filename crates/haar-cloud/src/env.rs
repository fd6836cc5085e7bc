//! What a login to a cloud needs from the environment, and what is missing.
//!
//! Variables are read through a function, so that a test needs no environment. Only the kind of login
//! leaves this file: no secret is kept, copied or printed. Deliberately absent: what is in `clouds.yaml`.

use std::path::{Path, PathBuf};

use crate::Error;

const OPENSTACK_REQUIRED: &[&str] = &["OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_REGION_NAME"];
const OPENSTACK_MAYBE: &[&str] = &[
    "OS_USERID",
    "OS_TENANT_ID",
    "OS_TENANT_NAME",
    "OS_DOMAIN_ID",
    "OS_PROJECT_DOMAIN_ID",
    "OS_DOMAIN_NAME",
    "OS_USER_DOMAIN_NAME",
    "OS_PROJECT_ID",
    "OS_PROJECT_NAME",
    "OS_POOL_NAME",
];

/// The variables a login by user and password needs, in documented order.
///
/// # Errors
/// [`Error::UnknownProvider`].
pub fn required(provider: &str) -> Result<&'static [&'static str], Error> {
    names(provider).map(|(required, _)| required)
}

/// The variables that are used where they are set.
///
/// # Errors
/// [`Error::UnknownProvider`].
pub fn maybe(provider: &str) -> Result<&'static [&'static str], Error> {
    names(provider).map(|(_, maybe)| maybe)
}

/// Both, the required ones first.
///
/// # Errors
/// [`Error::UnknownProvider`].
pub fn all(provider: &str) -> Result<Vec<&'static str>, Error> {
    let (required, maybe) = names(provider)?;
    Ok([required, maybe].concat())
}

fn names(provider: &str) -> Result<(&'static [&'static str], &'static [&'static str]), Error> {
    match provider {
        "openstack" => Ok((OPENSTACK_REQUIRED, OPENSTACK_MAYBE)),
        "haar" => Ok((&[], &["HAAR_URL", "HAAR_CLOUD", "HAAR_PROJECT"])),
        "local" => Ok((&[], &[])),
        _ => Err(Error::UnknownProvider { name: provider.to_owned() }),
    }
}

/// How one can log in to an OpenStack with what is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// By a named cloud of a file.
    Cloud {
        /// The cloud's name.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// By an application credential.
    ApplicationCredential,
    /// By a token that somebody else got.
    Token,
    /// By user and password.
    Password,
}

/// Where files of clouds are looked for, the first that is there counts.
#[must_use]
pub fn clouds_files(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(file) = set("OS_CLIENT_CONFIG_FILE") {
        return vec![file.into()];
    }
    let config = set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")));
    let mut files = vec![PathBuf::from("clouds.yaml")];
    files.extend(config.map(|config| config.join("openstack/clouds.yaml")));
    files.push("/etc/openstack/clouds.yaml".into());
    files
}

/// How one can log in to an OpenStack: a named cloud, else an application credential, else a token, else
/// user and password. `is_file` says whether a file is there.
///
/// # Errors
/// [`Error::MissingEnv`] names each variable that the begun way lacks; [`Error::NoCloudsFile`].
pub fn login(
    variable: impl Fn(&str) -> Option<String>,
    is_file: impl Fn(&Path) -> bool,
) -> Result<Login, Error> {
    let value = |name: &str| variable(name).filter(|value| !value.is_empty());
    let is_set = |name: &str| value(name).is_some();
    let files = clouds_files(&variable);
    let file = files.iter().find(|file| is_file(file)).cloned();
    if let Some(name) = value("OS_CLOUD") {
        return match file {
            Some(file) => Ok(Login::Cloud { name, file }),
            None => Err(Error::NoCloudsFile { cloud: name, looked: files }),
        };
    }
    let (login, required): (Login, Vec<&str>) =
        if is_set("OS_APPLICATION_CREDENTIAL_ID") || is_set("OS_APPLICATION_CREDENTIAL_NAME") {
            (Login::ApplicationCredential, application_credential(is_set))
        } else if is_set("OS_TOKEN") || is_set("OS_AUTH_TOKEN") {
            (Login::Token, vec!["OS_AUTH_URL"])
        } else {
            (Login::Password, password(is_set))
        };
    let missing: Vec<String> = required.into_iter().filter(|name| !is_set(name)).map(str::to_owned).collect();
    if missing.is_empty() {
        return Ok(login);
    }
    // The file that is there, else the usual one, so that the message names a place to look at.
    let file = file.or_else(|| files.get(1).or(files.first()).cloned()).unwrap_or_default();
    Err(Error::MissingEnv { names: missing, file })
}

/// A credential by name is only unique within its user; one by id is unique everywhere.
fn application_credential(is_set: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut required = vec!["OS_AUTH_URL"];
    if !is_set("OS_APPLICATION_CREDENTIAL_ID") && !is_set("OS_USER_ID") {
        required.push("OS_USERNAME");
    }
    required.push("OS_APPLICATION_CREDENTIAL_SECRET");
    required
}

/// A user may also be given by id.
fn password(is_set: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let by_id = is_set("OS_USER_ID") || is_set("OS_USERID");
    OPENSTACK_REQUIRED.iter().copied().filter(|name| !(by_id && *name == "OS_USERNAME")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login_with(set: &[(&str, &str)], file: &str) -> Result<Login, Error> {
        let value =
            |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        login(value, |path| path == Path::new(file))
    }

    fn missing(set: &[(&str, &str)]) -> Vec<String> {
        match login_with(set, "") {
            Err(Error::MissingEnv { names, .. }) => names,
            other => panic!("expected what is missing, got {other:?}"),
        }
    }

    #[test]
    fn each_way_to_log_in_does_without_the_variables_of_the_others() {
        let url = ("OS_AUTH_URL", "http://x");
        let credential =
            [url, ("OS_APPLICATION_CREDENTIAL_ID", "i"), ("OS_APPLICATION_CREDENTIAL_SECRET", "s")];
        assert_eq!(login_with(&credential, "").unwrap(), Login::ApplicationCredential);
        assert_eq!(login_with(&[url, ("OS_TOKEN", "t")], "").unwrap(), Login::Token);
        let by_id = [url, ("OS_USER_ID", "u"), ("OS_PASSWORD", "p"), ("OS_REGION_NAME", "r")];
        assert_eq!(login_with(&by_id, "").unwrap(), Login::Password);
    }

    #[test]
    fn a_named_cloud_needs_its_file() {
        let set = [("OS_CLOUD", "mine"), ("HOME", "/h")];
        let file = "/h/.config/openstack/clouds.yaml";
        let cloud = Login::Cloud { name: "mine".to_owned(), file: file.into() };
        assert_eq!(login_with(&set, file).unwrap(), cloud);
        let error = login_with(&set, "/elsewhere").unwrap_err().to_string();
        assert!(error.contains("`mine`") && error.contains(file), "{error}");
    }

    #[test]
    fn an_empty_variable_is_a_missing_one() {
        let set = [("OS_AUTH_URL", "u"), ("OS_USERNAME", "me"), ("OS_PASSWORD", ""), ("OS_REGION_NAME", "r")];
        assert_eq!(missing(&set), ["OS_PASSWORD"]);
    }

    #[test]
    fn a_credential_by_name_needs_its_user() {
        let set = [("OS_APPLICATION_CREDENTIAL_NAME", "n"), ("OS_AUTH_URL", "u")];
        assert_eq!(missing(&set), ["OS_USERNAME", "OS_APPLICATION_CREDENTIAL_SECRET"]);
    }

    #[test]
    fn what_is_missing_comes_with_the_other_ways_and_no_secret() {
        let set = [("OS_PASSWORD", "hush"), ("HOME", "/h")];
        let error = login_with(&set, "").unwrap_err().to_string();
        assert!(error.contains("OS_AUTH_URL, OS_USERNAME, OS_REGION_NAME"), "{error}");
        assert!(error.contains("/h/.config/openstack/clouds.yaml") && error.contains("OS_TOKEN"), "{error}");
        assert!(!error.contains("hush"));
    }
}
