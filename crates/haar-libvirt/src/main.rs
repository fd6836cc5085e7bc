//! `haar-libvirt`: the libvirt sub-agent, JSON-RPC on one side and libvirtd on the other.
//!
//! A program of its own because it links libvirt, whose libraries a host without guests does not have.
//! Promised: every method is "make it so"; text that becomes XML is escaped; another's domain is left alone.
//! Deliberately absent: disks, seeds, bridges and firewall rules (other sub-agents and the agent make them), restart
//! policy (the node's brain has it), migration.
//!
//! How it hangs together, top to bottom: `service` names the methods; `define`, `power`, `metrics`, `screen`,
//! `guest_agent`, `snapshot` and `events` carry them out, `hold` and `shutdown` what goes on after an answer;
//! `request` and `owner` refuse; `domain` reads; `xml` and `describe` turn guests into XML and back;
//! `connection` holds libvirtd.

mod accel;
mod connection;
mod console;
mod define;
mod describe;
mod domain;
mod events;
mod ffi;
mod filter;
mod guest_agent;
mod hold;
mod metrics;
mod network;
mod owner;
mod power;
mod request;
mod screen;
mod service;
mod shutdown;
mod snapshot;
mod state;
mod tree;
mod xml;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use haar_subagents::kit;
use tokio::signal::unix::{SignalKind, signal};

/// How long a hung call to libvirtd may delay the end.
const GRACE: Duration = Duration::from_secs(1);

/// The libvirt sub-agent of Haar.
#[derive(Debug, Parser)]
#[command(version)]
#[command(group = clap::ArgGroup::new("listen").required(true).args(["socket", "port"]))]
struct Args {
    /// Unix socket to answer on, for its owner only.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Port on 127.0.0.1 to answer on; open to every local user, who thereby is root.
    #[arg(long, short)]
    port: Option<u16>,
    /// libvirt's URI.
    #[arg(long, default_value = "qemu:///system")]
    uri: String,
    /// Folder for the guests' sockets, in its subfolders `console` and `vnc`; in `frozen`, which of them may be frozen or
    /// suspended for a while.
    #[arg(long, default_value = "/run/haar")]
    run_dir: PathBuf,
    /// Folder for the guests' console logs, in its subfolder `console`.
    #[arg(long, default_value = "/var/lib/haar/log")]
    log_dir: PathBuf,
    /// What the bridges are that callers without `haar` name: looked at when left out.
    #[arg(long, value_enum)]
    switch: Option<Switch>,
    /// Calls to libvirtd that may be under way at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// End when standard input closes: whoever started it is gone then.
    #[arg(long)]
    supervised: bool,
}

/// A kind of bridge.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Switch {
    Openvswitch,
    Bridge,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_ansi(false).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime does not start");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(serve(args));
    // A call that hangs in libvirt has no way to be ended from outside.
    runtime.shutdown_timeout(GRACE);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<(), String> {
    let event_loop = connection::start_event_loop()
        .map_err(|error| format!("libvirt's event loop does not start: {error}"))?;
    let pool = connection::Pool::new(&args.uri, usize::from(args.connections));
    let host = service::Host {
        probe: accel::Probe::take(pool.is_test_driver()),
        folders: console::Folders {
            sockets: args.run_dir.join("console"),
            logs: args.log_dir.join("console"),
        },
        screens: args.run_dir.join("vnc"),
        frozen: args.run_dir.join("frozen"),
        qemu: std::sync::OnceLock::new(),
        frames: filter::Frames::new(pool.is_test_driver()),
        switch: args.switch.map(|switch| match switch {
            Switch::Openvswitch => xml::Switch::OpenVswitch,
            Switch::Bridge => xml::Switch::Bridge,
        }),
    };
    let (accel, reason) = host.probe.auto();
    let listen = match (args.socket, args.port) {
        (Some(path), _) => kit::Listen::Unix(path),
        (None, port) => kit::Listen::Loopback(port.unwrap_or(0)),
    };
    let ends = ends(args.supervised).map_err(|error| format!("signals cannot be heard: {error}"))?;
    let journal = events::Journal::new();
    let following = tokio::spawn(journal.clone().follow(pool.clone()));
    let bound = service::server(pool, host, &journal).bind(&listen).map_err(|error| error.to_string())?;
    tracing::info!(?listen, uri = args.uri, accel = accel.as_str(), reason, "answering");
    let mut is_deaf = false;
    let closing = async {
        tokio::select! {
            () = ends => {}
            _ = event_loop => is_deaf = true,
        }
        journal.close();
    };
    let served = bound.serve(closing).await.map_err(|error| error.to_string());
    following.abort();
    if is_deaf {
        // Whoever supervises this program starts it again.
        return Err("libvirt's event loop ended: neither events nor dead connections are noticed".to_owned());
    }
    served
}

/// Resolves at the first SIGTERM or SIGINT, and for a supervised program when standard input closes.
fn ends(supervised: bool) -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (left_alone, alone) = tokio::sync::oneshot::channel();
    if supervised {
        // A thread of its own, for such a read cannot be taken back; it ends with the process.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = left_alone.send(());
        });
    }
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = alone, if supervised => {}
        }
    })
}
