//! What libvirt counts of a running guest: `Libvirt.CPUMetrics`, `DiskMetrics`, `NicMetrics` (`mistify-wire` §3.5).
//!
//! Units are the seed's: times are seconds with fractions, the rest are bytes, packets and calls since the domain
//! was started. Disks and nics are those of the live domain, found by device and by MAC; the seed disk is none.
//! The CPU list has an entry for each host CPU, as the seed's; where the host keeps no such books (no cpuacct
//! cgroup), one entry with the sums. Either way its sums are the guest's.

use std::collections::BTreeMap;
use std::ffi::CString;

use haar_api::agent::{CpuMetrics, DiskMetrics, NicMetrics};
use haar_api::rpc::{Fault, FaultCode, Guest, GuestRequest};
use serde::{Deserialize, Serialize};
use virt::connect::Connect;
use virt_sys as sys;

use crate::connection::fault;
use crate::domain::Found;
use crate::ffi::{self, Counters};
use crate::power;

/// libvirt counts times in nanoseconds.
const NANOSECONDS: f64 = 1e9;

/// Parameters of the metrics methods.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Request {
    pub(crate) guest: Option<Guest>,
}

/// Result of the metrics methods; there is never a guest in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Response {
    guest: (),
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    disk: BTreeMap<String, DiskMetrics>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nic: BTreeMap<String, NicMetrics>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpu: Vec<CpuMetrics>,
}

/// CPU time by host CPU.
///
/// # Errors
/// `not_found` without a domain, `invalid` when it does not run, libvirt's.
pub(crate) fn cpu(connection: &Connect, asked: &Request) -> Result<Response, Fault> {
    let (_, found) = running(connection, asked)?;
    let cpu = match ffi::cpu_stats(&found.domain) {
        Ok(stats) if !stats.is_empty() => stats.iter().map(of_cpu).collect(),
        // No cgroup to read from; the processes' own clocks are always there.
        Ok(_) | Err(_) => vec![in_all(&found)?],
    };
    Ok(Response { kind: "cpu", cpu, ..Response::default() })
}

/// Counters of each disk, by its name in the guest.
///
/// # Errors
/// As [`cpu`].
pub(crate) fn disk(connection: &Connect, asked: &Request) -> Result<Response, Fault> {
    let (_, found) = running(connection, asked)?;
    let mut disk = BTreeMap::new();
    for device in found.described.guest.disks.iter().map(|disk| &disk.device) {
        let named = CString::new(device.as_str())
            .map_err(|error| Fault::new(FaultCode::Failed, error.to_string()))?;
        let counters =
            ffi::block_stats(&found.domain, &named).map_err(|e| fault("count what a disk did", &e))?;
        disk.insert(device.clone(), of_disk(device, &counters));
    }
    Ok(Response { kind: "disk", disk, ..Response::default() })
}

/// Counters of each network interface, by the name the caller gives to its MAC, else by its device on the host.
///
/// # Errors
/// As [`cpu`].
pub(crate) fn nic(connection: &Connect, asked: &Request) -> Result<Response, Fault> {
    let (guest, found) = running(connection, asked)?;
    let mut nic = BTreeMap::new();
    for live in found.described.guest.nics.iter().filter(|nic| !nic.device.is_empty()) {
        let counters = found.domain.interface_stats(&live.device);
        let counters = counters.map_err(|e| fault("count what a nic did", &e))?;
        let mut name = guest
            .nics
            .iter()
            .find(|asked| asked.mac.eq_ignore_ascii_case(&live.mac) && !asked.name.is_empty())
            .map_or(&live.device, |asked| &asked.name);
        if nic.contains_key(name) {
            // Two nics of one name are still two.
            name = &live.device;
        }
        nic.insert(name.clone(), of_nic(name, &counters));
    }
    Ok(Response { kind: "nic", nic, ..Response::default() })
}

fn running(connection: &Connect, asked: &Request) -> Result<(Guest, Found), Fault> {
    let request = GuestRequest { guest: asked.guest.clone(), ..GuestRequest::default() };
    power::active(connection, &request)
}

fn of_cpu(counters: &Counters) -> CpuMetrics {
    let time = |name| seconds(counter(counters, name));
    CpuMetrics {
        cpu_time: time(sys::VIR_DOMAIN_CPU_STATS_CPUTIME),
        vcpu_time: time(sys::VIR_DOMAIN_CPU_STATS_VCPUTIME),
    }
}

fn in_all(found: &Found) -> Result<CpuMetrics, Fault> {
    let info = found.domain.get_info().map_err(|e| fault("count CPU time", &e))?;
    let vcpus = ffi::vcpu_times(&found.domain, info.nr_virt_cpu).map_err(|e| fault("count CPU time", &e))?;
    Ok(CpuMetrics { cpu_time: seconds(info.cpu_time), vcpu_time: seconds(vcpus.iter().sum()) })
}

fn of_disk(device: &str, counters: &Counters) -> DiskMetrics {
    let count = |name| i64::try_from(counter(counters, name)).unwrap_or(i64::MAX);
    let time = |name| seconds(counter(counters, name));
    DiskMetrics {
        disk: device.to_owned(),
        read_ops: count(sys::VIR_DOMAIN_BLOCK_STATS_READ_REQ),
        read_bytes: count(sys::VIR_DOMAIN_BLOCK_STATS_READ_BYTES),
        read_time: time(sys::VIR_DOMAIN_BLOCK_STATS_READ_TOTAL_TIMES),
        write_ops: count(sys::VIR_DOMAIN_BLOCK_STATS_WRITE_REQ),
        write_bytes: count(sys::VIR_DOMAIN_BLOCK_STATS_WRITE_BYTES),
        write_time: time(sys::VIR_DOMAIN_BLOCK_STATS_WRITE_TOTAL_TIMES),
        flush_ops: count(sys::VIR_DOMAIN_BLOCK_STATS_FLUSH_REQ),
        flush_time: time(sys::VIR_DOMAIN_BLOCK_STATS_FLUSH_TOTAL_TIMES),
    }
}

fn of_nic(name: &str, counters: &virt::domain::InterfaceStats) -> NicMetrics {
    // libvirt says -1 of what the host does not count.
    let count = |value: i64| value.max(0);
    NicMetrics {
        name: name.to_owned(),
        rx_bytes: count(counters.rx_bytes),
        rx_packets: count(counters.rx_packets),
        rx_errors: count(counters.rx_errs),
        rx_drops: count(counters.rx_drop),
        tx_bytes: count(counters.tx_bytes),
        tx_packets: count(counters.tx_packets),
        tx_errors: count(counters.tx_errs),
        tx_drops: count(counters.tx_drop),
    }
}

/// 0 for what this libvirt does not count.
fn counter(counters: &Counters, name: &std::ffi::CStr) -> u64 {
    counters.iter().find(|(counted, _)| counted.as_bytes() == name.to_bytes()).map_or(0, |(_, value)| *value)
}

#[allow(clippy::cast_precision_loss, reason = "the wire has floats, as the seed's")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / NANOSECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_seeds_names_and_units() {
        let counters: Counters = [
            ("rd_operations", 3),
            ("rd_bytes", 4096),
            ("rd_total_times", 1_500_000_000),
            ("wr_operations", 2),
            ("wr_bytes", 512),
            ("wr_total_times", 250_000_000),
            ("flush_operations", 1),
            ("flush_total_times", 2_000_000),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let mut response = Response { kind: "disk", ..Response::default() };
        response.disk.insert("vda".into(), of_disk("vda", &counters));
        assert_eq!(
            serde_json::to_string(&response).unwrap(),
            r#"{"guest":null,"type":"disk","disk":{"vda":{"disk":"vda","read_ops":3,"read_bytes":4096,"read_time":1.5,"write_ops":2,"write_bytes":512,"write_time":0.25,"flush_ops":1,"flush_time":0.002}}}"#
        );
        let cpu = [("cpu_time", 12_000_000_000), ("vcpu_time", 500_000_000)];
        let cpu = of_cpu(&cpu.map(|(name, value)| (name.to_owned(), value)).into());
        assert_eq!(cpu, CpuMetrics { cpu_time: 12.0, vcpu_time: 0.5 });
    }
}
