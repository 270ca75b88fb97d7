//! What goes wrong between the program and the registries.

use super::plan::{DENIED, Side};
use super::random::Random;
use super::support::fake::{Fault, Matcher};
use std::time::Duration;

/// Faults of a round, in the order in which they are tried.
pub fn faults(random: &mut Random) -> Vec<(Side, Matcher, Fault)> {
    let mut faults = vec![(
        Side::Destination,
        Matcher::new("*", &format!("/v2/{DENIED}/")).always(),
        Fault::error(403, "DENIED", "nobody may write here"),
    )];
    for number in 0..random.count(6..=16) {
        faults.push(one(random, number));
    }
    // Last, because it fits everything: bodies that take their time.
    let slow = Fault::SlowBody { chunk: 32 * 1024, delay: Duration::from_millis(random.of(5..=60)) };
    faults.push((Side::Source, Matcher::new("GET", "/blobs/").times(random.count(20..=80)), slow));
    faults
}

/// The gates that requests may wait at.
pub fn gates(faults: &[(Side, Matcher, Fault)]) -> Vec<String> {
    let gate = |fault: &Fault| match fault {
        Fault::HoldUntil(name) | Fault::HoldUploadAfter { name, .. } => Some(name.clone()),
        _ => None,
    };
    faults.iter().filter_map(|(_, _, fault)| gate(fault)).collect()
}

fn one(random: &mut Random, number: usize) -> (Side, Matcher, Fault) {
    let passing = |random: &mut Random| match random.of(1..=5) {
        1 => Fault::status(500),
        2 => Fault::status(502),
        3 => Fault::error(503, "UNAVAILABLE", "try again"),
        4 => Fault::TooManyRequests { retry_after: random.percent(30).then(|| "0".to_owned()) },
        _ => Fault::DropConnection,
    };
    let (side, method, path, fault) = match random.of(1..=12) {
        1 => (Side::Source, "GET", "/manifests/", passing(random)),
        2 => (Side::Source, "HEAD", "/manifests/", passing(random)),
        3 => (Side::Source, "GET", "/blobs/", passing(random)),
        4 => (Side::Source, "GET", "/blobs/", Fault::CutBodyAfter(random.of(1..=150_000))),
        5 => (Side::Source, "GET", "/blobs/", Fault::WrongBytes),
        6 => (Side::Destination, "POST", "/blobs/uploads/", passing(random)),
        7 => (Side::Destination, "PUT", "/blobs/uploads/", passing(random)),
        8 => (Side::Destination, "PUT", "/blobs/uploads/", Fault::CutUploadAfter(random.of(1..=100_000))),
        9 => (Side::Destination, "PUT", "/blobs/uploads/", Fault::LoseAnswer),
        10 => (Side::Destination, "PUT", "/manifests/", passing(random)),
        11 => (Side::Destination, "PUT", "/manifests/", Fault::LoseAnswer),
        _ => (Side::Destination, "PUT", "/manifests/", Fault::HoldUntil(format!("gate {number}"))),
    };
    let times = if matches!(fault, Fault::WrongBytes | Fault::HoldUntil(_)) { 1 } else { random.count(1..=4) };
    (side, Matcher::new(method, path).after(random.count(0..=15)).times(times), fault)
}
