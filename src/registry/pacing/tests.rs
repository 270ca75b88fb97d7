use super::*;
use crate::clock::UnixMillis;
use crate::registry::profile;
use std::pin::pin;

#[test]
fn kinds_follow_from_method_and_path() {
    for (method, path, kind) in [
        (Method::HEAD, "/v2/a/b/manifests/1.2", Kind::ManifestRead),
        (Method::GET, "/v2/manifests/manifests/sha256:ab", Kind::ManifestRead),
        (Method::GET, "/v2/a/referrers/sha256:ab?artifactType=x/y", Kind::ManifestRead),
        (Method::PUT, "/v2/a/manifests/1.2", Kind::ManifestWrite),
        (Method::DELETE, "/v2/a/manifests/1.2", Kind::ManifestWrite),
        (Method::GET, "/v2/uploads/blobs/sha256:ab", Kind::BlobRead),
        (Method::POST, "/v2/a/blobs/uploads/", Kind::Upload),
        (Method::POST, "/v2/a/blobs/uploads/?mount=sha256:ab&from=x/blobs/y", Kind::Upload),
        (Method::GET, "/v2/a/tags/list?n=100", Kind::List),
        (Method::GET, "/v2/_catalog", Kind::List),
    ] {
        assert_eq!(Kind::of(&method, path), kind, "{method} {path}");
    }
    for (index, kind) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, index);
    }
}

/// Polls once.
async fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

struct Road {
    pacing: Pacing,
    clock: Clock,
    hand: Arc<crate::clock::ManualClock>,
    profile: Arc<Profile>,
}

impl Road {
    fn new(profile: &str) -> Self {
        let (clock, hand) = Clock::manual(UnixMillis(1_795_413_600_000));
        Self { pacing: Pacing::default(), clock, hand, profile: Arc::new(profile::named(profile).unwrap()) }
    }

    async fn enter(&self, kind: Kind) -> Result<Pass, Error> {
        self.pacing.enter(&self.clock, "r", kind, true, self.profile.clone()).await
    }

    async fn answer(&self, pass: Pass, status: u16, after: Option<u64>, headers: &HeaderMap) {
        pass.answered(&self.clock, StatusCode::from_u16(status).unwrap(), after.map(Duration::from_secs), headers);
    }
}

#[tokio::test]
async fn a_complaint_about_one_kind_holds_no_other() {
    let road = Road::new("generic");
    let mut passes = Vec::new();
    for _ in 0..4 {
        passes.push(road.enter(Kind::BlobRead).await.unwrap());
    }
    for pass in passes.drain(..) {
        road.answer(pass, 429, None, &HeaderMap::new()).await;
    }
    let first = road.enter(Kind::BlobRead).await.unwrap();
    let second = road.enter(Kind::BlobRead).await.unwrap();
    assert!(ready(road.enter(Kind::BlobRead)).await.is_none(), "half of four");
    assert!(ready(road.enter(Kind::ManifestRead)).await.is_some(), "small requests do not wait behind blobs");
    let mut third = pin!(road.enter(Kind::BlobRead));
    assert!(ready(third.as_mut()).await.is_none());
    drop(first);
    assert!(ready(third.as_mut()).await.unwrap().is_ok(), "a place is free");
    drop(second);
}

#[tokio::test]
async fn a_long_pause_fails_at_once_with_the_time_to_come_back() {
    let road = Road::new("generic");
    let pass = road.enter(Kind::ManifestWrite).await.unwrap();
    road.answer(pass, 503, Some(60), &HeaderMap::new()).await;
    road.hand.advance(Duration::from_secs(10));
    let error = road.enter(Kind::ManifestWrite).await.err().unwrap();
    assert_eq!(error.class(), Class::Retry { after: Some(Duration::from_secs(50)) });
    assert!(error.is_exhausted() && error.to_string().contains("manifest_write"), "{error}");
    road.hand.advance(Duration::from_secs(50));
    assert!(ready(road.enter(Kind::ManifestWrite)).await.unwrap().is_ok());
}

#[test]
fn ceilings_are_those_of_the_profile_and_the_kind() {
    let ecr = Arc::new(profile::named("ecr").unwrap());
    let mut ceilings = Ceilings::default();
    let now = BootTime(Duration::from_secs(1_000));
    let waits: Vec<_> = (0..10).map(|_| ceilings.take(&ecr, Kind::ManifestWrite, now)).collect();
    assert_eq!((waits[0], waits[1], waits[2]), (Duration::ZERO, Duration::ZERO, Duration::from_millis(125)));
    assert_eq!(waits[9], Duration::from_secs(1), "the ninth and tenth of a burst of two wait a second");
    assert_eq!(ceilings.take(&ecr, Kind::ManifestRead, now), Duration::ZERO, "no ceiling");
    // Another profile, as when a registry has been recognised; all kinds share this one.
    let ghcr = Arc::new(profile::named("ghcr").unwrap());
    for count in 0..400 {
        let kind = Kind::ALL[count % Kind::ALL.len()];
        assert_eq!(ceilings.take(&ghcr, kind, now), Duration::ZERO, "{count}");
    }
    assert!(ceilings.take(&ghcr, Kind::List, now) > Duration::ZERO);
}

#[tokio::test]
async fn a_short_pause_is_waited_for() {
    let profile = Arc::new(profile::generic());
    let pacing = Pacing::default();
    let enter = || pacing.enter(&Clock::System, "r", Kind::List, true, profile.clone());
    let begun = Clock::System.boot();
    let pass = enter().await.unwrap();
    pass.answered(&Clock::System, StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_millis(60)), &HeaderMap::new());
    // Only that it is let in counts.
    drop(enter().await.unwrap());
    assert!(Clock::System.boot().since(begun) >= Duration::from_millis(60));
}

#[tokio::test]
async fn what_is_left_is_spared_for_whom_it_counts() {
    let little = headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "3;w=21600")]);
    let hub = Road::new("docker-hub");
    let pass = hub.enter(Kind::BlobRead).await.unwrap();
    hub.answer(pass, 200, None, &little).await;
    assert!(hub.enter(Kind::BlobRead).await.is_ok(), "only manifests are counted");
    assert!(hub.enter(Kind::ManifestRead).await.is_err());
    let head = hub.pacing.enter(&hub.clock, "r", Kind::ManifestRead, false, hub.profile.clone()).await;
    assert!(head.is_ok(), "HEAD is free");
    let enough = headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "50;w=21600")]);
    hub.answer(head.unwrap(), 200, None, &enough).await;
    assert!(hub.enter(Kind::ManifestRead).await.is_ok(), "the newest answer knows best");

    let github = Road::new("ghcr");
    let reset = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "3600")]);
    let pass = github.enter(Kind::List).await.unwrap();
    github.answer(pass, 200, None, &reset).await;
    assert!(github.enter(Kind::Upload).await.is_err(), "all are counted together");
}

#[tokio::test]
async fn a_request_to_a_registry_that_never_complains_costs_next_to_nothing() {
    const ROUNDS: u32 = 20_000;
    let profile = Arc::new(profile::generic());
    let pacing = Pacing::default();
    let begun = Clock::System.boot();
    for _ in 0..ROUNDS {
        let pass = pacing.enter(&Clock::System, "localhost:5000", Kind::BlobRead, true, profile.clone()).await.unwrap();
        pass.answered(&Clock::System, StatusCode::OK, None, &HeaderMap::new());
    }
    let each = Clock::System.boot().since(begun) / ROUNDS;
    // A microsecond; a hundred times that is nothing beside a request.
    assert!(each < Duration::from_micros(100), "{each:?}");
}
