//! The logins that `tests/openstack/up.sh` leaves in the folder of its cloud.

use std::error::Error;
use std::path::Path;

use haar_openstack::Settings;

/// The variables of a file: `openrc` is a member's, `admin-openrc` the administrator's.
pub(crate) fn variables(folder: &Path, file: &str) -> std::io::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(folder.join(file))?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("export "));
    Ok(lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// The member's settings in a project, with others in place of some.
pub(crate) fn settings(
    folder: &Path,
    project: &str,
    others: &[(&str, &str)],
) -> Result<Settings, Box<dyn Error>> {
    let mut set = variables(folder, "openrc")?;
    set.insert(0, ("OS_PROJECT_NAME".to_owned(), project.to_owned()));
    let other =
        |name: &str| others.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let own = |name: &str| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mut settings = Settings::read(|name| other(name).or_else(|| own(name)))?;
    // Not on a server of this cloud, wherever this runs.
    settings.machine.firmware = "/nonexistent".into();
    settings.machine.cloud_init = "/nonexistent".into();
    Ok(settings)
}
