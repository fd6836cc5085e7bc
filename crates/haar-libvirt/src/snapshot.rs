//! Snapshots inside the qcow2 files of a guest that runs, taken by its QEMU: `Libvirt.Snapshot`, `DropSnapshot`.
//!
//! Promised: all named disks at the same moment, or none; asked again, a snapshot that stands on all of them is the
//! answer. Where the guest runs and has an agent its file systems are frozen meanwhile, and thawed whatever comes of it;
//! else a snapshot is what a power cut would leave.
//! Deliberately absent: guests that are off, whose files are the storage sub-agent's; the guest's memory; rolling back.

use haar_api::rpc::libvirt::{GuestAgent, RunningSnapshotRequest, RunningSnapshotResponse, SnapshotDisk};
use haar_api::rpc::{Fault, FaultCode, Guest, GuestRequest};
use serde_json::{Value, json};
use virt::connect::Connect;

use crate::connection::fault;
use crate::domain::Found;
use crate::guest_agent::Frozen;
use crate::hold::Due;
use crate::state::State;
use crate::{ffi, guest_agent, power};

/// Bytes of a name; QEMU would cut off what is beyond 255.
const NAME_BYTES: usize = 200;

/// A disk as QEMU has it.
struct Node {
    disk: SnapshotDisk,
    /// QEMU's name of it.
    node: String,
    /// Names of its snapshots that were asked for.
    snapshots: Vec<String>,
}

/// What a name may end with in the place of its order, to mean whoever's it is.
const ANY_ORDER: &str = "@*";

/// What came of taking it.
pub(crate) struct Taken {
    pub(crate) answer: RunningSnapshotResponse,
    /// When the guest is to be thawed.
    pub(crate) due: Due,
}

/// Takes a snapshot of a running guest's disks. One that is frozen stays so; `known` is how many file systems that were.
///
/// # Errors
/// `not_found` without a domain or disk, `invalid` when it does not run or a disk is no qcow2 file, `conflict` when
/// only some of the disks have a snapshot of that name, libvirt's and QEMU's.
pub(crate) fn take(connection: &Connect, asked: &RunningSnapshotRequest, known: u32) -> Result<Taken, Fault> {
    let (guest, found, nodes) = nodes(connection, asked)?;
    if asked.name.ends_with(ANY_ORDER) {
        return Err(Fault::new(FaultCode::Invalid, format!("{:?} names no one snapshot", asked.name)));
    }
    let standing = nodes.iter().filter(|node| !node.snapshots.is_empty()).count();
    if standing > 0 && standing < nodes.len() {
        let message = format!(
            "only {standing} of {} disks have a snapshot {:?}: drop it first",
            nodes.len(),
            asked.name
        );
        return Err(Fault::new(FaultCode::Conflict, message));
    }
    let (mut file_systems, mut due) = (0, Due::AsBefore);
    if standing == 0 {
        // One that stands still writes nothing, and hears nothing either.
        let runs = matches!(found.state, State::Running | State::Blocked);
        let frozen = if runs { Some(freeze(connection, asked, known)?) } else { None };
        let taken = take_all(&found, &nodes, &asked.name);
        if let Some(frozen) = frozen {
            file_systems = frozen.answer.file_systems;
            let thawed = match frozen.answer.agent {
                GuestAgent::Answers if !frozen.was_before => {
                    due = Due::Never;
                    ffi::thaw(&found.domain).map(drop)
                }
                GuestAgent::Answers | GuestAgent::Absent => Ok(()),
                // It was told to freeze and did not say whether it has.
                GuestAgent::Silent => {
                    due = Due::NOW;
                    Ok(())
                }
            };
            taken?;
            thawed.map_err(|e| fault("thaw the guest's file systems", &e))?;
        } else {
            taken?;
        }
    }
    Ok(Taken { answer: answer(guest, &found, nodes, file_systems), due })
}

fn freeze(connection: &Connect, asked: &RunningSnapshotRequest, known: u32) -> Result<Frozen, Fault> {
    let request = GuestRequest { guest: asked.guest.clone(), ..GuestRequest::default() };
    guest_agent::freeze(connection, &request, known)
}

/// Removes a snapshot from a running guest's disks; where there is none is fine. A name that ends with `@*` means those
/// of any order, and then there must be one.
///
/// # Errors
/// As [`take`], but for the conflict.
pub(crate) fn drop_it(
    connection: &Connect,
    asked: &RunningSnapshotRequest,
) -> Result<RunningSnapshotResponse, Fault> {
    let (guest, found, nodes) = nodes(connection, asked)?;
    if asked.name.ends_with(ANY_ORDER) && nodes.iter().all(|node| node.snapshots.is_empty()) {
        let message = format!("the domain {} has no snapshot {:?}", guest.id, asked.name);
        return Err(Fault::new(FaultCode::NotFound, message));
    }
    for node in &nodes {
        for name in &node.snapshots {
            let arguments = json!({"device": node.node, "name": name});
            qmp(&found, "blockdev-snapshot-delete-internal-sync", &arguments)?;
        }
    }
    Ok(answer(guest, &found, nodes, 0))
}

fn answer(guest: Guest, found: &Found, nodes: Vec<Node>, file_systems: u32) -> RunningSnapshotResponse {
    let disks = nodes.into_iter().map(|node| node.disk).collect();
    RunningSnapshotResponse { guest: Some(found.answer(guest)), disks, file_systems }
}

fn take_all(found: &Found, nodes: &[Node], name: &str) -> Result<(), Fault> {
    let action = |node: &Node| json!({"type": "blockdev-snapshot-internal-sync", "data": {"device": node.node, "name": name}});
    let actions: Vec<Value> = nodes.iter().map(action).collect();
    qmp(found, "transaction", &json!({"actions": actions})).map(drop)
}

fn nodes(connection: &Connect, asked: &RunningSnapshotRequest) -> Result<(Guest, Found, Vec<Node>), Fault> {
    check_name(&asked.name)?;
    let request = GuestRequest { guest: asked.guest.clone(), ..GuestRequest::default() };
    let (guest, found) = power::active(connection, &request)?;
    let blocks = qmp(&found, "query-block", &json!({}))?;
    let mut nodes = Vec::new();
    let named = |device: &String| asked.devices.is_empty() || asked.devices.contains(device);
    for disk in found.described.guest.disks.iter().filter(|disk| named(&disk.device)) {
        nodes.push(node(&blocks, &disk.device, &disk.source, &asked.name)?);
    }
    if let Some(unknown) =
        asked.devices.iter().find(|device| nodes.iter().all(|node| node.disk.device != **device))
    {
        let message = format!("the domain {} has no disk {unknown:?}", guest.id);
        return Err(Fault::new(FaultCode::NotFound, message));
    }
    if nodes.is_empty() {
        return Err(Fault::new(FaultCode::Invalid, format!("the domain {} has no disk", guest.id)));
    }
    Ok((guest, found, nodes))
}

fn node(blocks: &Value, device: &str, source: &str, name: &str) -> Result<Node, Fault> {
    let inserted = blocks.as_array().into_iter().flatten().map(|block| &block["inserted"]);
    let own = inserted.clone().find(|inserted| inserted["image"]["filename"] == source);
    let Some((inserted, node)) = own.and_then(|own| Some((own, own["node-name"].as_str()?))) else {
        let message = format!("QEMU does not name the disk {device} with the file {source}");
        return Err(Fault::new(FaultCode::Failed, message));
    };
    if inserted["drv"] != "qcow2" {
        let message = format!("the disk {device} is no qcow2 file: QEMU can take no snapshot inside it");
        return Err(Fault::new(FaultCode::Invalid, message));
    }
    let snapshots = inserted["image"]["snapshots"].as_array().into_iter().flatten();
    let names = snapshots.filter_map(|snapshot| snapshot["name"].as_str());
    let snapshots = names.filter(|standing| is_meant(name, standing)).map(str::to_owned).collect();
    let disk = SnapshotDisk { device: device.to_owned(), source: source.to_owned() };
    Ok(Node { disk, node: node.to_owned(), snapshots })
}

/// Whether the snapshot that stands is the one asked for.
fn is_meant(asked: &str, standing: &str) -> bool {
    let of_any = asked.strip_suffix(ANY_ORDER).and_then(|bare| standing.strip_prefix(bare));
    standing == asked || of_any.is_some_and(|order| order.is_empty() || order.starts_with('@'))
}

fn check_name(name: &str) -> Result<(), Fault> {
    if (1..=NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control) {
        return Ok(());
    }
    let message =
        format!("the snapshot's name {name:?} must have 1 to {NAME_BYTES} bytes and no control characters");
    Err(Fault::new(FaultCode::Invalid, message))
}

/// A command to QEMU itself, and what it returns.
fn qmp(found: &Found, command: &str, arguments: &Value) -> Result<Value, Fault> {
    let doing = format!("have QEMU carry out {command}");
    let text = json!({"execute": command, "arguments": arguments}).to_string();
    let answered = found.domain.qemu_monitor_command(&text, 0).map_err(|e| fault(&doing, &e))?;
    let failed =
        |why: &dyn std::fmt::Display| Fault::new(FaultCode::Failed, format!("cannot {doing}: {why}"));
    let mut answer: Value = serde_json::from_str(&answered).map_err(|error| failed(&error))?;
    match answer["error"]["desc"].as_str() {
        Some(words) => Err(failed(&words)),
        None => Ok(answer["return"].take()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_its_file_and_must_be_qcow2() {
        let block = |file: &str, drv: &str| {
            json!({"inserted": {"node-name": format!("n{file}"), "drv": drv,
                "image": {"filename": file, "snapshots": [{"name": "s1"}]}}})
        };
        let blocks = json!([{"device": "empty"}, block("/a", "qcow2"), block("/b", "raw")]);
        let found = node(&blocks, "vda", "/a", "s1").unwrap();
        assert_eq!((found.node.as_str(), found.snapshots), ("n/a", vec!["s1".to_owned()]));
        assert!(node(&blocks, "vda", "/a", "s2").unwrap().snapshots.is_empty());
        assert_eq!(node(&blocks, "vdb", "/b", "s1").err().unwrap().code, FaultCode::Invalid);
        assert_eq!(node(&blocks, "vdc", "/c", "s1").err().unwrap().code, FaultCode::Failed);
    }

    #[test]
    fn a_name_of_any_order_means_those_of_its_name_and_no_other() {
        for (standing, is_so) in
            [("haar:a", true), ("haar:a@7", true), ("haar:ab", false), ("haar:ab@7", false)]
        {
            assert_eq!(is_meant("haar:a@*", standing), is_so, "{standing}");
        }
        assert!(is_meant("haar:a@7", "haar:a@7") && !is_meant("haar:a", "haar:a@7"));
    }

    #[test]
    fn a_name_is_short_text() {
        assert!(check_name("s1@2.7").is_ok());
        for name in ["", "a\nb", &"x".repeat(201)] {
            assert_eq!(check_name(name).unwrap_err().code, FaultCode::Invalid, "{name:?}");
        }
    }
}
