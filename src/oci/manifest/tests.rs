use super::*;
use proptest::prelude::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(media_type: &str, size: u64) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{HEX}","size":{size}}}"#)
}

fn parse(body: &str, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
    Manifest::parse(Bytes::copy_from_slice(body.as_bytes()), content_type, None)
}

fn image_body() -> String {
    let (config, layer) = (descriptor("application/x-config", 3), descriptor("application/x-layer", 5));
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{layer}, {layer}],"x":1}}"#)
}

fn blob_sizes(manifest: &Manifest) -> Vec<u64> {
    match &manifest.content {
        Content::Image { blobs, .. } => blobs.iter().map(|blob| blob.size).collect(),
        Content::Index { manifests, .. } => manifests.iter().map(|entry| entry.size).collect(),
    }
}

#[test]
fn an_image_keeps_its_bytes_and_lists_its_blobs() {
    let body = image_body();
    let manifest = parse(&body, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")).unwrap();
    assert_eq!(manifest.bytes, body.as_bytes());
    assert_eq!(manifest.digest, Digest::of(Algorithm::Sha256, body.as_bytes()));
    assert_eq!(manifest.media_type, OCI_MANIFEST);
    assert_eq!(blob_sizes(&manifest), [3, 5, 5]);
    let Content::Image { config: Some(config), subject: None, .. } = manifest.content else { panic!() };
    assert_eq!(config.media_type, "application/x-config");
}

#[test]
fn an_index_lists_its_entries_with_platforms() {
    let platform = r#"{"os":"linux","architecture":"arm","variant":"v7"}"#;
    let body = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{HEX}","size":7,
            "platform":{platform},"artifactType":"a/b"}}],"subject":{}}}"#,
        descriptor(OCI_MANIFEST, 9)
    );
    let manifest = parse(&body, None).unwrap();
    assert_eq!(manifest.media_type, OCI_INDEX);
    let Content::Index { manifests, subject: Some(subject) } = manifest.content else { panic!() };
    assert_eq!(manifests[0].platform.as_ref().unwrap().to_string(), "linux/arm/v7");
    assert_eq!(manifests[0].artifact_type.as_deref(), Some("a/b"));
    assert!(manifests[0].is_manifest());
    assert_eq!(subject.size, 9);
}

#[test]
fn the_digest_asked_for_decides_first_and_with_its_algorithm() {
    let body = Bytes::from(image_body());
    let sha512 = Digest::of(Algorithm::Sha512, &body);
    assert_eq!(Manifest::parse(body.clone(), None, Some(&sha512)).unwrap().digest, sha512);
    let other = Digest::of(Algorithm::Sha512, b"other");
    let error = Manifest::parse(Bytes::from_static(b"no json"), None, Some(&other)).unwrap_err();
    assert!(matches!(&error, ManifestError::Digest(message) if message.contains(other.as_str())), "{error}");
}

#[test]
fn nulls_and_absent_fields_are_read() {
    let config = descriptor("a/b", 3);
    let cases = [
        (format!(r#"{{"config":{config},"layers":null}}"#), OCI_MANIFEST, 1),
        (r#"{"config":null,"layers":[]}"#.to_owned(), OCI_MANIFEST, 0),
        (format!(r#"{{"layers":[{config}]}}"#), OCI_MANIFEST, 1),
        (format!(r#"{{"mediaType":null,"blobs":[{config}]}}"#), OCI_ARTIFACT, 1),
        (format!(r#"{{"mediaType":"","config":{config}}}"#), OCI_MANIFEST, 1),
        (r#"{"manifests":null}"#.to_owned(), OCI_INDEX, 0),
        (r#"{"manifests":[],"layers":null}"#.to_owned(), OCI_INDEX, 0),
        (format!(r#"{{"manifests":null,"config":{config}}}"#), OCI_MANIFEST, 1),
        (format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","layers":null,"config":null}}"#), DOCKER_MANIFEST, 0),
        (format!(r#"{{"mediaType":"{OCI_ARTIFACT}","blobs":null}}"#), OCI_ARTIFACT, 0),
        (format!(r#"{{"mediaType":"application/vnd.acme+json","layers":[{config}]}}"#), "application/vnd.acme+json", 1),
        (
            format!(r#"{{"mediaType":"application/vnd.acme+json","manifests":[{config}]}}"#),
            "application/vnd.acme+json",
            1,
        ),
        (
            format!(r#"{{"layers":[{{"digest":"sha256:{HEX}","size":0,"urls":null,"platform":null}}]}}"#),
            OCI_MANIFEST,
            1,
        ),
    ];
    for (body, media_type, count) in cases {
        let manifest = parse(&body, None).unwrap_or_else(|error| panic!("{body}: {error}"));
        assert_eq!(manifest.media_type, media_type, "{body}");
        assert_eq!(blob_sizes(&manifest).len(), count, "{body}");
    }
}

#[test]
fn the_content_type_decides_when_the_body_says_nothing() {
    let body = r#"{"schemaVersion":2,"config":null,"layers":[]}"#;
    assert_eq!(parse(body, Some(DOCKER_MANIFEST)).unwrap().media_type, DOCKER_MANIFEST);
    assert_eq!(parse(body, Some("application/json; charset=utf-8")).unwrap().media_type, OCI_MANIFEST);
    assert_eq!(parse(body, Some("")).unwrap().media_type, OCI_MANIFEST);
    assert_eq!(parse(body, Some("Application/Vnd.Acme+json")).unwrap().media_type, "application/vnd.acme+json");
    assert_eq!(parse(&image_body(), Some("text/plain")).unwrap().media_type, OCI_MANIFEST);
}

#[test]
fn contradictions_are_refused() {
    let entry = descriptor(OCI_MANIFEST, 1);
    let mismatch = |body: &str, content_type| {
        assert!(matches!(parse(body, content_type), Err(ManifestError::MediaTypeMismatch(_))), "{body}");
    };
    mismatch(&image_body(), Some(DOCKER_MANIFEST));
    mismatch(r#"{"layers":[]}"#, Some(OCI_INDEX));
    mismatch(r#"{"manifests":[]}"#, Some(DOCKER_MANIFEST));
    mismatch(&format!(r#"{{"mediaType":"{OCI_INDEX}","layers":[]}}"#), None);
    for other in [format!(r#""layers":[{entry}]"#), format!(r#""config":{entry}"#), r#""blobs":[]"#.to_owned()] {
        let body = format!(r#"{{"mediaType":"{OCI_INDEX}","manifests":[{entry}],{other}}}"#);
        let error = parse(&body, None).unwrap_err();
        assert!(matches!(&error, ManifestError::Malformed(message) if message.contains("ambiguous")), "{error}");
    }
}

#[test]
fn schema_1_is_refused_by_name() {
    for (body, content_type) in [
        (r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#, None),
        (r#"{"schemaVersion":1}"#, Some("application/json")),
        (r#"{"fsLayers":[{"blobSum":"x"}]}"#, None),
        (r#"{"name":"x"}"#, Some(SCHEMA1_SIGNED)),
        ("not json", Some(SCHEMA1)),
        (r#"{"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}"#, None),
    ] {
        let error = parse(body, content_type).unwrap_err();
        assert!(matches!(error, ManifestError::Schema1(_)), "{body}: {error}");
    }
}

#[test]
fn malformed_documents_say_where() {
    let huge = i64::MAX as u64;
    let cases = [
        (String::new(), "not a JSON document"),
        ("[]".to_owned(), "not a JSON document"),
        (r#"{"errors":[]}"#.to_owned(), "no manifest"),
        (r#"{"mediaType":"a/b\r\nX-Header: 1","layers":[]}"#.to_owned(), "which is none"),
        (format!(r#"{{"mediaType":"{}","layers":[]}}"#, "a".repeat(256)), "which is none"),
        (format!(r#"{{"mediaType":"{OCI_MANIFEST}"}}"#), "no manifest"),
        (r#"{"layers":{}}"#.to_owned(), "a list of at most 10000"),
        (r#"{"layers":[null]}"#.to_owned(), "not a JSON document"),
        (r#"{"layers":[{"size":1}]}"#.to_owned(), "layers[0] has no digest"),
        (format!(r#"{{"layers":[{{"digest":"sha256:{HEX}"}}]}}"#), "layers[0] has no size"),
        (r#"{"config":{"digest":"sha256:00","size":1}}"#.to_owned(), "config: digest 'sha256:00' has 2"),
        (r#"{"manifests":[{"digest":"md5:00","size":1}]}"#.to_owned(), "manifests[0]: digest 'md5:00' uses"),
        (format!(r#"{{"layers":[{{"digest":"sha256:{HEX}","size":-1}}]}}"#), "layers[0] has the size -1"),
        (format!(r#"{{"layers":[{{"digest":"sha256:{HEX}","size":1.5}}]}}"#), "layers[0] has the size 1.5"),
        (format!(r#"{{"layers":[{{"digest":"sha256:{HEX}","size":{}}}]}}"#, huge + 1), "layers[0] has the size"),
        (format!(r#"{{"layers":[{{"digest":"sha256:{HEX}","size":"5"}}]}}"#), "not a JSON document"),
        (format!(r#"{{"layers":[{0},{0}]}}"#, descriptor("a/b", huge)), "add up"),
        ("[".repeat(100_000), "not a JSON document"),
        (format!(r#"{{"layers":[],"x":{}}}"#, "[".repeat(100_000)), "not a JSON document"),
    ];
    for (body, part) in cases {
        let body_start: String = body.chars().take(80).collect();
        let error = parse(&body, None).expect_err(&body_start);
        assert!(matches!(error, ManifestError::Malformed(_)), "{body_start}: {error:?}");
        let message = error.to_string();
        assert!(message.contains(part) && message.len() < 300 && !message.contains('\n'), "{body_start}: {message}");
    }
}

#[test]
fn lists_are_bounded() {
    let entry = descriptor("a/b", 1);
    let list = |count: usize| format!(r#"{{"layers":[{}]}}"#, vec![entry.as_str(); count].join(","));
    assert_eq!(blob_sizes(&parse(&list(LIST_LIMIT_ENTRIES), None).unwrap()).len(), LIST_LIMIT_ENTRIES);
    let message = parse(&list(LIST_LIMIT_ENTRIES + 1), None).unwrap_err().to_string();
    assert!(message.contains("more than 10000 entries"), "{message}");
}

#[test]
fn foreign_layers_are_known_by_their_media_type() {
    for (media_type, foreign) in [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar", true),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", true),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", true),
        ("application/vnd.oci.image.layer.v1.tar+gzip", false),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", false),
        ("application/vnd.oci.image.layer.nondistributable.v1.tarball", false),
        ("", false),
    ] {
        let body = format!(r#"{{"layers":[{}]}}"#, descriptor(media_type, 1));
        let Content::Image { blobs, .. } = parse(&body, None).unwrap().content else { panic!() };
        assert_eq!(blobs[0].is_foreign(), foreign, "{media_type}");
        assert!(!blobs[0].is_manifest());
    }
}

#[test]
fn of_the_corpus_those_are_refused_that_make_no_sense() {
    let refused =
        |(name, bytes): (String, Vec<u8>)| Manifest::parse(Bytes::from(bytes), None, None).is_err().then_some(name);
    let refused: Vec<String> = crate::corpus::documents("manifest").into_iter().filter_map(refused).collect();
    let expected = [
        "both_kinds.json",
        "error_page.json",
        "huge_sizes.json",
        "nulls.json",
        "page.html",
        "repeated_keys.json",
        "schema1.json",
    ];
    assert_eq!(refused, expected);
}

proptest! {
    #[test]
    fn what_is_made_of_the_corpus_is_refused_or_sound(
        bytes in crate::corpus::mutated_documents("manifest"),
        content_type in proptest::sample::select(vec![None, Some(OCI_MANIFEST), Some(OCI_INDEX), Some("text/html"), Some(SCHEMA1)]),
    ) {
        let Ok(manifest) = Manifest::parse(Bytes::from(bytes.clone()), content_type, None) else { return Ok(()) };
        prop_assert_eq!(&manifest.bytes, bytes.as_slice());
        prop_assert_eq!(&manifest.digest, &Digest::of(Algorithm::Sha256, &bytes));
        prop_assert!(manifest.media_type.len() <= 255 && manifest.media_type.bytes().all(|byte| byte.is_ascii_graphic()));
        let sizes = blob_sizes(&manifest);
        prop_assert!(sizes.len() <= LIST_LIMIT_ENTRIES + 1);
        let sum = sizes.iter().try_fold(0_u64, |sum, size| sum.checked_add(*size));
        prop_assert!(sum.is_some_and(|sum| i64::try_from(sum).is_ok()), "{sizes:?}");
        let digests: Vec<String> = match &manifest.content {
            Content::Image { blobs, .. } => blobs.iter().map(|blob| blob.digest.to_string()).collect(),
            Content::Index { manifests, .. } => manifests.iter().map(|entry| entry.digest.to_string()).collect(),
        };
        for digest in digests {
            prop_assert_eq!(digest.parse::<Digest>().map(|again| again.to_string()), Ok(digest));
        }
    }

    #[test]
    fn parsing_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\":,a-z0-9 ]{0,80}") {
        for body in [bytes.as_slice(), text.as_bytes()] {
            if let Ok(manifest) = Manifest::parse(Bytes::copy_from_slice(body), None, None) {
                prop_assert_eq!(manifest.bytes, body);
            }
        }
    }

    #[test]
    fn whatever_cuts_a_document_short_is_refused(cut in 0_usize..200) {
        let body = image_body();
        let cut = cut.min(body.len() - 1);
        prop_assert!(parse(&body[..cut], None).is_err());
    }
}
