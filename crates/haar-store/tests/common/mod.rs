//! A medium in memory that loses power or space on demand, and the history that is written to it.
//!
//! Like a real one it owes nothing for what was not flushed: at a crash each unflushed sector is kept or
//! lost on its own, and the write in flight may be torn.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use haar_store::{Disk, Error, Fence, Kind, Op, Options, RedbDisk, StorageBackend};

const SECTOR: usize = 512;

/// What happens at a crash to writes that were not flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unflushed {
    /// All are lost.
    Lost,
    /// All reach the medium; the one in flight in its first half only.
    Kept,
    /// Each sector by lot.
    Drawn(u64),
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Medium(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    unflushed: Vec<(usize, Vec<u8>)>,
    steps: u64,
    dies_at: Option<u64>,
    dead: bool,
    capacity: Option<usize>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").field("steps", &self.steps).finish_non_exhaustive()
    }
}

impl Medium {
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        let state = State { live: bytes.clone(), durable: bytes, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Power ends at the n-th write, flush or change of length from now; the first is 1.
    pub(crate) fn die_at(&self, step: u64) {
        let mut state = self.state();
        state.dies_at = Some(state.steps + step);
    }

    /// The power is back, and nothing was lost: an error that passed.
    pub(crate) fn revive(&self) {
        let mut state = self.state();
        state.dead = false;
        state.dies_at = None;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead
    }

    pub(crate) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Writes beyond so many bytes of the file fail for want of space; `None` gives the space back.
    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    pub(crate) fn live(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// The medium as it is found after the power comes back.
    pub(crate) fn after_crash(&self, unflushed: Unflushed) -> Self {
        let state = self.state();
        let mut image = state.durable.clone();
        let mut lot = if let Unflushed::Drawn(seed) = unflushed { seed } else { 0 };
        let in_flight = state.unflushed.len().saturating_sub(1);
        for (number, (offset, data)) in state.unflushed.iter().enumerate() {
            for (sector, bytes) in data.chunks(SECTOR).enumerate() {
                let first_half = (sector * SECTOR) * 2 < data.len();
                let kept = match unflushed {
                    Unflushed::Lost => false,
                    Unflushed::Kept => number < in_flight || first_half,
                    Unflushed::Drawn(_) => draw(&mut lot).is_multiple_of(2),
                };
                let start = offset + sector * SECTOR;
                // A growth that was not flushed is lost, and with it what was written there.
                if kept && start + bytes.len() <= image.len() {
                    image[start..start + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        Self::holding(image)
    }

    pub(crate) fn open(&self) -> Result<RedbDisk, Error> {
        let medium = self.clone();
        RedbDisk::open_with("double.redb", move || Ok(Box::new(medium.clone()) as _), Options::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Counts a step; true when the power ends in it.
    fn step(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(io::Error::other("no power"));
        }
        self.steps += 1;
        self.dead = self.dies_at.is_some_and(|last| self.steps >= last);
        Ok(self.dead)
    }
}

fn no_power<T>() -> io::Result<T> {
    Err(io::Error::other("the power ended"))
}

impl StorageBackend for Medium {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.state().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.state();
        if state.dead {
            return no_power();
        }
        let start = offset as usize;
        let Some(bytes) = state.live.get(start..start + out.len()) else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.state();
        if state.step()? {
            return no_power();
        }
        state.live.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.state();
        if state.step()? {
            return no_power();
        }
        let State { live, durable, unflushed, .. } = &mut *state;
        durable.resize(live.len(), 0);
        for (offset, data) in unflushed.drain(..) {
            durable[offset..offset + data.len()].copy_from_slice(&data);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.state();
        let died = state.step()?;
        let (start, end) = (offset as usize, offset as usize + data.len());
        if state.capacity.is_some_and(|capacity| end > capacity) {
            return Err(ErrorKind::StorageFull.into());
        }
        state.unflushed.push((start, data.to_vec()));
        if died {
            return no_power();
        }
        if end > state.live.len() {
            state.live.resize(end, 0);
        }
        state.live[start..end].copy_from_slice(data);
        Ok(())
    }
}

/// One step of a small generator, the same everywhere.
pub(crate) fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 32)
}

pub(crate) type Content = BTreeMap<(Kind, Vec<u8>), Vec<u8>>;

/// Commit n of a history leads from state n to state n + 1.
pub(crate) struct History {
    pub(crate) commits: Vec<Vec<Op>>,
    pub(crate) states: Vec<Content>,
}

/// Puts, overwrites, deletes, small and large values, and now and then an empty commit.
pub(crate) fn history(length: u64) -> History {
    let mut lot = 42;
    let mut content = Content::new();
    let mut history = History { commits: Vec::new(), states: vec![Content::new()] };
    for number in 0..length {
        let count = draw(&mut lot) % 12;
        let commit: Vec<Op> = (0..count).map(|_| operation(&mut lot, number)).collect();
        for op in &commit {
            match op {
                Op::Put { kind, key, value } => content.insert((*kind, key.clone()), value.clone()),
                Op::Delete { kind, key } => content.remove(&(*kind, key.clone())),
            };
        }
        history.commits.push(commit);
        history.states.push(content.clone());
    }
    history
}

fn operation(lot: &mut u64, number: u64) -> Op {
    let kind = Kind((draw(lot) % 3) as u8);
    let key = format!("key-{}", draw(lot) % 20).into_bytes();
    match draw(lot) % 10 {
        0..=2 => Op::Delete { kind, key },
        3 => Op::Put { kind, key, value: vec![number as u8; 1 + (draw(lot) % 70_000) as usize] },
        _ => Op::Put { kind, key, value: format!("value of commit {number}").into_bytes() },
    }
}

/// The fence after so many commits.
pub(crate) fn fence(commits: usize) -> Fence {
    Fence { epoch: u64::from(commits > 0), revision: commits as u64 }
}

pub(crate) fn load(disk: &mut dyn Disk) -> (Fence, Content) {
    let mut content = Content::new();
    let fence = disk
        .load(&[], &mut |kind, key, value| {
            content.insert((kind, key.to_vec()), value.to_vec());
        })
        .unwrap();
    (fence, content)
}
