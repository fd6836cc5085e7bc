//! Jobs always end, and what they held is given back.

use super::*;
use crate::guest::GoalBy;
use crate::job::{Stage, StepState};
use crate::order::StepReport;

fn step(stage: Stage, state: StepState, message: &str) -> StepReport {
    StepReport { stage, state, message: message.to_owned() }
}

fn progress(cloud: &mut Cloud, steps: Vec<StepReport>) {
    let mut says = cloud.says(guest(1), Phase::Working, Power::Absent);
    says.steps = steps;
    let report = cloud.report(cloud.place(guest(1)), vec![says]);
    cloud.yes(Command::Report(report));
}

#[test]
fn an_overdue_step_is_asked_for_thrice_and_then_the_create_is_taken_back() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    for tries in 1..=3 {
        let decision = cloud.miss_deadline(guest(1));
        assert!(decision.effects.contains(&Effect::WakeHypervisor(host(1))));
        let told = cloud.fleet.desired_revision(host(1));
        assert_eq!(told, cloud.fleet.fence().revision, "its set is sent once more");
        assert_eq!(cloud.last_job(guest(1)).tries, tries);
        assert_eq!(cloud.last_job(guest(1)).status, Status::New);
    }
    let order = cloud.guest(guest(1)).order;
    cloud.polls.0.clear();
    cloud.miss_deadline(guest(1));
    let job = cloud.last_job(guest(1));
    assert_eq!(job.status, Status::Error);
    assert!(job.error.as_ref().unwrap().message.contains("`lab1` has been silent"));
    let undone = cloud.guest(guest(1));
    assert_eq!((undone.goal, undone.goal_by), (Goal::Gone, GoalBy::Undo));
    assert!(undone.order > order);
    assert!(undone.place.is_some(), "held until the node says that nothing is there");
    assert_eq!(cloud.fleet.next_due(), None);
    cloud.tell(guest(1), Phase::Gone, Power::Absent);
    let released = cloud.guest(guest(1));
    assert_eq!((released.state, released.place), (State::Failed, None));
    assert_eq!(released.avoid, [host(1)]);
    assert!(released.reason.contains("silent"));
}

#[test]
fn a_pipeline_that_begins_anew_for_ever_does_not_keep_its_job_open() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    cloud.yes(Command::Delete(crate::id::Kind::Guest, guest(1).0, None));
    let due = |cloud: &Cloud| cloud.last_job(guest(1)).due;
    let rounds = (1..=20).take_while(|round| {
        let words = format!("round {round}: the file is busy");
        progress(&mut cloud, vec![step(Stage::Poweroff, StepState::Running, &words)]);
        progress(&mut cloud, vec![step(Stage::Poweroff, StepState::Done, "")]);
        progress(&mut cloud, vec![step(Stage::Undisk, StepState::Running, &words)]);
        progress(&mut cloud, vec![step(Stage::Undisk, StepState::Failed, &words)]);
        let before = due(&cloud);
        cloud.now = before.0;
        cloud.yes(Command::Overdue(cloud.last_job(guest(1)).id, before));
        !cloud.last_job(guest(1)).status.ended()
    });
    assert_eq!(rounds.count(), 3, "three tries, then it ends");
    assert_eq!(cloud.last_job(guest(1)).status, Status::Error);
}

#[test]
fn work_that_goes_on_renews_the_deadline() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    progress(&mut cloud, vec![step(Stage::Image, StepState::Running, "1 of 9 MiB")]);
    for done in 2..=9 {
        cloud.now = cloud.last_job(guest(1)).due.0 - 1;
        let before = cloud.last_job(guest(1)).due;
        progress(&mut cloud, vec![step(Stage::Image, StepState::Running, &format!("{done} of 9 MiB"))]);
        assert!(cloud.last_job(guest(1)).due > before);
    }
    assert_eq!(cloud.last_job(guest(1)).tries, 0);
}

#[test]
fn a_delete_during_an_undo_removes_the_record_in_the_end() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    cloud.miss_all_deadlines(guest(1));
    assert_eq!(cloud.create(1).unwrap_err().code(), "wrong_state");
    cloud.yes(Command::Delete(crate::id::Kind::Guest, guest(1).0, None));
    cloud.tell(guest(1), Phase::Gone, Power::Absent);
    assert_eq!(cloud.fleet.guest(guest(1)), None);
}

#[test]
fn an_overdue_delete_ends_in_error_and_still_removes_when_the_node_says_so() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    cloud.yes(Command::Delete(crate::id::Kind::Guest, guest(1).0, None));
    cloud.miss_all_deadlines(guest(1));
    let job = cloud.guest(guest(1)).job.unwrap();
    assert_eq!(cloud.job(job).error.as_ref().unwrap().code, "no_progress");
    assert!(cloud.guest(guest(1)).place.is_some());
    cloud.tell(guest(1), Phase::Gone, Power::Absent);
    assert_eq!(cloud.fleet.guest(guest(1)), None);
    assert_eq!(cloud.job(job).status, Status::Error, "what has ended stays so");
}

#[test]
fn an_overdue_start_leaves_the_guest_and_its_goal() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    cloud.act(guest(1), GuestAction::Shutdown).unwrap();
    cloud.tell(guest(1), Phase::Settled, Power::Off);
    cloud.act(guest(1), GuestAction::Start).unwrap();
    cloud.miss_all_deadlines(guest(1));
    let left = cloud.guest(guest(1));
    assert_eq!((left.goal, left.state), (Goal::Running, State::Stopped));
    assert!(left.reason.contains("no progress"));
    // And it can be asked again.
    assert!(cloud.act(guest(1), GuestAction::Start).unwrap().answer.job.is_some());
}

#[test]
fn progress_renews_the_deadline_and_a_finished_step_the_tries() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    cloud.miss_deadline(guest(1));
    cloud.now += STEP_MS / 2;
    progress(&mut cloud, vec![step(Stage::Image, StepState::Running, "10 of 100 MiB")]);
    let job = cloud.last_job(guest(1));
    assert_eq!((job.status, job.tries), (Status::Working, 1));
    assert_eq!(job.due, MonoMs(cloud.now + STEP_MS));
    let due = job.due;
    cloud.now += 1;
    progress(&mut cloud, vec![step(Stage::Image, StepState::Running, "10 of 100 MiB")]);
    assert_eq!(cloud.last_job(guest(1)).due, due, "the same words again are no progress");
    progress(&mut cloud, vec![step(Stage::Image, StepState::Done, "")]);
    assert_eq!(cloud.last_job(guest(1)).tries, 0);
    let stages: Vec<_> = cloud.last_job(guest(1)).steps.iter().map(|s| (s.stage, s.state)).collect();
    assert_eq!(stages[0], (Stage::Place, StepState::Done));
    assert_eq!(stages[1], (Stage::Image, StepState::Done));
    assert_eq!(stages[2], (Stage::Disks, StepState::Waiting));
    assert_eq!(stages.last().unwrap().0, Stage::Start);
}

#[test]
fn a_deadline_that_was_renewed_is_not_missed() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    let old = cloud.last_job(guest(1)).due;
    let job = cloud.guest(guest(1)).job.unwrap();
    assert!(cloud.yes(Command::Overdue(job, old)).changes.is_empty(), "it is not late yet");
    cloud.now += STEP_MS - 1;
    progress(&mut cloud, vec![step(Stage::Image, StepState::Done, "")]);
    cloud.now += 1;
    assert!(cloud.yes(Command::Overdue(job, old)).changes.is_empty());
    assert_eq!(cloud.fleet.overdue(MonoMs(cloud.now)), []);
}

#[test]
fn a_restart_renews_deadlines_and_keeps_tries() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    cloud.miss_deadline(guest(1));
    cloud.now = 5;
    cloud.restart();
    let job = cloud.last_job(guest(1));
    assert_eq!((job.tries, job.due), (1, MonoMs(5 + STEP_MS)));
    assert_eq!(cloud.fleet.desired_revision(host(1)), cloud.fleet.fence().revision);
    for _ in 0..3 {
        cloud.miss_deadline(guest(1));
    }
    assert_eq!(cloud.last_job(guest(1)).status, Status::Error);
}

#[test]
fn a_restart_hands_out_the_address_that_was_next() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    cloud.running(2);
    cloud.yes(Command::Delete(crate::id::Kind::Guest, guest(1).0, None));
    cloud.tell(guest(1), Phase::Gone, Power::Absent);
    cloud.restart();
    cloud.create(3).unwrap();
    assert_eq!(cloud.guest(guest(3)).place.unwrap().address.to_string(), "10.0.0.12");
}

#[test]
fn a_create_that_is_overdue_is_not_taken_back_on_a_hypervisor_that_has_not_reported() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    cloud.yes(Command::BeginEpoch(0));
    cloud.miss_all_deadlines(guest(1));
    assert_eq!(cloud.last_job(guest(1)).status, Status::Error);
    assert_ne!(cloud.guest(guest(1)).goal, Goal::Gone, "it may hold data that the books do not know of");
    assert!(cloud.guest(guest(1)).place.is_some());
    // When the node tells, all is well again, whichever way.
    let mut other = cloud.clone();
    cloud.tell(guest(1), Phase::Settled, Power::Running);
    assert_eq!(cloud.guest(guest(1)).state, State::Running);
    other.tell(guest(1), failed(), Power::Absent);
    assert_eq!((other.guest(guest(1)).state, other.guest(guest(1)).place), (State::Failed, None));
}

#[test]
fn what_held_data_is_never_taken_back_by_a_deadline() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    // Not by any rule here: as another version's books might say.
    let mut held = cloud.guest(guest(1)).clone();
    held.provisioned = Some(held.order);
    held.state = State::Running;
    cloud.fleet.restore(super::super::change::Record::Guest(Arc::new(held)));
    cloud.miss_all_deadlines(guest(1));
    assert_eq!(cloud.last_job(guest(1)).status, Status::Error);
    assert_eq!(cloud.guest(guest(1)).goal, Goal::Running);
}

#[test]
fn job_ids_come_from_the_lot_and_never_meet() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.lot = 4;
    cloud.create(1).unwrap();
    cloud.lot = 4;
    cloud.create(2).unwrap();
    assert_ne!(cloud.guest(guest(1)).job, cloud.guest(guest(2)).job);
}

#[test]
fn old_jobs_are_forgotten_but_not_a_guests_last_one() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    cloud.running(2);
    let kept = cloud.guest(guest(2)).job.unwrap();
    // Ten thousand jobs by hand would take long: ended ones are put as a store would give them back.
    let ended = cloud.job(kept).clone();
    for number in 0..super::super::draft::MOST_SPARE_JOBS as u128 + 5 {
        let id = JobId(Uuid::from_u128(0xbeef_0000 + number));
        let job = Job { id, revision: 0, guest: guest(99), ..ended.clone() };
        cloud.fleet.restore(super::super::change::Record::Job(Arc::new(job)));
    }
    let before = cloud.fleet.jobs().count();
    cloud.act(guest(1), GuestAction::Reboot).unwrap();
    assert_eq!(cloud.fleet.jobs().count(), before + 1 - 2);
    assert!(cloud.fleet.job(kept).is_some());
}
