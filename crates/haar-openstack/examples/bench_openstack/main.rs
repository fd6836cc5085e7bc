//! Measures a hundred servers spawned at once, and the tear-down of fifty with all that they stand on, beside
//! bare calls to the same real OpenStack in the same run.
//!
//! `cargo xtask bench openstack` brings the cloud up and runs this; by hand, `HAAR_OPENSTACK_DIR` names the
//! folder of one that is up with the driver `Fake`. Both sides take turns in the project `unlimited`: ours,
//! bare, bare, ours. After each tear-down the cloud's own lists must show nothing more in the project, and
//! after each spawn so many active servers; else the bench fails. One JSON line per figure.

mod bare;
#[path = "../../tests/real/member.rs"]
mod member;
mod ours;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use self::bare::Bare;
use self::ours::Ours;

type Outcome<T> = Result<T, Box<dyn Error>>;

const PROJECT: &str = "unlimited";
const SPAWNED: usize = 100;
const TORN_DOWN: usize = 50;
const IMAGE: &str = "Debian 12";
const FLAVOR: &str = "m.tiny";

/// Who does it, in which order: what a cloud gets slower by in a run meets both alike.
const TURNS: [Side; 4] = [Side::Ours, Side::Bare, Side::Bare, Side::Ours];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Ours,
    Bare,
}

/// How long something took by each side, in all its turns.
#[derive(Debug, Default)]
struct Times {
    ours: Duration,
    bare: Duration,
}

impl Times {
    fn add(&mut self, side: Side, took: Duration) {
        match side {
            Side::Ours => self.ours += took,
            Side::Bare => self.bare += took,
        }
    }

    fn ratio(&self) -> f64 {
        rounded(self.bare.as_secs_f64() / self.ours.as_secs_f64())
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = std::env::var_os("HAAR_OPENSTACK_DIR").ok_or("HAAR_OPENSTACK_DIR names no cloud")?;
    let folder = PathBuf::from(folder);
    let bare = Bare::log_in(&folder).await?;
    // What an interrupted run left; nobody else works in this project.
    bare.destroy_all().await?;
    let outcome = tokio::select! {
        outcome = measure(&folder, &bare) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    if outcome.is_err() {
        bare.destroy_all().await?;
    }
    outcome
}

async fn measure(folder: &Path, bare: &Bare) -> Outcome<()> {
    let (mut spawns, mut tear_downs) = (Times::default(), Times::default());
    // The services' first of everything is slow; it counts for nobody.
    turn(folder, bare, Side::Ours, 4, 2).await?;
    for side in TURNS {
        let (spawn, tear_down) = turn(folder, bare, side, SPAWNED, TORN_DOWN).await?;
        let (spawned, torn_down) = (spawn.as_secs_f64(), tear_down.as_secs_f64());
        eprintln!("   {side:?}: {SPAWNED} up in {spawned:.1} s, {TORN_DOWN} down in {torn_down:.1} s");
        spawns.add(side, spawn);
        tear_downs.add(side, tear_down);
    }
    let turns = TURNS.len() / 2;
    let rate = |time: Duration| rounded((turns * SPAWNED) as f64 / time.as_secs_f64());
    let line = json!({
        "name": "openstack_spawns", "value": rate(spawns.ours), "unit": "servers/s", "at_once": SPAWNED,
        "yardstick": "bare POST of each server, and a bare GET of each until it is active",
        "yardstick_value": rate(spawns.bare), "ratio": spawns.ratio(), "runs": turns,
        "yardstick_look_s": bare::LOOK.as_secs_f64(),
        "read": "servers over the time until the last is active; a real Nova with its driver Fake",
    });
    println!("{line}");
    let each = |time: Duration| rounded(time.as_secs_f64() / turns as f64);
    let line = json!({
        "name": "openstack_tear_down", "value": each(tear_downs.ours), "unit": "s", "servers": TORN_DOWN,
        "yardstick": "bare DELETEs of the same, all at once, and a bare GET of each until it is gone",
        "yardstick_value": each(tear_downs.bare), "ratio": tear_downs.ratio(), "runs": turns, "left": 0,
        "read": "time until servers, key pair, security group, router, subnet and network are gone; \
                 the ratio is of speeds",
    });
    println!("{line}");
    Ok(())
}

/// Spawns so many servers, destroys all but `remaining`, and tears down what is left; what the first and the
/// last took.
async fn turn(
    folder: &Path,
    bare: &Bare,
    side: Side,
    servers: usize,
    remaining: usize,
) -> Outcome<(Duration, Duration)> {
    let ours = Ours::deployed(folder).await?;
    let spawn = match side {
        Side::Ours => ours.spawn(servers).await?,
        Side::Bare => bare.spawn(servers, ours.name()).await?,
    };
    let there = bare.servers().await?;
    let active = there.iter().filter(|server| server["status"] == "ACTIVE").count();
    if (there.len(), active) != (servers, servers) {
        return Err(format!("of {servers} servers {} are there, {active} active", there.len()).into());
    }
    let tear_down = match side {
        Side::Ours => {
            ours.destroy(servers - remaining).await?;
            ours.tear_down(remaining).await?
        }
        Side::Bare => {
            bare.destroy_servers(&there[remaining..]).await?;
            let took = bare.destroy_all().await?;
            ours.forget().await?;
            took
        }
    };
    let left = bare.left().await?;
    if !left.is_empty() {
        return Err(format!("after the tear-down there is still: {}", left.join(", ")).into());
    }
    Ok((spawn, tear_down))
}

/// To a hundredth, for readers.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
