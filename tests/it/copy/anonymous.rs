//! Without credentials: what is public can be read, and nothing is invented for what is not.

use super::{assert_failure, binary, fails, replicated};
use crate::support::fake::{Auth, Fake, Options};
use crate::support::image::ImageBuilder;
use crate::support::registry::Registry;
use crate::support::token_server::{Account, TokenServer};

#[test]
fn a_public_repository_is_read_with_an_anonymous_token() {
    let tokens = TokenServer::start(vec![Account::anonymous().may("repository:public/*", "pull")]);
    let Some(source) = Registry::with_tokens(&tokens) else {
        return;
    };
    let (destination, binary) = (Fake::start(), binary());
    let image = ImageBuilder::oci(1).layers(2, 1_000).build();
    source.seed("public/app", "v1", &image);
    source.seed("team/app", "v1", &image);
    replicated(&binary, &source.reference("public/app", "v1"), &destination.reference("b", "v1"), &[]);
    super::assert_whole(&destination, "b", "v1", &image);
    assert!(tokens.asked().iter().all(|asked| asked.user.is_none()), "{:?}", tokens.asked());
    // A private repository: denied at once, and the message says that nobody was logged in.
    let job = fails(&binary, &source.reference("team/app", "v1"), &destination.reference("c", "v1"), &[]);
    assert_failure(&job, "denied", "resolve", 1);
    let message = job["failure"]["message"].as_str().unwrap();
    assert!(message.contains("credentials"), "{message}");
    super::assert_nothing_published(&destination, "c");
}

#[test]
fn nothing_is_sent_to_a_registry_that_asks_for_nothing() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), binary());
    let image = ImageBuilder::oci(1).layer(1_000).build();
    source.put_image("a", "v1", &image);
    // Credentials are for the registry they are named for, and kept from others on the same host.
    binary.docker_login("127.0.0.1", "ann", "one");
    replicated(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    let requests = [source.requests(), destination.requests()].concat();
    assert!(requests.iter().all(|request| !request.authorized()), "{requests:#?}");
}

#[test]
fn tokens_for_everybody_are_asked_for_once_a_scope() {
    let options = || Options { auth: Auth::bearer(), ..Options::default() };
    let (source, destination) = (Fake::start_with(options()), Fake::start_with(options()));
    let image = ImageBuilder::oci(1).layers(6, 1_000).build();
    source.put_image("a", "v1", &image);
    replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    super::assert_whole(&destination, "b", "v1", &image);
    assert_eq!(source.token_requests().len(), 1, "{:?}", source.token_requests());
    assert!(destination.token_requests().len() <= 2, "{:?}", destination.token_requests());
    let wanted: Vec<String> = source.token_requests().into_iter().flat_map(|request| request.scopes).collect();
    assert_eq!(wanted, ["repository:a:pull"], "no more is asked for than is needed");
}
