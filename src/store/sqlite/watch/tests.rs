use super::*;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

/// Ends long before `FOREVER`; a test that runs into it has found something.
const SOON: Duration = Duration::from_secs(20);
/// The wait of those who must not be woken by it.
const FOREVER: Duration = Duration::from_secs(600);
/// How long it is waited for something that must not happen. Too short a time only hides a fault, it never makes one.
const A_WHILE: Duration = Duration::from_millis(300);

/// A database of somebody else, and a watch on it.
struct Scene {
    folder: tempfile::TempDir,
    other: SqliteConnection,
    watch: Watch,
}

impl Scene {
    async fn new() -> Self {
        Self::with(Watch::new).await
    }

    async fn with(watch: impl FnOnce(&Path) -> Watch) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        let mut other = open(&file).await;
        sqlx::query("CREATE TABLE t (x INTEGER)").execute(&mut other).await.unwrap();
        let watch = watch(&file);
        Self { folder, other, watch }
    }

    /// Somebody else commits.
    async fn commit(&mut self) {
        sqlx::query("INSERT INTO t VALUES (1)").execute(&mut self.other).await.unwrap();
    }

    /// Has been told of all there was.
    async fn subscriber(&self) -> Cursor {
        let cursor = Cursor::default();
        self.told(&cursor).await;
        while tokio::time::timeout(A_WHILE, self.watch.changed(&cursor, FOREVER)).await.is_ok() {}
        cursor
    }

    /// Is told of a commit.
    async fn told(&self, cursor: &Cursor) {
        let told = tokio::time::timeout(SOON, self.watch.changed(cursor, FOREVER)).await;
        told.expect("the commit is noticed").unwrap();
    }

    /// Is not told of anything.
    async fn left_alone(&self, cursor: &Cursor) {
        let told = tokio::time::timeout(A_WHILE, self.watch.changed(cursor, FOREVER)).await;
        assert!(told.is_err(), "nothing was committed");
    }
}

async fn open(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal).connect().await.unwrap()
}

#[tokio::test]
async fn the_first_call_returns_at_once_and_the_next_one_for_a_commit() {
    let mut scene = Scene::new().await;
    let cursor = Cursor::default();
    scene.told(&cursor).await;
    scene.left_alone(&cursor).await;
    scene.commit().await;
    scene.told(&cursor).await;
    scene.left_alone(&cursor).await;
}

#[tokio::test]
async fn it_returns_after_at_most_the_time_that_was_given() {
    let scene = Scene::new().await;
    let cursor = scene.subscriber().await;
    let limited = scene.watch.changed(&cursor, Duration::from_millis(1));
    tokio::time::timeout(SOON, limited).await.expect("it ends by itself").unwrap();
}

#[tokio::test]
async fn all_who_wait_are_told_of_one_commit() {
    let mut scene = Scene::new().await;
    let (first, second) = (scene.subscriber().await, scene.subscriber().await);
    let Scene { watch, other, .. } = &mut scene;
    let commit = async {
        // Both wait by now: join! polls them first.
        sqlx::query("INSERT INTO t VALUES (1)").execute(other).await
    };
    let both = async {
        tokio::join!(
            watch.changed(&first, FOREVER),
            watch.changed(&second, FOREVER),
            // With a cursor in common, too.
            watch.changed(&second, FOREVER),
            commit
        )
    };
    let (first, second, third, committed) = tokio::time::timeout(SOON, both).await.expect("all are told");
    first.and(second).and(third).unwrap();
    committed.unwrap();
}

#[tokio::test]
async fn who_was_away_is_told_of_what_another_one_noticed() {
    let mut scene = Scene::new().await;
    let (away, waiting) = (scene.subscriber().await, scene.subscriber().await);
    scene.commit().await;
    scene.told(&waiting).await;
    scene.left_alone(&waiting).await;
    scene.told(&away).await;
    scene.left_alone(&away).await;
}

#[tokio::test]
async fn without_notification_the_poll_notices() {
    let mut scene = Scene::with(Watch::deaf).await;
    let cursor = scene.subscriber().await;
    for _ in 0..5 {
        scene.commit().await;
        scene.told(&cursor).await;
    }
    scene.left_alone(&cursor).await;
}

#[tokio::test]
async fn a_commit_of_our_own_is_known_without_a_look() {
    let scene = Scene::with(Watch::deaf).await;
    let cursor = scene.subscriber().await;
    // Nobody has committed anything: a look would see nothing.
    scene.watch.committed();
    scene.told(&cursor).await;
}

#[tokio::test]
async fn while_nobody_waits_nobody_looks_and_nothing_is_missed() {
    let mut scene = Scene::new().await;
    let cursor = scene.subscriber().await;
    for _ in 0..5 {
        let parked = scene.watch.looker.lock().unwrap().as_ref().map(|looker| looker.parked.clone()).unwrap();
        while !parked.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let noticed = scene.watch.notices.borrow().commits;
        scene.commit().await;
        assert_eq!(scene.watch.notices.borrow().commits, noticed);
        scene.told(&cursor).await;
    }
    scene.left_alone(&cursor).await;
}

#[tokio::test]
async fn a_wait_that_is_dropped_loses_nothing() {
    let mut scene = Scene::new().await;
    let cursor = scene.subscriber().await;
    for _ in 0..50 {
        scene.commit().await;
        // Dropped in all stages of a look.
        for polls in 0..5 {
            let mut wait = std::pin::pin!(scene.watch.changed(&cursor, FOREVER));
            for _ in 0..polls {
                let polled = std::future::poll_fn(|context| std::task::Poll::Ready(wait.as_mut().poll(context))).await;
                if polled.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
    scene.commit().await;
    scene.told(&cursor).await;
}

#[tokio::test]
async fn a_log_that_was_emptied_or_made_anew_is_watched_on() {
    let mut scene = Scene::new().await;
    let cursor = scene.subscriber().await;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut scene.other).await.unwrap();
    scene.commit().await;
    scene.told(&cursor).await;
    // With its last connection the log goes.
    let log = scene.folder.path().join("x.db-wal");
    scene.watch.close().await;
    scene.other.close().await.unwrap();
    assert!(!log.exists());
    scene.other = open(&scene.folder.path().join("x.db")).await;
    let cursor = {
        let Scene { watch, .. } = &scene;
        while tokio::time::timeout(A_WHILE, watch.changed(&cursor, FOREVER)).await.is_ok() {}
        cursor
    };
    sqlx::query("INSERT INTO t VALUES (1)").execute(&mut scene.other).await.unwrap();
    assert!(log.exists());
    let told = tokio::time::timeout(SOON, scene.watch.changed(&cursor, FOREVER)).await;
    told.expect("the commit is noticed").unwrap();
}

/// Writes to the file and waits until that was heard.
fn heard(events: &mut Events, file: &Path) {
    std::fs::write(file, "x").unwrap();
    let silent = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    assert!(events.wait(silent.as_fd(), SOON), "the write is heard");
    events.take();
}

#[test]
fn writes_to_the_file_that_has_the_name_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let (log, aside) = (folder.path().join("x.db-wal"), folder.path().join("aside"));
    let mut events = Events::new(log.clone());
    events.renew();
    assert!(!events.take(), "there is no file yet");
    std::fs::write(&log, "").unwrap();
    events.renew();
    heard(&mut events, &log);
    events.renew();
    heard(&mut events, &log);
    // Taken away while somebody has it open, and another one in its place.
    std::fs::rename(&log, &aside).unwrap();
    std::fs::write(&log, "").unwrap();
    events.renew();
    events.take();
    std::fs::write(&aside, "x").unwrap();
    assert!(!events.take(), "the old file is none of our business");
    heard(&mut events, &log);
    // Removed and made anew.
    std::fs::remove_file(&log).unwrap();
    events.renew();
    events.take();
    std::fs::write(&log, "").unwrap();
    events.renew();
    heard(&mut events, &log);
}
