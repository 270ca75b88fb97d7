//! Memory does not grow with what is copied.

use super::{binary, reported};
use crate::support::content::Content;
use crate::support::fake::{Fake, Fault, Matcher, Options};
use crate::support::image::{ImageBuilder, media};
use crate::support::within;
use std::time::Duration;

/// Bytes of the one large layer.
const LAYER_BYTES: u64 = 1024 * 1024 * 1024;
/// What the program may hold at most, KiB.
const LIMIT_KIB: u64 = 64 * 1024;
/// Hashing three times over (both fakes and the program) on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long the destination stands still: the source could send hundreds of MiB in this time.
const STILL: Duration = Duration::from_secs(2);

#[test]
fn a_gibibyte_is_copied_in_less_than_64_mebibytes() {
    let source = Fake::start();
    let destination = Fake::start_with(Options { discard_uploads: true, ..Options::default() });
    let image = ImageBuilder::oci(1).raw_layer(media::OCI_LAYER, Content::seeded(9, LAYER_BYTES)).build();
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    // The destination stands still for a while: what is read meanwhile must wait at the source, not in memory.
    destination.fault(
        Matcher::new("PUT", "/blobs/uploads/").times(2),
        Fault::HoldUploadAfter { bytes: 8 * 1024 * 1024, name: "still".into() },
    );
    let binary = binary();
    let mut running = binary.spawn(&["-o", "json", "replicate", &from, &to]);
    destination.wait_reached("still");
    let grown = within(STILL, || Some(running.peak_memory_kib()).filter(|peak| *peak >= LIMIT_KIB));
    assert_eq!(grown, None, "KiB, while the destination did not read");
    destination.release("still");
    let output = running.wait(PATIENCE).success();
    let job = output.json();
    assert!(reported(&job, "bytes_copied") > LAYER_BYTES, "{job:#}");
    // The fake hashes what it throws away.
    destination.assert_holds("b", "v1", &image);
    let peak = output.peak_memory_kib;
    assert!(peak > 0 && peak < LIMIT_KIB, "{peak} KiB");
}

/// Eight large layers, more at a time than usual: memory is bounded for each.
#[test]
fn layers_side_by_side_stay_within_it() {
    let source = Fake::start();
    let destination = Fake::start_with(Options { discard_uploads: true, ..Options::default() });
    let layers = (0..8).fold(ImageBuilder::oci(1), |builder, seed| {
        builder.raw_layer(media::OCI_LAYER, Content::seeded(seed, 24 * 1024 * 1024))
    });
    let image = layers.build();
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let words = ["-o", "json", "replicate", &from, &to, "--concurrency", "8"];
    let output = binary().spawn(&words).wait(PATIENCE).success();
    destination.assert_holds("b", "v1", &image);
    assert!(output.peak_memory_kib > 0 && output.peak_memory_kib < LIMIT_KIB, "{} KiB", output.peak_memory_kib);
}
