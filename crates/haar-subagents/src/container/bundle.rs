//! What the runtime is told of a container: pure text, made from its record and its image.
//!
//! A container's root is the host's root without most of its powers: it has the capabilities below and no others, sees
//! its own processes, files and interfaces, and is refused the system calls that reach the kernel's newer or rarer
//! doors. Deliberately absent: user namespaces.

use std::path::Path;

use haar_api::rpc::{Fault, FaultCode};
use serde_json::{Value, json};

use super::oci::RunConfig;
use super::record::Wish;
use super::user::User;

/// What root may do in a container: what Docker gives.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Refused even where a capability would not already do it: keys and namespaces of the host, loading of code into the
/// kernel, and doors that had more than their share of holes.
const REFUSED_CALLS: &[&str] = &[
    "add_key",
    "bpf",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "quotactl",
    "reboot",
    "request_key",
    "setns",
    "swapoff",
    "swapon",
    "umount2",
    "unshare",
    "userfaultfd",
];
/// Flags of `clone` that make namespaces: of mounts, cgroups, host names, IPC, users, processes, networks.
const CLONE_NAMESPACES: [u64; 7] =
    [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
/// What a program is told of a call that an old kernel does not have: C libraries then use the old one.
const ENOSYS: u32 = 38;

const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Processes a container may have.
const MAX_PROCESSES: u32 = 8192;
const CPU_PERIOD_US: u64 = 100_000;
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The runtime's `config.json`.
pub(super) fn config(
    folder: &Path,
    wish: &Wish,
    image: &RunConfig,
    user: &User,
    cgroup: &str,
    namespace: &str,
) -> Result<Value, Fault> {
    let cwd = if image.working_dir.starts_with('/') { image.working_dir.as_str() } else { "/" };
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": wish.hostname,
        "process": {
            "terminal": false,
            "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
            "args": arguments(wish, image)?,
            "env": environment(wish, image, user),
            "cwd": cwd,
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
        },
        "root": {"path": folder.join("rootfs"), "readonly": false},
        "mounts": mounts(folder),
        "linux": {
            "cgroupsPath": cgroup,
            "resources": resources(wish),
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
                {"type": "network", "path": Path::new("/run/netns").join(namespace)},
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp(),
        },
    }))
}

/// The program and its arguments: as with Docker, an entrypoint that was asked for takes the image's words away.
pub(super) fn arguments(wish: &Wish, image: &RunConfig) -> Result<Vec<String>, Fault> {
    let (entrypoint, command) = match (wish.entrypoint.is_empty(), wish.command.is_empty()) {
        (false, _) => (&wish.entrypoint, &wish.command),
        (true, false) => (&image.entrypoint, &wish.command),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let words: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    match words.first() {
        Some(first) if !first.is_empty() => Ok(words),
        _ => Err(Fault::new(FaultCode::Invalid, "the image names no program; give one as haar.command")),
    }
}

fn environment(wish: &Wish, image: &RunConfig, user: &User) -> Vec<String> {
    let home = if user.home.is_empty() { "/" } else { &user.home };
    let first = [PATH.to_owned(), format!("HOME={home}"), format!("HOSTNAME={}", wish.hostname)];
    merged(first.iter().chain(&image.env).chain(&wish.env))
}

/// Variables of which later ones of a name win.
pub(super) fn merged<'a>(variables: impl Iterator<Item = &'a String>) -> Vec<String> {
    let name = |one: &str| one.split_once('=').map_or_else(|| one.to_owned(), |(name, _)| name.to_owned());
    let mut all: Vec<String> = Vec::new();
    for one in variables {
        all.retain(|other| name(other) != name(one));
        all.push(one.clone());
    }
    all
}

fn mounts(folder: &Path) -> Value {
    let own = |name: &str| {
        json!({"destination": format!("/etc/{name}"), "type": "bind", "source": folder.join(name),
            "options": ["bind", "rprivate", "nosuid", "nodev", "noexec"]})
    };
    let mut mounts = system_mounts();
    mounts.extend(["hostname", "hosts", "resolv.conf"].map(own));
    json!(mounts)
}

/// What of the system every container sees.
pub(super) fn system_mounts() -> Vec<Value> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let dev_pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let shm = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
    let cgroup = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &dev_pts),
        mount("/dev/shm", "tmpfs", "shm", &shm),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup),
    ]
}

fn resources(wish: &Wish) -> Value {
    let mut resources = json!({
        "pids": {"limit": MAX_PROCESSES},
        // What the runtime itself makes is allowed beside; no container needs more.
        "devices": [{"allow": false, "access": "rwm"}],
    });
    if wish.memory > 0 {
        let bytes = wish.memory << 20;
        // No more with swap than without: the host's swap is nobody's memory.
        resources["memory"] = json!({"limit": bytes, "swap": bytes});
    }
    if wish.cpu > 0 {
        let quota = u64::from(wish.cpu) * CPU_PERIOD_US;
        resources["cpu"] = json!({"quota": quota, "period": CPU_PERIOD_US});
    }
    resources
}

fn seccomp() -> Value {
    let mut seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": REFUSED_CALLS, "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
            // Its flags lie in memory, where no filter sees them.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        ],
    });
    // One rule per flag: a rule of several would ask for all of them at once.
    let flag = |flag: u64| {
        json!({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]})
    };
    if let Some(rules) = seccomp["syscalls"].as_array_mut() {
        rules.extend(CLONE_NAMESPACES.map(flag));
    }
    seccomp
}

/// What stands in `/etc/hosts`.
pub(super) fn hosts(wish: &Wish) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n".to_owned();
    for nic in wish.nics.iter().filter(|nic| !nic.address.is_empty()).take(1) {
        text.push_str(&format!("{}\t{}\n", nic.address, wish.hostname));
    }
    text
}

/// The host's name servers, but for those that listen on the host alone: a container has another loopback.
pub(super) fn resolv_conf(of_host: &str) -> String {
    let is_reachable = |line: &&str| match line.strip_prefix("nameserver") {
        None => line.starts_with("search") || line.starts_with("options"),
        Some(address) => {
            address.trim().parse::<std::net::IpAddr>().is_ok_and(|address| !address.is_loopback())
        }
    };
    of_host.lines().filter(is_reachable).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use haar_api::rpc::Nic;

    use super::*;

    fn wish() -> Wish {
        Wish {
            hostname: "web".to_owned(),
            memory: 64,
            cpu: 2,
            nics: vec![Nic { address: "10.0.0.9".to_owned(), ..Nic::default() }],
            env: vec!["A=mine".to_owned()],
            ..Wish::default()
        }
    }

    fn image() -> RunConfig {
        RunConfig {
            env: vec!["A=theirs".to_owned(), "PATH=/x".to_owned()],
            entrypoint: vec!["/entry".to_owned()],
            cmd: vec!["word".to_owned()],
            ..RunConfig::default()
        }
    }

    #[test]
    fn a_command_and_an_entrypoint_are_dockers() {
        let words = |entrypoint: &[&str], command: &[&str]| {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let wish = Wish { entrypoint: owned(entrypoint), command: owned(command), ..wish() };
            arguments(&wish, &image()).unwrap().join(" ")
        };
        assert_eq!(words(&[], &[]), "/entry word");
        assert_eq!(words(&[], &["other"]), "/entry other");
        assert_eq!(words(&["/mine"], &[]), "/mine");
        assert!(arguments(&wish(), &RunConfig::default()).is_err());
    }

    #[test]
    fn a_variable_that_was_asked_for_wins() {
        let env = environment(&wish(), &image(), &User::default());
        assert_eq!(env, ["HOME=/", "HOSTNAME=web", "PATH=/x", "A=mine"]);
    }

    #[test]
    fn limits_and_names_stand_in_the_runtimes_text() {
        let config =
            config(Path::new("/c"), &wish(), &image(), &User::default(), "/haar/t/i", "haar-t-i").unwrap();
        assert_eq!(config["linux"]["resources"]["memory"]["limit"], 64 << 20);
        assert_eq!(config["linux"]["resources"]["cpu"]["quota"], 200_000);
        assert_eq!(config["root"]["path"], "/c/rootfs");
        let namespaces = config["linux"]["namespaces"].to_string();
        assert!(namespaces.contains("/run/netns/haar-t-i"), "{namespaces}");
        let unlimited = resources(&Wish::default());
        assert!(unlimited.get("memory").is_none() && unlimited.get("cpu").is_none());
    }

    #[test]
    fn a_name_server_on_the_hosts_loopback_is_left_out() {
        let text = resolv_conf("# x\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch a.example\nevil\n");
        assert_eq!(text, "nameserver 10.0.0.1\nsearch a.example\n");
        assert_eq!(hosts(&wish()).lines().last(), Some("10.0.0.9\tweb"));
    }
}
