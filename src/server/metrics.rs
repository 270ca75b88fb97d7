//! What Prometheus reads.
//!
//! Names and labels are those of the earlier program where it had them. Labels are bounded: paths are route patterns, hosts
//! beyond [`HOSTS`] are counted as `other`. What the database knows is asked for when somebody reads.

use crate::clock::{BootTime, Clock};
use crate::job::State;
use crate::store::Store;
use crate::worker::watch::{Totals, Watch};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Registries that are counted by name.
const HOSTS: usize = 100;
/// How long what the database said is good.
const FACTS_KEPT: Duration = Duration::from_secs(2);
/// Asking it may take so much of the time: one part in this.
const FACTS_SHARE: u32 = 50;
/// Buckets of the durations of calls, seconds: those that Prometheus' libraries have.
const CALL_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    path: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HostLabels {
    source_registry: String,
    dest_registry: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PairLabels {
    source_registry: String,
    dest_registry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    r#type: &'static str,
}

/// The counters of this process.
#[derive(Debug)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    durations: Family<CallLabels, Histogram>,
    /// Calls that are being answered.
    pub in_flight: Gauge,
    /// Calls that were turned away because too many were being answered.
    pub shed: Counter,
    /// Listeners to events.
    pub listeners: Gauge,
    auth_failures: Family<KindLabels, Counter>,
    replications: Family<HostLabels, Counter>,
    bytes: Family<PairLabels, Counter>,
    layers: Family<PairLabels, Counter>,
    hosts: Mutex<BTreeSet<String>>,
    /// What the database said last, when that was, and how long it took.
    facts: Mutex<Option<(BootTime, Duration, Vec<Reading>)>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(CALL_BUCKETS)),
            in_flight: Gauge::default(),
            shed: Counter::default(),
            listeners: Gauge::default(),
            auth_failures: Family::default(),
            replications: Family::default(),
            bytes: Family::default(),
            layers: Family::default(),
            hosts: Mutex::default(),
            facts: Mutex::default(),
        }
    }
}

/// A method that is counted by name.
fn method(name: &str) -> &'static str {
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
        .into_iter()
        .find(|known| *known == name)
        .unwrap_or("other")
}

impl Metrics {
    /// A call was answered. `path`: the pattern of its route.
    pub fn answered(&self, called: &str, path: &str, status: u16, took: Duration) {
        let labels = CallLabels { method: method(called), path: path.to_owned(), status };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        self.calls.get_or_create(&labels).inc();
    }

    /// Somebody could not prove who they are.
    pub fn auth_failed(&self, kind: &'static str) {
        self.auth_failures.get_or_create(&KindLabels { r#type: kind }).inc();
    }

    /// The name of a registry, while there are few.
    fn host(&self, reference: &str) -> String {
        // A batch's listing has no reference that parses; it belongs to no registry.
        let parsed = reference.parse::<crate::oci::ImageReference>().ok();
        let host = parsed.as_ref().and_then(crate::oci::ImageReference::host).unwrap_or("oci").to_owned();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.contains(&host) || hosts.len() < HOSTS {
            hosts.insert(host.clone());
            return host;
        }
        "other".to_owned()
    }

    /// Counts what ended since the last time.
    pub fn count(&self, watch: &Watch) {
        for end in watch.take_ends() {
            let status = match end.state {
                Some(State::Completed) => "success",
                Some(State::Failed) => "failed",
                Some(State::Cancelled) => "cancelled",
                Some(State::Pending) => "released",
                Some(_) => "retried",
                None => "lost",
            };
            let source_registry = self.host(&end.watched.source);
            let dest_registry = self.host(&end.watched.destination);
            let pair = PairLabels { source_registry: source_registry.clone(), dest_registry: dest_registry.clone() };
            let counters = &end.watched.counters;
            self.bytes.get_or_create(&pair).inc_by(counters.progress.bytes_moved());
            let sent = counters.transfers.lock().unwrap_or_else(PoisonError::into_inner).len();
            self.layers.get_or_create(&pair).inc_by(u64::try_from(sent).unwrap_or(u64::MAX));
            self.replications.get_or_create(&HostLabels { source_registry, dest_registry, status }).inc();
        }
    }

    /// Asks the database, unless it was asked lately: counting the rows of a large one takes its time, which readers must not wait
    /// for, and a fiftieth of which it may have. The first time it is asked in any case.
    pub async fn ask(&self, store: &Store, clock: &Clock) {
        let began = clock.boot();
        {
            let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((asked, took, _)) = facts.as_mut() {
                if began.since(*asked) < FACTS_KEPT.max(*took * FACTS_SHARE) {
                    return;
                }
                // Others need not ask meanwhile.
                *asked = began;
            }
        }
        let readings = look(store).await;
        let now = clock.boot();
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        *facts = Some((now, now.since(began), readings));
    }

    /// The text of everything. When the database cannot be read, `database_up` says so and the rest is there all the same.
    pub async fn text(&self, store: &Store, watch: &Watch, clock: &Clock, places: usize) -> String {
        self.count(watch);
        self.ask(store, clock).await;
        let mut registry = Registry::with_prefix("freightliner");
        registry.register("http_requests", "Calls answered", self.calls.clone());
        registry.register("http_request_duration_seconds", "Time to the answer of a call", self.durations.clone());
        registry.register("http_requests_in_flight", "Calls being answered", self.in_flight.clone());
        registry.register("http_requests_shed", "Calls turned away under load", self.shed.clone());
        registry.register("event_listeners", "Listeners to events", self.listeners.clone());
        registry.register("auth_failures", "Refused keys", self.auth_failures.clone());
        registry.register("replications", "Attempts that ended here", self.replications.clone());
        registry.register("replication_bytes", "Blob bytes sent", self.bytes.clone());
        registry.register("replication_layers", "Blobs dealt with", self.layers.clone());
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = facts.as_ref().map(|(_, _, readings)| readings.clone()).unwrap_or_default();
        drop(facts);
        registry.register_collector(Box::new(Facts::new(known, watch, places)));
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::error!(%error, "metrics could not be written");
        }
        classic(&text)
    }
}

/// A gauge: its name, what it is, a label of it and the value.
type Reading = (&'static str, &'static str, Option<(&'static str, String)>, u64);

/// What is known at the moment of reading.
#[derive(Debug)]
struct Facts {
    gauges: Vec<Reading>,
    totals: Totals,
}

impl Facts {
    fn new(mut gauges: Vec<Reading>, watch: &Watch, places: usize) -> Self {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let running = number(watch.running().len());
        gauges.extend([
            ("jobs_active", "Jobs that run here", None, running),
            ("worker_pool_active", "Places taken here", None, running),
            ("worker_pool_size", "Jobs that may run here at a time", None, number(places)),
            ("memory_usage_bytes", "Resident memory", None, resident_bytes()),
        ]);
        gauges.sort_by_key(|(name, ..)| *name);
        Self { gauges, totals: watch.totals() }
    }
}

/// What the database says.
async fn look(store: &Store) -> Vec<Reading> {
    let mut gauges = Vec::new();
    let mut up = 1;
    match store.stats().await {
        Ok(stats) => {
            for (state, jobs) in [
                ("scheduled", stats.scheduled),
                ("pending", stats.pending),
                ("running", stats.running),
                ("completed", stats.completed),
                ("failed", stats.failed),
                ("cancelled", stats.cancelled),
            ] {
                gauges.push(("jobs", "Jobs in the database", Some(("state", state.to_owned())), jobs));
            }
            gauges.push(("worker_pool_queued", "Jobs that wait for a worker", None, stats.pending));
            let age = stats.oldest_pending_age_ms.unwrap_or(0) / 1000;
            gauges.push(("oldest_pending_age_seconds", "How long the oldest pending job waits", None, age));
        }
        Err(error) => {
            tracing::warn!(%error, "metrics: the database could not be asked");
            up = 0;
        }
    }
    match store.queues().await {
        Ok(queues) => gauges.extend(queues.into_iter().take(HOSTS).map(|queue| {
            ("queue_depth", "Jobs that wait", Some(("queue", queue.name)), queue.pending + queue.scheduled)
        })),
        Err(error) => {
            tracing::warn!(%error, "metrics: the database could not be asked for its queues");
            up = 0;
        }
    }
    gauges.push(("database_up", "The database answers", None, up));
    gauges
}

impl Collector for Facts {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut rest = self.gauges.as_slice();
        while let Some((name, help, ..)) = rest.first() {
            let end = rest.iter().position(|(other, ..)| other != name).unwrap_or(rest.len());
            let mut metric = encoder.encode_descriptor(name, help, None, ConstGauge::new(0_i64).metric_type())?;
            for (_, _, label, value) in &rest[..end] {
                let value = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
                let Some((name, label)) = label else {
                    // Without a label there is one of a name.
                    value.encode(metric)?;
                    break;
                };
                value.encode(metric.encode_family(&[(*name, label.as_str())])?)?;
            }
            rest = &rest[end..];
        }
        let totals = &self.totals;
        for (name, help, value) in [
            ("images_copied", "Images copied here", totals.images_copied),
            ("images_present", "Images that were there already", totals.images_present),
            ("bytes_sent", "Blob bytes sent, those of failed tries too", totals.bytes_sent),
            ("bytes_saved", "Blob bytes that were mounted or there already", totals.bytes_saved),
            ("registry_requests", "Requests to registries", totals.requests),
        ] {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let counter = ConstCounter::new(0_u64);
        let mut metric = encoder.encode_descriptor("blobs", "Blobs, by how", None, counter.metric_type())?;
        for (how, blobs) in [
            ("copied", totals.blobs_copied),
            ("mounted", totals.blobs_mounted),
            ("present", totals.blobs_present),
            ("resumed", totals.blobs_resumed),
        ] {
            ConstCounter::new(blobs).encode(metric.encode_family(&[("how", how)])?)?;
        }
        Ok(())
    }
}

/// The older text format of Prometheus (0.0.4), which everything reads: there a counter is described under the name of its
/// samples, and nothing marks the end.
fn classic(text: &str) -> String {
    let counter = |line: &str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.to_owned());
    let counters: BTreeSet<String> = text.lines().filter_map(counter).collect();
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                classic.push_str(&format!("# {what} {name}_total {rest}"));
            }
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

/// Resident memory of this process, bytes; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096))
}
