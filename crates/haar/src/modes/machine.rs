//! Checking this machine: what guests need, what is there, and what to do about what is not.

mod storage;
mod sub_agents;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use haar_api::rpc::storage::Backend;
use haar_core::address::Cidr;
use haar_core::id::CloudId;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// Where libvirtd answers.
const LIBVIRT_SOCKET: &str = "/run/libvirt/libvirt-sock";
/// How long libvirtd may take to answer once started.
const STARTING: Duration = Duration::from_secs(15);
/// Programs are looked for here too: a plain user's path may lack the last ones.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mark {
    /// Fine.
    Good,
    /// Guests will run, but not as well as they might.
    Warning,
    /// Guests cannot run.
    Bad,
}

/// One line of the checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) mark: Mark,
    /// What was looked at, and what was found.
    pub(super) found: String,
    /// What it means, or what to do.
    pub(super) note: String,
}

impl Check {
    fn new(mark: Mark, found: impl Into<String>, note: impl Into<String>) -> Check {
        Check { mark, found: found.into(), note: note.into() }
    }

    /// The line as it is shown.
    pub(super) fn line(&self) -> String {
        let mark = match self.mark {
            Mark::Good => "✓",
            Mark::Warning => "!",
            Mark::Bad => "✗",
        };
        let line = format!("{mark} {:<46} {}", self.found, self.note);
        line.trim_end().to_owned()
    }
}

/// Whether libvirtd may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Libvirt {
    /// It is started when it does not run.
    Start,
    /// It is only looked at.
    Look,
}

/// Everything but the network, which only a first start chooses. `backend` is what storage shall be, if that was said.
pub(super) fn checks(
    data: &Path,
    libvirt: Libvirt,
    sub_agent: Option<&Path>,
    backend: Option<Backend>,
) -> Vec<Check> {
    let config = haar_agent::Config::read(&data.join("agent.toml")).ok();
    let device = kvm_device(Path::new("/dev/kvm"), libvirt);
    let mut checks = vec![virtualisation(libvirt), sub_agent_program(sub_agent), kvm()];
    checks.extend(device);
    let backend = backend.or(config.as_ref().map(|config| config.storage.backend)).unwrap_or_default();
    checks.push(storage::check(data, backend));
    checks.extend(impassable(data));
    checks.push(nftables());
    checks.push(containers());
    checks.extend(forwarding(config.map(|config| config.cloud)));
    checks
}

/// Chains of somebody else's that drop what guests send; only root can see them.
fn forwarding(cloud: Option<CloudId>) -> Vec<Check> {
    let drops = haar_agent::net::forward_drops(cloud).unwrap_or_default();
    let check = |drop: haar_agent::net::ForwardDrop| {
        let found = format!("{} drops what is forwarded", drop.chain);
        let note = format!("guests reach nobody outside; let them pass: {}", drop.remedy.join("; "));
        Check::new(Mark::Warning, found, note)
    };
    drops.into_iter().map(check).collect()
}

fn virtualisation(libvirt: Libvirt) -> Check {
    let Some(qemu) = version(&format!("qemu-system-{}", std::env::consts::ARCH)) else {
        return Check::new(
            Mark::Bad,
            "QEMU is missing",
            "install it: apt install qemu-system-x86 qemu-utils",
        );
    };
    if version("qemu-img").is_none() {
        return Check::new(Mark::Bad, "qemu-img is missing", "install it: apt install qemu-utils");
    }
    let Some(daemon) = version("libvirtd") else {
        let note = "install it: apt install libvirt-daemon-system";
        return Check::new(Mark::Bad, format!("QEMU {qemu}, libvirt is missing"), note);
    };
    let found = format!("QEMU {qemu}, libvirt {daemon}");
    if UnixStream::connect(LIBVIRT_SOCKET).is_ok() {
        return Check::new(Mark::Good, found, "");
    }
    if libvirt == Libvirt::Look {
        return Check::new(Mark::Bad, format!("{found}, not running"), "start it: `haar up` does");
    }
    match start_libvirt() {
        Ok(how) => Check::new(Mark::Good, found, format!("started libvirtd (none was running) {how}")),
        Err(why) => Check::new(Mark::Bad, format!("{found}, not running"), why),
    }
}

/// Starts libvirtd, unless it answers; says how, or why not.
pub(super) fn ensure_libvirt() -> Result<Option<String>, String> {
    if UnixStream::connect(LIBVIRT_SOCKET).is_ok() { Ok(None) } else { start_libvirt().map(Some) }
}

/// Starts libvirtd the way this machine starts services.
fn start_libvirt() -> Result<String, String> {
    let has_systemd = Path::new("/run/systemd/system").is_dir();
    let commands: &[&[&str]] = if has_systemd {
        &[&["systemctl", "start", "libvirtd"]]
    } else {
        &[&["virtlogd", "-d"], &["libvirtd", "-d"]]
    };
    for words in commands {
        // A daemon that runs already says so and fails; whether libvirtd answers is what counts.
        let _ = command(words[0]).args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    let deadline = Instant::now() + STARTING;
    while UnixStream::connect(LIBVIRT_SOCKET).is_err() {
        if Instant::now() >= deadline {
            return Err("libvirtd did not start; look at its log: journalctl -u libvirtd".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(if has_systemd { "with systemctl".to_owned() } else { "without systemd".to_owned() })
}

/// What can be told of the sub-agents of a cloud that was set up here; nothing before.
pub(super) fn sub_agents(data: &Path, is_up: bool) -> Vec<Check> {
    let config = haar_agent::Config::read(&data.join("agent.toml")).ok();
    config.map(|config| sub_agents::checks(&config, is_up)).unwrap_or_default()
}

fn sub_agent_program(configured: Option<&Path>) -> Check {
    let program = configured.map_or_else(|| haar_agent::config::beside("haar-libvirt"), PathBuf::from);
    if is_there(&program) {
        return Check::new(Mark::Good, "haar-libvirt is there", "");
    }
    let note = "put it beside `haar`, or name it: --libvirt-program FILE";
    Check::new(Mark::Bad, format!("{} is missing", program.display()), note)
}

/// KVM counts only when the device opens and the CPU can do it: some hosts have a device that does not work.
fn kvm() -> Check {
    let device = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let needs_flag = matches!(std::env::consts::ARCH, "x86" | "x86_64");
    let has_flag = cpu.split_whitespace().any(|word| matches!(word, "vmx" | "svm"));
    let why = match device {
        Err(error) => format!("/dev/kvm does not open ({})", error.kind()),
        Ok(_) if needs_flag && !has_flag => "the CPU offers no vmx/svm".to_owned(),
        Ok(_) => return Check::new(Mark::Good, "KVM", ""),
    };
    Check::new(Mark::Warning, format!("KVM not usable: {why}"), "guests will be emulated (slow)")
}

/// A KVM device that root opens and QEMU's user does not, as where no udev runs: libvirtd then distrusts what
/// it knows of QEMU and probes it anew at every define, which takes the better part of a minute.
fn kvm_device(device: &Path, libvirt: Libvirt) -> Option<Check> {
    let metadata = std::fs::metadata(device).ok()?;
    let group = nix::unistd::Group::from_name("kvm").ok().flatten()?.gid.as_raw();
    if opens_for(metadata.mode(), metadata.gid(), group) {
        return None;
    }
    let found = format!("{} is closed to QEMU's user", device.display());
    let by_hand = format!("open it: chgrp kvm {0} && chmod 0660 {0}", device.display());
    if libvirt == Libvirt::Look {
        return Some(Check::new(Mark::Warning, found, by_hand));
    }
    let opened = std::os::unix::fs::chown(device, None, Some(group))
        .and_then(|()| std::fs::set_permissions(device, std::fs::Permissions::from_mode(0o660)));
    Some(match opened {
        Ok(()) => Check::new(Mark::Good, format!("{} given to group kvm", device.display()), "as udev does"),
        Err(_) => Check::new(Mark::Warning, found, by_hand),
    })
}

/// Whether a member of `group` can read and write a file of this mode and group.
fn opens_for(mode: u32, owner: u32, group: u32) -> bool {
    mode & 0o006 == 0o006 || (owner == group && mode & 0o060 == 0o060)
}

/// A folder on the way to the data that QEMU's user cannot pass.
fn impassable(data: &Path) -> Option<Check> {
    let closed = data.ancestors().filter(|folder| folder.is_dir()).find(|folder| {
        std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
    })?;
    let found = format!("QEMU's user cannot pass {}", closed.display());
    Some(Check::new(Mark::Bad, found, format!("let it: chmod o+x {}", closed.display())))
}

fn nftables() -> Check {
    match version("nft") {
        Some(version) => Check::new(Mark::Good, format!("nftables {version}"), ""),
        None => Check::new(Mark::Bad, "nftables is missing", "install it: apt install nftables"),
    }
}

/// Virtual machines need none of it, hence no more than a warning.
fn containers() -> Check {
    match ["runc", "crun"].into_iter().find_map(|name| Some((name, version(name)?))) {
        Some((name, version)) => Check::new(Mark::Good, format!("{name} {version}"), ""),
        None => Check::new(Mark::Warning, "runc and crun are missing", "for containers: apt install runc"),
    }
}

/// The first range for a network of our own that meets none of these, and no route of this host.
pub(super) fn free_range(taken: &[IpNet]) -> Option<Cidr> {
    let mut routes = routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
    let only_v4 = |net: &IpNet| if let IpNet::V4(net) = net { Some(*net) } else { None };
    routes.extend(taken.iter().filter_map(only_v4));
    first_free(&routes)
}

fn first_free(routes: &[Ipv4Net]) -> Option<Cidr> {
    let tens = (77..=126).map(|second| Ipv4Addr::new(10, second, 0, 0));
    let others = (16..=31).map(|second| Ipv4Addr::new(172, second, 77, 0));
    let small = (77..=99).map(|third| Ipv4Addr::new(192, 168, third, 0));
    let range = tens.chain(others).chain(small).find_map(|address| {
        let net = Ipv4Net::new(address, 24).ok()?;
        let overlaps = |route: &Ipv4Net| route.contains(&net) || net.contains(route);
        (!routes.iter().any(overlaps)).then_some(net)
    });
    range.and_then(|net| net.to_string().parse().ok())
}

/// The routes of /proc/net/route but for the default one, which leads everywhere.
fn routes(table: &str) -> Vec<Ipv4Net> {
    let route = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        // The kernel prints addresses as they lie in memory.
        let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
        let destination = number(fields.next()?)?;
        let mask = number(fields.nth(5)?)?;
        Ipv4Net::with_netmask(Ipv4Addr::from(destination), Ipv4Addr::from(mask)).ok()
    };
    table.lines().skip(1).filter_map(route).filter(|net| net.prefix_len() > 0).collect()
}

/// Name servers that guests can reach: the host's own, unless they listen on the host alone.
pub(super) fn name_servers() -> Vec<IpAddr> {
    for path in ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let servers: Vec<IpAddr> = text
            .lines()
            .filter_map(|line| line.strip_prefix("nameserver"))
            .filter_map(|address| address.trim().parse().ok())
            .filter(|address: &IpAddr| address.is_ipv4() && !address.is_loopback())
            .collect();
        if !servers.is_empty() {
            return servers;
        }
    }
    Vec::new()
}

/// Whether the address can be listened on now.
pub(super) fn check_listen(listen: SocketAddr) -> Result<(), String> {
    if listen.port() == 0 {
        return Err(
            "--listen needs a port that stays the same; 0 is a different one at each start".to_owned()
        );
    }
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(format!(
            "{listen} is in use by another program; stop that one, or choose another: --listen 127.0.0.1:PORT"
        )),
        Err(error) => Err(format!("cannot listen on {listen}: {error}")),
    }
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", PATH).stdin(Stdio::null());
    command
}

/// Whether a program can be run: by its file, or by a bare name on the path.
fn is_there(program: &Path) -> bool {
    program.is_file() || (program.components().count() == 1 && on_path(program))
}

fn on_path(program: &Path) -> bool {
    let own = std::env::var("PATH").unwrap_or_default();
    std::env::split_paths(&own).any(|folder| folder.join(program).is_file())
}

/// The first word of `PROGRAM --version` that looks like one.
fn version(program: &str) -> Option<String> {
    let output = command(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().map(|word| word.trim_start_matches('v')).find_map(|word| {
        let is_version = word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
        is_version.then(|| word.trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        br0\t00014E0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn routes_are_read_without_the_default_one() {
        let found: Vec<String> = routes(TABLE).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.77.0.0/16", "10.78.1.0/24"]);
    }

    #[test]
    fn the_first_range_without_a_route_is_chosen() {
        assert_eq!(first_free(&[]).unwrap().to_string(), "10.77.0.0/24");
        assert_eq!(first_free(&routes(TABLE)).unwrap().to_string(), "10.78.0.0/24");
        let tens: Ipv4Net = "10.0.0.0/8".parse().unwrap();
        assert_eq!(first_free(&[tens]).unwrap().to_string(), "172.16.77.0/24");
    }

    #[test]
    fn a_device_opens_for_its_group_or_for_everybody() {
        assert!(opens_for(0o20660, 107, 107));
        assert!(opens_for(0o20666, 0, 107));
        assert!(!opens_for(0o20600, 0, 107));
        assert!(!opens_for(0o20660, 0, 107));
    }

    #[test]
    fn a_closed_device_is_only_opened_when_starting() {
        let test = "haar a_closed_device_is_only_opened_when_starting";
        if !nix::unistd::geteuid().is_root() {
            return crate::left_out::left_out(test, "only root may give a device away");
        }
        if nix::unistd::Group::from_name("kvm").unwrap().is_none() {
            return crate::left_out::left_out(test, "there is no group kvm");
        }
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("kvm");
        std::fs::write(&device, "").unwrap();
        std::fs::set_permissions(&device, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(kvm_device(&device, Libvirt::Look).map(|check| check.mark), Some(Mark::Warning));
        assert_eq!(kvm_device(&device, Libvirt::Start).map(|check| check.mark), Some(Mark::Good));
        assert_eq!(kvm_device(&device, Libvirt::Look), None);
    }

    #[test]
    fn port_0_and_a_busy_port_are_refused_with_what_to_do() {
        assert!(check_listen("127.0.0.1:0".parse().unwrap()).unwrap_err().contains("port"));
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = check_listen(busy.local_addr().unwrap()).unwrap_err();
        assert!(error.contains("in use") && error.contains("--listen"), "{error}");
    }
}
