//! Callers that mean no good, and days that are not.

use super::Served;
use crate::support::binary::Binary;
use crate::support::content::Content;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn nonsense_is_refused_with_a_reason() {
    let binary = Binary::new();
    let served = Served::start(&binary, &[]);
    let send = |method: &str, path: &str, body: &[u8]| {
        served.client.send(method, path, &[], Some(&Content::Bytes(body.to_vec().into())))
    };
    for (body, word) in [
        (&b""[..], "EOF"),
        (b"{", "EOF"),
        (b"\xff\xfe", "line 1"),
        (b"null", "did not match"),
        (b"[]", "1 to 1000"),
        (b"{\"jobs\": 5}", "list"),
        (b"{\"source\": \"a.example/x:1\"}", "destination"),
        (b"{\"source\": \"a.example/x:1\", \"destination\": \"b.example/x:1\", \"nope\": 1}", "nope"),
        (b"{\"source\": \"a b\", \"destination\": \"b.example/x:1\"}", "source"),
        (b"{\"source\": \"a.example/x:1\", \"destination\": \"b.example/x:1\", \"priority\": 99999999999}", "priority"),
        (b"{\"source\": \"a.example/x:1\", \"destination\": \"b.example/x:1\", \"run_at\": \"soon\"}", "run_at"),
        (b"{\"source\": \"a.example/x:1\", \"destination\": \"b.example/x:1\", \"options\": {\"froce\": true}}", "froce"),
        (b"[{\"source\": \"a.example/x:1\", \"destination\": \"b.example/x:1\"}, {\"source\": \"x y\", \"destination\": \"b\"}]", "job 1"),
    ] {
        let answer = send("POST", "/api/v1/jobs", body).expect(400).json();
        assert!(answer["error"].as_str().unwrap().contains(word), "{word}: {answer}");
        assert!(answer["request_id"].is_string());
    }
    for path in [
        "/api/v1/jobs?limit=0",
        "/api/v1/jobs?limit=x",
        "/api/v1/jobs?state=odd",
        "/api/v1/jobs?after=x",
        "/api/v1/jobs?nope=1",
        "/api/v1/jobs?since=never",
        "/api/v1/jobs/x/events",
        "/api/v1/jobs/1/wait?timeout=1e9",
        "/api/v1/jobs/1/wait?timeout=-1",
        "/api/v1/batches/x",
        "/api/v1/events?after=-1",
        "/api/v1/events?job=x",
        "/api/v1/jobs/%ff/events",
    ] {
        let answer = served.get(path).expect(400);
        assert!(answer.json()["error"].is_string(), "{path}");
    }
    for path in [
        "/api/v1/jobs/99",
        "/api/v1/jobs/-1",
        "/api/v1/jobs/../../etc",
        "/api/v1/mirrors/x",
        "/api/v1/schedules/x",
        "/x",
        "/",
    ] {
        assert!(served.get(path).expect(404).json()["error"].is_string(), "{path}");
    }
    served.client.send("PATCH", "/api/v1/jobs", &[], None).expect(405);
    assert_eq!(binary.run(&["jobs", "list", "-o", "json"]).success().text(), "[]\n");
    served.end();
}

#[test]
fn large_bodies_and_heads_are_cut_off_without_taking_memory() {
    let binary = Binary::new();
    let mut served = Served::start(&binary, &[]);
    let mut stream = TcpStream::connect(&served.address).unwrap();
    let length = 1_u64 << 30;
    write!(stream, "POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n").unwrap();
    let piece = vec![b'x'; 1 << 20];
    // A server may close before all is read.
    let sent = (0..64).take_while(|_| stream.write_all(&piece).is_ok()).count();
    let mut answer = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413") || sent < 64, "{sent} {answer}");
    let mut stream = TcpStream::connect(&served.address).unwrap();
    write!(stream, "GET /live HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    for number in 0..100_000 {
        if write!(stream, "X-Header-{number}: x\r\n").is_err() {
            break;
        }
    }
    let _ = write!(stream, "\r\n");
    let mut answer = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    served.get("/live").expect(200);
    let memory = served.running.peak_memory_kib();
    assert!(memory < 96 * 1024, "{memory} KiB");
    served.end();
}

#[test]
fn who_sends_slowly_is_let_go() {
    let binary = Binary::new();
    let served = Served::start(&binary, &["--read-timeout", "1s", "--write-timeout", "2s"]);
    let end = |head: &str| {
        let mut stream = TcpStream::connect(&served.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    assert!(end("GET /live HTTP/1.1\r\nHost: loc").is_ok(), "a head that never ends");
    let body = end("POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    assert!(body.unwrap().starts_with("HTTP/1.1 408"), "a body that never ends");
    served.end();
}

#[test]
fn a_database_that_is_locked_for_long_is_said_and_nothing_acknowledged_is_lost() {
    let binary = Binary::new();
    let served = Served::start(&binary, &[]);
    if binary.database().is_postgres() {
        return;
    }
    served.post("/api/v1/jobs", &json!({"source": "127.0.0.1:9/a:1", "destination": "127.0.0.1:9/b:1"})).expect(202);
    let lock = rusqlite_lock(&binary);
    served.get("/live").expect(200);
    let answer = served.get("/ready");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["checks"]["writer"]["status"], "unhealthy");
    assert!(answer.header("retry-after").is_some());
    drop(lock);
    crate::support::eventually("it to be ready again", || (served.get("/ready").status == 200).then_some(()));
    served.post("/api/v1/jobs", &json!({"source": "127.0.0.1:9/a:2", "destination": "127.0.0.1:9/b:2"})).expect(202);
    assert_eq!(binary.run(&["jobs", "list", "-o", "json"]).success().json().as_array().unwrap().len(), 2);
    served.end();
}

/// Somebody else's write lock, until it is dropped.
fn rusqlite_lock(binary: &Binary) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(binary.database().file()).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}
