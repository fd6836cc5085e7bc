//! What goes wrong: hosts, agents, sub-agents, ledgers, the controller and its disk, guests and their owners.

use haar_core::fleet::command::Command;
use haar_core::guest::Goal;
use haar_core::id::GuestId;
use haar_core::node::{Input, OffReason};
use haar_core::order::Power;
use haar_store::Fault as DiskFault;

use crate::host::Hand;
use crate::world::{Asker, CHAOS_MS, Event, HEALED_MS, World, tell};

/// Faults drawn for one world, besides those of messages and stages.
const FAULTS: u64 = 26;

impl World {
    pub(crate) fn plan_faults(&mut self) {
        for _ in 0..FAULTS {
            let at = self.lot.between(5_000, CHAOS_MS - 30_000);
            self.after(at, Event::Fault);
        }
    }

    pub(crate) fn count_fault(&mut self, name: &str) {
        self.faults += 1;
        self.coverage.count(format!("fault.{name}"));
        tell!(self, "fault: {name}");
    }

    pub(crate) fn something_breaks(&mut self) {
        // Some find nothing to break; then another is drawn.
        let before = self.faults;
        for _ in 0..12 {
            if self.chaos && self.faults == before {
                self.break_one();
            }
        }
    }

    fn break_one(&mut self) {
        let host = self.lot.below(self.hosts.len());
        match self.lot.below(36) {
            0..=2 => self.partition(host),
            3..=5 => self.crash_host(host),
            6..=8 => {
                self.count_fault("agent_crash");
                self.crash_agent(host);
            }
            9 => self.crash_in_undo = true,
            10..=11 => {
                let hand = if self.lot.one_in(2) { Hand::Storage } else { Hand::Libvirt };
                self.count_fault("sub_agent_crash");
                self.crash_sub_agent(host, hand);
            }
            12 => self.lose_ledger(host),
            13 => self.reinstall(host),
            14 => self.kill_host(host),
            15..=16 => self.crash_the_controller(),
            17..=19 => self.break_disk(),
            20 => self.books.back_up(),
            21 => self.restore_books(),
            22..=24 => self.stop_a_guest(host, OffReason::Crashed, "guest_crash"),
            25..=26 => self.stop_a_guest(host, OffReason::Shutdown, "guest_powers_off"),
            27..=29 => self.order_locally(host),
            30..=31 => self.start_a_guest(host),
            32 => self.lose_disk(host),
            33 => self.lose_domain(host),
            34 => self.hosts[host].strangers.push(format!("stranger-{}", self.now)),
            _ => self.restore_books(),
        }
    }

    fn partition(&mut self, host: usize) {
        self.count_fault("partition");
        let lasts = self.lot.between(5_000, 90_000);
        self.hosts[host].partitioned_until = self.now + lasts;
    }

    fn crash_host(&mut self, host: usize) {
        if !self.hosts[host].up {
            return;
        }
        self.count_fault("host_crash");
        self.power_cut(host);
        let wait = self.lot.between(5_000, 60_000);
        self.after(wait, Event::HostBoots { host });
    }

    /// What a hand was at when the power went is half done or not.
    fn power_cut(&mut self, host: usize) {
        let begun: Vec<_> =
            self.hosts[host].work.values().filter_map(|tasks| tasks.front().cloned()).collect();
        for task in begun {
            if self.lot.one_in(3) {
                self.take_effect(host, &task);
            }
        }
        self.hosts[host].crash();
    }

    pub(crate) fn boot_host(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        if machine.dead || machine.up {
            return;
        }
        machine.up = true;
        tell!(self, "host {host}: boots");
        self.after(500, Event::AgentStarts { host });
    }

    fn lose_ledger(&mut self, host: usize) {
        self.count_fault("ledger_lost");
        self.crash_agent(host);
        self.hosts[host].ledger.clear();
        self.forget_ledger(host);
        self.forget_what_nobody_can_know();
    }

    fn reinstall(&mut self, host: usize) {
        if self.hosts[host].dead {
            return;
        }
        self.count_fault("host_reinstalled");
        self.power_cut(host);
        self.hosts[host].blank();
        self.forget_ledger(host);
        self.forget_what_nobody_can_know();
        let wait = self.lot.between(20_000, 90_000);
        self.after(wait, Event::HostBoots { host });
    }

    fn kill_host(&mut self, host: usize) {
        let alive = self.hosts.iter().filter(|host| !host.dead).count();
        if self.hosts[host].dead || alive <= 2 {
            return;
        }
        self.count_fault("host_dies");
        self.power_cut(host);
        self.hosts[host].dead = true;
        self.hosts[host].blank();
        self.forget_ledger(host);
        self.forget_what_nobody_can_know();
    }

    fn crash_the_controller(&mut self) {
        if self.books.engine.is_none() {
            return;
        }
        self.count_fault("controller_crash");
        self.crash_controller();
        let wait = self.lot.between(500, 20_000);
        self.after(wait, Event::ControllerStarts);
    }

    fn break_disk(&mut self) {
        let (fault, name) = match self.lot.below(3) {
            0 => (DiskFault::BeforeEffect, "commit_failed_before"),
            1 => (DiskFault::AfterEffect, "commit_failed_after"),
            _ => (DiskFault::Full, "disk_full"),
        };
        self.count_fault(name);
        self.books.faults.push(Some(fault));
        let fails = self.lot.between(0, 2);
        self.books.faults.fail_reopens(fails);
    }

    /// An operator puts a backup in place, as the restore command does: with a new epoch before anything else.
    fn restore_books(&mut self) {
        if self.now < 60_000 {
            return;
        }
        self.crash_controller();
        if !self.books.put_back() {
            return;
        }
        self.count_fault("books_restored");
        self.books.start(self.now);
        self.forget_what_nobody_can_know();
        self.note_books_reloaded();
        // The new epoch is durable before anybody is served, whatever the disk does meanwhile.
        let epoch = |world: &World| world.books.engine.as_ref().map_or(0, |engine| engine.published.epoch());
        let before = epoch(self);
        while epoch(self) == before {
            self.submit(Command::BeginEpoch(before + 1), Asker::Nobody);
            self.turn();
        }
    }

    fn a_guest(&mut self, host: usize, power: Power) -> Option<GuestId> {
        if !self.hosts[host].up {
            return None;
        }
        let domains = &self.hosts[host].domains;
        let ids: Vec<GuestId> =
            domains.iter().filter(|(_, domain)| domain.power == power).map(|(id, _)| *id).collect();
        self.lot.pick(&ids).copied()
    }

    fn stop_a_guest(&mut self, host: usize, reason: OffReason, name: &str) {
        let Some(id) = self.a_guest(host, Power::Running) else { return };
        self.count_fault(name);
        if let Some(domain) = self.hosts[host].domains.get_mut(&id) {
            domain.power = Power::Off;
            domain.reason = reason;
        }
    }

    fn order_locally(&mut self, host: usize) {
        let power = if self.lot.one_in(2) { Power::Running } else { Power::Off };
        let Some(guest) = self.a_guest(host, power) else { return };
        let Some(run) = self.hosts[host].agent.as_ref().map(|agent| agent.run) else { return };
        self.count_fault("local_power");
        let goals = [Goal::Running, Goal::Stopped, Goal::Off];
        let goal = self.lot.pick(&goals).copied().unwrap_or(Goal::Off);
        self.tell_node(host, run, &Input::Local { guest, goal });
    }

    /// Somebody starts a guest with virsh, past everything.
    fn start_a_guest(&mut self, host: usize) {
        let Some(id) = self.a_guest(host, Power::Off) else { return };
        let life = self.hosts[host].domains.get(&id).map(|domain| domain.life);
        if self.hosts[host].disks.get(&id).map(|disk| disk.life) != life {
            return;
        }
        self.count_fault("virsh_start");
        if let Some(domain) = self.hosts[host].domains.get_mut(&id) {
            domain.power = Power::Running;
        }
        if let Some(disk) = self.hosts[host].disks.get_mut(&id) {
            disk.held_data = true;
        }
        self.check_running();
    }

    fn lose_disk(&mut self, host: usize) {
        let ids: Vec<GuestId> = self.hosts[host].disks.keys().copied().collect();
        let Some(id) = self.lot.pick(&ids).copied() else { return };
        self.count_fault("disk_vanishes");
        self.hosts[host].disks.remove(&id);
        self.forget_what_nobody_can_know();
    }

    fn lose_domain(&mut self, host: usize) {
        let ids: Vec<GuestId> = self.hosts[host].domains.keys().copied().collect();
        let Some(id) = self.lot.pick(&ids).copied() else { return };
        self.count_fault("domain_vanishes");
        self.hosts[host].domains.remove(&id);
        self.forget_what_nobody_can_know();
    }

    /// Chaos ends: whatever can work does.
    pub(crate) fn heal(&mut self) {
        tell!(self, "everything heals");
        self.chaos = false;
        self.start_controller();
        for host in 0..self.hosts.len() {
            self.hosts[host].partitioned_until = 0;
            self.boot_host(host);
            self.after(1_000, Event::AgentStarts { host });
            if self.hosts[host].dead {
                let id = self.hosts[host].id;
                self.user_declares_lost(id);
            }
        }
        self.after(300_000, Event::Check);
        self.truth.give_up_at = self.now + HEALED_MS;
    }
}
