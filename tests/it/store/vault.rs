//! Sealed credentials.

use super::Bench;
use freightliner::clock::UnixMillis;
use freightliner::store::Sealed;

fn sealed(registry: &str, username: &str, key: &str, text: &str) -> Sealed {
    Sealed {
        registry: registry.to_owned(),
        username: username.to_owned(),
        key_id: key.to_owned(),
        sealed: text.to_owned(),
        created_at: UnixMillis(1),
        changed_at: UnixMillis(1),
        changed_by: "nobody".to_owned(),
    }
}

#[tokio::test]
async fn a_registry_has_one_credential_and_its_history_stays() {
    let bench = Bench::new().await;
    let store = &bench.store;
    store.credential_put(sealed("b.example", "maria", "k1", "one"), "test").await.unwrap();
    store.credential_put(sealed("a.example:5000", "adam", "k1", "two"), "test").await.unwrap();
    store.credential_put(sealed("b.example", "eve", "k1", "three"), "other").await.unwrap();
    let all = store.credentials(None).await.unwrap();
    let names: Vec<_> = all.iter().map(|found| (found.registry.as_str(), found.username.as_str())).collect();
    assert_eq!(names, [("a.example:5000", "adam"), ("b.example", "eve")]);
    let one = store.credentials(Some("b.example")).await.unwrap().pop().unwrap();
    assert_eq!((one.sealed.as_str(), one.changed_by.as_str()), ("three", "other"));
    assert!(one.created_at > UnixMillis(1) && one.changed_at >= one.created_at, "times are not taken from it");
    assert!(store.credentials(Some("c.example")).await.unwrap().is_empty());
    assert!(!store.credential_reseal("one", sealed("b.example", "eve", "k2", "four"), "test").await.unwrap());
    assert!(store.credential_reseal("three", sealed("b.example", "eve", "k2", "four"), "test").await.unwrap());
    assert!(store.credential_remove("b.example", "test").await.unwrap());
    assert!(!store.credential_remove("b.example", "test").await.unwrap());
    assert!(store.credentials(Some("b.example")).await.unwrap().is_empty());
    assert!(!store.credential_reseal("", sealed("b.example", "eve", "k3", "five"), "test").await.unwrap());
    let left = "SELECT COUNT(*) FROM credentials WHERE registry = 'b.example' AND sealed = ''";
    assert_eq!(bench.number(left).await, 1, "what was sealed is gone");
    store.credential_put(sealed("b.example", "eve", "k2", "six"), "test").await.unwrap();
    let query = "SELECT change FROM audit_credentials WHERE registry = 'b.example' ORDER BY seq";
    let rows = store.query(query, 10, std::time::Duration::from_secs(5)).await.unwrap().rows;
    let changes: Vec<_> = rows.iter().map(|row| row[0].as_str().unwrap()).collect();
    assert_eq!(changes, ["stored", "stored", "resealed", "removed", "stored"]);
    for statement in
        ["DELETE FROM credentials", "UPDATE credentials SET registry = 'c.example'", "DELETE FROM credential_changes"]
    {
        assert!(bench.sql(statement).await.is_err(), "{statement}");
    }
}
