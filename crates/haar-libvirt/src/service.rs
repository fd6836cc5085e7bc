//! The service `Libvirt`: which method runs which function, for how long at most, one at a time per guest.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use haar_api::rpc::{
    Fault, FaultCode, Guest, GuestListResponse, GuestRequest, GuestResponse, HostResponse, Nothing,
};
use haar_subagents::kit;
use virt::connect::Connect;

use crate::accel::Probe;
use crate::connection::{Pool, fault};
use crate::console::Folders;
use crate::xml::Switch;
use crate::{define, domain, metrics, power};

/// How long a question may take.
const LOOK: Duration = Duration::from_secs(20);

/// How long a change may take: QEMU's start on a loaded host is the slowest of them, seconds.
const CHANGE: Duration = Duration::from_secs(90);

/// What the methods know of this host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) probe: Probe,
    pub(crate) folders: Folders,
    /// QEMU's version once known: asking makes libvirtd start a QEMU on some hosts, which takes seconds.
    /// A QEMU that is replaced while this program runs is seen after its next start.
    pub(crate) qemu: OnceLock<String>,
    /// Why guests' frames are not filtered here, if so.
    pub(crate) unfiltered: Option<String>,
    /// What the bridges of foreign callers are; absent, each is looked at.
    pub(crate) switch: Option<Switch>,
}

impl Host {
    /// What the bridge of that name is. One that is not there (yet) is taken for an Open vSwitch, as the seed's are.
    pub(crate) fn switch_of(&self, bridge: &str) -> Switch {
        let is_linux = || std::fs::exists(format!("/sys/class/net/{bridge}/bridge")).unwrap_or(false);
        self.switch.unwrap_or_else(|| if is_linux() { Switch::Bridge } else { Switch::OpenVswitch })
    }
}

type Action = fn(&Connect, &Host, &GuestRequest) -> Result<Guest, Fault>;

/// The methods on one guest.
const METHODS: [(&str, Duration, Action); 11] = [
    ("Libvirt.CreateGuest", CHANGE, define::create_guest),
    ("Libvirt.Create", CHANGE, define::create),
    ("Libvirt.Delete", CHANGE, define::delete),
    ("Libvirt.Run", CHANGE, power::run),
    ("Libvirt.Reboot", CHANGE, power::reboot),
    ("Libvirt.Restart", CHANGE, power::restart),
    ("Libvirt.Shutdown", CHANGE, power::shutdown),
    ("Libvirt.Poweroff", CHANGE, power::poweroff),
    ("Libvirt.Suspend", CHANGE, power::suspend),
    ("Libvirt.Resume", CHANGE, power::resume),
    ("Libvirt.Status", LOOK, power::status),
];

type Measure = fn(&Connect, &metrics::Request) -> Result<metrics::Response, Fault>;

/// The methods that only count.
const METRICS: [(&str, Measure); 3] = [
    ("Libvirt.CPUMetrics", metrics::cpu),
    ("Libvirt.DiskMetrics", metrics::disk),
    ("Libvirt.NicMetrics", metrics::nic),
];

/// The server with every method of `Libvirt`.
pub(crate) fn server(pool: Pool, host: Host) -> kit::Server {
    let mut server = kit::Server::new();
    let host = Arc::new(host);
    let turns = kit::per_guest();
    for (name, limit, action) in METHODS {
        let (pool, host, turns) = (pool.clone(), Arc::clone(&host), turns.clone());
        server.method(name, move |request: GuestRequest| {
            let (pool, host, turns) = (pool.clone(), Arc::clone(&host), turns.clone());
            async move {
                let id = request.guest.as_ref().map_or("", |guest| &guest.id);
                let turn = in_turn(&turns, id, limit).await?;
                let guest =
                    pool.run(limit, turn, move |connection| action(connection, &host, &request)).await?;
                Ok(GuestResponse { guest: Some(guest), ..GuestResponse::default() })
            }
        });
    }
    for (name, measure) in METRICS {
        let pool = pool.clone();
        // They take no turn: a guest is measured while it is worked on.
        server.method(name, move |request: metrics::Request| {
            let pool = pool.clone();
            async move { pool.run(LOOK, (), move |connection| measure(connection, &request)).await }
        });
    }
    let listing = pool.clone();
    server.method("Libvirt.List", move |_: Nothing| {
        let pool = listing.clone();
        async move { pool.run(LOOK, (), list).await }
    });
    server.method("Libvirt.Host", move |_: Nothing| {
        let (pool, host) = (pool.clone(), Arc::clone(&host));
        async move { pool.run(CHANGE, (), move |connection| describe(connection, &host)).await }
    });
    server
}

/// Waits for the guest's turn, but not for ever: a call that hangs in libvirtd keeps it.
async fn in_turn(turns: &kit::PerGuest, id: &str, limit: Duration) -> Result<kit::Turn, Fault> {
    tokio::time::timeout(limit, turns.turn(id)).await.map_err(|_| {
        let message =
            format!("an earlier call for the guest {id:?} has not ended within {} s", limit.as_secs());
        Fault::new(FaultCode::Unavailable, message)
    })
}

fn list(connection: &Connect) -> Result<GuestListResponse, Fault> {
    let guests = domain::all(connection)?.iter().map(domain::Found::itself).collect();
    Ok(GuestListResponse { guests })
}

fn describe(connection: &Connect, host: &Host) -> Result<HostResponse, Fault> {
    let libvirt = connection.get_lib_version().map_err(|e| fault("tell its version", &e))?;
    if host.qemu.get().is_none() {
        let qemu = connection.get_hyp_version().map_err(|e| fault("tell QEMU's version", &e))?;
        // Another call may have been first, with the same answer.
        let _ = host.qemu.set(version(qemu));
    }
    let node = connection.get_node_info().map_err(|e| fault("describe the host", &e))?;
    let (accel, accel_reason) = host.probe.auto();
    Ok(HostResponse {
        libvirt: version(libvirt),
        qemu: host.qemu.get().cloned().unwrap_or_default(),
        accel: accel.as_str().into(),
        accel_reason,
        cpus: node.cpus,
        // libvirt counts it in KiB.
        memory_mib: node.memory >> 10,
    })
}

/// libvirt packs a version as major × 1,000,000 + minor × 1,000 + release.
fn version(packed: u32) -> String {
    format!("{}.{}.{}", packed / 1_000_000, packed / 1_000 % 1_000, packed % 1_000)
}
