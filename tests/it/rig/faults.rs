//! Each fault of the fake does what it says, to the requests it is for and to no others.

use crate::support::content::{Content, sha256};
use crate::support::fake::{Fake, Fault, Matcher, Options};
use crate::support::http::Response;
use crate::support::image::ImageBuilder;
use std::time::Duration;

const TARGET: &str = "/v2/a/manifests/v1";

/// A fake with one image, and one blob of 200,000 bytes.
fn seeded() -> (Fake, String) {
    let fake = Fake::start();
    fake.put_image("a", "v1", &ImageBuilder::oci(1).build());
    let blob = fake.put_virtual_blob("a", 5, 200_000);
    (fake, format!("/v2/a/blobs/{blob}"))
}

/// The answer to the request that is struck; then checks that the next one is well.
fn struck(fake: &Fake, target: &str, fault: Fault) -> Response {
    fake.fault(Matcher::new("GET", target), fault);
    let answer = fake.client().get(target);
    let next = fake.client().get(target);
    assert!(next.complete && next.status == 200, "the fault struck twice: {next:?}");
    answer
}

#[test]
fn a_matcher_chooses_its_requests() {
    let (fake, _) = seeded();
    fake.fault(Matcher::new("GET", "/manifests/").after(1).times(2), Fault::status(503));
    let codes: Vec<u16> = (0..4).map(|_| fake.client().get(TARGET).status).collect();
    assert_eq!(codes, [200, 503, 503, 200]);
    fake.fault(Matcher::new("*", "/tags/").always(), Fault::error(403, "DENIED", "no"));
    for _ in 0..3 {
        assert_eq!(fake.client().get("/v2/a/tags/list").expect(403).json()["errors"][0]["code"], "DENIED");
        fake.client().head(TARGET).expect(200);
    }
    fake.heal();
    fake.client().get("/v2/a/tags/list").expect(200);
}

#[test]
fn faults_strike_in_the_order_they_were_added() {
    let (fake, _) = seeded();
    fake.fault(Matcher::new("GET", TARGET), Fault::status(500));
    fake.fault(Matcher::new("GET", TARGET), Fault::TooManyRequests { retry_after: Some("7".into()) });
    fake.client().get(TARGET).expect(500);
    let limited = fake.client().get(TARGET).expect(429);
    assert_eq!(
        (limited.header("retry-after"), &limited.json()["errors"][0]["code"]),
        (Some("7"), &"TOOMANYREQUESTS".into())
    );
    fake.client().get(TARGET).expect(200);
}

#[test]
fn a_status_carries_its_headers_and_body() {
    let (fake, _) = seeded();
    let headers = vec![("X-Thing".to_owned(), "1".to_owned())];
    let answer = struck(&fake, TARGET, Fault::Status { code: 418, headers, body: "tea".into() });
    assert_eq!((answer.status, answer.text().as_str(), answer.header("x-thing")), (418, "tea", Some("1")));
}

#[test]
fn bodies_are_cut_flipped_and_lengthened() {
    let (fake, blob) = seeded();
    let whole = fake.client().get(&blob).body;

    let cut = struck(&fake, &blob, Fault::CutBodyAfter(70_000));
    assert!(!cut.complete && cut.status == 200 && cut.header("content-length") == Some("200000"));
    assert_eq!(cut.body, whole[..70_000]);

    let wrong = struck(&fake, &blob, Fault::WrongBytes);
    assert!(wrong.complete && wrong.body.len() == whole.len());
    assert_eq!(wrong.body.iter().zip(&whole).filter(|(left, right)| left != right).count(), 1);

    let extra = struck(&fake, &blob, Fault::ExtraBytes(10));
    assert!(extra.complete && extra.body.len() == whole.len() + 10 && extra.body.starts_with(&whole));

    let slow = struck(&fake, &blob, Fault::SlowBody { chunk: 50_000, delay: Duration::from_millis(1) });
    assert_eq!(slow.body, whole);

    let endless = struck(&fake, TARGET, Fault::EndlessBody { mebibytes: 3 });
    assert_eq!((endless.body.len(), endless.header("content-length")), (3 * 1024 * 1024, None));
}

#[test]
fn headers_are_falsified() {
    let (fake, _) = seeded();
    let right = fake.digest_of("a", "v1").unwrap();
    assert_eq!(struck(&fake, TARGET, Fault::NoDigestHeader).header("docker-content-digest"), None);
    let wrong = struck(&fake, TARGET, Fault::WrongDigestHeader);
    assert!(wrong.header("docker-content-digest").is_some_and(|digest| digest != right));
    assert_eq!(sha256(&wrong.body), right);
    let typed = struck(&fake, TARGET, Fault::WrongContentType("text/html".into()));
    assert_eq!(typed.header("content-type"), Some("text/html"));
}

#[test]
fn a_redirect_names_the_other_host() {
    let (fake, blob) = seeded();
    let other = Fake::start();
    let answer = struck(&fake, &blob, Fault::RedirectTo(other.base_url()));
    assert_eq!((answer.status, answer.header("location")), (307, Some(format!("{}{blob}", other.base_url()).as_str())));
}

#[test]
fn locations_come_in_every_form() {
    let fake = Fake::start();
    let begin = |fault: Option<Fault>| {
        if let Some(fault) = fault {
            fake.fault(Matcher::new("POST", "/blobs/uploads/"), fault);
        }
        let answer = fake.client().send("POST", "/v2/a/blobs/uploads/", &[], None).expect(202);
        answer.header("location").unwrap().to_owned()
    };
    assert!(begin(None).starts_with(&format!("{}/v2/a/blobs/uploads/upload-", fake.base_url())));
    assert!(begin(Some(Fault::AbsoluteLocation)).starts_with("http://"));
    assert!(begin(Some(Fault::RelativeLocation)).starts_with("/v2/a/blobs/uploads/upload-"));
    assert!(begin(Some(Fault::DocumentRelativeLocation)).starts_with("upload-"));
    assert!(begin(Some(Fault::ForeignLocation("http://other:1".into()))).starts_with("http://other:1/v2/a/"));
}

#[test]
fn connections_are_dropped_before_or_after_the_effect() {
    let (fake, _) = seeded();
    let manifest = fake.manifest("a", "v1").unwrap();
    let put = |tag: &str, fault| {
        fake.fault(Matcher::new("PUT", tag), fault);
        let headers = [("Content-Type", manifest.0.as_str())];
        let target = format!("/v2/a/manifests/{tag}");
        assert!(fake.client().try_send("PUT", &target, &headers, Some(&manifest.1.clone().into())).is_err());
    };
    put("dropped", Fault::DropConnection);
    put("lost", Fault::LoseAnswer);
    assert_eq!(fake.tags("a"), ["lost", "v1"]);
    assert!(fake.requests().iter().all(|request| request.status.is_none()));
}

#[tokio::test]
async fn a_held_request_has_no_effect_until_it_is_released() {
    let (fake, _) = seeded();
    fake.fault(Matcher::new("DELETE", TARGET), Fault::HoldUntil("before".into()));
    let client = fake.client();
    let deleting = std::thread::spawn(move || client.send("DELETE", TARGET, &[], None).status);
    fake.reached("before").await;
    assert_eq!((fake.tags("a"), fake.requests().last().unwrap().status), (vec!["v1".to_owned()], None));
    fake.release("before");
    assert_eq!(deleting.join().unwrap(), 202);
    assert!(fake.tags("a").is_empty());
}

#[tokio::test]
async fn a_stalled_body_stands_in_the_middle() {
    let (fake, blob) = seeded();
    fake.fault(Matcher::new("GET", &blob).times(2), Fault::StallBodyAfter { bytes: 100_000, name: "middle".into() });
    let (client, target) = (fake.client().read_timeout(Duration::from_millis(100)), blob.clone());
    let impatient = std::thread::spawn(move || client.get(&target));
    fake.reached("middle").await;
    let part = impatient.join().unwrap();
    assert!(!part.complete && part.body.len() == 100_000);

    let client = fake.client();
    let patient = std::thread::spawn(move || client.get(&blob));
    fake.reached_times("middle", 2).await;
    fake.release("middle");
    let whole = patient.join().unwrap();
    assert!(whole.complete && whole.body.len() == 200_000);
}

/// Begins an upload and sends `content` in a thread; gives the upload's first Location too.
fn upload(fake: &Fake, content: Content) -> (String, std::thread::JoinHandle<std::io::Result<Response>>) {
    let client = fake.client();
    let begun = client.send("POST", "/v2/a/blobs/uploads/", &[], None).expect(202);
    let location = begun.header("location").unwrap().to_owned();
    let target = location.clone();
    (location, std::thread::spawn(move || client.try_send("PATCH", &target, &[], Some(&content))))
}

#[tokio::test]
async fn an_upload_is_held_in_the_middle() {
    let fake = Fake::start();
    fake.fault(Matcher::new("PATCH", "/uploads/"), Fault::HoldUploadAfter { bytes: 50_000, name: "up".into() });
    let (location, sending) = upload(&fake, Content::seeded(1, 300_000));
    fake.reached("up").await;
    assert_eq!(fake.client().get(&location).expect(204).header("range"), Some("0-49999"));
    fake.release("up");
    let answer = sending.join().unwrap().unwrap().expect(202);
    assert_eq!(answer.header("range"), Some("0-299999"));
    let patched = fake.requests().into_iter().find(|request| request.method == "PATCH").unwrap();
    assert_eq!(patched.body_bytes, 300_000);
}

#[test]
fn a_cut_upload_keeps_what_arrived() {
    let fake = Fake::start_with(Options { chunk_min_length: Some(4), ..Options::default() });
    fake.fault(Matcher::new("PATCH", "/uploads/"), Fault::CutUploadAfter(60_000));
    let content = Content::seeded(1, 100_000);
    let (location, sending) = upload(&fake, content.clone());
    assert!(sending.join().unwrap().is_err());
    let status = fake.client().get(&location).expect(204);
    assert_eq!(status.header("range"), Some("0-59999"));
    let digest = sha256(&content.to_bytes());
    let target = format!("{}&digest={digest}", status.header("location").unwrap());
    fake.client().send("PUT", &target, &[], Some(&content.slice(60_000..100_000).into())).expect(201);
    assert!(fake.has_blob("a", &digest));
}
