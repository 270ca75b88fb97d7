//! Keys of the API and the record of its calls.

use super::{Bench, numbered};
use freightliner::access::{Call, Destination, KeyHash, NewKey, Role};
use freightliner::clock::UnixMillis;

fn call(request: &str, allowed: bool) -> Call {
    Call {
        request_id: request.to_owned(),
        key_id: None,
        key_name: "ci".to_owned(),
        role: Role::Enqueue,
        address: "192.0.2.1".to_owned(),
        method: "POST".to_owned(),
        path: "/api/v1/jobs".to_owned(),
        allowed,
    }
}

#[tokio::test]
async fn a_key_is_kept_as_it_was_made_and_revoked_once() {
    let bench = Bench::new().await;
    let place: Destination = "h.example/team".parse().unwrap();
    let end = UnixMillis(4_000_000_000_000);
    let (first, key) = NewKey::generate("ci", Role::Operate, Some(vec![place.clone()]), Some(end)).unwrap();
    let (second, _) = NewKey::generate("ci", Role::Read, None, None).unwrap();
    bench.store.key_add(first.clone(), "test").await.unwrap();
    bench.store.key_add(second.clone(), "test").await.unwrap();
    let found = bench.store.keys(Some(&first.id)).await.unwrap().pop().expect("the key");
    assert_eq!((found.name.as_str(), found.role, found.created_by.as_str()), ("ci", Role::Operate, "test"));
    assert_eq!((found.destinations, found.expires_at, found.revoked_at), (Some(vec![place]), Some(end), None));
    assert!(found.hash.matches(&KeyHash::of(&key)));
    assert!(bench.store.keys(Some("nobody")).await.unwrap().is_empty());
    assert_eq!(bench.store.key_revoke(&second.id, "eve").await.unwrap(), 1);
    assert_eq!(bench.store.key_revoke("ci", "adam").await.unwrap(), 1);
    assert_eq!(bench.store.key_revoke("ci", "adam").await.unwrap(), 0);
    let all = bench.store.keys(None).await.unwrap();
    let by = |id: &str| all.iter().find(|key| key.id == id).unwrap().revoked_by.clone();
    assert_eq!((by(&first.id).as_deref(), by(&second.id).as_deref(), all.len()), (Some("adam"), Some("eve"), 2));
    assert!(bench.store.key_add(first, "test").await.is_err(), "an id is used once");
}

#[tokio::test]
async fn calls_stay_on_record_until_they_are_removed_with_a_record() {
    let bench = Bench::new().await;
    for (request, allowed) in [("a", true), ("b", false), ("c", true)] {
        bench.store.call_add(call(request, allowed)).await.unwrap();
    }
    let query = "SELECT request_id, outcome FROM audit_api ORDER BY seq";
    let look = async || bench.store.query(query, 10, std::time::Duration::from_secs(5)).await.unwrap().rows;
    let rows = look().await;
    assert_eq!(
        rows,
        [["a", "allowed"], ["b", "refused"], ["c", "allowed"]].map(|row| row.map(serde_json::Value::from).to_vec())
    );
    assert_eq!(bench.store.calls_prune(UnixMillis(1), 10, "test").await.unwrap(), 0);
    let later = UnixMillis(4_000_000_000_000);
    assert_eq!(bench.store.calls_prune(later, 2, "test").await.unwrap(), 2);
    assert_eq!(look().await, [["c", "allowed"].map(serde_json::Value::from).to_vec()]);
    assert_eq!(bench.store.calls_prune(later, 2, "test").await.unwrap(), 1);
    assert_eq!(bench.store.calls_prune(later, 2, "test").await.unwrap(), 0);
    let query = "SELECT actor, COUNT(*) FROM api_call_prunes GROUP BY actor";
    let rows = bench.store.query(query, 10, std::time::Duration::from_secs(5)).await.unwrap().rows;
    assert_eq!(rows, [vec![serde_json::Value::from("test"), serde_json::Value::from(2)]]);
}

#[tokio::test]
async fn keys_and_calls_cannot_be_changed_by_hand() {
    let bench = Bench::new().await;
    let (key, _) = NewKey::generate("ci", Role::Read, None, None).unwrap();
    bench.store.key_add(key, "test").await.unwrap();
    bench.store.call_add(call("a", true)).await.unwrap();
    for statement in [
        "UPDATE api_keys SET role = 'admin'",
        "UPDATE api_keys SET expires_at = NULL, hash = hash || '', name = 'x'",
        "DELETE FROM api_keys",
        "UPDATE api_calls SET outcome = 'refused'",
        "DELETE FROM api_calls",
    ] {
        assert!(bench.sql(statement).await.is_err(), "{statement}");
    }
    bench.sql("UPDATE api_keys SET revoked_at = 5, revoked_by = 'sql'").await.unwrap();
    assert!(bench.sql("UPDATE api_keys SET revoked_at = NULL").await.is_err(), "revoked for good");
}

#[tokio::test]
async fn the_history_of_all_jobs_is_read_in_pieces() {
    let bench = Bench::new().await;
    bench.store.enqueue((1..=5).map(numbered).collect(), "test").await.unwrap();
    let all = bench.store.events_after(0, 100).await.unwrap();
    assert!(all.len() >= 5 && all.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    let (mut seq, mut pieces) = (0, Vec::new());
    loop {
        let piece = bench.store.events_after(seq, 2).await.unwrap();
        let Some(last) = piece.last() else { break };
        assert!(piece.len() <= 2);
        seq = last.seq;
        pieces.extend(piece.iter().map(|event| event.seq));
    }
    assert_eq!(pieces, all.iter().map(|event| event.seq).collect::<Vec<_>>());
    assert_eq!(bench.store.last_event().await.unwrap(), seq);
}
