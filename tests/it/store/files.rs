//! The database as a file: foreign files, newer schemas, locks held by others, commits of others.

use super::{Bench, numbered};
use crate::support::database::Database;
use freightliner::clock::Clock;
use freightliner::store::{Error, Store};
use sqlx::{ConnectOptions, Executor};
use std::time::Duration;

async fn open(database: &Database) -> Result<Store, Error> {
    Store::open(&database.url().parse().unwrap(), Clock::System).await
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_untouched() {
    let bench = Bench::new().await;
    bench
        .sql("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (999, 'future', '', 0)")
        .await
        .unwrap();
    let Err(Error::Unusable(message)) = open(&bench.database).await else { panic!("it was opened") };
    assert!(message.contains("999") && message.contains("newer") && message.contains("upgrade"), "{message}");
}

#[tokio::test]
async fn another_programs_file_is_refused() {
    let database = Database::sqlite();
    let mut other = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(database.file())
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    other.execute("CREATE TABLE recipes (name TEXT)").await.unwrap();
    let Err(Error::Unusable(message)) = open(&database).await else { panic!("it was opened") };
    assert!(message.contains("another program"), "{message}");
    std::fs::write(database.file(), "this is no database at all, only some text that is long enough").unwrap();
    let Err(Error::Unusable(message)) = open(&database).await else { panic!("it was opened") };
    assert!(message.contains("not an SQLite database"), "{message}");
}

#[tokio::test]
async fn the_folder_is_made_private_and_two_may_migrate_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/er/x.db");
    let url = format!("sqlite:{}", file.display()).parse().unwrap();
    let (first, second) = tokio::join!(Store::open(&url, Clock::System), Store::open(&url, Clock::System));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(std::fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    first.enqueue(vec![numbered(1)], "test").await.unwrap();
    assert_eq!(second.stats().await.unwrap().pending, 1);
}

#[tokio::test]
async fn a_lock_held_by_somebody_else_is_waited_for() {
    let bench = Bench::new().await;
    let mut other = bench.foreign().await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let enqueue = bench.store.enqueue(vec![numbered(1)], "test");
    tokio::pin!(enqueue);
    // It waits as long as the lock is held.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut enqueue).await.is_err());
    // Readers do not.
    assert_eq!(bench.store.stats().await.unwrap().pending, 0);
    other.execute("COMMIT").await.unwrap();
    assert!(enqueue.await.unwrap()[0].created);
}

#[tokio::test]
async fn commits_of_others_are_noticed() {
    let bench = Bench::new().await;
    bench.store.changed(Duration::from_secs(60)).await.unwrap();
    let changed = bench.store.changed(Duration::from_secs(60));
    let insert = bench.sql("INSERT INTO jobs (source, destination) VALUES ('a', 'b')");
    // Ends long before the minute, or the test runs into its own limit.
    let (changed, inserted) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(changed, insert) })
        .await
        .expect("the commit is noticed");
    changed.unwrap();
    assert_eq!(inserted.unwrap(), 1);
    assert!(bench.store.waiting().await.unwrap().intake);
}

#[tokio::test]
async fn each_clone_is_told_of_every_commit() {
    let bench = Bench::new().await;
    let clones = [bench.store.clone(), bench.store.clone()];
    for store in &clones {
        store.changed(Duration::from_secs(60)).await.unwrap();
    }
    for number in 1..=3 {
        // One of our own, and one of somebody else.
        bench.enqueue(numbered(number)).await;
        bench.sql("INSERT INTO jobs (source, destination) VALUES ('a', 'b')").await.unwrap();
        for store in &clones {
            tokio::time::timeout(Duration::from_secs(20), store.changed(Duration::from_secs(60)))
                .await
                .expect("it is told, though another one was told before")
                .unwrap();
        }
    }
}

#[tokio::test]
async fn check_finds_what_does_not_fit() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    assert!(bench.store.check().await.unwrap().is_empty());
    // Whoever owns the file can drop a trigger: then the check still says so.
    bench.sql("DROP TRIGGER jobs_transition").await.unwrap();
    bench.sql("UPDATE jobs SET state = 'cancelled' WHERE id = 1").await.unwrap();
    let findings = bench.store.check().await.unwrap();
    assert_eq!(findings.len(), 1);
    assert!(findings[0].message.contains("job 1 is cancelled, its last event says pending"), "{findings:?}");
    let info = bench.store.info().await.unwrap();
    assert_eq!((info.jobs, info.schema_version, info.engine.as_str()), (1, info.newest_known_schema, "sqlite"));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_closing() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    let Bench { store, database, .. } = bench;
    store.close().await;
    let again = open(&database).await.unwrap();
    assert_eq!(again.stats().await.unwrap().pending, 1);
}

#[tokio::test]
async fn a_database_that_stays_locked_is_an_error_and_nothing_of_what_was_asked_is_stored() {
    use freightliner::job::{Report, State};
    use freightliner::store::{Outcome, Retention, Settled, Work};
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    bench.enqueue(numbered(2)).await;
    let mut other = bench.foreign().await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let (store, done) = (&bench.store, Outcome::Completed(Report::default()));
    let all = async {
        tokio::join!(
            store.enqueue(vec![numbered(3)], "test"),
            store.claim(freightliner::store::ClaimRequest {
                worker: bench.worker,
                room: 1,
                queue: None,
                only: None,
                lease_ttl: super::TTL,
                registry_limits: std::sync::Arc::default(),
            }),
            store.settle(claim, &done, Work::default(), &[]),
            store.prune(
                Retention { keys_before: Some(super::later(&bench.clock, 99)), ..Retention::default() },
                10,
                "test"
            ),
            store.invalidate("test"),
        )
    };
    // The store's own patience ends by the manual clock, which therefore runs fast.
    let hurry = async {
        loop {
            bench.hand.advance(Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (enqueued, claimed, settled, pruned, restored) = tokio::select! {
        all = all => all,
        () = hurry => unreachable!("it goes on for ever"),
    };
    let unsettled = settled.unwrap_err();
    for (what, error) in [
        ("enqueue", enqueued.unwrap_err()),
        ("claim", claimed.unwrap_err()),
        ("settle", unsettled.error),
        ("prune", pruned.unwrap_err()),
        ("invalidate", restored.unwrap_err()),
    ] {
        assert!(matches!(error, Error::Backend { .. }) && error.is_transient(), "{what}: {error:?}");
    }
    other.execute("COMMIT").await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.pending, stats.running), (1, 1), "as it was");
    let settled = store.settle(unsettled.claim, &done, Work::default(), &[]).await.unwrap();
    assert_eq!(settled, Settled::Now(State::Completed), "the claim was given back and is still good");
}
