//! A registry's bad days, drawn from a seed: which requests get a bad answer, and which one.
//!
//! A seed makes the same script every time. What the program under test asks at the same moment is not fixed, so a replay
//! is close to the first run but not always equal to it. Every script is finite: after its last fault the registry is well.

use super::fake::{Auth, Fake, Fault, Matcher, Options, Ranges};
use std::time::Duration;

/// A small generator (splitmix64): the same numbers for the same seed, on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn place(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).expect("below a usize")
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.place(of.len())]
    }
}

/// How far a registry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    /// Its answers are wrong in every way, but it never says of content that it has it when it has not.
    NeverOfContent,
    /// It says that it has what it has not.
    None,
}

/// The habits of a source.
pub fn source_habits(dice: &mut Dice) -> Options {
    let ranges = dice.pick(&[Ranges::Given, Ranges::Given, Ranges::Given, Ranges::Ignored, Ranges::Wrong]);
    Options { ranges, ..destination_habits(dice) }
}

/// The habits of a destination.
pub fn destination_habits(dice: &mut Dice) -> Options {
    Options {
        auth: if dice.one_in(4) { Auth::bearer() } else { Auth::None },
        referrers: dice.one_in(2),
        digest_header: !dice.one_in(5),
        mounts: !dice.one_in(4),
        ..Options::default()
    }
}

/// Gives `fake` so many bad answers, each at a random place. Returns what they are, for whoever reads of a failure.
/// Other bytes than the right ones come only where a digest tells (`provable`), or for blobs.
pub fn source(fake: &Fake, dice: &mut Dice, count: u64, provable: bool) -> Vec<String> {
    let mut script = Vec::new();
    for _ in 0..count {
        let (method, path) =
            dice.pick(&[("*", "/v2/"), ("GET", "/blobs/"), ("GET", "/manifests/"), ("HEAD", "/manifests/")]);
        let fault = match if dice.one_in(3) { trouble(fake, dice) } else { bad_reading(dice) } {
            Fault::WrongBytes | Fault::ExtraBytes(_) if !provable && path != "/blobs/" => Fault::CutBodyAfter(10),
            fault => fault,
        };
        add(fake, dice, &mut script, (method, path), fault);
    }
    script
}

/// As [`source`], for the side that is written to.
pub fn destination(fake: &Fake, dice: &mut Dice, count: u64, honesty: Honesty) -> Vec<String> {
    let mut script = Vec::new();
    for _ in 0..count {
        let place = dice.pick(&[
            ("*", "/v2/"),
            ("POST", "/blobs/uploads/"),
            ("PATCH", "/blobs/uploads/"),
            ("PUT", "/blobs/uploads/"),
            ("GET", "/blobs/uploads/"),
            ("PUT", "/manifests/"),
            ("HEAD", "/manifests/"),
        ]);
        if honesty == Honesty::None && dice.one_in(3) {
            let (place, fault) = lie(dice);
            add(fake, dice, &mut script, place, fault);
            continue;
        }
        let fault = match place {
            _ if dice.one_in(2) => trouble(fake, dice),
            ("POST" | "PATCH" | "GET", "/blobs/uploads/") => bad_upload(fake, dice),
            ("PUT", _) => Fault::CutUploadAfter(dice.pick(&[4, 3_000, 300_000])),
            _ => match bad_reading(dice) {
                // That would be a lie.
                Fault::Status { code: 200..300, .. } if honesty == Honesty::NeverOfContent => Fault::NoDigestHeader,
                fault => fault,
            },
        };
        add(fake, dice, &mut script, place, fault);
    }
    script
}

fn add(fake: &Fake, dice: &mut Dice, script: &mut Vec<String>, (method, path): (&str, &str), fault: Fault) {
    let after = dice.place(if method == "*" { 12 } else { 4 });
    script.push(format!("{method} {path} after {after}: {fault:?}"));
    fake.fault(Matcher::new(method, path).after(after), fault);
}

/// What can happen to any request.
fn trouble(fake: &Fake, dice: &mut Dice) -> Fault {
    let status = |code, name: &str, value: String| Fault::Status {
        code,
        headers: vec![(name.to_owned(), value)],
        body: String::new(),
    };
    match dice.below(9) {
        0 => Fault::DropConnection,
        1 => Fault::LoseAnswer,
        2 => Fault::TooManyRequests {
            retry_after: dice.pick(&[None, Some("0"), Some("1"), Some("never")]).map(str::to_owned),
        },
        3 => Fault::RedirectTo(fake.base_url()),
        4 => status(
            307,
            "location",
            dice.pick(&["/v2/nowhere/", "http://[", "", "//", "?", "ftp://127.0.0.1/"]).to_owned(),
        ),
        5 => {
            let realm =
                format!("Bearer realm=\"{}/token\",service=\"fake\",scope=\"repository:b:pull,push\"", fake.base_url());
            let challenge = dice.pick(&[realm.as_str(), "Basic realm=\"x\"", "Bearer", "Bearer realm=\"\"", "\"", ","]);
            status(401, "www-authenticate", challenge.to_owned())
        }
        6 => Fault::error(dice.pick(&[400, 404, 500]), dice.pick(&CODES), "drawn by lot"),
        _ => Fault::status(dice.pick(&[400, 403, 404, 405, 408, 409, 413, 416, 500, 502, 503, 504])),
    }
}

/// Codes that errors come with.
const CODES: [&str; 8] = [
    "UNKNOWN",
    "BLOB_UPLOAD_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_UNKNOWN",
    "NAME_UNKNOWN",
    "DIGEST_INVALID",
    "DENIED",
];

/// What can be wrong with an answer that is read.
fn bad_reading(dice: &mut Dice) -> Fault {
    let lying_part = |range: &str| Fault::Status {
        code: 206,
        headers: vec![("content-range".to_owned(), range.to_owned())],
        body: "other bytes".to_owned(),
    };
    match dice.below(10) {
        0 => Fault::CutBodyAfter(dice.pick(&[0, 10, 1_000, 700_000])),
        1 => Fault::WrongBytes,
        2 => Fault::ExtraBytes(dice.pick(&[1, 1_000])),
        3 => Fault::WrongDigestHeader,
        4 => Fault::NoDigestHeader,
        5 => Fault::WrongContentType(
            dice.pick(&["text/html", "application/vnd.oci.image.index.v1+json", ";"]).to_owned(),
        ),
        6 => Fault::SlowBody { chunk: 400_000, delay: Duration::from_millis(dice.below(60)) },
        7 => lying_part(dice.pick(&["bytes 0-10/11", "bytes 524288-524298/*", "bytes */0", "bytes 9-1/2"])),
        8 => Fault::EndlessBody { mebibytes: 9 },
        _ => Fault::status(dice.pick(&[200, 204, 206])),
    }
}

/// What can be wrong with an answer about an upload.
fn bad_upload(fake: &Fake, dice: &mut Dice) -> Fault {
    let status = |code, headers: &[(&str, &str)]| Fault::Status {
        code,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: String::new(),
    };
    let range = dice.pick(&["0-0", "0-99", "0-524287", "0-18446744073709551615", "7-9", "x", "0-99999999"]);
    match dice.below(9) {
        0 => Fault::RelativeLocation,
        1 => Fault::DocumentRelativeLocation,
        2 => Fault::ForeignLocation("http://127.0.0.1:9".to_owned()),
        3 => Fault::ForeignLocation(fake.base_url().replace("127.0.0.1", "localhost")),
        4 => Fault::CutUploadAfter(dice.pick(&[0, 100, 300_000])),
        // Which says nothing of what is stored.
        5 => status(202, &[]),
        6 => status(202, &[("range", range)]),
        7 => status(204, &[("range", range)]),
        _ => status(202, &[("location", dice.pick(&["/v2/b/blobs/uploads/none", "http://[", "", "file:///etc"]))]),
    }
}

/// An answer that says that content is there which is not.
fn lie(dice: &mut Dice) -> ((&'static str, &'static str), Fault) {
    let (place, code) = dice.pick(&[
        (("POST", "/blobs/uploads/"), 201),
        (("PUT", "/blobs/uploads/"), 201),
        (("PUT", "/blobs/uploads/"), 204),
        (("PUT", "/manifests/"), 201),
        (("HEAD", "/blobs/"), 200),
        (("HEAD", "/manifests/"), 200),
        (("PATCH", "/blobs/uploads/"), 201),
    ]);
    (place, Fault::status(code))
}
