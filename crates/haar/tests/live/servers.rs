//! `haar cloud --provider haar` with a guest that boots: made, used over ssh and sftp, and gone again.

use std::path::Path;
use std::sync::Arc;

use haar_cloud::Server;
use haar_cloud::haar::HaarCloud;
use serde_json::Value;

use super::agent_image::agent_image;
use super::cloud::{Cloud, as_text, until};

/// Runs `haar cloud …` on the deployment `farm`; it must end well.
fn farm(cloud: &Cloud, verb: &str, words: &[&str]) -> String {
    cloud.haar(&[&["cloud", verb, "--name", "farm"], words].concat())
}

/// The same, whatever comes of it.
fn tried(cloud: &Cloud, verb: &str, words: &[&str]) -> (i32, String) {
    cloud.haar_tried(&[&["cloud", verb, "--name", "farm"], words].concat())
}

#[test]
fn a_server_is_rented_from_a_haar_cloud_used_and_given_back() {
    let Some(cloud) = Cloud::with_image("a_server_is_rented_from_a_haar_cloud_used_and_given_back") else {
        return;
    };
    let deployed = cloud.json(&["cloud", "deploy", "--name", "farm"]).unwrap();
    let record = deployed["record"].as_str().unwrap().to_owned();
    let spawn = ["cloud", "spawn", "--name", "farm", "--image", "tiny", "--flavor", "tiny"];
    let spawned = cloud.json(&spawn).expect("a server that can be logged in to");
    let server = spawned["items"][0]["name"].as_str().unwrap();

    // Each command is a process of its own, and knows the server by the record alone.
    let list = farm(&cloud, "list", &[]);
    assert!(list.contains(server) && list.contains("running"), "{list}");
    let shown =
        cloud.json(&["cloud", "run", "--name", "farm", server, "--", "hostname; echo no >&2; exit 7"]);
    assert!(shown.is_none(), "a command's status is ours");
    let (code, said) = tried(&cloud, "run", &[server, "--", "hostname; echo no >&2; exit 7"]);
    assert!(code == 7 && said.contains(server) && said.contains("no"), "{code} {said}");
    let (code, said) = tried(&cloud, "ssh", &[server, "--", "cat /etc/hostname"]);
    assert!(code == 0 && said.lines().any(|line| line == server), "{code} {said}");

    goes_there_and_back(&cloud, server);
    let id = spawned["items"][0]["id"].as_str().unwrap();
    shows_another_host_key(&cloud, server, id, Path::new(&record));

    let left = farm(&cloud, "teardown", &["--dry-run"]);
    assert!(left.contains(server) && left.contains("would be destroyed"), "{left}");
    farm(&cloud, "destroy", &[server]);
    assert!(farm(&cloud, "list", &[]).contains("no servers"));
    farm(&cloud, "teardown", &[]);
    assert_eq!(tried(&cloud, "teardown", &[]).0, 4, "there is nothing left to tear down");
    until("nothing to be left on the host", || cloud.left_over().is_empty().then_some(()));
    assert!(!cloud.haar(&["network", "list"]).contains("farm"));
    assert_eq!(std::fs::read_dir(Path::new(&record).parent().unwrap()).unwrap().count(), 0);
}

fn goes_there_and_back(cloud: &Cloud, server: &str) {
    let (here, back) = (cloud.path("it's here"), cloud.path("back"));
    std::fs::write(&here, vec![7; 3 << 20]).unwrap();
    let there = format!("{server}:/srv/a b/there");
    farm(cloud, "copy", &[as_text(&here), &there]);
    farm(cloud, "copy", &[&there, as_text(&back)]);
    assert!(std::fs::read(&here).unwrap() == std::fs::read(&back).unwrap(), "it came back as another");
    let (code, said) = tried(cloud, "copy", &[&format!("{server}:/no/such"), as_text(&back)]);
    assert!(code != 0 && said.contains("/no/such"), "{code} {said}");
}

/// A key that the server was not given counts if its console tells it. Whoever else stands where the server should
/// be, and shows another key, hears nothing of us.
fn shows_another_host_key(cloud: &Cloud, server: &str, id: &str, record: &Path) {
    let text = std::fs::read_to_string(record).unwrap();
    let mut other: Value = serde_json::from_str(&text).unwrap();
    let key = std::fs::read_to_string(cloud.path("key.pub")).unwrap();
    for entry in other["entries"].as_array_mut().unwrap() {
        if entry["name"] == server {
            entry["server"]["host_keys"][0] = Value::String(key.trim().to_owned());
        }
    }
    let other = serde_json::to_string_pretty(&other).unwrap();
    std::fs::write(record, &other).unwrap();
    assert_eq!(tried(cloud, "ssh", &[server, "--", "true"]).0, 0, "its console tells the key that it shows");
    std::fs::write(record, &other).unwrap();
    assert_eq!(tried(cloud, "run", &[server, "--", "true"]).0, 0);
    forget_console(cloud, id);
    std::fs::write(record, &other).unwrap();
    for (verb, words) in [("run", [server, "--", "touch /root/heard"]), ("ssh", [server, "--", "true"])] {
        let (code, said) = tried(cloud, verb, &words);
        assert!(code != 0 && said.to_lowercase().contains("host key"), "{verb}: {code} {said}");
    }
    std::fs::write(record, text).unwrap();
    assert_eq!(tried(cloud, "run", &[server, "--", "test ! -e /root/heard"]).0, 0);
}

/// What the guest's console has said so far is lost.
fn forget_console(cloud: &Cloud, id: &str) {
    let log = format!("{id}.log");
    let (mut folders, mut found) = (vec![cloud.data()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == *log {
                std::fs::write(entry.path(), "").unwrap();
                found += 1;
            }
        }
    }
    assert!(found > 0, "the log of the console is not where it was");
}

#[test]
fn case_35_what_one_guest_writes_on_the_shared_disk_another_reads() {
    let test = "case_35_what_one_guest_writes_on_the_shared_disk_another_reads";
    let Some(mut cloud) = Cloud::prepare(test) else { return };
    let Some(image) = agent_image(&format!("haar {test}")) else { return };
    cloud.up();
    cloud.haar(&["image", "import", "tiny-nfs", as_text(&image)]);
    // ssh, and NFS between the servers.
    let deployed =
        cloud.json(&["cloud", "deploy", "--name", "farm", "--port", "22", "--port", "2049"]).unwrap();
    let spawn =
        ["cloud", "spawn", "--name", "farm", "--image", "tiny-nfs", "--flavor", "tiny", "--count", "2"];
    cloud.json(&spawn).expect("two servers that can be logged in to");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let farm = library(&cloud, &deployed);
        let [sharing, using] = farm.servers().await.unwrap().try_into().expect("two servers");
        share_a_disk(&sharing, &using, deployed["cidr"].as_str().unwrap()).await;
        for server in [&using, &sharing] {
            server.destroy().await.unwrap();
        }
        farm.tear_down().await.unwrap();
        farm.settled().await;
    });
    until("nothing to be left on the host", || cloud.left_over().is_empty().then_some(()));
}

/// The deployment for whoever writes programs: by the record that the command line made.
fn library(cloud: &Cloud, deployed: &Value) -> haar_cloud::Cloud {
    let saved = std::fs::read_to_string(cloud.path("config/haar/credentials.toml")).unwrap();
    let saved: toml::Table = toml::from_str(&saved).unwrap();
    let word = |key: &str| saved["clouds"]["default"][key].as_str().unwrap().to_owned();
    let provider = HaarCloud::new(&word("url"), Some(word("token")), None).unwrap().with_id(&*cloud.cloud_id);
    let folder = Path::new(deployed["record"].as_str().unwrap()).parent().unwrap();
    haar_cloud::Cloud::new(Arc::new(provider), &"farm".parse().unwrap(), folder).unwrap()
}

/// One shares and the other mounts, each of them twice, which is once.
async fn share_a_disk(sharing: &Server, using: &Server, network: &str) {
    let said = async |server: &Server, command: &str| {
        let output = server.run_to_success(command).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let address = sharing.address().unwrap();
    for _ in 0..2 {
        sharing.create_shared_disk(network.parse().unwrap()).await.unwrap();
        using.mount_shared_disk(address).await.unwrap();
        assert!(sharing.has_shared_disk() && using.has_shared_disk());
    }
    let exports = said(sharing, "exportfs -s").await;
    assert!(
        exports.starts_with(&format!("/shared  {network}(")) && exports.lines().count() == 1,
        "{exports}"
    );
    let mounts = said(using, "grep ' /shared ' /proc/mounts").await;
    let mounted = format!("{address}:/shared /shared nfs4 ");
    assert!(mounts.starts_with(&mounted) && mounts.lines().count() == 1, "{mounts}");

    said(sharing, "echo from the first >/shared/first").await;
    assert_eq!(said(using, "cat /shared/first").await, "from the first\n");
    said(using, "echo from the second >/shared/second").await;
    assert_eq!(said(sharing, "cat /shared/second").await, "from the second\n");

    let other = using.mount_shared_disk("192.0.2.1".parse().unwrap()).await.unwrap_err().to_string();
    assert!(other.contains(&format!("{address}:/shared is mounted at /shared already")), "{other}");
    // The one that shares may go first.
    said(using, "umount /shared").await;
}
