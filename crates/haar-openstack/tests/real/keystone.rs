//! Every way to log in, and a login that is taken back while we are in.

use haar_cloud::{Class, Error, Provider as _};
use haar_openstack::{OpenStack, Settings};
use serde_json::{Value, json};

use crate::harness::{Cloud, until};

/// Keystone itself, spoken to without our client.
struct Keystone {
    http: reqwest::Client,
    url: String,
    token: String,
    user: String,
}

impl Keystone {
    /// Logs in as the user of a file of variables.
    async fn of(there: &Cloud, file: &str, project: &str) -> Self {
        let user = there.variable(file, "OS_USERNAME");
        Self::log_in(there, &user, &there.variable(file, "OS_PASSWORD"), project).await
    }

    async fn log_in(there: &Cloud, user: &str, password: &str, project: &str) -> Self {
        let url = there.variable("openrc", "OS_AUTH_URL");
        // reqwest needs to be told its TLS once, as the provider does.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {
                "user": {"name": user, "domain": domain, "password": password}}},
            "scope": {"project": {"name": project, "domain": domain}}}});
        let answer = http.post(format!("{url}/auth/tokens")).json(&body).send().await.unwrap();
        let token = answer.headers()["x-subject-token"].to_str().unwrap().to_owned();
        let told: Value = answer.json().await.unwrap();
        let user = told["token"]["user"]["id"].as_str().unwrap().to_owned();
        Self { http, url, token, user }
    }

    /// What Keystone says to this token.
    async fn catalog(&self) -> reqwest::StatusCode {
        let request = self.http.get(format!("{}/auth/catalog", self.url)).header("X-Auth-Token", &self.token);
        request.send().await.unwrap().status()
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let request =
            self.http.request(method, format!("{}{path}", self.url)).header("X-Auth-Token", &self.token);
        let answer = request.json(&body).send().await.unwrap().error_for_status().unwrap();
        answer.json().await.unwrap_or_default()
    }
}

fn login(there: &Cloud, set: &[(&str, &str)]) -> Settings {
    let url = there.variable("openrc", "OS_AUTH_URL");
    let region = there.variable("openrc", "OS_REGION_NAME");
    let mut settings = Settings::read(|name| match name {
        "OS_AUTH_URL" => Some(url.clone()),
        "OS_REGION_NAME" => Some(region.clone()),
        _ => set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
    })
    .unwrap();
    settings.machine.firmware = "/nonexistent".into();
    settings.machine.cloud_init = "/nonexistent".into();
    settings
}

#[tokio::test]
async fn tokens_and_application_credentials_open_the_door_and_a_wrong_one_does_not() {
    let Some(there) = Cloud::working() else { return };
    let keystone = Keystone::of(&there, "openrc", "unlimited").await;
    let cloud =
        OpenStack::connect(login(&there, &[("OS_TOKEN", &keystone.token), ("OS_PROJECT_NAME", "unlimited")]));
    assert_eq!(cloud.await.unwrap().flavors().await.unwrap().len(), 9);

    let path = format!("/users/{}/application_credentials", keystone.user);
    let name = format!("haar {}", uuid::Uuid::new_v4());
    let body = json!({"application_credential": {"name": name}});
    let made = keystone.ask(reqwest::Method::POST, &path, body).await["application_credential"].clone();
    let text = |key: &str| made[key].as_str().unwrap();
    let by_id =
        [("OS_APPLICATION_CREDENTIAL_ID", text("id")), ("OS_APPLICATION_CREDENTIAL_SECRET", text("secret"))];
    let by_name = [
        ("OS_APPLICATION_CREDENTIAL_NAME", text("name")),
        ("OS_APPLICATION_CREDENTIAL_SECRET", text("secret")),
        ("OS_USER_ID", keystone.user.as_str()),
    ];
    for set in [&by_id[..], &by_name[..]] {
        let cloud = OpenStack::connect(login(&there, set)).await.unwrap();
        assert_eq!(cloud.quota().await.unwrap().max_cores, None);
    }
    let wrong = [by_id[0], ("OS_APPLICATION_CREDENTIAL_SECRET", "guessed")];
    let error = OpenStack::connect(login(&there, &wrong)).await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error:?}");
    keystone.ask(reqwest::Method::DELETE, &format!("{path}/{}", text("id")), json!({})).await;
}

#[tokio::test]
async fn a_cloud_of_a_file_is_as_good_as_variables() {
    let Some(there) = Cloud::working() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clouds.yaml");
    let variable = |name: &str| there.variable("openrc", name);
    let text = format!(
        "clouds:\n  here:\n    region_name: {}\n    auth:\n      auth_url: {}\n      username: {}\n      \
         password: {}\n      project_name: unlimited\n      user_domain_name: Default\n",
        variable("OS_REGION_NAME"),
        variable("OS_AUTH_URL"),
        variable("OS_USERNAME"),
        variable("OS_PASSWORD"),
    );
    std::fs::write(&file, text).unwrap();
    let settings = Settings::read(|name| match name {
        "OS_CLOUD" => Some("here".to_owned()),
        "OS_CLIENT_CONFIG_FILE" => Some(file.display().to_string()),
        _ => None,
    });
    let cloud = OpenStack::connect(settings.unwrap()).await.unwrap();
    assert_eq!(cloud.quota().await.unwrap().max_instances, None);
}

#[tokio::test]
async fn wrong_words_are_told_apart() {
    let Some(there) = Cloud::working() else { return };
    let cases = [
        (("OS_PASSWORD", "wrong"), Class::Auth, "refused the login"),
        (("OS_REGION_NAME", "Atlantis"), Class::Input, "RegionOne"),
        (("OS_AUTH_URL", "http://127.0.0.1:1/v3"), Class::Transient, "127.0.0.1:1"),
    ];
    for (wrong, class, words) in cases {
        let error = OpenStack::connect(there.settings("unlimited", &[wrong])).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = OpenStack::connect(there.settings("no such project", &[])).await.unwrap_err();
    assert_eq!(error.class(), Class::Auth, "{error}");
}

#[tokio::test]
async fn case_36_a_token_that_is_taken_back_is_replaced_unseen() {
    let Some(there) = Cloud::working() else { return };
    let admin = Keystone::of(&there, "admin-openrc", "admin").await;
    let name = format!("haar-{}", uuid::Uuid::new_v4());
    let body = json!({"user": {"name": name, "password": "known", "domain_id": "default"}});
    let user =
        admin.ask(reqwest::Method::POST, "/users", body).await["user"]["id"].as_str().unwrap().to_owned();
    let first = |list: &Value, key: &str| list[key][0]["id"].as_str().unwrap().to_owned();
    let project =
        first(&admin.ask(reqwest::Method::GET, "/projects?name=unlimited", json!({})).await, "projects");
    let role = first(&admin.ask(reqwest::Method::GET, "/roles?name=member", json!({})).await, "roles");
    let grant = format!("/projects/{project}/users/{user}/roles/{role}");
    admin.ask(reqwest::Method::PUT, &grant, json!({})).await;

    let set = [("OS_USERNAME", name.as_str()), ("OS_PASSWORD", "known"), ("OS_PROJECT_NAME", "unlimited")];
    let cloud = OpenStack::connect(login(&there, &set)).await.unwrap();
    cloud.flavors().await.unwrap();
    let before = Keystone::log_in(&there, &name, "known", "unlimited").await;
    // Whoever is shut out loses every token, and can come back.
    for enabled in [false, true] {
        let body = json!({"user": {"enabled": enabled}});
        admin.ask(reqwest::Method::PATCH, &format!("/users/{user}"), body).await;
    }
    let refused = before.catalog().await;
    // Keystone counts in seconds: a token of the same one is taken for one of before.
    let comes_in = || async {
        let token = Keystone::log_in(&there, &name, "known", "unlimited").await;
        (token.catalog().await == 200).then_some(())
    };
    until("the user to be let in again", comes_in).await;
    let flavors = cloud.flavors().await;
    admin.ask(reqwest::Method::DELETE, &format!("/users/{user}"), json!({})).await;
    assert_eq!(refused, 401, "the tokens of before are worth nothing");
    assert_eq!(flavors.unwrap().len(), 9);
}
