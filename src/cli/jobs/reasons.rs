//! From the facts about a job to the reasons why it does not run. Pure: what was seen goes in, words come out.
//!
//! All reasons are told, not only the first: whoever lifts one should know what stands behind it. They come in the order in
//! which an operator would deal with them.

use crate::cli::output::bytes;
use crate::cli::queue::quoted;
use crate::cli::report::{count, reason as told};
use crate::cli::when::spoken;
use crate::clock::UnixMillis;
use crate::job::{Job, State};
use crate::store::Why;
use serde::Serialize;

/// Up to this many jobs that go first are counted.
const AHEAD_COUNTED: u64 = 1000;

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// What the database says.
    #[serde(flatten)]
    pub why: Why,
    /// The limit of the job's registry in the configuration of whoever asks.
    pub registry_max_running: Option<u32>,
    /// Jobs that run on workers which serve the job's queue.
    pub places_taken: u64,
    /// Workers that serve another queue only.
    pub workers_of_other_queues: u64,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// One word for programs.
    pub code: &'static str,
    /// What it is, for people.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Reason {
    fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: Some(hint.into()) }
    }
}

/// Why the job does not run, or what it does when it runs; never empty.
#[must_use]
pub fn reasons(facts: &Facts) -> Vec<Reason> {
    match facts.why.job.state {
        State::Completed | State::Failed | State::Cancelled => vec![finished(&facts.why.job)],
        State::Running => vec![running(&facts.why)],
        State::Scheduled => scheduled(facts),
        State::Pending => pending(facts),
    }
}

fn finished(job: &Job) -> Reason {
    let id = job.id;
    let at = job.finished_at.map(|at| format!(" at {}", at.to_rfc3339())).unwrap_or_default();
    match (job.state, &job.failure) {
        (State::Completed, _) => {
            Reason::new("completed", format!("it was completed{at}"), format!("again: freightliner jobs retry {id}"))
        }
        (State::Cancelled, _) => {
            Reason::new("cancelled", format!("it was cancelled{at}"), format!("again: freightliner jobs retry {id}"))
        }
        (_, failure) => Reason::new(
            "failed",
            format!("it failed{at}: {}", failure.as_ref().map_or_else(|| "no reason is known".to_owned(), told)),
            format!("when the cause is gone: freightliner jobs retry {id}"),
        ),
    }
}

fn running(why: &Why) -> Reason {
    let job = &why.job;
    let worker = job.worker.as_deref().unwrap_or("unknown");
    let since = job
        .started_at
        .map_or_else(String::new, |at| format!(" since {} ({})", at.to_rfc3339(), spoken(why.now.since(at))));
    if let Some(until) = job.lease_until.filter(|until| *until < why.now) {
        return Reason::new(
            "lease_expired",
            format!("worker {worker} had it{since}, but its lease ran out {} ago", spoken(why.now.since(until))),
            "the next sweep of a worker takes it back: freightliner work, or freightliner sweep",
        );
    }
    if let Some(at) = job.cancel_requested_at {
        return Reason::new(
            "cancelling",
            format!("worker {worker} runs it{since}; it was asked to stop at {}", at.to_rfc3339()),
            "the worker sees that at its next heartbeat",
        );
    }
    let progress = job.progress.map_or_else(String::new, |progress| {
        format!(
            "; {} of {}, {} of {} blobs",
            bytes(progress.bytes_done),
            bytes(progress.bytes_total),
            progress.blobs_done,
            progress.blobs_total
        )
    });
    Reason::new(
        "running",
        format!("it runs on worker {worker}{since}, attempt {} of {}{progress}", job.attempt, job.max_attempts),
        format!("wait for its end: freightliner jobs wait {}", job.id),
    )
}

fn scheduled(facts: &Facts) -> Vec<Reason> {
    let Why { job, now, paused_at, .. } = &facts.why;
    let mut reasons: Vec<Reason> = paused(job, *paused_at).into_iter().collect();
    if job.run_at > *now {
        reasons.push(later(job, *now));
    } else if paused_at.is_none() {
        reasons.push(Reason::new(
            "due",
            format!("its time has come ({}), and no worker has noticed yet", job.run_at.to_rfc3339()),
            "a worker notices within a moment; if none is at work: freightliner work",
        ));
        reasons.extend(no_worker(facts));
    }
    reasons.extend(queue_paused(&facts.why));
    reasons
}

fn later(job: &Job, now: UnixMillis) -> Reason {
    let (at, wait) = (job.run_at.to_rfc3339(), spoken(job.run_at.since(now)));
    let hint = format!("at once: freightliner jobs edit {} --now", job.id);
    match &job.failure {
        Some(failure) => Reason::new(
            "retry",
            format!(
                "its last attempt failed, {}; attempt {} of {} starts at {at}, in {wait}",
                told(failure),
                job.attempt.saturating_add(1),
                job.max_attempts
            ),
            hint,
        ),
        None => Reason::new("future", format!("it was asked for at {at}, in {wait}"), hint),
    }
}

fn pending(facts: &Facts) -> Vec<Reason> {
    let why = &facts.why;
    let job = &why.job;
    let mut reasons: Vec<Reason> = paused(job, why.paused_at).into_iter().collect();
    if !why.parsed {
        reasons.push(Reason::new(
            "not_parsed",
            "no worker has looked at its references yet",
            "a worker does so before it runs the job; if none is at work: freightliner work",
        ));
    }
    reasons.extend(queue_paused(why));
    reasons.extend(limits(facts));
    if let Some(other) = why.same_destination {
        reasons.push(Reason::new(
            "same_destination",
            format!("job {other} writes the same destination, and only one may at a time"),
            format!("wait for it (freightliner jobs wait {other}) or stop it (freightliner jobs cancel {other})"),
        ));
    }
    if why.ahead > 0 {
        let more = if why.ahead >= AHEAD_COUNTED { "at least " } else { "" };
        let go = if why.ahead == 1 { "goes" } else { "go" };
        reasons.push(Reason::new(
            "ahead",
            format!("{more}{} of its queue {go} first", jobs(why.ahead)),
            format!(
                "lower priorities go first: freightliner jobs edit {} --priority N (it has {})",
                job.id, job.priority
            ),
        ));
    }
    reasons.extend(no_worker(facts));
    reasons.extend(no_place(facts));
    if reasons.is_empty() {
        reasons.push(Reason::new(
            "ready",
            "nothing holds it back: a worker takes it at its next look",
            format!("if it stays like this, look at the workers' logs and at freightliner jobs events {}", job.id),
        ));
    }
    reasons
}

fn paused(job: &Job, paused_at: Option<UnixMillis>) -> Option<Reason> {
    paused_at.map(|at| {
        Reason::new(
            "paused",
            format!("an operator paused it at {}", at.to_rfc3339()),
            format!("let it go on: freightliner jobs resume {}", job.id),
        )
    })
}

fn queue_paused(why: &Why) -> Option<Reason> {
    why.queue_paused_at.map(|at| {
        Reason::new(
            "queue_paused",
            format!("its queue `{}` is paused since {}", why.job.queue, at.to_rfc3339()),
            format!("let it go on: freightliner queue resume {}", quoted(&why.job.queue)),
        )
    })
}

/// The limit of its queue, and that of its registry.
fn limits(facts: &Facts) -> Vec<Reason> {
    let why = &facts.why;
    let mut reasons = Vec::new();
    if let Some(limit) = why.queue_max_running.filter(|limit| why.queue_running >= u64::from(*limit)) {
        reasons.push(Reason::new(
            "queue_limit",
            format!("{} of at most {limit} of its queue `{}` run", jobs(why.queue_running), why.job.queue),
            format!("wait, or raise the limit: freightliner queue limit {} N", quoted(&why.job.queue)),
        ));
    }
    if let (Some(registry), Some(limit)) = (&why.registry, facts.registry_max_running)
        && why.registry_running >= u64::from(limit)
    {
        reasons.push(Reason::new(
            "registry_limit",
            format!("{} of at most {limit} that write to {registry} run", jobs(why.registry_running)),
            "wait, or raise registry.max_running in the configuration of the workers",
        ));
    }
    reasons
}

fn no_worker(facts: &Facts) -> Option<Reason> {
    // A process that works on one job of its own has no places for others.
    if facts.why.workers > 0 && facts.why.places > 0 {
        return None;
    }
    let queue = &facts.why.job.queue;
    let message = match facts.workers_of_other_queues {
        0 => "no worker is at work".to_owned(),
        1 => format!("no worker serves its queue `{queue}`: the one that is at work serves another"),
        others => format!("no worker serves its queue `{queue}`: the {others} that are at work serve others"),
    };
    Some(Reason::new("no_worker", message, format!("start one: freightliner work --queue {}", quoted(queue))))
}

fn no_place(facts: &Facts) -> Option<Reason> {
    let Why { workers, places, .. } = facts.why;
    (workers > 0 && places > 0 && facts.places_taken >= places).then(|| {
        let of = if workers == 1 {
            "of the worker that serves".to_owned()
        } else {
            format!("of the {workers} workers that serve")
        };
        Reason::new(
            "no_place",
            format!("all {} {of} its queue are taken", count(usize::try_from(places).unwrap_or(usize::MAX), "place")),
            "wait, start another worker, or give one more places: freightliner work --concurrency N",
        )
    })
}

fn jobs(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "job")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Failure, Kind, Progress};

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn at(secs: i64) -> UnixMillis {
        UnixMillis(NOW.0 + secs * 1000)
    }

    /// A pending job that nothing holds back.
    fn facts() -> Facts {
        let job = Job {
            id: 7,
            kind: Kind::Copy,
            generation: 1,
            source: "a.example/x:1".into(),
            destination: "b.example/x:1".into(),
            options: serde_json::json!({}),
            state: State::Pending,
            queue: "nightly".into(),
            priority: 100,
            attempt: 0,
            max_attempts: 8,
            crash_count: 0,
            lease_epoch: 0,
            run_at: at(-5),
            created_at: at(-5),
            started_at: None,
            finished_at: None,
            worker: None,
            lease_until: None,
            batch_id: None,
            schedule_id: None,
            idempotency_key: None,
            cancel_requested_at: None,
            paused_at: None,
            progress: None,
            failure: None,
            report: None,
        };
        let why = Why {
            job,
            now: NOW,
            paused_at: None,
            parsed: true,
            queue_paused_at: None,
            queue_max_running: None,
            queue_running: 0,
            registry: Some("b.example".into()),
            registry_running: 0,
            same_destination: None,
            ahead: 0,
            workers: 1,
            places: 8,
        };
        Facts { why, registry_max_running: None, places_taken: 0, workers_of_other_queues: 0 }
    }

    fn failure(class: &str) -> Failure {
        Failure { stage: "transfer".into(), class: class.into(), message: "connection reset".into(), at: at(-10) }
    }

    /// The codes and the messages, after a change to the facts.
    fn told_of(change: impl Fn(&mut Facts)) -> (Vec<&'static str>, String) {
        let mut facts = facts();
        change(&mut facts);
        let reasons = reasons(&facts);
        assert!(reasons.iter().all(|reason| reason.hint.is_some() && !reason.message.contains('\n')), "{reasons:?}");
        let text = reasons.iter().map(|reason| format!("{}\n{}\n", reason.message, reason.hint.as_deref().unwrap()));
        (reasons.iter().map(|reason| reason.code).collect(), text.collect())
    }

    #[track_caller]
    fn check(codes: &[&str], words: &[&str], change: impl Fn(&mut Facts)) {
        let (found, text) = told_of(change);
        assert_eq!(found, codes, "{text}");
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    }

    #[test]
    fn a_pending_job() {
        check(&["ready"], &["nothing holds it back"], |_| {});
        check(&["not_parsed"], &["freightliner work"], |facts| facts.why.parsed = false);
        check(&["queue_paused"], &["`nightly`", "queue resume nightly", "14:12:20"], |facts| {
            facts.why.queue_paused_at = Some(at(-60));
        });
        check(&["queue_paused"], &["queue resume 'a b'"], |facts| {
            facts.why.job.queue = "a b".into();
            facts.why.queue_paused_at = Some(at(-60));
        });
        check(&["queue_limit"], &["2 jobs of at most 2", "queue limit nightly N"], |facts| {
            facts.why.queue_max_running = Some(2);
            facts.why.queue_running = 2;
        });
        check(&["ready"], &[], |facts| {
            facts.why.queue_max_running = Some(2);
            facts.why.queue_running = 1;
        });
        check(&["registry_limit"], &["4 jobs of at most 4", "b.example", "registry.max_running"], |facts| {
            facts.registry_max_running = Some(4);
            facts.why.registry_running = 4;
        });
        check(&["ready"], &[], |facts| {
            facts.registry_max_running = Some(4);
            facts.why.registry_running = 3;
        });
        check(&["same_destination"], &["job 3 writes", "jobs cancel 3"], |facts| {
            facts.why.same_destination = Some(3);
        });
        check(&["ahead"], &["1 job of its queue goes first", "--priority"], |facts| facts.why.ahead = 1);
        check(&["ahead"], &["at least 1000 jobs of its queue go first"], |facts| facts.why.ahead = 1000);
    }

    #[test]
    fn workers_and_their_places() {
        check(&["no_worker"], &["no worker is at work", "work --queue nightly"], |facts| facts.why.workers = 0);
        check(&["no_worker"], &["the one that is at work serves another"], |facts| {
            facts.why.workers = 0;
            facts.workers_of_other_queues = 1;
        });
        check(&["no_worker"], &["the 2 that are at work serve others"], |facts| {
            facts.why.workers = 0;
            facts.workers_of_other_queues = 2;
        });
        // A `replicate` works on its own job only.
        check(&["no_worker"], &["no worker is at work"], |facts| facts.why.places = 0);
        check(&["no_place"], &["all 8 places of the worker that serves"], |facts| facts.places_taken = 8);
        check(&["no_place"], &["of the 2 workers that serve"], |facts| {
            facts.why.workers = 2;
            facts.places_taken = 9;
        });
        check(&["ready"], &[], |facts| facts.places_taken = 7);
    }

    #[test]
    fn a_scheduled_job() {
        let scheduled = |change: fn(&mut Facts)| {
            move |facts: &mut Facts| {
                facts.why.job.state = State::Scheduled;
                change(facts);
            }
        };
        check(&["due"], &["its time has come"], scheduled(|_| {}));
        check(&["due", "no_worker"], &["no worker is at work"], scheduled(|facts| facts.why.workers = 0));
        check(
            &["future"],
            &["2026-09-21T15:13:20.000Z, in 1h 0m", "jobs edit 7 --now"],
            scheduled(|facts| facts.why.job.run_at = at(3600)),
        );
        check(
            &["retry"],
            &["transfer (timeout): connection reset", "attempt 3 of 8", "in 1m 30s"],
            scheduled(|facts| {
                facts.why.job.attempt = 2;
                facts.why.job.run_at = at(90);
                facts.why.job.failure = Some(failure("timeout"));
            }),
        );
        check(
            &["paused", "future", "queue_paused"],
            &["jobs resume 7"],
            scheduled(|facts| {
                facts.why.paused_at = Some(at(-1));
                facts.why.job.run_at = at(3600);
                facts.why.queue_paused_at = Some(at(-1));
            }),
        );
        check(&["paused"], &["paused it at"], scheduled(|facts| facts.why.paused_at = Some(at(-1))));
    }

    #[test]
    fn a_running_job() {
        let running = |change: fn(&mut Facts)| {
            move |facts: &mut Facts| {
                let job = &mut facts.why.job;
                (job.state, job.attempt, job.worker) = (State::Running, 1, Some("w-1".into()));
                (job.started_at, job.lease_until) = (Some(at(-60)), Some(at(20)));
                change(facts);
            }
        };
        check(&["running"], &["worker w-1", "(1m 0s)", "attempt 1 of 8", "jobs wait 7"], running(|_| {}));
        check(
            &["running"],
            &["1.00 KiB of 2.00 KiB, 1 of 3 blobs"],
            running(|facts| {
                facts.why.job.progress =
                    Some(Progress { bytes_done: 1024, bytes_total: 2048, blobs_done: 1, blobs_total: 3 });
            }),
        );
        check(&["cancelling"], &["asked to stop"], running(|facts| facts.why.job.cancel_requested_at = Some(at(-1))));
        check(
            &["lease_expired"],
            &["ran out 5.0s ago", "freightliner sweep"],
            running(|facts| facts.why.job.lease_until = Some(at(-5))),
        );
    }

    #[test]
    fn a_finished_job() {
        for (state, code) in
            [(State::Completed, "completed"), (State::Cancelled, "cancelled"), (State::Failed, "failed")]
        {
            check(&[code], &["14:13:19", "jobs retry 7"], |facts| {
                facts.why.job.state = state;
                facts.why.job.finished_at = Some(at(-1));
                facts.why.job.failure = Some(failure("denied"));
                // What holds a waiting job back is no matter any more.
                facts.why.queue_paused_at = Some(at(-60));
                facts.why.workers = 0;
            });
        }
        check(&["failed"], &["transfer (denied): connection reset"], |facts| {
            facts.why.job.state = State::Failed;
            facts.why.job.failure = Some(failure("denied"));
        });
    }

    #[test]
    fn all_reasons_are_told() {
        check(
            &["not_parsed", "queue_paused", "queue_limit", "registry_limit", "same_destination", "ahead", "no_place"],
            &[],
            |facts| {
                let why = &mut facts.why;
                (why.parsed, why.queue_paused_at, why.queue_max_running) = (false, Some(at(-1)), Some(1));
                (why.queue_running, why.registry_running, why.same_destination, why.ahead) = (1, 1, Some(1), 5);
                (facts.registry_max_running, facts.places_taken) = (Some(1), 8);
            },
        );
    }
}
