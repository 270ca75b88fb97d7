//! Blobs whose upload was cut go on where they were, and every byte of them is checked.

use super::{assert_whole, binary, reported};
use crate::support::PATIENCE;
use crate::support::binary::Binary;
use crate::support::content::Content;
use crate::support::fake::{Fake, Fault, Matcher, Options};
use crate::support::image::{Image, ImageBuilder, media};
use serde_json::Value;

const MIB: u64 = 1024 * 1024;
/// The chunks of a registry of which nothing is known.
const CHUNK: u64 = 32 * MIB;
const LAYER: u64 = 3 * CHUNK + 5 * MIB;

struct Scene {
    source: Fake,
    destination: Fake,
    image: Image,
    binary: Binary,
}

impl Scene {
    fn new() -> Self {
        let (source, destination) = (Fake::start(), Fake::start());
        let image = ImageBuilder::oci(1).raw_layer(media::OCI_LAYER, Content::seeded(9, LAYER)).build();
        source.put_image("a", "v1", &image);
        Self { source, destination, image, binary: binary() }
    }

    fn enqueue(&self) -> String {
        let (from, to) = (self.source.reference("a", "v1"), self.destination.reference("b", "v1"));
        self.binary.run(&["enqueue", &from, &to, "-o", "json"]).success().json()["id"].to_string()
    }

    fn job(&self, id: &str) -> Value {
        self.binary.run(&["jobs", "show", id, "-o", "json"]).success().json()
    }

    /// Bytes that came to the destination in the uploads of the layer.
    fn sent(&self) -> u64 {
        let uploads = self.destination.requests().into_iter();
        uploads
            .filter(|request| ["PATCH", "PUT"].contains(&request.method.as_str()))
            .map(|request| request.body_bytes)
            .sum()
    }

    /// A worker is killed when the destination has so many bytes of the chunk after the first `chunks`.
    fn kill_after(&self, chunks: usize, bytes: u64) {
        let matcher = Matcher::new("PATCH", "/blobs/uploads/").after(chunks);
        self.destination.fault(matcher, Fault::HoldUploadAfter { bytes, name: "chunk".into() });
        let worker = self.binary.spawn(&["work", "--drain"]);
        self.destination.wait_reached("chunk");
        worker.kill9();
        self.destination.release("chunk");
        self.destination.heal();
    }

    fn layer(&self) -> &str {
        &self.image.layers()[0].digest
    }
}

#[test]
fn a_blob_goes_on_where_a_killed_worker_left_it() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.kill_after(1, 7 * MIB);
    scene.source.clear_requests();
    scene.binary.run(&["work", "--drain"]).success();
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    let job = scene.job(&id);
    assert_eq!(reported(&job, "blobs_resumed"), 1, "{job:#}");
    assert!(reported(&job, "bytes_resumed") >= CHUNK, "{job:#}");
    assert!(scene.sent() <= LAYER + CHUNK + MIB, "{} bytes were sent", scene.sent());
    // What the registry has is not sent again, and what was checked is not read again.
    let read = scene.source.requests().into_iter().find(|request| request.path.ends_with(scene.layer())).unwrap();
    assert_eq!(read.header("range"), Some(&*format!("bytes={CHUNK}-")));
    let Some(how) = scene.binary.sql(&format!("SELECT how FROM audit_transfers WHERE digest = '{}'", scene.layer()))
    else {
        return;
    };
    assert_eq!(how, ["resumed"]);
    let left = scene.binary.sql("SELECT COUNT(*) FROM uploads").unwrap();
    assert_eq!(left, ["0"]);
}

#[test]
fn an_upload_that_the_registry_has_forgotten_begins_anew_and_that_is_said() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.kill_after(2, MIB);
    let unknown = Fault::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    scene.destination.fault(Matcher::new("GET", "/blobs/uploads/"), unknown);
    let output = scene.binary.run(&["work", "--drain"]).success();
    assert!(output.errors().contains("the blob begins anew"), "{output}");
    scene.destination.assert_holds("b", "v1", &scene.image);
    let job = scene.job(&id);
    assert_eq!((reported(&job, "blobs_resumed"), reported(&job, "bytes_resumed")), (0, 0), "{job:#}");
    assert!(reported(&job, "bytes_copied") >= LAYER);
}

#[test]
fn a_connection_that_is_lost_costs_no_more_than_a_chunk() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.destination.fault(Matcher::new("PATCH", "/blobs/uploads/").after(1), Fault::CutUploadAfter(3 * MIB));
    // The answer to a chunk is lost: only the registry knows that it has it.
    scene.destination.fault(Matcher::new("PATCH", "/blobs/uploads/").after(3), Fault::LoseAnswer);
    scene.binary.run(&["work", "--drain"]).success();
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    let job = scene.job(&id);
    assert_eq!((&job["attempt"], reported(&job, "blobs_resumed")), (&1.into(), 1), "{job:#}");
    assert!(scene.sent() <= LAYER + 2 * CHUNK + MIB, "{} bytes were sent", scene.sent());
}

#[test]
fn a_source_that_gives_no_ranges_is_read_again_and_nothing_is_sent_twice() {
    use crate::support::fake::Ranges;
    let source = Fake::start_with(Options { ranges: Ranges::Ignored, ..Options::default() });
    let scene = Scene { source, ..Scene::new() };
    scene.source.put_image("a", "v1", &scene.image);
    let id = scene.enqueue();
    scene.kill_after(2, 5 * MIB);
    scene.binary.run(&["work", "--drain"]).success();
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    assert!(reported(&scene.job(&id), "bytes_resumed") >= 2 * CHUNK);
    assert!(scene.sent() <= LAYER + CHUNK + MIB, "{} bytes were sent", scene.sent());
}

#[test]
fn content_that_turns_out_wrong_is_not_gone_on_with() {
    let scene = Scene::new();
    let id = scene.enqueue();
    let layer = scene.layer().to_owned();
    scene.source.fault(Matcher::new("GET", &layer).times(2), Fault::WrongBytes);
    assert_eq!(scene.binary.run(&["work", "--drain"]).code(), Some(1));
    let job = scene.job(&id);
    assert_eq!((&job["state"], &job["failure"]["class"]), (&"failed".into(), &"corrupt".into()), "{job:#}");
    assert!(!scene.destination.has_blob("b", &layer));
    assert_eq!(scene.destination.open_uploads(), 0);
    scene.binary.run(&["jobs", "retry", &id]).success();
    scene.binary.run(&["work", "--drain"]).success();
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    assert_eq!(reported(&scene.job(&id), "blobs_resumed"), 0);
}

/// Two processes have the same blob to bring to the same repository: one of them brings it.
#[test]
fn two_processes_bring_a_blob_once() {
    let scene = Scene::new();
    scene.source.put_image("a", "v2", &scene.image);
    scene.enqueue();
    let (from, to) = (scene.source.reference("a", "v2"), scene.destination.reference("b", "v2"));
    scene.binary.run(&["enqueue", &from, &to]).success();
    scene
        .destination
        .fault(Matcher::new("PATCH", "/blobs/uploads/"), Fault::HoldUploadAfter { bytes: MIB, name: "chunk".into() });
    let mut one = scene.binary.spawn(&["work", "--concurrency", "1", "--drain"]);
    scene.destination.wait_reached("chunk");
    let mut other = scene.binary.spawn(&["--log-level", "debug", "work", "--concurrency", "1", "--drain"]);
    crate::support::eventually("the other waits", || other.stderr().contains("waiting for it").then_some(()));
    scene.destination.release("chunk");
    one.wait(PATIENCE).success();
    other.wait(PATIENCE).success();
    for tag in ["v1", "v2"] {
        scene.destination.assert_holds("b", tag, &scene.image);
    }
    assert!(scene.sent() < LAYER + 2 * MIB, "{} bytes were sent", scene.sent());
}

/// The profile says that the registry takes no chunks: one PUT, whatever the size.
#[test]
fn a_registry_that_takes_no_chunks_gets_one_put() {
    let (scene, folder) = (Scene::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("config.toml");
    let of_host = format!("[registries.\"{}\"]\nprofile = \"ghcr\"\n", scene.destination.authority());
    std::fs::write(&file, of_host).unwrap();
    scene.enqueue();
    scene.binary.run(&["--config", file.to_str().unwrap(), "work", "--drain"]).success();
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    assert_eq!((scene.destination.count("PATCH", "/"), scene.destination.count("PUT", "/blobs/uploads/")), (0, 2));
}

/// The registry has every byte, and was cut off before it could commit them.
#[test]
fn an_upload_that_lacks_only_its_end_is_ended() {
    let scene = Scene::new();
    let id = scene.enqueue();
    let rest = LAYER % CHUNK;
    scene.destination.fault(Matcher::new("PUT", "/blobs/uploads/").after(1), Fault::CutUploadAfter(rest));
    scene.binary.run(&["work", "--drain"]).success();
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    let job = scene.job(&id);
    assert_eq!((&job["attempt"], reported(&job, "bytes_resumed")), (&1.into(), LAYER), "{job:#}");
    assert!(scene.sent() <= LAYER + MIB, "{} bytes were sent", scene.sent());
}

#[test]
fn an_upload_that_is_refused_just_where_it_is_said_to_stand_begins_anew() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.kill_after(1, MIB);
    let requests = scene.destination.requests();
    let path = &requests.iter().find(|request| request.method == "PATCH").unwrap().path;
    let upload = path.split('?').next().unwrap();
    scene.destination.fault(Matcher::new("PATCH", upload).always(), Fault::status(416));
    scene.binary.run(&["work", "--drain"]).success();
    scene.destination.assert_holds("b", "v1", &scene.image);
    assert_eq!(reported(&scene.job(&id), "blobs_resumed"), 0);
}

/// A copy of a layer of `size` bytes to a registry whose chunks are of half a mebibyte.
fn copy_in_small_chunks(size: u64, prepare: impl FnOnce(&Fake)) -> (Fake, Image) {
    let (source, destination, binary) =
        (Fake::start(), Fake::start(), binary().env("FREIGHTLINER_RETRY_BASE_MS", "10"));
    let image = ImageBuilder::oci(1).raw_layer(media::OCI_LAYER, Content::seeded(9, size)).build();
    source.put_image("a", "v1", &image);
    prepare(&destination);
    let config = binary.home().join("config.toml");
    let text = format!("[registries.\"{}\"]\nchunk_bytes = {}\n", destination.authority(), MIB / 2);
    std::fs::write(&config, text).unwrap();
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    binary.run(&["replicate", &from, &to, "--config", config.to_str().unwrap(), "-o", "json"]).success();
    (destination, image)
}

#[test]
fn a_blob_that_is_too_small_to_be_noted_goes_up_in_chunks_all_the_same() {
    let (destination, image) = copy_in_small_chunks(MIB / 2 + 1, |_| ());
    assert_whole(&destination, "b", "v1", &image);
    let sent = destination.requests().into_iter().filter(|request| request.method == "PATCH").count();
    assert_eq!(sent, 1);
}

#[test]
fn an_upload_that_was_sent_elsewhere_where_nobody_is_begins_anew() {
    let gone = Fault::ForeignLocation("http://127.0.0.1:9".to_owned());
    let (destination, image) = copy_in_small_chunks(2 * MIB, |destination| {
        destination.fault(Matcher::new("PATCH", "/blobs/uploads/"), gone);
    });
    // The upload that it lost stays open there: nobody can say where it is.
    destination.assert_holds("b", "v1", &image);
    let begun = destination.requests().into_iter().filter(|request| request.method == "POST").count();
    assert!(begun >= 3, "{begun} uploads were begun, for the config and twice for the layer");
}
