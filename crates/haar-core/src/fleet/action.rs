//! What a user does with a guest that is there. What may be asked when is a table in code: accepted,
//! already so, busy, or refused with what to do instead.

use super::command::{Decided, GuestAction, Outcome};
use super::draft::{Draft, is_current, not_found};
use super::guest::{begin_life, is_failed, make_anew, wrong_state};
use super::{job, placing};
use crate::fence::Revision;
use crate::guest::{Deed, DeedKind, Goal, GoalBy, Guest, Owner, Place, State};
use crate::id::{GuestId, JobId, Kind};
use crate::job::{Action, Failure, Status};
use crate::refusal::Refusal;
use crate::schedule::{Load, shortage};
use crate::units::Resources;

/// What a request comes to.
enum Verdict {
    /// It is so already, or that very job is under way.
    Already(Option<JobId>),
    /// Do it; a job under way is superseded.
    Accepted,
}

pub(super) fn act(draft: Draft<'_>, id: GuestId, action: GuestAction, if_match: Option<Revision>) -> Decided {
    let guest = draft.fleet.guest(id).ok_or_else(|| not_found(Kind::Guest, id))?;
    is_current(Kind::Guest, &guest.spec.name, guest.revision, if_match)?;
    if action == GuestAction::Adopt {
        return adopt(draft, guest);
    }
    match judge(&draft, guest, action)? {
        Verdict::Already(job) => Ok(draft.finish(Kind::Guest, id.0, Outcome::Same, job)),
        Verdict::Accepted => match action {
            GuestAction::Start => order(draft, guest, Action::Start, Goal::Running),
            GuestAction::Shutdown => order(draft, guest, Action::Shutdown, Goal::Stopped),
            GuestAction::Poweroff => order(draft, guest, Action::Poweroff, Goal::Off),
            GuestAction::Reboot => order(draft, guest, Action::Reboot, Goal::Running),
            GuestAction::Recreate | GuestAction::Adopt => recreate(draft, guest),
        },
    }
}

fn judge(draft: &Draft<'_>, guest: &Guest, action: GuestAction) -> Result<Verdict, Refusal> {
    if guest.owner == Owner::Claimed {
        return Err(wrong_state(guest, "adopt it first, or delete it"));
    }
    if guest.goal == Goal::Gone {
        return Err(wrong_state(guest, "it can no longer be used"));
    }
    if let Some(job) = draft.open_job(guest) {
        let same = job.action == job_action(action);
        if same {
            return Ok(Verdict::Already(Some(job.id)));
        }
        let supersedes = action == GuestAction::Poweroff && job.action == Action::Shutdown;
        if !supersedes {
            return Err(Refusal::Busy {
                guest: guest.spec.name.clone(),
                action: job.action.as_str(),
                job: job.id,
            });
        }
    }
    let is_off = matches!(guest.goal, Goal::Stopped | Goal::Off);
    match (guest.state, action) {
        (State::Lost, GuestAction::Recreate) => Ok(Verdict::Accepted),
        (State::Lost, _) => {
            Err(wrong_state(guest, "make it anew from its image with recreate, or delete it"))
        }
        (_, GuestAction::Recreate) => Err(wrong_state(guest, "only a lost guest is made anew")),
        (State::Failed, _) => Err(wrong_state(guest, "try its job again, or delete it")),
        (State::Creating, _) => {
            Err(wrong_state(guest, "wait for its hypervisor to tell what became of it, or delete it"))
        }
        (State::Running, GuestAction::Start) if guest.goal == Goal::Running => Ok(Verdict::Already(None)),
        (State::Stopped, GuestAction::Shutdown | GuestAction::Poweroff) if is_off => {
            Ok(Verdict::Already(None))
        }
        (State::Stopped, GuestAction::Reboot) => Err(wrong_state(guest, "start it instead")),
        // It hears nothing while it is paused; a start resumes it.
        (State::Paused, GuestAction::Shutdown | GuestAction::Reboot) => {
            Err(wrong_state(guest, "see why it is paused, then start it to resume it, or cut its power"))
        }
        (State::Deleting | State::Claimed, _) => Err(wrong_state(guest, "it cannot be used now")),
        (State::Running | State::Stopped | State::Paused, _) => Ok(Verdict::Accepted),
    }
}

fn job_action(action: GuestAction) -> Action {
    match action {
        GuestAction::Start => Action::Start,
        GuestAction::Shutdown => Action::Shutdown,
        GuestAction::Poweroff => Action::Poweroff,
        GuestAction::Reboot => Action::Reboot,
        GuestAction::Recreate | GuestAction::Adopt => Action::Recreate,
    }
}

/// A new order with a job that waits for it.
fn order(mut draft: Draft<'_>, guest: &Guest, action: Action, goal: Goal) -> Decided {
    supersede(&mut draft, guest, action);
    let mut changed = guest.clone();
    changed.goal = goal;
    changed.goal_by = GoalBy::User;
    changed.order = draft.fence;
    changed.deed = match action {
        Action::Reboot => Some(Deed { kind: DeedKind::Reboot, fence: draft.fence }),
        _ => None,
    };
    changed.reason = String::new();
    changed.revision = draft.revision();
    changed.updated_at = draft.env.wall;
    let job = job::begin(&mut draft, &changed, action);
    changed.job = Some(job);
    draft.put_guest(changed);
    Ok(draft.finish(Kind::Guest, guest.id.0, Outcome::Changed, Some(job)))
}

fn supersede(draft: &mut Draft<'_>, guest: &Guest, by: Action) {
    let failure = Failure {
        code: "superseded".to_owned(),
        message: format!("superseded by {}", by.as_str()),
        next: format!("see the guest's {} job", by.as_str()),
    };
    job::end_badly(draft, guest, failure);
}

/// A lost guest is made anew, where it is or, when it holds nothing, elsewhere. Its data is not coming
/// back: that is why only an operator's word does this.
fn recreate(draft: Draft<'_>, guest: &Guest) -> Decided {
    let Some(place) = guest.place else { return make_anew(draft, guest, Action::Recreate) };
    if let Some(unheard) = placing::unheard_with(draft.fleet, guest.spec.network) {
        return Err(wrong_state(
            guest,
            format!(
                "`{unheard}` has not told what it holds since the restore, and may have it; wait for it, or declare it lost"
            ),
        ));
    }
    // A restore may have booked more there than fits; what was lost is not made again on top of it.
    let record = draft.fleet.hypervisor(place.hypervisor);
    if let Some(record) = record.filter(|record| is_oversold(draft.fleet.load_of(record))) {
        let name = &record.spec.name;
        return Err(wrong_state(
            guest,
            format!("`{name}` has promised more than it has; delete a guest there first"),
        ));
    }
    let life = draft.fence;
    let anew = Guest { place: Some(Place { life, ..place }), ..guest.clone() };
    begin_life(draft, anew, Action::Recreate, Outcome::Changed)
}

fn is_oversold(load: Load) -> bool {
    shortage(load, Resources::default()).is_some()
}

/// A claimed guest becomes the controller's; its goal is what it was last seen doing.
fn adopt(mut draft: Draft<'_>, guest: &Guest) -> Decided {
    let id = guest.id;
    if guest.owner == Owner::Controller {
        return Ok(draft.finish(Kind::Guest, id.0, Outcome::Same, None));
    }
    if guest.goal == Goal::Gone {
        return Err(wrong_state(guest, "it can no longer be adopted"));
    }
    let fleet = draft.fleet;
    let subnet = guest.place.and_then(|place| fleet.subnet(place.subnet));
    let missing = [
        (fleet.flavor(guest.spec.flavor).is_none(), Kind::Flavor, guest.spec.flavor.to_string()),
        (fleet.image(guest.image).is_none(), Kind::Image, guest.image.to_string()),
        (fleet.network(guest.spec.network).is_none(), Kind::Network, guest.spec.network.to_string()),
        (subnet.is_none(), Kind::Subnet, "of its address".to_owned()),
    ];
    if let Some((_, kind, reference)) = missing.iter().find(|(is_missing, _, _)| *is_missing) {
        return Err(wrong_state(guest, format!("make the {kind} {reference} again first")));
    }
    let mut changed = guest.clone();
    changed.owner = Owner::Controller;
    changed.state = if guest.goal == Goal::Running { State::Running } else { State::Stopped };
    changed.goal_by = GoalBy::User;
    changed.reason = String::new();
    changed.order = draft.fence;
    changed.revision = draft.revision();
    changed.updated_at = draft.env.wall;
    draft.put_guest(changed);
    Ok(draft.finish(Kind::Guest, id.0, Outcome::Changed, None))
}

/// Always accepted: a job under way is superseded. The record, address and resources go when the node says
/// that nothing is left, or at once when nothing is held.
pub(super) fn delete(mut draft: Draft<'_>, id: GuestId, if_match: Option<Revision>) -> Decided {
    let guest = draft.fleet.guest(id).ok_or_else(|| not_found(Kind::Guest, id))?;
    is_current(Kind::Guest, &guest.spec.name, guest.revision, if_match)?;
    if guest.place.is_none() {
        supersede(&mut draft, guest, Action::Delete);
        draft.remove_guest(id);
        return Ok(draft.finish(Kind::Guest, id.0, Outcome::Deleted, None));
    }
    if let Some(job) = draft.open_job(guest).filter(|job| job.action == Action::Delete) {
        let job = job.id;
        return Ok(draft.finish(Kind::Guest, id.0, Outcome::Same, Some(job)));
    }
    supersede(&mut draft, guest, Action::Delete);
    let mut changed = Guest::clone(guest);
    changed.goal = Goal::Gone;
    changed.goal_by = GoalBy::User;
    changed.deed = None;
    changed.state = State::Deleting;
    changed.reason = String::new();
    changed.order = draft.fence;
    changed.revision = draft.revision();
    changed.updated_at = draft.env.wall;
    let job = job::begin(&mut draft, &changed, Action::Delete);
    changed.job = Some(job);
    draft.put_guest(changed);
    Ok(draft.finish(Kind::Guest, id.0, Outcome::Deleted, Some(job)))
}

/// A create that ended in error is placed anew, as PUT would.
pub(super) fn retry(draft: Draft<'_>, id: JobId) -> Decided {
    let job = draft.fleet.job(id).ok_or_else(|| not_found(Kind::Job, id))?;
    if job.status != Status::Error {
        let status = match job.status {
            Status::New => "new",
            Status::Working => "working",
            Status::Done => "done",
            Status::Error => "error",
        };
        return Err(Refusal::NotRetryable { job: id, status });
    }
    let guest = draft.fleet.guest(job.guest).ok_or_else(|| not_found(Kind::Guest, &job.guest_name))?;
    if let Some(open) = draft.open_job(guest) {
        return Err(Refusal::Busy {
            guest: guest.spec.name.clone(),
            action: open.action.as_str(),
            job: open.id,
        });
    }
    if !is_failed(guest) {
        return Err(wrong_state(guest, "only a guest that could not be made is placed anew"));
    }
    make_anew(draft, guest, Action::Create)
}
