//! Words about things that are there: beginnings of ids in every place, several targets, and completion.

use serde_json::{Value, json};

use super::MIB;
use super::cloud::{Agent, Cloud, Luck, haar};
use super::left_out::left_out;

async fn id_of(cloud: &Cloud, words: &str) -> String {
    cloud.haar(&format!("{words} -o json")).await.json()["id"].as_str().unwrap().to_owned()
}

/// A beginning that is hex and long enough to mean one id only.
fn beginning(id: &str) -> &str {
    &id[..13]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_an_id_is_taken_wherever_a_thing_is_named() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    let (image, flavor) = (id_of(&cloud, "image show tiny").await, id_of(&cloud, "flavor show small").await);
    let (network, host) =
        (id_of(&cloud, "network show default").await, id_of(&cloud, "hypervisor show lab1").await);
    let (subnet, group) =
        (id_of(&cloud, "subnet show default").await, id_of(&cloud, "fwgroup show default").await);
    let create = format!(
        "guest create web --image {} --flavor {} --network {} --subnet {} --fwgroup {} --hypervisor {}",
        beginning(&image),
        beginning(&flavor),
        beginning(&network),
        beginning(&subnet),
        beginning(&group),
        beginning(&host)
    );
    cloud.haar(&create).await.well();
    let list = format!(
        "guest list -o json --on {} --image {} --flavor {} --network {}",
        beginning(&host),
        beginning(&image),
        beginning(&flavor),
        beginning(&network)
    );
    assert_eq!(cloud.haar(&list).await.json()["items"][0]["name"], "web");
    let guest = id_of(&cloud, "guest show web").await;
    assert!(
        cloud.haar(&format!("job list --guest {}", beginning(&guest))).await.well().contains("create"),
        "its job is listed"
    );
    cloud.haar("guest set web --no-fwgroup").await.well();
    cloud.haar(&format!("guest set web --fwgroup {}", beginning(&group))).await.well();
    let words = format!("subnet create lab --network {} --cidr 10.99.0.0/24", beginning(&network));
    cloud.haar(&words).await.well();
    let list = format!("subnet list --network {}", beginning(&network));
    assert!(cloud.haar(&list).await.well().contains("10.99.0.0/24"));
    cloud.haar(&format!("flavor set tiny --image {}", beginning(&image))).await.well();
    cloud.haar(&format!("token create two --role agent --hypervisor {}", beginning(&host))).await.well();
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_one_document_and_what_was_deleted() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    for name in ["one", "two"] {
        cloud.haar(&format!("guest create {name} --image tiny")).await.well();
    }
    let stopped = cloud.haar("guest shutdown one two -o json").await.json();
    let states: Vec<&Value> =
        stopped["items"].as_array().unwrap().iter().map(|guest| &guest["state"]).collect();
    assert_eq!(states, [&json!("stopped"), &json!("stopped")]);
    assert_eq!(cloud.haar("guest start one -o json").await.json()["state"], "running");
    let deleted = cloud.haar("guest delete one two -o json").await.json();
    assert_eq!(deleted["items"][1]["guest_name"], "two");

    assert_eq!(cloud.haar("image delete tiny -o json").await.json()["name"], "tiny");
    let deleted = cloud.haar("flavor delete medium large -o json").await.json();
    assert_eq!(deleted["items"][0]["name"], "medium");
    let refused = cloud.haar("flavor delete small nobody -o json").await;
    let problem: Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!((refused.code, refused.out.as_str(), &problem["code"]), (4, "", &json!("not_found")));
    assert_eq!(cloud.haar("flavor show small -o json").await.json()["name"], "small");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subnets_of_a_hypervisor_are_changed_one_by_one() {
    let cloud = Cloud::start().await;
    cloud.haar("network create lan --reach listed").await.well();
    cloud.haar("subnet create lan --network lan --cidr 192.168.50.0/24").await.well();
    cloud.haar("subnet create attic --network lan --cidr 192.168.51.0/24").await.well();
    cloud.haar("hypervisor create lab9 --subnet lan=br0").await.well();
    cloud.haar("hypervisor set lab9 --subnet attic=br1").await.well();
    let (lan, attic) = (id_of(&cloud, "subnet show lan").await, id_of(&cloud, "subnet show attic").await);
    let subnets = || async { cloud.haar("hypervisor show lab9 -o json").await.json()["subnets"].clone() };
    assert_eq!(subnets().await, json!({ lan.clone(): "br0", attic.clone(): "br1" }));
    let words = format!("hypervisor set lab9 --subnet {}=br2 --no-subnet attic", beginning(&lan));
    cloud.haar(&words).await.well();
    assert_eq!(subnets().await, json!({ lan: "br2" }));
    assert_eq!(cloud.haar("hypervisor set lab9 --subnet lan=").await.code, 2);
    assert_eq!(cloud.haar("hypervisor set lab9 --subnet attic2=br0").await.code, 4);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_knows_names_and_ids() {
    let cloud = Cloud::start().await;
    cloud.haar("hypervisor create lab1").await.well();
    let id = id_of(&cloud, "hypervisor show lab1").await;
    let ask = async |words: &str| cloud.haar(&format!("__complete -- {words}")).await.well();
    assert_eq!(ask("hypervisor show la").await, format!("lab1\t{}\n", &id[..8]));
    assert_eq!(ask(&format!("hypervisor show {}", &id[..6])).await, format!("{id}\tlab1\n"));
    assert!(ask("guest create web --flavor=sm").await.starts_with("--flavor=small\t"));
    assert!(ask("hypervisor set lab1 --subnet def").await.starts_with("default=\t"));
    assert_eq!(ask("guest show w").await, "");

    let nobody = [("HAAR_URL", "http://127.0.0.1:1"), ("HAAR_TOKEN", "x")];
    let said = haar(cloud.folder.path(), &nobody, &["__complete", "--", "guest", "show", ""], "").await;
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bash_script_completes_a_name() {
    let cloud = Cloud::start().await;
    cloud.haar("hypervisor create lab1").await.well();
    let script = cloud.haar("completion bash").await.well();
    let test = format!(
        "{script}\nCOMP_WORDS=({} hypervisor show la) COMP_CWORD=3; _haar; echo \"${{COMPREPLY[*]}}\"",
        env!("CARGO_BIN_EXE_haar")
    );
    let output = tokio::process::Command::new("bash")
        .args(["--norc", "-c", &test])
        .env("HAAR_URL", &cloud.url)
        .env("HAAR_TOKEN", &cloud.admin)
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "lab1\n", "{output:?}");
    cloud.stop().await;
}

/// Runs a shell on a script, the cloud's words at hand; None where the shell is not installed.
async fn shell(cloud: &Cloud, shell: &str, words: &[&str]) -> Option<std::process::Output> {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_haar")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = tokio::process::Command::new(shell);
    command.args(words).env("HAAR_URL", &cloud.url).env("HAAR_TOKEN", &cloud.admin);
    command.env("PATH", path).env("HOME", cloud.folder.path());
    match command.output().await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        output => Some(output.unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zsh_script_parses_and_completes_a_name() {
    let cloud = Cloud::start().await;
    cloud.haar("hypervisor create lab1").await.well();
    let script = cloud.haar("completion zsh").await.well();
    let file = cloud.file("_haar", script.as_bytes());
    let Some(parsed) = shell(&cloud, "zsh", &["-f", "-n", &file]).await else {
        cloud.stop().await;
        return left_out("haar the_zsh_script_parses_and_completes_a_name", "zsh is not installed");
    };
    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{parsed:?}");
    // What zsh's own completion would lend: it takes the script, and shows what the script describes.
    let test = format!(
        "compdef() {{ }}; _describe() {{ print -l -- \"${{(P@)2}}\" }}; source {file}\n\
         words=(haar hypervisor show la); CURRENT=4; _haar"
    );
    let completed = shell(&cloud, "zsh", &["-f", "-c", &test]).await.unwrap();
    let words = String::from_utf8_lossy(&completed.stdout).into_owned();
    assert!(words.starts_with("lab1:") && words.lines().count() == 1, "{completed:?}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fish_script_parses_and_completes_a_name() {
    let cloud = Cloud::start().await;
    cloud.haar("hypervisor create lab1").await.well();
    let script = cloud.haar("completion fish").await.well();
    let file = cloud.file("haar.fish", script.as_bytes());
    let Some(parsed) = shell(&cloud, "fish", &["--no-config", "-n", &file]).await else {
        cloud.stop().await;
        return left_out("haar the_fish_script_parses_and_completes_a_name", "fish is not installed");
    };
    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{parsed:?}");
    let test = format!("source {file}; complete -C 'haar hypervisor show la'");
    let completed = shell(&cloud, "fish", &["--no-config", "-c", &test]).await.unwrap();
    let words = String::from_utf8_lossy(&completed.stdout).into_owned();
    assert!(words.starts_with("lab1\t") && words.lines().count() == 1, "{completed:?}");
    cloud.stop().await;
}
