use super::*;
use proptest::prelude::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn canonical(text: &str) -> String {
    text.parse::<ImageReference>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

fn error(text: &str) -> String {
    let message = text.parse::<ImageReference>().expect_err(text).to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn short_names_are_those_of_docker() {
    for (text, expected) in [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("docker:dind", "docker.io/library/docker:dind"),
        ("org/app", "docker.io/org/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("docker://alpine", "docker.io/library/alpine:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("LOCALHOST:05000/app", "localhost:5000/app:latest"),
        ("Quay.IO/org/app:V1", "quay.io/org/app:V1"),
        ("Foo/bar", "Foo/bar:latest"),
        ("Foo:80/bar", "foo:80/bar:latest"),
        ("[::1]:5000/a/b", "[::1]:5000/a/b:latest"),
        ("[0:0:0:0:0:0:0:1]/a", "[::1]/a:latest"),
        ("127.0.0.1:5000/a__b/c---d/e.f_g", "127.0.0.1:5000/a__b/c---d/e.f_g:latest"),
        ("registry.example.com:443/x:_t", "registry.example.com:443/x:_t"),
        // Without a slash there is no host, as docker has it.
        ("registry.example.com:5000", "docker.io/library/registry.example.com:5000"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
        assert_eq!(canonical(expected), expected);
    }
}

#[test]
fn digests_stay_beside_tags_and_win() {
    let text = format!("quay.io/org/app:1.2@sha256:{HEX}");
    let reference: Reference = text.parse().unwrap();
    assert_eq!(reference.to_string(), text);
    assert_eq!(reference.tag.as_ref().map(Tag::as_str), Some("1.2"));
    assert_eq!(reference.selector().to_string(), format!("sha256:{HEX}"));

    let bare: Reference = format!("quay.io/org/app@sha256:{HEX}").parse().unwrap();
    assert_eq!(bare.tag, None);
    assert_eq!(bare.to_string(), format!("quay.io/org/app@sha256:{HEX}"));

    let long = format!("quay.io/org/app@sha512:{HEX}{HEX}");
    assert_eq!(canonical(&long), long);
    assert_eq!("quay.io/a".parse::<Reference>().unwrap().selector().to_string(), "latest");
}

#[test]
fn errors_name_the_part_and_quote_it() {
    let long_name = format!("quay.io/{}", "a".repeat(248));
    let long_tag = format!("quay.io/a:{}", "t".repeat(129));
    let cases: &[(&str, &str)] = &[
        ("", "reference '' is empty"),
        (" alpine", "reference ' alpine' begins or ends with white space"),
        ("al pine", "reference 'al pine' contains white space"),
        ("alpine\n", "control character"),
        ("docker://", "reference 'docker://' names nothing"),
        ("quay.io/Org/App", "repository 'Org/App' has upper-case"),
        ("Alpine", "repository 'Alpine' has upper-case"),
        ("org/App", "repository 'org/App' has upper-case"),
        ("quay.io/", "repository '' is empty"),
        ("quay.io//a", "repository '/a' has an empty component"),
        ("quay.io/a/", "repository 'a/' has an empty component"),
        ("quay.io/a..b", "repository 'a..b' has a separator"),
        ("quay.io/a___b", "repository 'a___b' has a separator"),
        ("quay.io/-a", "repository '-a' has a component"),
        ("quay.io/a.", "repository 'a.' has a component"),
        ("quay.io/a%b", "repository 'a%b' has a character"),
        ("/a", "repository '/a' has an empty component"),
        (&long_name, "255 bytes"),
        (HEX, "looks like a digest"),
        ("alpine:", "tag '' is empty"),
        ("alpine:-x", "tag '-x' must begin"),
        ("alpine:a$b", "tag 'a$b' has a character"),
        ("quay.io/a:b/c", "tag 'b/c' has a character"),
        ("quay.io/a:b:c", "tag 'b:c' has a character"),
        (&long_tag, "longer than 128"),
        ("alpine@", "digest '' is empty"),
        ("alpine@sha256:12", "digest 'sha256:12' has 2 characters"),
        ("alpine@md5:d41d8cd98f00b204e9800998ecf8427e", "'md5'; only sha256 and sha512"),
        ("alpine@b@sha256:12", "digest 'b@sha256:12' uses"),
        ("localhost:/a", "registry host 'localhost:' has a port"),
        ("localhost:0/a", "registry host 'localhost:0' has a port"),
        ("localhost:65536/a", "registry host 'localhost:65536' has a port"),
        ("localhost:+5/a", "registry host 'localhost:+5' has a port"),
        (":5000/a", "registry host ':5000' has no name"),
        ("::1/a", "registry host '::1' has more than one ':'"),
        ("[::1/a", "registry host '[::1' has no ']'"),
        ("[::g]/a", "registry host '[::g]' has no valid IPv6"),
        ("[::1]x/a", "registry host '[::1]x' has something other"),
        ("quay..io/a", "registry host 'quay..io' has a '.'"),
        ("quay.io./a", "registry host 'quay.io.' has a '.'"),
        ("-quay.io/a", "registry host '-quay.io' has a '-'"),
        ("quay_1.io/a", "registry host 'quay_1.io' has a character"),
        ("10.0.0.256/a", "registry host '10.0.0.256' ends in a number"),
        ("127.1/a", "registry host '127.1' ends in a number"),
        ("quay.0x7f/a", "registry host 'quay.0x7f' ends in a number"),
        ("5000:5000/a", "registry host '5000:5000' ends in a number"),
        ("https://quay.io/a", "transport 'https://' is not part"),
        ("docker://https://quay.io/a", "transport 'https://' is not part"),
        ("ftp://quay.io/a", "transport 'ftp://' is not supported"),
        ("oci://quay.io/a", "transport 'oci://' is ambiguous"),
        ("dir:/tmp/x", "transport 'dir:' is not supported"),
        ("dir:latest", "docker.io/library/dir:latest"),
        ("docker-archive:x.tar", "transport 'docker-archive:'"),
        ("docker-daemon:alpine:latest", "transport 'docker-daemon:'"),
        ("containers-storage:alpine", "transport 'containers-storage:'"),
        ("oci-archive:x.tar", "transport 'oci-archive:'"),
        ("oci:", "directory '' is empty"),
        ("oci::tag", "directory '' is empty"),
        ("oci:dir:", "image name '' is empty"),
        ("oci:dir:a b", "image name 'a b' has a character"),
        ("oci:dir:a..b", "image name 'a..b' has two separators"),
        ("oci:dir@sha256:12", "digest 'sha256:12' has 2"),
    ];
    for (text, part) in cases {
        let message = error(text);
        assert!(message.contains(part), "{text:?}: {message}");
    }
}

#[test]
fn passwords_are_not_quoted() {
    for text in [
        "user:hunter2@quay.io/org/app:1",
        "https://user:hunter2@quay.io/org/app",
        "u:hunter2@h/a@b/c",
        "u:hunter2@quay.io/a b",
        " u:hunter2@quay.io/a",
    ] {
        assert!(!error(text).contains("hunter2"), "{}", error(text));
    }
}

#[test]
fn a_repository_has_no_tag() {
    let repository = Repository::parse("alpine").unwrap();
    assert_eq!(repository.to_string(), "docker.io/library/alpine");
    assert_eq!(repository.api_host(), "registry-1.docker.io");
    let local: Repository = "docker://localhost:5000/a/b".parse().unwrap();
    assert_eq!((local.host(), local.api_host(), local.name()), ("localhost:5000", "localhost:5000", "a/b"));
    assert!(Repository::parse("alpine:1").unwrap_err().to_string().contains("tag '1' is not wanted"));
    let message = Repository::parse(&format!("a@sha256:{HEX}")).unwrap_err().to_string();
    assert!(message.starts_with("digest 'sha256:"), "{message}");
    assert!(Repository::parse("oci:dir").unwrap_err().to_string().contains("a registry is needed"));
    let limit = format!("quay.io/{}", "a".repeat(247));
    assert_eq!(Repository::parse(&limit).unwrap().to_string().len(), 255);
}

#[test]
fn layouts_split_at_the_first_colon() {
    let digest = format!("sha256:{HEX}");
    for (text, dir, name, with_digest) in [
        ("oci:dir".to_owned(), "dir", None, false),
        ("oci:/a b/c:v1".to_owned(), "/a b/c", Some("v1"), false),
        (format!("oci:dir@{digest}"), "dir", None, true),
        (format!("oci:dir:v1@{digest}"), "dir", Some("v1"), true),
        ("oci:dir:quay.io/org/app:1".to_owned(), "dir", Some("quay.io/org/app:1"), false),
        (format!("oci:dir:quay.io/org/app:1@{digest}"), "dir", Some("quay.io/org/app:1"), true),
        ("oci:d@r:tag".to_owned(), "d@r", Some("tag"), false),
        ("oci:dir:a@b".to_owned(), "dir", Some("a@b"), false),
    ] {
        let ImageReference::Layout(layout) = text.parse().unwrap() else { panic!("{text} is a layout") };
        assert_eq!(layout.dir, Path::new(dir), "{text}");
        assert_eq!(layout.name.as_deref(), name, "{text}");
        assert_eq!(layout.digest.is_some(), with_digest, "{text}");
        assert_eq!(layout.to_string(), text);
    }
}

#[test]
fn layouts_become_absolute() {
    let absolute = |text: &str, base: &str| text.parse::<ImageReference>().unwrap().absolute(Path::new(base));
    assert_eq!(absolute("oci:./a/../b:t", "/home/x").unwrap().to_string(), "oci:/home/x/b:t");
    assert_eq!(absolute("oci:../../../b", "/home/x").unwrap().to_string(), "oci:/b");
    assert_eq!(absolute("oci:/a/./b/", "/home/x").unwrap().to_string(), "oci:/a/b");
    assert_eq!(absolute("alpine", "/home/x").unwrap().to_string(), "docker.io/library/alpine:latest");
    let message = absolute("oci:a", "/home/x:y").unwrap_err().to_string();
    assert!(message.contains("directory '/home/x:y/a' cannot be written"), "{message}");
    let hidden_digest = format!("oci:x@sha256/.:{HEX}");
    assert!(absolute(&hidden_digest, "/home").is_err());
}

proptest! {
    #[test]
    fn what_is_made_of_the_corpus_is_refused_or_sound(text in crate::corpus::mutated_lines("reference")) {
        let Ok(reference) = text.parse::<ImageReference>() else { return Ok(()) };
        let shown = reference.to_string();
        prop_assert!(!shown.chars().any(char::is_control), "{shown:?}");
        prop_assert_eq!(shown.parse::<ImageReference>().unwrap(), reference.clone());
        let ImageReference::Registry(reference) = reference else { return Ok(()) };
        let name = reference.repository.name();
        prop_assert!(!name.split('/').any(|part| part.is_empty() || part.starts_with('.') || part.contains("..")), "{name:?}");
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c);
        prop_assert!(name.chars().all(allowed), "{name:?}");
        let host = reference.repository.api_host();
        // Names in punycode that mean nothing are refused there.
        let Ok(url) = url::Url::parse(&format!("https://{host}/v2/{name}/")) else {
            prop_assert!(host.contains("xn--"), "{host}");
            return Ok(());
        };
        let host = host.to_ascii_lowercase();
        prop_assert_eq!(host.strip_suffix(":443").unwrap_or(&host), &url[url::Position::BeforeHost..url::Position::AfterPort]);
        prop_assert_eq!(url.path(), format!("/v2/{name}/"));
        prop_assert!(url.username().is_empty() && url.password().is_none() && url.query().is_none());
    }

    #[test]
    fn parsing_is_total_and_display_round_trips(
        text in "(docker://|oci:|dir:)?([A-Za-z0-9.-]{1,8}(:[0-9]{1,5})?/)?[a-zA-Z0-9._/-]{1,20}(:[A-Za-z0-9._-]{0,10})?|.{0,60}"
    ) {
        if let Ok(reference) = text.parse::<ImageReference>() {
            let shown = reference.to_string();
            let again: ImageReference = shown.parse().unwrap();
            prop_assert_eq!(&again, &reference);
            prop_assert_eq!(again.to_string(), shown);
        }
    }

    #[test]
    fn whatever_is_built_from_the_grammar_parses(
        host in "([a-z][a-z0-9]{0,5}\\.[a-z]{2,4}|localhost|\\[::1\\]|127\\.0\\.0\\.1)",
        port in proptest::option::of(1_u16..),
        name in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}){0,3}",
        tag in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"),
        content in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..4)),
    ) {
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let digest = content.map(|content| Digest::of(crate::oci::Algorithm::Sha512, &content));
        let mut text = format!("{host}{port}/{name}");
        text.extend(tag.iter().flat_map(|tag| [":", tag.as_str()]));
        text.extend(digest.iter().flat_map(|digest| ["@", digest.as_str()]));
        let reference: Reference = text.parse().unwrap();
        prop_assert_eq!(reference.repository.host(), format!("{host}{port}"));
        prop_assert_eq!(reference.repository.name(), &name);
        prop_assert_eq!(reference.digest.as_ref(), digest.as_ref());
        let expected_tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        prop_assert_eq!(reference.tag.as_ref().map(Tag::as_str), expected_tag.as_deref());
    }

    #[test]
    fn layouts_round_trip(dir in "/?[a-z@ .0-9-]{0,10}[a-z@.]", name in proptest::option::of("[a-z0-9]{1,5}([-._:@+]|--)?[a-z0-9]{1,40}"), digest: bool) {
        let digest = if digest { format!("@sha256:{HEX}") } else { String::new() };
        let text = format!("oci:{dir}{}{digest}", name.map_or_else(String::new, |name| format!(":{name}")));
        if let Ok(reference) = text.parse::<ImageReference>() {
            prop_assert_eq!(reference.to_string(), text);
        }
    }
}
