//! The agent's actions and services: the seed's JSON file (`mistify-wire` §2.2), each key of it effective.
//!
//! ```json
//! {"actions": {"start": {"stages": [{"service": "libvirt", "method": "Libvirt.Run", "args": {}, "timeout": 60}]}},
//!  "services": {"libvirt": {"port": 20001, "path": "/_mistify_RPC_", "max_pending": 4}},
//!  "dbpath": "/var/lib/mistify/agent.redb"}
//! ```
//! Ours on top: `socket` instead of `port`, `watch` of a service, `timeout` of a stage in seconds, `quiesce` of one
//! that takes or removes a snapshot, and `limits`.
//! A file that names what is not there is refused, with the place; so are keys that nobody reads.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_api::rpc;
use haar_api::rpc_client::Address;
use serde::Deserialize;

use super::action;

/// What a stage may take unless it says otherwise.
pub(crate) const STAGE_LIMIT: Duration = Duration::from_secs(120);
/// What a fetch may take: the seed's answers only when it is over.
pub(crate) const FETCH_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Calls a service takes at once unless it says otherwise; the seed's number.
const MAX_PENDING: u32 = 4;
/// The longest time limit, seconds.
const MOST_TIMEOUT: u64 = 7 * 24 * 3600;
/// The most of any limit.
const MOST: u32 = 100_000;
/// The most jobs that may wait for one guest: when it is deleted they end in one commit.
const MOST_QUEUE: u32 = 10_000;

/// What the agent does for which action, and who does it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub(crate) actions: BTreeMap<String, Vec<Stage>>,
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) limits: Limits,
    /// Where the store is, if the file says so.
    pub(crate) dbpath: Option<PathBuf>,
}

/// One step of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) args: BTreeMap<String, String>,
    pub(crate) timeout: Duration,
    /// The service of running guests, which holds one still, or has it do the work; of a stage that takes or removes
    /// a snapshot.
    pub(crate) quiesce: Option<String>,
}

/// A sub-agent's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) address: Address,
    pub(crate) path: String,
    pub(crate) max_pending: u32,
    /// Whether it is asked, by `Libvirt.Changes`, what happens to guests unasked.
    pub(crate) watch: bool,
}

/// How much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Info actions at once for one guest.
    pub(crate) info: u32,
    /// Streams at once for one guest.
    pub(crate) stream: u32,
    /// Jobs that may wait for one guest.
    pub(crate) queue: u32,
    /// Ended jobs that are kept.
    pub(crate) jobs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { info: 100, stream: 5, queue: 100, jobs: 1000 }
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read the agent's actions from {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("the agent's actions in {path} are wrong: {wrong}")]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What and where.
        wrong: Wrong,
    },
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Wrong {
    /// As a path of keys, such as `services.libvirt.port`.
    pub place: String,
    /// What, and what to do.
    pub what: String,
}

fn wrong(place: impl Into<String>, what: impl Into<String>) -> Wrong {
    Wrong { place: place.into(), what: what.into() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    actions: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    services: BTreeMap<String, serde_json::Value>,
    dbpath: Option<String>,
    #[serde(default)]
    limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAction {
    /// Told by the name; whatever stands here is passed over, as the seed does.
    #[serde(rename = "type", alias = "Type", default)]
    _kind: serde::de::IgnoredAny,
    #[serde(default)]
    stages: Vec<FileStage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStage {
    #[serde(default)]
    service: String,
    #[serde(default)]
    method: String,
    args: Option<BTreeMap<String, String>>,
    timeout: Option<u64>,
    quiesce: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileService {
    port: Option<i64>,
    path: Option<String>,
    max_pending: Option<i64>,
    socket: Option<PathBuf>,
    #[serde(default)]
    watch: bool,
}

impl Plan {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error`] names the file, the place and what is wrong there.
    pub fn read(path: &Path) -> Result<Plan, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Plan::parse(&text).map_err(|wrong| Error::Wrong { path: path.to_owned(), wrong })
    }

    /// Understands a file's text.
    ///
    /// # Errors
    /// [`Wrong`] says what and where.
    pub fn parse(text: &str) -> Result<Plan, Wrong> {
        let file: File = serde_json::from_str(text).map_err(|error| wrong("the file", error.to_string()))?;
        let mut plan = Plan { limits: file.limits, ..Plan::default() };
        check_limits(&plan.limits)?;
        for (name, value) in file.services {
            let service = service(&format!("services.{name}"), value)?;
            plan.services.insert(name, service);
        }
        for (name, value) in file.actions {
            let stages = stages(&name, value, &plan.services)?;
            plan.actions.insert(name, stages);
        }
        plan.dbpath = file.dbpath.filter(|path| !path.is_empty()).map(PathBuf::from);
        if plan.dbpath.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(wrong("dbpath", "must be an absolute path"));
        }
        Ok(plan)
    }

    /// The stages of an action; None when none are configured.
    pub(crate) fn stages(&self, action: &str) -> Option<&[Stage]> {
        self.actions.get(action).map(Vec::as_slice).filter(|stages| !stages.is_empty())
    }
}

fn check_limits(limits: &Limits) -> Result<(), Wrong> {
    let all = [
        ("info", limits.info, MOST),
        ("stream", limits.stream, MOST),
        ("queue", limits.queue, MOST_QUEUE),
        ("jobs", limits.jobs, MOST),
    ];
    match all.into_iter().find(|(_, limit, most)| *limit == 0 || limit > most) {
        Some((name, _, most)) => Err(wrong(format!("limits.{name}"), format!("must be from 1 to {most}"))),
        None => Ok(()),
    }
}

fn service(place: &str, value: serde_json::Value) -> Result<Service, Wrong> {
    let file: FileService = serde_json::from_value(value).map_err(|error| wrong(place, error.to_string()))?;
    let address = match (file.port, file.socket) {
        (Some(_), Some(_)) => return Err(wrong(place, "has both `port` and `socket`; name one")),
        (None, None) => return Err(wrong(place, "has neither `port` nor `socket`")),
        (Some(port), None) => {
            let port = u16::try_from(port).ok().filter(|port| *port != 0);
            let port = port.ok_or_else(|| wrong(format!("{place}.port"), "must be from 1 to 65535"))?;
            Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
        (None, Some(socket)) if socket.is_absolute() => Address::Unix(socket),
        (None, Some(_)) => return Err(wrong(format!("{place}.socket"), "must be an absolute path")),
    };
    let path = file.path.filter(|path| !path.is_empty()).unwrap_or_else(|| rpc::DEFAULT_PATH.to_owned());
    let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_path {
        return Err(wrong(format!("{place}.path"), "must begin with `/` and have no spaces"));
    }
    let max_pending = match file.max_pending {
        None | Some(0) => MAX_PENDING,
        Some(most) => u32::try_from(most)
            .ok()
            .filter(|most| *most <= MOST)
            .ok_or_else(|| wrong(format!("{place}.max_pending"), format!("must be from 1 to {MOST}")))?,
    };
    Ok(Service { address, path, max_pending, watch: file.watch })
}

fn stages(
    name: &str,
    value: serde_json::Value,
    services: &BTreeMap<String, Service>,
) -> Result<Vec<Stage>, Wrong> {
    let place = format!("actions.{name}");
    let Some(kind) = action::kind(name) else {
        return Err(wrong(place, "is no action; the names are in docs/mistify-rest.md"));
    };
    let file: FileAction = serde_json::from_value(value).map_err(|error| wrong(&place, error.to_string()))?;
    if kind == action::Kind::Stream && file.stages.len() > 1 {
        return Err(wrong(place, "passes on one stream, and so has one stage"));
    }
    let usual = if action::fetches(name) { FETCH_LIMIT } else { STAGE_LIMIT };
    let stage = |(index, stage): (usize, FileStage)| {
        let place = |key: &str| format!("{place}.stages[{index}].{key}");
        if !services.contains_key(&stage.service) {
            let what = format!("`{}` is not among the services", stage.service);
            return Err(wrong(place("service"), what));
        }
        if stage.method.is_empty() {
            return Err(wrong(place("method"), "is missing; it is `Service.Method`"));
        }
        let timeout = match stage.timeout {
            None => usual,
            Some(seconds) if (1..=MOST_TIMEOUT).contains(&seconds) => Duration::from_secs(seconds),
            Some(_) => {
                return Err(wrong(place("timeout"), format!("must be from 1 to {MOST_TIMEOUT} seconds")));
            }
        };
        if let Some(quiesce) = &stage.quiesce {
            check_quiesce(name, quiesce, services).map_err(|what| wrong(place("quiesce"), what))?;
        }
        let (args, quiesce) = (stage.args.unwrap_or_default(), stage.quiesce);
        Ok(Stage { service: stage.service, method: stage.method, args, timeout, quiesce })
    };
    file.stages.into_iter().enumerate().map(stage).collect()
}

fn check_quiesce(action: &str, quiesce: &str, services: &BTreeMap<String, Service>) -> Result<(), String> {
    if !action::quiesces(action) {
        return Err("is for stages of createSnapshot and deleteSnapshot".to_owned());
    }
    if services.contains_key(quiesce) {
        Ok(())
    } else {
        Err(format!("`{quiesce}` is not among the services"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
        "actions": {
            "start": {"Type": 7, "stages": [{"service": "vm", "method": "Libvirt.Run", "args": {"a": "b"}, "timeout": 5}]},
            "suspend": {"stages": []},
            "createSnapshot": {"stages": [{"service": "disk", "method": "ImageStore.Take", "quiesce": "vm"}]},
            "fetchImage": {"stages": [{"service": "disk", "method": "ImageStore.RequestImage"}]}
        },
        "services": {
            "vm": {"port": 20001, "max_pending": 7},
            "disk": {"socket": "/run/x.sock", "path": "/rpc", "watch": true}
        },
        "dbpath": "/var/lib/x.redb",
        "limits": {"stream": 2}
    }"#;

    #[test]
    fn every_key_is_effective() {
        let plan = Plan::parse(GOOD).unwrap();
        let run = &plan.stages("start").unwrap()[0];
        assert_eq!((run.service.as_str(), run.method.as_str()), ("vm", "Libvirt.Run"));
        assert_eq!((run.args["a"].as_str(), run.timeout), ("b", Duration::from_secs(5)));
        assert_eq!(plan.stages("fetchImage").unwrap()[0].timeout, FETCH_LIMIT);
        assert_eq!(plan.stages("createSnapshot").unwrap()[0].quiesce.as_deref(), Some("vm"));
        assert_eq!(plan.services["vm"].address, Address::Tcp("127.0.0.1:20001".parse().unwrap()));
        assert_eq!(
            (plan.services["vm"].path.as_str(), plan.services["vm"].max_pending),
            ("/_mistify_RPC_", 7)
        );
        assert_eq!((plan.services["vm"].watch, plan.services["disk"].watch), (false, true));
        assert_eq!((plan.services["disk"].path.as_str(), plan.services["disk"].max_pending), ("/rpc", 4));
        assert_eq!(plan.dbpath.as_deref(), Some(Path::new("/var/lib/x.redb")));
        assert_eq!(plan.limits, Limits { stream: 2, ..Limits::default() });
    }

    #[test]
    fn an_action_without_stages_is_as_one_that_is_not_there() {
        let plan = Plan::parse(GOOD).unwrap();
        assert_eq!((plan.stages("suspend"), plan.stages("resume")), (None, None));
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place() {
        let cases = [
            (r#""vm": {"port": 20001, "max_pending": 7}"#, r#""vm": {"port": 0}"#, "services.vm.port"),
            (r#""vm": {"port": 20001, "max_pending": 7}"#, r#""vm": {"port": 70000}"#, "services.vm.port"),
            (r#""port": 20001"#, r#""prot": 20001"#, "services.vm"),
            (r#""port": 20001"#, r#""port": 1, "socket": "/x""#, "services.vm"),
            (r#""max_pending": 7"#, r#""max_pending": -1"#, "services.vm.max_pending"),
            (r#""max_pending": 7"#, r#""path": "x y""#, "services.vm.path"),
            (r#""service": "vm""#, r#""service": "nobody""#, "actions.start.stages[0].service"),
            (r#""Libvirt.Run""#, r#""""#, "actions.start.stages[0].method"),
            (r#""timeout": 5"#, r#""timeout": 0"#, "actions.start.stages[0].timeout"),
            (r#""timeout": 5"#, r#""quiesce": "vm""#, "actions.start.stages[0].quiesce"),
            (r#""quiesce": "vm""#, r#""quiesce": "nobody""#, "actions.createSnapshot.stages[0].quiesce"),
            (r#""suspend""#, r#""hibernate""#, "actions.hibernate"),
            (r#""/var/lib/x.redb""#, r#""x.redb""#, "dbpath"),
            (r#""stream": 2"#, r#""stream": 0"#, "limits.stream"),
            (r#""stream": 2"#, r#""queue": 10001"#, "limits.queue"),
            (r#""limits""#, r#""colour""#, "the file"),
        ];
        for (good, bad, place) in cases {
            assert!(GOOD.contains(good), "{good}");
            let error = Plan::parse(&GOOD.replacen(good, bad, 1)).unwrap_err();
            assert_eq!(error.place, place, "{error}");
        }
    }
}
