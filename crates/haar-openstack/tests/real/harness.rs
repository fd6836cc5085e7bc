//! A cloud that is up, deployments that are gone after their test, and waiting for conditions.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_cloud::provider::{ServerOrder, ServerState, ServerView};
use haar_cloud::state::Kind;
use haar_cloud::{Error, Provider as _};
use haar_openstack::{OpenStack, Settings};
use uuid::Uuid;

use crate::member;
use crate::support::{Site, prepared};

const PATIENCE: Duration = Duration::from_secs(180);

/// The driver that lets every build fail.
const ABORTS: &str = "FakeBuildAbort";

/// The cloud that is up.
pub(crate) struct Cloud {
    folder: PathBuf,
}

impl Cloud {
    /// The cloud, where there is one whose servers come up.
    #[track_caller]
    pub(crate) fn working() -> Option<Self> {
        Self::with(|compute| compute != ABORTS)
    }

    /// The cloud, where there is one whose servers all fail.
    #[track_caller]
    pub(crate) fn aborting() -> Option<Self> {
        Self::with(|compute| compute == ABORTS)
    }

    fn with(is_wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let Some(folder) = std::env::var_os("HAAR_OPENSTACK_DIR") else {
            left_out("it runs in `cargo xtask test --only openstack`");
            return None;
        };
        let compute = std::env::var("HAAR_OPENSTACK_COMPUTE").unwrap_or_default();
        is_wanted(&compute).then(|| Self { folder: folder.into() })
    }

    /// The variables of a member of a project, with others in place of some.
    pub(crate) fn settings(&self, project: &str, others: &[(&str, &str)]) -> Settings {
        member::settings(&self.folder, project, others).unwrap()
    }

    /// A variable of the member, or of the administrator.
    pub(crate) fn variable(&self, file: &str, name: &str) -> String {
        let set = member::variables(&self.folder, file).unwrap();
        set.into_iter().find(|(key, _)| key == name).expect("the variable is in the file").1
    }

    pub(crate) async fn connect(&self, project: &str) -> OpenStack {
        OpenStack::connect(self.settings(project, &[])).await.unwrap()
    }

    /// Runs a test on a deployment, not deployed yet, of which nothing is left afterwards.
    pub(crate) async fn on_site<F, R>(&self, name: &str, body: F)
    where
        F: FnOnce(Arc<OpenStack>, Arc<Site>) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        let cloud = Arc::new(self.connect("unlimited").await);
        let unique = Uuid::new_v4().simple().to_string();
        let site = Arc::new(Site::new(&format!("{name}-{}", &unique[..8])));
        let outcome = tokio::spawn(body(Arc::clone(&cloud), Arc::clone(&site))).await;
        tear_down(&cloud, &site).await;
        if let Err(error) = outcome {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Tells that this test is left out, where `cargo xtask test` collects it.
fn left_out(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("left out: {reason}");
    if let Some(path) = std::env::var_os("HAAR_LEFT_OUT") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("haar-openstack {name}: {reason}\n").as_bytes())
            .unwrap();
    }
}

/// Asks again until there is an answer, or the time is up.
pub(crate) async fn until<T, R>(what: &str, mut ask: impl FnMut() -> R) -> T
where
    R: Future<Output = Option<T>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A server that is no longer being made.
pub(crate) async fn settled(cloud: &OpenStack, id: &str) -> ServerView {
    let ask = || async {
        let view = cloud.server(id).await.unwrap();
        (view.state != ServerState::Building).then_some(view)
    };
    until("a server to come up", ask).await
}

/// Asks for a server, notes it, and waits until it is made or failed.
pub(crate) async fn spawned(cloud: &OpenStack, site: &Site, order: &ServerOrder) -> ServerView {
    prepared(cloud, site, order).await;
    let create = async {
        let made = cloud.create_server(&site.deployment, order, &site.journal).await?;
        Ok(made.id)
    };
    let (_, id) = site.journal.make(Kind::Server, &order.name, create).await.unwrap();
    settled(cloud, &id).await
}

/// Waits until a server is gone.
pub(crate) async fn destroyed(cloud: &OpenStack, id: &str) {
    match cloud.delete(Kind::Server, id).await {
        Err(error) if error.is_not_found() => {}
        done => done.unwrap(),
    }
    let ask = || async {
        match cloud.server(id).await {
            Err(error) if error.is_not_found() => Some(()),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        }
    };
    until("a server to go", ask).await;
}

/// Deletes what a survey finds of ours and what is on record, in an order the cloud allows.
pub(crate) async fn tear_down(cloud: &OpenStack, site: &Site) {
    let found = cloud.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap();
    let mut all: Vec<(Kind, String)> =
        found.into_iter().filter(|found| found.ours).map(|found| (found.kind, found.id)).collect();
    all.extend(site.ours().into_iter().filter(|(_, id)| id != "no id"));
    all.sort();
    all.dedup();
    for (kind, id) in &all {
        if *kind == Kind::Server {
            destroyed(cloud, id).await;
            continue;
        }
        deleted(cloud, *kind, id).await;
    }
}

/// Deletes something else than a server, which may be in use for a moment.
async fn deleted(cloud: &OpenStack, kind: Kind, id: &str) {
    let ask = || async {
        match cloud.delete(kind, id).await {
            Ok(()) | Err(Error::NotFound { .. }) => Some(()),
            // Ports go a moment after their server.
            Err(Error::Conflict { .. }) => None,
            Err(error) => panic!("{kind} {id}: {error}"),
        }
    };
    until(&format!("{kind} {id} to go"), ask).await;
}

/// Deletes the volumes on record, whose servers are gone.
pub(crate) async fn released(cloud: &OpenStack, site: &Site) {
    for (_, id) in site.ours().into_iter().filter(|(kind, _)| *kind == Kind::Volume) {
        deleted(cloud, Kind::Volume, &id).await;
    }
}
