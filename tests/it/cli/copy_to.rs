//! `db copy-to`: a whole SQLite database goes to PostgreSQL, or nothing of it.

use super::{assert_names, error, number};
use crate::support::binary::Binary;
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::fake::{Fault, Matcher};
use crate::support::image::ImageBuilder;
use crate::support::pgbouncer::PgBouncer;
use crate::work::{Scene, enqueue, job};
use serde_json::{Value, json};

/// Tables that are copied row by row.
const TABLES: [&str; 11] = [
    "queues",
    "queue_changes",
    "jobs",
    "job_events",
    "transfers",
    "idempotency_keys",
    "finished_loads",
    "prunes",
    "pruned_jobs",
    "restores",
    "written_targets",
];

fn json_of(binary: &Binary, arguments: &[&str]) -> Value {
    binary.run(&[arguments, &["-o", "json"]].concat()).success().json()
}

fn rows(binary: &Binary, table: &str) -> i64 {
    number(binary, &format!("(SELECT count(*) FROM {table})"))
}

fn assert_empty(there: &Binary) {
    for table in TABLES {
        assert_eq!(rows(there, table), 0, "{table}");
    }
}

/// Another program, elsewhere, on an empty PostgreSQL database; None where there is no server.
fn elsewhere() -> Option<Binary> {
    Database::postgres().map(|database| Binary::new().on(database))
}

/// What a copy may not change of a job.
fn lasting(mut job: Value, ran: bool) -> Value {
    let fields = job.as_object_mut().unwrap();
    fields.remove("lease_epoch");
    if ran {
        for name in ["state", "attempt", "run_at", "worker", "lease_until"] {
            fields.remove(name);
        }
    }
    job
}

/// A database with jobs in every state: the scene, the running job, and the id of the last job, which is pruned.
fn every_state() -> (Scene, i64, i64) {
    let scene = Scene::new();
    let binary = &scene.binary;
    let steer = |words: &[&str]| drop(binary.run(words).success());
    let to = |tag: &str| scene.destination.reference("x", tag);
    scene.enqueue();
    scene.drain().success();
    scene.enqueue_to(&to("kept"), &["--idempotency-key", "a key"]);
    let absent = scene.source.reference("team/app", "absent");
    enqueue(binary, &["enqueue", &absent, &to("absent")]);
    for queue in ["nightly", "big"] {
        steer(&["queue", "pause", queue]);
    }
    steer(&["queue", "limit", "default", "7"]);
    scene.enqueue_to(&to("paused-queue"), &["--queue", "nightly"]);
    let held = scene.enqueue_to(&to("held"), &["--queue", "nightly"]);
    steer(&["jobs", "pause", &held.to_string()]);
    let overtakes = scene.enqueue_to(&to("held"), &[]);
    scene.enqueue_to(&to("later"), &["--in", "1h", "--idempotency-key", "later"]);
    let called_off = scene.enqueue_to(&to("cancelled"), &["--in", "1h"]);
    // An image that the destination has nothing of.
    let image = ImageBuilder::oci(2).layer(600_000).build();
    scene.source.put_image("team/app", "v2", &image);
    let stall = Fault::StallBodyAfter { bytes: 300_000, name: "held".to_owned() };
    scene.source.fault(Matcher::new("GET", &image.layers()[0].digest), stall);
    let from = scene.source.reference("team/app", "v2");
    let running = enqueue(binary, &["enqueue", &from, &to("running"), "--queue", "big"]);
    let last = scene.enqueue_to(&to("pruned"), &["--in", "1h"]);
    steer(&["jobs", "cancel", &last.to_string()]);
    steer(&["jobs", "prune", "--older-than", "0s"]);

    scene.drain().expect_code(1);
    // What it wrote stands before the job that is held.
    steer(&["jobs", "retry", &overtakes.to_string()]);
    steer(&["jobs", "cancel", &called_off.to_string(), &overtakes.to_string()]);
    steer(&["queue", "resume", "big"]);
    let worker = binary.spawn(&["work"]);
    scene.source.wait_reached("held");
    let output = binary.run(&["db", "copy-to", "postgres:///nowhere", "-o", "json"]).expect_code(1);
    assert_eq!(error(&output)["code"], "in_use", "a worker lives");
    worker.kill9();
    let states = binary.run(&["sql", "SELECT DISTINCT state FROM jobs", "-o", "json"]).success().json();
    assert_eq!(states.as_array().unwrap().len(), 6, "{states}");
    assert_eq!((scene.state(running).as_str(), number(binary, "(SELECT max(id) FROM jobs)")), ("running", running));
    (scene, running, last)
}

#[test]
fn everything_is_there_and_work_goes_on() {
    let Some(there) = elsewhere() else { return };
    let (scene, running, last) = every_state();
    let here = &scene.binary;
    let url = there.database().url();
    let counts = TABLES.map(|table| rows(here, table));
    assert!(TABLES.iter().zip(counts).all(|(table, rows)| rows > 0 || ["finished_loads", "restores"].contains(table)));
    let answer = json_of(here, &["db", "copy-to", &url]);
    assert_names(&answer, &["from", "to", "jobs", "events", "transfers", "requeued", "replaced", "duration_ms"]);
    assert_eq!(
        (&answer["jobs"], &answer["events"], &answer["transfers"]),
        (&json!(counts[2]), &json!(counts[3]), &json!(counts[4]))
    );
    assert_eq!((&answer["requeued"], &answer["replaced"]), (&json!(1), &json!(0)));

    assert_eq!(json_of(&there, &["db", "check"])["ok"], true);
    let list = |binary: &Binary| -> Vec<Value> {
        let jobs = json_of(binary, &["jobs", "list"]);
        let lasting = |job: &Value| lasting(job.clone(), job["id"] == running);
        jobs.as_array().unwrap().iter().map(lasting).collect()
    };
    assert_eq!(list(here), list(&there));
    for id in list(here).iter().map(|job| job["id"].as_i64().unwrap()) {
        let [old, new] = [here, &there].map(|binary| job(binary, id));
        assert!(new["lease_epoch"].as_i64().unwrap() >= old["lease_epoch"].as_i64().unwrap() + 1_000_000, "{new:#}");
        assert_eq!(lasting(old, id == running), lasting(new, id == running));
        let [old, new] = [here, &there].map(|binary| json_of(binary, &["jobs", "events", &id.to_string()]));
        let (old, new) = (old.as_array().unwrap(), new.as_array().unwrap());
        assert_eq!(old[..], new[..old.len()], "the history of job {id}");
        let reasons: Vec<_> = new[old.len()..].iter().map(|event| event["reason"].as_str().unwrap()).collect();
        let restored = ["restored from a backup", "restored"];
        assert_eq!(reasons, if id == running { &restored[..] } else { &restored[1..] }, "job {id}");
    }
    assert_eq!(job(&there, running)["state"], "scheduled");
    let queues = |binary: &Binary| {
        let mut queues = json_of(binary, &["queue", "list"]);
        queues
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .map(|queue| [queue["name"].take(), queue["paused_at"].take(), queue["max_running"].take()])
            .collect::<Vec<_>>()
    };
    assert_eq!(queues(here), queues(&there));
    for view in ["audit_transfers", "audit_prunes", "audit_queues"] {
        let query = format!("SELECT * FROM {view} ORDER BY 1, 2");
        assert_eq!(json_of(here, &["sql", &query]), json_of(&there, &["sql", &query]), "{view}");
    }

    // The old database is untouched, the new one goes on where it ended.
    assert_eq!(TABLES.map(|table| rows(here, table)), counts);
    let again = json_of(
        &there,
        &["enqueue", &scene.from(), &scene.destination.reference("x", "kept"), "--idempotency-key", "a key"],
    );
    assert_eq!(again["created"], false, "{again}");
    let next = enqueue(&there, &["enqueue", &scene.from(), &scene.destination.reference("x", "new")]);
    assert_eq!(next, last + 1);
    there.run(&["queue", "resume", "nightly"]).success();
    scene.source.heal();
    scene.destination.heal();
    there.run(&["work", "--drain"]).success();
    assert_eq!([running, next].map(|id| job(&there, id)["state"].clone()), ["completed", "completed"]);
    scene.destination.assert_holds("x", "new", &scene.image);
    there.run(&["queue", "pause", "default"]).success();
    there.run(&["jobs", "prune", "--older-than", "0s"]).success();
    assert_eq!(json_of(&there, &["db", "check"])["ok"], true);

    // A second copy finds it in use.
    let output = here.run(&["db", "copy-to", &url, "-o", "json"]).expect_code(2);
    let message = error(&output)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("is not empty") && message.contains("nothing was changed"), "{message}");
}

#[test]
fn a_target_with_anything_in_it_is_refused_untouched() {
    let Some(there) = elsewhere() else { return };
    let here = Binary::new();
    enqueue(&here, &["enqueue", "a.example/x:1", "b.example/x:1"]);
    there.run(&["queue", "pause", "nightly"]).success();
    let output = here.run(&["db", "copy-to", &there.database().url(), "-o", "json"]).expect_code(2);
    assert!(error(&output)["message"].as_str().unwrap().contains("table queues has 1 row"), "{output}");
    assert_eq!((rows(&there, "jobs"), rows(&there, "queue_changes")), (0, 1));
    // Its triggers are awake.
    assert_eq!(enqueue(&there, &["enqueue", "a.example/x:1", "b.example/x:1"]), 1);
    assert_eq!(rows(&there, "job_events"), 1);
}

#[test]
fn a_copy_goes_through_a_transaction_pooler() {
    let Some(there) = elsewhere() else { return };
    let Database::Postgres { own } = there.database() else { panic!("elsewhere is PostgreSQL") };
    let Some(bouncer) = PgBouncer::start(own) else { return };
    let here = Binary::new();
    let lines: String = (0..2_500).map(|n| format!("a.example/x:{n} b.example/x:{n}\n")).collect();
    here.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    assert_eq!(json_of(&here, &["db", "copy-to", &bouncer.url()])["jobs"], 2_500);
    assert_eq!(json_of(&there, &["db", "check"])["ok"], true);
}

#[test]
fn other_kinds_of_databases_are_refused_with_what_to_do() {
    let here = Binary::new();
    let file = here.home().join("copy.db");
    let output = here.run(&["db", "copy-to", "postgres:///nowhere", "-o", "json"]).expect_code(1);
    assert_eq!(error(&output)["code"], "not_found", "there is nothing to copy yet");
    assert!(!here.database().file().exists());
    enqueue(&here, &["enqueue", "a.example/x:1", "b.example/x:1"]);
    let output = here.run(&["db", "copy-to", &format!("sqlite:{}", file.display()), "-o", "json"]).expect_code(2);
    assert!(error(&output)["hint"].as_str().unwrap().contains("db backup"), "{output}");
    assert!(!file.exists());
    let output = here.run(&["db", "copy-to", "mysql://me:secret@x/y"]).expect_code(2);
    assert!(!output.errors().contains("secret"), "{output}");
    let output =
        here.run(&["--database", "postgres:///x", "db", "copy-to", "postgres:///y", "-o", "json"]).expect_code(2);
    assert!(error(&output)["hint"].as_str().unwrap().contains("pg_dump"), "{output}");
}

#[test]
fn text_that_postgresql_cannot_hold_does_not_stop_a_copy() {
    let Some(there) = elsewhere() else { return };
    let here = Binary::new();
    let good = enqueue(&here, &["enqueue", "a.example/x:1", "b.example/x:1", "--in", "1h"]);
    // By a stranger: a NUL, and bytes that are no UTF-8.
    let insert = "INSERT INTO jobs (source, destination, queue, idempotency_key) VALUES \
        (CAST(x'612e6578616d706c652f78ff' AS TEXT), 'b.example/x:2', CAST(x'6100' AS TEXT), CAST(x'6bff' AS TEXT))";
    if here.sql(insert).is_none() {
        return;
    }
    let history = "INSERT INTO job_events (job_id, at, from_state, to_state, generation, lease_epoch, attempt, actor, detail) \
        VALUES (2, 0, 'pending', 'pending', 1, 0, 0, 'me', 'no json')";
    here.sql(history);
    let output = here.run(&["db", "copy-to", &there.database().url(), "-o", "json"]).success();
    // Source, queue, the key in two tables, and the detail.
    assert_eq!(output.json()["replaced"], 5, "{output}");
    let told = output.errors();
    assert!(told.contains("job=2") || told.contains("\"job\":2"), "{told}");
    assert_eq!(job(&there, good)["source"], job(&here, good)["source"]);
    let copied = job(&there, 2);
    assert_eq!(copied["source"], "a.example/x\u{fffd}");
    assert!(copied["queue"].as_str().unwrap().starts_with("a\u{fffd}~"), "{copied}");
    let events = json_of(&there, &["jobs", "events", "2"]);
    assert!(events.as_array().unwrap().iter().any(|event| event["detail"] == "no json"), "{events}");
    assert_eq!(json_of(&there, &["db", "check"])["ok"], true);
}

#[test]
fn a_copy_that_does_not_come_to_its_end_leaves_nothing() {
    let Some(there) = elsewhere() else { return };
    let here = Binary::new();
    let lines: String = (0..20_000).map(|n| format!("a.example/x:{n} b.example/x:{n}\n")).collect();
    here.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    there.run(&["db", "migrate"]).success();
    let url = there.database().url();
    // The size of a table shows what nobody else can see yet: jobs are being copied, and all is copied and being made safe.
    for table in ["jobs", "restores"] {
        let running = here.spawn(&["db", "copy-to", &url]);
        eventually("rows", || (number(&there, &format!("pg_relation_size('{table}')")) > 0).then_some(()));
        let output = running.kill9();
        assert_eq!(output.code(), None, "it was killed in the middle: {output}");
        assert_empty(&there);
        eventually("the server to notice", || {
            let others = "(SELECT count(*) FROM pg_locks WHERE relation = 'jobs'::regclass AND mode LIKE 'Share%')";
            (number(&there, others) == 0).then_some(())
        });
        assert_eq!(number(&there, "(SELECT last_value FROM job_events_seq_seq)"), 1, "numbers begin anew");
        there.sql("VACUUM jobs");
        there.sql("VACUUM restores");
    }
    // Somebody writes to the source while it is copied.
    let mut running = here.spawn(&["db", "copy-to", &url, "-o", "json"]);
    eventually("rows", || (number(&there, "pg_relation_size('jobs')") > 0).then_some(()));
    running.sigstop();
    enqueue(&here, &["enqueue", "a.example/x:late", "b.example/x:late"]);
    running.sigcont();
    let output = running.finish().expect_code(2);
    assert!(error(&output)["message"].as_str().unwrap().contains("written to while it was copied"), "{output}");
    assert_empty(&there);

    let answer = here.run(&["db", "copy-to", &url]).success();
    assert!(answer.text().contains("20001 jobs") || answer.text().contains("20,001 jobs"), "{answer}");
    assert_eq!(json_of(&there, &["db", "check"])["ok"], true);
    assert_eq!(enqueue(&there, &["enqueue", "a.example/x:next", "b.example/x:next"]), 20_002);
}

#[test]
fn a_key_that_does_not_fit_is_refused_by_its_job() {
    let Some(there) = elsewhere() else { return };
    let here = Binary::new();
    let long = "k".repeat(2601);
    for (tag, key) in [("1", "short"), ("2", long.as_str())] {
        here.run(&["enqueue", "a.example/x", &format!("b.example/x:{tag}"), "--idempotency-key", key]).success();
    }
    let url = there.database().url();
    let output = here.run(&["db", "copy-to", &url, "-o", "json"]).expect_code(2);
    let message = error(&output)["message"].as_str().unwrap().to_owned();
    for word in ["job 2 ", "2601 bytes", "2600 at most", "jobs prune", "DELETE FROM idempotency_keys WHERE job_id = 2"]
    {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_empty(&there);
    // What it says helps.
    here.run(&["jobs", "cancel", "2"]).success();
    here.run(&["jobs", "prune", "--older-than", "0s"]).success();
    let output = here.run(&["db", "copy-to", &url]).expect_code(2);
    assert!(output.errors().contains("job 2 "), "the key outlives its job: {output}");
    if here.sql("DELETE FROM idempotency_keys WHERE job_id = 2").is_some() {
        here.run(&["db", "copy-to", &url]).success();
        assert_eq!(rows(&there, "jobs"), 1);
    }
}
