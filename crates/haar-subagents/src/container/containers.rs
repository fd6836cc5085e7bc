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
use super::{cgroups, folders, images, network};
use crate::storage::names::check_id;

/// How long a container may take to end after it was asked, as with the seed.
const STOP_GRACE: Duration = Duration::from_secs(10);
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
        // A run that was ordered and never begun is that very run still.
        if run != Run::Never || record.run == 0 {
            record.run += 1;
        }
        record.goal = Goal::Run;
        record::save(&self.folders, &record)?;
        if let Err(fault) = self.launch(&record) {
            // Whoever asked is told, and asks again or does not; nobody else tries.
            record.goal = Goal::Stop;
            record::save(&self.folders, &record)?;
            return Err(fault);
        }
        Ok(record)
    }

    /// Has a container end: asked first, then killed.
    pub(super) fn stop(&self, guest: Guest, action: &str) -> Result<GuestResponse, Fault> {
        // A container that was never made is deleted by the same two stages.
        if action.eq_ignore_ascii_case("containerDelete") && record::find(&self.folders, &guest.id)?.is_none()
        {
            return Ok(guest.answer("stopped", &[]));
        }
        let record = self.end(self.ours(&guest)?, STOP_GRACE)?;
        Ok(self.answer(guest, &record))
    }

    /// The same with its record, which is answered as it is then.
    pub(super) fn end(&self, mut record: Record, grace: Duration) -> Result<Record, Fault> {
        if record.goal == Goal::Run {
            record.goal = Goal::Stop;
            record::save(&self.folders, &record)?;
        }
        if self.settled(&record)? == Run::Alive {
            let runtime = self.runtime()?;
            if !grace.is_zero() {
                // Held, it would not hear.
                self.let_go(&record)?;
                let signal = self.stop_signal(&record);
                if runtime.kill(&self.folders, &record.id, &signal).is_ok() {
                    let deadline = Instant::now() + grace;
                    while record::look(&self.folders, &record).run == Run::Alive && Instant::now() < deadline
                    {
                        std::thread::sleep(LOOK_EVERY);
                    }
                }
            }
            if record::look(&self.folders, &record).run == Run::Alive {
                runtime.delete(&self.folders, &record.id)?;
            }
            self.wait_for(&record, |run| !matches!(run, Run::Alive | Run::Watched))?;
        }
        self.tear_down(&record.id, record.wish.nics.len())?;
        Ok(record)
    }

    /// Ends a container and runs it again.
    pub(super) fn restart(&self, guest: Guest) -> Result<GuestResponse, Fault> {
        let record = self.end(self.ours(&guest)?, STOP_GRACE)?;
        let record = self.run(record)?;
        Ok(self.answer(guest, &record))
    }

    /// Holds a container.
    pub(super) fn pause(&self, guest: Guest) -> Result<GuestResponse, Fault> {
        let record = self.ours(&guest)?;
        match self.state(&record) {
            "paused" => {}
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

    fn let_go(&self, record: &Record) -> Result<(), Fault> {
        if cgroups::is_frozen(&cgroups::of(&self.tag, &record.id)) {
            self.runtime()?.resume(&self.folders, &record.id)?;
        }
        Ok(())
    }

    /// Removes a container with its files; one that is not there is fine.
    pub(super) fn delete(&self, guest: Guest) -> Result<GuestResponse, Fault> {
        if record::find(&self.folders, &guest.id)?.is_some() {
            self.ours(&guest)?;
        }
        self.remove(&guest.id)?;
        Ok(guest.answer("deleted", &[]))
    }

    /// The same by its id.
    pub(super) fn remove(&self, id: &str) -> Result<(), Fault> {
        if let Some(mut record) = record::find(&self.folders, id)? {
            if record.goal != Goal::Gone {
                record.goal = Goal::Gone;
                record::save(&self.folders, &record)?;
            }
            self.end(record, Duration::ZERO)?;
        }
        self.unmake(id)
    }

    /// Removes every container, also one whose record is damaged.
    pub(super) fn remove_all(&self) -> Result<(), Fault> {
        for id in folders::ids_in(&self.folders.containers())? {
            if self.remove(&id).is_err() {
                self.tear_down(&id, network::MAX_NICS)?;
                self.unmake(&id)?;
            }
        }
        self.end_strays()
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
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(json!({
            "ID": self.cloud,
            "Containers": states.len(),
            "ContainersRunning": count("running"),
            "ContainersPaused": count("paused"),
            "ContainersStopped": count("stopped"),
            "Images": images::list(&self.folders)?.len(),
            "Driver": "overlay",
            "DefaultRuntime": self.runtime.as_ref().map_or("", |runtime| runtime.version.as_str()),
            "Warnings": self.runtime.as_ref().err().into_iter().collect::<Vec<_>>(),
            "OSType": "linux",
            "Architecture": std::env::consts::ARCH,
            "KernelVersion": kernel.trim(),
            "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }))
    }

    /// Who stands in the way of an image's deletion.
    pub(super) fn check_unused(&self, image: &str) -> Result<(), Fault> {
        let users = self.records()?.into_iter().filter(|record| record.wish.image == image);
        let users: Vec<String> = users.map(|record| record.id).take(8).collect();
        if users.is_empty() {
            return Ok(());
        }
        let text = format!("image {image} is in use by containers: {}; delete those first", users.join(", "));
        Err(Fault::new(FaultCode::Conflict, text))
    }

    /// Every container whose record can be read; the others have been told of.
    pub(super) fn records(&self) -> Result<Vec<Record>, Fault> {
        let mut records = Vec::new();
        for id in folders::ids_in(&self.folders.containers())? {
            match record::find(&self.folders, &id) {
                Ok(record) => records.extend(record),
                Err(fault) => tracing::debug!(container = id, %fault, "left out"),
            }
        }
        Ok(records)
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

    fn check_cloud(&self, id: &str, cloud: &str) -> Result<(), Fault> {
        if cloud == self.cloud {
            return Ok(());
        }
        let text = format!("container {id} is of cloud {cloud:?}, this sub-agent is of {:?}", self.cloud);
        Err(Fault::new(FaultCode::Conflict, text))
    }

    fn stop_signal(&self, record: &Record) -> String {
        let image = images::find(&self.folders, &record.wish.image).ok().flatten();
        let signal = image.map(|image| image.config.config.stop_signal).unwrap_or_default();
        let is_word = !signal.is_empty()
            && signal.len() <= 16
            && signal.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
        if is_word { signal } else { "SIGTERM".to_owned() }
    }

    fn answer(&self, guest: Guest, record: &Record) -> GuestResponse {
        let state = self.state(record);
        let devices = if state == "stopped" { Vec::new() } else { self.devices_of(record) };
        guest.answer(state, &devices)
    }
}
