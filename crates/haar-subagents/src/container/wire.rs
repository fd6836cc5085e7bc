//! What goes over the wire of containers: the seed's structs (`mistify-wire` §2.6) and what Haar adds to a guest.
//!
//! A guest comes and goes as the object it was, with what we do not know in it: only its state and its interfaces'
//! devices are set.

use haar_api::rpc::{self, Fault, FaultCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::decide::Restart;
use super::network;
use super::oci::RunConfig;
use super::record::Wish;
use crate::storage::names::check_id;

/// Bytes that the words and the environment of a container may have in all.
const MAX_WORDS_BYTES: usize = 128 << 10;
const MAX_NAME_BYTES: usize = 128;
const MAX_PATH_BYTES: usize = 4096;
const MIN_MEMORY_MIB: u64 = 6;
const MAX_MEMORY_MIB: u64 = 1 << 24;
const MAX_CPUS: u32 = 4096;

/// Parameters of `ListContainers`, `GetContainer` and `SaveContainer`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerRequest {
    /// The guest's id.
    pub(super) id: String,
    /// Docker's options, as an object with its field names in whatever case.
    pub(super) opts: Value,
}

impl ContainerRequest {
    /// Whether containers that do not run are meant too.
    pub(super) fn all(&self) -> bool {
        self.option("All").is_some_and(|value| value == true)
    }

    /// What shall be saved, by the options of Docker's commit.
    pub(super) fn saving(&self) -> Result<Saving, Fault> {
        if !self.opts.is_null() && !self.opts.is_object() {
            return Err(invalid("opts must be an object"));
        }
        let container = if self.id.is_empty() { self.text("Container")? } else { &self.id };
        check_id("container", container)?;
        let image = match self.text("Repository")? {
            "" => Uuid::new_v4().to_string(),
            named => named.to_owned(),
        };
        check_id("image", &image)?;
        if !matches!(self.text("Tag")?, "" | "latest") {
            return Err(invalid("opts.Tag must be latest; an image has its id and no other names"));
        }
        let run = match self.option("Run") {
            None | Some(Value::Null) => RunConfig::default(),
            Some(run) => RunConfig::deserialize(run).map_err(|error| unreadable("opts.Run", &error))?,
        };
        let names = [&run.user, &run.working_dir, &run.stop_signal];
        if names.iter().any(|name| name.contains('\0') || name.len() > MAX_PATH_BYTES) {
            return Err(invalid("opts.Run holds a zero byte, or a name that is too long"));
        }
        check_words(&run.entrypoint, &run.cmd, &run.env)?;
        Ok(Saving { container: container.to_owned(), image, run })
    }

    fn text(&self, name: &str) -> Result<&str, Fault> {
        match self.option(name) {
            None | Some(Value::Null) => Ok(""),
            Some(value) => value.as_str().ok_or_else(|| invalid(format!("opts.{name} must be text"))),
        }
    }

    fn option(&self, name: &str) -> Option<&Value> {
        let mut options = self.opts.as_object()?.iter();
        options.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// What `SaveContainer` is asked for.
#[derive(Debug, Clone)]
pub(super) struct Saving {
    pub(super) container: String,
    /// The new image.
    pub(super) image: String,
    /// How it shall be run, where that is not as the container is.
    pub(super) run: RunConfig,
}

/// Result of both: what `docker inspect` says.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ContainerResponse {
    pub(super) containers: Vec<Value>,
}

/// Parameters of the guest methods.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct GuestRequest {
    pub(super) guest: Option<Map<String, Value>>,
    pub(super) action: String,
}

/// Result of the guest methods.
#[derive(Debug, Clone, Serialize)]
pub(super) struct GuestResponse {
    pub(super) guest: Map<String, Value>,
}

/// A guest as it came, and what is read of it.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) whole: Map<String, Value>,
    pub(super) id: String,
}

/// What Haar adds to a guest, as far as it concerns containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Extra {
    pub(super) cloud: Option<String>,
    pub(super) life: String,
    pub(super) name: String,
    pub(super) provisioned: bool,
    restart: Restart,
    entrypoint: Vec<String>,
    command: Vec<String>,
    env: Vec<String>,
}

impl Guest {
    /// Reads a guest of which only the id need be there.
    pub(super) fn read(request: GuestRequest) -> Result<Guest, Fault> {
        let whole = request.guest.ok_or_else(|| invalid("the call names no guest"))?;
        let id = whole.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        check_id("guest", &id)?;
        Ok(Guest { whole, id })
    }

    /// What Haar adds.
    pub(super) fn extra(&self) -> Result<Extra, Fault> {
        let haar = self.whole.get("haar").cloned().unwrap_or_else(|| Map::new().into());
        let extra: Extra =
            serde_json::from_value(haar).map_err(|error| unreadable("the guest's haar", &error))?;
        // They are written down, and said again in refusals.
        if extra.life.len() > MAX_NAME_BYTES
            || extra.cloud.as_ref().is_some_and(|cloud| cloud.len() > MAX_NAME_BYTES)
        {
            return Err(invalid(format!("haar.cloud and haar.life have at most {MAX_NAME_BYTES} bytes")));
        }
        Ok(extra)
    }

    /// What the container shall be.
    pub(super) fn wish(&self) -> Result<Wish, Fault> {
        let guest: rpc::Guest = serde_json::from_value(Value::Object(self.without_haar()))
            .map_err(|error| unreadable("the guest", &error))?;
        let extra = self.extra()?;
        check_id("image", &guest.image)?;
        network::check(&guest.nics)?;
        if guest.memory != 0 && !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&guest.memory) {
            let text = format!("memory must be {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB, or 0 for no limit");
            return Err(invalid(text));
        }
        if guest.cpu > MAX_CPUS {
            return Err(invalid(format!("cpu must be at most {MAX_CPUS}, or 0 for no limit")));
        }
        let hostname = if extra.name.is_empty() { self.id.clone() } else { extra.name };
        check_hostname(&hostname)?;
        check_words(&extra.entrypoint, &extra.command, &extra.env)?;
        Ok(Wish {
            image: guest.image,
            hostname,
            memory: guest.memory,
            cpu: guest.cpu,
            // What a start has filled in is no wish.
            nics: guest.nics.into_iter().map(|nic| rpc::Nic { device: String::new(), ..nic }).collect(),
            restart: extra.restart,
            entrypoint: extra.entrypoint,
            command: extra.command,
            env: extra.env,
        })
    }

    fn without_haar(&self) -> Map<String, Value> {
        let mut whole = self.whole.clone();
        whole.remove("haar");
        if let Some(disks) = whole.get_mut("disks").and_then(Value::as_array_mut) {
            disks.clear();
        }
        whole
    }

    /// The answer: the guest in this state, its interfaces with these devices on the host.
    pub(super) fn answer(mut self, state: &str, devices: &[String]) -> GuestResponse {
        self.whole.insert("state".to_owned(), state.into());
        let nics = self.whole.get_mut("nics").and_then(Value::as_array_mut).into_iter().flatten();
        for (index, nic) in nics.enumerate() {
            if let Some(nic) = nic.as_object_mut() {
                match devices.get(index) {
                    Some(device) => nic.insert("device".to_owned(), device.as_str().into()),
                    None => nic.remove("device"),
                };
            }
        }
        GuestResponse { guest: self.whole }
    }
}

fn check_hostname(name: &str) -> Result<(), Fault> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    if (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with(['.', '-']) {
        return Ok(());
    }
    Err(invalid("haar.name must be a host name of at most 63 letters, digits, \".\" and \"-\""))
}

fn check_words(entrypoint: &[String], command: &[String], env: &[String]) -> Result<(), Fault> {
    let words = entrypoint.iter().chain(command).chain(env);
    if words.clone().map(String::len).sum::<usize>() > MAX_WORDS_BYTES {
        return Err(invalid(format!(
            "entrypoint, command and env have at most {MAX_WORDS_BYTES} bytes in all"
        )));
    }
    if words.clone().any(|word| word.contains('\0')) {
        return Err(invalid("entrypoint, command and env hold no zero bytes"));
    }
    if env.iter().any(|one| one.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
        return Err(invalid("each variable of the environment is NAME=value"));
    }
    Ok(())
}

/// The reader's words repeat what they are about, however long.
fn unreadable(what: &str, error: &serde_json::Error) -> Fault {
    let words: String = error.to_string().chars().take(200).collect();
    invalid(format!("{what} cannot be read: {words}"))
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(FaultCode::Invalid, message)
}
