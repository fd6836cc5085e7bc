//! The controller: the real batch function over a disk that fails, a working and a published fleet.
//!
//! What a shell would do and no more: queue, turn, publish, answer; after a failed commit reopen, read again,
//! and answer "outcome unknown". Nothing of a rule is here.

use std::collections::{BTreeMap, VecDeque};

use haar_core::batch::{self, Commit, Cost};
use haar_core::fence::{Fence, MonoMs, WallMs};
use haar_core::fleet::Fleet;
use haar_core::fleet::change::Decision;
use haar_core::fleet::command::{Alive, Command, Decided, Env};
use haar_core::id::{CloudId, HypervisorId};
use haar_store::{Disk, FailingDisk, Faults, Limits, MemoryDisk, MemoryMedium, Op};

use crate::lot::Lot;
use crate::records::{self, Read};

/// The controller with its medium; the process may be down.
#[derive(Debug)]
pub(crate) struct Books {
    medium: MemoryMedium,
    backup: Option<MemoryMedium>,
    /// What the disk does wrong.
    pub(crate) faults: Faults,
    /// The process.
    pub(crate) engine: Option<Engine>,
}

/// The controller's process.
#[derive(Debug)]
pub(crate) struct Engine {
    disk: FailingDisk<MemoryDisk>,
    working: Fleet,
    /// What everybody reads.
    pub(crate) published: Fleet,
    queue: VecDeque<(u64, Command)>,
    last_poll: BTreeMap<HypervisorId, u64>,
    started: u64,
    last_ticket: u64,
}

/// What a turn came to.
#[derive(Debug)]
pub(crate) enum Turned {
    /// Durable and published: answer these.
    Answers(Vec<(u64, Decided)>),
    /// The commit failed: these do not know what became of them.
    Unknown(Vec<u64>),
}

struct Polls<'a> {
    last: &'a BTreeMap<HypervisorId, u64>,
    now: u64,
    ttl: u64,
}

impl Alive for Polls<'_> {
    fn is_alive(&self, hypervisor: HypervisorId) -> bool {
        self.last.get(&hypervisor).is_some_and(|last| self.now.saturating_sub(*last) <= self.ttl)
    }
}

/// Writes decisions, counting what they cost.
struct Writer<'a>(&'a mut FailingDisk<MemoryDisk>);

impl Commit for Writer<'_> {
    type Error = haar_store::Error;

    fn cost(&self, decision: &Decision) -> Cost {
        let ops = records::ops_of(decision);
        Cost { ops: ops.len(), bytes: ops.iter().map(Op::size).sum() }
    }

    fn limits(&self) -> Cost {
        let limits = self.0.limits();
        Cost { ops: limits.ops, bytes: limits.bytes }
    }

    fn commit(&mut self, decisions: &[Decision], expected: Fence, new: Fence) -> Result<(), Self::Error> {
        let ops: Vec<Op> = decisions.iter().flat_map(records::ops_of).collect();
        self.0.commit(&ops, stored(expected), stored(new))
    }
}

fn stored(fence: Fence) -> haar_store::Fence {
    haar_store::Fence { epoch: fence.epoch, revision: fence.revision }
}

impl Books {
    /// A new cloud's, with its founding decision committed.
    pub(crate) fn new(cloud: CloudId) -> Books {
        let medium = MemoryMedium::default();
        let founding = Fleet::founding(cloud, WallMs(0));
        let mut disk = MemoryDisk::on(medium.clone(), Limits::ETCD);
        disk.commit(&records::ops_of(&founding), haar_store::Fence::default(), stored(founding.fence))
            .expect("an empty medium takes the first commit");
        Books { medium, backup: None, faults: Faults::none(), engine: None }
    }

    /// Starts the process at this time.
    pub(crate) fn start(&mut self, now: u64) {
        let disk = FailingDisk::new(MemoryDisk::on(self.medium.clone(), Limits::ETCD), self.faults.clone());
        let mut engine = Engine {
            disk,
            working: Fleet::empty(),
            published: Fleet::empty(),
            queue: VecDeque::new(),
            last_poll: BTreeMap::new(),
            started: now,
            last_ticket: 0,
        };
        engine.load(now);
        self.engine = Some(engine);
    }

    /// Ends the process as a crash does.
    pub(crate) fn crash(&mut self) {
        self.engine = None;
    }

    /// Takes a backup of what is committed.
    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.medium.copy());
    }

    /// Puts the backup in place of the medium; the process must be down. False without a backup.
    pub(crate) fn put_back(&mut self) -> bool {
        let Some(backup) = &self.backup else { return false };
        self.medium = backup.copy();
        true
    }
}

impl Engine {
    /// Reads the medium: the only way to know the books.
    fn load(&mut self, now: u64) {
        let mut fleet = Fleet::empty();
        let fence = self
            .disk
            .load(&[], &mut |kind, key, value| match records::read(kind, key, value) {
                Read::Record(record) => fleet.restore(record),
                Read::Cursor(subnet, address) => fleet.restore_cursor(subnet, address),
                Read::Blob => {}
            })
            .expect("a medium in memory can be read");
        fleet.restored(Fence::new(fence.epoch, fence.revision), self.mono(now));
        self.published = fleet.clone();
        self.working = fleet;
    }

    fn mono(&self, now: u64) -> MonoMs {
        MonoMs(now - self.started)
    }

    /// Puts a command in the queue; its ticket names the answer.
    pub(crate) fn submit(&mut self, command: Command) -> u64 {
        self.last_ticket += 1;
        self.queue.push_back((self.last_ticket, command));
        self.last_ticket
    }

    /// Whether anything waits.
    pub(crate) fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// A hypervisor's poll was heard.
    pub(crate) fn heard(&mut self, hypervisor: HypervisorId, now: u64) {
        self.last_poll.insert(hypervisor, now);
    }

    /// Queues what the timer finds overdue.
    pub(crate) fn find_overdue(&mut self, now: u64) {
        for (job, due) in self.published.overdue(self.mono(now)) {
            self.submit(Command::Overdue(job, due));
        }
    }

    /// One turn of the batch function.
    pub(crate) fn turn(&mut self, now: u64, lot: &mut Lot) -> Turned {
        let polls = Polls { last: &self.last_poll, now, ttl: self.published.config().liveness_ttl_ms() };
        let mono = MonoMs(now - self.started);
        let waiting: Vec<u64> = self.queue.iter().map(|(ticket, _)| *ticket).collect();
        let env = || Env { now: mono, wall: WallMs(now as i64), lot: lot.wide(), alive: &polls };
        match batch::turn(&mut self.working, &mut self.queue, env, &mut Writer(&mut self.disk)) {
            Ok(answers) => {
                for (_, decided) in &answers {
                    if let Ok(decision) = decided {
                        self.published.apply(decision);
                    }
                }
                Turned::Answers(answers)
            }
            Err(_) => {
                let left: Vec<u64> = self.queue.iter().map(|(ticket, _)| *ticket).collect();
                while self.disk.reopen().is_err() {}
                self.load(now);
                Turned::Unknown(waiting.into_iter().filter(|ticket| !left.contains(ticket)).collect())
            }
        }
    }
}
