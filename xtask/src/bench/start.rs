//! From `haar guest create` to running, beside bare `virsh define` + `start` of the same XML and disk.
//!
//! Both in turns, on a cloud of our own with the tiny image. Each round Haar makes a guest; it is powered off,
//! and its domain's XML is defined and started under another name with a copy of its disk and seed; then
//! both go. Times end when libvirt says running, not when the guest has booted. Ours includes the command
//! line, the controller with its commits, the agent, image check, disk, seed and bridge; of the bare path
//! only the two virsh calls are timed. Needs root and KVM or patience.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::figure::Figure;
use crate::cloud::{self, Cloud, Saved};
use crate::{image, packages, run};

const ROUNDS: usize = 7;
const NAME: &str = "bench";
const LIMIT: Duration = Duration::from_secs(30);

/// Measures and hands over the one figure.
pub(super) fn measure(each: &mut dyn FnMut(Figure)) -> Result<()> {
    ensure!(run::is_root(), "a cloud on this machine and virsh need root: run the bench as root");
    packages::install(&packages::set("demo")?)?;
    let built = cloud::build()?;
    let image = image::build()?;
    let scratch = Room::make()?;
    let cloud = Cloud::at(&scratch.0.join("room"), Saved::Apart)?;
    let stage = Stage { cloud };
    stage.cloud.install(&built)?;
    run::quietly(&mut stage.cloud.as_root(&stage.cloud.up_words()?)?).context("the cloud did not start")?;
    stage.cloud.run(&["image", "import", NAME, &image.path.display().to_string()])?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (one, other) = stage.round(&scratch.0)?;
        eprintln!("   round {round}: create {one:.0} ms, virsh {other:.0} ms");
        // The first fetches the image to the host and makes the bridge; both are done once per host.
        if round > 0 {
            ours.push(one);
            bare.push(other);
        }
    }
    let (ours, bare) = (median(ours), median(bare));
    let fields = json!({
        "name": "create_to_running", "value": ours.round(), "unit": "ms",
        "yardstick": "virsh define + virsh start of the same XML and disk", "yardstick_value": bare.round(),
        "ratio": (ours / bare * 100.0).round() / 100.0, "runs": ROUNDS,
        "read": "median wall time of `haar guest create`, process included, the image being on the host; \
                 of the bare path the two virsh processes",
    });
    each(Figure::new(fields.as_object().cloned().context("an object was written above")?));
    Ok(())
}

/// The cloud of this bench; removed with this value, also after a failure.
struct Stage {
    cloud: Cloud,
}

impl Stage {
    /// Milliseconds of Haar's way and of the bare way.
    fn round(&self, folder: &Path) -> Result<(f64, f64)> {
        let words = ["guest", "create", NAME, "--flavor", "tiny", "--image", NAME, "--network", "default"];
        let began = Instant::now();
        self.cloud.run(&words)?;
        let ours = milliseconds(began);
        let guest = self.cloud.json(&["guest", "show", NAME])?;
        ensure!(guest["state"] == "running", "the guest is {}", guest["state"]);
        let id = cloud::text(&guest, "id")?;
        let state = virsh(&["domstate", &id])?;
        ensure!(state.trim() == "running", "libvirt says that the domain is {}", state.trim());
        // Off, so that both share neither processor nor address; the bridge stays.
        self.cloud.run(&["guest", "poweroff", NAME])?;
        let bare = bare(&id, folder)?;
        self.cloud.run(&["guest", "delete", NAME])?;
        Ok((ours, bare))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.cloud.remove() {
            eprintln!("   the bench's cloud could not be removed: {error:#}");
        }
    }
}

/// A folder that QEMU's user can pass, removed when it is empty of clouds.
struct Room(PathBuf);

impl Room {
    fn make() -> Result<Self> {
        let folder = PathBuf::from(format!("/var/lib/haar-bench-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // With the cloud still in it, it stays to be looked at.
        if !self.0.join("room").exists() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Defines and starts the same domain under another id, and removes it again; milliseconds of the two calls.
fn bare(guest: &str, folder: &Path) -> Result<f64> {
    let id = run::quiet("cat", ["/proc/sys/kernel/random/uuid"])?.trim().to_owned();
    let copy = folder.join(&id);
    std::fs::create_dir(&copy)?;
    let xml = renamed(&virsh(&["dumpxml", "--inactive", guest])?, guest, &id, &copy)?;
    let file = copy.join("domain.xml");
    std::fs::write(&file, &xml.text)?;
    for (from, to) in &xml.files {
        std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let file = file.display().to_string();
    let began = Instant::now();
    let started = virsh(&["define", &file]).and_then(|_| virsh(&["start", &id]));
    let took = milliseconds(began);
    let state = cloud::wait_for(LIMIT, || virsh(&["domstate", &id]));
    // What was begun is taken back before its outcome is told.
    let _ = virsh(&["destroy", &id]);
    let removed = virsh(&["undefine", &id, "--nvram"]);
    std::fs::remove_dir_all(&copy)?;
    started?;
    ensure!(state?.trim() == "running", "the bare domain did not run");
    removed?;
    Ok(took)
}

/// A domain's XML for another id, and the files to be copied for it.
#[derive(Debug)]
struct Renamed {
    text: String,
    files: Vec<(PathBuf, PathBuf)>,
}

/// The same domain with another name and UUID, with no owner in its metadata (it must not be taken for one
/// of Haar's), and with its own files below `folder`.
fn renamed(xml: &str, guest: &str, id: &str, folder: &Path) -> Result<Renamed> {
    let (head, rest) = xml.split_once("<metadata>").context("the domain has no metadata")?;
    let (_, tail) = rest.split_once("</metadata>").context("the metadata do not end")?;
    let mut text = format!("{head}{tail}");
    let mut files = Vec::new();
    for (number, path) in paths(&text).into_iter().enumerate() {
        let own = folder.join(format!("{number}"));
        let is_copied = Path::new(&path).is_file();
        // The base image is shared by all clones; what does not exist yet is made by libvirt.
        text = text.replace(&format!("'{path}'"), &format!("'{}'", own.display()));
        if is_copied {
            files.push((PathBuf::from(path), own));
        }
    }
    Ok(Renamed { text: text.replace(guest, id), files })
}

/// The absolute paths that disks, console and screen of a domain name, each once.
fn paths(xml: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for mark in ["file='/", "path='/", "socket='/"] {
        for (at, _) in xml.match_indices(mark) {
            let begin = at + mark.len() - 1;
            let path = xml[begin..].split('\'').next().unwrap_or_default().to_owned();
            // Devices of the host are meant as they are.
            if !path.starts_with("/dev/") && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

fn virsh(words: &[&str]) -> Result<String> {
    run::quiet("virsh", [&["--quiet", "--connect", "qemu:///system"], words].concat())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_nothing_of_the_guests_but_its_shape() {
        let xml = "<domain><name>aa-bb</name><uuid>aa-bb</uuid><metadata><haar:cloud>c</haar:cloud></metadata>\
            <source file='/var/lib/x/aa-bb/disk'/><source mode='bind' path='/run/x/aa-bb.sock'/>\
            <log file='/var/log/aa-bb.log'/><backend model='random'>/dev/urandom</backend></domain>";
        let copy = renamed(xml, "aa-bb", "cc-dd", Path::new("/tmp/copy")).unwrap();
        assert!(!copy.text.contains("aa-bb") && !copy.text.contains("haar:cloud"), "{}", copy.text);
        assert!(copy.text.contains("<name>cc-dd</name>") && copy.text.contains("/dev/urandom"));
        assert!(copy.text.contains("file='/tmp/copy/0'"), "{}", copy.text);
    }
}
