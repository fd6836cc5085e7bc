//! The network between agents and the controller: it drops, delays, repeats and reorders.
//!
//! Agents dial: an answer belongs to a request of one process and is heard by nobody else, as with HTTP. A
//! request may arrive long after whoever sent it is gone.

use haar_core::fence::Fence;
use haar_core::order::{DesiredSet, Hello, Report};

use crate::world::{Event, World, tell};

/// Something on its way: of or to the agent's process `run` on a host.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    ToController(usize, u64, ToController),
    ToAgent(usize, u64, ToAgent),
}

#[derive(Debug, Clone)]
pub(crate) enum ToController {
    Hello(Hello),
    Feed(Fence),
    Report(Box<Report>),
}

#[derive(Debug, Clone)]
pub(crate) enum ToAgent {
    Welcome(u64),
    NotWelcome(u64),
    Set(Box<DesiredSet>),
    Taken(Box<Report>),
}

impl Message {
    pub(crate) fn host(&self) -> usize {
        match self {
            Message::ToController(host, ..) | Message::ToAgent(host, ..) => *host,
        }
    }
}

impl World {
    /// Sends a message, which may come late, twice or never.
    pub(crate) fn send(&mut self, message: Message) {
        self.messages += 1;
        if self.is_partitioned(message.host()) {
            return;
        }
        let quick = self.lot.between(1, 30);
        if !self.chaos {
            self.after(quick, Event::Arrives(message));
            return;
        }
        match self.lot.below(100) {
            0..=4 => {
                self.coverage.count("fault.message_lost");
                tell!(self, "net: lost {message:?}");
            }
            5..=8 => {
                self.coverage.count("fault.message_repeated");
                let late = self.lot.between(1, 90_000);
                self.after(late, Event::Arrives(message.clone()));
                self.after(quick, Event::Arrives(message));
            }
            9..=15 => {
                self.coverage.count("fault.message_delayed");
                let late = self.lot.between(1_000, 60_000);
                self.after(late, Event::Arrives(message));
            }
            _ => self.after(quick, Event::Arrives(message)),
        }
    }

    pub(crate) fn is_partitioned(&self, host: usize) -> bool {
        self.hosts[host].partitioned_until > self.now
    }
}
