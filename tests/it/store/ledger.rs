//! What is remembered of destinations: whose turn it is, how far uploads have come, where blobs were seen.

use super::{Bench, numbered};
use freightliner::clock::UnixMillis;
use freightliner::job::{How, Report, Transfer};
use freightliner::store::{BlobPlace, BlobSeen, Claim, Outcome, UploadState, UploadTurn, Work};

const NOTHING: Work = Work { progress: None, bytes_moved: 0 };

fn blob(digest: &str) -> BlobPlace {
    BlobPlace { registry: "b.example".to_owned(), repository: "x".to_owned(), digest: digest.to_owned() }
}

fn state(committed: u64) -> UploadState {
    UploadState { location: vec![1, 0, 255], committed, midstate: vec![7; 9] }
}

/// Two attempts that run.
async fn two(bench: &Bench) -> (Claim, Claim) {
    bench.enqueue(numbered(1)).await;
    bench.enqueue(numbered(2)).await;
    (bench.claim_one().await, bench.claim_one().await)
}

#[tokio::test]
async fn one_attempt_has_the_turn_until_it_is_over() {
    let bench = Bench::new().await;
    let (one, other) = two(&bench).await;
    let take = |claim: &Claim| bench.store.upload_take(blob("sha256:1"), claim.fence());
    assert_eq!(take(&one).await.unwrap(), UploadTurn::Mine(None));
    assert_eq!(take(&other).await.unwrap(), UploadTurn::Busy);
    assert_eq!(take(&one).await.unwrap(), UploadTurn::Mine(None), "it may ask again");
    let elsewhere = BlobPlace { repository: "y".to_owned(), ..blob("sha256:1") };
    assert_eq!(bench.store.upload_take(elsewhere, other.fence()).await.unwrap(), UploadTurn::Mine(None));
    assert!(bench.store.upload_note(blob("sha256:1"), one.fence(), state(5)).await.unwrap());
    assert!(!bench.store.upload_note(blob("sha256:1"), other.fence(), state(6)).await.unwrap(), "not its turn");
    assert_eq!(take(&one).await.unwrap(), UploadTurn::Mine(Some(state(5))));
    // Another's turn is left alone.
    bench.store.upload_end(blob("sha256:1"), other.fence()).await.unwrap();
    assert_eq!(take(&other).await.unwrap(), UploadTurn::Busy);
    // Over without a word: what it had noted comes along.
    bench.complete(one).await;
    assert_eq!(take(&other).await.unwrap(), UploadTurn::Mine(Some(state(5))));
    bench.store.upload_end(blob("sha256:1"), other.fence()).await.unwrap();
    assert_eq!(take(&other).await.unwrap(), UploadTurn::Mine(None), "ended is forgotten");
}

#[tokio::test]
async fn an_attempt_that_is_over_gets_no_turn_and_notes_nothing() {
    let bench = Bench::new().await;
    let (one, other) = two(&bench).await;
    let late = one.fence();
    assert_eq!(bench.store.upload_take(blob("sha256:1"), late).await.unwrap(), UploadTurn::Mine(None));
    let lease = bench.store.leases().await.unwrap().into_iter().find(|lease| lease.job == late.job).unwrap();
    bench.store.reclaim(lease, 10, "it died".to_owned()).await.unwrap();
    assert!(!bench.store.upload_note(blob("sha256:1"), late, state(5)).await.unwrap());
    assert_eq!(bench.store.upload_take(blob("sha256:1"), late).await.unwrap(), UploadTurn::Busy);
    assert_eq!(bench.store.upload_take(blob("sha256:1"), other.fence()).await.unwrap(), UploadTurn::Mine(None));
}

#[tokio::test]
async fn blobs_are_seen_where_attempts_brought_them_until_they_are_lost() {
    let bench = Bench::new().await;
    let (one, other) = two(&bench).await;
    let transfer = |registry: &str, repository: &str, digest: &str| Transfer {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        digest: digest.to_owned(),
        bytes: 3,
        resumed: 0,
        how: How::Copied,
    };
    let done = Outcome::Completed(Report::default());
    let first = [transfer("b.example", "x", "sha256:1"), transfer("b.example", "x", "sha256:2")];
    bench.store.settle(one, &done, NOTHING, &first).await.unwrap();
    let second = [
        transfer("b.example", "y", "sha256:1"),
        transfer("b.example", "x", "sha256:1"),
        transfer("c.example", "x", "sha256:3"),
        transfer("oci", "/layout", "sha256:3"),
    ];
    bench.store.settle(other, &done, NOTHING, &second).await.unwrap();
    let digests: Vec<String> = ["sha256:1", "sha256:2", "sha256:3"].map(str::to_owned).to_vec();
    let seen = async |registry: &str, repository: &str| {
        let mut seen = bench.store.blobs_seen(registry, repository, &digests).await.unwrap();
        seen.sort_by(|one, other| one.digest.cmp(&other.digest));
        let short = |seen: BlobSeen| (seen.here, seen.elsewhere);
        seen.into_iter().map(short).collect::<Vec<_>>()
    };
    let at = |repository: &str| Some(repository.to_owned());
    assert_eq!(seen("b.example", "x").await, [(true, at("y")), (true, None), (false, None)]);
    assert_eq!(seen("b.example", "z").await[1], (false, at("x")));
    assert_eq!(seen("c.example", "x").await, [(false, None), (false, None), (true, None)]);
    assert_eq!(seen("oci", "/layout").await[2], (false, None), "a layout is looked at, not remembered");
    bench.store.blobs_lost("b.example", "x", &digests[..1]).await.unwrap();
    assert_eq!(seen("b.example", "x").await, [(false, at("y")), (true, None), (false, None)]);
}

#[tokio::test]
async fn what_is_old_is_forgotten_in_pieces() {
    let bench = Bench::new().await;
    let (one, other) = two(&bench).await;
    for digest in ["sha256:1", "sha256:2", "sha256:3"] {
        bench.store.upload_take(blob(digest), one.fence()).await.unwrap();
    }
    let transfers = ["sha256:1", "sha256:2"].map(|digest| Transfer {
        registry: "b.example".to_owned(),
        repository: "x".to_owned(),
        digest: digest.to_owned(),
        bytes: 3,
        resumed: 0,
        how: How::Mounted,
    });
    bench.store.settle(other, &Outcome::Completed(Report::default()), NOTHING, &transfers).await.unwrap();
    let (never, always) = (UnixMillis(0), UnixMillis(i64::MAX));
    assert_eq!(bench.store.ledger_trim(never, never, 10).await.unwrap(), 0);
    assert_eq!(bench.store.ledger_trim(always, never, 2).await.unwrap(), 2);
    assert_eq!(bench.store.ledger_trim(always, always, 2).await.unwrap(), 3);
    assert_eq!(bench.number("SELECT (SELECT COUNT(*) FROM uploads) + (SELECT COUNT(*) FROM blobs)").await, 0);
}

#[tokio::test]
async fn a_restored_database_knows_no_uploads() {
    let bench = Bench::new().await;
    let (one, _) = two(&bench).await;
    bench.store.upload_take(blob("sha256:1"), one.fence()).await.unwrap();
    bench.store.invalidate("tester").await.unwrap();
    assert_eq!(bench.number("SELECT COUNT(*) FROM uploads").await, 0);
}

#[tokio::test]
async fn what_a_registry_has_shown_is_remembered() {
    let bench = Bench::new().await;
    assert_eq!(bench.store.registry_profile("b.example").await.unwrap(), None);
    for profile in ["distribution", "distribution", "harbor"] {
        bench.store.registry_shown("b.example", profile).await.unwrap();
        assert_eq!(bench.store.registry_profile("b.example").await.unwrap().as_deref(), Some(profile));
    }
    assert_eq!(bench.store.registry_profile("c.example").await.unwrap(), None);
}
