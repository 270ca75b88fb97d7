//! The fake's users and tokens.

use crate::support::fake::{Auth, Fake, Options};
use crate::support::image::ImageBuilder;
use std::time::Duration;

#[test]
fn basic_authentication() {
    let fake = Fake::start_with(Options { auth: Auth::basic("me", "secret"), ..Options::default() });
    let refused = fake.client().get("/v2/").expect(401);
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"fake\""));
    fake.client().basic("me", "wrong").get("/v2/").expect(401);
    fake.client().basic("me", "secret").get("/v2/").expect(200);
    let authorized: Vec<bool> = fake.requests().iter().map(|request| request.authorized()).collect();
    assert_eq!(authorized, [false, true, true]);
}

#[test]
fn tokens_are_for_their_user_scope_and_time() {
    let fake = Fake::start_with(Options { auth: Auth::bearer_for("me", "secret"), ..Options::default() });
    fake.put_image("a", "v1", &ImageBuilder::oci(1).build());
    let refused = fake.client().get("/v2/a/manifests/v1").expect(401);
    let expected = format!("Bearer realm=\"{}/token\",service=\"fake\",scope=\"repository:a:pull\"", fake.base_url());
    assert_eq!(refused.header("www-authenticate"), Some(expected.as_str()));

    let target = "/token?service=fake&scope=repository:a:pull";
    fake.client().get(target).expect(401);
    let token =
        fake.client().basic("me", "secret").get(target).expect(200).json()["token"].as_str().unwrap().to_owned();
    let holder = fake.client().bearer(&token);
    holder.get("/v2/a/manifests/v1").expect(200);
    let refused = holder.get("/v2/b/tags/list").expect(401);
    assert!(refused.header("www-authenticate").unwrap().contains("error=\"insufficient_scope\""));
    holder.send("POST", "/v2/a/blobs/uploads/", &[], None).expect(401);
    fake.revoke_tokens();
    let refused = holder.get("/v2/a/manifests/v1").expect(401);
    assert!(refused.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));

    fake.set_token_lifetime(Duration::ZERO);
    let form = "grant_type=password&username=me&password=secret&service=fake&scope=repository:a:pull";
    let expired = fake.client().send("POST", "/token", &[], Some(&form.into())).expect(200);
    fake.client().bearer(expired.json()["token"].as_str().unwrap()).get("/v2/a/manifests/v1").expect(401);
    let asked: Vec<(bool, Option<String>)> =
        fake.token_requests().into_iter().map(|request| (request.granted, request.user)).collect();
    assert_eq!(asked, [(false, None), (true, Some("me".into())), (true, Some("me".into()))]);
    assert_eq!(fake.token_requests()[2].scopes, ["repository:a:pull"]);
}
