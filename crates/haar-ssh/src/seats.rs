//! Who uses which connection, and when another one is worth dialling. No I/O, no clock of its own.
//!
//! Promises: no connection is given more users than it takes; a further one is dialled only when those that
//! are there or on their way cannot seat all who wait. The number of sessions that a server allows on a
//! connection is learned from its refusals, once for all its connections. Deliberately absent: dialling.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

/// The most connections being dialled at a time: servers drop connections when too many are not logged in.
const DIALS: usize = 4;
/// How long a connection that is not the last may stay unused.
const IDLE: Duration = Duration::from_secs(60);
/// The longest pause after dials that failed.
const PAUSE: Duration = Duration::from_secs(2);

/// What can have users as long as it is alive.
pub(crate) trait Member {
    fn is_alive(&self) -> bool;
}

impl Member for crate::connection::Connection {
    fn is_alive(&self) -> bool {
        crate::connection::Connection::is_alive(self)
    }
}

/// Whether a user shares its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// With others.
    Shared,
    /// With nobody: it may hold up all that goes over its connection.
    Alone,
}

/// The connections of a pool with their users, and those who wait.
#[derive(Debug)]
pub(crate) struct Seats<C> {
    seats: Vec<Seat<C>>,
    next_id: u64,
    /// What is known of the server's limit.
    per_connection: usize,
    dialling: usize,
    waiting_shared: usize,
    waiting_alone: usize,
    failures: u64,
    last_failure: Option<Error>,
    no_dial_before: Option<Instant>,
    pause: Duration,
}

#[derive(Debug)]
struct Seat<C> {
    id: u64,
    connection: Arc<C>,
    users: usize,
    limit: usize,
    is_taken_alone: bool,
    idle_since: Instant,
}

impl<C: Member> Seats<C> {
    pub(crate) fn new(per_connection: usize) -> Self {
        Self {
            seats: Vec::new(),
            next_id: 0,
            per_connection: per_connection.max(1),
            dialling: 0,
            waiting_shared: 0,
            waiting_alone: 0,
            failures: 0,
            last_failure: None,
            no_dial_before: None,
            pause: Duration::ZERO,
        }
    }

    /// How many connections are alive.
    pub(crate) fn alive(&self) -> usize {
        self.seats.iter().filter(|seat| seat.connection.is_alive()).count()
    }

    /// Whether there is no connection and none on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.seats.is_empty() && self.dialling == 0
    }

    /// How many dials have failed so far.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    pub(crate) fn last_failure(&self) -> Option<Error> {
        self.last_failure.clone()
    }

    /// Until when no further dial is worth it.
    pub(crate) fn no_dial_before(&self) -> Option<Instant> {
        self.no_dial_before
    }

    pub(crate) fn begin_waiting(&mut self, sharing: Sharing) {
        *self.waiting(sharing) += 1;
    }

    pub(crate) fn end_waiting(&mut self, sharing: Sharing) {
        *self.waiting(sharing) -= 1;
    }

    fn waiting(&mut self, sharing: Sharing) -> &mut usize {
        match sharing {
            Sharing::Shared => &mut self.waiting_shared,
            Sharing::Alone => &mut self.waiting_alone,
        }
    }

    /// Gives a place on a connection, the oldest that has one, so that the others fall idle.
    pub(crate) fn take(&mut self, sharing: Sharing) -> Option<(u64, Arc<C>)> {
        let seat = self.seats.iter_mut().find(|seat| match sharing {
            Sharing::Shared => !seat.is_taken_alone && seat.users < seat.limit,
            Sharing::Alone => seat.users == 0,
        })?;
        seat.users += 1;
        seat.is_taken_alone = sharing == Sharing::Alone;
        Some((seat.id, Arc::clone(&seat.connection)))
    }

    /// Takes a place back.
    pub(crate) fn give_back(&mut self, id: u64, now: Instant) {
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.id == id) {
            seat.users -= 1;
            seat.is_taken_alone = false;
            seat.idle_since = now;
        }
    }

    /// Forgets connections that are dead, and all but one of those that nobody has used for long.
    pub(crate) fn prune(&mut self, now: Instant) {
        self.seats.retain(|seat| seat.connection.is_alive());
        let mut left = self.seats.len();
        self.seats.retain(|seat| {
            let goes = seat.users == 0 && left > 1 && now.duration_since(seat.idle_since) >= IDLE;
            left -= usize::from(goes);
            !goes
        });
    }

    /// Whether those who wait need one more connection than are on their way; if so it counts as on its way.
    pub(crate) fn begin_dial(&mut self, now: Instant) -> bool {
        let needed = self.waiting_shared.div_ceil(self.per_connection) + self.waiting_alone;
        let is_wanted = self.dialling < needed.min(DIALS);
        let may_be = self.no_dial_before.is_none_or(|time| now >= time);
        self.dialling += usize::from(is_wanted && may_be);
        is_wanted && may_be
    }

    /// A dial has brought a connection.
    pub(crate) fn dialled(&mut self, connection: C, now: Instant) {
        self.dialling -= 1;
        (self.no_dial_before, self.pause) = (None, Duration::ZERO);
        let (id, limit) = (self.next_id, self.per_connection);
        self.next_id += 1;
        let connection = Arc::new(connection);
        self.seats.push(Seat { id, connection, users: 0, limit, is_taken_alone: false, idle_since: now });
    }

    /// A dial has failed; the next one waits longer each time.
    pub(crate) fn dial_failed(&mut self, error: Error, now: Instant) {
        self.dialling -= 1;
        self.failures += 1;
        self.last_failure = Some(error);
        self.pause = (self.pause * 2).clamp(Duration::from_millis(250), PAUSE);
        self.no_dial_before = Some(now + self.pause);
    }

    /// The server refused one more session on a connection that had `open` of them.
    pub(crate) fn refused(&mut self, id: u64, open: usize) {
        if open == 0 {
            return;
        }
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.id == id) {
            seat.limit = seat.limit.min(open);
            self.per_connection = self.per_connection.min(open);
        }
    }

    /// Every connection there is, for the end.
    pub(crate) fn drain(&mut self) -> Vec<Arc<C>> {
        self.seats.drain(..).map(|seat| seat.connection).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::Target;

    #[derive(Debug)]
    struct Fake(AtomicBool);

    impl Member for Fake {
        fn is_alive(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn fake() -> Fake {
        Fake(AtomicBool::new(true))
    }

    fn dials(seats: &mut Seats<Fake>, now: Instant) -> usize {
        std::iter::from_fn(|| seats.begin_dial(now).then_some(())).count()
    }

    #[tokio::test]
    async fn thirty_who_wait_make_three_connections_and_eight_when_each_takes_four() {
        let now = Instant::now();
        let mut seats = Seats::new(10);
        (0..30).for_each(|_| seats.begin_waiting(Sharing::Shared));
        assert_eq!(dials(&mut seats, now), 3);

        seats.dialled(fake(), now);
        let taken: Vec<u64> = std::iter::from_fn(|| seats.take(Sharing::Shared)).map(|(id, _)| id).collect();
        assert_eq!(taken.len(), 10);
        // Four were granted, six refused: these wait again.
        (0..10).for_each(|_| seats.end_waiting(Sharing::Shared));
        for id in &taken[4..] {
            seats.refused(*id, 4);
            seats.give_back(*id, now);
            seats.begin_waiting(Sharing::Shared);
        }
        assert!(seats.take(Sharing::Shared).is_none(), "a full connection must take nobody");
        let mut made = 1 + 2;
        seats.dialled(fake(), now);
        seats.dialled(fake(), now);
        for _ in 0..8 {
            seats.take(Sharing::Shared).unwrap();
            seats.end_waiting(Sharing::Shared);
        }
        while seats.waiting_shared > 0 {
            let more = dials(&mut seats, now);
            assert!((1..=DIALS).contains(&more));
            made += more;
            (0..more).for_each(|_| seats.dialled(fake(), now));
            while seats.waiting_shared > 0 && seats.take(Sharing::Shared).is_some() {
                seats.end_waiting(Sharing::Shared);
            }
        }
        assert_eq!((made, seats.alive()), (8, 8));
    }

    #[tokio::test]
    async fn who_must_be_alone_shares_with_nobody() {
        let now = Instant::now();
        let mut seats = Seats::new(10);
        seats.begin_waiting(Sharing::Alone);
        assert!(seats.begin_dial(now));
        seats.dialled(fake(), now);
        let (id, _) = seats.take(Sharing::Alone).unwrap();
        assert!(seats.take(Sharing::Shared).is_none());
        seats.give_back(id, now);
        seats.take(Sharing::Shared).unwrap();
        assert!(seats.take(Sharing::Alone).is_none());
    }

    #[tokio::test]
    async fn the_dead_and_the_long_unused_are_forgotten_but_one_stays() {
        let now = Instant::now();
        let mut seats = Seats::new(1);
        (0..3).for_each(|_| seats.begin_waiting(Sharing::Shared));
        assert_eq!(dials(&mut seats, now), 3);
        (0..3).for_each(|_| seats.dialled(fake(), now));
        let (_, first) = seats.take(Sharing::Shared).unwrap();
        first.0.store(false, Ordering::SeqCst);
        seats.prune(now);
        assert_eq!(seats.seats.len(), 2);
        seats.prune(now + IDLE);
        assert_eq!(seats.seats.len(), 1);
        seats.give_back(0, now);
    }

    #[tokio::test]
    async fn a_failed_dial_is_not_repeated_at_once() {
        let now = Instant::now();
        let mut seats: Seats<Fake> = Seats::new(1);
        seats.begin_waiting(Sharing::Shared);
        assert!(seats.begin_dial(now) && !seats.begin_dial(now));
        seats.dial_failed(Error::Closed { target: Target::new("web", "root") }, now);
        assert!(!seats.begin_dial(now));
        assert!(seats.begin_dial(now + Duration::from_millis(250)));
    }

    #[tokio::test]
    async fn a_refusal_with_nothing_open_teaches_nothing() {
        let now = Instant::now();
        let mut seats = Seats::new(4);
        seats.begin_waiting(Sharing::Shared);
        assert!(seats.begin_dial(now));
        seats.dialled(fake(), now);
        let (id, _) = seats.take(Sharing::Shared).unwrap();
        seats.refused(id, 0);
        assert_eq!(std::iter::from_fn(|| seats.take(Sharing::Shared)).count(), 3);
    }
}
