//! What a newcomer runs into in the first hour, each with the words that lead out of it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::MIB;
use super::between::{Between, problem};
use super::cloud::{Agent, Cloud, Luck, haar};

/// The command line that a hint ends with.
fn hinted(said: &str) -> String {
    let (_, command) = said.trim_end().rsplit_once("  haar ").unwrap_or_else(|| panic!("no hint in {said}"));
    command.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_of_a_network_with_nat_has_a_gateway_and_the_hint_that_leads_there_works() {
    let cloud = Cloud::start().await;
    let made = cloud.haar("network create lab --nat").await.well();
    let subnet = cloud.haar(&hinted(&made)).await.well();
    assert!(subnet.contains("(chosen, since the network has NAT)"), "{subnet}");
    let view = cloud.haar("subnet show lab -o json").await.json();
    let (cidr, gateway) = (view["cidr"].as_str().unwrap(), view["gateway"].as_str().unwrap());
    assert_eq!(gateway.strip_suffix(".1"), cidr.strip_suffix(".0/24"), "the first usable one");

    // The next hint takes another range; one without NAT has no gateway unless asked.
    let made = cloud.haar("network create quiet").await.well();
    assert!(!hinted(&made).contains(cidr), "{made}");
    let subnet = cloud.haar(&hinted(&made)).await.well();
    assert!(subnet.contains("no gateway"), "{subnet}");
    let said = cloud.haar("network set quiet --nat true").await;
    assert!(said.err.contains("subnet quiet has no gateway"), "{said:?}");
    cloud.haar(&hinted(&said.err)).await.well();
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_under_nat_has_no_gateway_when_none_is_wanted_and_what_that_means_is_said() {
    let cloud = Cloud::start().await;
    cloud.haar("network create lab --nat").await.well();
    let made = cloud.haar("subnet create dark --network lab --cidr 10.98.0.0/24 --no-gateway").await.well();
    assert!(made.contains("no gateway"), "{made}");
    assert!(cloud.haar("subnet show dark -o json").await.json()["gateway"].is_null());

    cloud.haar("subnet create lit --network lab --cidr 10.99.0.0/24").await.well();
    let said = cloud.haar("subnet set lit --no-gateway").await;
    assert!(said.err.contains("subnet lit has no gateway"), "{said:?}");
    cloud.haar(&hinted(&said.err)).await.well();
    assert!(!cloud.haar("subnet show lit -o json").await.json()["gateway"].is_null());
    let said = cloud
        .haar("subnet create x --network lab --cidr 10.97.0.0/24 --gateway 10.97.0.1 --no-gateway")
        .await;
    assert_eq!(said.code, 2, "{said:?}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_without_a_gateway_gets_one_later_even_when_a_guest_has_the_usual_address() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    cloud.haar("network create old").await.well();
    cloud.haar("subnet create old --network old --cidr 10.98.0.0/24").await.well();
    cloud.haar("guest create web --image tiny --network old").await.well();
    assert_eq!(cloud.haar("guest show web -o json").await.json()["ip"], "10.98.0.1");

    let said = cloud.haar("subnet set old --gateway 10.98.0.1").await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("is held by guest `web`") && said.err.contains("10.98.0.254"), "{said:?}");
    let said = cloud.haar("subnet set old --gateway 10.98.0.254").await;
    assert!(said.err.contains("ip route replace default via 10.98.0.254"), "{said:?}");
    assert_eq!(cloud.haar("subnet show old -o json").await.json()["gateway"], "10.98.0.254");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_changes_nothing_says_so_and_what_is_fixed_is_told() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    cloud.haar("guest create web --image tiny").await.well();
    let words = "guest set web --metadata team=web --restart always";
    assert_eq!(cloud.haar(words).await.well(), "  guest web changed\n");
    assert_eq!(cloud.haar(words).await.well(), "  guest web is so already; nothing to change\n");
    for words in ["network set default --nat true", "flavor set small --cpu 1", "image set tiny --name tiny"]
    {
        let said = cloud.haar(words).await.well();
        assert!(said.contains("nothing to change"), "{words}: {said}");
    }
    let said = cloud.haar("guest set web --flavor large").await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.err.contains("fixed") && said.err.contains("haar guest create NAME --flavor large"),
        "{said:?}"
    );
    cloud.stop().await;
}

#[test]
fn help_is_there_for_every_mode_and_noun() {
    for (word, part) in
        [("up", "--listen"), ("doctor", "--data"), ("guest", "create"), ("status", "Examples")]
    {
        let program = Path::new(env!("CARGO_BIN_EXE_haar"));
        let said = Command::new(program).args(["help", word]).env_clear().output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains(part), "{word}: {said:?}");
    }
}

/// A program named ssh that says how it was called and ends as told.
fn ssh_that_ends_with(cloud: &Cloud, code: i32) -> String {
    ssh_that(cloud, &code.to_string(), &format!("echo \"$@\"\nexit {code}"))
}

/// A folder with a program named ssh that does this.
fn ssh_that(cloud: &Cloud, name: &str, script: &str) -> String {
    let folder = cloud.folder.path().join(format!("bin-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("ssh");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_takes_plain_words_ends_as_ssh_does_and_says_where_to_look() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    cloud.haar("network create quiet").await.well();
    cloud.haar("subnet create quiet --network quiet --cidr 10.97.0.0/24").await.well();
    cloud.haar("guest create web --image tiny --network quiet").await.well();
    let ssh = async |words: &[&str], code: i32| {
        let path = ssh_that_ends_with(&cloud, code);
        let around = [("HAAR_URL", cloud.url.as_str()), ("HAAR_TOKEN", &cloud.admin), ("PATH", &path)];
        haar(cloud.folder.path(), &around, &[&["ssh"], words].concat(), "").await
    };
    let said = ssh(&["ana@web", "uptime", "-p"], 0).await.well();
    assert!(said.contains("-o ConnectTimeout=") && said.contains("-l ana -- 10.97.0.1 uptime -p"), "{said}");
    let guest = cloud.haar("guest show web -o json").await.json();
    let (id, life) = (guest["id"].as_str().unwrap(), guest["life"].as_str().unwrap());
    assert!(said.contains(&format!("HostKeyAlias={id}.{life} ")), "a guest made anew has other keys: {said}");
    let said = ssh(&["web", "--", "uptime", "-o", "json"], 7).await;
    assert_eq!((said.code, said.err.as_str()), (7, ""), "what ran failed, and said why itself");
    assert!(said.out.contains("-l root -- 10.97.0.1 uptime -o json"), "{said:?}");

    let said = ssh(&["web"], 255).await;
    assert_eq!(said.code, 255);
    for part in ["haar guest log web", "haar guest console web", "subnet quiet has no gateway"] {
        assert!(said.err.contains(part), "{part} is missing in {said:?}");
    }
    // The address the guest has is not told to be free.
    let gateway = said.err.lines().find(|line| line.contains("has no gateway")).unwrap();
    cloud.haar(&hinted(gateway)).await.well();
    assert_eq!(cloud.haar("subnet show quiet -o json").await.json()["gateway"], "10.97.0.254");

    cloud.haar("guest shutdown web").await.well();
    let said = ssh(&["web"], 0).await;
    assert_eq!((said.code, said.out.as_str()), (3, ""), "{said:?}");
    assert!(said.err.contains("haar guest start web"), "{said:?}");
    let said = cloud.haar("guest console web").await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("is stopped") && said.err.contains("haar guest start web"), "{said:?}");
    // What is to be typed next means the project that was meant, also where the controller says it.
    let said = ssh(&["web", "--project", "default"], 0).await;
    assert!(said.err.contains("haar guest start web --project default"), "{said:?}");
    let said = cloud.haar("guest console web --project default").await;
    assert!(said.err.contains("haar guest start web --project default"), "{said:?}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_beside_the_matter_neither_fails_nor_delays_it() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    cloud.haar("fwgroup create web").await.well();
    let busy = vec![("GET /v1/fwgroups/", problem(503, "not_ready", "not now"))];
    let between = Between::start(&cloud, busy).await;
    let said = between.haar(&cloud, "guest create web --image tiny --fwgroup web").await.well();
    assert!(said.contains("running after "), "{said}");
    assert!(between.asked().iter().any(|line| line.starts_with("GET /v1/fwgroups/")), "it was asked");

    // Nobody answers what ssh's failure is explained with.
    let between = Between::start(&cloud, vec![("GET /v1/subnets/", String::new())]).await;
    let path = ssh_that_ends_with(&cloud, 255);
    let around = [("HAAR_URL", between.url.as_str()), ("HAAR_TOKEN", &cloud.admin), ("PATH", &path)];
    let begun = Instant::now();
    let said = haar(cloud.folder.path(), &around, &["ssh", "web"], "").await;
    assert!(said.code == 255 && said.err.contains("haar guest log web"), "{said:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    cloud.stop().await;
}

/// A process group that is ended when the test is.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// What became of the process, once it is something.
async fn changed(pid: Pid) -> WaitStatus {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)).unwrap() {
            WaitStatus::StillAlive => {}
            status => return status,
        }
        assert!(Instant::now() < end, "nothing became of it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ssh_that_stops_itself_gives_the_shell_its_terminal_back() {
    let cloud = Cloud::start().await;
    let _agent = Agent::join(&cloud, Luck::Good).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    cloud.haar("guest create web --image tiny").await.well();
    let folder = ssh_that(&cloud, "stops", "kill -STOP $$\nexit 5");
    let mut command = Command::new(env!("CARGO_BIN_EXE_haar"));
    command.args(["ssh", "web"]).env_clear().env("HOME", cloud.folder.path()).env("PATH", folder);
    command.env("HAAR_URL", &cloud.url).env("HAAR_TOKEN", &cloud.admin).process_group(0);
    let pid = Pid::from_raw(i32::try_from(command.spawn().unwrap().id()).unwrap());
    let _group = Group(pid);
    assert_eq!(changed(pid).await, WaitStatus::Stopped(pid, Signal::SIGTSTP));
    killpg(pid, Signal::SIGCONT).unwrap();
    assert_eq!(changed(pid).await, WaitStatus::Exited(pid, 5));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_that_the_person_can_mend_ends_with_how() {
    let cloud = Cloud::start().await;
    let home = tempfile::tempdir().unwrap();
    let said = cloud.haar("flavor show smal").await;
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("(did you mean `small`?); see  haar flavor list"), "{said:?}");
    let said = cloud.haar("guest create web --image nobody").await;
    assert!(said.code == 4 && said.err.contains("haar image list"), "{said:?}");

    let url = cloud.url.clone();
    let ask = async |around: &[(&str, &str)]| haar(home.path(), around, &["guest", "list"], "").await;
    let said = ask(&[("HAAR_URL", &url), ("HAAR_TOKEN", "wrong")]).await;
    assert_eq!(said.code, 5, "{said:?}");
    assert!(said.err.contains("HAAR_TOKEN") && said.err.contains("haar token create"), "{said:?}");
    let said = ask(&[("HAAR_URL", &url)]).await;
    assert!(said.code == 5 && said.err.contains("no token was sent"), "{said:?}");
    let saved = home.path().join(".config/haar/credentials.toml");
    std::fs::create_dir_all(saved.parent().unwrap()).unwrap();
    let text = format!("[clouds.default]\nurl = \"{url}\"\ntoken = \"old\"\ndata = \"/srv/mist\"\n");
    std::fs::write(&saved, text).unwrap();
    std::fs::set_permissions(&saved, std::fs::Permissions::from_mode(0o600)).unwrap();
    let said = ask(&[]).await;
    assert_eq!(said.code, 5, "{said:?}");
    assert!(
        said.err.contains("cloud `default` in") && said.err.contains("/srv/mist/admin.token"),
        "{said:?}"
    );

    cloud.stop().await;
    let said = ask(&[]).await;
    assert_eq!(said.code, 6, "{said:?}");
    assert!(!said.err.contains("?:"), "{said:?}");
    let listen = url.strip_prefix("http://").unwrap();
    for part in ["the saved cloud `default`", &format!("sudo haar up --data /srv/mist --listen {listen}")] {
        assert!(said.err.contains(part), "{part} is missing in {said:?}");
    }
    let json = haar(home.path(), &[], &["guest", "list", "-o", "json"], "").await;
    let problem: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!(problem["code"], "unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_where_the_saved_cloud_is_and_down_tells_where() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("mist");
    let saved = home.path().join(".config/haar/credentials.toml");
    std::fs::create_dir_all(saved.parent().unwrap()).unwrap();
    let text =
        format!("[clouds.lab]\nurl = \"http://127.0.0.1:1\"\ntoken = \"x\"\ndata = \"{}\"\n", data.display());
    std::fs::write(&saved, text).unwrap();
    let doctor = async |around: &[(&str, &str)], words: &[&str]| {
        let said = haar(home.path(), around, &[&["doctor", "-o", "json"], words].concat(), "").await;
        let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        found["data"].as_str().unwrap().to_owned()
    };
    let lab = [("HAAR_CLOUD", "lab")];
    assert_eq!(doctor(&lab, &[]).await, data.to_str().unwrap());
    assert_eq!(doctor(&[], &[]).await, "/var/lib/haar", "no cloud of the usual name is saved");
    assert_eq!(doctor(&lab, &["--data", "/srv/other"]).await, "/srv/other");

    let elsewhere = home.path().join("elsewhere");
    let said = haar(home.path(), &lab, &["down", "--data", elsewhere.to_str().unwrap()], "").await.well();
    assert!(said.contains(&format!("haar down --data {}", data.display())), "{said}");
}

/// Image files that are not what they are called, each with what must be said of it.
fn bad_images(cloud: &Cloud) -> Vec<(String, &'static str)> {
    let mut vmdk = b"KDMV".to_vec();
    vmdk.resize(MIB, 0);
    // A header that promises a table the file ends before.
    let mut cut = vec![0_u8; 104];
    // Magic, version 3, cluster bits, level 1 entries, one cluster of refcount table, refcount order, header length.
    for (offset, value) in [(0, 0x5146_49fb_u32), (4, 3), (20, 16), (36, 2), (56, 1), (96, 4), (100, 104)] {
        cut[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
    }
    // Virtual size, and where the level 1 and the refcount table begin.
    for (offset, value) in [(24, 1_u64 << 30), (40, 0x3_0000), (48, 0x1_0000)] {
        cut[offset..offset + 8].copy_from_slice(&value.to_be_bytes());
    }
    let short = cut[..60].to_vec();
    let mut qcow2 = cut.clone();
    qcow2.resize(MIB, 0);
    vec![
        (cloud.file("vmdk.qcow2", &vmdk), "qemu-img convert -f vmdk -O qcow2"),
        (cloud.file("text.qcow2", b"this is no image\n"), "does not begin as one"),
        (cloud.file("disk.qcow2", &vec![7; MIB]), "import it with format raw"),
        (cloud.file("cut.qcow2", &cut), "truncated"),
        (cloud.file("short.qcow2", &short), "truncated"),
        (cloud.file("empty.qcow2", b""), "empty"),
        (cloud.file("odd.raw", &vec![7; MIB + 1]), "not a multiple of 512"),
        (cloud.file("really.raw", &qcow2), "import it with format qcow2"),
        (cloud.file("vmdk.raw", &vmdk), "qemu-img convert -f vmdk -O qcow2"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_what_it_is_called_is_refused_and_leaves_nothing() {
    let cloud = Cloud::start().await;
    for (file, words) in bad_images(&cloud) {
        let said = cloud.haar(&format!("image import bad {file}")).await;
        assert_eq!(said.code, 3, "{file}: {said:?}");
        assert!(said.err.contains("image_bad_format") && said.err.contains(words), "{file}: {said:?}");
        assert_eq!(cloud.haar("image list").await.well(), "  no images\n", "{file}");
    }
    let images = cloud.folder.path().join("controller/images");
    let left: Vec<_> = std::fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");

    let said = cloud.haar("image import bad ./disk.vmdk").await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("qemu-img convert -f vmdk -O qcow2 ./disk.vmdk"), "{said:?}");
    cloud.stop().await;
}
