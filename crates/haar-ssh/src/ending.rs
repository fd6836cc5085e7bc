//! Ending a command on the server, whose caller does not want it any more.
//!
//! The protocol can ask the server to signal a command, but OpenSSH refuses that for root, and others signal
//! only the shell and not what it started. So the whole process group is signalled by a command of ours in
//! another session, first to end and then, if it does not, to be killed; the server's own way is for a command
//! whose process id is not known. Deliberately absent: processes that left the group on purpose.

use std::time::Duration;

use russh::{ChannelMsg, Sig};
use tokio::time::{Instant, timeout, timeout_at};

use crate::pid_line::PidLine;
use crate::pool::Pool;
use crate::seats::Sharing;
use crate::session::Session;
use crate::shell::{self, Shell};

/// How long a command has to tell its process id.
const TELLING: Duration = Duration::from_secs(2);
/// How long it has to end when asked.
const GRACE: Duration = Duration::from_secs(2);
/// How long the server has for anything else here.
const ANSWER: Duration = Duration::from_secs(10);

/// A session with a command in it.
pub(crate) struct Line {
    pub(crate) session: Session,
    pub(crate) pid: PidLine,
}

impl Line {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, pid: PidLine::default() }
    }

    /// Reads on until the command has ended, `enough` says so, or the time is over.
    async fn read_until(&mut self, shell: &Shell, time: Duration, enough: impl Fn(&PidLine) -> bool) {
        let until = Instant::now() + time;
        while !self.session.is_closed() && !enough(&self.pid) {
            match timeout_at(until, self.session.next()).await {
                Ok(Some(ChannelMsg::Data { data })) => drop(self.pid.pass(data, shell)),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    async fn ends_within(&mut self, shell: &Shell, time: Duration) -> bool {
        self.read_until(shell, time, |_| false).await;
        self.session.is_closed()
    }
}

/// Ends a command, whatever it takes.
pub(crate) async fn end(pool: Pool, mut line: Line) {
    line.read_until(pool.shell(), TELLING, PidLine::is_over).await;
    if line.session.is_closed() {
        return;
    }
    for (signal, name, time) in [(Sig::TERM, "TERM", GRACE), (Sig::KILL, "KILL", ANSWER)] {
        let sent = match line.pid.pid() {
            Some(pid) => kill(&pool, name, pid).await,
            None => None,
        };
        if sent.is_none() {
            let _ = line.session.write().signal(signal).await;
        }
        if line.ends_within(pool.shell(), time).await {
            return;
        }
    }
    tracing::warn!(target = %pool.target(), pid = line.pid.pid(), "a command could not be ended");
}

/// Sends a signal to a process group on the server; `None` when that could not be done.
async fn kill(pool: &Pool, signal: &str, pid: u32) -> Option<()> {
    // Where the server makes no group for a command, its descendants are looked up instead.
    let script = format!(
        "kill -{signal} -{pid} 2>/dev/null || {{ \
         t() {{ for c in $(cat /proc/$1/task/*/children 2>/dev/null); do t $c; done; kill -{signal} $1; }}; \
         t {pid}; }}"
    );
    let killing = async {
        let mut session = pool.session(Sharing::Shared).await.ok()?;
        session.write().exec(false, shell::script(&script, &[])).await.ok()?;
        session.write().eof().await.ok()?;
        while !session.is_closed() {
            session.next().await;
        }
        Some(())
    };
    timeout(ANSWER, killing).await.ok().flatten()
}
