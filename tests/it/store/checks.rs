//! `check` finds what contradicts the history: whoever owns the database can take its rules away and write anything.

use super::{Bench, numbered};
use freightliner::job::NewJob;

/// Takes the rules of a table away.
async fn unguard(bench: &Bench, table: &str) {
    if bench.database.url().starts_with("postgres") {
        bench.sql(&format!("ALTER TABLE {table} DISABLE TRIGGER USER")).await.unwrap();
        return;
    }
    use sqlx::Row;
    let mut foreign = bench.foreign().await;
    let triggers = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?1").bind(table);
    for row in triggers.fetch_all(&mut foreign).await.unwrap() {
        bench.sql(&format!("DROP TRIGGER {}", row.get::<String, _>(0))).await.unwrap();
    }
}

/// Job 1 completed, job 2 running, job 3 pending.
async fn bench() -> Bench {
    let bench = Bench::new().await;
    for number in 1..=3 {
        bench.enqueue(NewJob { priority: 100 + i64::try_from(number).unwrap(), ..numbered(number) }).await;
    }
    let mut claims = bench.claim(2).await;
    bench.complete(claims.remove(0)).await;
    assert_eq!(claims.remove(0).job.id, 2);
    bench
}

async fn findings(bench: &Bench) -> Vec<(String, String)> {
    let findings = bench.store.check().await.unwrap();
    findings.into_iter().map(|finding| (finding.check, finding.message)).collect()
}

#[tokio::test]
async fn a_row_that_its_history_does_not_explain_is_found() {
    for (statement, check, words) in [
        ("UPDATE jobs SET state = 'failed' WHERE id = 1", "history", "job 1 is failed, its last event says completed"),
        ("UPDATE jobs SET generation = 2 WHERE id = 1", "generations", "generation is 2, its events say 1"),
        ("UPDATE jobs SET attempt = 7 WHERE id = 1", "attempts", "attempt is 7, its events say 1"),
        ("UPDATE jobs SET lease_epoch = 0 WHERE id = 2", "epochs", "lease_epoch is 0, its events say 1"),
        ("UPDATE jobs SET worker = 'x' WHERE id = 2", "workers", "worker is x, its events say"),
    ] {
        let bench = bench().await;
        assert_eq!(findings(&bench).await, []);
        unguard(&bench, "jobs").await;
        bench.sql(statement).await.unwrap();
        let found = findings(&bench).await;
        assert_eq!(found.len(), 1, "{statement}: {found:?}");
        assert!(found[0].0 == check && found[0].1.contains(words), "{statement}: {found:?}");
    }
}

#[tokio::test]
async fn a_history_that_contradicts_itself_is_found() {
    for (statement, check) in [
        ("UPDATE job_events SET to_state = 'failed' WHERE job_id = 1 AND to_state = 'completed'", "history"),
        ("UPDATE job_events SET from_state = 'scheduled' WHERE job_id = 1 AND to_state = 'running'", "chain"),
        ("UPDATE job_events SET to_state = 'nonsense' WHERE job_id = 1 AND to_state = 'running'", "chain"),
        ("UPDATE job_events SET lease_epoch = 0 WHERE job_id = 1 AND to_state = 'completed'", "epochs"),
        ("UPDATE job_events SET worker = 'x' WHERE job_id = 1 AND to_state = 'completed'", "workers"),
        ("DELETE FROM job_events WHERE job_id = 1 AND to_state = 'running'", "chain"),
        ("DELETE FROM job_events WHERE job_id = 3", "history"),
        (
            "INSERT INTO job_events (job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor) \
             SELECT job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor FROM job_events \
             WHERE job_id = 1 AND to_state = 'completed'",
            "chain",
        ),
        (
            "INSERT INTO job_events (job_id, at, from_state, to_state, generation, lease_epoch, attempt, actor, detail) \
             VALUES (3, 1, 'pending', 'cancelled', 1, 0, 0, 'x', 'no JSON')",
            "history",
        ),
        ("UPDATE job_events SET detail = 'no JSON' WHERE job_id = 1 AND to_state = 'completed'", "rows"),
        ("UPDATE job_events SET detail = '[1]' WHERE job_id = 1 AND to_state = 'completed'", "rows"),
        (
            "UPDATE job_events SET detail = '{\"attempt_after\": \"x\"}' WHERE job_id = 1 AND to_state = 'completed'",
            "rows",
        ),
        (
            "UPDATE job_events SET detail = '{\"attempt_after\": 1e99}' WHERE job_id = 1 AND to_state = 'completed'",
            "rows",
        ),
        (
            "UPDATE job_events SET detail = '{\"attempt_after\": 7}' WHERE job_id = 1 AND to_state = 'completed'",
            "attempts",
        ),
    ] {
        let bench = bench().await;
        unguard(&bench, "job_events").await;
        if bench.database.is_postgres() {
            // A rule of the table, not of a trigger.
            bench.sql("ALTER TABLE job_events DROP CONSTRAINT job_events_detail_is_json").await.unwrap();
        }
        assert_eq!(bench.sql(statement).await.unwrap(), 1, "{statement}");
        let found = findings(&bench).await;
        assert_eq!(found.len(), 1, "{statement}: {found:?}");
        assert_eq!(found[0].0, check, "{statement}: {found:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_found_and_hides_nothing_else() {
    let bench = bench().await;
    unguard(&bench, "job_events").await;
    unguard(&bench, "jobs").await;
    if bench.database.is_postgres() {
        bench.sql("ALTER TABLE job_events DROP CONSTRAINT job_events_detail_is_json").await.unwrap();
    }
    let hostile = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    bench.sql(&format!("UPDATE job_events SET detail = '{hostile}' WHERE job_id = 1")).await.unwrap();
    bench.sql("UPDATE jobs SET worker = 'x' WHERE id = 2").await.unwrap();
    let found = findings(&bench).await;
    let checks: Vec<&str> = found.iter().map(|(check, _)| check.as_str()).collect();
    assert_eq!(checks, ["rows", "workers"], "{found:?}");
    assert!(found[0].1.contains("of job 1") && found[0].1.contains("detail"), "{found:?}");
}

#[tokio::test]
async fn two_running_jobs_for_one_target_are_found() {
    let bench = bench().await;
    unguard(&bench, "jobs").await;
    bench.sql("DROP INDEX jobs_running_target").await.unwrap();
    bench.sql("UPDATE jobs SET dest_key = (SELECT dest_key FROM jobs WHERE id = 2) WHERE id = 3").await.unwrap();
    bench
        .sql("UPDATE jobs SET state = 'running', worker = 'x', lease_until = 1, attempt = 1, lease_epoch = 1 WHERE id = 3")
        .await
        .unwrap();
    let found = findings(&bench).await;
    let checks: Vec<&str> = found.iter().map(|(check, _)| check.as_str()).collect();
    assert_eq!(checks, ["targets", "history"], "{found:?}");
    assert!(found[0].1.contains("2 running jobs write b.example/app:2"), "{found:?}");
}

#[tokio::test]
async fn many_jobs_are_checked_page_by_page_while_others_work() {
    let bench = bench().await;
    let jobs = (10..1700).map(numbered).collect();
    bench.store.enqueue(jobs, "test").await.unwrap();
    let store = bench.store.clone();
    let work = async {
        for _ in 0..20 {
            for claim in bench.claim(20).await {
                bench.complete(claim).await;
            }
        }
    };
    let (found, ()) = tokio::join!(store.check(), work);
    assert!(found.unwrap().is_empty(), "a job that changes meanwhile is no finding");
    unguard(&bench, "jobs").await;
    bench.sql("UPDATE jobs SET lease_epoch = 99 WHERE id >= 1600").await.unwrap();
    let found = findings(&bench).await;
    assert!(found.len() >= 50 && found.iter().all(|(check, _)| check == "epochs"), "{}", found.len());
}
