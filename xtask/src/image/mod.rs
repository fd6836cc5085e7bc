//! `cargo xtask image`: a tiny guest that really boots from its own disk.
//!
//! One qcow2 file of some 20 MiB: a boot record and syslinux, Debian's cloud kernel, and an ext4
//! root with busybox, dropbear and an sftp server that reads a cloud-init seed disk. It is made without mounting
//! anything and, once the packages are there, without root. Finished images lie in the cache under
//! a key of everything that goes into them; an unfinished one is never seen there. For tests there is
//! a second one, with Debian's QEMU guest agent and NFS inside.

mod check;
mod disk;
mod guest_agent;
mod kernel;
mod nfs;
mod root;
mod unpacked;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{packages, run};

/// A finished image.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
}

/// What came of making the image with a guest agent and NFS.
pub(crate) enum WithAgent {
    Made(Image),
    /// Debian's packages cannot be had here, and why.
    Missing(String),
}

pub(crate) const HELP: &str = "\
cargo xtask image [--with-agent] [--out FILE] [--check]

Makes the tiny guest image (or finds it in the cache) and prints its path, SHA-256 and size in bytes.
  --with-agent makes the tests' other one, with Debian's QEMU guest agent and NFS inside
  --out FILE   also writes it there
  --check      boots it under QEMU with a seed disk: name, address, ssh, sftp, power button, second boot
The cache is $HAAR_CACHE, or ~/.cache/haar.";

/// The command.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut out = None;
    let mut wants_check = false;
    let mut wants_agent = false;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--out" => out = Some(PathBuf::from(words.next().context("--out needs a file's name")?)),
            "--check" => wants_check = true,
            "--with-agent" => wants_agent = true,
            other => bail!("`image` has no option `{other}`\n\n{HELP}"),
        }
    }
    let made = if wants_agent { build_with_agent()? } else { WithAgent::Made(build()?) };
    let mut image = match made {
        WithAgent::Made(image) => image,
        WithAgent::Missing(why) => bail!("the packages of the guest agent and NFS cannot be had: {why}"),
    };
    if let Some(file) = out {
        copy(&image.path, &file)?;
        image.path = file;
    }
    if wants_check {
        check::check(&image)?;
    }
    println!("{}  {}  {}", image.path.display(), image.sha256, image.bytes);
    Ok(())
}

/// The image of today's recipe, made if the cache has none. Installs what making it needs.
pub(crate) fn build() -> Result<Image> {
    Workshop::enter()?.image(None)
}

/// The same for tests that freeze a guest or share a disk. What it has more is taken out of packages that are not
/// installed.
pub(crate) fn build_with_agent() -> Result<WithAgent> {
    let workshop = Workshop::enter()?;
    match More::pinned(&workshop.cache) {
        Ok(more) => Ok(WithAgent::Made(workshop.image(Some(&more))?)),
        Err(error) => Ok(WithAgent::Missing(format!("{error:#}"))),
    }
}

/// What the tests' other image has more.
struct More {
    agent: unpacked::Packages,
    nfs: unpacked::Packages,
}

impl More {
    fn pinned(cache: &Path) -> Result<Self> {
        let pinned = |folder, packages| unpacked::Packages::pinned(cache, folder, packages);
        Ok(Self {
            agent: pinned(guest_agent::FOLDER, guest_agent::PACKAGES)?,
            nfs: pinned(nfs::FOLDER, nfs::PACKAGES)?,
        })
    }

    /// The part of the recipe that these are, for the cache's key.
    fn recipe(&self) -> String {
        [guest_agent::recipe(), self.agent.recipe(), nfs::recipe(), self.nfs.recipe()].concat()
    }

    fn add(&self, kernel: &kernel::Tree, scratch: &Path, root: &Path) -> Result<()> {
        guest_agent::add(&self.agent, &scratch.join("agent"), root)?;
        nfs::add(&self.nfs, kernel, &scratch.join("nfs"), root)
    }
}

/// The cache, for one maker at a time, with its kernel.
struct Workshop {
    cache: PathBuf,
    kernel: kernel::Package,
    /// Two makers at once would do the work twice and mix their files; the lock ends with this value.
    _turn: File,
}

impl Workshop {
    fn enter() -> Result<Self> {
        packages::install(packages::IMAGE)?;
        let cache = cache()?;
        let turn = File::create(cache.join("lock")).context("cannot write in the image cache")?;
        turn.lock().context("cannot lock the image cache")?;
        let kernel = kernel::Package::pinned(&cache)?;
        Ok(Self { cache, kernel, _turn: turn })
    }

    fn image(&self, more: Option<&More>) -> Result<Image> {
        let name = if more.is_some() { "haar-guest-with-agent" } else { "haar-guest" };
        let path = self.cache.join(format!("{name}-{}.qcow2", key(&self.kernel, more)?));
        if !path.exists() {
            let began = Instant::now();
            self.make(more, &path)?;
            eprintln!("made the guest image in {:.1} s", began.elapsed().as_secs_f32());
        }
        let sum = path.with_extension("sha256");
        let sha256 =
            std::fs::read_to_string(&sum).with_context(|| format!("cannot read {}", sum.display()))?;
        let bytes = std::fs::metadata(&path)?.len();
        Ok(Image { path, sha256: sha256.trim().to_owned(), bytes })
    }

    /// Makes everything in a scratch folder and moves the two finished files into the cache; the
    /// image comes last, for it is the one whose presence says that all is there.
    fn make(&self, more: Option<&More>, path: &Path) -> Result<()> {
        let scratch = run::Scratch::inside(&self.cache)?;
        let folder = scratch.path();
        let what = if more.is_some() { ", with a guest agent and NFS" } else { "" };
        eprintln!("making the guest image (Linux {}{what})", self.kernel.version());
        let tree = self.kernel.unpack(&folder.join("kernel"))?;
        let root_folder = root::make(&folder.join("root"))?;
        if let Some(more) = more {
            more.add(&tree, folder, &root_folder)?;
        }
        let initramfs = root::initramfs(&tree, &folder.join("initramfs"), &folder.join("initrd.img"))?;
        let image = disk::make(folder, &tree.vmlinuz, &initramfs, &root_folder)?;
        let line = run::quiet("sha256sum", [&image])?;
        let sum = folder.join("sum");
        std::fs::write(&sum, line.split_whitespace().next().context("sha256sum printed nothing")?)?;
        std::fs::rename(&sum, path.with_extension("sha256"))?;
        std::fs::rename(&image, path).with_context(|| format!("cannot put the image at {}", path.display()))
    }
}

/// `$HAAR_CACHE`, or the user's cache folder.
fn cache() -> Result<PathBuf> {
    let folder = match (std::env::var_os("HAAR_CACHE"), std::env::var_os("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => PathBuf::from(home).join(".cache/haar"),
        (None, None) => bail!("there is no HOME to keep the image in: set HAAR_CACHE to a folder"),
    };
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("cannot use the folder {}", folder.display()))
}

/// What the image depends on, in sixteen hexadecimal digits.
fn key(kernel: &kernel::Package, more: Option<&More>) -> Result<String> {
    let mut recipe = format!("layout 1\nkernel {}\n{}{}", kernel.version(), root::recipe(), disk::recipe());
    for package in [
        "busybox-static",
        "dropbear-bin",
        "libc6",
        "e2fsprogs",
        "openssh-client",
        "openssh-sftp-server",
        "syslinux",
    ] {
        let version = packages::version(package).with_context(|| format!("{package} is not installed"))?;
        recipe.push_str(&format!("{package} {version}\n"));
    }
    recipe.extend(more.map(More::recipe));
    let sum = run::filter("sha256sum", &[], recipe.as_bytes())?;
    Ok(String::from_utf8_lossy(&sum[..16]).into_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    std::fs::copy(from, &beside).with_context(|| format!("cannot write {}", beside.display()))?;
    std::fs::rename(&beside, to).with_context(|| format!("cannot write {}", to.display()))
}
