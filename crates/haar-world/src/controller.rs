//! The controller's shell in a world: what arrives is queued, turned, published and answered.

use haar_core::fleet::command::{Command, Decided};
use haar_core::order::Report;
use haar_core::refusal::Refusal;

use crate::books::Turned;
use crate::net::{Message, ToAgent, ToController};
use crate::world::{Asker, Event, World, tell};

impl World {
    pub(crate) fn controller_hears(&mut self, host: usize, run: u64, message: ToController) {
        let id = self.hosts[host].id;
        let Some(engine) = &mut self.books.engine else { return };
        engine.heard(id, self.now);
        match message {
            ToController::Hello(hello) => self.submit(Command::Hello(hello), Asker::Hello { host, run }),
            ToController::Report(report) => {
                let asker = Asker::Report { host, run, report: report.clone() };
                self.submit(Command::Report(*report), asker);
            }
            ToController::Feed(since) => {
                let published = engine.published.fence();
                if since > published {
                    self.submit(Command::BeginEpoch(since.epoch + 1), Asker::Nobody);
                } else if since.epoch != published.epoch
                    || engine.published.desired_revision(id) > since.revision
                {
                    let set = engine.published.desired(id);
                    if let Some(set) = set {
                        self.send(Message::ToAgent(host, run, ToAgent::Set(Box::new(set))));
                    }
                }
            }
        }
    }

    /// Puts a command in the controller's queue, if there is a controller.
    pub(crate) fn submit(&mut self, command: Command, asker: Asker) {
        let Some(engine) = &mut self.books.engine else { return };
        let ticket = engine.submit(command);
        self.asked.insert(ticket, asker);
        if !self.turn_is_due {
            self.turn_is_due = true;
            let wait = self.lot.between(1, 20);
            self.after(wait, Event::Turn);
        }
    }

    pub(crate) fn turn(&mut self) {
        self.turn_is_due = false;
        let Some(engine) = &mut self.books.engine else { return };
        if !engine.is_busy() {
            return;
        }
        let turned = engine.turn(self.now, &mut self.lot);
        if engine.is_busy() {
            self.turn_is_due = true;
            self.after(1, Event::Turn);
        }
        match turned {
            Turned::Answers(answers) => {
                for (ticket, decided) in answers {
                    self.answer(ticket, decided);
                }
            }
            Turned::Unknown(tickets) => {
                tell!(self, "controller: a commit failed; {} wait for an answer in vain", tickets.len());
                self.note_books_reloaded();
                for ticket in tickets {
                    if let Some(Asker::User(index)) = self.asked.remove(&ticket) {
                        self.user_got_no_answer(index);
                    }
                }
            }
        }
    }

    fn answer(&mut self, ticket: u64, decided: Decided) {
        let asker = self.asked.remove(&ticket).unwrap_or(Asker::Nobody);
        match &decided {
            Ok(decision) => {
                self.note_decision(decision);
                for change in &decision.changes {
                    tell!(self, "books {}: {change:?}", decision.fence);
                }
            }
            Err(refusal) => {
                tell!(self, "books: refused: {refusal}");
                self.coverage.count(format!("refusal.{}", refusal.code()));
            }
        }
        match asker {
            Asker::User(index) => self.user_is_answered(index, &decided),
            Asker::Hello { host, run } => {
                let id = self.hosts[host].id;
                let incarnation = self
                    .books
                    .engine
                    .as_ref()
                    .and_then(|engine| engine.published.hypervisor(id))
                    .map(|hypervisor| hypervisor.incarnation);
                if let (Ok(_), Some(incarnation)) = (decided, incarnation) {
                    self.send(Message::ToAgent(host, run, ToAgent::Welcome(incarnation)));
                }
            }
            Asker::Report { host, run, report } => self.answer_report(host, run, report, &decided),
            Asker::Setup => {
                if let Err(refusal) = decided {
                    self.fail(format!("the world cannot begin: {refusal}"));
                }
            }
            Asker::Nobody => {}
        }
    }

    fn answer_report(&mut self, host: usize, run: u64, report: Box<Report>, decided: &Decided) {
        match decided {
            Ok(_) => self.send(Message::ToAgent(host, run, ToAgent::Taken(report))),
            Err(Refusal::StaleIncarnation { given, .. }) => {
                self.send(Message::ToAgent(host, run, ToAgent::NotWelcome(*given)));
            }
            Err(Refusal::BooksRestored { seen, .. }) => {
                self.submit(Command::BeginEpoch(seen.epoch + 1), Asker::Nobody);
            }
            Err(_) => {}
        }
    }

    pub(crate) fn timer(&mut self) {
        if let Some(engine) = &mut self.books.engine {
            engine.find_overdue(self.now);
            if engine.is_busy() && !self.turn_is_due {
                self.turn_is_due = true;
                self.after(1, Event::Turn);
            }
        }
        self.after(5_000, Event::Timer);
    }

    pub(crate) fn start_controller(&mut self) {
        if self.books.engine.is_none() {
            tell!(self, "controller: starts");
            self.books.start(self.now);
            self.note_books_reloaded();
        }
    }

    pub(crate) fn crash_controller(&mut self) {
        tell!(self, "controller: crashes");
        self.books.crash();
        self.turn_is_due = false;
        let asked = std::mem::take(&mut self.asked);
        for asker in asked.into_values() {
            if let Asker::User(index) = asker {
                self.user_got_no_answer(index);
            }
        }
    }

    pub(crate) fn has_turn_due(&self) -> bool {
        self.turn_is_due
    }
}
