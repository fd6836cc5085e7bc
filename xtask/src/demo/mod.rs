//! `cargo xtask demo`: from nothing to a running guest, on real parts, shown step by step.
//!
//! Everything after the build goes through the public command line. Each step prints its command, what
//! came of it and how long it took; the first that fails says what to do and ends the run. Asked again on a
//! running demo it uses what is there. `--clean` removes all that it made, and nothing else.

mod guest;
mod show;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use self::guest::Guest;
use self::show::Show;
use crate::cloud::{self, Cloud, Installed, Saved};
use crate::{image, packages, run};

pub(crate) const HELP: &str = "\
cargo xtask demo [--clean] [--data DIR]

Installs what is missing, builds, starts a cloud on this machine with a data folder of its own, and makes
and shows a real guest in it. Leaves it running. Asked again, it goes on with what is there.
  --data DIR   the demo's folder; /var/lib/haar-demo unless said
  --clean      removes all that the demo made: guests, domains, bridges, nft tables, processes, data";

const FOLDER: &str = "/var/lib/haar-demo";
/// One of the flavors every new cloud has.
const FLAVOR: &str = "tiny";

/// The command.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut folder = PathBuf::from(FOLDER);
    let mut wants_clean = false;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--data" => folder = words.next().context("--data needs a folder's name")?.into(),
            "--clean" => wants_clean = true,
            other => bail!("`demo` has no option `{other}`\n\n{HELP}"),
        }
    }
    if wants_clean { clean(&folder) } else { demo(&folder) }
}

fn clean(folder: &Path) -> Result<()> {
    let Some(cloud) = Cloud::find(folder, Saved::ForUser) else {
        ensure!(!folder.exists(), "{} was not made by the demo; it is left alone", folder.display());
        println!("there is no demo in {}", folder.display());
        return Ok(());
    };
    cloud.remove()?;
    println!("the demo is gone: guests, bridges, rules, processes, {}", folder.display());
    println!("what stays: installed packages, and the guest image in its cache");
    Ok(())
}

fn demo(folder: &Path) -> Result<()> {
    let mut show = Show::begin();
    show.step("install what is missing", "apt-get install …", || {
        packages::install(&packages::set("demo")?)?;
        Ok("all there".to_owned())
    })?;
    let built = show.step("build", "cargo build --release -p haar -p haar-libvirt", || {
        Ok((cloud::build()?, String::new()))
    })?;
    let image = show.step("make a tiny bootable guest image", "cargo xtask image", || {
        let image = image::build()?;
        let words = format!("{}, {} MiB", image.path.display(), image.bytes >> 20);
        Ok((image, words))
    })?;
    let cloud = Cloud::at(folder, Saved::ForUser)?;
    show.help_is(format!(
        "the cloud's logs are in {}; `cargo xtask demo --clean` removes all of it, then try again",
        cloud.data().join("log").display()
    ));
    up(&mut show, &cloud, &built)?;
    import(&mut show, &cloud, &image)?;
    let guest = Guest::ensure(&mut show, &cloud, FLAVOR, &image_name(&image))?;
    guest.show_listed(&mut show)?;
    guest.show_console(&mut show)?;
    guest.show_ping(&mut show)?;
    guest.show_login(&mut show)?;
    guest.show_disk_kept(&mut show)?;
    show.end();
    println!("{}", farewell(&cloud, &guest)?);
    Ok(())
}

/// Starts the cloud, or goes on with the one that runs.
fn up(show: &mut Show, cloud: &Cloud, built: &Path) -> Result<()> {
    let installed = cloud.install(built)?;
    let is_up = cloud.is_up();
    if is_up && installed == Installed::New {
        show.step("stop the cloud of the former build; guests run on", "haar down", || cloud.down())?;
    } else if is_up {
        return show.step("the cloud runs already", "haar status", || cloud.run(&["status"]));
    }
    let words = cloud.up_words()?;
    show.step("start a cloud on this machine", &format!("haar {}", words.join(" ")), || {
        run::quietly(&mut cloud.as_root(&words)?)
    })
}

fn import(show: &mut Show, cloud: &Cloud, image: &image::Image) -> Result<()> {
    let name = image_name(image);
    if cloud.json(&["image", "show", &name]).is_ok_and(|known| known["state"] == "ready") {
        return Ok(());
    }
    let file = image.path.display().to_string();
    show.run("import the image", cloud, &["image", "import", &name, &file])
}

/// An image of another recipe is another image.
fn image_name(image: &image::Image) -> String {
    format!("tiny-{}", &image.sha256[..8])
}

fn farewell(cloud: &Cloud, guest: &Guest) -> Result<String> {
    let program = cloud.program().display().to_string();
    let haar = format!("{}{program}", cloud.address_words()?);
    let (data, folder, name) = (cloud.data(), cloud.folder().display(), guest::NAME);
    let data = data.display();
    let is_usual = cloud.folder() == Path::new(FOLDER);
    let option = if is_usual { String::new() } else { format!(" --data {folder}") };
    Ok(format!(
        "
The cloud runs on. Look around:
  {haar} status
  {haar} guest list
  {haar} guest console {name}        (Ctrl-] leaves it)
  {haar} guest create second --flavor {FLAVOR} --image {image}
  ssh -i {key} root@{address}
End it:
  {program} down --data {data}        (guests run on; `cargo xtask demo{option}` goes on with them)
  cargo xtask demo --clean{option}        (removes all of it)",
        image = guest.image,
        key = guest.key.display(),
        address = guest.address,
    ))
}
