//! The REST as a part of the agent: from its configuration, beside the node, and ended with it.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, RestConfig};
use crate::hand::Configured;
use crate::local::{self, Cloud, Guard, GuardError, Listen, Plan};

/// Why the configuration of the REST cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file of actions.
    #[error(transparent)]
    Actions(#[from] local::config::Error),
    /// What guards its address.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// One of three.
    #[error("[rest] certificate, key and token_file belong together: set all three, or none")]
    HalfGuarded,
    /// A guard without an address.
    #[error("[rest] has a certificate and no address: set listen = \"ADDRESS:PORT\"")]
    GuardsNothing,
}

/// What the REST runs with, by the agent's configuration.
///
/// # Errors
/// [`Error`] when its file of actions, or what guards its address, cannot be used.
pub(crate) fn settings(config: &Config, hands: &Configured) -> Result<local::Settings, Error> {
    let plan = match &config.rest.config {
        Some(path) => Plan::read(path)?,
        None => Plan::built_in(&hands.libvirt.socket, &hands.storage.socket, Some(&hands.container.socket)),
    };
    Ok(local::Settings {
        socket: config.run_dir().join("agent.sock"),
        listen: listen(&config.rest)?,
        plan,
        store: config.data_dir.join("agent/rest.redb"),
        profiling: if config.rest.pprof { local::Profiling::On } else { local::Profiling::Off },
    })
}

/// Its TCP address with what guards it: certificate, key and token all together, or none of them.
fn listen(rest: &RestConfig) -> Result<Option<Listen>, Error> {
    let guard = match (&rest.certificate, &rest.key, &rest.token_file) {
        (None, None, None) => None,
        (Some(certificate), Some(key), Some(token)) => Some(Guard::read(certificate, key, token)?),
        _ => return Err(Error::HalfGuarded),
    };
    match rest.listen {
        None if guard.is_some() => Err(Error::GuardsNothing),
        listen => Ok(listen.map(|address| Listen { address, guard })),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guards_an_address_comes_whole_and_with_an_address() {
        let rest = |text: &str| toml::from_str::<RestConfig>(text).unwrap();
        let refused = |text: &str| listen(&rest(text)).err().unwrap().to_string();
        let words = refused("listen = \"0.0.0.0:8443\"\ncertificate = \"/x/cert.pem\"");
        assert!(words.contains("belong together"), "{words}");
        let words = refused("certificate = \"/x/c\"\nkey = \"/x/k\"\ntoken_file = \"/x/t\"");
        assert!(words.contains("/x/t"), "{words}");
        let plain = listen(&rest("listen = \"127.0.0.1:8080\"")).unwrap().unwrap();
        assert!(plain.guard.is_none());
        assert!(listen(&rest("")).unwrap().is_none());
    }
}
