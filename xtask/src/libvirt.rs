//! A libvirtd for the live tests: the one that runs, or one started for as long as they take.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::run;

const START_LIMIT: Duration = Duration::from_secs(30);

/// The daemons started here; none when libvirtd ran already or systemd looks after it. Ended with this value.
pub(crate) struct Daemons(Vec<&'static str>);

/// Makes sure that `qemu:///system` answers. Needs root.
pub(crate) fn ensure() -> Result<Daemons> {
    if answers() {
        return Ok(Daemons(Vec::new()));
    }
    if run::systemd_runs() {
        run::quiet("systemctl", ["start", "libvirtd"])?;
        wait()?;
        return Ok(Daemons(Vec::new()));
    }
    // Held from the first on, so that a failure of the second ends the first.
    let mut daemons = Daemons(Vec::new());
    for daemon in ["virtlogd", "libvirtd"] {
        if process(daemon).is_none() {
            run::quiet(daemon, ["-d"])?;
            daemons.0.push(daemon);
        }
    }
    wait()?;
    Ok(daemons)
}

fn answers() -> bool {
    // The cheapest question: asking for the version makes libvirtd probe every emulator. A daemon that
    // hangs must not hang us.
    run::quiet("timeout", ["20", "virsh", "--quiet", "--connect", "qemu:///system", "uri"]).is_ok()
}

fn wait() -> Result<()> {
    let began = Instant::now();
    while !answers() {
        if began.elapsed() > START_LIMIT {
            bail!(
                "libvirtd does not answer at qemu:///system after {START_LIMIT:?}; `libvirtd --verbose` tells why"
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The process id of a daemon, if the one its pid file names is alive and is that daemon.
fn process(daemon: &str) -> Option<String> {
    let id = std::fs::read_to_string(format!("/run/{daemon}.pid")).ok()?.trim().to_owned();
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
    (name.trim() == daemon).then_some(id)
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for id in self.0.iter().rev().filter_map(|daemon| process(daemon)) {
            // If it is gone already, so much the better.
            let _ = run::quiet("kill", [id]);
        }
    }
}
