//! `haar cloud --provider openstack` against the OpenStack that `cargo xtask test --only openstack` brings up: all
//! but logging in, as its servers only pretend to run.

use std::path::Path;

use super::cloud::{Said, haar};
use super::left_out::left_out;

/// The variables of a member.
fn login(folder: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder.join("openrc")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A person's home and login.
struct Desk {
    home: tempfile::TempDir,
    login: Vec<(String, String)>,
    name: String,
}

impl Desk {
    async fn haar(&self, words: &str) -> Said {
        self.in_project("unlimited", words).await
    }

    async fn in_project(&self, project: &str, words: &str) -> Said {
        let login = self.login.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let others = login.filter(|(key, _)| *key != "OS_PROJECT_NAME");
        let surroundings: Vec<(&str, &str)> = others.chain([("OS_PROJECT_NAME", project)]).collect();
        let which = ["cloud", "--provider", "openstack", "--name", &self.name];
        let words: Vec<&str> = which.into_iter().chain(words.split_whitespace()).collect();
        haar(self.home.path(), &surroundings, &words, "").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_login_to_openstack_names_the_variables_and_the_file() {
    let home = tempfile::tempdir().unwrap();
    let said = haar(home.path(), &[], &["cloud", "list", "--provider", "openstack"], "").await;
    assert!(said.code == 2 && said.err.contains("OS_AUTH_URL"), "{said:?}");
    assert!(said.err.contains("clouds.yaml"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_in_openstack_goes_from_nothing_to_servers_and_back_to_nothing() {
    const TEST: &str = "a_deployment_in_openstack_goes_from_nothing_to_servers_and_back_to_nothing";
    let Some(folder) = std::env::var_os("HAAR_OPENSTACK_DIR") else {
        left_out(TEST, "it runs in `cargo xtask test --only openstack`");
        return;
    };
    let name = format!("cli-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let desk = Desk { home: tempfile::tempdir().unwrap(), login: login(Path::new(&folder)), name };
    let plan = desk.haar("deploy --dry-run -o json").await.json();
    let things = plan["things"].as_array().unwrap();
    assert!(things.len() == 6 && things.iter().all(|thing| thing["id"].is_null()), "{plan}");
    assert_eq!(desk.haar("teardown").await.code, 4, "a dry run makes nothing");
    let deployed = desk.haar("deploy -o json").await.json();
    let things = deployed["things"].as_array().unwrap();
    assert!(things.iter().all(|thing| thing["ours"] == true && thing["id"].is_string()), "{deployed}");

    // From here on nothing may stay, whatever goes wrong: the name is one that nobody will have again.
    let used = use_it(&desk).await;
    let torn = desk.haar("teardown -o json").await;
    used.unwrap();
    let torn = torn.json();
    assert!(torn["destroyed"].as_array().unwrap().len() >= 6, "{torn}");
    assert_eq!(desk.haar("teardown").await.code, 4);
}

/// What a test finds is told only after the tear-down.
async fn use_it(desk: &Desk) -> Result<(), String> {
    let expect = |is_so: bool, what: String| if is_so { Ok(()) } else { Err(what) };
    for verb in ["flavors -o json", "images -o json", "quota -o json"] {
        let said = desk.haar(verb).await;
        expect(said.code == 0 && !said.out.is_empty(), format!("{verb}: {said:?}"))?;
    }
    let said = desk.haar("spawn --image Debian --flavor m.tiny --count 2 --no-wait -o json").await;
    expect(said.code == 0, format!("{said:?}"))?;
    let spawned: serde_json::Value = serde_json::from_str(&said.out).map_err(|error| error.to_string())?;
    let id = spawned["items"][0]["id"].as_str().ok_or("it has an id")?.to_owned();
    expect(spawned["items"][1]["address"].is_string(), format!("{spawned}"))?;

    // The same person with the login to another project means another deployment.
    let said = desk.in_project("demo", "list").await;
    expect(said.code == 0 && said.out.contains("no servers"), format!("{said:?}"))?;
    let said = desk.haar("list").await;
    expect(said.code == 0 && said.out.matches("running").count() == 2, format!("{said:?}"))?;
    let said = desk.haar(&format!("destroy {}", &id[..8])).await;
    expect(said.code == 0 && said.out.contains("destroyed"), format!("{said:?}"))?;
    let said = desk.haar("list -o json").await;
    expect(said.code == 0 && !said.out.contains(&id), format!("{said:?}"))?;
    let said = desk.haar("spawn --image Debian --flavor c.xxl --no-wait").await;
    expect(said.code == 3 && said.err.contains("no_hardware"), format!("{said:?}"))?;
    let said = desk.haar("teardown --dry-run -o json").await;
    expect(said.code == 0 && said.out.matches("would be destroyed").count() >= 7, format!("{said:?}"))
}
