//! The process behind `haar up`: holds the data folder, keeps controller and agent running, ends them in order.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use haar_agent::supervise::{Program, Supervised};
use haar_api::client::Client;
use haar_api::endpoint::Nothing;
use haar_api::table;
use haar_api::v1::HypervisorView;

use super::{Told, Up, Words, enrol, print, saved};
use crate::modes::folder::Folder;
use crate::modes::machine::{self, Check};
use crate::modes::process::{self, AlreadyUp};

/// How long the controller may take to be ready: it checks every page of its store first.
pub(super) const CONTROLLER_LIMIT: Duration = Duration::from_secs(60);
/// How long the agent may take to join and to say what the machine has.
pub(super) const AGENT_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// In the background: tells the process that started it how it went, then lives on.
pub(super) fn main(words: Words) -> ExitCode {
    // It is no leader of a group, so this cannot be refused.
    let _ = nix::unistd::setsid();
    process::log();
    process::run(async move {
        let folder = Folder(words.data.clone());
        let outcome = live(&words, &folder, |up| tell(&Told::Up(up))).await;
        if let Err(error) = &outcome {
            let why = format!("{error:#}");
            tell(&if error.is::<AlreadyUp>() { Told::AlreadyUp(why) } else { Told::Failed(why) });
        }
        outcome
    })
}

/// In the foreground: says it on the terminal and to systemd.
pub(super) fn main_in_foreground(
    words: &Words,
    folder: &Folder,
    checks: Vec<Check>,
    begun: Instant,
) -> ExitCode {
    process::log();
    process::run_as(
        words.format.output,
        live(words, folder, |up| {
            print(words.format.output, &up.beside(checks), begun);
            // Outside systemd there is nobody to tell.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }),
    )
}

fn tell(told: &Told) {
    let line = serde_json::to_string(told).expect("texts and numbers are JSON");
    // Whoever listened may have been stopped; the cloud lives on.
    let _ = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
}

/// The cloud's whole life on this machine.
async fn live(words: &Words, folder: &Folder, ready: impl FnOnce(Up)) -> anyhow::Result<ExitCode> {
    let ends = process::ends(false)?;
    tokio::pin!(ends);
    let _taken = folder.take()?;
    let controller = Supervised::start(controller(words, folder)?);
    let started = tokio::select! {
        started = start_rest(words, folder) => started,
        () = &mut ends => Err(anyhow::anyhow!("stopped before it was up")),
    };
    let agent = match started {
        Ok((agent, up)) => {
            ready(up);
            ends.await;
            Some(agent)
        }
        Err(error) => {
            controller.stop().await;
            return Err(error);
        }
    };
    if let Some(agent) = agent {
        agent.stop().await;
    }
    controller.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn start_rest(words: &Words, folder: &Folder) -> anyhow::Result<(Supervised, Up)> {
    let url = format!("http://{}", words.listen);
    let is_first_start = !folder.path("agent.toml").exists();
    let token = controller_ready(&url, folder).await?;
    let client = Client::new(&url, Some(token.clone()))?;
    let enrolled = enrol::enrol(&client, words, folder, &url).await?;
    let cloud = saved::ToSave {
        name: &words.save_as,
        url: &url,
        token: &token,
        cloud: &enrolled.cloud,
        data: &folder.0,
    };
    let (saved, mut warnings) = saved::save(cloud);
    let agent = Supervised::start(agent(folder)?);
    match agent_ready(&client, &enrolled.hypervisor, folder).await {
        Ok(hypervisor) if hypervisor.inventory.accel == "unavailable" => {
            let why = &hypervisor.inventory.accel_reason;
            warnings.push(format!("no guest can run yet: {why}; see `haar doctor`"));
        }
        Ok(_) => {}
        // The books are there all the same, and the agent goes on trying.
        Err(error) => warnings.push(format!("{error:#}")),
    }
    let up = Up {
        url,
        cloud: enrolled.cloud,
        hypervisor: enrolled.name,
        is_first_start,
        saved,
        warnings,
        checks: Vec::new(),
    };
    Ok((agent, up))
}

fn own_program() -> anyhow::Result<std::path::PathBuf> {
    std::env::current_exe().context("this program's own file is not to be found")
}

fn controller(words: &Words, folder: &Folder) -> anyhow::Result<Program> {
    let mut args: Vec<OsString> = vec!["controller".into(), "--supervised".into(), "--data".into()];
    args.push(folder.path("controller").into());
    args.extend(["--listen".into(), words.listen.to_string().into()]);
    args.extend(["--admin-token-file".into(), folder.path("admin.token").into()]);
    if let Some(network) = words.network {
        args.extend(["--network".into(), network.to_string().into()]);
    }
    for server in machine::name_servers() {
        args.extend(["--dns".into(), server.to_string().into()]);
    }
    let log = Some(folder.path("log/controller.log"));
    Ok(Program { name: "controller", file: own_program()?, args, log })
}

fn agent(folder: &Folder) -> anyhow::Result<Program> {
    let config = folder.path("agent.toml").into();
    let args: Vec<OsString> = vec!["agent".into(), "--supervised".into(), "--config".into(), config];
    Ok(Program { name: "agent", file: own_program()?, args, log: Some(folder.path("log/agent.log")) })
}

/// Waits until the controller takes changes and the token for it is there.
async fn controller_ready(url: &str, folder: &Folder) -> anyhow::Result<String> {
    let deadline = Instant::now() + CONTROLLER_LIMIT;
    let client = Client::new(url, None)?;
    loop {
        let ready =
            client.request::<table::Readyz>(&[]).limit(Duration::from_secs(2)).send_only(&Nothing).await;
        let token = read_token(&folder.path("admin.token"));
        match (ready, token) {
            (Ok(()), Some(token)) => return Ok(token),
            (Ok(()), None) if Instant::now() >= deadline => bail!("the controller runs but gave no token"),
            (Err(error), _) if Instant::now() >= deadline => bail!(
                "the controller is not ready after {} s: {error}; the end of its log:\n{}",
                CONTROLLER_LIMIT.as_secs(),
                folder.log_end("controller.log", 5)
            ),
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn read_token(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|token| !token.is_empty())
}

/// Waits until the agent has joined in this run of the controller and said what the machine has.
async fn agent_ready(client: &Client, hypervisor: &str, folder: &Folder) -> anyhow::Result<HypervisorView> {
    let deadline = Instant::now() + AGENT_LIMIT;
    loop {
        let asked = client.request::<table::HypervisorShow>(&[hypervisor]).send(&Nothing).await;
        let state = match asked {
            Ok(answered) => {
                let view = answered.value;
                if view.state == "alive" && !view.inventory.version.is_empty() {
                    return Ok(view);
                }
                view.state
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            bail!(
                "no guest can run yet: the agent has not joined after {} s ({state}) and goes on trying; see \
                 `haar hypervisor list` and `haar doctor`; the end of its log:\n{}",
                AGENT_LIMIT.as_secs(),
                folder.log_end("agent.log", 8)
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
