//! Starts tracing: log lines on stderr.
//!
//! Only the targets of this crate are let through, at any level: what an HTTP or SQL library logs may hold headers,
//! tokens or bound values, and no filter after the fact is as safe as not listening.

use super::output::{Notes, colours};
use crate::config::logging::{Level, LogFormat};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The only crate whose lines are written.
const TARGET: &str = "freightliner";

/// From here on, log lines of this program go to `notes`. A second call changes nothing.
pub fn start(level: Level, format: LogFormat, notes: &Notes) {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let filter = Targets::new().with_target(TARGET, level);
    let notes = notes.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(format == LogFormat::Text && colours(&std::io::stderr()))
        .with_writer(move || notes.clone());
    let lines = match format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    };
    // It fails only when tracing runs already, as in tests that share a process.
    tracing_subscriber::registry().with(lines).try_init().unwrap_or_default();
}
