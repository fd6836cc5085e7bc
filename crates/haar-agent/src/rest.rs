//! The REST as a part of the agent: from its configuration, beside the node, and ended with it.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::hand::Configured;
use crate::local::{self, Cloud, Plan};

/// What the REST runs with, by the agent's configuration.
///
/// # Errors
/// [`local::config::Error`] when its file of actions cannot be used.
pub(crate) fn settings(config: &Config, hands: &Configured) -> Result<local::Settings, local::config::Error> {
    let plan = match &config.rest.config {
        Some(path) => Plan::read(path)?,
        None => Plan::built_in(&hands.libvirt.socket, &hands.storage.socket, Some(&hands.container.socket)),
    };
    Ok(local::Settings {
        socket: config.run_dir().join("agent.sock"),
        listen: config.rest.listen,
        plan,
        store: config.data_dir.join("agent/rest.redb"),
        profiling: if config.rest.pprof { local::Profiling::On } else { local::Profiling::Off },
    })
}

/// The agent's REST, if it has one, and how to end it.
pub(crate) struct Rest {
    /// Cancelled when it has ended by itself.
    pub(crate) ended: CancellationToken,
    stop: oneshot::Sender<()>,
    running: Option<JoinHandle<Result<(), local::Error>>>,
}

impl Rest {
    /// Starts it; the folder of its socket is there.
    pub(crate) async fn start(settings: Option<local::Settings>, cloud: Cloud) -> Result<Rest, local::Error> {
        let (stop, stopped) = oneshot::channel();
        let ended = CancellationToken::new();
        let running = match settings {
            None => None,
            Some(settings) => {
                // Whoever could tell is gone: that is a stop too.
                let running =
                    local::start_beside(cloud, None, settings, async move { drop(stopped.await) }).await?;
                let guard = ended.clone().drop_guard();
                Some(tokio::spawn(async move {
                    let _guard = guard;
                    running.ended().await
                }))
            }
        };
        Ok(Rest { ended, stop, running })
    }

    /// Ends it, and says how it has ended.
    pub(crate) async fn stop(self) -> Result<(), local::Error> {
        drop(self.stop);
        match self.running {
            Some(running) => running.await.unwrap_or(Err(local::Error::Engine)),
            None => Ok(()),
        }
    }
}
