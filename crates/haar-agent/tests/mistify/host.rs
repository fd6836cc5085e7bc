//! A host of the test's own behind the sub-agents: what is on it, and what was really done to it, in order.
//!
//! Its methods are "make it so", but for those that do it again when asked again. At one call it may break: the
//! sub-agent, or the agent that asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::stub::{Manner, Stub};

/// What breaks at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The sub-agent, before it has done anything.
    SubAgentBefore,
    /// The sub-agent, when it is done and has not answered.
    SubAgentAfter,
    /// What the sub-agent works with, before it has done anything: it says so.
    UnavailableBefore,
    /// The same, when it is done.
    UnavailableAfter,
    /// The agent, before anything was done for it.
    AgentBefore,
    /// The agent, when it is done.
    AgentAfter,
}

/// How guests are held still for their snapshots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// They are not.
    #[default]
    No,
    /// By an agent inside.
    Frozen,
    /// There is none.
    Suspended,
    /// By an agent inside, at the word of whoever takes the snapshot inside the qcow2 files.
    Inside,
}

impl Quiet {
    pub(crate) fn has_agent(self) -> bool {
        matches!(self, Quiet::Frozen | Quiet::Inside)
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) disks: BTreeSet<String>,
    /// Whether each runs.
    pub(crate) domains: BTreeMap<String, bool>,
    /// As `<dataset>@<name>`, with the order that took each.
    pub(crate) snapshots: BTreeMap<String, String>,
    /// How its guests can be held still.
    pub(crate) quiet: Quiet,
    /// Whether the guests' file systems are frozen.
    pub(crate) frozen: bool,
    /// Whether the guests' processors stand still.
    pub(crate) suspended: bool,
    /// Questions to which an agent inside a guest will not answer.
    pub(crate) silences: usize,
    /// What was done.
    pub(crate) effects: Vec<String>,
    /// Calls until it breaks, and how.
    pub(crate) breaks: Option<(usize, Break)>,
    /// The agent's process.
    pub(crate) agent: Option<Pid>,
}

/// The host, as the test and its stub share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host(Arc<Mutex<State>>);

impl Host {
    pub(crate) async fn stub(&self) -> Stub {
        let host = self.clone();
        Stub::answering(Arc::new(move |method, params| host.state().call(method, params))).await
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    pub(crate) fn is_empty(&self) -> bool {
        self.disks.is_empty() && self.domains.is_empty() && self.snapshots.is_empty()
    }

    fn call(&mut self, method: &str, params: &Value) -> Manner {
        let breaks = match &mut self.breaks {
            Some((1, how)) => Some(*how),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if breaks.is_some() {
            self.breaks = None;
        }
        if breaks == Some(Break::AgentBefore) {
            self.kill_agent();
        }
        if matches!(breaks, Some(Break::AgentBefore | Break::SubAgentBefore)) {
            return Manner::Crash;
        }
        if breaks == Some(Break::UnavailableBefore) {
            return Manner::Error("unavailable: libvirtd does not answer");
        }
        let answer = self.act(method, params);
        if breaks.is_some() && method == "Libvirt.Snapshot" {
            // The worst moment: what it froze by itself is not thawed yet.
            self.frozen = true;
        }
        if breaks == Some(Break::AgentAfter) {
            self.kill_agent();
        }
        match (breaks, answer) {
            (Some(Break::UnavailableAfter), _) => Manner::Error("unavailable: libvirtd broke off"),
            (Some(_), _) => Manner::Crash,
            (None, Ok(result)) => Manner::Result(result),
            (None, Err(words)) => Manner::Error(words),
        }
    }

    pub(crate) fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            kill(agent, Signal::SIGKILL).unwrap();
        }
    }

    fn act(&mut self, method: &str, params: &Value) -> Result<Value, &'static str> {
        if method.starts_with("ImageStore.") && method.contains("Snapshot") {
            return self.act_on_snapshots(method, params);
        }
        if method.contains("Snapshot") {
            return self.act_inside(method, params);
        }
        let (mut guest, quiet) = (params["guest"].clone(), self.quiet);
        let id = guest["id"].as_str().unwrap().to_owned();
        let is_done = match method {
            "ImageStore.CreateGuestDisks" => self.disks.insert(id),
            "ImageStore.DeleteGuestsDisks" => {
                self.snapshots.retain(|name, _| !name.contains(&id));
                self.disks.remove(&id)
            }
            "Libvirt.CreateGuest" if self.domains.contains_key(&id) => false,
            "Libvirt.CreateGuest" => {
                if quiet == Quiet::Inside {
                    guest["disks"][0]["device"] = json!("vda");
                    guest["disks"][0]["haar"] = json!({"format": "qcow2"});
                }
                self.domains.insert(id, false).is_none()
            }
            "Libvirt.Delete" => self.domains.remove(&id).map(|_| true).ok_or("not found")?,
            _ => {
                let runs = self.domains.get_mut(&id).ok_or("not found")?;
                let before = *runs;
                match method {
                    "Libvirt.Run" => *runs = true,
                    "Libvirt.Shutdown" => *runs = false,
                    "Libvirt.Reboot" | "Libvirt.Status" => {}
                    "Libvirt.Freeze" | "Libvirt.Thaw" if !quiet.has_agent() => {
                        return Ok(json!({"guest": guest, "agent": "absent"}));
                    }
                    "Libvirt.Thaw" if self.silences > 0 => {
                        self.silences -= 1;
                        return Ok(json!({"guest": guest, "agent": "silent"}));
                    }
                    "Libvirt.Freeze" | "Libvirt.Thaw" => {
                        self.frozen = method == "Libvirt.Freeze";
                        return Ok(json!({"guest": guest, "agent": "answers"}));
                    }
                    "Libvirt.Suspend" | "Libvirt.Resume" => {
                        self.suspended = method == "Libvirt.Suspend";
                        return Ok(json!({"guest": guest}));
                    }
                    _ => return Err("there is no such method"),
                }
                guest["state"] = json!(if *runs { "running" } else { "shutoff" });
                before != *runs || method == "Libvirt.Reboot"
            }
        };
        if is_done {
            self.effects.push(method.to_owned());
        }
        Ok(json!({"guest": guest}))
    }

    /// Snapshots that the guest's own hypervisor takes.
    fn act_inside(&mut self, method: &str, params: &Value) -> Result<Value, &'static str> {
        let name = params["name"].as_str().and_then(|name| name.strip_prefix("haar:")).unwrap();
        let (name, order) = name.split_once('@').unwrap();
        let id = format!("guests/{}@{name}", params["guest"]["id"].as_str().unwrap());
        let is_done = match method {
            "Libvirt.Snapshot" => self.snapshots.insert(id, order.to_owned()).is_none(),
            _ if order == "*" && !self.snapshots.contains_key(&id) => {
                return Err("not_found: no such snapshot");
            }
            _ => self.snapshots.remove(&id).is_some(),
        };
        if is_done {
            self.effects.push(method.to_owned());
        }
        Ok(json!({}))
    }

    fn act_on_snapshots(&mut self, method: &str, params: &Value) -> Result<Value, &'static str> {
        let mut id = params["id"].as_str().unwrap().to_owned();
        match method {
            "ImageStore.CreateSnapshot" => {
                id = format!("{id}@{}", params["dest"].as_str().unwrap());
                let order = params["haar"]["order"].as_str().unwrap_or_default();
                assert!(self.frozen || self.suspended || params["haar"]["quiet"] != true, "{params}");
                match self.snapshots.get(&id) {
                    Some(found) if found == order && !order.is_empty() => {
                        return Ok(json!({"snapshots": []}));
                    }
                    Some(_) => return Err("conflict: a snapshot of that name exists"),
                    None => drop(self.snapshots.insert(id.clone(), order.to_owned())),
                }
            }
            "ImageStore.ListSnapshots" => {
                let wire = |(id, order): (&String, &String)| json!({"id": id, "haar": {"order": order}});
                return Ok(json!({"snapshots": self.snapshots.iter().map(wire).collect::<Vec<_>>()}));
            }
            "ImageStore.VerifySnapshot" => return Ok(json!({"snapshots": []})),
            _ if !self.snapshots.contains_key(&id) => return Err("not found"),
            "ImageStore.DeleteSnapshot" => drop(self.snapshots.remove(&id)),
            _ => {}
        }
        self.effects.push(method.to_owned());
        Ok(json!({"snapshots": [{"id": id, "size": 1}]}))
    }
}
