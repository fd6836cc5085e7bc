//! What the agent does when no file says otherwise: the seed's sample pipelines (`mistify-wire` §2.4), but that
//! `create` also starts the guest, and with `suspend`, `resume` and `run`.

use std::collections::BTreeMap;
use std::path::Path;

use haar_api::rpc;
use haar_api::rpc_client::Address;

use super::action;
use super::config::{FETCH_LIMIT, Limits, Plan, STAGE_LIMIT, Service, Stage};

/// Calls our own sub-agents take at once.
const PENDING: u32 = 64;

/// Seconds a guest has to shut down.
const SHUTDOWN_LIMIT_S: u32 = 90;

const GUESTS: &[(&str, &[(&str, &str)])] = &[
    (
        "create",
        &[
            ("storage", "ImageStore.CreateGuestDisks"),
            ("libvirt", "Libvirt.CreateGuest"),
            ("libvirt", "Libvirt.Run"),
        ],
    ),
    ("delete", &[("libvirt", "Libvirt.Delete"), ("storage", "ImageStore.DeleteGuestsDisks")]),
    ("start", &[("libvirt", "Libvirt.Run")]),
    ("run", &[("libvirt", "Libvirt.Run")]),
    ("reboot", &[("libvirt", "Libvirt.Reboot")]),
    ("restart", &[("libvirt", "Libvirt.Restart")]),
    ("poweroff", &[("libvirt", "Libvirt.Poweroff")]),
    ("shutdown", &[("libvirt", "Libvirt.Shutdown")]),
    ("suspend", &[("libvirt", "Libvirt.Suspend")]),
    ("resume", &[("libvirt", "Libvirt.Resume")]),
    ("cpuMetrics", &[("libvirt", "Libvirt.CPUMetrics")]),
    ("nicMetrics", &[("libvirt", "Libvirt.NicMetrics")]),
    ("diskMetrics", &[("libvirt", "Libvirt.DiskMetrics")]),
    ("listImages", &[("storage", "ImageStore.ListImages")]),
    ("getImage", &[("storage", "ImageStore.GetImage")]),
    ("deleteImage", &[("storage", "ImageStore.DeleteImage")]),
    ("fetchImage", &[("storage", "ImageStore.RequestImage")]),
    ("listSnapshots", &[("storage", "ImageStore.ListSnapshots")]),
    ("getSnapshot", &[("storage", "ImageStore.GetSnapshot")]),
    ("createSnapshot", &[("storage", "ImageStore.CreateSnapshot")]),
    ("deleteSnapshot", &[("storage", "ImageStore.DeleteSnapshot")]),
    ("rollbackSnapshot", &[("storage", "ImageStore.RollbackSnapshot")]),
    ("downloadSnapshot", &[("storageDownload", "ImageStore.DownloadSnapshot")]),
];

const CONTAINERS: &[(&str, &[(&str, &str)])] = &[
    ("containerCreate", &[("mdocker", "MDocker.CreateContainer"), ("mdocker", "MDocker.StartContainer")]),
    ("containerDelete", &[("mdocker", "MDocker.StopContainer"), ("mdocker", "MDocker.DeleteContainer")]),
    ("containerStart", &[("mdocker", "MDocker.StartContainer")]),
    ("containerRun", &[("mdocker", "MDocker.StartContainer")]),
    ("containerReboot", &[("mdocker", "MDocker.RebootContainer")]),
    ("containerRestart", &[("mdocker", "MDocker.RestartContainer")]),
    ("containerPoweroff", &[("mdocker", "MDocker.StopContainer")]),
    ("containerShutdown", &[("mdocker", "MDocker.StopContainer")]),
    ("containerSuspend", &[("mdocker", "MDocker.PauseContainer")]),
    ("containerResume", &[("mdocker", "MDocker.UnpauseContainer")]),
    ("containerListImages", &[("mdocker", "MDocker.ListImages")]),
    ("containerGetImage", &[("mdocker", "MDocker.GetImage")]),
    ("containerDeleteImage", &[("mdocker", "MDocker.DeleteImage")]),
    ("containerFetchImage", &[("mdocker", "MDocker.LoadImage")]),
];

impl Plan {
    /// The built-in plan with the sub-agents on these sockets. Without a container sub-agent the actions of
    /// containers are not there.
    pub fn built_in(libvirt: &Path, storage: &Path, container: Option<&Path>) -> Plan {
        let service = |socket: &Path, path: &str| Service {
            address: Address::Unix(socket.to_owned()),
            path: path.to_owned(),
            max_pending: PENDING,
            watch: false,
        };
        let mut services = BTreeMap::from([
            ("libvirt".to_owned(), Service { watch: true, ..service(libvirt, rpc::DEFAULT_PATH) }),
            ("storage".to_owned(), service(storage, rpc::DEFAULT_PATH)),
            ("storageDownload".to_owned(), service(storage, "/snapshots/download")),
        ]);
        let mut actions: BTreeMap<String, Vec<Stage>> = GUESTS.iter().map(pipeline).collect();
        if let Some(container) = container {
            services.insert("mdocker".to_owned(), service(container, rpc::DEFAULT_PATH));
            actions.extend(CONTAINERS.iter().map(pipeline));
        }
        Plan { actions, services, limits: Limits::default(), dbpath: None }
    }
}

fn pipeline((name, stages): &(&str, &[(&str, &str)])) -> (String, Vec<Stage>) {
    let timeout = if action::fetches(name) { FETCH_LIMIT } else { STAGE_LIMIT };
    let stage = |(service, method): &(&str, &str)| Stage {
        service: (*service).to_owned(),
        method: (*method).to_owned(),
        args: args(method),
        timeout,
        quiesce: action::quiesces(name).then(|| "libvirt".to_owned()),
    };
    ((*name).to_owned(), stages.iter().map(stage).collect())
}

/// A guest that does not hear its power button has its plug pulled, well before the stage's own limit.
fn args(method: &str) -> BTreeMap<String, String> {
    match method {
        "Libvirt.Shutdown" => BTreeMap::from([("limit_s".to_owned(), SHUTDOWN_LIMIT_S.to_string())]),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_pipeline_is_an_action_on_a_service_that_is_there() {
        let plan = Plan::built_in(Path::new("/l"), Path::new("/s"), Some(Path::new("/c")));
        for (name, stages) in &plan.actions {
            assert!(action::kind(name).is_some(), "{name}");
            assert!(stages.iter().all(|stage| plan.services.contains_key(&stage.service)), "{name}");
        }
        for name in action::OF_GUESTS {
            assert!(
                plan.stages(name).is_some() && plan.stages(&action::full_name(name, true)).is_some(),
                "{name}"
            );
        }
    }

    #[test]
    fn the_example_is_what_is_built_in() {
        let example = Plan::parse(include_str!("../../../../etc/haar-agent-actions.json")).unwrap();
        let socket = |name: &str| Path::new("/run/haar/3f2b8c14").join(name);
        let (libvirt, storage) = (socket("libvirt.sock"), socket("storage.sock"));
        assert_eq!(example, Plan::built_in(&libvirt, &storage, Some(&socket("container.sock"))));
    }

    #[test]
    fn a_create_ends_with_a_guest_that_runs() {
        let plan = Plan::built_in(Path::new("/l"), Path::new("/s"), None);
        assert_eq!(plan.stages("create").unwrap().last().unwrap().method, "Libvirt.Run");
        assert_eq!(plan.stages("containerCreate"), None);
    }
}
