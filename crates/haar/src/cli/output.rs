//! What a person reads: tables without borders, ages, sizes, ticks. And what a program reads: JSON.

use std::io::IsTerminal as _;

use comfy_table::{Cell, Color, Table};
use haar_api::v1::{ResourcesView, Time};
use haar_core::units::MiB;
use serde_json::Value;

use super::failure::Failure;

/// The words of a mode about its answer.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct FormatWords {
    /// Lines for people, or one JSON document
    #[arg(
        short,
        long,
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true,
        value_name = "table|json"
    )]
    pub(crate) output: Format,
}

/// How the answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// What the API sends.
    Json,
}

/// Whether stdout takes colours: a terminal, and nobody said `NO_COLOR`.
pub(crate) fn colours() -> bool {
    std::io::stdout().is_terminal() && plain_wish().is_none()
}

/// Whether stderr takes bars and lines that are written over.
pub(crate) fn bars() -> bool {
    std::io::stderr().is_terminal() && plain_wish().is_none()
}

fn plain_wish() -> Option<std::ffi::OsString> {
    std::env::var_os("NO_COLOR").filter(|value| !value.is_empty())
}

/// Prints one JSON document.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::local("cannot write JSON", error))?;
    out(&format!("{text}\n"));
    Ok(())
}

/// Prints something of ours as one JSON document.
pub(crate) fn json_of(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("texts, numbers and lists are JSON");
    out(&format!("{text}\n"));
}

/// Prints an answer's bytes as one JSON document.
pub(crate) fn json_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| Failure::local("the answer is no JSON", error))?;
    json(&value)
}

/// A word as a shell must be given it to get it whole.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Writes to stdout; a reader that went away (`| head`) is no failure.
pub(crate) fn out(text: &str) {
    bytes_out(text.as_bytes());
}

/// Writes to stdout, and tells whether anybody still reads.
pub(crate) fn bytes_out(bytes: &[u8]) -> bool {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).is_ok()
}

/// A table, indented by two, without borders. The column `STATE` or `STATUS` is coloured.
pub(crate) fn table(columns: &[&str], rows: Vec<Vec<String>>, colour: bool) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(columns.to_vec());
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for row in rows {
        let cells = row.into_iter().enumerate().map(|(index, text)| {
            let is_state = columns.get(index).is_some_and(|column| matches!(*column, "STATE" | "STATUS"));
            let tone = if is_state { tone(&text) } else { None };
            let cell = Cell::new_owned(text);
            match tone {
                Some(tone) => cell.fg(tone),
                None => cell,
            }
        });
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((2, 0));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn tone(state: &str) -> Option<Color> {
    match state {
        "running" | "alive" | "done" | "ready" => Some(Color::Green),
        "failed" | "lost" | "error" | "silent" => Some(Color::Red),
        "stopped" | "" => None,
        _ => Some(Color::Yellow),
    }
}

/// Names and values, one per line, indented by two, values in one column. Empty values are left out.
pub(crate) fn details(title: &str, lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let shown = lines.iter().filter(|(_, value)| !value.is_empty());
    let rows: String = shown.map(|(name, value)| format!("  {name:width$}   {value}\n")).collect();
    format!("{title}\n{rows}")
}

/// A line with a stable code at its right.
pub(crate) fn with_code(line: &str, code: &str) -> String {
    if code.is_empty() { format!("{line}\n") } else { format!("{line:<76}  {code}\n") }
}

/// How long ago, in the largest whole unit: `12s`, `5m`, `2h`, `3d`.
pub(crate) fn age(since: Time, now: Time) -> String {
    let seconds = (now.as_ms() - since.as_ms()).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A span in seconds with one decimal, or in minutes: `0.9 s`, `41.2 s`, `3 min 5 s`.
pub(crate) fn span(ms: i64) -> String {
    let ms = ms.max(0);
    if ms < 100_000 {
        format!("{}.{} s", ms / 1000, ms % 1000 / 100)
    } else {
        format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000)
    }
}

/// Now, by this machine's clock.
pub(crate) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// How many times what there is may be promised: `4.0×`; a dash where there is nothing.
pub(crate) fn factor(total: u64, promised: u64) -> String {
    if total == 0 {
        return "–".to_owned();
    }
    let tenths = (u128::from(promised) * 20 / u128::from(total)).div_ceil(2);
    format!("{}.{}×", tenths / 10, tenths % 10)
}

/// The factors of all three: `cpu 4.0×, memory 1.0×, disk 1.0×`.
pub(crate) fn factors(total: ResourcesView, promised: ResourcesView) -> String {
    format!(
        "cpu {}, memory {}, disk {}",
        factor(total.cpu, promised.cpu),
        factor(total.memory, promised.memory),
        factor(total.disk, promised.disk)
    )
}

/// Mebibytes for a person.
pub(crate) fn mib(amount: u64) -> String {
    MiB(amount).to_string()
}

/// Bytes for a person, in MiB, GiB or TiB with one decimal.
pub(crate) fn bytes(amount: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = u128::from(amount) * 10 / u128::from(unit);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match amount {
        0..1_048_576 => format!("{} KiB", amount.div_ceil(1024)),
        1_048_576..1_073_741_824 => format!("{} MiB", tenths(1 << 20)),
        1_073_741_824..1_099_511_627_776 => format!("{} GiB", tenths(1 << 30)),
        _ => format!("{} TiB", tenths(1 << 40)),
    }
}

/// The beginning of a hash, for people.
pub(crate) fn short_hash(hash: &str) -> String {
    match (hash.get(..4), hash.get(hash.len().saturating_sub(4)..)) {
        (Some(head), Some(tail)) if hash.len() > 8 => format!("{head}…{tail}"),
        _ => hash.to_owned(),
    }
}

/// The beginning of an id, as short as people say it; the command line takes it back.
pub(crate) fn short_id(id: impl std::fmt::Display) -> String {
    id.to_string().chars().take(8).collect()
}

/// A bar of twenty blocks and the per cent it stands for.
pub(crate) fn bar(part: u64, whole: u64) -> String {
    if whole == 0 {
        return format!("{}   – ", "░".repeat(20));
    }
    let percent = u128::from(part) * 100 / u128::from(whole);
    let full = usize::try_from((percent / 5).min(20)).unwrap_or(20);
    format!("{}{} {percent:>3} %", "█".repeat(full), "░".repeat(20 - full))
}

/// Labels as `k=v, k=v`.
pub(crate) fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

/// "1 guest", "2 guests".
pub(crate) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
