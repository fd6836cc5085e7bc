//! What is done with one container at a caller's word; the caller holds the container's turn.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use haar_api::rpc::{Fault, FaultCode};
use serde_json::{Value, json};

use super::decide::{Goal, Run};
use super::host::Host;
use super::inspect::inspect;
use super::record::{self, Record};
use super::wire::{ContainerRequest, ContainerResponse, Guest, GuestResponse};
use super::{cgroups, folders, images, monitor, network, signal};
use crate::storage::names::check_id;

/// How long a container may take to end after it was asked, as with the seed.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Host {
    /// Makes a container, which does not run yet. The same asked again is fine; something else of that id is not.
    pub(super) fn create(&self, guest: Guest) -> Result<GuestResponse, Fault> {
        let (wish, extra) = (guest.wish()?, guest.extra()?);
        let cloud = extra.cloud.unwrap_or_else(|| self.cloud.clone());
        self.check_cloud(&guest.id, &cloud)?;
        self.runtime()?;
        if let Some(there) = record::find(&self.folders, &guest.id)?.filter(|there| there.goal != Goal::Gone)
        {
            self.check_cloud(&there.id, &there.cloud)?;
            if there.life != extra.life || there.wish != wish {
                let text = format!(
                    "container {} is here already, of life {:?} and made otherwise; delete it first",
                    there.id, there.life
                );
                return Err(Fault::new(FaultCode::Conflict, text));
            }
            return Ok(self.answer(guest, &there));
        }
        if extra.provisioned {
            let text =
                format!("container {} has run before and is gone from this host with its files", guest.id);
            return Err(Fault::new(FaultCode::Lost, text));
        }
        // One that is being removed may have come this far only.
        self.remove(&guest.id)?;
        let _books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let image = images::require(&self.folders, &wish.image)?;
        super::bundle::arguments(&wish, &image.config.config)?;
        let record = Record {
            v: 1,
            id: guest.id.clone(),
            cloud,
            life: extra.life,
            created_s: record::now_s(),
            wish,
            goal: Goal::Stop,
            run: 0,
            restarts: 0,
        };
        self.make(&record)?;
        Ok(self.answer(guest, &record))
    }

    /// Has a container run; one that runs is left as it is, one that is held goes on.
    pub(super) fn start(&self, guest: Guest) -> Result<GuestResponse, Fault> {
        let record = self.ours(&guest)?;
        let record = self.run(record)?;
        Ok(self.answer(guest, &record))
    }

    /// The same with its record.
    fn run(&self, mut record: Record) -> Result<Record, Fault> {
        self.runtime()?;
        let run = self.settled(&record)?;
        if run == Run::Alive {
            record.goal = Goal::Run;
            record::save(&self.folders, &record)?;
            self.let_go(&record)?;
            return Ok(record);
        }
        self.next_run(&mut record)?;
        if let Err(fault) = self.launch(&record) {
            // Whoever asked is told, and asks again or does not; nobody else tries.
            record.goal = Goal::Stop;
            record::save(&self.folders, &record)?;
            return Err(fault);
        }
        Ok(record)
    }

    /// Orders another run. Each attempt has a number of its own, so that none is taken for another.
    pub(super) fn next_run(&self, record: &mut Record) -> Result<(), Fault> {
        (record.goal, record.restarts) = (Goal::Run, 0);
        record.run += 1;
        record::save(&self.folders, record)
    }

    /// Has a container end: asked first, then killed.
    pub(super) fn stop(&self, guest: Guest, action: &str) -> Result<GuestResponse, Fault> {
        // A container that was never made is deleted by the same two stages.
        if action.eq_ignore_ascii_case("containerDelete") && record::find(&self.folders, &guest.id)?.is_none()
        {
            return Ok(guest.answer("stopped", &[]));
        }
        let mut record = self.ours(&guest)?;
        // One that is being removed is not to be kept.
        let goal = if record.goal == Goal::Gone { Goal::Gone } else { Goal::Stop };
        self.end_as(&mut record, goal, STOP_GRACE)?;
        Ok(self.answer(guest, &record))
    }

    /// Ends a container for a goal. A full disk is no reason to let it run: what cannot be written before is written
    /// once it has ended and fills the disk no more.
    fn end_as(&self, record: &mut Record, goal: Goal, grace: Duration) -> Result<(), Fault> {
        let mut written = Ok(());
        if record.goal != goal {
            record.goal = goal;
            written = record::save(&self.folders, record);
        }
        match &written {
            Err(fault) if fault.code == FaultCode::NoSpace => {
                tracing::warn!(container = record.id, %fault, "ended before that could be written");
            }
            Err(fault) => return Err(fault.clone()),
            Ok(()) => {}
        }
        self.end(record, grace)?;
        written.or_else(|_| record::save(&self.folders, record))
    }

    /// Ends a container, whatever is wanted of it, and takes away what only a running one needs.
    pub(super) fn end(&self, record: &Record, grace: Duration) -> Result<(), Fault> {
        if let Err(fault) = self.settled(record) {
            tracing::warn!(container = record.id, %fault, "its monitor is stuck and is killed");
            monitor::end(&self.folders.container(&record.id));
        }
        let is_alive = || record::look(&self.folders, record).run == Run::Alive;
        if is_alive() {
            if !grace.is_zero() {
                self.ask_to_end(record);
                let deadline = Instant::now() + grace;
                while is_alive() && Instant::now() < deadline {
                    std::thread::sleep(LOOK_EVERY);
                }
            }
            self.kill(&record.id)?;
            // So that its monitor can write down how it ended; one that does not is killed with the rest.
            if let Err(fault) = self.wait_for(record, |run| !matches!(run, Run::Alive | Run::Watched)) {
                tracing::warn!(container = record.id, %fault, "its end is not written down");
            }
        }
        self.tear_down(&record.id, record.wish.nics.len())
    }

    /// Sends the image's signal. That nobody can be asked is said, and no reason not to end it.
    fn ask_to_end(&self, record: &Record) {
        let signal = self.stop_signal(record);
        let ask = |signal: i32| self.runtime()?.kill(&self.folders, &record.id, &signal.to_string());
        // Held, it would not hear.
        let asked = self.let_go(record).and_then(|()| ask(signal)).or_else(|fault| {
            tracing::warn!(container = record.id, signal, %fault, "it cannot be asked to end by this signal");
            ask(signal::TERM)
        });
        if let Err(fault) = asked {
            tracing::warn!(container = record.id, %fault, "it cannot be asked to end");
        }
    }

    /// Ends a container and runs it again. The wish for both is written first: what is cut off between is finished by
    /// the next start.
    pub(super) fn restart(&self, guest: Guest) -> Result<GuestResponse, Fault> {
        let mut record = self.ours(&guest)?;
        self.runtime()?;
        self.end_as(&mut record, Goal::Restart, STOP_GRACE)?;
        let record = self.run(record)?;
        Ok(self.answer(guest, &record))
    }

    /// Holds a container.
    pub(super) fn pause(&self, guest: Guest) -> Result<GuestResponse, Fault> {
        let record = self.ours(&guest)?;
        match self.state(&record) {
            // Whoever held it before lets it go no more.
            "paused" => record::unmark_held(&self.folders, &record.id)?,
            "running" => self.runtime()?.pause(&self.folders, &record.id)?,
            _ => {
                return Err(Fault::new(FaultCode::Conflict, format!("container {} does not run", record.id)));
            }
        }
        Ok(self.answer(guest, &record))
    }

    /// Has a held container go on.
    pub(super) fn unpause(&self, guest: Guest) -> Result<GuestResponse, Fault> {
        let record = self.ours(&guest)?;
        if self.state(&record) == "stopped" {
            return Err(Fault::new(FaultCode::Conflict, format!("container {} does not run", record.id)));
        }
        self.let_go(&record)?;
        Ok(self.answer(guest, &record))
    }

    /// The same with its record; one that is not held is fine.
    pub(super) fn let_go(&self, record: &Record) -> Result<(), Fault> {
        if cgroups::is_frozen(&cgroups::of(&self.tag, &record.id)) {
            self.runtime()?.resume(&self.folders, &record.id)?;
        }
        record::unmark_held(&self.folders, &record.id)
    }

    /// Removes a container with its files; one that is not there is fine.
    pub(super) fn delete(&self, guest: Guest) -> Result<GuestResponse, Fault> {
        match record::find(&self.folders, &guest.id) {
            Ok(None) => {}
            // Nobody else can: whose it was is not known any more.
            Err(fault) if fault.code == FaultCode::Conflict => {
                tracing::warn!(container = guest.id, %fault, "removed all the same");
                self.remove_damaged(&guest.id)?;
            }
            Ok(Some(_)) | Err(_) => drop(self.ours(&guest)?),
        }
        self.remove(&guest.id)?;
        Ok(guest.answer("deleted", &[]))
    }

    /// The same by its id.
    pub(super) fn remove(&self, id: &str) -> Result<(), Fault> {
        if let Some(mut record) = record::find(&self.folders, id)? {
            self.end_as(&mut record, Goal::Gone, Duration::ZERO)?;
        }
        self.unmake(id)
    }

    fn remove_damaged(&self, id: &str) -> Result<(), Fault> {
        self.tear_down(id, network::MAX_NICS)?;
        self.unmake(id)
    }

    /// Removes every container, also one whose record is damaged.
    pub(super) fn remove_all(&self) -> Result<(), Fault> {
        for id in folders::ids_in(&self.folders.containers())? {
            if self.remove(&id).is_err() {
                self.remove_damaged(&id)?;
            }
        }
        let ended = self.strays()?.into_iter().map(|id| self.end_stray(&id));
        // All of them, whatever is wrong with one.
        ended.collect::<Vec<_>>().into_iter().collect()
    }

    /// One container as Docker shows it.
    pub(super) fn get(&self, request: &ContainerRequest) -> Result<ContainerResponse, Fault> {
        check_id("container", &request.id)?;
        let record = record::require(&self.folders, &request.id)?;
        let one = inspect(&self.folders, &self.tag, &record, self.state(&record))?;
        Ok(ContainerResponse { containers: vec![one] })
    }

    /// All containers that run, or all there are.
    pub(super) fn list(&self, request: &ContainerRequest) -> Result<ContainerResponse, Fault> {
        let mut containers = Vec::new();
        for record in self.records()? {
            let state = self.state(&record);
            if state != "stopped" || request.all() {
                containers.push(inspect(&self.folders, &self.tag, &record, state)?);
            }
        }
        Ok(ContainerResponse { containers })
    }

    /// What this host is, as far as containers go.
    pub(super) fn info(&self) -> Result<Value, Fault> {
        let states: Vec<&str> = self.records()?.iter().map(|record| self.state(record)).collect();
        let count = |wanted: &str| states.iter().filter(|state| **state == wanted).count();
        let runtime = self.runtimes.get();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(json!({
            "ID": self.cloud,
            "Containers": states.len(),
            "ContainersRunning": count("running"),
            "ContainersPaused": count("paused"),
            "ContainersStopped": count("stopped"),
            "Images": images::list(&self.folders)?.len(),
            "Driver": "overlay",
            "DefaultRuntime": runtime.as_ref().map_or("", |runtime| runtime.version.as_str()),
            "Warnings": runtime.as_ref().err().into_iter().collect::<Vec<_>>(),
            "OSType": "linux",
            "Architecture": std::env::consts::ARCH,
            "KernelVersion": kernel.trim(),
            "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }))
    }

    /// Who stands in the way of an image's deletion.
    pub(super) fn check_unused(&self, image: &str) -> Result<(), Fault> {
        let (records, damaged) = self.all_records()?;
        if let Some(id) = damaged.first() {
            let text = format!(
                "the record of container {id} is damaged, it may be of image {image}; delete it first"
            );
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        let users = records.into_iter().filter(|record| record.wish.image == image);
        let users: Vec<String> = users.map(|record| record.id).take(8).collect();
        if users.is_empty() {
            return Ok(());
        }
        let text = format!("image {image} is in use by containers: {}; delete those first", users.join(", "));
        Err(Fault::new(FaultCode::Conflict, text))
    }

    /// Every container whose record can be read; the others have been told of.
    pub(super) fn records(&self) -> Result<Vec<Record>, Fault> {
        self.all_records().map(|(records, _)| records)
    }

    /// The same, and the ids of the others.
    fn all_records(&self) -> Result<(Vec<Record>, Vec<String>), Fault> {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        let mut told = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        for id in folders::ids_in(&self.folders.containers())? {
            match record::find(&self.folders, &id) {
                Ok(record) => records.extend(record),
                Err(fault) => {
                    if told.insert(id.clone()) {
                        tracing::warn!(container = id, %fault, "this container is left alone");
                    }
                    damaged.push(id);
                }
            }
        }
        told.retain(|id| damaged.contains(id));
        Ok((records, damaged))
    }

    fn ours(&self, guest: &Guest) -> Result<Record, Fault> {
        let extra = guest.extra()?;
        let record = record::require(&self.folders, &guest.id)?;
        self.check_cloud(&record.id, &record.cloud)?;
        if let Some(cloud) = &extra.cloud {
            self.check_cloud(&record.id, cloud)?;
        }
        if extra.life.is_empty() || extra.life == record.life {
            return Ok(record);
        }
        let text = format!(
            "container {} is of life {:?} here and life {:?} was asked for; it is left as it is",
            record.id, record.life, extra.life
        );
        Err(Fault::new(FaultCode::Conflict, text))
    }

    pub(super) fn check_cloud(&self, id: &str, cloud: &str) -> Result<(), Fault> {
        if cloud == self.cloud {
            return Ok(());
        }
        let text = format!("container {id} is of cloud {cloud:?}, this sub-agent is of {:?}", self.cloud);
        Err(Fault::new(FaultCode::Conflict, text))
    }

    fn stop_signal(&self, record: &Record) -> i32 {
        let image = images::find(&self.folders, &record.wish.image).ok().flatten();
        let wanted = image.map(|image| image.config.config.stop_signal).unwrap_or_default();
        let number = signal::number(&wanted);
        if number.is_none() && !wanted.is_empty() {
            let wanted: String = wanted.chars().take(32).collect();
            tracing::warn!(container = record.id, wanted, "the image's stop signal is none; it gets SIGTERM");
        }
        number.unwrap_or(signal::TERM)
    }

    fn answer(&self, guest: Guest, record: &Record) -> GuestResponse {
        let state = self.state(record);
        let devices = if state == "stopped" { Vec::new() } else { self.devices_of(record) };
        guest.answer(state, &devices)
    }
}
