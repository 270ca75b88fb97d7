//! What can be asked for, in both programs' words.

use super::{Served, key};
use crate::support::binary::Binary;
use crate::support::eventually;
use serde_json::{Value, json};

fn wanted(number: u32) -> Value {
    json!({"source": format!("127.0.0.1:9/a:{number}"), "destination": format!("127.0.0.1:9/b:{number}"), "queue": "held"})
}

/// A server with a queue that nobody works on.
fn held(binary: &Binary) -> Served {
    binary.run(&["queue", "pause", "held"]).success();
    Served::start(binary, &[])
}

#[test]
fn a_job_is_asked_for_listed_cancelled_and_retried() {
    let binary = Binary::new();
    let served = held(&binary);
    let made = served.post("/api/v1/jobs", &wanted(1)).expect(202).json();
    assert_eq!(made, json!({"id": "1", "created": true}));
    // Durable before the answer.
    let row = binary.run(&["jobs", "show", "1", "-o", "json"]).success().json();
    assert_eq!((&row["state"], &row["queue"]), (&json!("pending"), &json!("held")));
    assert_eq!(served.post("/api/v1/jobs", &wanted(1)).expect(200).json(), json!({"id": "1", "created": false}));
    let many = served.post("/api/v1/jobs", &json!([wanted(2), wanted(3)])).expect(202).json();
    assert_eq!(many["count"], 2);
    let shown = served.get("/api/v1/jobs/1").expect(200).json();
    assert_eq!((&shown["id"], &shown["status"], &shown["type"]), (&json!("1"), &json!("pending"), &json!("replicate")));
    assert_eq!(shown["end_time"], "0001-01-01T00:00:00Z");
    let page = served.get("/api/v1/jobs?limit=2").expect(200).json();
    let ids = |page: &Value| page["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect::<Vec<_>>();
    assert_eq!((ids(&page), &page["next"]), (vec![json!("3"), json!("2")], &json!("2")));
    assert_eq!(ids(&served.get("/api/v1/jobs?limit=2&after=2").expect(200).json()), [json!("1")]);
    let cancelled = served.post("/api/v1/jobs/1/cancel", &json!({})).expect(200).json();
    assert_eq!((&cancelled["status"], &cancelled["state"]), (&json!("cancelled"), &json!("cancelled")));
    served.post("/api/v1/jobs/1/cancel", &json!({})).expect(400);
    for spelling in ["cancelled", "canceled"] {
        assert_eq!(ids(&served.get(&format!("/api/v1/jobs?status={spelling}")).expect(200).json()), [json!("1")]);
    }
    served.post("/api/v1/jobs/1/retry", &json!({})).expect(202);
    assert_eq!(served.get("/api/v1/jobs/1").expect(200).json()["generation"], 2);
    assert_eq!(
        served.client.send("DELETE", "/api/v1/jobs/2/cancel", &[], None).expect(200).json()["state"],
        "cancelled"
    );
    let events = served.get("/api/v1/jobs/1/events").expect(200).json();
    let actors: Vec<&str> =
        events["events"].as_array().unwrap().iter().filter_map(|event| event["actor"].as_str()).collect();
    assert_eq!(actors, ["api:anonymous"; 4], "made, asked for again, cancelled, retried");
    let waited = served.get("/api/v1/jobs/1/wait?timeout=0.05").expect(200).json();
    assert_eq!(waited["state"], "pending");
    assert_eq!(served.get("/api/v1/stats").expect(200).json()["pending"], 2);
    let queues = served.get("/api/v1/queues").expect(200).json();
    assert!(queues["queues"].as_array().unwrap().iter().any(|queue| queue["name"] == "held" && queue["pending"] == 2));
    assert_eq!(served.get("/api/v1/workers").expect(200).json()["count"], 1);
    served.end();
}

#[test]
fn a_key_of_the_header_makes_a_call_idempotent() {
    let binary = Binary::new();
    let served = held(&binary);
    let header = [("Idempotency-Key", "night")];
    served.with(&header, "/api/v1/jobs", &wanted(1)).expect(202);
    assert_eq!(served.with(&header, "/api/v1/jobs", &wanted(1)).expect(200).json()["created"], false);
    let conflict = served.with(&header, "/api/v1/jobs", &wanted(2)).expect(409).json();
    assert!(conflict["error"].as_str().unwrap().contains("source"), "{conflict}");
    let many = json!([wanted(5), wanted(6)]);
    let header = [("Idempotency-Key", "many")];
    served.with(&header, "/api/v1/jobs", &many).expect(202);
    let again = served.with(&header, "/api/v1/jobs", &many).expect(200).json();
    assert!(again["jobs"].as_array().unwrap().iter().all(|job| job["created"] == false), "{again}");
    served.end();
}

#[test]
fn the_calls_of_the_earlier_program_answer_as_it_did() {
    let binary = Binary::new();
    let served = Served::start(&binary, &[]);
    let tags = json!({
        "source_registry": "127.0.0.1:9", "source_repo": "a", "dest_registry": "127.0.0.1:9", "dest_repo": "b",
        "tags": ["1", "2"], "force": true,
    });
    let made = served.post("/api/v1/replicate", &tags).expect(202).json();
    let id = made["job_id"].as_str().unwrap().to_owned();
    assert_eq!((id.len(), &made["status"]), (36, &json!("pending")));
    let copies = eventually("its copies", || {
        let jobs = served.get(&format!("/api/v1/jobs?batch={id}&type=copy")).expect(200).json()["jobs"].clone();
        (jobs.as_array().unwrap().len() == 2).then_some(jobs)
    });
    assert!(copies.as_array().unwrap().iter().all(|job| job["options"] == json!({"force": true})), "{copies}");
    let shown = served.get(&format!("/api/v1/jobs/{id}")).expect(200).json();
    assert_eq!((&shown["type"], &shown["source"]), (&json!("replicate"), &json!("127.0.0.1:9/a")));
    for name in ["id", "type", "source", "destination", "start_time", "end_time", "status"] {
        assert!(shown[name].is_string(), "{name}: {shown}");
    }
    let listed = served.get("/api/v1/jobs?type=replicate").expect(200).json();
    assert_eq!((&listed["count"], &listed["jobs"][0]["id"]), (&json!(1), &json!(id)));
    assert_eq!(
        served.get("/api/v1/jobs?type=replicate-tree").expect(200).json(),
        json!({"jobs": [], "count": 0, "next": null})
    );
    let tree = json!({
        "source_registry": "127.0.0.1:9", "source_repo": "a", "dest_registry": "127.0.0.1:9", "dest_repo": "b",
        "exclude_repos": ["x*"], "include_tags": ["v*"], "enable_checkpoint": true, "checkpoint_dir": "/x",
    });
    let tree_id =
        served.post("/api/v1/replicate-tree", &tree).expect(202).json()["job_id"].as_str().unwrap().to_owned();
    let resumed = served.post("/api/v1/replicate-tree", &json!({"resume_id": tree_id})).expect(202).json();
    assert_eq!(resumed["job_id"], json!(tree_id));
    let checkpoints = served.get("/api/v1/checkpoints").expect(200).json();
    assert_eq!(checkpoints["count"], 2);
    let one = served.get(&format!("/api/v1/checkpoints/{tree_id}")).expect(200).json();
    for name in ["created_at", "status", "total_repositories", "total_tags_copied", "total_errors", "repositories"] {
        assert!(!one[name].is_null(), "{name}: {one}");
    }
    let gone = served.client.send("DELETE", &format!("/api/v1/checkpoints/{tree_id}"), &[], None).expect(200).json();
    assert_eq!((&gone["id"], &gone["status"]), (&json!(tree_id), &json!("deleted")));
    let missing = served.get(&format!("/api/v1/checkpoints/{tree_id}")).expect(404).json();
    assert_eq!(missing["error"], "Checkpoint not found");
    assert_eq!(
        served.get("/api/v1/jobs/0b8ae1f6-0000-4000-8000-000000000000").expect(404).json()["error"],
        "Job not found"
    );
    let short =
        served.post("/api/v1/replicate", &json!({"source": "127.0.0.1:9/a:1", "destination": "127.0.0.1:9/c:1"}));
    assert!(short.expect(202).json()["job_id"].as_str().unwrap().parse::<u64>().is_ok());
    let missing = served.post("/api/v1/replicate", &json!({"source_registry": "127.0.0.1:9"})).expect(400).json();
    assert!(missing["error"].as_str().unwrap().starts_with("Invalid request: "), "{missing}");
    served.end();
}

#[test]
fn a_listener_goes_on_where_it_was() {
    use std::io::{BufRead, BufReader, Write};
    let binary = Binary::new();
    let served = held(&binary);
    let listen = |header: &str| {
        let mut stream = std::net::TcpStream::connect(&served.address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").unwrap();
        BufReader::new(stream)
    };
    let ids = |reader: &mut BufReader<std::net::TcpStream>, count: usize| {
        let mut found = Vec::new();
        let mut line = String::new();
        while found.len() < count {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended after {found:?}");
            found.extend(line.strip_prefix("id: ").and_then(|id| id.trim().parse::<i64>().ok()));
        }
        found
    };
    let mut live = listen("");
    let mut greeting = String::new();
    while !greeting.starts_with(": hello") {
        greeting.clear();
        live.read_line(&mut greeting).unwrap();
    }
    served.post("/api/v1/jobs", &json!([wanted(1), wanted(2), wanted(3)])).expect(202);
    let seen = ids(&mut live, 3);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    drop(live);
    let mut later = listen(&format!("Last-Event-ID: {}\r\n", seen[0]));
    assert_eq!(ids(&mut later, 2), seen[1..]);
    // By another process: noticed too.
    binary.run(&["jobs", "cancel", "1"]).success();
    assert_eq!(ids(&mut later, 1), [seen[2] + 1]);
    served.end();
}

#[test]
fn schedules_and_queues_are_steered() {
    let binary = Binary::new();
    let served = held(&binary);
    let schedule = json!({
        "name": "nightly", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "source": "a.example/x:1",
        "destination": "b.example/x:1", "queue": "held",
    });
    served.post("/api/v1/schedules", &schedule).expect(201);
    served.post("/api/v1/schedules", &schedule).expect(409);
    let wrong =
        served.post("/api/v1/schedules", &json!({"name": "x", "cron": "often", "source": "a b"})).expect(400).json();
    assert!(wrong["error"].as_str().unwrap().contains("schedules.x"), "{wrong}");
    assert_eq!(served.get("/api/v1/schedules").expect(200).json()["count"], 1);
    let next = served.get("/api/v1/schedules/nightly/next?n=3").expect(200).json();
    assert!(
        next["times"].as_array().unwrap().iter().all(|time| time["local"].as_str().unwrap().contains("T02:30:00")),
        "{next}"
    );
    let fired = served.post("/api/v1/schedules/nightly/run", &json!({})).expect(202).json();
    let job = served.get(&format!("/api/v1/jobs/{}", fired["id"].as_str().unwrap())).expect(200).json();
    assert_eq!((&job["source"], &job["queue"]), (&json!("a.example/x:1"), &json!("held")));
    assert_eq!(served.post("/api/v1/schedules/nightly/pause", &json!({})).expect(200).json()["changed"], true);
    assert_eq!(served.get("/api/v1/schedules/nightly").expect(200).json()["state"], "paused");
    served.client.send("DELETE", "/api/v1/schedules/nightly", &[], None).expect(200);
    served.get("/api/v1/schedules/nightly").expect(404);
    assert_eq!(
        served.post("/api/v1/queues/slow/limit", &json!({"max_running": 2})).expect(200).json()["changed"],
        true
    );
    served.post("/api/v1/queues/slow/limit", &json!({"max_running": 0})).expect(400);
    assert_eq!(served.post("/api/v1/queues/held/resume", &json!({})).expect(200).json()["changed"], true);
    served.end();
}

#[test]
fn health_and_metrics_need_no_key_and_tell_what_is() {
    let binary = Binary::new();
    let key = key(&binary, &["ci", "--role", "admin"]);
    let served = Served::start(&binary, &["--api-key-auth"]);
    for (path, status) in [
        ("/health", "healthy"),
        ("/ready", "ready"),
        ("/live", "alive"),
        ("/health/ready", "ready"),
        ("/health/live", "alive"),
        ("/health/system", "healthy"),
    ] {
        assert_eq!(served.get(path).expect(200).json()["status"], status, "{path}");
    }
    served.get("/api/v1/status").expect(401);
    let status = Served { client: served.client.clone().bearer(&key), ..served };
    assert!(status.get("/api/v1/status").expect(200).json()["checks"]["database"]["message"].is_string());
    let text = status.get("/metrics").expect(200).text();
    for name in [
        "freightliner_http_requests_total{",
        "freightliner_http_request_duration_seconds_bucket{",
        "freightliner_auth_failures_total{type=\"missing\"} 1",
        "freightliner_jobs{state=\"pending\"} 0",
        "freightliner_worker_pool_size 16",
        "freightliner_database_up 1",
        "freightliner_blobs_total{how=\"mounted\"} 0",
    ] {
        assert!(text.contains(name), "{name} is not in\n{text}");
    }
    status.end();
}
