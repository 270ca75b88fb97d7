//! Parts of a large blob that are fetched side by side, because its source gives each connection only little.

use super::{assert_whole, binary, replicated, reported};
use crate::support::binary::Binary;
use crate::support::content::Content;
use crate::support::fake::{Fake, Fault, LoggedRequest, Matcher, Options, Ranges};
use crate::support::image::{Image, ImageBuilder, media};
use crate::support::{PATIENCE, within};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;
const LAYER: u64 = 40 * MIB + 77;
/// Parts at a time, as it is set by default.
const AT_ONCE: usize = 4;
/// How long it is watched that nothing more comes.
const STILL: Duration = Duration::from_millis(500);

struct Scene {
    source: Fake,
    destination: Fake,
    image: Image,
    binary: Binary,
}

/// The program, for which a blob of 1 MiB is large.
fn reader() -> Binary {
    binary().env("FREIGHTLINER_COPY_RANGES_FROM_BYTES", MIB.to_string())
}

/// About 25 MiB a second.
fn slow() -> Fault {
    Fault::SlowBody { chunk: 256 * 1024, delay: Duration::from_millis(10) }
}

impl Scene {
    fn of(ranges: Ranges, layer: u64) -> Self {
        let source = Fake::start_with(Options { ranges, ..Options::default() });
        let image = ImageBuilder::oci(1).raw_layer(media::OCI_LAYER, Content::seeded(9, layer)).build();
        source.put_image("a", "v1", &image);
        Self { source, destination: Fake::start(), image, binary: reader() }
    }

    /// The first stream of the layer is slow.
    fn slow(ranges: Ranges) -> Self {
        let scene = Self::of(ranges, LAYER);
        scene.source.fault(Matcher::new("GET", scene.layer()), slow());
        scene
    }

    fn layer(&self) -> &str {
        &self.image.layers()[0].digest
    }

    fn ends(&self) -> (String, String) {
        (self.source.reference("a", "v1"), self.destination.reference("b", "v1"))
    }

    /// The copy succeeds in its first attempt, and everything arrives once.
    fn copies(&self) {
        let (from, to) = self.ends();
        let job = replicated(&self.binary, &from, &to, &[]);
        assert_whole(&self.destination, "b", "v1", &self.image);
        let bytes: u64 = self.image.all_blobs().iter().map(|blob| blob.content.len()).sum();
        assert_eq!((job["attempt"].as_u64(), reported(&job, "bytes_copied")), (Some(1), bytes), "{job:#}");
        assert_eq!(job["progress"]["bytes_done"], bytes, "{job:#}");
    }

    /// As `copies`, and no byte went to the destination twice.
    fn copies_in_one_go(&self) {
        self.copies();
        let sent: u64 = self.destination.requests().iter().map(|request| request.body_bytes).sum();
        let bytes: u64 = self.image.all_blobs().iter().map(|blob| blob.content.len()).sum();
        assert_eq!(sent, bytes + u64::try_from(self.image.manifest.len()).unwrap());
    }

    fn reads(&self) -> Vec<LoggedRequest> {
        reads(&self.source, self.layer())
    }
}

fn reads(fake: &Fake, layer: &str) -> Vec<LoggedRequest> {
    fake.requests().into_iter().filter(|one| one.method == "GET" && one.path.ends_with(layer)).collect()
}

/// First byte, and one after the last; None: all of it, or the rest.
fn part(request: &LoggedRequest) -> Option<(u64, u64)> {
    let (first, last) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<u64>().ok()? + 1))
}

fn parts(requests: &[LoggedRequest]) -> Vec<(u64, u64)> {
    requests.iter().filter_map(part).collect()
}

#[test]
fn a_slow_stream_is_helped_by_parts_in_their_order_and_never_by_more_than_may() {
    let scene = Scene::slow(Ranges::Given);
    scene.source.fault(Matcher::new("GET", scene.layer()).always(), Fault::HoldUntil("part".into()));
    let (from, to) = scene.ends();
    let mut running = scene.binary.spawn(&["-o", "json", "replicate", &from, &to]);
    let at_once = || parts(&scene.reads()).len();
    crate::support::eventually("all parts that may are asked for", || (at_once() >= AT_ONCE).then_some(()));
    assert_eq!(within(STILL, || (at_once() > AT_ONCE).then(at_once)), None, "more parts at a time than set");
    scene.source.release("part");
    let job = running.wait(PATIENCE).success().json();
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    let mut parts = parts(&scene.reads());
    parts.sort_unstable();
    assert_eq!(parts.len() + 1, scene.reads().len(), "one stream");
    assert!(parts[0].0 > 8 * MIB && parts[0].0 < 20 * MIB, "{parts:?}");
    assert!(parts.windows(2).all(|two| two[0].1 == two[1].0), "each byte once: {parts:?}");
    assert_eq!(parts.last().map(|part| part.1), Some(LAYER));
    let seen = scene.source.requests().len() + scene.destination.requests().len();
    assert_eq!(reported(&job, "requests"), u64::try_from(seen).unwrap(), "{job:#}");
}

#[test]
fn what_is_small_or_not_slow_or_not_wanted_in_parts_is_one_stream() {
    for (name, value) in
        [("FREIGHTLINER_COPY_RANGES_AT_ONCE", "1"), ("FREIGHTLINER_COPY_RANGES_FROM_BYTES", "41943118")]
    {
        let scene = Scene { binary: reader().env(name, value), ..Scene::slow(Ranges::Given) };
        scene.copies_in_one_go();
        assert_eq!(scene.reads().len(), 1, "{name}");
    }
    // What is waited for is the bandwidth, not the source.
    let scene = Scene::of(Ranges::Given, LAYER);
    let (from, to) = scene.ends();
    replicated(&scene.binary, &from, &to, &["--bandwidth", "20MiB/s"]);
    assert_eq!(scene.reads().len(), 1);
}

#[test]
fn a_source_that_gives_other_parts_is_read_on_in_its_stream() {
    for ranges in [Ranges::Ignored, Ranges::Wrong] {
        let scene = Scene::slow(ranges);
        scene.copies_in_one_go();
        let reads = scene.reads();
        assert!(reads.len() > 1 && reads.len() <= AT_ONCE + 1, "{ranges:?}: {reads:#?}");
        assert_eq!(reads.len() - parts(&reads).len(), 1, "{ranges:?}: the stream went on");
    }
}

#[test]
fn parts_of_another_version_are_not_taken() {
    let scene = Scene::slow(Ranges::Given);
    scene.source.fault(Matcher::new("GET", scene.layer()).always(), Fault::OtherEtag);
    scene.copies_in_one_go();
    let reads = scene.reads();
    assert!(reads.len() > 1 && reads.len() <= AT_ONCE + 1, "{reads:#?}");
}

/// Wrong content: nothing of it is committed, and all of it is read again, in one stream.
#[test]
fn parts_that_are_not_what_they_say_are_never_committed() {
    let scene = Scene::slow(Ranges::Lied);
    scene.source.fault(Matcher::new("GET", scene.layer()).after(19), slow());
    scene.copies();
    let reads = scene.reads();
    assert!(parts(&reads).len() > AT_ONCE);
    assert_eq!(reads.len() - parts(&reads).len(), 2, "{reads:#?}");
    assert_eq!(part(reads.last().unwrap()), None, "no part after the second stream");
    let refused = |request: &LoggedRequest| request.method == "PUT" && request.status == Some(400);
    assert!(!scene.destination.requests().iter().any(refused), "the destination had to find out by itself");
}

#[test]
fn a_part_that_breaks_is_fetched_again_alone() {
    let scene = Scene::slow(Ranges::Given);
    scene.source.fault(Matcher::new("GET", scene.layer()).after(2), Fault::CutBodyAfter(MIB));
    scene.source.fault(Matcher::new("GET", scene.layer()).after(3), Fault::DropConnection);
    scene.source.fault(Matcher::new("GET", scene.layer()).after(4), Fault::status(503));
    scene.copies_in_one_go();
    let parts = parts(&scene.reads());
    let whole: u64 = parts.iter().map(|(first, end)| end - first).sum();
    let covered = LAYER - parts.iter().map(|part| part.0).min().unwrap();
    assert!(whole > covered && whole <= covered + 3 * 2 * MIB, "{whole} of {covered} bytes were asked for: {parts:?}");
}

/// The stream is gone by then: another one is opened from the byte that was reached, or from the first where even that is no
/// part any more.
#[test]
fn a_source_that_stops_to_give_parts_is_gone_on_with_in_one_stream() {
    for (times, expected) in [(1, 2), (usize::MAX, 3)] {
        let scene = Scene::slow(Ranges::Given);
        scene.source.fault(Matcher::new("GET", scene.layer()).after(6).times(times), Fault::NoPart);
        scene.copies_in_one_go();
        let reads = scene.reads();
        let streams: Vec<_> = reads.iter().filter(|read| part(read).is_none()).collect();
        assert_eq!(streams.len(), expected, "{streams:#?}");
        assert!(streams[1].header("range").is_some_and(|range| range.ends_with('-')), "{streams:#?}");
    }
}

/// One redirect for all parts, until the storage says that its URL has expired.
#[test]
fn parts_come_from_where_the_first_answer_led() {
    let (scene, storage) = (Scene::of(Ranges::Given, LAYER), Fake::start());
    storage.put_image("a", "v1", &scene.image);
    storage.fault(Matcher::new("GET", scene.layer()), slow());
    scene.source.fault(Matcher::new("GET", scene.layer()).always(), Fault::RedirectTo(storage.base_url()));
    storage.fault(Matcher::new("GET", scene.layer()).after(8), Fault::status(403));
    scene.copies_in_one_go();
    let (asked, got) = (scene.reads(), reads(&storage, scene.layer()));
    assert_eq!(asked.len(), 2, "the stream, and once more after the expiry: {asked:#?}");
    assert!(parts(&got).len() > 8 && got.iter().all(|read| !read.authorized()), "{got:#?}");
    assert_eq!(got.iter().filter(|read| read.status == Some(403)).count(), 1);
}

#[test]
fn a_killed_copy_goes_on_in_parts_from_the_committed_byte() {
    const CHUNK: u64 = 32 * MIB;
    let scene = Scene::of(Ranges::Given, 3 * CHUNK + 5 * MIB);
    let (from, to) = scene.ends();
    let id = scene.binary.run(&["enqueue", &from, &to, "-o", "json"]).success().json()["id"].to_string();
    scene.source.fault(Matcher::new("GET", scene.layer()), slow());
    let matcher = Matcher::new("PATCH", "/blobs/uploads/").after(1);
    scene.destination.fault(matcher, Fault::HoldUploadAfter { bytes: 7 * MIB, name: "chunk".into() });
    let worker = scene.binary.spawn(&["work", "--drain"]);
    scene.destination.wait_reached("chunk");
    worker.kill9();
    scene.destination.release("chunk");
    scene.destination.heal();
    assert!(!parts(&scene.reads()).is_empty(), "{:#?}", scene.reads());
    scene.source.clear_requests();
    scene.source.fault(Matcher::new("GET", scene.layer()), slow());
    scene.binary.run(&["work", "--drain"]).success();
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    let job = scene.binary.run(&["jobs", "show", &id, "-o", "json"]).success().json();
    assert_eq!(reported(&job, "blobs_resumed"), 1, "{job:#}");
    let reads = scene.reads();
    assert_eq!(reads[0].header("range"), Some(&*format!("bytes={CHUNK}-")));
    assert!(parts(&reads).len() > AT_ONCE, "{reads:#?}");
    let uploads = scene.destination.requests().into_iter();
    let sent: u64 = uploads.filter(|one| ["PATCH", "PUT"].contains(&&*one.method)).map(|one| one.body_bytes).sum();
    assert!(sent <= 4 * CHUNK + 6 * MIB, "{sent} bytes were sent");
}

/// Eight slow layers side by side: those that find no place stay streams, and memory is that of the places.
#[test]
fn memory_is_bounded_for_the_process() {
    let source = Fake::start();
    let destination = Fake::start_with(Options { discard_uploads: true, ..Options::default() });
    let layers = (0..8).fold(ImageBuilder::oci(1), |builder, seed| {
        builder.raw_layer(media::OCI_LAYER, Content::seeded(seed, 40 * MIB))
    });
    let image = layers.build();
    source.put_image("a", "v1", &image);
    source.fault(Matcher::new("GET", "/blobs/").always(), slow());
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let words = ["-o", "json", "replicate", &from, &to, "--concurrency", "8"];
    let output = reader().spawn(&words).wait(PATIENCE * 4).success();
    destination.assert_holds("b", "v1", &image);
    let asked: usize = source.requests().iter().filter_map(part).count();
    assert!(asked > AT_ONCE, "no parts were asked for");
    let itself = reader();
    let mut idle = itself.spawn(&["work"]);
    crate::support::eventually("a worker that has nothing to do", || idle.stderr().contains("working").then_some(()));
    let taken = output.peak_memory_kib.saturating_sub(idle.peak_memory_kib());
    // An eighth of the image's 320 MiB, beside what the program takes by itself: the larger part of that are its own pages.
    assert!(taken > 0 && taken < 40 * 1024, "{taken} KiB");
}
