//! The guest's kernel: one Debian package, fetched once per cache and unpacked beside it.
//!
//! The version is chosen when the package is first fetched and stays until the cache is emptied,
//! so that kernel and modules are always of one build. The host's own kernel is not touched.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{packages, run};

/// Debian's name for "the newest kernel for virtual machines".
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// The drivers a guest needs; some may be built in. virtio_console is for the guest agent's channel.
const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "virtio_console",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "button",
    "evdev",
];

/// A kernel package in the cache.
pub(crate) struct Package {
    file: PathBuf,
}

/// An unpacked kernel: the image, and the folder of all its modules.
pub(crate) struct Tree {
    pub(crate) vmlinuz: PathBuf,
    library: PathBuf,
}

impl Tree {
    /// The modules that every guest needs, in an order in which they can be loaded.
    pub(super) fn drivers(&self) -> Result<Vec<PathBuf>> {
        self.in_load_order(WANTED)
    }

    /// These modules and those they depend on, each after its dependencies. Compressed ones are unpacked.
    pub(super) fn in_load_order(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let files = files_below(&self.library)?;
        let by_name: HashMap<String, PathBuf> =
            files.iter().filter_map(|file| Some((module_name(file)?, file.clone()))).collect();
        let builtin_list =
            files.iter().find(|file| file.ends_with("modules.builtin")).context("no modules.builtin")?;
        let builtin_text = std::fs::read_to_string(builtin_list)?;
        let builtin: Vec<String> =
            builtin_text.lines().filter_map(|line| module_name(Path::new(line))).collect();
        let mut order = Vec::new();
        for name in wanted {
            load(name, &by_name, &builtin, &mut order)?;
        }
        Ok(order)
    }
}

impl Package {
    /// The cache's kernel; the newest of the package lists is fetched if there is none.
    pub(crate) fn pinned(cache: &Path) -> Result<Self> {
        let folder = cache.join("kernel");
        std::fs::create_dir_all(&folder)?;
        if let Some(file) = packages::files(&folder)?.pop() {
            return Ok(Self { file });
        }
        let package = concrete_package(&packages::newest_record(META_PACKAGE)?)?;
        eprintln!("fetching {package}");
        let scratch = run::Scratch::inside(&folder)?;
        packages::download(&[&package], scratch.path())?;
        let fetched = packages::files(scratch.path())?.pop().context("apt-get download left no package")?;
        let file = folder.join(fetched.file_name().context("a package has a name")?);
        std::fs::rename(&fetched, &file)?;
        Ok(Self { file })
    }

    /// The package's name and version, as its file is called.
    pub(crate) fn version(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Unpacks the package into `folder`.
    pub(crate) fn unpack(&self, folder: &Path) -> Result<Tree> {
        run::quietly(run::command("dpkg-deb").arg("-x").arg(&self.file).arg(folder))?;
        let boot = files_below(&folder.join("boot"))?;
        let is_kernel = |file: &&PathBuf| {
            file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        };
        let vmlinuz = boot.iter().find(is_kernel).context("the kernel package holds no vmlinuz")?.clone();
        // Debian moved /lib to /usr/lib; packages of either time are read.
        let library = ["lib/modules", "usr/lib/modules"]
            .iter()
            .map(|path| folder.join(path))
            .find(|path| path.is_dir());
        let library = library.context("the kernel package holds no modules")?;
        Ok(Tree { vmlinuz, library })
    }
}

/// `linux-image-6.1.0-56-cloud-amd64` out of the meta package's record.
fn concrete_package(record: &str) -> Result<String> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends: "));
    let words = depends.context("the kernel's meta package depends on nothing")?;
    let package = words.split([' ', ',']).find(|word| word.starts_with("linux-image-"));
    package.map(str::to_owned).with_context(|| format!("no kernel among `{words}`"))
}

fn load(
    name: &str,
    by_name: &HashMap<String, PathBuf>,
    builtin: &[String],
    order: &mut Vec<PathBuf>,
) -> Result<()> {
    if builtin.iter().any(|known| known == name) {
        return Ok(());
    }
    let file = by_name.get(name).with_context(|| format!("this kernel has no driver `{name}`"))?;
    let plain = unpacked(file)?;
    if order.contains(&plain) {
        return Ok(());
    }
    for dependency in depends(&std::fs::read(&plain)?) {
        load(&dependency, by_name, builtin, order)?;
    }
    order.push(plain);
    Ok(())
}

/// `virtio_rng` for `…/virtio-rng.ko.xz`.
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let stem = [".ko", ".ko.xz"].iter().find_map(|ending| name.strip_suffix(ending))?;
    Some(stem.replace('-', "_"))
}

fn unpacked(file: &Path) -> Result<PathBuf> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return Ok(file.to_owned());
    }
    let plain = file.with_extension("");
    if !plain.exists() {
        run::quietly(run::command("xz").args(["--decompress", "--keep"]).arg(file))?;
    }
    Ok(plain)
}

/// What a module says about itself in its `depends=` field.
fn depends(module: &[u8]) -> Vec<String> {
    let field = b"\0depends=";
    let Some(start) = module.windows(field.len()).position(|window| window == field) else {
        return Vec::new();
    };
    let value = module[start + field.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in next.read_dir().with_context(|| format!("cannot read {}", next.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    if files.is_empty() {
        bail!("{} is empty", folder.display());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_must_be_loaded_before_it() {
        let module = b"\x7fELF\0license=GPL\0depends=net_failover,virtio-ring\0name=virtio_net\0";
        assert_eq!(depends(module), ["net_failover", "virtio_ring"]);
        assert!(depends(b"\0depends=\0name=failover\0").is_empty());
        assert!(depends(b"no such field").is_empty());
    }

    #[test]
    fn module_files_are_known_by_the_kernels_name() {
        assert_eq!(module_name(Path::new("kernel/drivers/virtio-rng.ko.xz")).as_deref(), Some("virtio_rng"));
        assert_eq!(module_name(Path::new("modules.order")), None);
    }

    #[test]
    fn the_concrete_kernel_is_read_from_the_meta_package() {
        let record =
            "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(concrete_package(record).unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        assert!(concrete_package("Package: x\nDepends: y\n").is_err());
    }
}
