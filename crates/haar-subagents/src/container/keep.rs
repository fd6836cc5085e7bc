//! The loop that looks at every container and does what [`super::decide`] says: after a restart of the sub-agent the
//! same as at any other time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use haar_api::rpc::Fault;

use super::decide::{Goal, Step, step};
use super::host::Host;
use super::record::{self, Record};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The pause before a container is run again: from the first to the second, doubled each time.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// A container that ran this long is run again with the first pause.
const STEADY_S: u64 = 10;
/// When what an earlier run left is tried again, where it could not be ended.
const STRAYS_AGAIN: Duration = Duration::from_secs(60);

/// What is remembered between two looks; all of it can be forgotten.
#[derive(Debug, Default)]
struct Memory {
    /// Being acted on.
    busy: HashSet<String>,
    /// At rest, with nothing left to take away: this run of it.
    rested: HashMap<String, u64>,
    pauses: HashMap<String, Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    /// After this run ended, or something else failed.
    run: u64,
    length: Duration,
    until: Instant,
}

impl Memory {
    /// Whether this may be begun now; `ran_s` tells how long the run lasted that has ended.
    fn is_due(&mut self, id: &str, run: u64, todo: Step, ran_s: impl FnOnce() -> u64, now: Instant) -> bool {
        if todo != Step::Rest {
            self.rested.remove(id);
        }
        match todo {
            Step::Leave => return false,
            Step::Rest if self.rested.get(id) == Some(&run) => return false,
            // The pause begins with the end, not with the next run.
            Step::Again if self.pauses.get(id).is_none_or(|pause| pause.run != run) => {
                self.pause(id, run, ran_s(), now);
            }
            _ => {}
        }
        // What failed is tried again after a pause too, whatever it was.
        self.pauses.get(id).is_none_or(|pause| pause.until <= now)
    }

    /// Begins a pause, twice as long as the last, or short again after what ran long enough; answers its length.
    fn pause(&mut self, id: &str, run: u64, ran_s: u64, now: Instant) -> Duration {
        let last = self.pauses.get(id).map(|pause| pause.length).filter(|_| ran_s < STEADY_S);
        let length = last.map_or(PAUSE.0, |last| (last * 2).min(PAUSE.1));
        self.pauses.insert(id.to_owned(), Pause { run, length, until: now + length });
        length
    }

    fn forget_all_but(&mut self, due: &[(Record, Step)]) {
        let known: HashSet<&str> = due.iter().map(|(record, _)| record.id.as_str()).collect();
        self.rested.retain(|id, _| known.contains(id.as_str()));
        self.pauses.retain(|id, _| known.contains(id.as_str()));
    }
}

/// Looks until it is dropped.
pub(super) async fn keep(host: Arc<Host>) {
    let memory = Arc::new(Mutex::new(Memory::default()));
    let mut failing = false;
    loop {
        let looking = Arc::clone(&host);
        let looked = tokio::task::spawn_blocking(move || look(&looking)).await;
        match looked {
            Ok(Ok(due)) => {
                failing = false;
                with(&memory, |memory| memory.forget_all_but(&due));
                for (record, todo) in due {
                    act(&host, &memory, record, todo);
                }
            }
            Ok(Err(fault)) if !failing => {
                failing = true;
                tracing::warn!(%fault, "containers cannot be looked at");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Ends what an earlier run left on the host of containers that are no more, until nothing is left.
pub(super) async fn end_strays(host: Arc<Host>) {
    loop {
        let looking = Arc::clone(&host);
        let strays = tokio::task::spawn_blocking(move || looking.strays()).await;
        let mut is_done = true;
        for id in strays.into_iter().flatten().flatten() {
            let turn = host.guests.turn(&id).await;
            let ending = Arc::clone(&host);
            let ended = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                ending.end_stray(&id)
            });
            if let Ok(Err(fault)) = ended.await {
                tracing::warn!(%fault, "something an earlier run left of a container is there still");
                is_done = false;
            }
        }
        if is_done {
            return;
        }
        tokio::time::sleep(STRAYS_AGAIN).await;
    }
}

fn look(host: &Host) -> Result<Vec<(Record, Step)>, Fault> {
    let mut due = Vec::new();
    for record in host.records()? {
        host.keep_log(&record.id);
        let todo = step(record::look(&host.folders, &record));
        due.push((record, todo));
    }
    Ok(due)
}

/// Begins what is due, unless that is under way or has to wait.
fn act(host: &Arc<Host>, memory: &Arc<Mutex<Memory>>, record: Record, todo: Step) {
    let may_begin = with(memory, |memory| {
        let ran_s = || ran_s(host, &record);
        memory.is_due(&record.id, record.run, todo, ran_s, Instant::now())
            && memory.busy.insert(record.id.clone())
    });
    if !may_begin {
        return;
    }
    let (host, memory) = (Arc::clone(host), Arc::clone(memory));
    tokio::spawn(async move {
        let turn = host.guests.turn(&record.id).await;
        let id = record.id.clone();
        let acting = Arc::clone(&host);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            act_now(&acting, &id)
        });
        let done = done.await;
        with(&memory, |memory| {
            memory.busy.remove(&record.id);
            match done {
                Ok(Ok(Some((Step::Rest, run)))) => {
                    memory.rested.insert(record.id.clone(), run);
                }
                Ok(Ok(_)) => {}
                Ok(Err(fault)) => {
                    let pause = memory.pause(&record.id, record.run, 0, Instant::now());
                    tracing::warn!(container = record.id, %fault, again_ms = pause.as_millis(), "not done");
                }
                // It panicked; the log has said so.
                Err(_) => drop(memory.pause(&record.id, record.run, 0, Instant::now())),
            }
        });
    });
}

/// What is due may have changed while the turn was waited for. Answers what was done, and for which run.
fn act_now(host: &Host, id: &str) -> Result<Option<(Step, u64)>, Fault> {
    let Some(mut record) = record::find(&host.folders, id)? else { return Ok(None) };
    let todo = step(record::look(&host.folders, &record));
    match todo {
        Step::Leave => return Ok(None),
        Step::Start => host.launch(&record)?,
        Step::Again => {
            tracing::info!(container = id, run = record.run + 1, "run again");
            record.run += 1;
            record.restarts += 1;
            record::save(&host.folders, &record)?;
            host.launch(&record)?;
        }
        Step::Restart => {
            tracing::info!(container = id, "a restart that was cut off is finished");
            host.end(&record, super::containers::STOP_GRACE)?;
            host.next_run(&mut record)?;
            host.launch(&record)?;
        }
        Step::End => host.end(&record, super::containers::STOP_GRACE)?,
        Step::Rest => {
            host.tear_down(id, record.wish.nics.len())?;
            if record.goal == Goal::Run {
                record.goal = Goal::Stop;
                record::save(&host.folders, &record)?;
                tracing::info!(container = id, run = record.run, "ended");
            }
        }
        Step::Remove => host.remove(id)?,
        Step::LetGo => {
            tracing::info!(container = id, "it was held to be saved, which was cut off; it goes on");
            host.let_go(&record)?;
        }
    }
    Ok(Some((todo, record.run)))
}

/// How long the present run lasted, which has ended; one whose end nobody saw lasted until now.
fn ran_s(host: &Host, record: &Record) -> u64 {
    let folder = host.folders.container(&record.id);
    let begun: Option<record::Begun> = record::read(&folder, "begun.json");
    let exit: Option<record::Exit> = record::read(&folder, "exit.json");
    let Some(begun) = begun.filter(|begun| begun.run == record.run) else { return 0 };
    let ended_s = exit.filter(|exit| exit.run == record.run).map_or_else(record::now_s, |exit| exit.at_s);
    ended_s.saturating_sub(begun.at_s)
}

fn with<R>(memory: &Mutex<Memory>, act: impl FnOnce(&mut Memory) -> R) -> R {
    act(&mut memory.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "a";

    #[test]
    fn the_pause_grows_from_end_to_end_and_begins_anew_after_a_steady_run() {
        let (mut memory, begun) = (Memory::default(), Instant::now());
        let mut now = begun;
        let mut pauses = Vec::new();
        // Each run lasts this long; a second lies between, in which it is looked at.
        for (run, ran_s) in [(1, 0), (2, 5), (3, 9), (4, 10), (5, 0)] {
            now += Duration::from_secs(ran_s);
            let mut waited = Duration::ZERO;
            while !memory.is_due(ID, run, Step::Again, || ran_s, now + waited) {
                waited += Duration::from_millis(50);
            }
            pauses.push(waited.as_millis());
            now += waited;
        }
        assert_eq!(pauses, [100, 200, 400, 100, 200]);
    }

    #[test]
    fn what_failed_waits_longer_each_time_to_a_bound() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        for _ in 0..20 {
            memory.pause(ID, 1, 0, now);
        }
        assert!(!memory.is_due(ID, 1, Step::Start, || 0, now + Duration::from_secs(59)));
        assert!(memory.is_due(ID, 1, Step::Start, || 0, now + PAUSE.1));
    }

    #[test]
    fn one_at_rest_is_left_alone_until_something_else_was_seen() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        assert!(memory.is_due(ID, 1, Step::Rest, || 0, now));
        memory.rested.insert(ID.to_owned(), 1);
        assert!(!memory.is_due(ID, 1, Step::Rest, || 0, now));
        assert!(!memory.is_due(ID, 1, Step::Leave, || 0, now));
        assert!(memory.is_due(ID, 1, Step::Rest, || 0, now), "the same run began again meanwhile");
        memory.rested.insert(ID.to_owned(), 1);
        assert!(memory.is_due(ID, 2, Step::Rest, || 0, now), "another run");
    }
}
