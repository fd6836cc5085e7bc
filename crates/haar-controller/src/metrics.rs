//! What `/metrics` tells (Prometheus, OpenMetrics text).
//!
//! The numbers that matter: `haar_queue_depth`, `haar_commit_seconds`, `haar_hypervisors{state}`,
//! `haar_guests{state}`, `haar_jobs_open` with `haar_job_oldest_seconds`, and `haar_books_faults`.
//! Gauges of the books are read from the published fleet when asked. No label holds an id of anything
//! that can be made by a user. Deliberately absent: histories; that is the reader's business.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Labels = Vec<(&'static str, String)>;
type Count = Gauge<i64, AtomicI64>;
type Seconds = Gauge<f64, AtomicU64>;

/// Every metric; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// How long one commit took, flushes included.
    pub(crate) commit_seconds: Histogram,
    /// Commands that shared a commit.
    pub(crate) batch_size: Histogram,
    /// How long deciding one command took, placement included.
    pub(crate) decide_seconds: Histogram,
    /// Commits that failed.
    pub(crate) commits_failed: Counter,
    /// Requests by status class.
    pub(crate) requests: Family<Labels, Counter>,
    /// Connections that were turned away because there were too many.
    pub(crate) connections_refused: Counter,
    /// Open connections.
    pub(crate) connections: Count,
    /// Requests that were read and are not answered yet; the one that asks for metrics is among them.
    requests_open: Count,
}

/// One request under way; counted until it is answered or its connection is gone.
#[derive(Debug)]
pub(crate) struct UnderWay(Count);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The gauges that are read when asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// Commands that wait.
    pub(crate) queue_depth: usize,
    /// The fleet's revision.
    pub(crate) revision: u64,
    /// Hypervisors by state.
    pub(crate) hypervisors: Vec<(String, u64)>,
    /// Guests by state.
    pub(crate) guests: Vec<(String, u64)>,
    /// Jobs that have not ended.
    pub(crate) jobs_open: u64,
    /// Age of the oldest of them, seconds.
    pub(crate) job_oldest_seconds: f64,
    /// Faults the last check of the books found.
    pub(crate) books_faults: Option<u64>,
    /// Flushes of the store since its start, when it counts them.
    pub(crate) flushes: Option<u64>,
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Metrics {
        let seconds =
            || Histogram::new([0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0]);
        Metrics {
            commit_seconds: seconds(),
            batch_size: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0]),
            decide_seconds: Histogram::new([0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.02, 0.1]),
            commits_failed: Counter::default(),
            requests: Family::default(),
            connections_refused: Counter::default(),
            connections: Count::default(),
            requests_open: Count::default(),
        }
    }

    /// A request was read, and is under way as long as what is returned lives.
    pub(crate) fn request(&self) -> UnderWay {
        self.requests_open.inc();
        UnderWay(self.requests_open.clone())
    }

    /// A request was answered with this status.
    pub(crate) fn answered(&self, status: u16) {
        self.requests.get_or_create(&vec![("class", format!("{}xx", status / 100))]).inc();
    }

    /// The text of `/metrics`.
    pub(crate) fn text(&self, reading: &Reading) -> String {
        let mut registry = Registry::with_prefix("haar");
        self.register(&mut registry);
        register_reading(&mut registry, reading);
        let mut out = String::new();
        match text::encode(&mut out, &registry) {
            Ok(()) => out,
            // Writing into a string does not fail; an empty page is then a sign of its own.
            Err(_) => String::new(),
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "commit_seconds",
            "How long one commit took, flushes included",
            self.commit_seconds.clone(),
        );
        registry.register("commit_batch", "Commands that shared a commit", self.batch_size.clone());
        registry.register(
            "decide_seconds",
            "How long deciding one command took, placement included",
            self.decide_seconds.clone(),
        );
        registry.register("commits_failed", "Commits that failed", self.commits_failed.clone());
        registry.register("requests", "Requests answered, by status class", self.requests.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register("requests_open", "Requests that are under way", self.requests_open.clone());
        registry.register(
            "connections_refused",
            "Connections turned away because too many were open",
            self.connections_refused.clone(),
        );
    }
}

fn register_reading(registry: &mut Registry, reading: &Reading) {
    let count = |value: u64| {
        let gauge = Count::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    let by_state = |states: &[(String, u64)]| {
        let family = Family::<Labels, Count>::default();
        for (state, number) in states {
            let labels = vec![("state", state.clone())];
            family.get_or_create(&labels).set(i64::try_from(*number).unwrap_or(i64::MAX));
        }
        family
    };
    let oldest = Seconds::default();
    oldest.set(reading.job_oldest_seconds);
    registry.register("queue_depth", "Commands that wait for the books", count(reading.queue_depth as u64));
    registry.register("revision", "The fleet's revision", count(reading.revision));
    registry.register("hypervisors", "Hypervisors by state", by_state(&reading.hypervisors));
    registry.register("guests", "Guests by state", by_state(&reading.guests));
    registry.register("jobs_open", "Jobs that have not ended", count(reading.jobs_open));
    registry.register("job_oldest_seconds", "Age of the oldest open job", oldest);
    if let Some(faults) = reading.books_faults {
        registry.register("books_faults", "Faults the last check of the books found", count(faults));
    }
    if let Some(flushes) = reading.flushes {
        registry.register("store_flushes", "Flushes of the store since its start", count(flushes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_gauges_and_ends_as_openmetrics_wants() {
        let metrics = Metrics::new();
        metrics.answered(204);
        let reading = Reading { queue_depth: 3, guests: vec![("running".into(), 2)], ..Reading::default() };
        let text = metrics.text(&reading);
        assert!(text.contains("haar_queue_depth 3"), "{text}");
        assert!(text.contains("haar_guests{state=\"running\"} 2"), "{text}");
        assert!(text.contains("haar_requests_total{class=\"2xx\"} 1"), "{text}");
        assert!(text.trim_end().ends_with("# EOF"), "{text}");
    }
}
