//! The service `Libvirt`: which method runs which function, for how long at most, one at a time per guest.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use haar_api::rpc::libvirt::{
    ChangesRequest, GuestAgentResponse, RunningSnapshotRequest, RunningSnapshotResponse,
};
use haar_api::rpc::{
    Fault, FaultCode, Guest, GuestListResponse, GuestRequest, GuestResponse, HostResponse, Nothing,
};
use haar_subagents::kit;
use virt::connect::Connect;

use crate::accel::Probe;
use crate::connection::{Pool, fault};
use crate::console::Folders;
use crate::events::Journal;
use crate::xml::Switch;
use crate::{define, domain, filter, guest_agent, metrics, power, screen, snapshot};

/// How long a question may take.
const LOOK: Duration = Duration::from_secs(20);

/// How long a change may take: QEMU's start on a loaded host is the slowest of them, seconds.
const CHANGE: Duration = Duration::from_secs(90);

/// What the methods know of this host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) probe: Probe,
    pub(crate) folders: Folders,
    /// Folder for links to the guests' screens.
    pub(crate) screens: PathBuf,
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
const METHODS: [(&str, Duration, Action); 10] = [
    ("Libvirt.CreateGuest", CHANGE, define::create_guest),
    ("Libvirt.Create", CHANGE, define::create),
    ("Libvirt.Delete", CHANGE, define::delete),
    ("Libvirt.Run", CHANGE, power::run),
    ("Libvirt.Reboot", CHANGE, power::reboot),
    ("Libvirt.Restart", CHANGE, power::restart),
    ("Libvirt.Poweroff", CHANGE, power::poweroff),
    ("Libvirt.Suspend", CHANGE, power::suspend),
    ("Libvirt.Resume", CHANGE, power::resume),
    ("Libvirt.Status", LOOK, power::status),
];

/// How long the agent inside a guest may take: a failed freeze asks it twice.
const INSIDE: Duration = Duration::from_secs(2 * guest_agent::LIMIT_S as u64 + 10);
/// Between two looks whether a guest has shut down.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After this long its button is pressed again.
const PRESS_AGAIN: Duration = Duration::from_secs(10);

type Ask = fn(&Connect, &GuestRequest) -> Result<GuestAgentResponse, Fault>;

type Snapshot = fn(&Connect, &RunningSnapshotRequest) -> Result<RunningSnapshotResponse, Fault>;

type Measure = fn(&Connect, &metrics::Request) -> Result<metrics::Response, Fault>;

/// The methods that only count.
const METRICS: [(&str, Measure); 3] = [
    ("Libvirt.CPUMetrics", metrics::cpu),
    ("Libvirt.DiskMetrics", metrics::disk),
    ("Libvirt.NicMetrics", metrics::nic),
];

/// The server with every method of `Libvirt`.
pub(crate) fn server(pool: Pool, host: Host, journal: &Journal) -> kit::Server {
    let mut server = kit::Server::new();
    let hands = Hands { pool, host: Arc::new(host), turns: kit::per_guest() };
    for (name, limit, action) in METHODS {
        let hands = hands.clone();
        server.method(name, move |request: GuestRequest| {
            let hands = hands.clone();
            async move { hands.act(limit, action, request).await.map(answer) }
        });
    }
    for (name, measure) in METRICS {
        let pool = hands.pool.clone();
        // They take no turn: a guest is measured while it is worked on.
        server.method(name, move |request: metrics::Request| {
            let pool = pool.clone();
            async move { pool.run(LOOK, (), move |connection| measure(connection, &request)).await }
        });
    }
    let shutting = hands.clone();
    server.method("Libvirt.Shutdown", move |request: GuestRequest| {
        let hands = shutting.clone();
        async move { hands.shut_down(request).await.map(answer) }
    });
    inside(&mut server, &hands);
    let (pool, host) = (hands.pool.clone(), hands.host);
    let pruning = pool.clone();
    server.method("Libvirt.Prune", move |_: Nothing| {
        let pool = pruning.clone();
        async move { pool.run(CHANGE, (), |connection| filter::prune(connection).map(|()| Nothing {})).await }
    });
    let listing = pool.clone();
    server.method("Libvirt.List", move |_: Nothing| {
        let pool = listing.clone();
        async move { pool.run(LOOK, (), list).await }
    });
    let journal = journal.clone();
    server.method("Libvirt.Changes", move |request: ChangesRequest| {
        let journal = journal.clone();
        async move { Ok(journal.changes(&request).await) }
    });
    server.method("Libvirt.Host", move |_: Nothing| {
        let (pool, host) = (pool.clone(), Arc::clone(&host));
        async move { pool.run(CHANGE, (), move |connection| describe(connection, &host)).await }
    });
    server
}

/// The methods that reach into a running guest: its agent, its disks and its screen.
fn inside(server: &mut kit::Server, hands: &Hands) {
    let asks: [(&str, Ask); 3] = [
        ("Libvirt.Ping", guest_agent::ping),
        ("Libvirt.Freeze", guest_agent::freeze),
        ("Libvirt.Thaw", guest_agent::thaw),
    ];
    for (name, ask) in asks {
        let hands = hands.clone();
        server.method(name, move |request: GuestRequest| {
            let hands = hands.clone();
            async move { hands.ask_inside(name, ask, request).await }
        });
    }
    let snapshots: [(&str, Snapshot); 2] =
        [("Libvirt.Snapshot", snapshot::take), ("Libvirt.DropSnapshot", snapshot::drop_it)];
    for (name, act) in snapshots {
        let hands = hands.clone();
        server.method(name, move |request: RunningSnapshotRequest| {
            let hands = hands.clone();
            async move {
                let id = request.guest.as_ref().map_or("", |guest| &guest.id);
                let turn = in_turn(&hands.turns, id, CHANGE).await?;
                hands.pool.run(CHANGE, turn, move |connection| act(connection, &request)).await
            }
        });
    }
    let hands = hands.clone();
    server.method("Libvirt.Vnc", move |request: GuestRequest| {
        let (pool, host) = (hands.pool.clone(), Arc::clone(&hands.host));
        async move { pool.run(LOOK, (), move |connection| screen::vnc(connection, &host, &request)).await }
    });
}

fn answer(guest: Guest) -> GuestResponse {
    GuestResponse { guest: Some(guest), ..GuestResponse::default() }
}

/// What every method has at hand.
#[derive(Clone)]
struct Hands {
    pool: Pool,
    host: Arc<Host>,
    turns: kit::PerGuest,
}

impl Hands {
    /// Carries out an action in the guest's turn.
    async fn act(&self, limit: Duration, action: Action, request: GuestRequest) -> Result<Guest, Fault> {
        let id = request.guest.as_ref().map_or("", |guest| &guest.id);
        let turn = in_turn(&self.turns, id, limit).await?;
        let host = Arc::clone(&self.host);
        self.pool.run(limit, turn, move |connection| action(connection, &host, &request)).await
    }

    /// Asks the guest to shut down. With `limit_s` among the arguments the answer waits until it has, and after so
    /// many seconds the plug is pulled; others may act on the guest meanwhile.
    async fn shut_down(&self, request: GuestRequest) -> Result<Guest, Fault> {
        let limit = power::shutdown_limit(&request)?;
        let mut guest = self.act(CHANGE, power::shutdown, request.clone()).await?;
        let Some(limit) = limit else { return Ok(guest) };
        let began = tokio::time::Instant::now();
        let mut pressed = began;
        while !power::is_off(&guest) {
            if began.elapsed() >= limit {
                tracing::warn!(
                    guest = guest.id,
                    limit_s = limit.as_secs(),
                    "did not shut down, its plug is pulled"
                );
                return self.act(CHANGE, power::poweroff, request).await;
            }
            tokio::time::sleep(LOOK_EVERY.min(limit.saturating_sub(began.elapsed()))).await;
            // A guest that boots does not hear its button yet.
            let action: Action =
                if pressed.elapsed() >= PRESS_AGAIN { power::shutdown } else { power::status };
            if pressed.elapsed() >= PRESS_AGAIN {
                pressed = tokio::time::Instant::now();
            }
            guest = self.act(CHANGE, action, request.clone()).await?;
        }
        Ok(guest)
    }

    /// Asks the agent inside; what is frozen is thawed in time.
    async fn ask_inside(
        &self,
        method: &str,
        ask: Ask,
        request: GuestRequest,
    ) -> Result<GuestAgentResponse, Fault> {
        let thaw_after = guest_agent::frozen_for(&request)?;
        let id = request.guest.as_ref().map_or("", |guest| &guest.id);
        let turn = in_turn(&self.turns, id, LOOK).await?;
        let again = request.clone();
        let asked = self.pool.run(INSIDE, turn, move |connection| ask(connection, &request)).await;
        // Of a freeze that was not answered in time nobody knows what became of it.
        let may_be_frozen = asked.as_ref().map_or(true, guest_agent::is_frozen);
        if method == "Libvirt.Freeze" && may_be_frozen {
            let pool = self.pool.clone();
            tokio::spawn(async move {
                tokio::time::sleep(thaw_after).await;
                let thawed =
                    pool.run(INSIDE, (), move |connection| guest_agent::thaw(connection, &again)).await;
                if let Err(error) = thawed {
                    tracing::warn!(%error, "a guest that was frozen is not known to be thawed");
                }
            });
        }
        asked
    }
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
