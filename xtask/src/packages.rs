//! The Debian packages our commands need: which, what for, and how they get installed.
//!
//! On Debian and Ubuntu what is missing is installed by apt-get; elsewhere a missing
//! package is named with its reason and nothing is changed. Nothing is ever removed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::run;

/// One package, what it is for, and a program or file that proves its presence where there is no dpkg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) package: &'static str,
    pub(crate) why: &'static str,
    pub(crate) proof: &'static str,
}

const fn need(package: &'static str, proof: &'static str, why: &'static str) -> Need {
    Need { package, why, proof }
}

/// What making the tiny guest image needs.
pub(crate) const IMAGE: &[Need] = &[
    need("qemu-utils", "qemu-img", "writes the image as qcow2"),
    need("busybox-static", "/bin/busybox", "the guest's programs"),
    need("dropbear-bin", "dropbear", "the guest's ssh server"),
    need("fdisk", "sfdisk", "the image's partitions"),
    need("mtools", "mcopy", "fills the boot partition without mounting it"),
    need("syslinux", "syslinux", "the image's boot loader"),
    need("dosfstools", "mkfs.vfat", "the boot partition's and the seed's file system"),
    need("e2fsprogs", "mkfs.ext4", "the guest's root file system"),
    need("openssh-client", "scp", "the guest's scp; and logs in to it"),
    need("openssh-sftp-server", "/usr/lib/openssh/sftp-server", "the guest's sftp server"),
    need("cpio", "cpio", "the guest's initramfs"),
    need("xz-utils", "xz", "kernel modules of newer Debian releases are compressed"),
];

/// What building every crate needs beside Rust.
pub(crate) const BUILD: &[Need] = &[
    need("gcc", "gcc", "links the programs"),
    need("libc6-dev", "/usr/include/stdio.h", "links the programs"),
    need("pkg-config", "pkg-config", "finds libvirt's library"),
    need("libvirt-dev", "/usr/include/libvirt/libvirt.h", "the libvirt sub-agent speaks to it"),
];

/// What running a cloud on this machine needs.
pub(crate) const RUN: &[Need] = &[
    need("libvirt-daemon-system", "libvirtd", "runs the guests"),
    need(
        "libvirt-daemon-driver-qemu",
        "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver",
        "runs the guests",
    ),
    need("libvirt-clients", "virsh", "looks at the guests beside us"),
    need("qemu-system-x86", "qemu-system-x86_64", "the virtual machines"),
    // Always both: the one without the other makes apt remove or refuse.
    need("qemu-utils", "qemu-img", "disk images"),
    need("iproute2", "ip", "bridges and routes"),
    need("nftables", "nft", "firewall groups and NAT"),
    need("iputils-ping", "ping", "asks whether a guest answers"),
    need("openssh-client", "ssh", "logs in to guests"),
    need("runc", "runc", "runs containers"),
];

/// What the tests need that run no guests.
pub(crate) const CHECK: &[Need] = &[
    need("qemu-utils", "qemu-img", "judges the disks and images of the storage tests"),
    need("libvirt-clients", "virt-xml-validate", "checks our domain XML"),
    need("libxml2-utils", "xmllint", "virt-xml-validate checks our domain XML with it"),
    need("btrfs-progs", "mkfs.btrfs", "the btrfs volumes' tests"),
    need("zfs-fuse", "zfs-fuse", "the zfs volumes' tests, where the kernel has no ZFS"),
    need("curl", "curl", "speaks to our servers as a stranger would"),
    need("busybox-static", "/bin/busybox", "what the container tests run"),
    need("iproute2", "ip", "the container tests' networks"),
    need("runc", "runc", "the container tests run containers"),
    need("crun", "crun", "the container tests run some of them with the other runtime too"),
    need("openssh-server", "sshd", "the ssh tests start servers of their own on loopback"),
    need("openssh-client", "ssh-agent", "the ssh tests log in by an agent"),
    need("zsh", "zsh", "judges its completion script, and is a login shell of the ssh tests"),
    need("fish", "fish", "judges its completion script, and is a login shell of the ssh tests"),
    need("tcsh", "tcsh", "a login shell of the ssh tests, also as csh"),
];

/// Packages that not every distribution has; the tests that need one are left out by name without it.
const OPTIONAL: &[&str] = &["zfs-fuse"];

/// Packages of whose services only the programs are wanted: installing one of them turns nothing on.
const KEPT_OFF: &[(&str, &[&str])] = &[("openssh-server", &["ssh.service", "ssh.socket"])];

/// The sets that have a name on the command line.
pub(crate) const SETS: &[(&str, &[&[Need]])] = &[
    ("image", &[IMAGE]),
    ("build", &[BUILD]),
    ("check", &[BUILD, CHECK]),
    ("demo", &[BUILD, RUN, IMAGE]),
    ("test", &[BUILD, RUN, IMAGE, CHECK]),
];

pub(crate) const HELP: &str = "\
cargo xtask packages <image|build|check|demo|test> [--list]

Installs the Debian packages of a set that are missing; elsewhere it names them.
  --list   prints the set with what each package is for, and changes nothing";

/// The command.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let (options, names): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|word| word.starts_with('-'));
    let [name] = names[..] else { bail!("name one set of packages\n\n{HELP}") };
    let needs = set(name)?;
    match options[..] {
        [] => install(&needs),
        [option] if option == "--list" => {
            for need in needs {
                println!("{:28} {}", need.package, need.why);
            }
            Ok(())
        }
        _ => bail!("`packages` knows the option --list only"),
    }
}

/// The needs with these package names, from whichever set holds them.
pub(crate) fn of(names: &[&str]) -> Result<Vec<Need>> {
    let all = set("test")?;
    let pick = |name: &&str| {
        all.iter().copied().find(|need| need.package == *name).with_context(|| format!("no set has {name}"))
    };
    names.iter().map(pick).collect()
}

/// The needs of a named set, each package once.
pub(crate) fn set(name: &str) -> Result<Vec<Need>> {
    let Some((_, parts)) = SETS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = SETS.iter().map(|(known, _)| *known).collect();
        bail!("there is no set of packages `{name}`; there are {}", names.join(", "));
    };
    let mut needs: Vec<Need> = Vec::new();
    for need in parts.iter().copied().flatten() {
        if !needs.iter().any(|other| other.package == need.package) {
            needs.push(*need);
        }
    }
    Ok(needs)
}

/// Installs those of `needs` that are missing; says nothing when none is.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    if run::find("apt-get").is_none() || run::find("dpkg-query").is_none() {
        return name_what_is_missing(needs);
    }
    let mut missing: Vec<Need> =
        needs.iter().copied().filter(|need| version(need.package).is_none()).collect();
    missing.retain(|need| !OPTIONAL.contains(&need.package) || newest_record(need.package).is_ok());
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    eprintln!("installing {} package(s): {}", packages.len(), packages.join(" "));
    let units = units_kept_off(&packages);
    if units.is_empty() || !run::systemd_runs() {
        return fetch_and_install(&packages);
    }
    // A masked unit is not started by its package; afterwards it is there, off, and free to be turned on.
    run::quietly(as_root("systemctl")?.arg("mask").args(&units))?;
    let installed = fetch_and_install(&packages);
    run::quietly(as_root("systemctl")?.arg("unmask").args(&units))?;
    if installed.is_ok() {
        run::quietly(as_root("systemctl")?.arg("disable").args(&units))?;
    }
    installed
}

/// The services that come with these packages and stay off.
fn units_kept_off(packages: &[&str]) -> Vec<&'static str> {
    let rows = KEPT_OFF.iter().filter(|(package, _)| packages.contains(package));
    rows.flat_map(|(_, units)| units.iter().copied()).collect()
}

fn fetch_and_install(packages: &[&str]) -> Result<()> {
    let updated = if lists_are_old() { update()? } else { Lists::Kept };
    let first = apt_get(&install_words(packages));
    // A list that names a version the mirror has dropped gives 404; a fresh one does not.
    if let (Err(_), Lists::Kept) = (&first, &updated) {
        update()?;
        return apt_get(&install_words(packages)).context(WHAT_NOW);
    }
    first.context(WHAT_NOW)
}

const WHAT_NOW: &str = "apt-get could not install what is needed; its own words are above";

/// The installed version of a package.
pub(crate) fn version(package: &str) -> Option<String> {
    let answer = run::quiet("dpkg-query", ["-W", "-f", "${db:Status-Status} ${Version}\n", package]).ok()?;
    answer.lines().find_map(|line| line.strip_prefix("installed ")).map(str::to_owned)
}

/// Debian's name for the newest version of a package, and what it depends on, from the package lists.
pub(crate) fn newest_record(package: &str) -> Result<String> {
    newest_records(&[package])
}

/// The same of several packages, one after the other.
pub(crate) fn newest_records(packages: &[&str]) -> Result<String> {
    let ask = || run::quietly(run::command("apt-cache").args(["show", "--no-all-versions"]).args(packages));
    match ask() {
        Ok(records) if !records.trim().is_empty() => Ok(records),
        _ => {
            update()?;
            let names = packages.join(", ");
            ask().with_context(|| format!("the package lists of this machine lack one of: {names}"))
        }
    }
}

/// Fetches the newest of these packages into a folder, as files; nothing is installed.
pub(crate) fn download(packages: &[&str], folder: &Path) -> Result<()> {
    let fetch = || {
        let mut apt_get = run::command("apt-get");
        if run::is_root() {
            // apt's own user may not write in our folder.
            apt_get.args(["-o", "APT::Sandbox::User=root"]);
        }
        run::quietly(apt_get.args(["-q", "download"]).args(packages).current_dir(folder))
    };
    if fetch().is_err() {
        // A list that names a version the mirror has dropped gives 404; a fresh one does not.
        update()?;
        fetch()?;
    }
    Ok(())
}

/// The package files in a folder, by name.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = folder.read_dir()?.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "deb"));
    files.sort();
    Ok(files)
}

enum Lists {
    Kept,
    Updated,
}

fn update() -> Result<Lists> {
    apt_get(&["update".to_owned()]).context("the package lists could not be fetched")?;
    Ok(Lists::Updated)
}

/// The packages as apt-get is to be asked for them.
fn install_words(packages: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = ["install", "--yes", "--no-install-recommends"].map(str::to_owned).into();
    let pair = if packages.contains(&"qemu-system-x86") { qemu_pair() } else { None };
    for package in packages {
        match &pair {
            Some(_) if package.starts_with("qemu-") => {}
            _ => words.push((*package).to_owned()),
        }
    }
    if let Some(version) = pair {
        words.push("--allow-downgrades".to_owned());
        words.extend(["qemu-system-x86", "qemu-utils"].map(|package| format!("{package}={version}")));
    }
    words
}

/// The version both QEMU packages are asked for, when the installed `qemu-utils` does not fit
/// the emulator that apt would choose. Without it apt refuses, or removes `qemu-utils`.
fn qemu_pair() -> Option<String> {
    let installed = version("qemu-utils")?;
    let table = run::quiet("apt-cache", ["madison", "qemu-system-x86"]).ok()?;
    let versions: Vec<&str> =
        table.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).collect();
    if versions.contains(&installed.as_str()) {
        return Some(installed);
    }
    let offered = (*versions.first()?).to_owned();
    eprintln!("qemu-utils {installed} has no matching qemu-system-x86 here; both are set to {offered}");
    Some(offered)
}

/// Runs apt-get as root, asking nothing, waiting for another apt-get rather than failing.
fn apt_get(words: &[String]) -> Result<()> {
    let mut command = as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"]);
    if !run::systemd_runs() {
        // Where no systemd runs, package scripts must not try to start services by old means:
        // in run level 1 invoke-rc.d leaves them alone.
        command.arg("RUNLEVEL=1");
    }
    command.args(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]).args(words);
    // What it prints is for people; our own output stays what the caller asked for.
    run::shown(command.stdout(std::io::stderr()))
}

/// A command that runs as root: directly, or by sudo.
pub(crate) fn as_root(program: &str) -> Result<Command> {
    if run::is_root() {
        return Ok(run::command(program));
    }
    if run::find("sudo").is_none() {
        bail!("`{program}` must run as root and there is no sudo: run this command as root");
    }
    let mut command = run::command("sudo");
    command.arg(program);
    Ok(command)
}

/// Whether the package lists are absent or were last fetched more than a week ago.
fn lists_are_old() -> bool {
    let Ok(entries) = Path::new("/var/lib/apt/lists").read_dir() else { return true };
    let fetched = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    let old_after = Duration::from_secs(7 * 24 * 3600);
    // apt keeps the server's time on a list; the folder's own time says when we last asked.
    let asked = std::fs::metadata("/var/lib/apt/lists").and_then(|folder| folder.modified()).ok();
    let latest = fetched.and(asked.max(fetched));
    let age = latest.map(|time| SystemTime::now().duration_since(time).unwrap_or_default());
    age.is_none_or(|age| age > old_after)
}

fn name_what_is_missing(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| run::find(need.proof).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("this machine is neither Debian nor Ubuntu; install what these Debian packages hold:");
    for need in &missing {
        eprintln!("  {:28} {} ({})", need.package, need.why, need.proof);
    }
    bail!("{} package(s) are missing and can be installed only by you", missing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_names_each_package_once() {
        let needs = set("test").unwrap();
        for need in &needs {
            assert_eq!(
                needs.iter().filter(|other| other.package == need.package).count(),
                1,
                "{}",
                need.package
            );
        }
    }

    #[test]
    fn the_emulator_never_comes_without_its_tools() {
        for name in ["demo", "test"] {
            let packages: Vec<_> = set(name).unwrap().iter().map(|need| need.package).collect();
            assert!(packages.contains(&"qemu-system-x86") && packages.contains(&"qemu-utils"), "{name}");
        }
    }

    #[test]
    fn tests_without_root_have_their_tools_and_no_emulator() {
        let packages: Vec<_> = set("check").unwrap().iter().map(|need| need.package).collect();
        for package in ["qemu-utils", "libvirt-clients", "libxml2-utils", "libvirt-dev"] {
            assert!(packages.contains(&package), "{package}");
        }
        assert!(!packages.contains(&"libvirt-daemon-system"));
    }

    #[test]
    fn a_service_that_only_tests_need_is_not_turned_on() {
        assert_eq!(units_kept_off(&["curl", "openssh-server"]), ["ssh.service", "ssh.socket"]);
        assert!(units_kept_off(&["curl", "libvirt-daemon-system"]).is_empty());
    }

    #[test]
    fn an_unknown_set_is_refused_with_the_known_names() {
        let refusal = set("everything").unwrap_err().to_string();
        assert!(refusal.contains("demo") && refusal.contains("test"), "{refusal}");
    }
}
