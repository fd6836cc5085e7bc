//! What an agent costs that has nothing to do: memory and processor time of its process, and of its
//! sub-agents beside it, with a hundred domains on libvirt's test driver.
//!
//! A controller and an agent of their own, from their public commands; the domains are strangers to them, looked at
//! as on any host. Processor time is the kernel's count over a while; resident memory as it is at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::figure::Figure;
use crate::cloud::{self, text};
use crate::run;

const DOMAINS: usize = 100;
const LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a dozen looks at the host.
const WATCHED: Duration = Duration::from_secs(60);
const HOST: &str = "bench";

/// Measures and hands over the two figures.
pub(super) fn measure(each: &mut dyn FnMut(Figure)) -> Result<()> {
    let built = cloud::build()?;
    let scratch = run::Scratch::inside(&std::env::temp_dir())?;
    let stage = Stage::begin(&built, scratch.path())?;
    let before = usage(stage.agent.0.id())?;
    let begun = Instant::now();
    // Nothing to wait for: what is measured is that nothing happens.
    std::thread::sleep(WATCHED);
    let (after, seconds) = (usage(stage.agent.0.id())?, begun.elapsed().as_secs_f64());
    stage.seen()?;
    let share = |name: &str| -> Option<f64> {
        let (before, after) = (before.get(name)?, after.get(name)?);
        let ticks = after.ticks.checked_sub(before.ticks).filter(|_| after.process == before.process)?;
        Some(rounded(ticks as f64 / ticks_per_second().ok()? / seconds * 100.0))
    };
    let mib = |name: &str| after.get(name).map(|usage| rounded(usage.resident_kib as f64 / 1024.0));
    let fields = json!({
        "name": "agent_idle_memory", "value": mib("agent"), "unit": "MiB", "domains": DOMAINS,
        "storage_mib": mib("storage"), "libvirt_mib": mib("libvirt"),
        "read": "resident set of the agent's process; its sub-agents' beside it",
    });
    each(figure(&fields)?);
    let fields = json!({
        "name": "agent_idle_cpu", "value": share("agent"), "unit": "% of a core", "domains": DOMAINS,
        "storage_percent": share("storage"), "libvirt_percent": share("libvirt"), "seconds": seconds.round(),
        "read": "processor time of the agent's process by the kernel's count; its sub-agents' beside it",
    });
    each(figure(&fields)?);
    Ok(())
}

fn figure(fields: &Value) -> Result<Figure> {
    ensure!(fields["value"].is_number(), "a process went away while it was watched: {fields}");
    Ok(Figure::new(fields.as_object().cloned().context("an object was written above")?))
}

/// A controller, and an agent that looks at a hundred domains. Both end with this value.
struct Stage {
    haar: PathBuf,
    url: String,
    token: String,
    agent: run::Running,
    _controller: run::Running,
}

impl Stage {
    fn begin(built: &Path, folder: &Path) -> Result<Stage> {
        let haar = built.join("haar");
        let address = {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            free.local_addr()?.to_string()
        };
        let token_file = folder.join("admin.token");
        let controller = start(
            Command::new(&haar)
                .args(["controller", "--listen", &address, "--data"])
                .arg(folder.join("controller"))
                .arg("--admin-token-file")
                .arg(&token_file),
            &folder.join("controller.log"),
        )?;
        let read = || Ok(std::fs::read_to_string(&token_file)?);
        let token = cloud::wait_for(LIMIT, read)?.trim().to_owned();
        let url = format!("http://{address}");
        let ask = |words: &[&str]| ask(&haar, &url, &token, words);
        let host = cloud::wait_for(LIMIT, || ask(&["hypervisor", "create", HOST]))?;
        let agents = ask(&["token", "create", "agent", "--role", "agent", "--hypervisor", HOST])?;
        std::fs::write(folder.join("agent.token"), text(&agents, "secret")?)?;
        std::fs::write(folder.join("node.xml"), node())?;
        let config =
            config(folder, &url, &text(&ask(&["config", "show"])?, "cloud")?, &text(&host, "id")?, built);
        std::fs::write(folder.join("agent.toml"), config)?;
        let agent = start(
            Command::new(&haar).args(["agent", "--config"]).arg(folder.join("agent.toml")),
            &folder.join("agent.log"),
        )?;
        let stage = Stage { haar, url, token, agent, _controller: controller };
        let seen = cloud::wait_for(LIMIT, || stage.seen());
        seen.with_context(|| std::fs::read_to_string(folder.join("agent.log")).unwrap_or_default())?;
        Ok(stage)
    }

    /// Whether the controller knows the host as alive.
    fn seen(&self) -> Result<()> {
        let host = ask(&self.haar, &self.url, &self.token, &["hypervisor", "show", HOST])?;
        ensure!(host["state"] == "alive", "the hypervisor is {host}");
        Ok(())
    }
}

fn ask(haar: &Path, url: &str, token: &str, words: &[&str]) -> Result<Value> {
    let mut command = Command::new(haar);
    command.args(words).args(["-o", "json"]).env("HAAR_URL", url).env("HAAR_TOKEN", token);
    let printed = run::quietly(command.env_remove("HAAR_CLOUD").env_remove("HAAR_PROJECT"))?;
    serde_json::from_str(&printed).with_context(|| format!("no JSON: {printed}"))
}

/// Starts a program that ends when we do.
fn start(command: &mut Command, log: &Path) -> Result<run::Running> {
    let log = std::fs::File::create(log)?;
    command.arg("--supervised").stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    Ok(run::Running(command.spawn().context("cannot start haar")?))
}

fn config(folder: &Path, url: &str, cloud: &str, hypervisor: &str, built: &Path) -> String {
    let (folder, built) = (folder.display(), built.display());
    format!(
        "controller = \"{url}\"\ntoken_file = \"{folder}/agent.token\"\ncloud = \"{cloud}\"\n\
         hypervisor = \"{hypervisor}\"\ndata_dir = \"{folder}/data\"\nrun_dir = \"{folder}/run\"\nimage_dirs = []\n\
         [libvirt]\nprogram = \"{built}/haar-libvirt\"\nuri = \"test://{folder}/node.xml\"\n"
    )
}

/// A host for libvirt's test driver, all of whose domains run.
fn node() -> String {
    let mut node = "<node>\n".to_owned();
    for number in 1..=DOMAINS {
        // Writing to a string does not fail.
        let _ = writeln!(
            node,
            "<domain type='test'><name>stranger-{number}</name><memory>65536</memory><os><type>hvm</type></os></domain>"
        );
    }
    node + "</node>\n"
}

/// What the kernel says of a process.
#[derive(Debug)]
struct Usage {
    process: u32,
    ticks: u64,
    resident_kib: u64,
}

/// Of the agent and its sub-agents, by their names.
fn usage(agent: u32) -> Result<BTreeMap<&'static str, Usage>> {
    let mut found = BTreeMap::from([("agent", of(agent)?)]);
    for child in run::quiet("pgrep", ["-P", &agent.to_string()])?.split_whitespace() {
        // A program that is run for a moment may be gone by now.
        let words = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let is = |name: &str| words.first().is_some_and(|program| program.ends_with(name));
        let name = match words.get(1).map(AsRef::as_ref) {
            _ if is("/haar-libvirt") => "libvirt",
            Some("storage") if is("/haar") => "storage",
            _ => continue,
        };
        found.insert(name, of(child.parse()?)?);
    }
    ensure!(found.len() == 3, "the agent's sub-agents are not all there: {found:?}");
    Ok(found)
}

fn of(process: u32) -> Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("the kernel's line has no name")?;
    let number = |at: usize| rest.split_whitespace().nth(at).and_then(|word| word.parse::<u64>().ok());
    let ticks = number(11).zip(number(12)).map(|(user, system)| user + system);
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident_kib = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
    Ok(Usage {
        process,
        ticks: ticks.context("the kernel tells no times")?,
        resident_kib: resident_kib.context("the kernel tells no memory")?,
    })
}

fn ticks_per_second() -> Result<f64> {
    Ok(run::quiet("getconf", ["CLK_TCK"])?.trim().parse()?)
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
