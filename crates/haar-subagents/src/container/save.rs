//! An image made of a container: its files as they are now, and how it is run.
//!
//! Promised: nothing is seen of the image before it is whole. A container that runs is held while what it has written
//! itself is copied, which takes no longer than naming its files where the file system lets files share their bytes; it
//! goes on while the image is made, and whatever becomes of the copy: it is marked before it is held, and one that is marked and whose turn
//! nobody has is let go by [`super::keep`], be it after a fault or after a kill. One that somebody else holds stays held.
//! Deliberately absent: what is mounted in the container (`/dev`, `/proc`, `/sys`, `/etc/hosts` …), its memory and its
//! limits; authors and messages.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use haar_api::rpc::{Fault, FaultCode, ImageResponse};
use nix::mount::MsFlags;

use super::bundle::merged;
use super::copy::{copy_tree, copy_upper};
use super::decide::Goal;
use super::folders::remove;
use super::host::Host;
use super::images::{self, Facts, Part};
use super::mounts;
use super::oci::{self, Digest, ImageConfig, RootFs, RunConfig};
use super::progress::Progress;
use super::record::{self, Record, Wish};
use super::space::Room;
use super::wire::Saving;
use crate::storage::folders::io_fault;

impl Host {
    /// Makes an image of a container; the caller has the container's turn. Takes as long as its files take to be copied.
    pub(super) fn save(&self, saving: &Saving) -> Result<ImageResponse, Fault> {
        let record = record::require(&self.folders, &saving.container)?;
        self.check_cloud(&record.id, &record.cloud)?;
        if record.goal == Goal::Gone {
            return Err(Fault::new(FaultCode::Conflict, format!("container {} is being removed", record.id)));
        }
        let config = images::require(&self.folders, &record.wish.image)?.config.config;
        let run = run_config(config, &record.wish, &saving.run);
        let facts = self.loads.while_making(&saving.image, |limits, progress| {
            let part = Part::begin(&self.folders, &saving.image)?;
            let mut room = limits.room();
            let own = self.copy_own(&record, &part, room, progress)?;
            let files = self.copy_all(&record, &own, &part, &mut room, progress)?;
            let facts = facts(&saving.image, run, files, limits.bytes - room.bytes);
            part.keep(&self.folders, &facts)?;
            Ok(facts)
        })?;
        tracing::info!(
            container = record.id,
            image = facts.id,
            bytes = facts.unpacked_bytes,
            "saved as an image"
        );
        Ok(ImageResponse { images: Some(vec![facts.to_wire()]) })
    }

    /// Copies what the container has written itself, while it does nothing; answers where that lies.
    fn copy_own(
        &self,
        record: &Record,
        part: &Part,
        room: Room,
        progress: &Progress,
    ) -> Result<PathBuf, Fault> {
        let (from, to) = (self.folders.container(&record.id).join("upper"), part.path().join("upper"));
        fs::create_dir(&to).map_err(|error| io_fault("make", &to, &error))?;
        self.settled(record)?;
        let is_ours = self.hold(record)?;
        let begun = Instant::now();
        // What it takes is given back before the image is whole: it counts for the file system alone.
        let mut spare = room;
        let copied = copy_upper(&from, &to, self.devices, &mut spare, progress);
        if is_ours {
            self.let_go(record)?;
            tracing::debug!(container = record.id, held_ms = begun.elapsed().as_millis(), "goes on");
        }
        copied.map(|()| to)
    }

    /// Holds a container that runs; answers whether it is to be let go. One that ends in this very moment is at rest.
    fn hold(&self, record: &Record) -> Result<bool, Fault> {
        if self.state(record) != "running" {
            return Ok(false);
        }
        let runtime = self.runtime()?;
        record::mark_held(&self.folders, &record.id)?;
        match runtime.pause(&self.folders, &record.id) {
            Err(fault) if self.state(record) == "running" => Err(fault),
            Ok(()) | Err(_) => Ok(true),
        }
    }

    /// Copies all of its files, as they were when those of its own were copied, which go then.
    fn copy_all(
        &self,
        record: &Record,
        own: &Path,
        part: &Part,
        room: &mut Room,
        progress: &Progress,
    ) -> Result<Digest, Fault> {
        let (image, merged) =
            (self.folders.image(&record.wish.image).join("rootfs"), part.path().join("merged"));
        let failed = |error| io_fault("mount", &merged, &error);
        fs::create_dir(&merged).map_err(failed)?;
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
        mounts::stack(&[own, &image], &merged, flags).map_err(failed)?;
        let copied = copy_tree(&merged, &part.rootfs(), self.devices, room, progress)?;
        // After a fault or a kill they go with the whole of the part.
        for folder in [&merged, own] {
            remove(folder).map_err(|error| io_fault("remove", folder, &error))?;
        }
        Ok(copied)
    }
}

/// What stands in its `image.json`.
fn facts(id: &str, run: RunConfig, files: Digest, bytes: u64) -> Facts {
    let config = ImageConfig {
        architecture: oci::architecture().to_owned(),
        os: "linux".to_owned(),
        config: run,
        rootfs: RootFs { diff_ids: vec![files] },
    };
    let text = serde_json::to_vec(&config).expect("words and lists of words are JSON");
    let digest = Digest::of(&text);
    Facts {
        v: 1,
        id: id.to_owned(),
        sha256: digest.hex().to_owned(),
        digest,
        config,
        file_bytes: bytes,
        unpacked_bytes: bytes,
    }
}

/// How a container is run, with what was asked for over it.
fn run_config(image: RunConfig, wish: &Wish, asked: &RunConfig) -> RunConfig {
    let run = worded(image, &wish.entrypoint, &wish.command, &wish.env);
    let run = worded(run, &asked.entrypoint, &asked.cmd, &asked.env);
    let or = |asked: &String, own: String| if asked.is_empty() { own } else { asked.clone() };
    RunConfig {
        user: or(&asked.user, run.user),
        working_dir: or(&asked.working_dir, run.working_dir),
        stop_signal: or(&asked.stop_signal, run.stop_signal),
        ..run
    }
}

/// As with Docker: a command is for the entrypoint beside which it was asked for.
fn worded(run: RunConfig, entrypoint: &[String], command: &[String], env: &[String]) -> RunConfig {
    let env = merged(run.env.iter().chain(env));
    match (entrypoint.is_empty(), command.is_empty()) {
        (false, _) => RunConfig { entrypoint: entrypoint.to_vec(), cmd: command.to_vec(), env, ..run },
        (true, false) => RunConfig { cmd: command.to_vec(), env, ..run },
        (true, true) => RunConfig { env, ..run },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn an_image_is_run_as_its_container_is_unless_it_is_asked_otherwise() {
        let image = RunConfig {
            entrypoint: words(&["/entry"]),
            cmd: words(&["word"]),
            env: words(&["A=image", "B=image"]),
            user: "web".to_owned(),
            ..RunConfig::default()
        };
        let wish = Wish { command: words(&["own"]), env: words(&["A=own"]), ..Wish::default() };
        let plain = run_config(image.clone(), &Wish::default(), &RunConfig::default());
        assert_eq!(plain, image);
        let saved = run_config(image.clone(), &wish, &RunConfig::default());
        assert_eq!((&saved.entrypoint, &saved.cmd), (&image.entrypoint, &words(&["own"])));
        assert_eq!((saved.env, saved.user), (words(&["B=image", "A=own"]), "web".to_owned()));

        let asked = RunConfig {
            entrypoint: words(&["/other"]),
            env: words(&["B=asked"]),
            user: "root".to_owned(),
            ..RunConfig::default()
        };
        let saved = run_config(image, &wish, &asked);
        assert_eq!((saved.entrypoint, saved.cmd), (words(&["/other"]), Vec::new()));
        assert_eq!((saved.env, saved.user), (words(&["A=own", "B=asked"]), "root".to_owned()));
    }

    #[test]
    fn an_image_has_the_digest_of_what_is_in_it() {
        let of = |run: RunConfig, files: &[u8]| facts("a", run, Digest::of(files), 7);
        let one = of(RunConfig::default(), b"1");
        assert_eq!(one.digest, of(RunConfig::default(), b"1").digest);
        assert_ne!(one.digest, of(RunConfig::default(), b"2").digest);
        let other = RunConfig { user: "web".to_owned(), ..RunConfig::default() };
        assert_ne!(one.digest, of(other, b"1").digest);
        assert_eq!((one.sha256.as_str(), one.unpacked_bytes), (one.digest.hex(), 7));
    }
}
