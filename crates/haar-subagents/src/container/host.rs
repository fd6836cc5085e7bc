//! What the methods share, and what of a container only its running needs: mount, network, cgroup, monitor.
//!
//! Promised: everything here may be asked twice, and may find what another run of the sub-agent left half done.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use haar_api::rpc::{Fault, FaultCode};
use nix::mount::MsFlags;

use super::decide::Run;
use super::folders::{Folders, remove};
use super::images;
use super::layer::Devices;
use super::loads::Loads;
use super::monitor::{RUNS, SAYS};
use super::record::{self, Order, Record};
use super::runtime::{Runtime, Runtimes};
use super::{Monitor, bundle, cgroups, log, monitor, mounts, network, user};
use crate::kit::PerGuest;
use crate::storage::folders::{io_fault, write_json};
use crate::storage::names::check_id;

/// How long a container may take to begin or to be gone.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// How long the runtime may take to make a container.
const BEGIN_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the methods share.
pub(super) struct Host {
    pub(super) folders: Arc<Folders>,
    pub(super) loads: Arc<Loads>,
    pub(super) guests: PerGuest,
    pub(super) cloud: String,
    /// What this cloud's names on the host begin with.
    pub(super) tag: String,
    pub(super) runtimes: Runtimes,
    pub(super) devices: Devices,
    pub(super) monitor: Monitor,
    /// Held by who makes a container of an image, and by who deletes one.
    pub(super) books: Mutex<()>,
    /// Containers with a damaged record that was told of.
    pub(super) damaged: Mutex<BTreeSet<String>>,
}

impl Host {
    /// The runtime, or the fault that there is none.
    pub(super) fn runtime(&self) -> Result<Runtime, Fault> {
        self.runtimes.get().map_err(|why| Fault::new(FaultCode::Unavailable, why))
    }

    /// The word of the seed for how a container stands.
    pub(super) fn state(&self, record: &Record) -> &'static str {
        match record::look(&self.folders, record).run {
            Run::Alive if cgroups::is_frozen(&cgroups::of(&self.tag, &record.id)) => "paused",
            Run::Alive => "running",
            // Its program has ended and its monitor is about to say how: nobody is told that it is over without.
            Run::Watched if record::has_begun(&self.folders, record) => "running",
            Run::Never | Run::Watched | Run::Ended(_) => "stopped",
        }
    }

    /// The host's ends of a container's interfaces.
    pub(super) fn devices_of(&self, record: &Record) -> Vec<String> {
        (0..record.wish.nics.len()).map(|index| network::device(&self.tag, &record.id, index)).collect()
    }

    /// Begins the record's present run, which has not begun. What stood in the way is taken away first; what was made
    /// until a fault is taken away again.
    pub(super) fn launch(&self, record: &Record) -> Result<(), Fault> {
        self.tear_down(&record.id, record.wish.nics.len())?;
        let launched = self.prepare(record).and_then(|()| self.begin(record));
        if launched.is_err()
            && let Err(fault) = self.tear_down(&record.id, record.wish.nics.len())
        {
            tracing::warn!(container = record.id, %fault, "something of a container that did not begin is left");
        }
        launched
    }

    fn prepare(&self, record: &Record) -> Result<(), Fault> {
        let runtime = self.runtime()?;
        let folder = self.folders.container(&record.id);
        let failed = |error| io_fault("prepare", &folder, &error);
        let image = images::require(&self.folders, &record.wish.image)?;
        let lower = self.folders.image(&record.wish.image).join("rootfs");
        let own = match image.config.config.user.as_str() {
            "" => user::find(&lower, "0")?,
            spec => user::find(&lower, spec)?,
        };
        network::up(&self.folders, &self.tag, &record.id, &record.wish.nics)?;
        let flags = if self.devices == Devices::Made { MsFlags::empty() } else { MsFlags::MS_NODEV };
        let (upper, work, rootfs) = (folder.join("upper"), folder.join("work"), folder.join("rootfs"));
        mounts::overlay(&lower, &upper, &work, &rootfs, flags).map_err(|error| {
            let text =
                format!("this host cannot mount an overlay file system in {}: {error}", folder.display());
            Fault::new(FaultCode::Unavailable, text)
        })?;
        let cgroup = cgroups::of(&self.tag, &record.id);
        let namespace = network::namespace(&self.tag, &record.id);
        let config = bundle::config(&folder, &record.wish, &image.config.config, &own, &cgroup, &namespace)?;
        write_json(&folder.join("config.json"), &config).map_err(failed)?;
        let resolv = bundle::resolv_conf(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        let hostname = format!("{}\n", record.wish.hostname);
        for (name, text) in
            [("hostname", hostname), ("hosts", bundle::hosts(&record.wish)), ("resolv.conf", resolv)]
        {
            let path = folder.join(name);
            fs::write(&path, text).map_err(failed)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(failed)?;
        }
        let order = Order {
            id: record.id.clone(),
            run: record.run,
            runtime: runtime.program.clone(),
            state: runtime.state.clone(),
        };
        write_json(&folder.join("run.json"), &order).map_err(failed)
    }

    /// Starts the monitor and waits until it says how the run began.
    fn begin(&self, record: &Record) -> Result<(), Fault> {
        let folder = self.folders.container(&record.id);
        let mut command = (self.monitor.0)(&folder);
        // It has the lock of our work until it has its own; see `monitor`.
        command.stdin(self.folders.work()).stdout(Stdio::piped()).stderr(Stdio::null());
        let cannot = |error: io::Error| {
            Fault::new(FaultCode::Unavailable, format!("the container's monitor cannot be started: {error}"))
        };
        let mut child = command.spawn().map_err(cannot)?;
        let output = child.stdout.take().map(BufReader::new);
        let (sender, said) = std::sync::mpsc::channel();
        // It ends with the container; somebody must collect it then.
        std::thread::spawn(move || {
            let lines = output.into_iter().flat_map(io::BufRead::lines).map_while(Result::ok);
            let word = lines.filter_map(|line| line.strip_prefix(SAYS).map(ToOwned::to_owned)).next();
            // Whoever waited has given up.
            let _ = sender.send(word);
            child.wait()
        });
        let failed =
            |why: &str| Err(Fault::new(FaultCode::Failed, format!("the container did not begin: {why}")));
        match said.recv_timeout(BEGIN_LIMIT) {
            Ok(Some(word)) if word == RUNS => Ok(()),
            Ok(Some(why)) => failed(&why),
            Ok(None) => failed("its monitor ended without a word"),
            Err(_) => failed("its monitor says nothing"),
        }
    }

    /// Takes away all that only a running container needs, and ends it; what is not there is fine.
    pub(super) fn tear_down(&self, id: &str, nics: usize) -> Result<(), Fault> {
        let folder = self.folders.container(id);
        // First, for a runtime that it began and that is at work still makes what is taken away here.
        monitor::end(&folder);
        self.kill(id)?;
        mounts::unmount_below(&folder).map_err(|error| io_fault("unmount", &folder, &error))?;
        network::down(&self.folders, &self.tag, id, nics)
    }

    /// Ends all processes of a container, with the runtime's help or without.
    pub(super) fn kill(&self, id: &str) -> Result<(), Fault> {
        if let Ok(runtime) = self.runtime()
            && let Err(fault) = runtime.delete(&self.folders, id)
        {
            tracing::warn!(container = id, %fault, "the runtime does not end it; its processes are killed");
        }
        if cgroups::remove(&cgroups::of(&self.tag, id)) {
            return Ok(());
        }
        let text = format!("processes of container {id} do not end; is a file system hanging?");
        Err(Fault::new(FaultCode::Unavailable, text))
    }

    /// Waits until a container is no longer between two states, and tells its run then.
    pub(super) fn settled(&self, record: &Record) -> Result<Run, Fault> {
        self.wait_for(record, |run| run != Run::Watched)
    }

    /// Waits for a run to become what is wished.
    pub(super) fn wait_for(&self, record: &Record, wished: impl Fn(Run) -> bool) -> Result<Run, Fault> {
        let deadline = Instant::now() + CHANGE_LIMIT;
        loop {
            let run = record::look(&self.folders, record).run;
            if wished(run) {
                return Ok(run);
            }
            if Instant::now() >= deadline {
                let text = format!("container {} did not change its state in time; ask again", record.id);
                return Err(Fault::new(FaultCode::Unavailable, text));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Makes a container's folder, as a whole.
    pub(super) fn make(&self, record: &Record) -> Result<(), Fault> {
        let new = self.folders.containers().join(format!(".new-{}", record.id));
        let path = self.folders.container(&record.id);
        let failed = |error| io_fault("make", &path, &error);
        let lower = self.folders.image(&record.wish.image).join("rootfs");
        let make = || {
            remove(&new)?;
            fs::DirBuilder::new().mode(0o700).create(&new)?;
            for name in ["upper", "work", "rootfs"] {
                fs::create_dir(new.join(name))?;
            }
            // The root folder of the mount is the upper one's: it has to look like the image's.
            let (like, upper) = (fs::metadata(&lower)?, new.join("upper"));
            std::os::unix::fs::chown(&upper, Some(like.uid()), Some(like.gid()))?;
            fs::set_permissions(&upper, fs::Permissions::from_mode(like.permissions().mode() & 0o7777))?;
            record::write(&new.join("container.json"), record)?;
            fs::rename(&new, &path)?;
            crate::storage::folders::sync_folder(&self.folders.containers())
        };
        make().map_err(failed)
    }

    /// Removes a container's folder, as a whole. Nothing of it runs.
    pub(super) fn unmake(&self, id: &str) -> Result<(), Fault> {
        let path = self.folders.container(id);
        let gone = super::folders::put_away(&self.folders.containers(), id);
        gone.and_then(|gone| gone.map_or(Ok(()), |gone| remove(&gone)))
            .map_err(|error| io_fault("remove", &path, &error))
    }

    /// What has this cloud's name on the host and is no container of ours: an earlier run was killed while it removed
    /// it.
    pub(super) fn strays(&self) -> Result<Vec<String>, Fault> {
        let known: BTreeSet<String> =
            super::folders::ids_in(&self.folders.containers())?.into_iter().collect();
        let mut found: BTreeSet<String> = network::ids(&self.tag).into_iter().collect();
        found.extend(cgroups::names_below(&cgroups::of_cloud(&self.tag)));
        if let Ok(runtime) = self.runtime() {
            found.extend(super::folders::ids_in(&runtime.state).unwrap_or_default());
        }
        // Other names are of runtimes that are being tried.
        Ok(found.difference(&known).filter(|id| check_id("container", id).is_ok()).cloned().collect())
    }

    /// Ends one of them, unless it has become a container meanwhile.
    pub(super) fn end_stray(&self, id: &str) -> Result<(), Fault> {
        if self.folders.container(id).exists() {
            return Ok(());
        }
        tracing::info!(container = id, "an earlier run left something of a container; it is ended");
        self.tear_down(id, network::MAX_NICS)
    }

    /// Keeps a container's log from filling the disk where no monitor does.
    pub(super) fn keep_log(&self, id: &str) {
        let folder = self.folders.container(id);
        if !record::is_watched(&folder)
            && let Err(error) = log::turn(&folder)
        {
            tracing::debug!(container = id, %error, "the log cannot be turned");
        }
    }
}
