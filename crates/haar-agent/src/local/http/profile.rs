//! `/debug/pprof`, only when switched on: what the runtime itself can tell. Deliberately absent: profiles of CPU
//! and memory, for which this process carries no profiler.

use http::{Response, StatusCode};

use super::Profiling;
use super::reply::{Body, no_such_page, text};

pub(super) fn get(profiling: Profiling, name: &str) -> Response<Body> {
    if profiling == Profiling::Off {
        return no_such_page();
    }
    match name {
        "" => text(StatusCode::OK, "/debug/pprof\n\nprofiles:\ncmdline\ngoroutine\n"),
        "cmdline" => {
            let words: Vec<String> = std::env::args().collect();
            text(StatusCode::OK, words.join("\0"))
        }
        "goroutine" => {
            let metrics = tokio::runtime::Handle::current().metrics();
            let tasks = metrics.num_alive_tasks();
            let workers = metrics.num_workers();
            let queued = metrics.global_queue_depth();
            text(
                StatusCode::OK,
                format!(
                    "goroutine profile: total {tasks}\n# tasks {tasks}\n# workers {workers}\n# queued {queued}\n"
                ),
            )
        }
        _ => no_such_page(),
    }
}
