//! Reports: observation in, state out.
//!
//! Reports may come late, twice, out of order or never. A report of another incarnation is refused; one of a
//! guest's other life or of an older version changes nothing. A report that has seen a newer fence than the
//! books shows that the books were restored: it is refused until a new epoch begins, and then what the
//! hypervisor holds counts for more than what the books remember (see `claim`).
//!
//! ```text
//!  phase     with an open job                     without one
//!  working   steps noted, deadline renewed        power noted
//!  settled   done; state from power               state from power
//!  failed    error; a create gives back its place reason noted
//!  lost      error; state lost                    state lost
//!  gone      goal gone: done, record removed      goal undone: place given back, failed
//!  local     done; the goal follows the host      the goal follows the host
//! ```

use super::claim::{self, Strangers};
use super::command::Decided;
use super::draft::{Draft, bad_field, not_found};
use super::guest::release_failed;
use super::hypervisor::put_if_seen_anew;
use super::job;
use crate::fence::Fence;
use crate::guest::{Goal, GoalBy, Guest, Owner, State};
use crate::hypervisor::Hypervisor;
use crate::id::{GuestId, Kind};
use crate::job::{Action, Failure};
use crate::order::{Complete, GuestReport, Phase, Power, Report};
use crate::refusal::Refusal;

/// Domains named of one hypervisor that are in no book.
pub(super) const MOST_STRANGERS: usize = 256;

pub(super) fn take(mut draft: Draft<'_>, report: &Report) -> Decided {
    let id = report.hypervisor;
    let record = draft.fleet.hypervisor(id).ok_or_else(|| not_found(Kind::Hypervisor, id))?;
    if report.guests.len() > Report::MOST_GUESTS {
        return Err(bad_field("guests", format!("a report tells of at most {}", Report::MOST_GUESTS)));
    }
    let seen = newest_fence(report);
    if seen > draft.fleet.fence {
        return Err(Refusal::BooksRestored { hypervisor: id, seen });
    }
    if report.incarnation != record.incarnation || record.incarnation == 0 {
        return Err(Refusal::StaleIncarnation {
            hypervisor: id,
            given: report.incarnation,
            present: record.incarnation,
        });
    }
    let mut strangers = Strangers::default();
    for seen in &report.guests {
        take_guest(&mut draft, record, report, seen, &mut strangers);
    }
    let mut changed = Hypervisor::clone(record);
    let is_of_this_epoch = report.seen.epoch == draft.fence.epoch;
    let complete = report.complete.as_ref().filter(|complete| complete.epoch == draft.fence.epoch);
    match complete.filter(|_| is_of_this_epoch) {
        Some(complete) => take_complete(&mut draft, &mut changed, complete, &strangers),
        None => strangers.add_to(&mut changed.strangers),
    }
    changed.strangers.truncate(MOST_STRANGERS);
    put_if_seen_anew(&mut draft, record, changed);
    Ok(draft.finish_as_it_is(Kind::Hypervisor, id.0))
}

/// The newest fence that shows in a report.
fn newest_fence(report: &Report) -> Fence {
    let orders = report.guests.iter().flat_map(|seen| [Some(seen.order), Some(seen.life), seen.deed]);
    let epoch = report.complete.as_ref().map(|complete| Fence::new(complete.epoch, 0));
    orders.flatten().chain(epoch).fold(report.seen, Fence::max)
}

fn take_complete(
    draft: &mut Draft<'_>,
    changed: &mut Hypervisor,
    complete: &Complete,
    strangers: &Strangers,
) {
    let epoch = draft.fence.epoch;
    changed.strangers = strangers.with_those_of(complete, &changed.strangers, draft, changed.id);
    changed.inventory = complete.inventory.clone();
    changed.total = complete.total;
    claim::drop_unheld(draft, changed.id, &complete.holds);
    let is_first = changed.reported_epoch != Some(epoch);
    let all_ended = !is_first || claim::end_unmade(draft, changed.id, &complete.holds);
    // What it holds and the books cannot book keeps its address: until that is resolved, the books do not
    // know enough to give anything out there.
    let here = |id: &GuestId| draft.guest(*id).and_then(|guest| guest.place).map(|place| place.hypervisor);
    if all_ended && complete.holds.iter().all(|id| here(id) == Some(changed.id)) {
        changed.reported_epoch = Some(epoch);
        changed.known_epoch = epoch;
    }
}

fn take_guest(
    draft: &mut Draft<'_>,
    record: &Hypervisor,
    report: &Report,
    seen: &GuestReport,
    strangers: &mut Strangers,
) {
    let Some(guest) = draft.guest(seen.id).cloned() else {
        return claim::book(draft, record, report, seen, None, strangers);
    };
    match guest.place {
        None => claim::book(draft, record, report, seen, Some(&guest), strangers),
        Some(place) if place.hypervisor != record.id => {
            claim::found_elsewhere(draft, record, report, seen, &guest, strangers);
        }
        Some(place) if place.life == seen.life => take_known(draft, report, seen, guest),
        Some(place) if place.life < seen.life => claim::newer_life(draft, report, seen, guest, strangers),
        // Of a life that ended: old news.
        Some(_) => {}
    }
}

fn take_known(draft: &mut Draft<'_>, report: &Report, seen: &GuestReport, before: Guest) {
    let version = (report.incarnation, seen.version);
    if version <= before.observed {
        return;
    }
    let mut guest = before;
    guest.observed = version;
    if guest.owner == Owner::Claimed && guest.goal != Goal::Gone {
        return claim::follow(draft, seen, guest);
    }
    let waits_for = draft.open_job(&guest).map_or(guest.order, |job| job.order);
    let answers = seen.order >= waits_for;
    if answers {
        job::follow(draft, &guest, &seen.steps);
    }
    match &seen.phase {
        Phase::Gone => return gone(draft, seen, guest),
        Phase::Failed { stage, code, message } if answers => {
            let words = format!("{} failed: {}", stage.as_str(), job::shortened(message));
            let failure = Failure { code: code.clone(), message: words, next: next_after(&guest, draft) };
            if failed(draft, seen, &mut guest, failure) {
                return;
            }
        }
        Phase::Settled if answers => settled(draft, seen, &mut guest),
        Phase::Local { goal } if answers => {
            settled(draft, seen, &mut guest);
            follow_local(draft, &mut guest, *goal);
        }
        Phase::Lost { message } => lost(draft, seen, &mut guest, message),
        Phase::Working | Phase::Settled | Phase::Failed { .. } | Phase::Local { .. } => {
            if guest.provisioned.is_some() && guest.state != State::Lost {
                guest.state = state_of(&guest, seen.power);
            }
        }
    }
    if seen.order > guest.order {
        follow_newer_order(draft, seen, &mut guest);
    }
    put_seen(draft, guest);
}

/// Puts what was seen of a guest.
pub(super) fn put_seen(draft: &mut Draft<'_>, mut guest: Guest) {
    let only_version = draft.guest(guest.id).is_some_and(|present| {
        let same = Guest { observed: present.observed, ..guest.clone() };
        *present == same
    });
    if !only_version {
        guest.observed_revision = draft.revision();
        guest.updated_at = draft.env.wall;
    }
    draft.put_guest(guest);
}

/// The state that a domain's power amounts to.
pub(super) fn state_of(guest: &Guest, power: Power) -> State {
    if guest.goal == Goal::Gone {
        return State::Deleting;
    }
    match power {
        Power::Running => State::Running,
        Power::Off => State::Stopped,
        Power::Paused => State::Paused,
        Power::Absent | Power::Unknown if guest.state != State::Creating => guest.state,
        Power::Absent | Power::Unknown => match guest.goal {
            Goal::Running => State::Running,
            _ => State::Stopped,
        },
    }
}

fn settled(draft: &mut Draft<'_>, seen: &GuestReport, guest: &mut Guest) {
    if guest.goal == Goal::Gone {
        return;
    }
    let made = draft.open_job(guest).is_some_and(|job| job.action.makes());
    if guest.provisioned.is_none() && (made || seen.provisioned) {
        guest.provisioned = Some(seen.order);
    }
    guest.state = state_of(guest, seen.power);
    guest.reason = match (guest.goal, guest.state) {
        (Goal::Running, State::Stopped) => "it is off; its restart policy does not start it".to_owned(),
        (Goal::Stopped | Goal::Off, State::Running) => "it still runs".to_owned(),
        (_, State::Paused) => "it is paused on the host, by somebody or for want of disk".to_owned(),
        _ => String::new(),
    };
    job::end_well(draft, guest);
}

/// Whether the guest was put and is done with.
fn failed(draft: &mut Draft<'_>, seen: &GuestReport, guest: &mut Guest, failure: Failure) -> bool {
    let was_made = seen.provisioned || guest.provisioned.is_some();
    let reason = failure.message.clone();
    job::end_badly(draft, guest, failure);
    if !was_made && guest.goal != Goal::Gone {
        // The node has removed what it made: the place is given back in this very decision.
        release_failed(draft, guest, reason);
        return true;
    }
    if guest.provisioned.is_none() && seen.provisioned {
        guest.provisioned = Some(seen.order);
    }
    guest.state = state_of(guest, seen.power);
    guest.reason = reason;
    false
}

fn next_after(guest: &Guest, draft: &Draft<'_>) -> String {
    let action = draft.open_job(guest).map(|job| job.action);
    match action {
        Some(Action::Create | Action::Recreate) => {
            "try again: another hypervisor is asked first; or delete the guest".to_owned()
        }
        Some(Action::Delete) => "the hypervisor goes on trying; look at its agent's log".to_owned(),
        Some(Action::Shutdown) => "ask the guest itself, or cut its power".to_owned(),
        _ => "see the hypervisor's agent's log, then try again".to_owned(),
    }
}

fn lost(draft: &mut Draft<'_>, seen: &GuestReport, guest: &mut Guest, message: &str) {
    if guest.goal == Goal::Gone {
        return;
    }
    guest.provisioned = guest.provisioned.or(Some(seen.order));
    guest.state = State::Lost;
    guest.reason = job::shortened(message);
    let failure = Failure {
        code: "lost".to_owned(),
        message: guest.reason.clone(),
        next: "make it anew from its image with recreate, or delete it".to_owned(),
    };
    job::end_badly(draft, guest, failure);
}

/// Nothing of this life is on the host.
fn gone(draft: &mut Draft<'_>, seen: &GuestReport, guest: Guest) {
    let was_wanted = guest.goal != Goal::Gone;
    // A newer order than the books have removed it: the books are restored, and the ledger is right.
    if guest.goal_by == GoalBy::Undo && !was_wanted {
        job::end_badly(draft, &guest, taken_back());
        let reason = guest.reason.clone();
        return release_failed(draft, &guest, reason);
    }
    if !was_wanted || seen.order > guest.order {
        job::end_well(draft, &guest);
        return draft.remove_guest(guest.id);
    }
    let making = draft.open_job(&guest).is_some_and(|job| job.action.makes());
    let reason = "nothing of it is on its hypervisor".to_owned();
    let failure = Failure {
        code: "gone".to_owned(),
        message: reason.clone(),
        next: "make it anew, or delete it".to_owned(),
    };
    job::end_badly(draft, &guest, failure);
    if making && guest.provisioned.is_none() {
        return release_failed(draft, &guest, reason);
    }
    put_seen(draft, Guest { state: State::Lost, reason, ..guest });
}

fn taken_back() -> Failure {
    Failure {
        code: "taken_back".to_owned(),
        message: "what was made was taken back".to_owned(),
        next: "try again, or delete the guest".to_owned(),
    }
}

/// Somebody on the host, or the guest itself, turned it on or off: that becomes the goal.
fn follow_local(draft: &Draft<'_>, guest: &mut Guest, goal: Goal) {
    if guest.goal == Goal::Gone || goal == Goal::Gone || guest.goal == goal {
        return;
    }
    guest.goal = goal;
    guest.goal_by = GoalBy::Local;
    guest.order = draft.fence;
    guest.revision = draft.revision();
    guest.reason = String::new();
}

/// The node has a newer order than the books: they are restored. What it made of it becomes the goal, under
/// an order of this epoch; a removal is ordered anew.
fn follow_newer_order(draft: &Draft<'_>, seen: &GuestReport, guest: &mut Guest) {
    if seen.phase == Phase::Working && guest.goal != Goal::Gone {
        return;
    }
    let goal = match seen.power {
        _ if guest.goal == Goal::Gone => Goal::Gone,
        Power::Running => Goal::Running,
        Power::Off => Goal::Stopped,
        _ => guest.goal,
    };
    if goal != guest.goal {
        guest.goal = goal;
        guest.goal_by = GoalBy::Local;
    }
    guest.order = draft.fence;
    guest.revision = draft.revision();
}
