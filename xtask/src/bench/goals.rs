//! The goals figures are held against. A goal missed is said, never a failure.

use std::fmt;

use super::figure::Figure;

/// One goal, what it asks, and whether a figure met it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    is_met: bool,
    goal: String,
    found: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_met { "met" } else { "MISSED" };
        write!(formatter, "{word}: {} (found {})", self.goal, self.found)
    }
}

/// Holds a figure against its goals; `before` are the figures of the same run so far.
pub(super) fn judge(figure: &Figure, before: &[Figure]) -> Vec<Verdict> {
    match figure.name() {
        "placements" => placements(figure, before),
        "creates" => creates(figure),
        "create_to_running" => create_to_running(figure),
        "agent_stages" => held(figure, "value", at_least, "2,000 stages/s", 2000.0),
        "snapshot_download" => held(figure, "ratio", at_least, "0.7 × a plain static server", 0.7),
        "disk_clone_of_20_gib" | "disk_snapshot_of_20_gib" | "disk_rollback_of_20_gib" => {
            held(figure, "ratio", at_most, "2 × the time of a 1 GiB disk", 2.0)
        }
        "ssh_runs" => ssh_runs(figure),
        "ssh_upload" | "ssh_download" => held(figure, "ratio", at_least, "0.8 × sftp's rate", 0.8),
        "openstack_spawns" => held(figure, "ratio", at_least, "0.9 × bare calls", 0.9),
        "openstack_tear_down" => openstack_tear_down(figure),
        "agent_idle_memory" => held(figure, "value", at_most, "25 MiB resident", 25.0),
        "agent_idle_cpu" => held(figure, "value", at_most, "0.2 % of a core", 0.2),
        "agent_list" => held(figure, "value", at_most, "5 ms at the median", 5.0),
        _ => Vec::new(),
    }
}

fn placements(figure: &Figure, before: &[Figure]) -> Vec<Verdict> {
    let (Some(10_000.0), Some(rate)) = (figure.number("hypervisors"), figure.number("value")) else {
        return Vec::new();
    };
    let mut verdicts = vec![at_least("20,000 placements/s with 10,000 hypervisors", 20_000.0, rate)];
    let few = before
        .iter()
        .find(|figure| figure.name() == "placements" && figure.number("hypervisors") == Some(100.0));
    if let Some(few) = few.and_then(|few| few.number("value")) {
        verdicts.push(at_most("4 × the time it takes with 100 hypervisors", 4.0, few / rate));
    }
    verdicts
}

fn creates(figure: &Figure) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if let Some(flushes) = figure.number("flushes_per_commit") {
        verdicts.push(at_most("2 flushes a commit", 2.0, flushes));
    }
    if let (Some(64.0), Some(ratio)) = (figure.number("clients"), figure.number("ratio")) {
        match figure.number("flush_delay_ms") {
            Some(1.0) => verdicts.push(at_least("5 × the yardstick with 1 ms flushes", 5.0, ratio)),
            Some(10.0) => verdicts.push(at_least("20 × the yardstick with 10 ms flushes", 20.0, ratio)),
            _ => {}
        }
    }
    verdicts
}

fn create_to_running(figure: &Figure) -> Vec<Verdict> {
    let (Some(took), Some(bare)) = (figure.number("value"), figure.number("yardstick_value")) else {
        return Vec::new();
    };
    let most = bare * 1.3 + 300.0;
    vec![at_most(&format!("1.3 × the bare virsh path plus 300 ms, here {most:.0} ms"), most, took)]
}

fn ssh_runs(figure: &Figure) -> Vec<Verdict> {
    let mut verdicts = held(figure, "ratio", at_least, "3 × the program ssh", 3.0);
    // A connection has ten sessions, which is as many as are ever wanted at a time.
    verdicts.extend(held(figure, "connections", at_most, "1 connection", 1.0));
    verdicts
}

fn openstack_tear_down(figure: &Figure) -> Vec<Verdict> {
    let mut verdicts = held(figure, "ratio", at_least, "0.9 × bare calls all at once", 0.9);
    verdicts.extend(held(figure, "left", at_most, "0 things left over", 0.0));
    verdicts
}

/// Holds one of a figure's numbers against a goal; nothing for a figure without it.
fn held(
    figure: &Figure,
    number: &str,
    judge: fn(&str, f64, f64) -> Verdict,
    goal: &str,
    bound: f64,
) -> Vec<Verdict> {
    figure.number(number).map(|found| judge(goal, bound, found)).into_iter().collect()
}

fn at_least(goal: &str, least: f64, found: f64) -> Verdict {
    Verdict { is_met: found >= least, goal: format!("at least {goal}"), found: shown(found) }
}

fn at_most(goal: &str, most: f64, found: f64) -> Verdict {
    Verdict { is_met: found <= most, goal: format!("at most {goal}"), found: shown(found) }
}

fn shown(number: f64) -> String {
    if number < 100.0 { format!("{number:.2}") } else { format!("{number:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(line: &str) -> Figure {
        Figure::parse(line).unwrap()
    }

    fn met(verdicts: &[Verdict]) -> Vec<bool> {
        verdicts.iter().map(|verdict| verdict.is_met).collect()
    }

    #[test]
    fn many_hypervisors_are_held_against_few() {
        let few = figure(r#"{"name":"placements","hypervisors":100,"value":100000}"#);
        let many =
            |rate: u32| figure(&format!(r#"{{"name":"placements","hypervisors":10000,"value":{rate}}}"#));
        assert_eq!(met(&judge(&many(30_000), std::slice::from_ref(&few))), [true, true]);
        assert_eq!(met(&judge(&many(19_000), std::slice::from_ref(&few))), [false, false]);
        assert_eq!(met(&judge(&many(30_000), &[])), [true]);
        assert!(judge(&few, &[]).is_empty());
    }

    #[test]
    fn creates_are_held_against_the_flush_they_waited_for() {
        let line = |delay: u32, ratio: f64, flushes: f64| {
            figure(&format!(
                r#"{{"name":"creates","value":1,"clients":64,"flush_delay_ms":{delay},"ratio":{ratio},"flushes_per_commit":{flushes}}}"#
            ))
        };
        assert_eq!(met(&judge(&line(1, 5.5, 2.0), &[])), [true, true]);
        assert_eq!(met(&judge(&line(10, 19.0, 2.1), &[])), [false, false]);
        assert_eq!(met(&judge(&line(0, 0.5, 2.0), &[])), [true]);
    }

    #[test]
    fn runs_over_ssh_are_held_against_the_program_and_to_one_connection() {
        let line = |ratio: f64, connections: u32| {
            figure(&format!(r#"{{"name":"ssh_runs","value":1,"ratio":{ratio},"connections":{connections}}}"#))
        };
        assert_eq!(met(&judge(&line(3.0, 1), &[])), [true, true]);
        assert_eq!(met(&judge(&line(2.9, 2), &[])), [false, false]);
    }

    #[test]
    fn a_tear_down_may_leave_nothing_and_be_little_slower_than_bare_calls() {
        let line = |ratio: f64, left: u32| {
            figure(&format!(r#"{{"name":"openstack_tear_down","value":1,"ratio":{ratio},"left":{left}}}"#))
        };
        assert_eq!(met(&judge(&line(0.9, 0), &[])), [true, true]);
        assert_eq!(met(&judge(&line(0.8, 1), &[])), [false, false]);
    }

    #[test]
    fn a_start_may_cost_a_third_and_300_ms_more() {
        let line = |took: u32| {
            figure(&format!(r#"{{"name":"create_to_running","value":{took},"yardstick_value":400}}"#))
        };
        assert_eq!(met(&judge(&line(820), &[])), [true]);
        assert_eq!(met(&judge(&line(821), &[])), [false]);
    }
}
