//! Schedules in the store: each time is dealt with once, by whoever comes first.

use super::{Bench, copy};
use freightliner::clock::UnixMillis;
use freightliner::job::batch::{BatchKind, BatchState};
use freightliner::job::schedule::{Asked, Fate, Firing, Occurrence, ScheduleKind};
use freightliner::job::{Missed, NewSchedule, Overlap, Schedule, State};
use freightliner::schedule::Scheduler;
use freightliner::schedule::plan::plan;
use freightliner::store::ScheduleChange;
use std::time::Duration;

fn every_minute(name: &str) -> NewSchedule {
    NewSchedule {
        name: name.to_owned(),
        timing: "@every 1m".to_owned(),
        timezone: "UTC".to_owned(),
        jitter_ms: 0,
        missed: Missed::Once,
        overlap: Overlap::Skip,
        job: copy("a.example/app:1", &format!("b.example/app:{name}")).into(),
        paused: false,
    }
}

async fn add(bench: &Bench, schedule: NewSchedule) -> Schedule {
    let name = schedule.name.clone();
    let id = bench.store.schedule_add(schedule, "test").await.unwrap().expect("the name is free");
    let schedule = named(bench, &name).await;
    assert_eq!(schedule.id, id);
    schedule
}

async fn named(bench: &Bench, name: &str) -> Schedule {
    let found = bench.store.schedules(Some(name)).await.unwrap();
    assert_eq!(found.len(), 1, "{name}");
    found.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_time_of_a_tree_or_a_mirror_makes_one_batch() {
    let bench = Bench::new().await;
    let what = |kind, source: &str, destination: &str, options: &str| Asked {
        kind,
        source: source.to_owned(),
        destination: destination.to_owned(),
        options: options.to_owned(),
        queue: "slow".to_owned(),
        priority: 9,
        max_attempts: 3,
    };
    let tree = what(ScheduleKind::Tree, "a.example/x", "b.example/y", "{\"include_tags\":[\"v*\"]}");
    add(&bench, NewSchedule { job: tree, ..every_minute("tree") }).await;
    add(&bench, NewSchedule { job: what(ScheduleKind::Mirror, "nightly", "", "{}"), ..every_minute("mirror") }).await;
    let wrong = what(ScheduleKind::Tree, "nowhere", "b.example/y", "{}");
    add(&bench, NewSchedule { job: wrong, ..every_minute("wrong") }).await;
    let (mut one, mut other) = (scheduler(&bench), scheduler(&bench));
    fire_all(&mut one).await;
    assert!(named(&bench, "wrong").await.fault.unwrap().contains("names no registry"));
    bench.hand.advance(Duration::from_secs(61));
    assert_eq!(fire_all(&mut one).await + fire_all(&mut other).await, 2);
    let batches = bench.store.batches(None, None, 10).await.unwrap();
    assert_eq!(batches.len(), 2);
    for batch in &batches {
        let rules = bench.store.batch_rules(batch.id).await.unwrap();
        let job = bench.store.job(batch.expand_job.unwrap()).await.unwrap().unwrap();
        assert_eq!((job.queue.as_str(), job.priority, job.schedule_id), ("slow", 9, batch.schedule_id));
        match batch.kind {
            BatchKind::Mirror => assert_eq!((batch.name.as_deref(), rules), (Some("nightly"), None)),
            _ => assert!(rules.unwrap().contains("include"), "{batch:?}"),
        }
    }
    // The last run is not over.
    bench.hand.advance(Duration::from_secs(60));
    fire_all(&mut one).await;
    assert_eq!(bench.store.batches(None, None, 10).await.unwrap().len(), 2);
    // Its copies belong to the run: one that waits is no second run.
    let claims = bench.claim(5).await;
    for claim in claims {
        let id = batches.iter().find(|batch| batch.expand_job == Some(claim.job.id)).unwrap().id;
        let copy = copy("a.example/x:1", &format!("b.example/{id}:1"));
        bench.store.batch_take(claim.fence(), id, vec![copy], "test").await.unwrap().unwrap();
        bench.complete(claim).await;
    }
    bench.sql("UPDATE schedules SET overlap = 'queue'").await.unwrap();
    bench.hand.advance(Duration::from_secs(60));
    fire_all(&mut one).await;
    assert_eq!(
        bench.store.batches(None, None, 10).await.unwrap().len(),
        4,
        "one run waits beside the copies of the last"
    );
    bench.hand.advance(Duration::from_secs(60));
    fire_all(&mut one).await;
    assert_eq!(bench.store.batches(None, None, 10).await.unwrap().len(), 4);
    bench.sql("UPDATE schedules SET overlap = 'cancel'").await.unwrap();
    bench.hand.advance(Duration::from_secs(60));
    fire_all(&mut one).await;
    let batches = bench.store.batches(None, None, 10).await.unwrap();
    assert_eq!(batches.len(), 6);
    let cancelled = batches.iter().filter(|batch| batch.state == BatchState::Cancelled).count();
    assert_eq!(cancelled, 4, "{batches:#?}");
}

fn scheduler(bench: &Bench) -> Scheduler {
    Scheduler::new(bench.store.clone(), bench.clock.clone())
}

/// Looks until nothing is due; jobs made.
async fn fire_all(scheduler: &mut Scheduler) -> usize {
    let mut fired = 0;
    loop {
        let ticked = scheduler.tick().await.unwrap();
        fired += ticked.fired;
        if !ticked.more {
            return fired;
        }
    }
}

fn fates(occurrences: &[Occurrence]) -> Vec<Fate> {
    occurrences.iter().map(|occurrence| occurrence.fate).collect()
}

#[tokio::test]
async fn a_schedule_that_was_written_down_is_read_back_and_its_name_is_taken() {
    let bench = Bench::new().await;
    let wish = NewSchedule { missed: Missed::CatchUp(3), overlap: Overlap::Cancel, jitter_ms: 5, ..every_minute("x") };
    let schedule = add(&bench, wish).await;
    assert_eq!((schedule.missed.as_str(), schedule.overlap.as_str(), schedule.jitter_ms), ("catch-up=3", "cancel", 5));
    assert_eq!((schedule.timing.as_str(), schedule.timezone.as_str()), ("@every 1m", "UTC"));
    assert_eq!((schedule.source.as_str(), schedule.destination.as_str()), ("a.example/app:1", "b.example/app:x"));
    assert_eq!((schedule.base_at, schedule.next_at, schedule.paused_at), (bench.clock.now(), None, None));
    assert_eq!(bench.store.schedule_add(every_minute("x"), "test").await.unwrap(), None);
    add(&bench, every_minute("a")).await;
    let names: Vec<_> = bench.store.schedules(None).await.unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["a", "x"]);
    assert!(bench.store.schedules(Some("nobody")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_time_makes_one_job_and_the_next_one_is_waited_for() {
    let bench = Bench::new().await;
    let schedule = add(&bench, every_minute("x")).await;
    let mut scheduler = scheduler(&bench);
    assert_eq!(fire_all(&mut scheduler).await, 0, "not yet");
    let first = schedule.base_at.plus(Duration::from_secs(60));
    assert_eq!(named(&bench, "x").await.next_at, Some(first));
    let idle = scheduler.tick().await.unwrap();
    assert!(!idle.more && idle.idle_for > Duration::ZERO && idle.idle_for <= Duration::from_secs(1), "{idle:?}");
    bench.hand.advance(Duration::from_secs(60));
    assert_eq!(fire_all(&mut scheduler).await, 1);
    assert_eq!(fire_all(&mut scheduler).await, 0);
    let occurrences = bench.store.schedule_occurrences(schedule.id, 10).await.unwrap();
    assert_eq!((occurrences.len(), occurrences[0].at, occurrences[0].fate), (1, first, Fate::Fired));
    let job = bench.job(occurrences[0].job.unwrap()).await;
    assert_eq!((job.schedule_id, job.state), (Some(schedule.id), State::Pending));
    assert_eq!(job.destination, "b.example/app:x");
    assert_eq!(bench.store.events(job.id).await.unwrap()[0].actor, "scheduler");
    let after = named(&bench, "x").await;
    assert_eq!((after.last_at, after.next_at), (Some(first), Some(first.plus(Duration::from_secs(60)))));
    // It is a job like any other.
    bench.store.intake().await.unwrap();
    assert_eq!(bench.claim_one().await.fence().job, job.id);
}

#[tokio::test]
async fn two_that_saw_the_same_fire_it_once() {
    let bench = Bench::new().await;
    for name in ["x", "y", "z"] {
        add(&bench, every_minute(name)).await;
    }
    fire_all(&mut scheduler(&bench)).await;
    bench.hand.advance(Duration::from_secs(60));
    let due = bench.store.schedules_due(10).await.unwrap();
    assert_eq!(due.schedules.len(), 3);
    let firings: Vec<Firing> = due.schedules.iter().map(|schedule| plan(schedule, due.now)).collect();
    let (one, other) = tokio::join!(
        bench.store.schedules_fire(firings.clone(), "one"),
        bench.store.schedules_fire(firings.clone(), "other"),
    );
    assert_eq!(one.unwrap().len() + other.unwrap().len(), 3);
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 3);
    assert_eq!(bench.store.schedules_fire(firings, "late").await.unwrap(), []);
    assert_eq!(bench.number("SELECT COUNT(*) FROM schedule_occurrences").await, 3);
}

#[tokio::test]
async fn a_time_that_was_dealt_with_stays_so_when_the_clock_goes_back() {
    let bench = Bench::new().await;
    let schedule = add(&bench, every_minute("x")).await;
    let mut scheduler = scheduler(&bench);
    fire_all(&mut scheduler).await;
    // A clock that is ten days ahead, and is put right.
    bench.hand.jump_wall(10 * 86_400_000);
    assert_eq!(fire_all(&mut scheduler).await, 1);
    bench.hand.jump_wall(-10 * 86_400_000);
    assert_eq!(fire_all(&mut scheduler).await, 0);
    let next = named(&bench, "x").await.next_at.unwrap();
    assert!(next <= bench.clock.now().plus(Duration::from_secs(60)), "it waits for ten days");
    bench.store.intake().await.unwrap();
    bench.complete(bench.claim_one().await).await;
    bench.hand.advance(Duration::from_secs(60));
    assert_eq!(fire_all(&mut scheduler).await, 0, "the first time was told of already, as missed");
    bench.hand.advance(Duration::from_secs(60));
    assert_eq!(fire_all(&mut scheduler).await, 1);
    let occurrences = bench.store.schedule_occurrences(schedule.id, 10).await.unwrap();
    assert_eq!(occurrences.len(), 3, "{occurrences:?}");
}

#[tokio::test]
async fn what_the_last_run_stands_in_the_way_of() {
    for (overlap, second, third) in [
        (Overlap::Skip, vec![Fate::Overlapped], vec![Fate::Overlapped]),
        (Overlap::Queue, vec![Fate::Fired], vec![Fate::Overlapped]),
        (Overlap::Allow, vec![Fate::Fired], vec![Fate::Fired]),
        (Overlap::Cancel, vec![Fate::Fired], vec![Fate::Fired]),
    ] {
        let bench = Bench::new().await;
        let schedule = add(&bench, NewSchedule { overlap, ..every_minute("x") }).await;
        let mut scheduler = scheduler(&bench);
        let mut dealt = Vec::new();
        for _ in 0..3 {
            fire_all(&mut scheduler).await;
            bench.hand.advance(Duration::from_secs(60));
            fire_all(&mut scheduler).await;
            dealt.push(bench.store.schedule_occurrences(schedule.id, 1).await.unwrap());
            if dealt.len() == 1 {
                bench.store.intake().await.unwrap();
                // It runs, and goes on.
                drop(bench.claim_one().await);
            }
        }
        assert_eq!(fates(&dealt[0]), [Fate::Fired], "{overlap}");
        assert_eq!((fates(&dealt[1]), fates(&dealt[2])), (second, third), "{overlap}");
        let waiting = bench.number("SELECT COUNT(*) FROM jobs WHERE state = 'pending'").await;
        let asked =
            bench.number("SELECT COUNT(*) FROM jobs WHERE state = 'running' AND cancel_requested_at IS NOT NULL").await;
        let expected = match overlap {
            Overlap::Skip => (0, 0),
            Overlap::Queue => (1, 0),
            Overlap::Allow => (2, 0),
            Overlap::Cancel => (1, 1),
        };
        assert_eq!((waiting, asked), expected, "{overlap}");
        let job = dealt[0][0].job.unwrap();
        let none: Vec<i64> = Vec::new();
        assert_eq!(bench.store.schedule_older(schedule.id, job).await.unwrap(), none);
        assert!(bench.store.schedule_older(schedule.id, i64::MAX).await.unwrap().contains(&job));
    }
}

#[tokio::test]
async fn a_schedule_is_paused_resumed_and_removed_and_its_history_stays() {
    let bench = Bench::new().await;
    let schedule = add(&bench, every_minute("x")).await;
    let change = |change| bench.store.schedule_change("x", change, "test");
    let mut scheduler = scheduler(&bench);
    fire_all(&mut scheduler).await;
    assert_eq!(change(ScheduleChange::Pause).await.unwrap(), Some(true));
    assert_eq!(change(ScheduleChange::Pause).await.unwrap(), Some(false));
    bench.hand.advance(Duration::from_secs(3600));
    assert_eq!(fire_all(&mut scheduler).await, 0);
    // By hand all the same.
    let by_hand = Firing {
        batch: None,
        schedule: schedule.id,
        seen: None,
        next_at: None,
        fault: None,
        occurrences: vec![freightliner::job::schedule::Planned {
            at: bench.clock.now(),
            fate: Fate::Fired,
            run_at: bench.clock.now(),
            detail: None,
        }],
    };
    assert_eq!(fates(&bench.store.schedules_fire(vec![by_hand.clone()], "test").await.unwrap()), [Fate::Fired]);
    assert_eq!(bench.store.schedules_fire(vec![by_hand], "test").await.unwrap(), [], "the very same time");
    assert_eq!(change(ScheduleChange::Resume).await.unwrap(), Some(true));
    assert_eq!(change(ScheduleChange::Resume).await.unwrap(), Some(false));
    assert_eq!(fire_all(&mut scheduler).await, 0, "what it missed while it was paused is not made up for");
    assert_eq!(named(&bench, "x").await.next_at, Some(bench.clock.now().plus(Duration::from_secs(60))));
    assert_eq!(change(ScheduleChange::Remove).await.unwrap(), Some(true));
    assert_eq!(change(ScheduleChange::Remove).await.unwrap(), None);
    assert_eq!(change(ScheduleChange::Pause).await.unwrap(), None);
    bench.hand.advance(Duration::from_secs(3600));
    assert_eq!(fire_all(&mut scheduler).await, 0);
    assert_eq!(bench.number("SELECT COUNT(*) FROM audit_schedules WHERE name = 'x'").await, 1);
    assert_ne!(add(&bench, every_minute("x")).await.id, schedule.id, "its name is free again");
}

#[tokio::test]
async fn a_bare_insert_is_a_schedule_and_nonsense_is_marked_while_others_go_on() {
    let bench = Bench::new().await;
    for (name, timing, zone, source) in [
        ("good", "@every 1m", "UTC", "a.example/x:1"),
        ("timing", "whenever", "UTC", "a.example/x:1"),
        ("zone", "@hourly", "Mars/Olympus", "a.example/x:1"),
        ("source", "@hourly", "UTC", "A B"),
        ("over", "@once 2001-01-01T00:00:00Z", "UTC", "a.example/x:1"),
    ] {
        let insert = format!(
            "INSERT INTO schedules (name, timing, timezone, source, destination) \
             VALUES ('{name}', '{timing}', '{zone}', '{source}', 'b.example/x:{name}')"
        );
        bench.sql(&insert).await.unwrap();
    }
    let mut scheduler = scheduler(&bench);
    assert_eq!(fire_all(&mut scheduler).await, 1, "a time that is over is made up for once");
    assert!(named(&bench, "over").await.ended_at.is_some());
    for (name, part) in [("timing", "is no timing"), ("zone", "time zone"), ("source", "white space")] {
        let fault = named(&bench, name).await.fault.unwrap_or_default();
        assert!(fault.contains(part), "{name}: {fault}");
    }
    bench.hand.advance(Duration::from_secs(61));
    assert_eq!(fire_all(&mut scheduler).await, 1);
    // Mended by plain SQL.
    bench.sql("UPDATE schedules SET timing = '@every 2m' WHERE name = 'timing'").await.unwrap();
    bench.sql("UPDATE schedules SET source = 'a.example/x:2' WHERE name = 'source'").await.unwrap();
    fire_all(&mut scheduler).await;
    for name in ["timing", "source"] {
        let mended = named(&bench, name).await;
        assert_eq!((mended.fault, mended.next_at.is_some()), (None, true), "{name}");
    }
    assert_eq!(
        bench.store.schedule_change("zone", ScheduleChange::Resume, "test").await.unwrap(),
        Some(true),
        "a faulty one is looked at again when it is resumed"
    );
    fire_all(&mut scheduler).await;
    assert!(named(&bench, "zone").await.fault.is_some());
}

#[tokio::test]
async fn a_job_that_the_database_refuses_makes_its_schedule_faulty_and_no_other() {
    let bench = Bench::new().await;
    let taken = add(&bench, every_minute("taken")).await;
    add(&bench, every_minute("x")).await;
    let mut scheduler = scheduler(&bench);
    fire_all(&mut scheduler).await;
    // Somebody uses the key of the coming time.
    let key = format!("schedule:{}:{}", taken.id, taken.base_at.0 + 60_000);
    let insert = format!(
        "INSERT INTO jobs (source, destination, idempotency_key) VALUES ('a.example/x:1', 'b.example/y:1', '{key}')"
    );
    bench.sql(&insert).await.unwrap();
    bench.hand.advance(Duration::from_secs(60));
    assert_eq!(fire_all(&mut scheduler).await, 1);
    assert_eq!(named(&bench, "x").await.fault, None);
    let fault = named(&bench, "taken").await.fault.unwrap_or_default();
    assert!(fault.contains("its job cannot be made"), "{fault}");
}

#[tokio::test]
async fn history_is_never_changed_and_a_schedule_is_never_deleted() {
    let bench = Bench::new().await;
    add(&bench, every_minute("x")).await;
    fire_all(&mut scheduler(&bench)).await;
    bench.hand.advance(Duration::from_secs(60));
    fire_all(&mut scheduler(&bench)).await;
    for statement in [
        "DELETE FROM schedules",
        "DELETE FROM schedule_occurrences",
        "UPDATE schedule_occurrences SET outcome = 'missed'",
        "INSERT INTO schedule_occurrences SELECT * FROM schedule_occurrences",
        "INSERT INTO schedule_occurrences VALUES (99, 1, 'fired', NULL, 1, 'x', NULL)",
    ] {
        bench.sql(statement).await.expect_err(statement);
    }
    assert_eq!(bench.number("SELECT COUNT(*) FROM schedule_occurrences").await, 1);
}

#[tokio::test]
async fn many_that_are_due_at_once_are_all_fired() {
    let bench = Bench::new().await;
    for number in 0..1200 {
        add(&bench, every_minute(&format!("s{number}"))).await;
    }
    let mut scheduler = scheduler(&bench);
    fire_all(&mut scheduler).await;
    bench.hand.advance(Duration::from_secs(60));
    assert_eq!(fire_all(&mut scheduler).await, 1200);
    assert_eq!(bench.number("SELECT COUNT(DISTINCT schedule_id) FROM jobs").await, 1200);
    let at = bench.store.schedules_due(5).await.unwrap();
    assert!(at.schedules.is_empty() && at.next_at > Some(UnixMillis(0)));
}
