//! The two file trees of the guest: the initramfs that finds the disk, and the root on that disk.
//!
//! Programs come from the host's packages (static busybox; dropbear, sftp-server and resize2fs with the
//! libraries the loader names for them), behaviour from the files in `guest/`. No user has a password.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::kernel::Tree;
use crate::run;

const INIT: &str = include_str!("guest/init");

/// Files of the root: where, with which mode, what.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/inittab", 0o644, include_str!("guest/inittab")),
    ("etc/profile", 0o644, include_str!("guest/profile")),
    ("etc/haar/boot", 0o755, include_str!("guest/boot")),
    ("etc/haar/console", 0o755, include_str!("guest/console")),
    ("etc/haar/dhcp", 0o755, include_str!("guest/dhcp")),
    ("etc/haar/flatten.awk", 0o644, include_str!("guest/flatten.awk")),
    ("etc/haar/shutdown", 0o755, include_str!("guest/shutdown")),
    // The name and number are what busybox acpid makes of the virtual power button.
    ("etc/acpi/PWRF/00000080", 0o755, include_str!("guest/power-button")),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", 0o644, "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/shadow", 0o600, "root:*:19000:0:99999:7:::\n"),
    ("etc/shells", 0o644, "/bin/sh\n"),
    ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
    ("etc/issue", 0o644, "haar guest, \\n\n"),
];

const FOLDERS: &[&str] = &[
    "bin",
    "dev",
    "etc/dropbear",
    "lib/x86_64-linux-gnu",
    "lib64",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr/bin",
    "usr/sbin",
    "var/lib",
    "var/log",
    "var/run",
];

/// Programs that busybox does not have, and where the guest looks for them.
const PROGRAMS: &[(&str, &str)] = &[
    ("dropbear", "usr/sbin/dropbear"),
    ("dropbearkey", "usr/bin/dropbearkey"),
    ("dropbearconvert", "usr/bin/dropbearconvert"),
    // Where Debian has it, and where dropbear starts it.
    ("/usr/lib/openssh/sftp-server", "usr/lib/sftp-server"),
    ("resize2fs", "sbin/resize2fs"),
];

/// Debian's folder of libraries below `/lib` and `/usr/lib`.
const LIBRARIES: &str = "x86_64-linux-gnu";

/// The applets init uses before it hands over.
const INIT_APPLETS: &[&str] =
    &["sh", "mount", "insmod", "findfs", "usleep", "cat", "dd", "blockdev", "mkdir", "uname", "switch_root"];

/// The part of the recipe that lives here, for the cache's key.
pub(crate) fn recipe() -> String {
    let files: String = FILES.iter().map(|(path, mode, text)| format!("{path} {mode:o}\n{text}")).collect();
    format!("{INIT}{files}{FOLDERS:?}{PROGRAMS:?}{INIT_APPLETS:?}\n")
}

/// Makes the tree of the root file system in `folder`.
pub(crate) fn make(folder: &Path) -> Result<PathBuf> {
    for name in FOLDERS {
        std::fs::create_dir_all(folder.join(name))?;
    }
    add_busybox(folder)?;
    for (program, to) in PROGRAMS {
        let file = run::find(program).with_context(|| format!("{program} is not installed"))?;
        add_program(folder, &file, to, None)?;
    }
    write_all(folder, FILES)?;
    std::fs::set_permissions(folder.join("root"), PermissionsExt::from_mode(0o700))?;
    Ok(folder.to_owned())
}

/// Packs the initramfs: busybox, the modules with their order, and init. Not compressed: reading
/// the few MiB more is quicker than unpacking them on an emulated processor.
pub(crate) fn initramfs(tree: &Tree, folder: &Path, file: &Path) -> Result<PathBuf> {
    for name in ["bin", "dev", "proc", "root", "sys"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    copy(&busybox()?, &folder.join("bin/busybox"))?;
    for applet in INIT_APPLETS {
        symlink("busybox", folder.join("bin").join(applet))?;
    }
    // init begins with #!/bin/sh, which is there by the link above.
    write(&folder.join("init"), INIT, 0o755)?;
    add_modules(&tree.drivers()?, &folder.join("modules"))?;
    let mut pack = run::command("sh");
    pack.args(["-ec", "find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 >\"$0\""])
        .arg(file)
        .current_dir(folder);
    run::quietly(&mut pack)?;
    Ok(file.to_owned())
}

/// Copies modules into a folder, with a list of them in the order to load them in.
pub(super) fn add_modules(modules: &[PathBuf], folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut order = String::new();
    for module in modules {
        let name = module.file_name().context("a module has a name")?.to_string_lossy();
        std::fs::copy(module, folder.join(&*name))?;
        order.push_str(&format!("{name}\n"));
    }
    write(&folder.join("order"), &order, 0o644)
}

/// busybox with every applet where scripts expect it; those that are programs of their own come later
/// and take the link's place.
fn add_busybox(folder: &Path) -> Result<()> {
    copy(&busybox()?, &folder.join("bin/busybox"))?;
    let applets = run::quiet("busybox", ["--list"])?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", folder.join("bin").join(applet))?;
    }
    for name in ["init", "getty", "poweroff", "reboot"] {
        symlink("../bin/busybox", folder.join("sbin").join(name))?;
    }
    Ok(())
}

fn busybox() -> Result<PathBuf> {
    let file = run::find("busybox").context("busybox is not installed")?;
    if run::quiet("ldd", [&file]).is_ok_and(|libraries| libraries.contains("=>")) {
        bail!("{} is not the static one: install busybox-static", file.display());
    }
    Ok(file)
}

/// Copies a program with its libraries and loader to the paths at which the loader will look. Libraries of the
/// packages that were unpacked into a folder come before the host's.
pub(super) fn add_program(folder: &Path, file: &Path, to: &str, unpacked: Option<&Path>) -> Result<()> {
    copy(file, &folder.join(to))?;
    let mut ldd = run::command("ldd");
    if let Some(unpacked) = unpacked {
        let places =
            ["usr/lib", "lib"].map(|place| unpacked.join(place).join(LIBRARIES).display().to_string());
        ldd.env("LD_LIBRARY_PATH", places.join(":"));
    }
    let printed = run::quietly(ldd.arg(file))?;
    ensure!(!printed.contains("not found"), "{} lacks a library:\n{printed}", file.display());
    for library in libraries(&printed) {
        let library = Path::new(&library);
        let inside = unpacked.and_then(|unpacked| library.strip_prefix(unpacked).ok());
        let target = folder.join(inside.map_or_else(|| library.strip_prefix("/"), Ok)?);
        if !target.exists() {
            copy(library, &target)?;
        }
    }
    Ok(())
}

/// The absolute paths in what ldd prints.
fn libraries(printed: &str) -> Vec<String> {
    let words = printed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(str::to_owned).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // A link that stands there is replaced, not written through.
    let _ = std::fs::remove_file(to);
    std::fs::copy(from, to).with_context(|| format!("cannot copy {} into the image", from.display()))?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// Writes files into a tree: where, with which mode, what.
pub(super) fn write_all(folder: &Path, files: &[(&str, u32, &str)]) -> Result<()> {
    files.iter().try_for_each(|(path, mode, text)| write(&folder.join(path), text, *mode))
}

pub(super) fn write(file: &Path, text: &str, mode: u32) -> Result<()> {
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(file, text)?;
    std::fs::set_permissions(file, PermissionsExt::from_mode(mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_in_what_ldd_prints() {
        let printed = "\tlinux-vdso.so.1 (0x7f)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x7e)\n\t/lib64/ld-linux-x86-64.so.2 (0x7d)\n";
        assert_eq!(libraries(printed), ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn the_seeds_reader_takes_json_and_blocks_of_text() {
        let awk = |text: &str| {
            let printed = run::filter("awk", &[include_str!("guest/flatten.awk")], text.as_bytes()).unwrap();
            String::from_utf8(printed).unwrap()
        };
        let json = "#cloud-config\n{\"ssh_keys\":{\"ed25519_private\":\"-----\\nb3Bl\\n\"},\"runcmd\":[\"printf 'a\\\\nb'\",[\"touch\",\"/a b\"]]}\n";
        let flat = "ssh_keys/ed25519_private\t-----\u{1}b3Bl\u{1}\nruncmd/0\tprintf 'a\\nb'\nruncmd/1/0\ttouch\nruncmd/1/1\t/a b\n";
        assert_eq!(awk(json), flat);
        let yaml = "#cloud-config\nruncmd:\n  - |\n    if true; then\n      # why\n\n      echo a\n    fi\n  - >-\n    one\n    two\nhostname: web # ours\n";
        let flat = "runcmd/0\tif true; then\u{1}  # why\u{1}\u{1}  echo a\u{1}fi\nruncmd/1\tone two\nhostname\tweb\n";
        assert_eq!(awk(yaml), flat);
    }

    #[test]
    fn every_script_of_the_guest_is_valid_shell() {
        for (path, _, text) in FILES.iter().chain(&[("init", 0, INIT)]) {
            if text.starts_with("#!/bin/sh") {
                run::filter("sh", &["-n"], text.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}"));
            }
        }
    }
}
