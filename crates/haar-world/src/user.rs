//! A user who reads the books, asks for this and that, and asks again when no answer comes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use haar_core::firewall::Protocol;
use haar_core::fleet::command::{Command, Decided, GuestAction, GuestPatch};
use haar_core::guest::{Guest, RestartPolicy, State};
use haar_core::id::{FlavorId, FwGroupId, GuestId, HypervisorId, Kind, SubnetId};
use haar_core::network::Gateway;
use haar_core::refusal::Refusal;
use haar_core::units::{MiB, Resources};

use crate::setup::{Stock, flavor_spec, fwgroup_spec, guest_spec, hypervisor_spec, subnet_spec};
use crate::world::{Asker, CHAOS_MS, Event, World, tell};

/// Commands of one world.
const COMMANDS: u64 = 60;
/// How often a command without an answer is given again.
const MOST_TRIES: u32 = 50;

/// What a user has asked and knows.
#[derive(Debug, Default)]
pub(crate) struct User {
    pub(crate) stock: Stock,
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    command: Command,
    tries: u32,
    answered: bool,
}

impl User {
    pub(crate) fn given(&self) -> u64 {
        self.asked.len() as u64
    }

    pub(crate) fn waits(&self) -> bool {
        self.asked.iter().any(|asked| !asked.answered)
    }
}

impl World {
    pub(crate) fn plan_user(&mut self) {
        for _ in 0..COMMANDS {
            let at = self.lot.between(3_000, CHAOS_MS - 5_000);
            self.after(at, Event::User);
        }
    }

    pub(crate) fn user_acts(&mut self) {
        if let crate::world::Plan::One(once) = self.plan {
            self.systematic_step(once);
            return;
        }
        if self.books.engine.is_none() {
            self.after(3_000, Event::User);
            return;
        }
        let drawn = (0..12).find_map(|_| self.draw_command());
        if let Some(command) = drawn {
            self.user_asks(command);
        }
    }

    pub(crate) fn user_asks(&mut self, command: Command) {
        match &command {
            Command::Delete(Kind::Guest, id, _) => {
                self.truth.asked_gone.insert((*id).into());
            }
            Command::Act(id, GuestAction::Recreate, _) => {
                self.truth.asked_anew.insert(*id);
            }
            _ => {}
        }
        tell!(self, "user: {command:?}");
        self.user.asked.push(Asked { command, tries: 0, answered: false });
        self.user_asks_again(self.user.asked.len() - 1);
    }

    pub(crate) fn user_asks_again(&mut self, index: usize) {
        let asked = &mut self.user.asked[index];
        if asked.answered {
            return;
        }
        asked.tries += 1;
        if asked.tries > MOST_TRIES {
            asked.answered = true;
            return;
        }
        if self.books.engine.is_none() {
            self.user_got_no_answer(index);
            return;
        }
        let command = asked.command.clone();
        self.submit(command, Asker::User(index));
    }

    pub(crate) fn user_got_no_answer(&mut self, index: usize) {
        let wait = self.lot.between(1_000, 4_000);
        self.after(wait, Event::Again(index));
    }

    pub(crate) fn user_is_answered(&mut self, index: usize, decided: &Decided) {
        let asked = &mut self.user.asked[index];
        asked.answered = true;
        if let (Command::DeclareLost(_), Err(Refusal::StillAlive(_))) = (&asked.command, decided)
            && !self.chaos
        {
            // A host that died a moment ago still counts as alive.
            asked.answered = false;
            self.user_got_no_answer(index);
        }
    }

    pub(crate) fn user_declares_lost(&mut self, hypervisor: HypervisorId) {
        self.user_asks(Command::DeclareLost(hypervisor));
    }

    fn draw_command(&mut self) -> Option<Command> {
        let all: Vec<Guest> =
            self.books.engine.as_ref()?.published.guests().map(|guest| Guest::clone(guest)).collect();
        let in_state =
            |state: State| all.iter().filter(move |guest| guest.state == state).map(|guest| guest.id);
        let ids: Vec<GuestId> = all.iter().map(|guest| guest.id).collect();
        let dead: Vec<HypervisorId> =
            self.hosts.iter().filter(|host| host.dead).map(|host| host.id).collect();
        if !dead.is_empty() && self.lot.one_in(4) {
            return self.lot.pick(&dead).map(|id| Command::DeclareLost(*id));
        }
        let lost: Vec<GuestId> = in_state(State::Lost).collect();
        if !lost.is_empty() && self.lot.one_in(4) {
            return self.lot.pick(&lost).map(|id| Command::Act(*id, GuestAction::Recreate, None));
        }
        let claimed: Vec<GuestId> = in_state(State::Claimed).collect();
        if !claimed.is_empty() && self.lot.one_in(4) {
            return self.lot.pick(&claimed).map(|id| Command::Act(*id, GuestAction::Adopt, None));
        }
        let id = self.lot.pick(&ids).copied();
        match self.lot.below(100) {
            0..=29 => self.draw_create(&all),
            30..=49 => {
                let actions =
                    [GuestAction::Start, GuestAction::Shutdown, GuestAction::Poweroff, GuestAction::Reboot];
                let action = self.lot.pick(&actions).copied()?;
                Some(Command::Act(id?, action, None))
            }
            50..=62 => Some(Command::Delete(Kind::Guest, id?.0, None)),
            63..=66 => self.draw_retry(&all),
            67..=69 => Some(Command::SetGuest(id?, self.draw_patch(), None)),
            70..=72 => self.draw_cordon(),
            _ => self.draw_odd(&all),
        }
    }

    fn draw_create(&mut self, all: &[Guest]) -> Option<Command> {
        // Now and then an id comes back: of a failed guest, which is placed anew, or of a deleted one.
        let failed = all.iter().find(|guest| guest.state == State::Failed);
        if let Some(guest) = failed.filter(|_| self.lot.one_in(4)) {
            return Some(Command::CreateGuest(guest.id, Box::new(guest.spec.clone()), None));
        }
        let gone: Vec<GuestId> = self.truth.asked_gone.iter().copied().collect();
        let id = match self.lot.pick(&gone) {
            Some(id) if self.lot.one_in(4) => *id,
            _ => GuestId(self.lot.uuid()),
        };
        let flavor = *self.lot.pick(&self.user.stock.flavors)?;
        let network = *self.lot.pick(&self.user.stock.networks)?;
        let mut spec = guest_spec(&format!("g-{}", self.user.given()), flavor, network);
        spec.start = !self.lot.one_in(5);
        let policies = [RestartPolicy::OnFailure, RestartPolicy::Always, RestartPolicy::Never];
        spec.restart = self.lot.pick(&policies).copied()?;
        spec.image = self.lot.pick(&self.user.stock.images).copied().filter(|_| self.lot.one_in(3));
        if self.lot.one_in(6) {
            spec.hypervisor = Some(self.hosts[self.lot.below(self.hosts.len())].id);
        }
        Some(Command::CreateGuest(id, Box::new(spec), None))
    }

    fn draw_retry(&mut self, all: &[Guest]) -> Option<Command> {
        let jobs: Vec<_> = all.iter().filter_map(|guest| guest.job).collect();
        self.lot.pick(&jobs).map(|job| Command::RetryJob(*job))
    }

    fn draw_patch(&mut self) -> GuestPatch {
        let policies = [RestartPolicy::OnFailure, RestartPolicy::Always, RestartPolicy::Never];
        GuestPatch { restart: self.lot.pick(&policies).copied(), ..GuestPatch::default() }
    }

    fn draw_cordon(&mut self) -> Option<Command> {
        let number = self.lot.below(self.hosts.len());
        let mut spec = hypervisor_spec(&format!("host-{number}"));
        spec.cordon = self.lot.one_in(3).then(|| "to be repaired".to_owned());
        Some(Command::SetHypervisor(self.hosts[number].id, spec, None))
    }

    /// What is to be refused, each for a reason of its own.
    fn draw_odd(&mut self, all: &[Guest]) -> Option<Command> {
        let stock = self.user.stock.clone();
        let network = *stock.networks.first()?;
        let flavor = *stock.flavors.first()?;
        let mut spec = guest_spec(&format!("odd-{}", self.user.given()), flavor, network);
        let fresh = GuestId(self.lot.uuid());
        let guest = self.lot.pick(all).cloned();
        let host = self.hosts[self.lot.below(self.hosts.len())].id;
        let nothing = Resources { cpu: 0, memory: MiB(256), disk: MiB(1024) };
        match self.lot.below(18) {
            0 => return Some(Command::Act(fresh, GuestAction::Start, None)),
            1 => spec.name = guest?.spec.name,
            2 => {
                let guest = guest?;
                spec.name = guest.spec.name.clone();
                return Some(Command::CreateGuest(guest.id, Box::new(spec), None));
            }
            3 => return Some(Command::Act(guest?.id, GuestAction::Poweroff, Some(1))),
            4 => return Some(Command::Delete(Kind::Network, network.0, None)),
            5 => {
                return Some(Command::CreateSubnet(
                    SubnetId(fresh.0),
                    subnet_spec("twice", network, 1),
                    Gateway::Said,
                ));
            }
            6 => return Some(Command::CreateFwGroup(FwGroupId(fresh.0), fwgroup_spec("bad", Protocol::Any))),
            7 => return Some(Command::CreateFlavor(FlavorId(fresh.0), flavor_spec("none", None, nothing))),
            8 => {
                let values = BTreeMap::from([("liveness.ttl_ms".to_owned(), "1".to_owned())]);
                return Some(Command::SetConfig(values, None));
            }
            9 => spec.kind = "submarine".to_owned(),
            10 => spec.flavor = stock.giant?,
            11 => spec.address = Some(IpAddr::V4(Ipv4Addr::new(192, 168, 7, 7))),
            12 => {
                let guest = guest?;
                (spec.network, spec.mac) = (guest.spec.network, Some(guest.mac));
            }
            13 => spec.flavor = stock.bare?,
            14 => spec.image = stock.unready,
            15 => spec.image = stock.large,
            16 => return Some(Command::RetryJob(guest?.job?)),
            _ => return Some(Command::DeclareLost(host)).filter(|_| self.is_really_there(host)),
        }
        Some(Command::CreateGuest(fresh, Box::new(spec), None))
    }

    /// An operator declares lost only what is dead; a slip of the tongue hits one that still speaks.
    fn is_really_there(&self, id: HypervisorId) -> bool {
        let polls = |host: &&crate::host::Host| host.agent.is_some() && host.partitioned_until == 0;
        self.hosts.iter().filter(polls).any(|host| host.id == id)
    }
}
