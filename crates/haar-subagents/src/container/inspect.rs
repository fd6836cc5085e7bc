//! A container as `docker inspect` shows it: the fields that clients read, in Docker's names.

use haar_api::rpc::Fault;
use serde_json::{Value, json};

use super::decide::{Restart, Run};
use super::folders::Folders;
use super::images::{self, Facts};
use super::record::{self, Begun, Exit, Record};
use super::{bundle, network};

/// The code of an end that nobody saw, as with Docker.
const UNSEEN: i32 = 255;

/// The object of one container, whose state is one of the seed's words.
pub(super) fn inspect(folders: &Folders, tag: &str, record: &Record, state: &str) -> Result<Value, Fault> {
    let folder = folders.container(&record.id);
    let facts: Option<Facts> = images::find(folders, &record.wish.image)?;
    let image = facts.as_ref().map(|facts| facts.config.config.clone()).unwrap_or_default();
    let wish = &record.wish;
    let words = bundle::arguments(wish, &image).unwrap_or_default();
    let begun: Option<Begun> = record::read(&folder, "begun.json");
    // In this order: an end that was seen is noted.
    let run = record::look(folders, record).run;
    let exit: Option<Exit> = record::read(&folder, "exit.json").filter(|exit: &Exit| exit.run == record.run);
    let pid = begun.as_ref().filter(|_| run == Run::Alive).map_or(0, |begun| begun.process.pid);
    let first = wish.nics.first();
    // A command is for the entrypoint beside which it was asked for.
    let command =
        if wish.command.is_empty() && wish.entrypoint.is_empty() { &image.cmd } else { &wish.command };
    let entrypoint = if wish.entrypoint.is_empty() { &image.entrypoint } else { &wish.entrypoint };
    let status = match (state, record.run) {
        ("stopped", 0) => "created",
        ("stopped", _) => "exited",
        (state, _) => state,
    };
    let (code, why) = match (&exit, run) {
        (Some(exit), _) => (exit.code, exit.error.as_str()),
        (None, Run::Ended(None)) => (UNSEEN, "nobody saw how it ended"),
        (None, _) => (0, ""),
    };
    Ok(json!({
        "Id": record.id,
        "Name": format!("/{}", record.id),
        "Created": time(record.created_s),
        "Path": words.first().cloned().unwrap_or_default(),
        "Args": words.get(1..).unwrap_or_default(),
        "Image": facts.map(|facts| facts.digest.as_str().to_owned()).unwrap_or_default(),
        "Driver": "overlay",
        "LogPath": folder.join("log"),
        "RestartCount": record.restarts,
        "Config": {
            "Hostname": wish.hostname,
            "Image": wish.image,
            "Cmd": command,
            "Entrypoint": entrypoint,
            "Env": bundle::merged(image.env.iter().chain(&wish.env)),
            "User": image.user,
            "WorkingDir": image.working_dir,
            "MacAddress": first.map(|nic| nic.mac.clone()).unwrap_or_default(),
        },
        "State": {
            "Status": status,
            "Running": matches!(state, "running" | "paused"),
            "Paused": state == "paused",
            "Pid": pid,
            "ExitCode": code,
            "Error": why,
            "StartedAt": time(begun.map_or(0, |begun| begun.at_s)),
            "FinishedAt": time(exit.map_or(0, |exit| exit.at_s)),
        },
        "HostConfig": {
            "Memory": wish.memory << 20,
            "NanoCpus": u64::from(wish.cpu) * 1_000_000_000,
            "NetworkMode": "none",
            "RestartPolicy": {"Name": restart(wish.restart), "MaximumRetryCount": 0},
        },
        "NetworkSettings": {
            "IPAddress": first.map(|nic| nic.address.clone()).unwrap_or_default(),
            "Gateway": first.map(|nic| nic.gateway.clone()).unwrap_or_default(),
            "MacAddress": first.map(|nic| nic.mac.clone()).unwrap_or_default(),
            "Bridge": first.map(|nic| nic.network.clone()).unwrap_or_default(),
            "SandboxKey": format!("/run/netns/{}", network::namespace(tag, &record.id)),
        },
    }))
}

fn restart(restart: Restart) -> &'static str {
    match restart {
        Restart::Never => "no",
        Restart::OnFailure => "on-failure",
        Restart::Always => "always",
    }
}

/// Seconds since 1970 as RFC 3339; Docker's word for "never" is the year 1.
fn time(seconds: u64) -> String {
    if seconds == 0 {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_a_date() {
        assert_eq!(time(0), "0001-01-01T00:00:00Z");
        assert_eq!(time(u64::MAX), "");
        assert_eq!(time(1_795_219_200), "2026-11-21T00:00:00Z");
    }
}
