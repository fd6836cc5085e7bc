//! The service `Libvirt`: which method runs which function, for how long at most, one at a time per guest.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use haar_api::rpc::libvirt::{
    ChangesRequest, GuestAgent, GuestAgentResponse, RunningSnapshotRequest, RunningSnapshotResponse,
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
use crate::guest_agent::INSIDE;
use crate::hold::{self, Due, Holds};
use crate::shutdown::{Act, Shutdowns};
use crate::xml::Switch;
use crate::{define, domain, filter, guest_agent, metrics, power, request, screen, shutdown, snapshot};

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
    /// Folder for the names of guests that may be frozen, or suspended for a while.
    pub(crate) frozen: PathBuf,
    /// QEMU's version once known: asking makes libvirtd start a QEMU on some hosts, which takes seconds.
    /// A QEMU that is replaced while this program runs is seen after its next start.
    pub(crate) qemu: OnceLock<String>,
    /// Whether guests' frames can be filtered here.
    pub(crate) frames: filter::Frames,
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
const METHODS: [(&str, Duration, Action); 8] = [
    ("Libvirt.CreateGuest", CHANGE, define::create_guest),
    ("Libvirt.Create", CHANGE, define::create),
    ("Libvirt.Delete", CHANGE, define::delete),
    ("Libvirt.Run", CHANGE, power::run),
    ("Libvirt.Reboot", CHANGE, power::reboot),
    ("Libvirt.Restart", CHANGE, power::restart),
    ("Libvirt.Poweroff", CHANGE, power::poweroff),
    ("Libvirt.Status", LOOK, power::status),
];

type Measure = fn(&Connect, &metrics::Request) -> Result<metrics::Response, Fault>;

/// The methods that only count.
const METRICS: [(&str, Measure); 3] = [
    ("Libvirt.CPUMetrics", metrics::cpu),
    ("Libvirt.DiskMetrics", metrics::disk),
    ("Libvirt.NicMetrics", metrics::nic),
];

/// The server with every method of `Libvirt`. Must be called within a tokio runtime.
pub(crate) fn server(pool: Pool, host: Host, journal: &Journal) -> kit::Server {
    let mut server = kit::Server::new();
    let turns = kit::per_guest();
    let holds = |kind| Holds::new(kind, host.frozen.clone(), turns.clone(), pool.clone());
    let (frozen, suspended) = (holds(hold::Kind::Frozen), holds(hold::Kind::Suspended));
    suspended.recover();
    frozen.recover();
    let host = Arc::new(host);
    tokio::task::spawn_blocking({
        let host = Arc::clone(&host);
        move || say_what_is_not_filtered(&host)
    });
    let hands = Hands { pool, host, turns, frozen, suspended, shutdowns: Shutdowns::default() };
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
        async move { hands.shut_down(request).await }
    });
    standstill(&mut server, &hands);
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

/// Once, for whoever reads the log; each guest finds out for itself.
fn say_what_is_not_filtered(host: &Host) {
    let reason = match host.frames.missing() {
        Ok(None) => return,
        Ok(Some(reason)) => reason,
        Err(error) => error.to_string(),
    };
    tracing::warn!(reason, "guests are not held to their MAC and addresses: they can pose as others");
}

/// The methods that have a guest's processors stand still, and go on.
fn standstill(server: &mut kit::Server, hands: &Hands) {
    let suspending = hands.clone();
    server.method("Libvirt.Suspend", move |request: GuestRequest| {
        let hands = suspending.clone();
        async move { hands.suspend(request).await.map(answer) }
    });
    let hands = hands.clone();
    server.method("Libvirt.Resume", move |request: GuestRequest| {
        let hands = hands.clone();
        async move { hands.resume(request).await.map(answer) }
    });
}

/// The methods that reach into a running guest: its agent, its disks and its screen.
fn inside(server: &mut kit::Server, hands: &Hands) {
    let pinging = hands.clone();
    server.method("Libvirt.Ping", move |request: GuestRequest| {
        let hands = pinging.clone();
        async move { hands.ping(request).await }
    });
    let freezing = hands.clone();
    server.method("Libvirt.Freeze", move |request: GuestRequest| {
        let hands = freezing.clone();
        async move { hands.freeze(request).await }
    });
    let thawing = hands.clone();
    server.method("Libvirt.Thaw", move |request: GuestRequest| {
        let hands = thawing.clone();
        async move { hands.thaw(request).await }
    });
    let taking = hands.clone();
    server.method("Libvirt.Snapshot", move |request: RunningSnapshotRequest| {
        let hands = taking.clone();
        async move { hands.take_snapshot(request).await }
    });
    let dropping = hands.clone();
    server.method("Libvirt.DropSnapshot", move |request: RunningSnapshotRequest| {
        let hands = dropping.clone();
        async move {
            let turn = in_turn(&hands.turns, id_of(request.guest.as_ref()), CHANGE).await?;
            hands.pool.run(CHANGE, turn, move |connection| snapshot::drop_it(connection, &request)).await
        }
    });
    let hands = hands.clone();
    server.method("Libvirt.Vnc", move |request: GuestRequest| {
        let hands = hands.clone();
        async move {
            // Two at once would make the same link.
            let turn = in_turn(&hands.turns, id_of(request.guest.as_ref()), LOOK).await?;
            let host = Arc::clone(&hands.host);
            hands.pool.run(LOOK, turn, move |connection| screen::vnc(connection, &host, &request)).await
        }
    });
}

fn id_of(guest: Option<&Guest>) -> &str {
    guest.map_or("", |guest| &guest.id)
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
    /// Guests whose file systems are to be thawed.
    frozen: Holds,
    /// Guests whose processors are to go on.
    suspended: Holds,
    shutdowns: Shutdowns,
}

impl Hands {
    /// Carries out an action in the guest's turn.
    async fn act(&self, limit: Duration, action: Action, request: GuestRequest) -> Result<Guest, Fault> {
        let turn = in_turn(&self.turns, id_of(request.guest.as_ref()), limit).await?;
        let host = Arc::clone(&self.host);
        self.pool.run(limit, turn, move |connection| action(connection, &host, &request)).await
    }

    /// Asks the guest to shut down. With `limit_s` among the arguments the answer says `retry` until it has.
    async fn shut_down(&self, request: GuestRequest) -> Result<GuestResponse, Fault> {
        let Some(limit) = power::shutdown_limit(&request)? else {
            return self.act(CHANGE, power::shutdown, request).await.map(answer);
        };
        let guest = request::named(&request)?;
        let id = guest.id.clone();
        let is_under_way = self.shutdowns.bears_silence(&id, limit);
        let action: Action = match self.shutdowns.next(&id, limit) {
            Act::Press => power::shutdown,
            Act::Look => power::status,
            Act::PullPlug => {
                let limit_s = limit.as_secs();
                tracing::warn!(guest = id, limit_s, "did not shut down, its plug is pulled");
                power::poweroff
            }
        };
        let again = |guest| GuestResponse { retry: shutdown::RETRY_S, ..answer(guest) };
        let acted = self.act(CHANGE, action, request).await;
        self.shutdowns.goes_on(&id);
        match acted {
            Ok(guest) if !power::is_off(&guest) => Ok(again(guest)),
            Err(fault) if fault.code == FaultCode::Unavailable && is_under_way => Ok(again(guest)),
            ended => {
                self.shutdowns.end(&id);
                ended.map(answer)
            }
        }
    }

    /// Has the guest's processors stand still; with `resume_after_s` among the arguments for no longer than that.
    async fn suspend(&self, request: GuestRequest) -> Result<Guest, Fault> {
        let limit = hold::limit("resume_after_s", request.args.get("resume_after_s"))?;
        let id = request::named(&request)?.id;
        let turn = Arc::new(in_turn(&self.turns, &id, CHANGE).await?);
        let held = Arc::clone(&turn);
        let run = |_| self.pool.run(CHANGE, held, move |connection| power::suspend(connection, &request));
        let suspended = match limit {
            Some(limit) => {
                let due = |suspended: &Result<power::Suspended, Fault>| match suspended {
                    // Whoever has it stand still without a limit wants it so.
                    Ok(suspended) if suspended.was_before => Due::AsBefore,
                    Ok(_) => Due::In(limit, 0),
                    Err(fault) => Due::after(fault),
                };
                self.suspended.meanwhile(&id, run, due).await?
            }
            None => run(0).await.inspect(|_| self.suspended.disarm(&id))?,
        };
        Ok(suspended.guest)
    }

    /// Has the guest's processors go on.
    async fn resume(&self, request: GuestRequest) -> Result<Guest, Fault> {
        let id = request::named(&request)?.id;
        let turn = Arc::new(in_turn(&self.turns, &id, CHANGE).await?);
        let (host, held) = (Arc::clone(&self.host), Arc::clone(&turn));
        let run = self.pool.run(CHANGE, held, move |connection| power::resume(connection, &host, &request));
        run.await.inspect(|_| self.suspended.disarm(&id))
    }

    /// Freezes the guest's file systems, which are thawed in time.
    async fn freeze(&self, request: GuestRequest) -> Result<GuestAgentResponse, Fault> {
        let limit = hold::limit("thaw_after_s", request.args.get("thaw_after_s"))?;
        let thaw_after = limit.unwrap_or(hold::MOST_HELD);
        let id = request::named(&request)?.id;
        let turn = Arc::new(in_turn(&self.turns, &id, LOOK).await?);
        let held = Arc::clone(&turn);
        let run = |known| {
            self.pool.run(INSIDE, held, move |connection| guest_agent::freeze(connection, &request, known))
        };
        let due = |frozen: &Result<guest_agent::Frozen, Fault>| guest_agent::due(frozen, thaw_after);
        self.frozen.meanwhile(&id, run, due).await.map(|frozen| frozen.answer)
    }

    /// Thaws the guest's file systems.
    async fn thaw(&self, request: GuestRequest) -> Result<GuestAgentResponse, Fault> {
        let id = request::named(&request)?.id;
        let turn = Arc::new(in_turn(&self.turns, &id, LOOK).await?);
        let held = Arc::clone(&turn);
        let run = self.pool.run(INSIDE, held, move |connection| guest_agent::thaw(connection, &request));
        let thawed = run.await?;
        if thawed.agent == GuestAgent::Answers {
            self.frozen.disarm(&id);
        }
        Ok(thawed)
    }

    /// Whether there is an agent inside.
    async fn ping(&self, request: GuestRequest) -> Result<GuestAgentResponse, Fault> {
        let turn = in_turn(&self.turns, id_of(request.guest.as_ref()), LOOK).await?;
        self.pool.run(INSIDE, turn, move |connection| guest_agent::ping(connection, &request)).await
    }

    /// Takes a snapshot of a guest that is frozen meanwhile.
    async fn take_snapshot(&self, request: RunningSnapshotRequest) -> Result<RunningSnapshotResponse, Fault> {
        let named = GuestRequest { guest: request.guest.clone(), ..GuestRequest::default() };
        let id = request::named(&named)?.id;
        let turn = Arc::new(in_turn(&self.turns, &id, CHANGE).await?);
        let held = Arc::clone(&turn);
        let run = |known| {
            self.pool.run(CHANGE, held, move |connection| snapshot::take(connection, &request, known))
        };
        let due = |taken: &Result<snapshot::Taken, Fault>| match taken {
            Ok(taken) => taken.due,
            Err(fault) => Due::after(fault),
        };
        self.frozen.meanwhile(&id, run, due).await.map(|taken| taken.answer)
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
