//! The real registry in all its settings, the token server it trusts, and skopeo as a second opinion.

use super::fake::shapes;
use crate::support::content::Content;
use crate::support::image::{self, ImageBuilder};
use crate::support::registry::{Options, Registry};
use crate::support::skopeo::Skopeo;
use crate::support::token_server::{Account, TokenServer};
use crate::support::{eventually, image::media};
use std::time::Duration;

#[test]
fn every_shape_of_image_survives_a_real_registry() {
    let Some(registry) = Registry::start() else {
        return;
    };
    for (name, image) in shapes() {
        image.push(&registry.client(), "some/thing", name);
        image.assert_at(&registry.client(), "some/thing", name);
    }
    let big = ImageBuilder::oci(90).layer(10).padded_to(3_500_000).build();
    big.push(&registry.client(), "some/thing", "big");
    big.assert_at(&registry.client(), "some/thing", "big");
}

#[test]
fn seeded_storage_is_served_and_read_by_skopeo() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = image::index(vec![ImageBuilder::oci(1).layers(3, 10_000).build(), ImageBuilder::oci(2).build()]);
    registry.seed("a/b", "v1", &image);
    image.assert_at(&registry.client(), "a/b", "v1");
    assert_eq!(registry.count("POST", "/"), 0);
    let Some(skopeo) = Skopeo::find() else { return };
    let reference = format!("docker://{}", registry.reference("a/b", "v1"));
    assert_eq!(skopeo.raw(&reference), image.manifest);
    let inspected = skopeo.inspect(&reference, &[]).success().json();
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 3);
    let copy = format!("docker://{}", registry.reference("copied", "v1"));
    skopeo.copy(&reference, &copy, &[]).success();
    image.assert_at(&registry.client(), "copied", "v1");
}

#[test]
fn skopeo_unpacks_what_the_builder_makes() {
    let (Some(registry), Some(skopeo)) = (Registry::start(), Skopeo::find()) else {
        return;
    };
    let image = ImageBuilder::docker(4).layers(2, 70_000).build();
    image.push(&registry.client(), "app", "v1");
    // A conversion reads every layer and the config, and compares the diff ids.
    let folder = tempfile::tempdir().unwrap();
    let source = format!("docker://{}", registry.reference("app", "v1"));
    let target = format!("docker-archive:{}/a.tar:app:v1", folder.path().display());
    let arguments =
        ["copy", "--src-tls-verify=false", "--override-os=linux", "--override-arch=amd64", &source, &target];
    skopeo.run(&arguments).success();
}

#[test]
fn requests_are_counted_at_a_real_registry() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = ImageBuilder::oci(1).layer(5_000_000).build();
    image.push(&registry.client(), "a", "v1");
    registry.client().get("/v2/a/tags/list?n=5").expect(200);
    registry.client().get(&format!("/v2/a/blobs/{}", image.layers()[0].digest)).expect(200);
    let requests = registry.requests();
    let seen: Vec<(&str, u16)> = requests.iter().map(|request| (request.method.as_str(), request.status)).collect();
    let expected = [("POST", 202), ("PUT", 201), ("POST", 202), ("PUT", 201), ("PUT", 201), ("GET", 200), ("GET", 200)];
    assert_eq!(seen, expected);
    assert_eq!(requests[5].path, "/v2/a/tags/list?n=5");
    assert_eq!(registry.count("PUT", "/manifests/v1"), 1);
    assert_eq!(registry.count("*", "/v2/"), 7);
}

#[test]
fn a_registry_with_users_wants_their_passwords() {
    let Some(registry) = Registry::with_user("me", "secret") else {
        return;
    };
    let refused = registry.client().get("/v2/").expect(401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic "));
    registry.client().basic("me", "wrong").get("/v2/").expect(401);
    let client = registry.client().basic("me", "secret");
    let image = ImageBuilder::oci(1).layer(10).build();
    image.push(&client, "a", "v1");
    image.assert_at(&client, "a", "v1");
}

#[test]
fn a_registry_with_tls_shows_a_certificate_of_its_authority() {
    let Some(registry) = Registry::with_tls() else {
        return;
    };
    let image = ImageBuilder::oci(1).layer(10).build();
    image.push(&registry.client(), "a", "v1");
    image.assert_at(&registry.client(), "a", "v1");
    let Some(skopeo) = Skopeo::find() else { return };
    let reference = format!("docker://{}", registry.reference("a", "v1"));
    let skopeo = skopeo.trusting(&registry.ca().unwrap());
    assert_eq!(skopeo.raw(&reference), image.manifest);
    let other = crate::support::tls::Authority::new();
    let stranger = Skopeo::find().unwrap().trusting(&other.ca());
    assert_ne!(stranger.inspect(&reference, &["--raw"]).code(), Some(0));
}

#[test]
fn a_registry_survives_a_restart_and_can_become_read_only() {
    let Some(mut registry) = Registry::start() else {
        return;
    };
    let image = ImageBuilder::oci(1).layer(10).build();
    image.push(&registry.client(), "a", "v1");
    let authority = registry.authority().to_owned();
    registry.stop();
    assert!(registry.client().try_send("GET", "/v2/", &[], None).is_err());
    registry.restart_read_only();
    assert_eq!(registry.authority(), authority);
    image.assert_at(&registry.client(), "a", "v1");
    registry.client().send("POST", "/v2/a/blobs/uploads/", &[], None).expect(405);
    let options = Options { read_only: true, relative_locations: true, ..Options::default() };
    let other = Registry::start_with(&options).unwrap();
    other.client().send("POST", "/v2/a/blobs/uploads/", &[], None).expect(405);
    assert!(registry.log().contains("listening on"));
}

#[test]
fn locations_of_a_real_registry_can_be_relative() {
    let Some(registry) = Registry::start_with(&Options { relative_locations: true, ..Options::default() }) else {
        return;
    };
    let begun = registry.client().send("POST", "/v2/a/blobs/uploads/", &[], None).expect(202);
    assert!(begun.header("location").unwrap().starts_with("/v2/a/"));
}

#[test]
fn the_real_registry_takes_our_tokens() {
    let tokens = TokenServer::start(vec![
        Account::anonymous().may("repository:public/*", "pull"),
        Account::user("me", "secret").may("repository:team/*", "*").may("repository:public/*", "pull"),
    ]);
    let Some(registry) = Registry::with_tokens(&tokens) else {
        return;
    };
    let refused = registry.client().get("/v2/team/app/tags/list").expect(401);
    let challenge = refused.header("www-authenticate").unwrap().to_owned();
    assert!(challenge.contains(&tokens.realm()) && challenge.contains("repository:team/app:pull"), "{challenge}");

    let image = ImageBuilder::oci(1).layer(1_000).build();
    let minted = tokens.mint(&["repository:public/app:pull,push"]);
    image.push(&registry.client().bearer(&minted), "public/app", "v1");

    let realm = tokens.realm();
    let server = crate::support::http::Client::new(realm["http://".len()..].trim_end_matches("/token"));
    let ask = |client: &crate::support::http::Client, query: &str| {
        let answer = client.get(&format!("/token?service=x&{query}"));
        answer.expect(200).json()["token"].as_str().unwrap().to_owned()
    };
    // Anonymous may pull what is public, and no more.
    let token = ask(&server, "scope=repository:public/app:pull,push&scope=repository:team/app:pull");
    image.assert_at(&registry.client().bearer(&token), "public/app", "v1");
    registry.client().bearer(&token).send("POST", "/v2/public/app/blobs/uploads/", &[], None).expect(401);
    registry.client().bearer(&token).get("/v2/team/app/tags/list").expect(401);
    // The user may do all in the team.
    let me = server.clone().basic("me", "secret");
    let token = ask(&me, "scope=repository:team/app:pull,push");
    image.push(&registry.client().bearer(&token), "team/app", "v1");
    server.clone().basic("me", "wrong").get("/token?scope=repository:team/app:pull").expect(401);
    let form = "grant_type=password&username=me&password=secret&service=x&scope=repository:team/app:pull";
    server.send("POST", "/token", &[], Some(&Content::from(form))).expect(200);

    let asked = tokens.asked();
    let seen: Vec<(&str, Option<&str>, u16)> =
        asked.iter().map(|asked| (asked.method.as_str(), asked.user.as_deref(), asked.status)).collect();
    let me = Some("me");
    assert_eq!(seen, [("GET", None, 200), ("GET", me, 200), ("GET", me, 401), ("POST", me, 200)]);
    assert_eq!(asked[0].scopes, ["repository:public/app:pull,push", "repository:team/app:pull"]);
    assert_eq!(asked[0].service.as_deref(), Some("x"));
}

#[test]
fn a_short_token_ends_when_it_says() {
    let tokens = TokenServer::start(vec![]);
    let Some(registry) = Registry::with_tokens(&tokens) else {
        return;
    };
    tokens.set_lifetime(Duration::from_secs(2));
    let client = registry.client().bearer(&tokens.mint(&["repository:a:pull"]));
    client.get("/v2/a/tags/list").expect(404);
    eventually("the token to expire", || (client.get("/v2/a/tags/list").status == 401).then_some(()));
}

#[test]
fn skopeo_logs_in_with_our_tokens() {
    let tokens = TokenServer::start(vec![Account::user("me", "secret").may("*", "*")]);
    let (Some(registry), Some(skopeo)) = (Registry::with_tokens(&tokens), Skopeo::find()) else {
        return;
    };
    let image = ImageBuilder::oci(1).layer(1_000).build();
    let folder = tempfile::tempdir().unwrap();
    image.write_layout(folder.path(), "v1");
    let source = format!("oci:{}:v1", folder.path().display());
    let target = format!("docker://{}", registry.reference("team/app", "v1"));
    skopeo.copy(&source, &target, &["--dest-creds=me:secret"]).success();
    let client = registry.client().bearer(&tokens.mint(&["repository:team/app:pull"]));
    image.assert_at(&client, "team/app", "v1");
    assert_eq!(image.media_type, media::OCI_MANIFEST);
    assert!(tokens.asked().iter().all(|asked| asked.user.as_deref() == Some("me")));
}
