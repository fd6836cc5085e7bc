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
/// Bytes of a container's log; as much again is kept of what was before.
const MOST_LOG_BYTES: u64 = 16 << 20;

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
    length: Duration,
    until: Instant,
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
                with(&memory, |memory| forget(memory, &due));
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

fn look(host: &Host) -> Result<Vec<(Record, Step)>, Fault> {
    let mut due = Vec::new();
    for record in host.records()? {
        if let Err(error) = host.turn_log(&record.id, MOST_LOG_BYTES) {
            tracing::debug!(container = record.id, %error, "the log cannot be turned");
        }
        let todo = step(record::look(&host.folders, &record));
        due.push((record, todo));
    }
    Ok(due)
}

fn forget(memory: &mut Memory, due: &[(Record, Step)]) {
    let known: HashSet<&str> = due.iter().map(|(record, _)| record.id.as_str()).collect();
    memory.rested.retain(|id, _| known.contains(id.as_str()));
    memory.pauses.retain(|id, _| known.contains(id.as_str()));
}

/// Begins what is due, unless that is under way or has to wait.
fn act(host: &Arc<Host>, memory: &Arc<Mutex<Memory>>, record: Record, todo: Step) {
    let may_begin = with(memory, |memory| {
        let may_begin = match todo {
            Step::Leave => false,
            Step::Rest => memory.rested.get(&record.id) != Some(&record.run),
            // What failed is tried again after a pause too, whatever it was.
            Step::Again | Step::Start | Step::End | Step::Remove => {
                memory.pauses.get(&record.id).is_none_or(|pause| pause.until <= Instant::now())
            }
        };
        may_begin && memory.busy.insert(record.id.clone())
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
                    let length = longer(memory, &record.id, 0);
                    tracing::warn!(container = record.id, %fault, again_ms = length.as_millis(), "not done");
                }
                // It panicked; the log has said so.
                Err(_) => drop(longer(memory, &record.id, 0)),
            }
            if todo == Step::Again {
                let ran_s = ran_s(&host, &record);
                longer(memory, &record.id, ran_s);
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
            record::save(&host.folders, &record)?;
            host.launch(&record)?;
        }
        Step::End => drop(host.end(record.clone(), Duration::from_secs(10))?),
        Step::Rest => {
            host.tear_down(id, record.wish.nics.len())?;
            if record.goal == Goal::Run {
                record.goal = Goal::Stop;
                record::save(&host.folders, &record)?;
                tracing::info!(container = id, run = record.run, "ended");
            }
        }
        Step::Remove => host.remove(id)?,
    }
    Ok(Some((todo, record.run)))
}

/// Makes the next pause twice as long, or short again for what ran long enough; answers it.
fn longer(memory: &mut Memory, id: &str, ran_s: u64) -> Duration {
    let last = memory.pauses.get(id).map(|pause| pause.length).filter(|_| ran_s < STEADY_S);
    let length = last.map_or(PAUSE.0, |last| (last * 2).min(PAUSE.1));
    memory.pauses.insert(id.to_owned(), Pause { length, until: Instant::now() + length });
    length
}

fn ran_s(host: &Host, record: &Record) -> u64 {
    let folder = host.folders.container(&record.id);
    let begun: Option<record::Begun> = record::read(&folder, "begun.json");
    let exit: Option<record::Exit> = record::read(&folder, "exit.json");
    exit.zip(begun).map_or(0, |(exit, begun)| exit.at_s.saturating_sub(begun.at_s))
}

fn with<R>(memory: &Mutex<Memory>, act: impl FnOnce(&mut Memory) -> R) -> R {
    act(&mut memory.lock().unwrap_or_else(PoisonError::into_inner))
}
