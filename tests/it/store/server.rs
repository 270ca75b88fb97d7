//! The database as a server: what only PostgreSQL has.

use super::Bench;
use freightliner::clock::Clock;
use freightliner::store::{Error, Store};

#[tokio::test]
async fn a_newer_schema_is_refused_and_untouched() {
    let bench = Bench::new().await;
    bench
        .sql("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (999, 'future', '', 0)")
        .await
        .unwrap();
    let again = Store::open(&bench.database.url().parse().unwrap(), Clock::System).await;
    let Err(Error::Unusable(message)) = again else { panic!("it was opened") };
    assert!(message.contains("999") && message.contains("newer") && message.contains("upgrade"), "{message}");
}
