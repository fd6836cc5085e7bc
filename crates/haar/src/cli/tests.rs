//! The grammar and what people read, against golden files.
//!
//! Set `HAAR_REWRITE=1` to write the golden files anew.

use std::path::Path;

use clap::Parser as _;
use haar_api::problem::{Problem, ReasonView};
use haar_api::v1::{CapacityView, JobView, StatusView, Time};
use serde_json::json;

use super::failure::{self, Failure};
use super::{Cli, command, command_beside, job, output, status};

fn matches_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("HAAR_REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{name} reads otherwise now; look, then rewrite it:\n{text}");
}

/// Every help text of the grammar, in its order.
fn help_of(command: &mut clap::Command, path: &str, text: &mut String) {
    let title = format!("$ {path} --help\n");
    text.push_str(&title);
    text.push_str(&command.render_help().to_string());
    text.push('\n');
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| *name != "help") {
        if let Some(sub) = command.find_subcommand_mut(name) {
            help_of(sub, &format!("{path} {name}"), text);
        }
    }
}

#[test]
fn the_help_reads_as_it_did() {
    let mut command = command_beside("").version("0.0.0");
    command.build();
    let mut text = String::new();
    help_of(&mut command, "haar", &mut text);
    matches_golden("help.txt", &text);
}

#[test]
fn what_a_controller_of_an_earlier_release_sends_is_read() {
    let none = json!({"cpu": 0, "memory": 0, "disk": 0});
    let view: StatusView = serde_json::from_value(json!({
        "version": "0.0.9", "cloud": "7f3a1111-0000-4000-8000-000000000001", "host": "lab", "revision": "1.7",
        "uptime_s": 1, "hypervisors": {}, "guests": {},
        "jobs": {"running": 0, "oldest_ms": 0, "failed_last_hour": 0, "last_failed": null},
        "promised": {"cpu": 8, "memory": 1024, "disk": 0}, "used": none, "checked": null
    }))
    .unwrap();
    assert!(status::status_text(&view, Time::from_ms(0)).contains("0 of 8"));
}

#[test]
fn the_grammar_holds_together() {
    command().debug_assert();
}

#[test]
fn no_verb_shadows_what_every_command_takes() {
    fn look(command: &clap::Command, everywhere: &[String], path: &str) {
        for sub in command.get_subcommands() {
            for argument in sub.get_arguments() {
                let id = argument.get_id().to_string();
                assert!(!everywhere.contains(&id), "{path} {} takes another {id}", sub.get_name());
            }
            look(sub, everywhere, &format!("{path} {}", sub.get_name()));
        }
    }
    let command = command();
    let global = command.get_arguments().filter(|argument| argument.is_global_set());
    let everywhere: Vec<String> = global.map(|argument| argument.get_id().to_string()).collect();
    assert!(everywhere.contains(&"url".to_owned()));
    look(&command, &everywhere, "haar");
}

#[test]
fn every_verb_has_examples() {
    fn look(command: &clap::Command, path: &str) {
        let subs: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
        if subs.is_empty() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Examples:"), "{path} has no examples");
        }
        for sub in subs {
            look(sub, &format!("{path} {}", sub.get_name()));
        }
    }
    look(&command(), "haar");
}

#[test]
fn words_that_cannot_be_meant_are_refused() {
    for words in [
        "haar",
        "haar guest",
        "haar guest create",
        "haar flavor create small --cpu 1 --memory 2x --disk 1g",
        "haar token create a --role agent",
        "haar image create a --format qcow2 --from http://x",
        "haar guest set web --fwgroup a --no-fwgroup",
    ] {
        assert!(Cli::try_parse_from(words.split(' ')).is_err(), "{words}");
    }
    for words in [
        "haar events",
        "haar guest list --on lab2 -o json",
        "haar ssh web -- uptime -p",
        "haar ssh root@web -i k uptime -o json -p",
        "haar job wait 7f3a --wait 5",
    ] {
        assert!(Cli::try_parse_from(words.split(' ')).is_ok(), "{words}");
    }
}

#[test]
fn a_no_names_causes_and_code() {
    let reason = |cause: &str, words: &str, count, best: &str, detail: &str| ReasonView {
        cause: cause.to_owned(),
        words: words.to_owned(),
        count,
        best: best.to_owned(),
        detail: detail.to_owned(),
    };
    let message = "no hypervisor can take guest `big` (64 cpu, 512 GiB memory, 100 GiB disk)";
    let problem = Problem {
        reasons: vec![
            reason("memory", "not enough memory", 3, "lab2", "188 GiB free of 256 GiB"),
            reason("silent", "silent", 1, "lab4", ""),
            reason("cordoned", "cordoned", 1, "lab5", "disk swap"),
        ],
        ..Problem::new(409, "no_room", message)
    };
    matches_golden("no_room.txt", &failure::problem_text(&problem));
}

#[test]
fn exit_codes_tell_who_must_act() {
    let code = |status, code: &str| {
        let problem = Box::new(Problem::new(status, code, ""));
        Failure::from(haar_api::client::ClientError::Problem(problem)).code()
    };
    assert_eq!(code(409, "no_room"), 3);
    assert_eq!(code(400, "bad_name"), 3);
    assert_eq!(code(404, "not_found"), 4);
    assert_eq!(code(401, "unauthorized"), 5);
    assert_eq!(code(403, "forbidden"), 5);
    assert_eq!(code(503, "not_ready"), 6);
    assert_eq!(code(503, "outcome_unknown"), 1);
    assert_eq!(code(500, "internal"), 1);
    assert_eq!(code(409, "job_failed"), 1);
    assert_eq!(Failure::Usage(String::new()).code(), 2);
}

fn failed_job() -> JobView {
    let step = |stage: &str, state: &str, from: &str, to: &str, message: &str| json!({"stage": stage, "state": state, "started_at": from, "ended_at": to, "message": message});
    let full = "qemu unexpectedly closed the monitor: No space left on device";
    serde_json::from_value(json!({
        "id": "7f3a1111-0000-4000-8000-000000000001", "action": "create",
        "guest": "7f3a1111-0000-4000-8000-000000000002", "guest_name": "db",
        "error": full, "code": "no_space", "next": "free space on lab3, then  haar job retry 7f3a1111",
        "status": "error", "hypervisor": null, "hypervisor_name": "lab3", "tries": 0, "revision": 9,
        "steps": [
            step("image", "done", "2026-01-01T00:00:00Z", "2026-01-01T00:00:02.1Z", ""),
            step("disks", "undone", "2026-01-01T00:00:02.1Z", "2026-01-01T00:00:02.1Z", ""),
            step("start", "failed", "2026-01-01T00:00:02.1Z", "2026-01-01T00:00:32.1Z", full),
            step("undo", "done", "2026-01-01T00:00:32.1Z", "2026-01-01T00:00:41Z", "disks given back")
        ],
        "created_at": "2026-01-01T00:00:00Z", "started_at": null, "finished_at": "2026-01-01T00:00:41Z"
    }))
    .unwrap()
}

#[test]
fn a_failed_job_shows_its_steps_and_the_next_one() {
    matches_golden("job_failed.txt", &job::failure_text(&failed_job()));
}

#[test]
fn the_status_fits_on_a_screen() {
    let view: StatusView = serde_json::from_value(json!({
        "version": "0.1.0", "cloud": "7f3a1111-0000-4000-8000-000000000001", "host": "lab1",
        "revision": "1.48213", "uptime_s": 7,
        "hypervisors": {"alive": 12, "silent": 1, "new": 0, "cordoned": 1},
        "guests": {"running": 311, "stopped": 4},
        "jobs": {"running": 3, "oldest_ms": 4000, "failed_last_hour": 1,
                 "last_failed": "7f3a1111-0000-4000-8000-000000000001"},
        "total": {"cpu": 25, "memory": 102_400, "disk": 0},
        "promised": {"cpu": 100, "memory": 102_400, "disk": 0}, "used": {"cpu": 74, "memory": 67_584, "disk": 0},
        "checked": {"at": "2026-01-01T00:00:00Z", "faults": 0}
    }))
    .unwrap();
    let now = Time::from_ms("2026-01-01T00:00:08Z".parse::<Time>().unwrap().as_ms());
    matches_golden("status.txt", &status::status_text(&view, now));
}

#[test]
fn capacity_says_how_much_is_oversold_and_why_nothing_is_free() {
    let part = |cpu| json!({"cpu": cpu, "memory": 2048, "disk": 2048});
    let host = |name: &str, state: &str, cordoned| {
        json!({"hypervisor": "7f3a1111-0000-4000-8000-000000000001", "hypervisor_name": name, "state": state,
               "cordoned": cordoned, "total": part(8), "promised": part(32), "used": part(2), "free": part(30)})
    };
    let view: CapacityView = serde_json::from_value(json!({
        "total": part(24), "promised": part(96), "used": part(6), "free": part(30), "hypervisors": {}, "guests": {},
        "by_hypervisor": [host("lab1", "alive", false), host("lab2", "alive", true), host("lab3", "silent", false)],
        "by_subnet": [], "revision": "1.7"
    }))
    .unwrap();
    let text = status::capacity_text(&view, false);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].contains("2 of 32 (4.0×)") && lines[1].contains("30 cpu, "), "{text}");
    assert!(lines[2].ends_with("none: cordoned") && lines[3].ends_with("none: silent"), "{text}");
    assert!(lines[4].contains("6 of 96 (4.0×)") && lines[4].ends_with("(open hypervisors only)"), "{text}");
    assert_eq!([output::factor(3, 4), output::factor(0, 4), output::factor(8, 10)], ["1.3×", "–", "1.3×"]);
}

#[test]
fn a_table_has_no_borders_and_no_colours_unless_asked() {
    let rows = vec![
        vec!["web".to_owned(), "running".to_owned(), "3d".to_owned(), String::new()],
        vec!["ci-7".to_owned(), "stopping".to_owned(), "2h".to_owned(), "waiting for power off".to_owned()],
    ];
    let columns = ["NAME", "STATE", "AGE", ""];
    let plain = output::table(&columns, rows.clone(), false);
    assert_eq!(
        plain,
        "  NAME  STATE     AGE\n  web   running   3d\n  ci-7  stopping  2h   waiting for power off\n"
    );
    assert!(output::table(&columns, rows, true).contains("\u{1b}["));
}

#[test]
fn amounts_read_as_people_say_them() {
    let ms = Time::from_ms;
    assert_eq!(output::age(ms(0), ms(59_000)), "59s");
    assert_eq!(output::age(ms(0), ms(3_599_000)), "59m");
    assert_eq!(output::age(ms(0), ms(86_399_000)), "23h");
    assert_eq!(output::age(ms(0), ms(3 * 86_400_000)), "3d");
    assert_eq!(output::age(ms(5_000), ms(0)), "0s");
    assert_eq!(output::span(900), "0.9 s");
    assert_eq!(output::span(185_000), "3 min 5 s");
    assert_eq!(output::bytes(421_527_552), "402.0 MiB");
    assert_eq!(output::bytes(2 << 30), "2.0 GiB");
    assert_eq!(output::bytes((1 << 40) - (1 << 30)), "1023.0 GiB");
    assert_eq!(output::bytes(3 << 39), "1.5 TiB");
    assert_eq!(output::short_hash(&"5f3c".repeat(16)), "5f3c…5f3c");
    assert_eq!(output::bar(74, 100), "██████████████░░░░░░  74 %");
}
