//! `haar status`, `haar capacity`, `haar check`: the cloud as a whole.

use std::collections::BTreeMap;

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{CapacityView, CheckView, HypervisorCapacity, ResourcesView, StatusView, Time};

use super::context::Context;
use super::failure::Failure;
use super::output;

/// `haar status`.
pub(crate) async fn status(context: &Context) -> Result<(), Failure> {
    let answered = context.client.request::<t::Status>(&[]).send(&Nothing).await?;
    if context.is_json() {
        return output::json_bytes(&answered.body);
    }
    output::out(&status_text(&answered.value, output::now()));
    Ok(())
}

/// `haar capacity`.
pub(crate) async fn capacity(context: &Context) -> Result<(), Failure> {
    let answered = context.client.request::<t::Capacity>(&[]).send(&Nothing).await?;
    if context.is_json() {
        return output::json_bytes(&answered.body);
    }
    output::out(&capacity_text(&answered.value, output::colours()));
    Ok(())
}

/// `haar check`: 0 when the books balance, 1 when they do not.
pub(crate) async fn check(context: &Context) -> Result<(), Failure> {
    let answered = context.client.request::<t::Check>(&[]).send(&Nothing).await?;
    if context.is_json() {
        output::json_bytes(&answered.body)?;
    } else {
        output::out(&check_text(&answered.value));
    }
    if answered.value.faults.is_empty() { Ok(()) } else { Err(Failure::Said) }
}

pub(crate) fn status_text(view: &StatusView, now: Time) -> String {
    let books = match view.checked {
        None => "books not checked yet".to_owned(),
        Some(checked) if checked.faults == 0 => {
            format!("books balance (checked {} ago)", output::age(checked.at, now))
        }
        Some(checked) => format!("books have {} → haar check", output::counted(checked.faults, "fault")),
    };
    let jobs = &view.jobs;
    let mut job_words = format!("{} running", jobs.running);
    if jobs.running > 0 {
        job_words.push_str(&format!(
            ", oldest {}",
            output::span(i64::try_from(jobs.oldest_ms).unwrap_or(i64::MAX))
        ));
    }
    job_words.push_str(&format!("   {} failed in the last hour", jobs.failed_last_hour));
    if let Some(job) = jobs.last_failed {
        job_words.push_str(&format!(" → haar job show {}", output::short_id(job)));
    }
    let (used, promised, total) = (view.used, view.promised, view.total);
    format!(
        "  haar {}   {}   revision {}   {books}\n  hypervisors  {}\n  guests       {}\n  jobs         {job_words}\n  \
         cpu     {}   {} of {} ({} at {})\n  memory  {}   {} of {} ({} at {})\n  disk    {}   {} of {} ({} at {})\n",
        view.version,
        view.host,
        view.revision,
        counts(&view.hypervisors),
        counts(&view.guests),
        output::bar(used.cpu, promised.cpu),
        used.cpu,
        promised.cpu,
        total.cpu,
        output::factor(total.cpu, promised.cpu),
        output::bar(used.memory, promised.memory),
        output::mib(used.memory),
        output::mib(promised.memory),
        output::mib(total.memory),
        output::factor(total.memory, promised.memory),
        output::bar(used.disk, promised.disk),
        output::mib(used.disk),
        output::mib(promised.disk),
        output::mib(total.disk),
        output::factor(total.disk, promised.disk),
    )
}

/// `12 alive   1 silent`; those of which there are none go unsaid.
fn counts(counts: &BTreeMap<String, u64>) -> String {
    let some: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if some.is_empty() { "none".to_owned() } else { some.join("   ") }
}

pub(crate) fn capacity_text(view: &CapacityView, colour: bool) -> String {
    let mut rows: Vec<Vec<String>> = view.by_hypervisor.iter().map(capacity_row).collect();
    let free = free_words(view.free);
    let closed = view.by_hypervisor.iter().any(|each| closed(each).is_some());
    let free = if closed { format!("{free} (open hypervisors only)") } else { free };
    rows.push(row("in all", [view.total, view.promised, view.used], free));
    let mut text =
        output::table(&["HYPERVISOR", "CPU HELD", "MEMORY HELD", "DISK HELD", "FREE"], rows, colour);
    if !view.by_subnet.is_empty() {
        let rows = view.by_subnet.iter().map(|each| {
            let total = if each.total == u64::MAX { "very many".to_owned() } else { each.total.to_string() };
            vec![each.subnet_name.clone(), each.used.to_string(), total]
        });
        text.push('\n');
        text.push_str(&output::table(&["SUBNET", "ADDRESSES HELD", "OF"], rows.collect(), colour));
    }
    text
}

fn capacity_row(each: &HypervisorCapacity) -> Vec<String> {
    let free = match closed(each) {
        Some(why) => format!("none: {why}"),
        None => free_words(each.free),
    };
    row(&each.hypervisor_name, [each.total, each.promised, each.used], free)
}

fn free_words(free: ResourcesView) -> String {
    format!("{} cpu, {}, {}", free.cpu, output::mib(free.memory), output::mib(free.disk))
}

/// What guests hold of what may be promised, and how much more that is than there is.
fn row(name: &str, [total, promised, used]: [ResourcesView; 3], free: String) -> Vec<String> {
    let mib = |used, promised, total| {
        format!("{} of {} ({})", output::mib(used), output::mib(promised), output::factor(total, promised))
    };
    vec![
        name.to_owned(),
        format!("{} of {} ({})", used.cpu, promised.cpu, output::factor(total.cpu, promised.cpu)),
        mib(used.memory, promised.memory, total.memory),
        mib(used.disk, promised.disk, total.disk),
        free,
    ]
}

/// Why nothing is placed on a hypervisor now, when so.
fn closed(each: &HypervisorCapacity) -> Option<String> {
    match (each.cordoned, each.state.as_str()) {
        (true, "alive") => Some("cordoned".to_owned()),
        (true, state) => Some(format!("cordoned, {state}")),
        (false, "alive") => None,
        (false, state) => Some(state.to_owned()),
    }
}

pub(crate) fn check_text(view: &CheckView) -> String {
    let compared: Vec<String> = view.compared.iter().map(|(noun, count)| format!("{count} {noun}")).collect();
    let verdict = if view.faults.is_empty() { "the books balance" } else { "the books do not balance" };
    let mut text = format!("  {} compared: {verdict}\n", compared.join(", "));
    for fault in &view.faults {
        text.push_str(&output::with_code(&format!("  fault: {}", fault.message), &fault.rule));
    }
    for stranger in &view.strangers {
        text.push_str(&format!(
            "  stranger on {}: domain `{}` is in no book (left alone)\n",
            stranger.hypervisor_name, stranger.domain
        ));
    }
    text
}
